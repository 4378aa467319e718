"""The programs behind the figures in docs/real-clips.md."""
import shutil

import numpy
from scipy import optimize, special

import helperFunctions as hf
import importFeatures
import innerSplits
import logisticRegression
import orderTask
from engine import hdf5, variants
from engine.learning import statistics
from engine.reporting import predictionfile, resultsfile


def test_clips_come_in_both_orders_and_learn_in_one_group(undisturbed, tmp_path, call_in):
    for task, turned in (('direction', lambda rows: rows[::-1]),
                         ('halves', lambda rows: numpy.concatenate(
                             [rows[len(rows) // 2:], rows[:len(rows) // 2]]))):
        out = tmp_path / task
        before = hf.read_lists(undisturbed)
        assert orderTask.make_task(undisturbed, task, out) == 2 * len(before.train + before.test)
        call_in(out, importFeatures, out / 'arrays')
        lists = hf.read_lists(out)
        train, validation = hf.hold_out_fold(lists.train, '1/2')
        assert {c.group for c in train}.isdisjoint(c.group for c in validation)
        for side, clips in ((lists.train, before.train), (lists.test, before.test)):
            assert len(side) == 2 * len(clips)
            for clip, pair in zip(clips, zip(side[::2], side[1::2])):
                rows, *both = (
                    numpy.load(variants.output_path(root, variants.FEATURES, c))
                    for root, c in ((undisturbed, clip), (out, pair[0]), (out, pair[1])))
                assert numpy.array_equal(both[0], rows) and numpy.array_equal(both[1], turned(rows))
                assert [c.label for c in pair] == [0, 1] and {c.group for c in pair} == {clip.group}


def test_logistic_regression_is_at_its_optimum_on_the_clips_means(undisturbed, tmp_path, call_in):
    root = shutil.copytree(undisturbed, tmp_path / 'root', symlinks=True)
    call_in(root, logisticRegression)
    line = resultsfile.read_results(root / resultsfile.RESULTS)[0][-1]
    assert (line['method'], line['unit'], line['predictions']) == (
        'logistic regression', 'video', 'logistic_testPredictions.hdf5')
    lists, names = hf.read_lists(root), variants.Names()
    with hdf5.open_hdf5(root / names.train, '') as f:
        mean, std = statistics.read(f, '')[:2]
        held_out = set(hdf5.read_names(f, 'held_out'))

    def means(clips):
        return numpy.array([numpy.load(variants.output_path(root, names.features, clip)).astype(
            float).mean(axis=0) for clip in clips]), numpy.array([clip.label for clip in clips])
    x, y = means([clip for clip in lists.train if clip.name not in held_out])
    said, _ = predictionfile.read_predictions(root / line['predictions'], lists.test)
    p = numpy.concatenate([said[clip.name] for clip in lists.test])
    assert numpy.allclose(p.sum(axis=1), 1, atol=1e-5)
    hits = p.argmax(axis=1) == means(lists.test)[1]
    assert line['top1'] == hits.mean()
    x, xt = ((rows - mean) / std for rows in (x, means(lists.test)[0]))
    one = numpy.eye(len(lists.classes))[y]

    def loss(flat):  # scikit-learn's: half the squared weights, and C times the sum of losses
        W = flat.reshape(-1, one.shape[1])
        scores = x @ W[1:] + W[0]
        q = special.softmax(scores, axis=1)
        slope = line['C'] * (q - one)
        return ((W[1:] ** 2).sum() / 2
                - line['C'] * (one * numpy.log(q)).sum()), numpy.concatenate(
                    [slope.sum(axis=0), (x.T @ slope + W[1:]).ravel()])
    W = optimize.minimize(loss, numpy.zeros((1 + x.shape[1]) * one.shape[1]), jac=True,
                          options={'maxiter': 5000}).x.reshape(-1, one.shape[1])
    assert numpy.allclose(p, special.softmax(xt @ W[1:] + W[0], axis=1), atol=1e-3)


def test_inner_roots_judge_each_training_clip_once_and_read_no_test_clip(small_set, tmp_path):
    before, judged = hf.read_lists(small_set), []
    for k in '12':
        innerSplits.make_inner(small_set, tmp_path / k, f'{k}/2')
        lists = hf.read_lists(tmp_path / k)
        assert {c.group for c in lists.train}.isdisjoint(c.group for c in lists.test)
        assert lists.classes == before.classes
        assert (tmp_path / k / 'VGG.model').readlink() == small_set.resolve() / 'VGG.model'
        judged += lists.test
        everything = lists.train + lists.test
        assert sorted((c.name, c.label, c.group) for c in everything) == sorted(
            (c.name, c.label, c.group) for c in before.train)
        assert all(c.path.exists() for c in everything)
    assert sorted(c.name for c in judged) == sorted(c.name for c in before.train)
