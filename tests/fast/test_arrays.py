"""Arrays of any layout through every kernel: C sees no strides, types or byte orders."""
import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from convStacks import make_layers
from engine.fast import compiled, conv, conv_learn, optimizers
from engine.fast.lstm import LSTM
from engine.fast.lstm_window import lstm_window


def gaps(a):
    return numpy.repeat(a, 2, -1)[..., ::2]


def unaligned(a):
    memory = numpy.empty(a.nbytes + 1, 'u1')[1:]
    memory[:] = numpy.frombuffer(a.tobytes(), 'u1')
    return memory.view(a.dtype).reshape(a.shape)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = [numpy.asfortranarray, gaps, unaligned, read_only, lambda a: a[::-1].copy()[::-1],
           lambda a: numpy.flip(numpy.flip(a).copy())]
LAYOUTS = [pytest.param(layout, id=name) for layout, name in zip(
    LAYOUTS, ['Fortran', 'gaps', 'unaligned', 'read-only', 'rows reversed', 'all reversed'])]
TYPES = ['float64', 'float16', '>f4']
WAYS = [pytest.param(True, id='compiled', marks=pytest.mark.skipif(
    compiled.load('winograd')[0] is None, reason='no compiled kernel')),
    pytest.param(False, id='numpy')]


def noise(*shape, seed=0):
    return numpy.random.default_rng(seed).normal(0, 1, shape).astype('f')


def agree(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * abs(b).max())


def layers_of(layout):
    return [(layout(w), layout(b), pool) for w, b, pool in make_layers([8, '20', 33], channels=5)]


@pytest.mark.parametrize('compiled', WAYS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('bytes_', [False, True])
def test_stacks(compiled, layout, bytes_):
    x = noise(3, 17, 10, 5)
    x = (x * 40 + 128).astype('u1') if bytes_ else x
    mean = noise(5, seed=4)
    expected = conv.ConvStack(layers_of(lambda a: a), mean=mean, compiled=compiled)(x)
    ours = conv.ConvStack(layers_of(layout), mean=layout(mean), compiled=compiled)(layout(x))
    assert numpy.array_equal(ours, expected)


@pytest.mark.parametrize('compiled', WAYS)
@pytest.mark.parametrize('dtype', TYPES)
def test_stacks_of_another_type(compiled, dtype):
    x = noise(1, 8, 8, 5)
    plain = conv.ConvStack(layers_of(lambda a: a), compiled=compiled)
    other = conv.ConvStack(layers_of(lambda a: a.astype(dtype)), compiled=compiled)
    agree([other(x)], [plain(x)] if dtype != 'float16' else [other(x)])
    with pytest.raises(ValueError, match='not uint8 or float32'):
        plain(x.astype(dtype))


def learnt(x, layers, gy):
    x = chainer.Variable(x)
    layers = [(chainer.Variable(w), chainer.Variable(b), pool) for w, b, pool in layers]
    y = conv_learn.conv_stack(x, layers)
    y.grad = gy
    y.backward()
    return [y.array, x.grad, *[p.grad for w, b, _ in layers for p in (w, b)]]


@pytest.mark.skipif(not conv_learn.available(), reason='no compiled kernel')
@pytest.mark.parametrize('layout', LAYOUTS)
def test_learning_convolutions(layout):
    x, gy = noise(2, 5, 17, 10), noise(2, 33, 9, 5)
    agree(learnt(layout(x), layers_of(layout), layout(gy)),
          learnt(x, layers_of(lambda a: a), gy))
    for dtype in TYPES:
        with pytest.raises(chainer.utils.type_check.InvalidType):
            learnt(x.astype(dtype), layers_of(lambda a: a), gy)


def window(arrays, gy, gc, mask, recurrent_mask):
    inputs = [chainer.Variable(a) for a in arrays]
    y, c = lstm_window(*inputs, mask, recurrent_mask)
    chainer.grad([y, c], inputs, [chainer.Variable(gy), chainer.Variable(gc)], set_grad=True)
    return [y.array, c.array, *[v.grad for v in inputs]]


@pytest.mark.parametrize('way', ['compiled', 'numpy'])
@pytest.mark.parametrize('batch', [16, 19])  # whole vectors, and not
@pytest.mark.parametrize('layout', LAYOUTS)
def test_lstm(way, batch, layout, monkeypatch):
    if way == 'compiled' and compiled.load('recurrent')[0] is None:
        pytest.skip('no compiled kernel')
    monkeypatch.setenv('ENGINE_LSTM', way)
    steps, n_in, n = 5, 6, 24
    arrays = [noise(*shape, seed=k) for k, shape in enumerate([
        (steps, batch, n_in), (4 * n, n_in), (4 * n, n), (4 * n,), (batch, n), (batch, n)])]
    arrays += [noise(steps, batch, n, seed=7), noise(batch, n, seed=8)]
    mask = noise(steps, batch, seed=9) > -0.5
    dropped = noise(batch, n, seed=10)
    expected = window(arrays[:6], *arrays[6:], mask, dropped)
    ours = [*map(layout, arrays)]
    for kind in (bool, 'f', 'i8', 'd'):
        agree(window(ours[:6], *ours[6:], layout(mask.astype(kind)), layout(dropped)), expected)
    agree(window(ours[:6], *ours[6:], layout(mask), layout(dropped.astype('d'))), expected)


def test_masks_of_another_shape_are_refused():
    model = LSTM(3, 8)
    arrays = [noise(2, 16, 3), model.layer0.w_x, model.layer0.w_h, model.layer0.b,
              noise(16, 8), noise(16, 8)]
    for masks in ((numpy.ones((2, 1), bool),), (None, noise(1, 8))):
        with pytest.raises(ValueError, match='need a mask of shape'):
            lstm_window(*arrays, *masks)


@pytest.mark.parametrize('name', ['Adam', 'MomentumSGD'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_optimizers(name, layout):
    both = []
    for kind in (optimizers, chainer.optimizers):
        model = chainer.Link()
        with model.init_scope():
            model.w = chainer.Parameter(noise(7, 9))
        optimizer = getattr(kind, name)().setup(model)
        for step in range(2):
            model.w.grad = layout(noise(7, 9, seed=step))
            optimizer.update()
        both.append(model.w.array)
    assert numpy.array_equal(*both)


def test_what_c_cannot_take_is_refused():
    a = noise(4, 6)
    assert compiled.address(a) == a.ctypes.data and compiled.address(None) is None
    for wrong in (a.T, a[:, ::2], a[::-1], a.astype('d'), a.astype('>f4'), unaligned(a)):
        with pytest.raises(ValueError, match='C cannot take'):
            compiled.address(wrong)
        right = compiled.plain(wrong)
        assert compiled.address(right) and numpy.array_equal(right, wrong)
    assert compiled.plain(a) is a
