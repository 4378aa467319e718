"""engine/fast/conv.py against a float64 convolution and against Chainer's own layers."""
import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from convStacks import error, float64_stack, make_layers
from engine.fast import conv, winograd

HAS_COMPILED = 'compiled' in winograd.kernel_name()
KERNELS = [pytest.param(True, id='compiled', marks=pytest.mark.skipif(
    not HAS_COMPILED, reason=winograd.kernel_name())), pytest.param(False, id='numpy')]
SIZES = [(32, 32), (37, 51), (14, 15), (5, 2), (1, 1), (4, 65)]


@pytest.mark.parametrize('compiled', KERNELS)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('relu', [True, False])
def test_any_size_agrees_with_float64(compiled, size, relu):
    layers = make_layers([8, '20', 40, '33', 65])
    x = numpy.random.default_rng(1).normal(0, 50, (3, *size, 3)).astype('f')
    y = conv.ConvStack(layers, relu=relu, compiled=compiled)(x)
    assert y.flags.c_contiguous
    assert error(y, float64_stack(x, layers, relu)) < 1e-5


@pytest.mark.parametrize('compiled', KERNELS)
@pytest.mark.parametrize('channels', [1, 16, 20, 35])
def test_any_number_of_input_channels(compiled, channels):
    layers = make_layers([16, '48'], channels=channels)
    x = numpy.random.default_rng(1).normal(0, 1, (2, 9, 11, channels)).astype('f')
    assert error(conv.ConvStack(layers, compiled=compiled)(x), float64_stack(x, layers)) < 1e-5


@pytest.mark.parametrize('compiled', KERNELS)
def test_agrees_with_chainer(compiled):
    layers = make_layers([16, '16', 32, '32', '48'])
    x = numpy.random.default_rng(2).normal(0, 50, (2, 45, 38, 3)).astype('f')
    h = x.transpose(0, 3, 1, 2)
    with chainer.no_backprop_mode():
        for w, b, pool in layers:
            h = F.relu(F.convolution_2d(h, w, b, pad=1))
            if pool:
                h = F.max_pooling_2d(h, 2, stride=2)
    assert error(conv.ConvStack(layers, compiled=compiled)(x), h.array) < 1e-5


@pytest.mark.parametrize('compiled', KERNELS)
def test_deep_stack_stays_accurate(compiled):
    """The thirteen layers of a VGG-16 with a quarter of its width."""
    layers = make_layers(
        [16, '16', 32, '32', 64, 64, '64', 128, 128, '128', 128, 128, '128'])
    x = numpy.random.default_rng(3).normal(0, 60, (1, 64, 64, 3)).astype('f')
    assert error(conv.ConvStack(layers, compiled=compiled)(x), float64_stack(x, layers)) < 1e-4


@pytest.mark.skipif(not HAS_COMPILED, reason=winograd.kernel_name())
def test_sums_of_many_channels_keep_their_digits():
    """In one chain of additions 512 channels come to 3.1e-7, in chains of 32 to 1.1e-7."""
    layers = make_layers([64], channels=512)
    x = abs(numpy.random.default_rng(4).normal(0, 1, (2, 16, 16, 512))).astype('f')
    expected = float64_stack(x, layers)
    off = conv.ConvStack(layers, compiled=True)(x) - expected
    assert numpy.sqrt((off ** 2).mean()) < 2e-7 * expected.max()


@pytest.mark.parametrize('channels', [3, 7])  # directly, by Winograd
@pytest.mark.parametrize('compiled', KERNELS)
def test_bytes_less_their_mean(compiled, channels):
    """The zeros around a frame come after the mean is taken."""
    layers = make_layers([8, '16'], channels=channels)
    mean = numpy.linspace(100, 125, channels, dtype='f')
    frames = numpy.random.default_rng(4).integers(0, 256, (2, 17, 21, channels)).astype('u1')
    y = conv.ConvStack(layers, mean=mean, compiled=compiled)(frames)
    assert numpy.array_equal(y, conv.ConvStack(layers, compiled=compiled)(frames - mean))
    # Floats are taken as they are.
    assert numpy.array_equal(
        y, conv.ConvStack(layers, mean=mean, compiled=compiled)(frames - mean))


@pytest.mark.parametrize('compiled', KERNELS)
def test_same_bits_for_any_batch_and_threads(compiled):
    layers = make_layers([16, '24', 40, '48'])
    x = numpy.random.default_rng(5).normal(0, 50, (7, 50, 43, 3)).astype('f')
    whole = conv.ConvStack(layers, threads=1, compiled=compiled)(x)
    for threads in (2, 3):
        stack = conv.ConvStack(layers, threads=threads, compiled=compiled)
        for size in (1, 2, 5, 7):
            for begin in (0, 3):
                some = slice(begin, begin + size)
                assert numpy.array_equal(stack(x[some]), whole[some])


@pytest.mark.skipif(not HAS_COMPILED, reason=winograd.kernel_name())
def test_blocks_and_groups_change_no_bit(monkeypatch):
    layers = make_layers([16, '24', 40])
    x = numpy.random.default_rng(6).normal(0, 50, (5, 33, 64, 3)).astype('f')
    expected = conv.ConvStack(layers, compiled=True)(x)
    for tiles, cached in ((1, 0), (5, 1 << 20), (29, 1 << 30)):
        monkeypatch.setattr(winograd, 'MOST_TILES', tiles)
        monkeypatch.setattr(conv, 'CACHED_BYTES', cached)
        assert numpy.array_equal(conv.ConvStack(layers, compiled=True)(x), expected)


@pytest.mark.parametrize('compiled', KERNELS)
def test_batches_of_changing_shape(compiled):
    layers = make_layers([8, '8'])
    stack = conv.ConvStack(layers, compiled=compiled)
    for shape in ((1, 8, 8, 3), (3, 8, 8, 3), (2, 20, 9, 3), (0, 8, 8, 3), (1, 8, 8, 3)):
        x = numpy.random.default_rng(7).normal(0, 1, shape).astype('f')
        y, expected = stack(x), float64_stack(x, layers)
        assert y.shape == expected.shape
        assert numpy.allclose(y, expected, atol=1e-5)


def test_what_does_not_fit_is_named():
    layers = make_layers([8, 8])
    with pytest.raises(ValueError, match='layer 1'):
        conv.ConvStack([layers[0], layers[0]])
    with pytest.raises(ValueError, match='at least one'):
        conv.ConvStack([])
    with pytest.raises(ValueError, match='biases'):
        conv.ConvStack([(layers[0][0], numpy.zeros(3), False)])
    with pytest.raises(ValueError, match='not .frames, height, width, 3'):
        conv.ConvStack(layers)(numpy.zeros((1, 3, 8, 8), 'f'))
    with pytest.raises(ValueError, match='float64'):
        conv.ConvStack(layers)(numpy.zeros((1, 8, 8, 3)))
