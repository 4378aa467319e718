"""Early, late and slow fusion: what they see, what they share, what learns, what is saved."""
import re
import shutil
import sys

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
import pytest

import frameBasedTrain
import helperFunctions as hf
from engine import variants
import saveFeatures_1024
from FusionNet import NETWORKS, load_frame_network
from VGGNet import VGGNet
from VGGNet_1024 import TRAIN_LAYERS, from_vgg
from engine.video.augmentation import Augmentation, views
from engine.errors import UserError
from engine.files import load_npy
from engine.learning.frames import FrameIterator, frame_counts, mirrored, with_mirrored_ends
from engine.weights.modelfile import read_card, save_model
from engine.learning.sequences import reverse_append
from engine.video.decode import Frames, read_frames
from engine.video.preprocessing import preprocess

NARROW = dict(channels=(4, 6, 8, 8, 8), hidden=8, input_size=32)
FUSED = ('early', 'late', 'slow')
# The frames of a window (Karpathy et al. 2014, section 3.1), around frame 0.
SEEN = {'single': [0], 'early': list(range(-4, 6)), 'late': [-7, 8], 'slow': list(range(-4, 6))}


def make_vgg():
    numpy.random.seed(0)
    vgg = VGGNet(n_classes=7, **NARROW)
    for name in vgg.conv_names + ['fc6', 'fc7']:
        vgg[name].b.array[...] = 20  # so that few units are dead
    return vgg


@pytest.fixture
def vgg():
    return make_vgg()


def network(vgg, fusion, train_layers='2', learnt=True):
    """With `learnt` layers that join moments have other weights for each of them."""
    model = from_vgg(vgg, 3, 5, NETWORKS[fusion], train_layers)
    random = numpy.random.RandomState(1)
    for name in model.taps if learnt else ():
        W = model[name].W.array
        W += (W.std() * random.standard_normal(W.shape)).astype(W.dtype)
    return model


def clip(n, seed=2):
    """(n, 32, 32, 3) uint8 noise."""
    return numpy.random.RandomState(seed).randint(256, size=(n, 32, 32, 3)).astype(numpy.uint8)


def windows(model, frames, centres):
    return numpy.stack([preprocess(frames[[t + o for o in model.offsets]]) for t in centres])


def test_mode(function, *args):
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        return function(*args).array
test_mode.__test__ = False


# ---- networks ---------------------------------------------------------------------

@pytest.mark.parametrize('fusion', SEEN)
def test_which_frames_a_network_sees(vgg, fusion):
    model = network(vgg, fusion)
    assert list(model.offsets) == SEEN[fusion]
    widths = {name: model[name].W.shape[1] // vgg[name].W.shape[1]
              for name in vgg.conv_names + ['fc6']}
    assert {name: width for name, width in widths.items() if width > 1} == {
        'single': {}, 'early': {'conv1_1': 10}, 'late': {'fc6': 2},
        'slow': {'conv1_1': 4, 'conv2_1': 2, 'conv3_1': 2}}[fusion]


@pytest.mark.parametrize('fusion', FUSED)
def test_a_feature_depends_on_the_frames_of_its_window_and_no_others(vgg, fusion):
    model, frames = network(vgg, fusion), clip(40)
    def features(frames):
        along = model.along_clip()
        assert along(preprocess(frames[:3])) is None  # no window is whole yet
        return test_mode(model.feature, along(preprocess(frames[3:])))
    before = features(frames)
    first = -model.offsets[0]  # frame of feature 0
    assert before.shape == (40 - model.moments[-1], 5)
    for changed in (0, 9, 20, 39):
        other = frames.copy()
        other[changed] = 255 - other[changed]
        differ = [t + first for t in numpy.nonzero((features(other) != before).any(axis=1))[0]]
        assert differ == [t for t in range(first, first + len(before))
                          if changed - t in model.offsets]


