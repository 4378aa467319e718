"""Combining predictions, against averages worked out by hand."""
import json
import re
import sys

import numpy
import pytest

import combine
import featureSet
import helperFunctions as hf
from engine.reporting import predictionfile, resultsfile
from engine.errors import UserError


def test_weighted_average_by_hand():
    logs = numpy.log([[[0.5, 0.5]], [[0.9, 0.1]]])
    # 0.5^(1/3) 0.9^(2/3) : 0.5^(1/3) 0.1^(2/3) = 9^(2/3) : 1
    ratio = 9 ** (2 / 3)
    expected = [ratio / (1 + ratio), 1 / (1 + ratio)]
    found = numpy.exp(combine.combine(logs, [1, 2]))
    assert found.tolist() == [pytest.approx(expected)]
    assert numpy.allclose(found, numpy.exp(combine.combine(logs, [10, 20])))
    assert numpy.allclose(numpy.exp(combine.combine(logs, [1, 0])), [[0.5, 0.5]])


def test_what_a_file_adds_to_all_classes_does_not_matter():
    logs = numpy.log(numpy.random.RandomState(0).dirichlet(numpy.ones(4), (3, 5)))
    moved = logs + numpy.array([0, -700, 3])[:, None, None]
    assert numpy.allclose(combine.combine(logs, [1, 2, 3]), combine.combine(moved, [1, 2, 3]))


def test_grid():
    assert list(combine.grid(2, 3)) == [(0, 3), (1, 2), (2, 1), (3, 0)]
    three = list(combine.grid(3, 10))
    assert len(set(three)) == 66 and all(sum(weights) == 10 for weights in three)


def test_choose_takes_the_file_that_knows():
    labels = numpy.arange(30) % 3
    right = numpy.log(numpy.where(numpy.eye(3)[labels] == 1, 0.8, 0.1))
    wrong = numpy.log(numpy.where(numpy.eye(3)[(labels + 1) % 3] == 1, 0.8, 0.1))
    assert combine.choose(numpy.array([wrong, right]), labels) == (0, 1)
    # Each knows half of the clips and nothing of the others: both are needed.
    half = labels * 0 == 1
    half[::2] = True
    nothing = numpy.log(numpy.full((30, 3), 1 / 3))
    both = numpy.array([numpy.where(half[:, None], right, nothing),
                        numpy.where(half[:, None], nothing, right)])
    first, second = combine.choose(both, labels)
    assert first > 0 and second > 0


def sure(*shares):
    """Log probabilities of two classes, of which the first is the true one."""
    return numpy.log([[share, 1 - share] for share in shares])


def test_choose_takes_the_most_right_first_and_then_the_lowest_loss():
    # a has all right, barely; b is sure of two and wrong in the third. The odds of the third,
    # 0.05 (1 - w) - 0.405 w, stay above 0 up to w = 0.1, though more of b lowers the loss.
    a, b = sure(0.51, 0.51, 0.5125), sure(0.99, 0.99, 0.4)
    assert combine.choose(numpy.array([a, b]), [0, 0, 0]) == (0.9, 0.1)
    assert combine.choose(numpy.array([b, a]), [0, 0, 0]) == (0.1, 0.9)
    # Both have all right: the surer one alone, whichever comes first.
    assert combine.choose(numpy.array([sure(0.9), sure(0.6)]), [0]) == (1, 0)
    assert combine.choose(numpy.array([sure(0.6), sure(0.9)]), [0]) == (0, 1)


@pytest.fixture
def root(tmp_path):
    """Two methods, a right where b is wrong by little, on test and validation clips."""
    lists = featureSet.make_features(tmp_path)
    held_out = hf.hold_out_groups(lists.train)[1]
    for kind, clips in (('test', lists.test), ('validation', held_out)):
        for name, method, other in ((f'{kind}Predictions1024', 'frames', 0.2),
                                    (f'b_{kind}Predictions', 'b', 0.35)):
            rows = []
            for clip in clips:
                row = numpy.full(3, (1 - 0.3 - other) if method == 'frames' else 0.3)
                row[clip.label] = 0.3 if method == 'frames' else 0.4
                rows.append((clip.name, [row / row.sum()] * 4))
            predictionfile.write_predictions(tmp_path / f'{name}.hdf5', rows, lists.classes,
                                             method, 1)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['combine.py', '--root', str(root), *map(str, flags)])
        combine.main()
        return capsys.readouterr().out
    return run


FILES = ('testPredictions1024.hdf5', 'b_testPredictions.hdf5')


