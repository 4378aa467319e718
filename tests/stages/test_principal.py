"""fc6 by principal components, against the singular value decomposition, and in stage 1."""
import sys

import numpy
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import frameBasedTrain
import helperFunctions as hf
from engine import variants
from engine.errors import UserError
from engine.learning import principal
from engine.learning.principal import frames_per_clip, principal_units
from engine.video.decode import count_frames, read_frames
from engine.video.preprocessing import preprocess
from engine.weights.card import read_card
from smallSet import vgg_set
from VGGNet import load_vgg


def test_units_are_the_components_with_both_signs():
    random = numpy.random.RandomState(0)
    rows = random.normal(0, 3, (60, 6)) @ random.normal(0, 3, (6, 300)) + 9 * random.rand(300)
    rows = rows.astype('f')
    W, b = principal_units(rows.copy(), 16)
    assert W.shape == (16, 300) and W.dtype == b.dtype == numpy.float32
    assert not W[12:].any() and not b[12:].any()  # six directions are all there are
    answers = numpy.maximum(rows @ W.T + b, 0)
    components = answers[:, :6] - answers[:, 6:12]
    u, s, _ = numpy.linalg.svd(rows - rows.mean(0), full_matrices=False)
    expected = (u * s)[:, :6]
    scale = numpy.sqrt(12 * 60 / (s[:6] ** 2).sum())
    numpy.testing.assert_allclose(abs(components), abs(expected) * scale, rtol=0, atol=2e-3)
    assert (answers[:, :12] ** 2).mean() == pytest.approx(1, rel=1e-4)
    assert principal_units(rows.copy(), 5)[0].any(axis=1).tolist() == [True] * 4 + [False]


def test_rows_that_are_all_alike_have_no_direction():
    W, b = principal_units(numpy.full((5, 8), 3, 'f'), 4)
    assert not W.any() and not b.any()


@pytest.fixture
def root(small_set, tmp_path):
    return vgg_set(small_set, tmp_path / 'root', hidden=8, mean=(100.0, 110.0, 120.0))


def test_stage_1_begins_with_them(root, call_in, capsys):
    flags = '--tiny', '--features', '4', '--fc6', 'principal', '--frames-per-clip', '1'
    call_in(root, frameBasedTrain, *flags)
    held_out = set(read_card(root / variants.FRAME_MODEL)['held_out'])
    clips = [clip for clip in hf.read_lists(root).train if clip.name not in held_out]
    with numpy.load(root / variants.FRAME_MODEL) as f:
        fc6 = f['fc6/W'], f['fc6/b']
    # By the same frames, one after another, through Chainer's own convolutions.
    vgg, _ = load_vgg(root / variants.VGG_MODEL)
    vgg.fast, maps, m = False, [], frames_per_clip(8, len(clips))
    for clip in clips:
        n = count_frames(clip.path)
        frames = preprocess(read_frames(
            clip.path, [(2 * i + 1) * n // (2 * m) for i in range(m)], 32), vgg.mean)
        with chainer.no_backprop_mode():
            maps.append(vgg.convolutions(frames).array.reshape(m, -1))
    W, b = principal_units(numpy.concatenate(maps), 8)
    for ours, expected in zip(fc6, (W, b)):
        numpy.testing.assert_allclose(numpy.sort(abs(ours), axis=0),
                                      numpy.sort(abs(expected), axis=0), rtol=0.01, atol=1e-3)
    assert read_card(root / variants.FRAME_MODEL)['principal']['frames'] == m * len(clips)

    kept = root / 'frameTraining' / 'fc6.npz'
    before = kept.stat().st_mtime_ns
    call_in(root, frameBasedTrain, *flags, '--restart')
    assert kept.stat().st_mtime_ns == before  # not fitted again
    kept.write_bytes(kept.read_bytes()[:200])
    call_in(root, frameBasedTrain, *flags, '--restart')
    assert kept.stat().st_size > 200
    with numpy.load(root / variants.FRAME_MODEL) as f:
        assert numpy.array_equal(f['fc6/W'], fc6[0])


def test_a_snapshot_goes_on_with_no_other_fc6(root, call_in):
    """It holds fc7 and fc8 alone, which have learned from that one."""
    flags = '--tiny', '--features', '4', '--fc6', 'principal'
    call_in(root, frameBasedTrain, *flags)
    kept = root / 'frameTraining' / 'fc6.npz'
    with numpy.load(kept) as f:
        arrays = dict(f)
    arrays['W'][[0, 1]] = arrays['W'][[1, 0]]
    numpy.savez(kept, **arrays)
    with pytest.raises(UserError, match='other settings .principal'):
        call_in(root, frameBasedTrain, *flags, '--epochs', '3')


def test_one_unit_shows_no_direction(small_set, tmp_path, call_in):
    root = vgg_set(small_set, tmp_path / 'root', hidden=1)
    with pytest.raises(UserError, match='^--fc6 principal: fc6 of VGG.model has 1 unit, .*-hidden'):
        call_in(root, frameBasedTrain, '--tiny', '--small')
    assert not (root / variants.FRAME_MODEL).exists()


def test_frames_that_are_all_alike_are_not_learned_from(root, call_in, monkeypatch):
    def alike(model, batches):
        return numpy.ones((6, 32), 'f')
    monkeypatch.setattr(principal, '_maps', alike)
    monkeypatch.setattr(principal, 'principal_units', lambda maps, units: (
        numpy.zeros((units, root_width(root)), 'f'), numpy.zeros(units, 'f')))
    for _ in range(2):  # the second time from the file
        with pytest.raises(UserError, match='training clips are all alike to the convolutions'):
            call_in(root, frameBasedTrain, '--tiny', '--small')


def root_width(root):
    vgg, _ = load_vgg(root / variants.VGG_MODEL)
    return vgg.fc6.W.shape[1]


def test_they_do_not_depend_on_the_number_of_cores(root, call_in, monkeypatch):
    """A refit gives the fc6 of the snapshot beside it: of other sums it would be another one."""
    seen, units = [], principal.principal_units

    def look(*args):
        seen.extend(of['num_threads'] for of in threadpool_info() if of['user_api'] == 'blas')
        return units(*args)
    monkeypatch.setattr(principal, 'principal_units', look)
    with threadpool_limits(2, 'blas'):
        call_in(root, frameBasedTrain, '--tiny', '--features', '4', '--fc6', 'principal')
    assert seen and set(seen) == {1}


def test_wide_layers_have_no_more_directions_than_memory():
    assert frames_per_clip(4096, 100) == frames_per_clip(1024, 100) == 123


@pytest.mark.parametrize('flags', [('--train-layers', 'all'), ('--train-layers', '1'),
                                   ('--fusion', 'late')])
def test_it_is_of_frozen_convolutions_and_single_frames(root, flags, call_in):
    with pytest.raises(UserError, match='--fc6 principal: for single frames'):
        call_in(root, frameBasedTrain, '--tiny', '--fc6', 'principal', *flags)


def test_small_sets_defaults(monkeypatch):
    def parsed(*flags):
        monkeypatch.setattr(sys, 'argv', ['frameBasedTrain.py', *flags])
        return vars(frameBasedTrain.parse(frameBasedTrain.get_parser()))
    small = parsed('--small', '--lr', '0.5')
    assert small == {**parsed(), **frameBasedTrain.SMALL, 'lr': 0.5, 'small': True}
    for flags in (('--stream', 'flow'), ('--fusion', 'slow')):
        with pytest.raises(UserError, match='^--small: for single pictures'):
            parsed('--small', *flags)