def by_hand(model, fusion, window):
    """Scores of one window, (W, 3, 32, 32), with Chainer's own functions, from the paper."""
    def block(number, x):
        for layer in range(1, (2, 2, 3, 3, 3)[number - 1] + 1):
            link = model[f'conv{number}_{layer}']
            x = F.relu(F.convolution_2d(x, link.W, link.b, pad=1))
        return F.max_pooling_2d(x, 2, 2)
    def blocks(first, x):
        for number in range(first, 6):
            x = block(number, x)
        return x
    def beside(*xs):
        return F.concat([F.expand_dims(x, 0) if x.ndim == 3 else x for x in xs], axis=1)
    if fusion == 'early':
        x = blocks(1, beside(*window))
    elif fusion == 'late':
        x = beside(*(blocks(1, frame[None]) for frame in window))
    else:
        a, b, c, d = (block(1, beside(*window[start:start + 4])) for start in (0, 2, 4, 6))
        x = blocks(3, beside(block(2, beside(a, b)), block(2, beside(c, d))))
    h = F.relu(F.linear(x, model.fc6.W, model.fc6.b))
    return model.fc8(F.relu(F.linear(h, model.fc7.W, model.fc7.b)))


@pytest.mark.parametrize('fusion', FUSED)
@pytest.mark.parametrize('fast', [True, False])
def test_networks_against_the_paper_written_out(vgg, fusion, fast):
    model = network(vgg, fusion)
    model.fast = fast
    x = windows(model, clip(40), [8, 20, 29])
    expected = numpy.concatenate([by_hand(model, fusion, window).array for window in x])
    got = test_mode(model, x)
    assert expected.std(axis=0).all()
    assert abs(got - expected).max() < 1e-4 * abs(expected).max()


@pytest.mark.parametrize('fusion', FUSED)
def test_on_a_still_clip_the_start_equals_single_frames(vgg, fusion):
    model, single = network(vgg, fusion, learnt=False), network(vgg, 'single')
    frames = clip(3)
    still = numpy.stack([[frame] * len(model.offsets) for frame in preprocess(frames)])
    h, expected = test_mode(model.bottom, still), test_mode(single.bottom, preprocess(frames))
    assert abs(h - expected).max() < 1e-5 * abs(expected).max() and expected.any()


@pytest.mark.parametrize('fusion', FUSED)
def test_spread_weights_do_not_see_an_order(vgg, fusion):
    for learnt in (False, True):
        model = network(vgg, fusion, learnt=learnt)
        x = windows(model, clip(40), [10])
        ahead, back = test_mode(model.bottom, x), test_mode(model.bottom, x[:, ::-1])
        assert (abs(ahead - back).max() < 1e-5 * abs(ahead).max()) is not learnt


