"""Pooling over time (Ng et al. 2015): numbers against independent computations, and order."""
import chainer
import numpy
import pytest

import PoolingNet as pooling
from PoolingNet import FAMILIES, PoolingNet, drop, max_over_time, n_windows
from VGGNet_1024 import VGGNet_1024
from engine.video.preprocessing import preprocess
from featureSet import arrays_of
from poolingReference import reference

MAPS = (2, 2, 3)
D = 12
LENGTHS = (23, 4, 16, 10)


# ---- against an independent computation ---------------------------------------

def reference_loss(p, shape, xs, labels, lengths):
    scores = [reference(p, shape, xs[:n, i]) for i, n in enumerate(lengths)]
    return sum(numpy.log(numpy.exp(s).sum()) - s[label]
               for s, label in zip(scores, labels)) / len(labels)


def example(family, maps=None, lengths=LENGTHS, monkeypatch=None):
    """A small network in float64, without dropout, and a batch whose padding is junk."""
    if monkeypatch:
        monkeypatch.setattr(pooling, 'KERNELS', 3)
    random = numpy.random.RandomState(0)
    if family == 'local-pool':
        lengths = [max(lengths)] * len(lengths)
    with chainer.using_config('dtype', numpy.dtype('float64')):
        model = PoolingNet(D, 3, family, (5, 4), maps, max(lengths), (0, 0, 0))
    model.set_statistics(numpy.linspace(-1, 1, D), 2.0 ** random.randint(-1, 2, D))
    for param in model.params():
        param.array[...] = 0.5 * random.randn(*param.shape)
    xs = random.randn(max(lengths), len(lengths), D)
    xs[numpy.arange(len(xs))[:, None] >= lengths] = 99
    return model, xs, numpy.array([2, 0, 1, 2], 'i'), numpy.array(lengths)