def test_writes_files_that_other_stages_read(root, run):
    out = run(root, *FILES, '--weights', 1, 3, '--name', 'ab')
    assert 'confusion.py' in out and 'frames + b by video' in out
    line = json.loads((root / 'results.jsonl').read_text())
    assert line['settings'] == {'files': list(FILES), 'weights': [0.25, 0.75], 'chosen': False}
    lists = hf.read_lists(root)
    found, attrs = predictionfile.read_predictions(root / line['predictions'], lists.test,
                                                   lists.classes)
    assert line['predictions'] == 'ab_testPredictions.hdf5'
    assert (attrs['method'], attrs['readout']) == ('frames + b', 'mean')
    clip = lists.test[0]
    alone = [predictionfile.read_predictions(root / name, [clip])[0][clip.name][0]
             for name in FILES]
    expected = alone[0].astype(float) ** 0.25 * alone[1].astype(float) ** 0.75
    assert numpy.allclose(found[clip.name], [expected / expected.sum()])
    assert line['n'] == len(lists.test) and 'validation_loss' in line
    assert (root / 'ab_validationPredictions.hdf5').exists()
    # What was combined can be combined again.
    run(root, 'ab_testPredictions.hdf5', FILES[0], '--choose')


def test_the_line_tells_the_seeds_and_recipes_of_its_members(root, run):
    def line():
        lines = map(json.loads, (root / 'results.jsonl').read_text().splitlines())
        return [line for line in lines if ' + ' in line['method']][-1]
    for method, seed, name in (('frames', 0, FILES[0]), ('b', 1, FILES[1])):
        run(root, *FILES, '--seed', 7)
        assert line()['seed'] == 7 and 'members' not in line()  # not every file is told of
        resultsfile.append_result(root, method, 1, 'video', seed, {'lr': seed}, n=1, top1=0.5,
                                  predictions=name)
    run(root, *FILES, '--choose', '--name', 'ab')
    members = [{'method': 'frames', 'settings': {'lr': 0}, 'members': None},
               {'method': 'b', 'settings': {'lr': 1}, 'members': None}]
    assert (line()['seed'], line()['members']) == ('0+1', members)
    run(root, FILES[1], 'ab_testPredictions.hdf5')
    assert line()['seed'] == '1+0+1'
    assert line()['members'][1] == {'method': 'frames + b', 'settings': {'chosen': True},
                                    'members': members}


def test_choose_looks_at_validation_clips_alone(root, run):
    out = run(root, *FILES, '--choose')
    # What it chose by is said, beside how the test went.
    told = re.search(r'validation:  top-1 ([\d.]+), ([\d.]+) alone, ([\d.]+) combined', out)
    assert max(told.group(1), told.group(2)) <= told.group(3)
    first = json.loads((root / 'results.jsonl').read_text().splitlines()[-1])
    assert first['settings']['chosen'] and first['settings']['weights'][1] == 1
    # With the test files exchanged the weights stay as they are.
    a, b = (root / name for name in FILES)
    data = a.read_bytes(), b.read_bytes()
    a.write_bytes(data[1])
    b.write_bytes(data[0])
    run(root, *FILES, '--choose')
    second = json.loads((root / 'results.jsonl').read_text().splitlines()[-1])
    assert second['settings']['weights'] == first['settings']['weights']
    assert second['validation_loss'] == first['validation_loss'] and second['loss'] != first['loss']


@pytest.mark.parametrize('kind', ['test', 'validation'])
def test_the_file_that_lacks_clips_is_named(root, run, kind):
    lists = hf.read_lists(root)
    path = root / f'b_{kind}Predictions.hdf5'
    found, _ = predictionfile.read_predictions(path, lists.test + lists.train)
    first = sorted(found)[0]
    found.pop(first)
    predictionfile.write_predictions(path, found.items(), lists.classes, 'b', 1)
    told, = [line for line in run(root, *FILES).splitlines() if 'left out' in line]
    assert told == (f'{path}: this {kind} file lacks 1 clips that others hold, {first} first; they '
                    'are left out')
    assert json.loads((root / 'results.jsonl').read_text())['n'] == len(lists.test) - (
        kind == 'test')