def test_towers_share_their_weights(vgg):
    """The gradient is the sum of those of both towers, each with convolutions of its own."""
    model = network(vgg, 'late', 'all')
    model.fast = False  # whose rounding is larger than this test's bound
    x = windows(model, clip(40), [10, 20])
    labels = numpy.array([0, 2], numpy.int32)
    model.cleargrads()
    with chainer.using_config('train', False):
        F.softmax_cross_entropy(model(x), labels).backward()
        towers = [model.copy('copy'), model.copy('copy')]
        for tower in towers:
            tower.cleargrads()
        maps = [tower.convolutions(x[:, i], tower.conv_names) for i, tower in enumerate(towers)]
        h = F.relu(model.fc6(F.concat(maps, axis=1)))
        F.softmax_cross_entropy(model.fc8(F.relu(model.fc7(h))), labels).backward()
    for name in model.conv_names:
        parts = [tower[name].W.grad for tower in towers]
        assert all(part.any() for part in parts)
        numpy.testing.assert_allclose(model[name].W.grad, sum(parts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('fusion', FUSED)
def test_gradients_against_differences_in_float64(fusion):
    with chainer.using_config('dtype', numpy.dtype('float64')), \
            chainer.using_config('train', False):
        model = network(make_vgg(), fusion, 'all')
        x = windows(model, clip(40), [12, 25]).astype(numpy.float64) / 64
        labels = numpy.array([1, 2], numpy.int32)
        assert model.conv1_1.W.dtype == numpy.float64
        model.cleargrads()
        F.softmax_cross_entropy(model(x), labels).backward()
        for name in ('conv1_1', 'conv2_1', 'conv3_1', 'conv5_3', 'fc6', 'fc7', 'fc8'):
            for param in (model[name].W, model[name].b):
                # the weight with the largest gradient, so that none is a dead unit's
                at = numpy.unravel_index(abs(param.grad).argmax(), param.shape)
                kept, losses = param.array[at], []
                for sign in (1, -1):
                    param.array[at] = kept + sign * 1e-6
                    losses.append(float(F.softmax_cross_entropy(model(x), labels).array))
                param.array[at] = kept
                slope = (losses[0] - losses[1]) / 2e-6
                assert abs(slope - param.grad[at]) < 1e-5 * abs(slope) + 1e-8, name
                assert slope


# ---- along a clip -----------------------------------------------------------------

@pytest.mark.parametrize('fusion', FUSED)
def test_answers_along_a_clip_equal_window_by_window(vgg, fusion, monkeypatch):
    model, frames = network(vgg, fusion), clip(45)
    first = -model.offsets[0]
    centres = range(first, 45 - model.offsets[-1])
    expected = test_mode(model.feature, windows(model, frames, centres))
    passed = {}
    run = type(model).convolutions
    def counting(self, x, names=None):
        if names:
            passed[names[0]] = passed.get(names[0], 0) + len(x)
        return run(self, x, names)
    monkeypatch.setattr(type(model), 'convolutions', counting)
    for sizes in ([45], [3, 20, 1, 21], [5] * 9):
        along, got = model.along_clip(), []
        for part in numpy.split(preprocess(frames), numpy.cumsum(sizes)[:-1]):
            if along(part):
                got.append(test_mode(model.feature, along))
        got = numpy.concatenate(got)
        assert abs(got - expected).max() < 1e-5 * abs(expected).max()
        # at most as often as there are frames, however they come
        assert passed and max(passed.values()) <= 45
        passed.clear()
        assert max(map(len, along.known)) <= max(sizes) + model.moments[-1]
    along = model.along_clip(step=4)
    along(preprocess(frames))
    assert abs(test_mode(model.feature, along) - expected[::4]).max() < 1e-4


def test_windows_of_another_length_are_an_error(vgg):
    with pytest.raises(ValueError, match='windows are'):
        network(vgg, 'late')(numpy.zeros((1, 3, 3, 32, 32), numpy.float32))


# ---- what learns ------------------------------------------------------------------

@pytest.mark.parametrize('fusion', SEEN)
@pytest.mark.parametrize('train_layers', TRAIN_LAYERS)
def test_what_is_said_to_learn_learns_and_nothing_else(vgg, fusion, train_layers):
    model = from_vgg(vgg, 3, 8, NETWORKS[fusion], train_layers)
    before = {name: p.array.tobytes() for name, p in model.namedparams()}
    trained = model.trained_part()
    optimizer = chainer.optimizers.MomentumSGD(1e-3).setup(trained)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
    labels = numpy.array([0, 1, 2], numpy.int32)
    x = (windows(model, clip(40), [8, 20, 29]) if fusion != 'single' else preprocess(clip(3)))
    for _ in range(3):
        model.cleargrads()
        optimizer.update(lambda: F.softmax_cross_entropy(model(x / 64), labels))
    changed = {name.split('/')[1] for name, p in model.namedparams()
               if p.array.tobytes() != before[name]}
    top = {'1': {'fc8'}, '2': {'fc7', 'fc8'}, '3': {'fc6', 'fc7', 'fc8'}}
    assert changed == top.get(train_layers, {*vgg.conv_names, 'fc6', 'fc7', 'fc8'})
    for name, p in model.namedparams():
        assert (p.grad is None or not p.grad.any()) is (name.split('/')[1] not in changed), name


def test_where_the_weights_come_from(vgg):
    for train_layers in TRAIN_LAYERS:
        model = from_vgg(vgg, 3, 8, NETWORKS['slow'], train_layers)
        same = {name: numpy.allclose(sum(numpy.split(model[name].W.array, model.joins(name),
                                                     axis=1)), vgg[name].W.array, atol=1e-6)
                for name in vgg.conv_names + ['fc6', 'fc7']}
        assert same.pop('fc7') is (train_layers == '1')
        assert set(same.values()) == {train_layers != 'scratch'}


def test_an_input_of_another_size_changes_no_answer(vgg):
    x = preprocess(clip(3))
    expected = test_mode(vgg, x)
    vgg.expect_input(64)
    got = test_mode(vgg, 64 * x)
    assert abs(got - expected).max() < 1e-4 * abs(expected).max()
    assert 0.7 < vgg.conv1_1.W.array.std() / make_vgg().conv1_1.W.array.std() < 0.8  # 64 ** -1/14


# ---- files ------------------------------------------------------------------------

@pytest.mark.parametrize('fusion', SEEN)
def test_the_card_says_which_network_it_is(vgg, fusion, tmp_path):
    model = network(vgg, fusion)
    save_model(tmp_path / 'a', model, {'shape': model.shape, 'fusion': fusion})
    again, _ = load_frame_network(tmp_path / 'a')
    assert type(again) is NETWORKS[fusion]
    for mine, theirs in zip(model.params(), again.params()):
        numpy.testing.assert_array_equal(mine.array, theirs.array)


def test_the_card_says_how_far_the_towers_are_apart(root, train):
    train(root, '--fusion', 'late', '--apart', 4, '--epochs', 1)
    model, card = load_frame_network(root / 'VGG_1024_late.model')
    assert model.offsets == (-2, 2) and card['settings']['apart'] == 4
    with pytest.raises(UserError, match='--apart: of --fusion late alone, not of slow'):
        train(root, '--fusion', 'slow', '--apart', 4)


def test_an_unknown_fusion_is_one_line(vgg, tmp_path):
    save_model(tmp_path / 'a', vgg, {'shape': vgg.shape, 'fusion': 'warm'})
    with pytest.raises(UserError, match='a: its card asks for the fusion "warm".*single, early'):
        load_frame_network(tmp_path / 'a')


# ---- frames of a window -----------------------------------------------------------

def test_a_clip_goes_on_in_reverse_beyond_its_ends():
    assert list(mirrored(range(-4, 9), 5)) == [3, 2, 1, 0, 0, 1, 2, 3, 4, 4, 3, 2, 1]
    assert list(mirrored(range(-7, 9), 3)) == [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2]
    for n in (1, 3, 40):
        numpy.testing.assert_array_equal(mirrored(range(35), n), reverse_append(n, 35)[:35])


@pytest.mark.parametrize('n', [1, 2, 5, 8, 9, 30])
@pytest.mark.parametrize('before, after', [(4, 5), (7, 8), (0, 3), (0, 0)])
def test_mirrored_ends_of_a_clip_that_comes_in_batches(n, before, after):
    frames = clip(n)
    for size in (1, 3, 16, 30):
        batches = iter([frames[i:i + size] for i in range(0, n, size)])
        got = numpy.concatenate(list(with_mirrored_ends(batches, before, after)))
        numpy.testing.assert_array_equal(
            got, frames[mirrored(numpy.arange(-before, n + after), n)])


@pytest.mark.parametrize('n', [1, 2, 3, 8, 30])
@pytest.mark.parametrize('before, after', [(4, 5), (7, 8), (0, 3)])
def test_flow_beyond_the_ends_is_that_of_a_clip_that_runs_back(n, before, after):
    """Against the steps of a walk that turns round at the clip's ends."""
    walk = numpy.random.RandomState(n).randint(-40, 40, n)
    steps = numpy.diff(walk) if n > 1 else numpy.zeros(1, int)
    steps = numpy.append(steps, steps[-1])[:n]  # the last is said twice
    moments = numpy.arange(-before, n + after)
    expected = walk[mirrored(moments + 1, n)] - walk[mirrored(moments, n)]
    expected[before + n - 1] = steps[-1]
    if n == 1:
        expected[:] = 0
    flow = numpy.broadcast_to((128 + steps)[:, None, None, None], (n, 2, 2, 3)).astype(numpy.uint8)
    for size in (1, 3, 30):
        batches = iter([flow[i:i + size] for i in range(0, n, size)])
        got = numpy.concatenate(list(with_mirrored_ends(batches, before, after, 'flow')))
        # In a clip shorter than a window the turns come round, each with its last step.
        again = (moments % (2 * n) == n - 1) & (moments != n - 1)
        numpy.testing.assert_array_equal(got[~again, 0, 0, 0], 128 + expected[~again])
        assert (got[again] == flow[-1]).all() and (got[..., 0] == got[..., 2]).all()


@pytest.fixture
def clips(small_set):
    lists = hf.read_lists(small_set)
    return lists.train, frame_counts(small_set, lists.train, 2)[0]


@pytest.mark.parametrize('offsets', [(0,), SEEN['late'], SEEN['slow']])
def test_training_windows_are_frames_of_the_clip_changed_alike(clips, offsets):
    train, counts = clips
    plain, = FrameIterator(train, counts, len(train), 32, repeat=False, offsets=offsets)
    for window, c in zip(plain[0], train):
        wanted = mirrored(counts[c.name] // 2 + numpy.array(offsets), counts[c.name])
        frames = numpy.concatenate(list(Frames(c.path, 32)))[wanted]
        numpy.testing.assert_array_equal(window, frames if len(offsets) > 1 else frames[0])
    if len(offsets) == 1:
        return
    def first(augment, per_clip=3):
        return FrameIterator(train, counts, 50, 32, 5, per_clip, augment, offsets=offsets).next()
    windows, labels = first(None)
    assert windows.shape == (len(labels), len(offsets), 32, 32, 3)
    flipped = first(Augmentation(flip=True))[0]
    kinds = {(numpy.array_equal(a, b), numpy.array_equal(a, b[..., ::-1, :]))
             for a, b in zip(windows, flipped)}
    assert kinds == {(True, False), (False, True)}
    # A crop that differed between the frames of a window would give other differences.
    cropped = first(Augmentation(crop=0.8, rotate=10, brightness=0.2))[0]
    for a, b in zip(windows, cropped):
        still = numpy.array([numpy.array_equal(frame, a[0]) for frame in a])
        assert [numpy.array_equal(frame, b[0]) for frame in b] == list(still)


def test_hundreds_of_frames_asked_for_at_once(clips):
    """ffmpeg's expressions have a limit, which windows would reach."""
    c = clips[0][0]
    frames = read_frames(c.path, range(8), 32)
    many = numpy.concatenate(list(Frames(c.path, 32, only=range(700))))
    numpy.testing.assert_array_equal(many[:8], frames)


# ---- stage 1 ----------------------------------------------------------------------

@pytest.fixture
def root(small_set, tmp_path):
    """A root with 24 clips of 8 to 12 frames, shorter than late fusion's window."""
    return make_root(small_set, tmp_path / 'root')


def make_root(small_set, root):
    root.mkdir()
    for name in (variants.CLIPS, variants.LISTS):
        (root / name).symlink_to(small_set / name)
    vgg = make_vgg()
    save_model(root / variants.VGG_MODEL, vgg, {'shape': vgg.shape})
    return root


@pytest.fixture
def train(monkeypatch):
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', [
            'frameBasedTrain.py', '--root', str(root), '--tiny', '--features', '8', '--lr',
            '1e-5', *map(str, flags)])
        return frameBasedTrain.main()
    return run


def test_a_stopped_training_of_slow_fusion_goes_on_bit_for_bit(small_set, tmp_path, root, train,
                                                               stopped_after):
    other = make_root(small_set, tmp_path / 'other')
    flags = ('--fusion', 'slow', '--batch', 5, '--frames-per-clip', 2, '--crop', 0.9)
    train(root, *flags)
    stopped_after(3, train, other, *flags)
    train(other, *flags)
    name = 'VGG_1024_slow.model'
    assert (root / name).read_bytes() == (other / name).read_bytes()
    with pytest.raises(UserError, match='train_layers all -> 2'):
        train(root, *flags, '--train-layers', 2)


@pytest.mark.parametrize('fusion, learns', [('single', '2'), ('late', '3'), ('early', 'all')])
def test_what_learns_without_being_asked(root, train, capsys, fusion, learns):
    train(root, '--fusion', fusion, '--epochs', 1)
    card = read_card(root / variants.Names(fusion=fusion).model)
    assert card['fusion'] == fusion and card['settings']['train_layers'] == learns
    model, _ = load_frame_network(root / variants.Names(fusion=fusion).model)
    start = make_vgg()
    n = model.joins('conv1_1')
    same = numpy.array_equal(model.conv1_1.W.array,
                             numpy.concatenate([start.conv1_1.W.array / n] * n, axis=1))
    assert same is (learns != 'all')
    assert 'order of frames' not in capsys.readouterr().out


def test_frozen_layers_that_join_frames_are_told(root, train, capsys):
    train(root, '--fusion', 'late', '--train-layers', 2, '--epochs', 1)
    assert 'fc6: not trained, so the order of frames is not seen' in capsys.readouterr().out


def test_the_top_layer_alone_takes_fc7_as_it_is(root, train):
    with pytest.raises(UserError, match='--train-layers 1 .* 8 units: add --features 8, or'):
        train(root, '--train-layers', 1, '--features', 9)
    train(root, '--train-layers', 1, '--epochs', 1)
    model, _ = load_frame_network(root / variants.FRAME_MODEL)
    numpy.testing.assert_array_equal(model.fc7.W.array, make_vgg().fc7.W.array)


def test_a_clipped_gradient_is_as_long_as_it_may_be(root, train):
    def fc8(*flags):
        train(root, '--train-layers', 1, '--epochs', 1, '--weight-decay', 0, '--momentum', 0,
              '--restart', *flags)
        return load_frame_network(root / variants.FRAME_MODEL)[0].fc8.W.array
    start, free = fc8('--lr', 1e-30), fc8('--lr', 1e-2)
    clipped = fc8('--lr', 1e-2, '--clip', 1e-3)
    # one step: eight clips that are not held out
    assert 0 < numpy.linalg.norm(clipped - start) <= 1e-2 * 1e-3 * 1.01
    assert numpy.linalg.norm(free - start) > 1e-3


# ---- stage 2 ----------------------------------------------------------------------

def save_network(root, fusion):
    """Writes the model of a fusion whose joining layers have learnt; returns its path."""
    classes = hf.read_lists(root).classes
    model = from_vgg(make_vgg(), len(classes), 8, NETWORKS[fusion])
    random = numpy.random.RandomState(1)
    for name in model.taps:
        W = model[name].W.array
        W += (W.std() * random.standard_normal(W.shape)).astype(W.dtype)
    path = root / variants.Names(fusion=fusion).model
    save_model(path, model, {'shape': model.shape, 'fusion': fusion, 'classes': classes})
    return path


def saved(root, fusion, clip):
    names = variants.Names(fusion=fusion)
    return [load_npy(variants.output_path(root, folder, clip))
            for folder in (names.features, names.frame_predictions)]


@pytest.fixture
def extract(monkeypatch, capsys):
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['saveFeatures_1024.py', '1', '--parts', '1', '--root',
                                          str(root), *map(str, flags)])
        return saveFeatures_1024.main()
    return run


