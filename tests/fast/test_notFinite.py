"""Infinity and what is no number go through every kernel as through Chainer's own layers."""
import types

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from convStacks import make_layers
from gpuKernels import elementwise, needs_compiler
from engine.fast import cells, compiled, conv, conv_gpu, conv_learn, optimizers
from engine.fast.lstm_window import lstm_window

BAD = [numpy.nan, numpy.inf, -numpy.inf]
pytestmark = pytest.mark.filterwarnings('ignore::RuntimeWarning')


def needs(name):
    return pytest.mark.skipif(compiled.load(name)[0] is None, reason=compiled.load(name)[1])


def noise(*shape, seed=0):
    return numpy.random.default_rng(seed).normal(0, 1, shape).astype('f')


def spoilt(array, value, seed=0):
    """A copy with one number of it replaced."""
    array = array.copy()
    array.flat[numpy.random.default_rng(seed).integers(array.size)] = value
    return array


def close(a, b):
    """Whether they agree. Infinity times what is nearly or quite nothing is infinite or NaN: both
    are no numbers to go on with."""
    with numpy.errstate(all='ignore'):
        return (numpy.isclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True)
                | ~(numpy.isfinite(a) | numpy.isfinite(b)))


# ---- the LSTM: the same numbers ----------------------------------------------------------------

def chainers_window(x, w_x, w_h, b, h, c, mask=None, recurrent_mask=None):
    """lstm_window by Chainer's own functions, a step at a time."""
    outputs = []
    for t in range(len(x)):
        dropped = h if recurrent_mask is None else h * recurrent_mask
        i, f, o, g = F.split_axis(F.linear(x[t], w_x, b) + F.linear(dropped, w_h), 4, axis=1)
        i, f, o, g = F.sigmoid(i), F.sigmoid(f), F.sigmoid(o), F.tanh(g)
        new_c = f * c + i * g
        new_h = o * F.tanh(new_c)
        if mask is not None:
            on = numpy.broadcast_to(mask[t][:, None], h.shape)
            new_c, new_h = F.where(on, new_c, c), F.where(on, new_h, h)
        h, c = new_h, new_c
        outputs.append(h)
    return F.stack(outputs), c


def window(function, inputs, gy, gc, *masks):
    inputs = [chainer.Variable(a) for a in inputs]
    y, c = function(*inputs, *masks)
    y.grad, c.grad = gy, gc
    # one call for both outputs' gradients
    chainer.grad([y, c], inputs, [chainer.Variable(gy), chainer.Variable(gc)], set_grad=True)
    return [y.array, c.array, *[v.grad for v in inputs]]


@pytest.mark.parametrize('way', [pytest.param('compiled', marks=needs('recurrent')), 'numpy'])
@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('spoils', ['x', 'w_x', 'w_h', 'b', 'h', 'c', 'gy', 'gc', 'masked gy'])
def test_lstm(way, value, spoils, monkeypatch):
    monkeypatch.setenv('ENGINE_LSTM', way)
    steps, batch, n_in, n = 4, 19, 5, 16
    names = ('x', 'w_x', 'w_h', 'b', 'h', 'c')
    shapes = [(steps, batch, n_in), (4 * n, n_in), (4 * n, n), (4 * n,), (batch, n), (batch, n)]
    inputs = [noise(*shape, seed=k) for k, shape in enumerate(shapes)]
    gy, gc, masks = noise(steps, batch, n, seed=8), noise(batch, n, seed=9), ()
    if spoils == 'masked gy':
        mask = numpy.random.default_rng(1).random((steps, batch)) > 0.4
        masks = mask, (2 * numpy.random.default_rng(2).integers(0, 2, (batch, n))).astype('f')
        gy = gy.copy()
        gy[2, numpy.flatnonzero(~mask[2])[0], 3] = value
    elif spoils == 'gy':
        gy = spoilt(gy, value)
    elif spoils == 'gc':
        gc = spoilt(gc, value)
    else:
        k = names.index(spoils)
        inputs[k] = spoilt(inputs[k], value)
    ours, theirs = (window(function, inputs, gy, gc, *masks)
                    for function in (lstm_window, chainers_window))
    changed = False
    for a, b, name in zip(ours, theirs, ('y', 'last c', *names), strict=True):
        assert close(a, b).all(), name
        changed |= not numpy.isfinite(b).all()
    # An infinite pre-activation is a gate that is open or shut; all else shows.
    assert changed or (spoils == 'b' and not numpy.isnan(value))


