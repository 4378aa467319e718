"""The window layers against Chainer's step-by-step links and numerical gradients."""
import types

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
from chainer import gradient_check

from engine.errors import UserError
from engine.fast import cells, compiled, lstm_window as window_module, recurrent
from gpuKernels import elementwise, needs_compiler
from engine.fast.lstm import GRU, LSTM, copy_gru, copy_lstm, lstm_window

TOLERANCE = {numpy.float32: 1e-5, numpy.float64: 1e-10}
PAIRS = [(LSTM, L.LSTM, copy_lstm), (GRU, L.StatefulGRU, copy_gru)]


def normal(*shape, dtype=numpy.float64):
    return numpy.random.randn(*shape).astype(dtype)


@pytest.fixture(autouse=True)
def seeded():
    numpy.random.seed(0)


def make(kind, *args, dtype=numpy.float64, **kwargs):
    with chainer.using_config('dtype', dtype):
        model = kind(*args, **kwargs)
    for parameter in model.params():  # no zero bias that could hide a fault
        parameter.array[...] += normal(*parameter.shape, dtype=dtype) * 0.1
    return model


def gradients(model):
    return {name: p.grad for name, p in sorted(model.namedparams())}


def stepwise(links, xs):
    for link in links:
        if isinstance(link, L.StatefulGRU):  # without a state it leaves out the biases of U
            link.set_state(chainer.Variable(
                numpy.zeros((xs.shape[1], link.state_size), xs.dtype)))
    outputs = []
    for x in xs:
        for link in links:
            x = link(x)
        outputs.append(x)
    return F.stack(outputs)


@pytest.fixture(params=['numpy', 'compiled'])
def steps_by(request, monkeypatch):
    if request.param == 'compiled' and compiled.load('recurrent')[0] is None:
        pytest.skip(f'no compiled steps: {compiled.load("recurrent")[1]}')
    monkeypatch.setenv('ENGINE_LSTM', request.param)