@pytest.mark.parametrize('fusion', FUSED)
def test_every_frame_gets_a_feature_whatever_the_batch(root, extract, fusion):
    path = save_network(root, fusion)
    model, _ = load_frame_network(path)
    clips = hf.read_lists(root).test
    assert extract(root, '--fusion', fusion, '--batch', 5) == 0
    before = [saved(root, fusion, c) for c in clips]
    model.fast = False
    for c, (features, predictions) in zip(clips, before):
        frames = numpy.concatenate(list(Frames(c.path, 32)))
        wanted = mirrored(numpy.arange(len(frames))[:, None] + model.offsets, len(frames))
        pair = model.feature_and_prediction(preprocess(frames[wanted]))
        for mine, expected in zip((features, predictions), pair):
            assert mine.shape == expected.shape and mine.dtype == numpy.float32
            assert abs(mine - expected).max() < 1e-4 * abs(expected).max()
    for name in (variants.Names(fusion=fusion).features, variants.Names(fusion=fusion).frame_predictions):
        shutil.rmtree(root / name)
    assert extract(root, '--fusion', fusion, '--batch', 64, '--step', 3) == 0
    for c, pair in zip(clips, before):
        for again, first in zip(saved(root, fusion, c), pair):
            assert again.shape == first[::3].shape
            assert abs(again - first[::3]).max() < 1e-5 * abs(first).max()