@needs_compiler
@pytest.mark.parametrize('value', BAD)
def test_the_cell_on_a_gpu(value, monkeypatch):
    monkeypatch.setattr(cells.cuda, 'elementwise', elementwise)
    for k in range(3):
        n, batch = 3, 5
        z, before = noise(4 * n, batch), [noise(4 * n, batch, seed=1), noise(n, batch, seed=2)]
        if k < 2:
            before[k] = spoilt(before[k], value)
        else:
            z = spoilt(z, value)
        (gates, c_last), made = before, [noise(n, batch) for _ in range(3)]
        numpys = [gates + z, c_last, *(a.copy() for a in made)]
        cells.cell(*numpys)
        going, kept = numpy.ones((batch, 1), 'f'), numpy.ones((batch, n), 'f')
        gpus = [gates.T.copy(), *(a.T.copy() for a in made), noise(batch, n)]
        cells.cell_gpu(z.T, c_last.T, noise(batch, n), going, kept, *gpus)
        for a, b in zip(gpus, [numpys[0], *numpys[2:], numpys[-1]], strict=True):
            assert close(a.T, b).all()
        gates, tanh_c = numpys[0], numpys[3]
        gh, gc = noise(n, batch, seed=4), noise(n, batch, seed=5)
        for given in ([spoilt(gh, value), gc], [gh, spoilt(gc, value)], [gh, gc]):
            gh_, gc_, g_gates = given[0].copy(), given[1].copy(), numpy.zeros_like(gates)
            back = [given[1].T.copy(), numpy.zeros_like(g_gates.T)]
            cells.cell_backward_gpu(gates.T, c_last.T, tanh_c.T, given[0].T, 0 * kept, going, kept,
                                    0 * kept, *back)
            cells.cell_backward(gates.copy(), c_last, tanh_c.copy(), gh_, gc_, g_gates)
            assert all(close(a.T, b).all() for a, b in zip(back, (gc_, g_gates), strict=True))


# ---- convolutions: at least what is spoilt in a direct one, and no more than its tiles ----------

def chainers(x, layers, relu=True):
    for w, b, pool in layers:
        x = F.convolution_2d(x, w, b, pad=1)
        x = F.relu(x) if relu else x
        if pool:
            x = F.max_pooling_2d(x, 2, stride=2)
    return x


def assert_spoilt_as(ours, theirs):
    """What Chainer spoils is spoilt; what is a number is the same number."""
    bad = ~numpy.isfinite(ours)
    assert bad[~numpy.isfinite(theirs)].all()
    assert close(ours, theirs)[~bad].all()
    return bad


STACKS = {
    'compiled': lambda layers, relu: conv.ConvStack(layers, relu, compiled=True),
    'numpy': lambda layers, relu: conv.ConvStack(layers, relu, compiled=False),
    'products': lambda layers, relu: conv_gpu.GPUStack(layers, relu, xp=numpy)}


@pytest.mark.parametrize('way', [pytest.param('compiled', marks=needs('winograd')), 'numpy',
                                 'products'])
