"""The recurrent network: its numbers against independent computations, and truncated learning."""
import chainer
import numpy
import pytest

import rnn
from RNNNet import RNNNet, load_rnn
from engine.learning.trainer import reseed
from engine.learning.steploss import sequence_loss, step_weights
from engine.weights.modelfile import save_model
from featureSet import arrays_of


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def batch_norm(x, gamma, beta):
    mean = x.mean(axis=0)
    variance = ((x - mean) ** 2).mean(axis=0)
    return gamma * (x - mean) / numpy.sqrt(variance + 2e-5) + beta


def reference_rows(p, shape, xs, mask):
    """The scores of the real steps, step by step in plain NumPy, complex numbers allowed.

    p: {name of a weight: array}.
    """
    h = (xs - p['mean']) * p['scale']
    steps, batch = h.shape[:2]
    if shape['cell'] == 'mean':
        h = numpy.stack([h[:t + 1].mean(axis=0) for t in range(steps)])
    for k, n in enumerate(shape['cells'] if shape['cell'] in ('lstm', 'gru') else ()):
        w_x, w_h, b = (p[f'recurrent/{k}/layer0/{name}'] for name in ('w_x', 'w_h', 'b'))
        y, c, outputs = numpy.zeros((2, batch, n), h.dtype)[0], numpy.zeros((batch, n)), []
        for t in range(steps):
            if shape['cell'] == 'lstm':
                i, f, o, g = numpy.split(h[t] @ w_x.T + y @ w_h.T + b, 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * numpy.tanh(g)
                y = sigmoid(o) * numpy.tanh(c)
            else:
                x_r, x_z, x_c = numpy.split(h[t] @ w_x.T + b, 3, axis=1)
                w_r, w_z, w_c = numpy.split(w_h, 3)
                r, z = sigmoid(x_r + y @ w_r.T), sigmoid(x_z + y @ w_z.T)
                y = z * numpy.tanh(x_c + (r * y) @ w_c.T) + (1 - z) * y
            outputs.append(y)
        h = numpy.stack(outputs)
    rows = numpy.stack([h[t, i] for t in range(steps) for i in range(batch) if mask[t, i]])
    if shape['cell'] in ('lstm', 'gru'):
        if shape['batch_norm']:
            rows = batch_norm(rows, p['norm1/gamma'], p['norm1/beta'])
        if shape['hidden']:
            rows = sigmoid(rows @ p['fc/W'].T + p['fc/b'])
            if shape['batch_norm']:
                rows = batch_norm(rows, p['norm2/gamma'], p['norm2/beta'])
    return rows @ p['out/W'].T + p['out/b']


def reference_loss(p, shape, xs, labels, lengths, kind):
    steps, batch = xs.shape[:2]
    mask = [[t < lengths[i] for i in range(batch)] for t in range(steps)]
    scores = reference_rows(p, shape, xs, numpy.array(mask))
    total, row = 0, 0
    for t in range(steps):
        for i in range(batch):
            if mask[t][i]:
                weight = {'linear': (t + 1) / lengths[i], 'uniform': 1,
                          'last': float(t + 1 == lengths[i])}[kind]
                total += weight * (numpy.log(numpy.exp(scores[row]).sum())
                                   - scores[row, labels[i]])
                row += 1
    return total / batch


def example(cell, kind='linear', lengths=(7, 7, 7, 7), batch_norm=True, hidden=5, cells=(8, 4)):
    """A small network without dropout, and a batch."""
    numpy.random.seed(0)
    model = RNNNet(6, 3, cell, cells, hidden, batch_norm, dropout=(0, 0, 0))
    model.set_statistics(numpy.linspace(-1, 1, 6), numpy.linspace(0.5, 2, 6))
    for param in model.params():  # biases and gammas must not stay at 0 and 1
        param.array += 0.3 * numpy.random.randn(*param.shape).astype('f')
    lengths = numpy.array(lengths)
    xs = numpy.random.randn(lengths.max(), len(lengths), 6).astype('f')
    xs[numpy.arange(len(xs))[:, None] >= lengths] = 0
    labels = numpy.random.randint(3, size=len(lengths)).astype('i')
    return model, xs, labels, lengths, kind


def loss_of(model, xs, labels, lengths, kind):
    mask = numpy.arange(len(xs))[:, None] < lengths
    model.reset_state()
    return sequence_loss(model, xs, labels, step_weights(kind, lengths, len(xs)),
                         None if mask.all() else mask)[0]


@pytest.mark.parametrize('cell,kind,lengths,batch_norm,hidden', [
    ('lstm', 'linear', (7, 7, 7, 7), True, 5), ('lstm', 'uniform', (7, 3, 1, 6), True, 5),
    ('lstm', 'last', (2, 7, 7, 3), False, 0), ('gru', 'linear', (7, 3, 1, 6), True, 5),
    ('gru', 'last', (7, 7, 7, 7), False, 5), ('linear', 'linear', (7, 3, 1, 6), True, 5),
    ('mean', 'uniform', (7, 3, 1, 6), True, 5)])
def test_loss_and_gradient_agree_with_float64(cell, kind, lengths, batch_norm, hidden):
    model, *batch = example(cell, kind, lengths, batch_norm, hidden)
    loss = loss_of(model, *batch)
    model.cleargrads()
    loss.backward()
    p = {name: array.astype(float) for name, array in arrays_of(model).items()}
    xs, labels, lengths, kind = batch
    expected = reference_loss(p, model.shape, xs.astype(float), labels, lengths, kind)
    assert float(loss.array) == pytest.approx(expected, rel=1e-5)
    for name, param in model.namedparams():
        name = name.lstrip('/')
        # The derivative by a complex step: exact, as nothing is subtracted.
        gradient = numpy.empty(param.shape)
        for place in numpy.ndindex(param.shape):
            moved = p[name].astype(complex)
            moved[place] += 1e-30j
            gradient[place] = reference_loss({**p, name: moved}, model.shape, xs, labels, lengths,
                                             kind).imag / 1e-30
        assert abs(param.grad - gradient).max() < 1e-5 * max(1, abs(gradient).max()), name


def test_loss_and_gradient_agree_with_pytorch():
    torch = pytest.importorskip('torch')
    model, xs, labels, lengths, kind = example('lstm', cells=(8, 8))
    loss = loss_of(model, xs, labels, lengths, kind)
    model.cleargrads()
    loss.backward()
    p = {name: torch.tensor(array.astype(float), requires_grad=array.dtype == 'f')
         for name, array in arrays_of(model).items()}
    lstm = torch.nn.LSTM(6, 8, 2).double()

    def rows(w):  # i, f, o, g there is i, f, g, o
        i, f, o, g = w.chunk(4)
        return torch.cat([i, f, g, o])
    weights = {}
    for k in range(2):
        name = f'recurrent/{k}/layer0/'
        weights.update({f'weight_ih_l{k}': rows(p[name + 'w_x']),
                        f'weight_hh_l{k}': rows(p[name + 'w_h']),
                        f'bias_ih_l{k}': rows(p[name + 'b']),
                        f'bias_hh_l{k}': torch.zeros(32, dtype=torch.float64)})
    h = (torch.tensor(xs.astype(float)) - p['mean']) * p['scale']
    h = torch.func.functional_call(lstm, weights, (h,))[0].reshape(-1, 8)

    def norm(h, name):
        return torch.nn.functional.batch_norm(h, None, None, p[name + '/gamma'],
                                              p[name + '/beta'], training=True, eps=2e-5)
    h = torch.sigmoid(norm(h, 'norm1') @ p['fc/W'].T + p['fc/b'])
    scores = norm(h, 'norm2') @ p['out/W'].T + p['out/b']
    losses = torch.nn.functional.cross_entropy(
        scores, torch.tensor(labels).long().repeat(len(xs)), reduction='none')
    expected = (losses.reshape(len(xs), -1) * torch.arange(1, 8)[:, None] / 7).sum() / 4
    expected.backward()
    assert float(loss.array) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, param in model.namedparams():
        gradient = p[name.lstrip('/')].grad.numpy()
        assert abs(param.grad - gradient).max() < 1e-5 * max(1, abs(gradient).max()), name


def test_step_weights_by_hand():
    lengths = numpy.array([4, 2, 1])
    assert step_weights('linear', lengths, 4).T.tolist() == [
        [0.25, 0.5, 0.75, 1], [0.5, 1, 0, 0], [1, 0, 0, 0]]
    assert step_weights('uniform', lengths, 4).T.tolist() == [
        [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert step_weights('last', lengths, 4).T.tolist() == [
        [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize('cell', ['lstm', 'gru', 'linear', 'mean'])
def test_what_stands_in_padding_changes_nothing(cell):
    found = []
    for junk in (0, 50):
        model, xs, *batch = example(cell, lengths=(7, 3, 1, 6))
        xs[numpy.arange(7)[:, None] >= batch[1]] = junk
        loss = loss_of(model, xs, *batch)
        model.cleargrads()
        loss.backward()
        # the running mean and variance of batch normalisation are among the arrays
        found.append((loss.array, arrays_of(model), [param.grad for param in model.params()]))
    assert found[0][0] == found[1][0]
    for name, array in found[0][1].items():
        assert numpy.array_equal(array, found[1][1][name]), name
    for a, b in zip(found[0][2], found[1][2]):
        assert numpy.array_equal(a, b)


def test_a_padded_batch_is_the_mean_of_its_clips():
    model, xs, labels, lengths, kind = example('lstm', lengths=(7, 3, 1, 6), batch_norm=False)
    together = float(loss_of(model, xs, labels, lengths, kind).array)
    alone = [float(loss_of(model, xs[:n, [i]], labels[[i]], lengths[[i]], kind).array)
             for i, n in enumerate(lengths)]
    assert together == pytest.approx(numpy.mean(alone), rel=1e-6)


def test_running_mean_goes_on_from_window_to_window():
    model, xs, *_ = example('mean')
    with chainer.using_config('train', False):
        whole = model(xs).array
        model.reset_state()
        parts = numpy.concatenate([model(part).array for part in (xs[:2], xs[2:3], xs[3:])])
    assert abs(whole - parts).max() < 1e-6


def test_a_saved_network_gives_the_same_scores(tmp_path):
    model, xs, *_ = example('gru')
    save_model(tmp_path / 'x.model', model, {'shape': model.shape})
    loaded, _ = load_rnn(tmp_path / 'x.model')
    with chainer.using_config('train', False):
        assert numpy.array_equal(model(xs).array, loaded(xs).array)


@pytest.mark.parametrize('cell', ['mean', 'linear', 'lstm'])
def test_a_network_of_few_features_is_read_again(cell, tmp_path):
    """mean and linear have no use for the 1024 units that their card tells of."""
    model = RNNNet(4, 3, cell, **{'cells': (2,), 'hidden': 2} if cell == 'lstm' else {})
    model.set_statistics(numpy.zeros(4, 'f'), numpy.ones(4, 'f'))
    save_model(tmp_path / 'x.model', model, {'shape': model.shape})
    assert load_rnn(tmp_path / 'x.model')[0].shape == model.shape


def test_the_deep_video_lstm():
    """Ng et al. 2015: five layers of 512, a softmax at every step, which no later step reaches."""
    model, xs, *_ = example('lstm', hidden=0, batch_norm=False, cells=(512,) * 5)
    assert [p.shape for name, p in sorted(model.namedparams()) if name.endswith('w_h')] == (
        [(2048, 512)] * 5)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        scores = model(xs).array.reshape(*xs.shape[:2], 3)
        for changed in range(len(xs)):
            other = xs.copy()
            other[changed] += 50
            model.reset_state()
            differs = (model(other).array.reshape(scores.shape) != scores).any(axis=(1, 2))
            assert list(differs) == [t >= changed for t in range(len(xs))]


def test_a_seed_is_a_run_of_its_own_and_repeats_itself():
    def weights(seed):
        reseed(chainer.get_device('@numpy'), seed)
        return RNNNet(6, 3, cells=(4,)).out.W.array
    assert numpy.array_equal(weights(1), weights(1))
    assert not numpy.array_equal(weights(1), weights(2))


# ---- truncated back-propagation ------------------------------------------------

def updated(window, cell='lstm'):
    """Weights after one batch of 7 steps with this window, and the number of updates."""
    model, xs, labels, lengths, kind = example(cell)
    optimizer = chainer.optimizers.MomentumSGD(0.1)
    optimizer.setup(model)
    updater = rnn.WindowUpdater(model, window, kind, chainer.iterators.SerialIterator([0], 1),
                                optimizer, seed=0)
    updater.learn((xs, labels, lengths), optimizer)
    return {name: param.array for name, param in model.namedparams()}, optimizer.t


@pytest.mark.parametrize('cell', ['lstm', 'gru'])
def test_a_window_of_the_whole_sequence_is_full_back_propagation(cell):
    weights, updates = updated(7, cell)
    assert updates == 1
    model, *batch = example(cell)
    optimizer = chainer.optimizers.MomentumSGD(0.1)
    optimizer.setup(model)
    loss = loss_of(model, *batch)
    model.cleargrads()
    loss.backward()
    optimizer.update()
    longer, _ = updated(100, cell)
    for name, param in model.namedparams():
        assert numpy.array_equal(weights[name], param.array), name
        assert numpy.array_equal(weights[name], longer[name]), name


def test_shorter_windows_update_more_often():
    whole, _ = updated(7)
    for window, count in ((3, 3), (1, 7)):
        weights, updates = updated(window)
        assert updates == count
        assert any((weights[name] != whole[name]).any() for name in whole)
