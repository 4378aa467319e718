"""Sequences for training and for testing, against cases worked out by hand."""
import h5py
import numpy
import pytest

import featureSet
from engine import hdf5, variants
from RNNNet import RNNNet
from engine.learning import inference
from engine.errors import UserError
from engine.learning.inference import predict, sequences_of
from engine.learning.sequences import (FeatureStore, SequenceBatches, by_length, reverse_append,
                                       say_if_short)
from engine.learning.trainer import say_if_few


@pytest.mark.parametrize('n,steps,frames', [
    (3, 3, [0, 1, 2]), (3, 2, [0, 1, 2]), (3, 5, [0, 1, 2, 2, 1]),
    (3, 8, [0, 1, 2, 2, 1, 0, 0, 1]), (2, 9, [0, 1, 1, 0, 0, 1, 1, 0, 0]),
    (1, 4, [0, 0, 0, 0]), (4, 1, [0, 1, 2, 3]), (2, 4, [0, 1, 1, 0])])
def test_reverse_append(n, steps, frames):
    assert reverse_append(n, steps).tolist() == frames


@pytest.mark.parametrize('technique,n,steps,frames', [
    ('full', 5, 3, [[0, 1, 2, 3, 4]]),
    ('first', 5, 0, [[0, 1, 2, 3, 4]]),
    ('first', 5, 3, [[0, 1, 2]]),
    ('first', 2, 3, [[0, 1, 1]]),
    ('middle', 7, 3, [[2, 3, 4]]),
    ('middle', 2, 3, [[0, 1, 1]]),
    ('segments:2', 7, 3, [[0, 1, 2], [4, 5, 6]]),
    ('segments:3', 7, 3, [[0, 1, 2], [2, 3, 4], [4, 5, 6]]),
    ('segments:5', 4, 3, [[0, 1, 2], [1, 2, 3]]),  # there are no more than two
    ('segments:4', 2, 3, [[0, 1, 1]])])
def test_which_frames_are_shown(technique, n, steps, frames):
    found = sequences_of('clip', n, technique, steps)
    assert [sequence.tolist() for sequence in found] == frames
    found = sequences_of('clip', n, technique, steps, reverse_too=True)
    assert [sequence.tolist() for sequence in found] == frames + [f[::-1] for f in frames]


def test_random_segment_depends_on_clip_and_seed_alone():
    starts = {sequences_of(f'clip{k}', 50, 'random', 10)[0][0] for k in range(300)}
    assert starts == set(range(41))  # every place is possible
    assert len({sequences_of('clip', 50, 'random', 10, seed=seed)[0][0]
                for seed in range(20)}) > 5
    again = sequences_of('clip3', 50, 'random', 10)
    assert numpy.array_equal(again, sequences_of('clip3', 50, 'random', 10))


@pytest.mark.parametrize('text', ['segments', 'segments:1', 'segments:x', 'last', 'full:2', ''])
def test_unknown_techniques_are_refused(text):
    with pytest.raises(UserError, match='segments:N'):
        inference.check_technique(text, 9)


def test_by_length():
    lengths = [10, 100, 11, 12, 13, 100, 9, 101]
    groups = [[lengths[i] for i in places] for places in by_length(lengths, 3)]
    assert groups == [[9, 10, 11], [12, 13], [100, 100, 101]]


@pytest.fixture
def store(tmp_path):
    lists = featureSet.make_features(tmp_path)
    f = hdf5.open_hdf5(tmp_path / variants.TRAIN_HDF5, '')
    yield FeatureStore(f, lists.train)
    f.close()


def epoch_of(batches, start=0):
    return [batches.make(start + k) for k in range(batches.batches_per_epoch)]


def test_an_epoch_holds_every_clip_once_with_a_smaller_last_batch(store):
    batches = SequenceBatches(store, 8, 12, seed=0)
    assert len(store) == 30 and batches.batches_per_epoch == 4
    epoch = epoch_of(batches)
    assert [len(labels) for _, labels, _ in epoch] == [8, 8, 8, 6]
    assert sorted(numpy.concatenate([labels for _, labels, _ in epoch])) == sorted(store.labels)
    assert all(xs.shape == (12, len(labels), 6) and (lengths == 12).all()
               for xs, labels, lengths in epoch)