@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64])
@pytest.mark.parametrize('layers', [1, 3])
@pytest.mark.parametrize('kind, link_class, copy', PAIRS)
def test_same_as_chainer(kind, link_class, copy, layers, dtype, steps_by):
    links = chainer.ChainList(*[
        make(link_class, 8 if k else 5, 8, dtype=dtype) for k in range(layers)])
    model = make(kind, 5, 8, layers, dtype=dtype)
    copy(list(links), model)
    x, weight = normal(7, 3, 5, dtype=dtype), normal(7, 3, 8, dtype=dtype)
    ours, theirs = chainer.Variable(x), chainer.Variable(x)
    y, y_expected = model(ours), stepwise(list(links), theirs)
    tolerance = TOLERANCE[dtype]
    assert y.dtype == dtype
    numpy.testing.assert_allclose(y.array, y_expected.array, rtol=0, atol=tolerance)
    model.cleargrads()
    links.cleargrads()
    F.sum(y * weight).backward()
    F.sum(y_expected * weight).backward()
    # Chainer's gradients, put into our layout by the same copy of a second pair of links.
    shifted = chainer.ChainList(*[make(link_class, 8 if k else 5, 8, dtype=dtype)
                                  for k in range(layers)])
    for (_, to), (_, of) in zip(sorted(shifted.namedparams()), sorted(links.namedparams())):
        to.array[...] = of.grad
    if kind is GRU:  # two biases of the same gradient, which the copy adds
        for link in shifted:
            for u in (link.U_r, link.U_z, link.U):
                u.b.array[...] = 0
    expected = make(kind, 5, 8, layers, dtype=dtype)
    copy(list(shifted), expected)
    for name, parameter in expected.namedparams():
        numpy.testing.assert_allclose(
            gradients(model)[name], parameter.array, rtol=tolerance, atol=tolerance,
            err_msg=name)
    numpy.testing.assert_allclose(ours.grad, theirs.grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('dropped', [False, True])
@pytest.mark.parametrize('steps, batch, n', [(1, 16, 8), (2, 9, 136), (5, 48, 24), (3, 200, 520)])
def test_compiled_as_numpy(steps, batch, n, masked, dropped, monkeypatch):
    if compiled.load('recurrent')[0] is None:
        pytest.skip(f'no compiled steps: {compiled.load("recurrent")[1]}')
    shapes = [(steps, batch, 6), (4 * n, 6), (4 * n, n), (4 * n,), (batch, n), (batch, n)]
    arguments = [normal(*shape, dtype=numpy.float32) for shape in shapes]
    arguments[2] /= n ** 0.5
    mask = numpy.random.rand(steps, batch) > 0.3 if masked else None
    recurrent_mask = 2 * (normal(batch, n) > 0).astype(numpy.float32) if dropped else None
    weights = normal(steps, batch, n, dtype=numpy.float32), normal(batch, n, dtype=numpy.float32)

    def run(way, threads):
        monkeypatch.setenv('ENGINE_LSTM', way)
        monkeypatch.setattr(recurrent, 'usable_cores', lambda: threads)
        inputs = [chainer.Variable(a) for a in arguments]
        outputs = lstm_window(*inputs, mask, recurrent_mask)
        with chainer.no_backprop_mode():  # the buffers of one step only
            for y, again in zip(outputs, lstm_window(*inputs, mask, recurrent_mask)):
                numpy.testing.assert_array_equal(y.array, again.array)
        sum(F.sum(y * w) for y, w in zip(outputs, weights)).backward()
        return [y.array for y in outputs] + [x.grad for x in inputs]
    one, two, expected = run('compiled', 1), run('compiled', 2), run('numpy', 1)
    for a, b, c in zip(one, two, expected):
        numpy.testing.assert_array_equal(a, b)  # whatever the number of threads
        numpy.testing.assert_allclose(a, c, rtol=0, atol=1e-5 * max(1, numpy.abs(c).max()))


def test_way_by_name(monkeypatch):
    model = LSTM(3, 8)
    monkeypatch.setenv('ENGINE_LSTM', 'fortran')
    with pytest.raises(UserError, match='ENGINE_LSTM'):
        model(normal(1, 16, 3, dtype=numpy.float32))
    monkeypatch.setattr(compiled, 'load', lambda name: (None, 'no C compiler'))
    monkeypatch.setenv('ENGINE_LSTM', 'compiled')
    with pytest.raises(UserError, match='no C compiler'):
        model(normal(1, 16, 3, dtype=numpy.float32))
    monkeypatch.setenv('ENGINE_LSTM', '')
    assert model(normal(1, 16, 3, dtype=numpy.float32)).shape == (1, 16, 8)


@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('dropped', [False, True])
def test_numerical_gradient(steps, masked, dropped):
    batch, n_in, n = 2, 3, 4
    mask = numpy.array([[1, 0], [0, 1], [1, 0]], bool)[:steps] if masked else None
    recurrent_mask = numpy.random.rand(batch, n) * 2 if dropped else None
    arguments = (normal(steps, batch, n_in), normal(4 * n, n_in), normal(4 * n, n),
                 normal(4 * n), normal(batch, n), normal(batch, n))
    gradient_check.check_backward(
        lambda *xs: lstm_window(*xs, mask=mask, recurrent_mask=recurrent_mask), arguments,
        (normal(steps, batch, n), normal(batch, n)), dtype='d', atol=1e-6, rtol=1e-6)


def test_one_output_without_gradient():
    arguments = [chainer.Variable(a) for a in (
        normal(3, 2, 3), normal(16, 3), normal(16, 4), normal(16), normal(2, 4), normal(2, 4))]
    _, c = lstm_window(*arguments)
    c.grad = numpy.ones_like(c.array)
    c.backward()  # the output h takes no part
    assert all(numpy.abs(a.grad).sum() > 0 for a in arguments)


@pytest.mark.parametrize('kind', [LSTM, GRU])
def test_windows_carry_the_state(kind):
    model = make(kind, 5, 4, 2)
    x = normal(9, 3, 5)
    whole = model(x).array
    model.reset_state()
    parts = numpy.concatenate([model(x[a:b]).array for a, b in ((0, 4), (4, 5), (5, 9))])
    numpy.testing.assert_allclose(parts, whole, rtol=0, atol=1e-14)
    with chainer.no_backprop_mode():
        model.reset_state()
        numpy.testing.assert_array_equal(model(x).array, whole)
        # The next step too, so that the state it leaves behind is the same.
        after = model(x[:1]).array[0]
    model.reset_state()
    longer = model(numpy.concatenate([x, x[:1]])).array
    numpy.testing.assert_allclose(after, longer[-1], rtol=0, atol=1e-14)


@pytest.mark.parametrize('kind', [LSTM, GRU])
def test_gradient_stops_between_calls(kind):
    model = make(kind, 5, 4)
    first, second = chainer.Variable(normal(3, 2, 5)), chainer.Variable(normal(3, 2, 5))
    model(first)
    F.sum(model(second)).backward()
    assert first.grad is None and numpy.abs(second.grad).sum() > 0


def test_truncation_at_the_whole_sequence_is_full_back_propagation():
    model = make(LSTM, 5, 4)
    layer = model.layer0
    x, weight = normal(8, 3, 5), normal(8, 3, 4)
    model.cleargrads()
    F.sum(model(x) * weight).backward()
    window_is_sequence = gradients(model)
    # The same in windows of two steps that hand on a state with its gradient.
    model.cleargrads()
    h, c, loss = numpy.zeros((3, 4)), numpy.zeros((3, 4)), 0
    for t in range(0, 8, 2):
        y, c = lstm_window(x[t:t + 2], layer.w_x, layer.w_h, layer.b, h, c)
        h = y[-1]
        loss += F.sum(y * weight[t:t + 2])
    loss.backward()
    for name, gradient in gradients(model).items():
        numpy.testing.assert_allclose(gradient, window_is_sequence[name], atol=1e-12)
    # Real truncation gives something else.
    model.cleargrads()
    model.reset_state()
    for t in range(0, 8, 2):
        F.sum(model(x[t:t + 2]) * weight[t:t + 2]).backward()
    assert numpy.abs(model.layer0.w_h.grad - window_is_sequence['/layer0/w_h']).max() > 1e-3


@pytest.mark.parametrize('kind', [LSTM, GRU])
@pytest.mark.parametrize('mask_dtype', [bool, numpy.float32])
def test_padding_does_not_alter_a_sequence(kind, mask_dtype):
    model = make(kind, 5, 4, 2)
    lengths, x = [4, 6, 1], normal(6, 3, 5)
    mask = (numpy.arange(6)[:, None] < lengths).astype(mask_dtype)
    weight = normal(6, 3, 4)
    model.cleargrads()
    y = model(x, mask)
    F.sum(y * (weight * mask[:, :, None])).backward()
    padded, state = gradients(model), [s.copy() for layer in model.state for s in layer]
    model.cleargrads()
    for b, length in enumerate(lengths):
        model.reset_state()
        alone = model(x[:length, b:b + 1])
        numpy.testing.assert_allclose(y.array[:length, b], alone.array[:, 0], atol=1e-14)
        for t in range(length, 6):
            numpy.testing.assert_array_equal(y.array[t, b], y.array[length - 1, b])
        flat = [s for layer in model.state for s in layer]
        for together, s in zip(state, flat):
            numpy.testing.assert_allclose(together[b], s[0], atol=1e-14)
        F.sum(alone * weight[:length, b:b + 1]).backward()
    for name, gradient in gradients(model).items():
        numpy.testing.assert_allclose(padded[name], gradient, atol=1e-12, err_msg=name)


@pytest.mark.parametrize('kind', [LSTM, GRU])
def test_padding_on_the_left_keeps_the_zero_state(kind):
    model = make(kind, 5, 4)
    mask = numpy.array([[0], [0], [1]])
    x = normal(3, 1, 5)
    y = model(x, mask).array
    assert not y[:2].any()
    model.reset_state()
    numpy.testing.assert_allclose(y[2], model(x[2:]).array[0], atol=1e-14)


@pytest.mark.parametrize('kind', [LSTM, GRU])
@pytest.mark.parametrize('ratios', [(0.5, 0.0), (0.0, 0.5), (0.3, 0.3)])
def test_dropout(kind, ratios):
    model = make(kind, 5, 8, 2, *ratios)
    with chainer.using_config('dtype', numpy.float64):
        plain = kind(5, 8, 2)
    plain.copyparams(model)
    x = normal(6, 3, 5)

    def run(model, seed=1):
        model.reset_state()
        numpy.random.seed(seed)
        return model(x).array
    assert numpy.abs(run(model) - run(plain)).max() > 1e-3
    numpy.testing.assert_array_equal(run(model), run(model))
    assert numpy.abs(run(model) - run(model, seed=2)).max() > 1e-3
    with chainer.using_config('train', False):
        numpy.testing.assert_array_equal(run(model), run(plain))


@pytest.mark.parametrize('kind', [LSTM, GRU])
def test_recurrent_dropout_keeps_the_expectation(kind):
    # With weights that stay in the linear part of the gates the mean over many masks is
    # the output without dropout.
    ratio, batch = 0.4, 40000
    model, plain = make(kind, 2, 3, recurrent_dropout=ratio), make(kind, 2, 3)
    for parameter in model.params():
        parameter.array[...] *= 0.1
    plain.copyparams(model)
    x = numpy.repeat(normal(2, 1, 2), batch, axis=1)
    dropped, expected = model(x).array, plain(x).array
    numpy.testing.assert_array_equal(dropped[0], expected[0])  # there was no state to drop
    spread = dropped[1].std(axis=0)
    assert spread.min() > 0
    error = numpy.abs(dropped[1].mean(axis=0) - expected[1, 0])
    assert (error < 5 * spread / batch ** 0.5 + 1e-6).all()


def test_recurrent_mask_lasts_for_a_sequence():
    model = make(LSTM, 5, 4, recurrent_dropout=0.5)
    x = normal(6, 3, 5)
    numpy.random.seed(3)
    whole = model(x).array
    model.reset_state()
    numpy.random.seed(3)
    numpy.testing.assert_allclose(
        numpy.concatenate([model(x[:2]).array, model(x[2:]).array]), whole, atol=1e-14)


@pytest.mark.parametrize('kind', [LSTM, GRU])
def test_saved_and_loaded(kind, tmp_path):
    model, other = make(kind, 5, 4, 2), make(kind, 5, 4, 2)
    x = normal(3, 2, 5)
    y = model(x).array
    chainer.serializers.save_npz(tmp_path / 'model.npz', model)
    with numpy.load(tmp_path / 'model.npz') as saved:
        assert sorted(saved) == sorted(
            f'layer{k}/{name}' for k in range(2) for name in ('b', 'w_h', 'w_x'))
    chainer.serializers.load_npz(tmp_path / 'model.npz', other)
    numpy.testing.assert_array_equal(other(x).array, y)


def test_no_gradient_to_the_data_unless_wanted():
    model = make(LSTM, 5, 4)
    x = chainer.Variable(normal(3, 2, 5))
    F.sum(model(x, need_x_grad=False)).backward()
    assert x.grad is None
    assert not F.dropout(normal(3, 2, 5)).requires_grad  # so dropout on data costs nothing


def test_starts_as_chainer():
    ours, theirs = LSTM(300, 200).layer0, L.LSTM(300, 200)
    numpy.testing.assert_array_equal(
        ours.b.array, numpy.repeat(numpy.float32([0, 1, 0, 0]), 200))
    for w, expected in ((ours.w_x, theirs.upward.W), (ours.w_h, theirs.lateral.W)):
        assert w.dtype == numpy.float32
        assert w.array.std() == pytest.approx(expected.array.std(), rel=0.02)


def test_misuse_is_named():
    model = make(LSTM, 5, 4)
    with pytest.raises(ValueError, match='steps, batch, features'):
        model(normal(3, 5))
    with pytest.raises(ValueError, match='mask of shape'):
        model(normal(3, 2, 5), numpy.ones((3, 1)))
    y = model(normal(3, 2, 5))
    with pytest.raises(ValueError, match='reset_state'):
        model(normal(3, 1, 5))
    with pytest.raises(NotImplementedError, match='second derivative'):
        F.sum(y).backward(enable_double_backprop=True)
    F.sum(y).backward()
    with pytest.raises(RuntimeError, match='once'):
        F.sum(y).backward()


# ---- the kernels of a GPU, compiled for the CPU ----------------------------------------------

@needs_compiler
@pytest.mark.parametrize('masked', [False, True])
def test_kernels_of_a_gpu_compute_the_same(masked, monkeypatch):
    """The whole window through the GPU's branches, NumPy in CuPy's place."""
    gpu = types.ModuleType('cupy')
    gpu.__dict__.update(numpy.__dict__)
    model = make(LSTM, 5, 8, 2, recurrent_dropout=0.25)
    x, weight = normal(7, 3, 5), normal(7, 3, 8)
    mask = numpy.random.rand(7, 3) > 0.3 if masked else None

    def run():
        model.reset_state()
        model.cleargrads()
        numpy.random.seed(1)  # the masks of the dropout
        variable = chainer.Variable(x)
        y = model(variable, mask)
        F.sum(y * weight).backward()
        return [y.array, variable.grad, *gradients(model).values()]
    expected = run()
    used = []
    monkeypatch.setattr(cells.cuda, 'elementwise', lambda *args: (
        used.append(args[3]), elementwise(*args))[1])
    monkeypatch.setattr(window_module, 'backend', types.SimpleNamespace(
        get_array_module=lambda *_: gpu))
    for ours, theirs in zip(run(), expected):
        numpy.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert set(used) == {'lstm_window_forward', 'lstm_window_backward'}
