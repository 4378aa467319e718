"""engine/fast/conv_learn.py against Chainer's layers in float64; the network that learns by it."""
import collections

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from FusionNet import NETWORKS
from VGGNet import VGGNet
from VGGNet_1024 import from_vgg
from engine.fast import buffers, conv, conv_learn, winograd
from convStacks import make_layers

pytestmark = pytest.mark.skipif(not conv_learn.available(), reason=winograd.kernel_name())


def variables(layers, dtype):
    return [(chainer.Variable(w.astype(dtype)), chainer.Variable(b.astype(dtype)), pool)
            for w, b, pool in layers]


def chainers(x, layers):
    for w, b, pool in layers:
        x = F.relu(F.convolution_2d(x, w, b, pad=1))
        if pool:
            x = F.max_pooling_2d(x, 2, stride=2)
    return x


def answers(function, x, layers, dtype, seed=1):
    """The output and the gradients of x and all weights, for a random gradient of the output."""
    x, layers = chainer.Variable(x.astype(dtype)), variables(layers, dtype)
    y = function(x, layers)
    y.grad = numpy.random.default_rng(seed).normal(0, 1, y.shape).astype(dtype)
    y.backward()
    return [y.array, x.grad, *[p.grad for w, b, _ in layers for p in (w, b)]]