def test_a_batch_follows_from_its_number_alone(store):
    options = dict(stride=2, noise=0.5, drop_frames=0.3)
    straight = epoch_of(SequenceBatches(store, 8, 12, 3, **options))
    jumped = SequenceBatches(store, 8, 12, 3, **options).make(2)
    for a, b in zip(straight[2], jumped):
        assert numpy.array_equal(a, b)
    other = SequenceBatches(store, 8, 12, 4, **options).make(2)
    assert not numpy.array_equal(jumped[0], other[0])


def place(store, sequence):
    """Which frames of which clip a (steps, D) sequence shows."""
    for index, data in enumerate(store.sets):
        frames = [numpy.flatnonzero((data == row).all(axis=1)) for row in sequence]
        if all(len(found) == 1 for found in frames):
            return index, numpy.concatenate(frames)
    raise AssertionError('the sequence shows frames of no clip')


def test_segments_are_runs_of_one_clip_either_way_and_anywhere(store):
    directions, starts = set(), set()
    batches = SequenceBatches(store, 30, 8, 0)
    for epoch in range(6):
        xs, labels, _ = batches.make(epoch)
        for column, label in enumerate(labels):
            index, frames = place(store, xs[:, column])
            assert store.labels[index] == label
            if store.lengths[index] >= 8:
                assert abs(numpy.diff(frames)).tolist() == [1] * 7
                directions.add(int(frames[1] - frames[0]))
                starts.add(int(frames.min()) / max(store.lengths[index] - 8, 1))
    assert directions == {1, -1}
    assert min(starts) == 0 and max(starts) == 1 and len(starts) > 10


def test_strides_and_dropped_frames(store):
    strides = set()
    for xs, _, _ in epoch_of(SequenceBatches(store, 8, 5, 0, reverse=False, stride=3)):
        for column in range(xs.shape[1]):
            index, frames = place(store, xs[:, column])
            if store.lengths[index] > 12:
                strides.update(numpy.diff(frames).tolist())
    assert strides == {1, 2, 3}
    repeats = steps = 0
    for xs, _, _ in epoch_of(SequenceBatches(store, 8, 100, 0, drop_frames=0.3)):
        same = (xs[1:] == xs[:-1]).all(axis=2)
        repeats, steps = repeats + same.sum(), steps + same.size
    # the turns of reverse-append repeat a frame, too
    assert 0.28 < repeats / steps < 0.42


def test_variable_length_pads_with_zeros_behind(store):
    n_short = 0
    for xs, labels, lengths in epoch_of(SequenceBatches(store, 8, 12, 0, reverse=False,
                                                        variable_length=True)):
        assert len(xs) == lengths.max() <= 12
        for column, length in enumerate(lengths):
            index, frames = place(store, xs[:length, column])
            assert numpy.diff(frames).tolist() == [1] * (length - 1)
            assert length == min(12, store.lengths[index])
            assert not xs[length:, column].any()
            n_short += length < 12
    assert n_short > 3


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_read_from_the_file_as_from_memory(tmp_path, dtype):
    lists = featureSet.make_features(tmp_path, dtype)
    with hdf5.open_hdf5(tmp_path / variants.TRAIN_HDF5, '') as f:
        held, read = FeatureStore(f, lists.train), FeatureStore(f, lists.train, memory=0)
        assert held.in_memory and not read.in_memory
        for frames in ([2, 3, 4], [4, 3, 2], [0, 0, 1, 1], [3]):
            a, b = (store.rows(5, numpy.array(frames)) for store in (held, read))
            assert a.dtype == b.dtype == numpy.float32 and numpy.array_equal(a, b)
            assert numpy.array_equal(a, f[lists.train[5].name][()][frames])


def test_no_clip_to_train_on(store):
    store.clips = []
    with pytest.raises(UserError, match='no training clip'):
        SequenceBatches(store, 8, 12, 0)