def test_weights_are_chosen_by_clips_that_all_held_out_and_it_is_said_how_many(root, run):
    """As of frame networks that were trained with other seeds."""
    lists = hf.read_lists(root)

    def held_out(*of_class):
        """Makes the file of b hold the last so many clips of each class, after those that the
        other file holds."""
        clips = [clip for label, n in enumerate(of_class) for clip in [
            *(clip for clip in both if clip.label == label),
            *(clip for clip in lists.train if clip.label == label and clip not in both)][-n:]]
        predictionfile.write_predictions(
            root / 'b_validationPredictions.hdf5',
            [(clip.name, [[0.2, 0.3, 0.5]]) for clip in clips], lists.classes, 'b', 1)
    both = hf.hold_out_groups(lists.train)[1]
    assert [clip.label for clip in both] == [0, 0, 1, 1, 2, 2]
    held_out(9, 9, 9)
    told = run(root, *FILES, '--choose')
    assert '--choose: all files held out 3 of 30 clips; these decide, the others are left' in told
    held_out(9, 8, 9)
    for flags in (['--choose'], ['--calibrate', '--weights', 1, 1]):
        with pytest.raises(UserError, match=f'{flags[0]}: all files held out 2 of 30 clips, none '
                                            'of Bowling; train the frame networks with one '):
            run(root, *FILES, *flags)
    held_out(8, 8, 8)
    with pytest.raises(UserError, match='all files held out 0 of 30 clips, none of Archery'):
        run(root, *FILES, '--choose')
    # What needs none of them goes on.
    assert 'in all of them; nothing is validated' in run(root, *FILES)
    line = json.loads((root / 'results.jsonl').read_text().splitlines()[-1])
    assert 'validation_loss' not in line and line['n'] == len(lists.test)
    assert not (root / 'combined_validationPredictions.hdf5').exists()


@pytest.mark.parametrize('name', [FILES[1], 'b_validationPredictions.hdf5'])
def test_no_file_that_is_read_is_written_over(root, run, name):
    before = (root / name).read_bytes()
    with pytest.raises(UserError, match='--name b: would write over .*b_testPredictions.hdf5'):
        run(root, *FILES, '--name', 'b')
    (root / 'x.model').touch()
    with pytest.raises(UserError, match='--name x: x_testPredictions.hdf5 holds what .*x.model'):
        run(root, *FILES, '--name', 'x')
    assert (root / name).read_bytes() == before and not (root / 'results.jsonl').exists()


@pytest.mark.parametrize('flags,why', [
    ([FILES[0]], 'two files'), ([*FILES, FILES[0]], 'given twice'),
    ([*FILES, '--weights', 1], '2 numbers'),
    ([*FILES, '--weights', 0, 0], 'all 0'),
    ([*FILES, '--weights', 1, 1, '--choose'], 'one of the two'),
    ([FILES[0], 'c_testPredictions.hdf5'], 'not there; made by: python rnn.py --name c --root'),
    ([FILES[0], 'testPredictions1024_flow.hdf5', '--choose'],
     'validationPredictions1024_flow.hdf5: not there; made by: python save_hdf5.py --stream flow'),
    ([FILES[0], 'validationPredictions1024.hdf5'], 'no test clip of split 1 is in all'),
    ([FILES[0], 'c.hdf5', '--choose'], 'rename it'), ([*FILES, '--name', 'a/b'], 'not a path')])
def test_refused_in_one_line(root, run, flags, why):
    with pytest.raises(UserError, match=why):
        run(root, *flags)


def test_calibrated_each_file_is_weighed_as_sure_as_it_is_right(root, run):
    """Against the formula: p_1^(w_1/T_1) p_2^(w_2/T_2), normalised."""
    lists = hf.read_lists(root)
    held_out = hf.hold_out_groups(lists.train)[1]
    # b is nearly sure of the right class, but of one clip in four that it gets wrong.
    rows = []
    for number, clip in enumerate(held_out):
        row = numpy.full(3, 0.005)
        row[(clip.label + (number % 4 == 0)) % 3] = 0.99
        rows.append((clip.name, [row] * 2))
    predictionfile.write_predictions(root / 'b_validationPredictions.hdf5', rows, lists.classes,
                                     'b', 1)
    said = run(root, *FILES, '--weights', 1, 3, '--calibrate')
    line = json.loads((root / 'results.jsonl').read_text())
    first, second = line['settings']['temperatures']
    assert first == 1  # never right: nothing tells how sure to be
    # with hot = exp(log(198) / T), hot / (hot + 2) are to be as many as are right
    right = numpy.mean([number % 4 > 0 for number in range(len(held_out))])
    assert second == pytest.approx(numpy.log(198) / numpy.log(2 * right / (1 - right)), rel=1e-3)
    assert f'b_testPredictions.hdf5 at temperature {second:.2f}:' in said
    clip = lists.test[0]
    alone = [predictionfile.read_predictions(root / name, [clip])[0][clip.name][0].astype(float)
             for name in FILES]
    expected = alone[0] ** 0.25 * alone[1] ** (0.75 / second)
    found, _ = predictionfile.read_predictions(root / line['predictions'], [clip])
    assert numpy.allclose(found[clip.name], [expected / expected.sum()], atol=1e-6)
    # What comes out has a temperature of its own, and an error of sureness.
    assert 'calibration error' in said and line['temperature'] > 0 and 'ece_calibrated' in line