def assert_alike(ours, theirs, most=5e-5, turned=0.0):
    """`turned` is the share of numbers that may be otherwise, up to a tenth of the largest: where
    two inputs of a maximum are equal but for rounding, the gradient may take either way."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and a.dtype == numpy.float32
        error = abs(a - b) / abs(b).max()
        assert numpy.quantile(error, 1 - turned) < most and error.max() < 0.1


def noise(shape, seed=0):
    return numpy.random.default_rng(seed).normal(0, 1, shape).astype('f')


SIZES = [(32, 32), (37, 51), (14, 15), (5, 2), (1, 1), (4, 65)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('pool', [False, True])
def test_whole_numbers_without_rounding(size, pool):
    """All that decides about ReLU and maxima is exact here, equal numbers in a window included."""
    random = numpy.random.default_rng(0)
    layers = [(225. * random.integers(-1, 2, (8, 3, 3, 3)), 225. * random.integers(-2, 3, 8), pool)]
    x = random.integers(0, 2, (3, 3, *size)).astype('f')
    ours = answers(conv_learn.conv_stack, x, layers, 'f')
    theirs = answers(chainers, x, layers, 'd')
    assert numpy.array_equal(ours[0], theirs[0])
    assert_alike(ours, theirs, 1e-5)


@pytest.mark.parametrize('size', SIZES)
def test_several_layers_where_nothing_has_to_be_decided(size):
    """Biases so large that no ReLU cuts: gradients of all layers but for rounding."""
    layers = [(w, b + 40, False) for w, b, _ in make_layers([8, 20, 40, 33])]
    x = noise((3, 3, *size))
    assert_alike(answers(conv_learn.conv_stack, x, layers, 'f'),
                 answers(chainers, x, layers, 'd'), 2e-5)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', [3, 16, 30])
def test_agrees_with_chainer_in_float64(size, channels):
    layers = make_layers([8, '20', 40, '33', 65], channels=channels)
    x = noise((3, channels, *size))
    ours, theirs = (answers(function, x, layers, dtype) for function, dtype in (
        (conv_learn.conv_stack, 'f'), (chainers, 'd')))
    assert_alike(ours[:1], theirs[:1], 1e-5)
    # All weights feel one gradient that went the other way.
    assert_alike(ours[1:2], theirs[1:2], turned=0.01)
    assert_alike(ours[2:], theirs[2:], 0.02)


def test_the_thirteen_layers_of_a_narrow_vgg():
    layers = make_layers([8, '8', 16, '16', 24, 24, '24', 32, 32, '32', 32, 32, '32'])
    x = noise((2, 3, 64, 64))
    assert_alike(answers(conv_learn.conv_stack, x, layers, 'f'),
                 answers(chainers, x, layers, 'd'), 0.02)


def test_the_first_of_equal_numbers_in_a_window_takes_the_gradient():
    """With weights of zero all outputs are the bias; the weights' gradient tells by the input
    at which of them it arrived."""
    W, b = chainer.Variable(numpy.zeros((1, 1, 3, 3), 'f')), chainer.Variable(numpy.ones(1, 'f'))
    x = numpy.arange(1, 13, dtype='f').reshape(1, 1, 3, 4)
    y = conv_learn.conv_stack(x, [(W, b, True)])
    assert numpy.array_equal(y.array, [[[[1, 1], [1, 1]]]])
    y.grad = numpy.array([[[[1, 10], [100, 1000]]]], 'f')
    y.backward()
    assert numpy.allclose(W.grad[0, 0, 1, 1], 1 * 1 + 10 * 3 + 100 * 9 + 1000 * 11)
    assert numpy.allclose(b.grad, 1111)


def test_nothing_above_zero_gets_no_gradient():
    W, b = chainer.Variable(numpy.zeros((1, 1, 3, 3), 'f')), chainer.Variable(-numpy.ones(1, 'f'))
    for pool in (False, True):
        y = conv_learn.conv_stack(noise((1, 1, 4, 4)), [(W, b, pool)])
        y.grad = numpy.ones(y.shape, 'f')
        W.cleargrad(), b.cleargrad()
        y.backward()
        assert not y.array.any() and not W.grad.any() and not b.grad.any()


def test_parts_of_a_batch_add_up(monkeypatch):
    """The transformed frames that are there at once: some of them, and fewer at the end."""
    layers = make_layers([8, '20', 12])
    x = noise((7, 3, 18, 21))
    whole = answers(conv_learn.conv_stack, x, layers, 'f')
    monkeypatch.setattr(conv_learn, 'MOST_BYTES', 3 * 4 * 36 * 5 * 6 * 32)
    assert_alike(answers(conv_learn.conv_stack, x, layers, 'f'), whole, 1e-5)


def test_forward_is_what_inference_computes_bit_for_bit():
    layers = make_layers([16, '24', 40, '48'])
    x = noise((3, 3, 50, 43))
    y = conv_learn.conv_stack(x, variables(layers, 'f')).array
    assert numpy.array_equal(y, conv.ConvStack(layers)(x.transpose(0, 2, 3, 1)))


def test_what_is_handed_out_is_nobodys_buffer():
    """Of 1x1 maps channels last and channels first are the same memory."""
    lanes = conv_learn.shared_kernel().lanes
    layers = variables(make_layers([lanes, str(lanes)], channels=lanes), 'f')
    stack = conv.ConvStack([(w.array, b.array, pool) for w, b, pool in layers])
    x = noise((3, lanes, 2, 2))
    expected = [None, None]
    for turn in (0, 1):
        for k, given in enumerate((x, x + 1)):
            variable = chainer.Variable(given)
            y = conv_learn.conv_stack(variable, layers)
            y.grad = numpy.ones(y.shape, 'f')
            y.backward()
            seen = y.array, stack(given.transpose(0, 2, 3, 1)), variable.grad
            if turn == 0:
                expected[k] = seen, [a.copy() for a in seen]
    for seen, then in expected:
        assert all(numpy.array_equal(a, b) for a, b in zip(seen, then))


def test_batches_of_changing_size_do_not_heap_up_memory(monkeypatch):
    monkeypatch.setattr(buffers, '_spare', collections.deque(maxlen=64))
    monkeypatch.setattr(buffers, '_returned', collections.deque(maxlen=64))
    layers, held = variables(make_layers([8, '20', 12]), 'f'), []
    for n in (8, 8, 5, 8, 6, 7, 8, 5, 6, 8):
        for W, b, _ in layers:
            W.cleargrad(), b.cleargrad()
        y = conv_learn.conv_stack(noise((n, 3, 20, 20)), layers)
        y.grad = noise(y.shape)
        y.backward()
        held.append(sum(map(len, [*buffers._spare, *buffers._returned])))
    assert 0 < held[0] == held[1] and held[-1] < 2 * held[0]


def test_graphs_that_live_at_once_keep_to_themselves():
    layers = make_layers([8, '20', 12])
    inputs = [noise((2, 3, 20, 20), seed) for seed in (1, 2)]
    alone = [answers(conv_learn.conv_stack, x, layers, 'f') for x in inputs]
    held = [(chainer.Variable(x), variables(layers, 'f')) for x in inputs]
    outputs = [conv_learn.conv_stack(x, weights) for x, weights in held]
    for y, expected in zip(outputs, alone):
        y.grad = numpy.random.default_rng(1).normal(0, 1, y.shape).astype('f')
        y.backward()
    for (x, weights), y, expected in zip(held, outputs, alone):
        assert numpy.array_equal(y.array, expected[0])
        assert numpy.array_equal(x.grad, expected[1])
        assert numpy.array_equal(weights[0][0].grad, expected[2])


def test_no_gradient_of_an_input_that_wants_none_and_none_twice():
    layers = variables(make_layers([8, 8]), 'f')
    y = conv_learn.conv_stack(noise((1, 3, 8, 8)), layers)
    y.grad = noise(y.shape)
    y.backward(retain_grad=True)
    assert all(p.grad is not None for w, b, _ in layers for p in (w, b))
    with pytest.raises(RuntimeError, match='once'):
        y.backward()
    y = conv_learn.conv_stack(noise((1, 3, 8, 8)), layers)
    y.grad = noise(y.shape)
    with pytest.raises(NotImplementedError, match='second derivative'):
        y.backward(enable_double_backprop=True)


@pytest.mark.parametrize('learns', [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1)])
def test_some_layers_alone(learns):
    layers = make_layers([8, '12', 10])
    x, every = noise((2, 3, 9, 9)), variables(layers, 'f')
    some = [(w, b, pool) if learn else (w.array, b.array, pool)
            for (w, b, pool), learn in zip(variables(layers, 'f'), learns)]
    for weights in (every, some):
        y = conv_learn.conv_stack(x, weights)
        y.grad = noise(y.shape)
        y.backward()
    for (w, b, _), (w1, b1, _), learn in zip(every, some, learns):
        if learn:
            assert numpy.array_equal(w.grad, w1.grad) and numpy.array_equal(b.grad, b1.grad)
        else:
            assert isinstance(w1, numpy.ndarray)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        conv_learn.conv_stack(noise((1, 4, 8, 8)), variables(make_layers([8]), 'f'))


@pytest.mark.parametrize('fusion', NETWORKS)
def test_networks_learn_the_same_with_and_without(fusion):
    numpy.random.seed(0)
    vgg = VGGNet((4, 6, 8, 8, 8), 8, 7, 32)
    model = from_vgg(vgg, 3, 5, NETWORKS[fusion], 'all')
    model.dropout = 0
    windows = [len(model.offsets)] if fusion != 'single' else []
    x, labels = noise((4, *windows, 3, 32, 32)) * 50, numpy.array([0, 1, 2, 0], 'i')
    gradients = {}
    for model.fast in (True, False):
        model.cleargrads()
        F.softmax_cross_entropy(model(x), labels).backward()
        gradients[model.fast] = [p.grad for _, p in sorted(model.namedparams())]
    assert all(abs(g).max() > 0 for g in gradients[False])
    assert_alike(gradients[True], gradients[False], 0.02)