# ---- what the network says of whole clips ------------------------------------

def network(cell, cells=(16, 8)):
    numpy.random.seed(1)
    model = RNNNet(6, 3, cell, cells, hidden=5)
    model.set_statistics(numpy.linspace(-1, 1, 6), numpy.linspace(0.5, 2, 6))
    return model


def said(model, store, batch_size, **how):
    device = model.device
    return dict(predict(model, store, device, batch_size,
                        **{**dict(technique='full', steps=0), **how}))


@pytest.mark.parametrize('cell', ['lstm', 'gru', 'linear', 'mean'])
@pytest.mark.parametrize('how', [dict(), dict(technique='segments:3', steps=7, reverse_too=True)])
def test_a_score_is_the_same_alone_and_in_any_batch(store, cell, how, monkeypatch):
    model = network(cell)
    alone = said(model, store, 1, **how)
    assert sorted(alone) == sorted(clip.name for clip in store.clips)
    for batch_size, window in ((7, 120), (64, 120), (64, 4)):
        monkeypatch.setattr(inference, 'WINDOW', window)
        together = said(model, store, batch_size, **how)
        for name, steps in alone.items():
            assert steps.shape == together[name].shape
            assert abs(steps - together[name]).max() < 1e-6


def test_predictions_of_a_whole_clip_are_the_network_s(store):
    import chainer
    model = network('lstm')
    clip = said(model, store, 16)[store.clips[4].name]
    model.reset_state()
    with chainer.using_config('train', False):
        scores = model(store.sets[4][:, None].astype('f')).array[:, 0]
    expected = numpy.exp(scores) / numpy.exp(scores).sum(axis=1, keepdims=True)
    assert abs(clip - expected).max() < 1e-6


def test_segments_are_averaged_step_by_step_in_log_probability(store):
    model = network('gru')
    n, name = int(store.lengths[0]), store.clips[0].name
    both = said(model, store, 16, technique='first', steps=6, reverse_too=True)[name]
    forward = said(model, store, 16, technique='first', steps=6)[name]
    assert n >= 6
    store.sets[0] = store.sets[0][:6][::-1]
    backward = said(model, store, 16, technique='first', steps=6)[name]
    expected = numpy.sqrt(forward.astype(float) * backward)
    expected /= expected.sum(axis=1, keepdims=True)
    assert abs(both - expected).max() < 1e-6


@pytest.mark.parametrize('put', [lambda f, name: f.create_group(name),
                                 lambda f, name: f.create_dataset(name, data=b'text'),
                                 lambda f, name: f.create_dataset(name, data=[1.0, 2.0]),
                                 lambda f, name: f.create_dataset(name, data=1.0)])
def test_what_is_no_clip_is_one_line(tmp_path, put):
    lists = featureSet.make_features(tmp_path)
    with h5py.File(tmp_path / variants.TRAIN_HDF5, 'r+') as f:
        del f[lists.train[2].name]
        put(f, lists.train[2].name)
        with pytest.raises(UserError, match=f'{lists.train[2].name} .*save_hdf5.py'):
            FeatureStore(f, lists.train)


def test_what_little_there_is_to_learn_from_is_said(capsys):
    say_if_short([10, 119, 200], 120)
    assert '2 of 3 clips have fewer frames than --steps 120' in capsys.readouterr().out
    say_if_short([10, 120, 200, 300], 120)
    advice = {'a lower a': True, 'b': False, 'c': True}
    say_if_few(50, advice, 'x.md')
    assert not capsys.readouterr().out
    for updates, others, words in (
            (49, {}, '49 updates an epoch are few to learn from: with few clips a lower a and c '
             'may help'),
            (1, {'c': False}, '1 update an epoch is few to learn from: with few clips a lower a '
             'may help'),
            (2, dict.fromkeys(advice, False), '2 updates an epoch are few to learn from')):
        say_if_few(updates, {**advice, **others}, 'x.md')
        assert capsys.readouterr().out == f'{words}; see x.md\n'
