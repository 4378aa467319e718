"""Early, late and slow fusion: what they see, what they share, what learns."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
import pytest

from FusionNet import NETWORKS, load_frame_network
from VGGNet_1024 import TRAIN_LAYERS, from_vgg
from engine.errors import UserError
from engine.video.preprocessing import preprocess
from engine.weights.modelfile import save_model
from fusionSet import FUSED, SEEN, clip, make_vgg, network, test_mode, windows


@pytest.fixture
def vgg():
    return make_vgg()


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


def test_an_unknown_fusion_is_one_line(vgg, tmp_path):
    save_model(tmp_path / 'a', vgg, {'shape': vgg.shape, 'fusion': 'warm'})
    with pytest.raises(UserError, match='a: its card asks for the fusion "warm".*single, early'):
        load_frame_network(tmp_path / 'a')