def test_features_of_another_fusion_are_refused(root, extract):
    path = save_network(root, 'late')
    path.rename(root / variants.Names(fusion='early').model)
    with pytest.raises(UserError) as error:
        extract(root, '--fusion', 'early')
    assert re.search('a network of fusion late, not early; .*--fusion early', str(error.value))
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='VGG_1024_slow.model: No such file.*--fusion slow'):
        extract(root, '--fusion', 'slow')
    with pytest.raises(UserError, match='two towers'):
        extract(root, '--fusion', 'late', '--layer', 'pool5')


@pytest.mark.parametrize('fusion', ['single', 'slow'])
def test_views_average_predictions_and_leave_features(root, extract, fusion):
    model, _ = load_frame_network(save_network(root, fusion))
    c = hf.read_lists(root).test[0]
    extract(root, '--fusion', fusion)
    plain = saved(root, fusion, c)
    with pytest.raises(UserError, match='--step 1 --views 1; remove them'):
        extract(root, '--fusion', fusion, '--views', 2)
    names = variants.Names(fusion=fusion)
    for folder in (names.features, names.frame_predictions):
        shutil.rmtree(root / folder)
    extract(root, '--fusion', fusion, '--views', 2, '--batch', 64)
    features, predictions = saved(root, fusion, c)
    assert abs(features - plain[0]).max() < 1e-5 * abs(plain[0]).max()
    frames = numpy.concatenate(list(Frames(c.path, 32)))[:, :, ::-1]  # the mirror image
    if fusion != 'single':
        wanted = numpy.arange(len(frames))[:, None] + model.offsets
        frames = frames[mirrored(wanted, len(frames))]
    other = model.feature_and_prediction(preprocess(frames))[1]
    product = numpy.sqrt(plain[1].astype(float) * other)
    product /= product.sum(axis=1, keepdims=True)
    assert abs(other - plain[1]).max() > 1e-3
    numpy.testing.assert_allclose(predictions, product, rtol=1e-3, atol=1e-6)


def test_the_ten_views_of_a_frame():
    frames = clip(3)
    frames[:] = numpy.arange(32)[:, None, None] * 6 + numpy.arange(32)[:, None]
    frames[0, 0, 0] = 255
    seen = [view(frames) for view in views(10)]
    assert len(seen) == 10 and all(view.shape == frames.shape for view in seen)
    numpy.testing.assert_array_equal(seen[0], frames)
    for plain, flipped in zip(seen[::2], seen[1::2]):
        numpy.testing.assert_array_equal(plain, flipped[:, :, ::-1])
    # A corner's window is 28 pixels wide: half a pixel of it is 0.4375 of the frame's.
    middles = [view[1].astype(float).mean() for view in seen[2::2]]
    whole = frames[1].astype(float).mean()
    numpy.testing.assert_allclose(sorted(m - whole for m in middles), [-14, -10, 10, 14], atol=0.3)
    assert [view[0, 0, 0, 0] > 100 for view in seen[::2]] == [True, True, False, False, False]
    assert [len(views(n)) for n in (1, 2)] == [1, 2]