@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('relu', [True, False])
@pytest.mark.parametrize('pool', [True, False])
def test_convolutions(way, value, relu, pool):
    layers = make_layers(['20' if pool else 20], channels=5)
    (w, b, _), x = layers[0], noise(2, 13, 22, 5)
    seen = 0
    for row in range(4, 9):       # each place of a tile
        for column in range(4, 9):
            given = x.copy()
            given[1, row, column, 3] = value
            ours = STACKS[way](layers, relu)(given)
            with chainer.no_backprop_mode():
                theirs = chainers(given.transpose(0, 3, 1, 2), layers, relu).array
            bad = assert_spoilt_as(ours, theirs)
            seen += (~numpy.isfinite(theirs)).sum()
            # no more than the tiles that its neighbours lie in
            step = 2 if pool else 4
            near = numpy.zeros_like(bad)
            near[1, :, (row - 1) // 4 * step:((row + 1) // 4 + 1) * step,
                 (column - 1) // 4 * step:((column + 1) // 4 + 1) * step] = True
            assert not (bad & ~near).any()
    assert seen
    for spoilt_layer in ((spoilt(w, value), b, pool), (w, spoilt(b, value), pool)):
        ours = STACKS[way]([spoilt_layer], relu)(x)
        theirs = chainers(x.transpose(0, 3, 1, 2), [spoilt_layer], relu).array
        assert_spoilt_as(ours, theirs)


@pytest.mark.parametrize('way', [pytest.param('compiled', marks=needs('winograd')), 'numpy',
                                 'products'])
def test_deep_stacks(way):
    layers = make_layers([8, '20', 12, '33'])
    x = noise(2, 24, 20, 3)
    x[1, 10, 10, 1] = numpy.nan
    ours = STACKS[way](layers, True)(x)
    assert_spoilt_as(ours, chainers(x.transpose(0, 3, 1, 2), layers).array)
    assert numpy.isfinite(ours[0]).all() and numpy.isnan(ours[1]).any()


@needs_compiler
@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('corner', range(4))
def test_pooling_takes_a_number_only_where_all_are(value, corner, monkeypatch):
    x = noise(1, 5, 4, 3)
    x[0, 2 + corner // 2, corner % 2, 1] = value
    expected = F.max_pooling_2d(x.transpose(0, 3, 1, 2), 2, stride=2).array.transpose(0, 2, 3, 1)
    outs = [numpy.zeros((1, 3, 2, 3), 'f') for _ in range(2)]
    conv_gpu.pooled(numpy, x, outs[0])
    monkeypatch.setattr(conv_gpu.cuda, 'elementwise', elementwise)
    conv_gpu.pooled(types.SimpleNamespace(pad=numpy.pad), x, outs[1])  # by the GPU's kernel
    for out in (*outs, conv.pooled(x[0])[None]):
        numpy.testing.assert_array_equal(out, expected)


@needs('winograd')
@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('spoils', ['x', 'w', 'b', 'gy'])
@pytest.mark.parametrize('pools', [(False, False), (True, False), (False, True)])
def test_learning_convolutions(value, spoils, pools):
    layers = [(w, b + 40, pool) for (w, b, _), pool in zip(make_layers([8, 20]), pools)]
    x = noise(2, 3, 17, 10)
    gy = noise(2, 20, *(((9, 5) if any(pools) else (17, 10))), seed=2)
    if spoils in ('x', 'gy'):
        x, gy = (spoilt(x, value), gy) if spoils == 'x' else (x, spoilt(gy, value))
    else:
        w, b, pool = layers[1]
        layers[1] = (spoilt(w, value), b, pool) if spoils == 'w' else (w, spoilt(b, value), pool)
    results, seen = [], 0
    for function in (conv_learn.conv_stack, chainers):
        given = chainer.Variable(x)
        variables = [(chainer.Variable(w), chainer.Variable(b), pool) for w, b, pool in layers]
        y = function(given, variables)
        y.grad = gy
        y.backward()
        results.append([y.array, given.grad, *[p.grad for w, b, _ in variables for p in (w, b)]])
    for ours, theirs in zip(*results, strict=True):
        assert_spoilt_as(ours, theirs)
        seen += (~numpy.isfinite(theirs)).sum()
    assert seen or value == -numpy.inf  # of which a ReLU makes zero


# ---- optimizers: the same bits ------------------------------------------------------------------

@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('spoils', ['parameter', 'gradient', 'state'])
@pytest.mark.parametrize('name', ['Adam', 'MomentumSGD'])
def test_optimizers(name, spoils, value):
    start, gradient, both = noise(7, 9), noise(7, 9, seed=1), []
    for ours, theirs in ((optimizers, optimizers), (chainer.optimizers, chainer.optimizer_hooks)):
        model = chainer.Link()
        with model.init_scope():
            model.w = chainer.Parameter(spoilt(start, value) if spoils == 'parameter'
                                        else start.copy())
        optimizer = getattr(ours, name)().setup(model)
        optimizer.add_hook(theirs.WeightDecay(0.01))
        for step in range(3):
            model.w.grad = (spoilt(gradient, value) if spoils == 'gradient' and step == 1
                            else gradient.copy())
            optimizer.update()
            if spoils == 'state' and step == 0:
                for state in model.w.update_rule.state.values():
                    state[...] = spoilt(state, value)
        both.append(model.w.array)
    numpy.testing.assert_array_equal(*both)
    assert not numpy.isfinite(both[0]).all()