@pytest.mark.parametrize('maps', [None, MAPS])
@pytest.mark.parametrize('family', FAMILIES)
def test_loss_and_gradient_agree_with_loops(family, maps, monkeypatch):
    model, xs, labels, lengths = example(family, maps, monkeypatch=monkeypatch)
    loss = model.loss(xs, labels, lengths)
    model.cleargrads()
    loss.backward()
    p = {name: array.astype(float) for name, array in arrays_of(model).items()}
    expected = reference_loss(p, model.shape, xs, labels, lengths)
    assert float(loss.array) == pytest.approx(expected, rel=1e-12)
    for name, param in model.namedparams():
        name = name.lstrip('/')
        # By a complex step, at up to 40 places of each weight.
        for place in list(numpy.ndindex(param.shape))[::max(1, param.size // 40)]:
            moved = p[name].astype(complex)
            moved[place] += 1e-30j
            gradient = reference_loss({**p, name: moved}, model.shape, xs, labels,
                                      lengths).imag / 1e-30
            assert param.grad[place] == pytest.approx(gradient, rel=1e-9, abs=1e-12), name


def test_by_hand():
    def identity(family, **more):
        model = PoolingNet(2, 2, family, fc=(2,), dropout=(0, 0, 0), **more)
        model.fc[0].W.array[:, :2] = model.out.W.array[:, :2] = numpy.eye(2)
        return model

    def scores(model, *frames):
        return model(numpy.array(frames, 'f')[:, None]).array[0].tolist()
    assert scores(identity('conv-pool'), (1, -5), (0, -2), (-1, -3)) == [1, 0]
    # fc before or behind the maximum: it takes the difference of the two numbers.
    for family, expected in (('conv-pool', 4 - 3), ('late-pool', 4 - 1)):
        model = identity(family)
        model.fc[0].W.array[0] = 1, -1
        assert scores(model, (4, 1), (0, 3))[0] == expected
    ramp = [(t, -t) for t in range(15)]
    assert scores(identity('slow-pool'), *ramp) == [14, 0]
    model = identity('slow-pool')
    model.fc[0].W.array[0] = -1, 0
    model.fc[0].b.array[0] = 20
    # The maxima of the windows are 9 and 14, so the largest of 20 - maximum is 11.
    assert scores(model, *ramp)[0] == 11
    model = identity('local-pool', steps=15)
    model.out.W.array[...] = [[1, 0, 0, 0], [0, 0, 1, 0]]  # a window for each class
    assert scores(model, *ramp) == [9, 14]
    model = identity('time-conv')
    model.time_conv.W.array[...] = 0
    model.time_conv.W.array[0, 0, :2, 0, 0] = -1, 1  # how much it grows at a window's start
    model.fc[0].W.array[...] = 0
    model.fc[0].W.array[0, 0] = 1
    assert scores(model, *[(t * t, 0) for t in range(15)]) == [36 - 25, 0]


def test_numbers_of_windows_by_hand():
    assert [n_windows(n) for n in (1, 10, 11, 15, 16, 30, 120)] == [1, 1, 2, 2, 3, 5, 23]
    model = PoolingNet(1024, 101, 'time-conv', maps=None)
    assert model.time_conv.W.shape == (256, 1024, 10, 1, 1)
    model = PoolingNet(8 * 49, 101, 'time-conv', maps=(8, 7, 7))
    assert model.time_conv.W.shape == (256, 8, 10, 3, 3)
    assert model.fc[0].W.shape[1] == 256 * 49


# ---- which frames count, and their order -----------------------------------------

@pytest.mark.parametrize('family', ['slow-pool', 'local-pool', 'time-conv'])
def test_a_window_sees_its_ten_frames(family, monkeypatch):
    model, xs, _, _ = example(family, lengths=(25, 25, 25, 25), monkeypatch=monkeypatch)
    for param in model.params():  # so that no ReLU hides what is large
        param.array[...] = abs(param.array)

    class Seen(Exception):
        pass

    def look(h, lengths):
        raise Seen(chainer.as_array(h))
    monkeypatch.setattr(model, '_join', look)

    def each_window(xs):
        """What stands for each window before all of time is joined."""
        with pytest.raises(Seen) as seen:
            model(xs)
        return seen.value.args[0]
    before = each_window(xs)
    for t in range(25):
        moved = xs.copy()
        moved[t] += 100
        changed = (each_window(moved) != before).any(axis=(1, 2))
        assert changed.tolist() == [5 * w <= t < 5 * w + 10 for w in range(4)], t


@pytest.mark.parametrize('family', FAMILIES)
def test_which_families_see_order(family, monkeypatch):
    model, xs, *_ = example(family, lengths=(20,) * 4, monkeypatch=monkeypatch)
    scores = model(xs).array
    shuffled = model(xs[numpy.random.RandomState(1).permutation(20)]).array
    backward = model(xs[::-1]).array
    blind = family in ('conv-pool', 'late-pool')
    assert numpy.allclose(shuffled, scores, atol=1e-12) == blind
    # Windows of a reversed clip hold the same frames: of slow pooling only their order changes.
    assert numpy.allclose(backward, scores, atol=1e-12) == (blind or family == 'slow-pool')


def test_equal_steps_count_once():
    x = chainer.Variable(numpy.array([[[1.]], [[3.]], [[3.]], [[9.]]]))
    y = max_over_time(x, numpy.array([3]))
    chainer.functions.sum(y).backward()
    assert y.array.item() == 3 and x.grad.ravel().tolist() == [0, 1, 0, 0]
    # A clip shown twice is the clip: also for what it teaches.
    model, xs, labels, _ = example('late-pool', lengths=(7,) * 4)
    gradients = []
    for frames in (xs, numpy.concatenate([xs, xs])):
        model.cleargrads()
        model.loss(frames, labels, numpy.full(4, len(frames))).backward()
        gradients.append(model.fc[0].W.grad.copy())
    assert abs(gradients[0]).max() > 0
    numpy.testing.assert_allclose(*gradients, rtol=1e-12)


def test_dropout_makes_one_choice_a_sequence():
    x = numpy.random.RandomState(0).rand(9, 4, 50).astype('f') + 1
    for h in (x, chainer.Variable(x)):
        kept = chainer.as_array(drop(h, 0.5)) / x
        assert set(kept.ravel().round(5)) == {0, 2} and (kept == kept[0]).all()
        assert (kept[:, 0] != kept[:, 1]).any()
    with chainer.using_config('train', False):
        assert drop(x, 0.5) is x


# ---- from the frame network --------------------------------------------------------

@pytest.mark.parametrize('family', ['conv-pool', 'late-pool'])
def test_a_still_clip_gets_the_frames_scores(family):
    numpy.random.seed(0)
    vgg = VGGNet_1024((4, 6, 8, 8, 8), 16, 3, 64, 5)
    frames = numpy.random.randint(256, size=(2, 64, 64, 3)).astype('u1')
    maps = vgg.convolutions(preprocess(frames)).array
    model = PoolingNet(32, 3, family, (16, 5), (8, 2, 2))
    assert model.start_from_frames(vgg) == ['fc6', 'fc7', 'fc8']
    still = numpy.stack([maps.reshape(2, -1)] * 7)
    with chainer.using_config('train', False):
        numpy.testing.assert_allclose(model(still).array, vgg(preprocess(frames)).array, rtol=1e-4,
                                      atol=1e-4)
    # Layers that do not fit stay new.
    assert PoolingNet(32, 3, 'time-conv', (16, 5), (8, 2, 2)).start_from_frames(vgg) == ['fc7',
                                                                                        'fc8']
    assert PoolingNet(32, 3, 'local-pool', (16, 5), (8, 2, 2), 20).start_from_frames(vgg) == [
        'fc6', 'fc7']
