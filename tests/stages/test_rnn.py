"""The recurrent network and stage 6: numbers, resuming, testing, bad input."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chainer
import h5py
import numpy
import pytest

import featureSet
import helperFunctions as hf
from engine import variants
import rnn
from RNNNet import RNNNet, load_rnn
from VGGNet_1024 import VGGNet_1024
from engine.errors import UserError
from engine.weights.modelfile import read_card, save_model, weights_digest
from engine.learning.training import reseed
from engine.learning.truncated import sequence_loss, step_weights

REPOSITORY = Path(__file__).resolve().parents[2]


# ---- the network against an independent computation ---------------------------

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


def all_arrays(model):
    target = chainer.serializers.DictionarySerializer()
    target.save(model)
    return {name: numpy.array(value) for name, value in target.target.items()}


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
    p = {name: array.astype(float) for name, array in all_arrays(model).items()}
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
         for name, array in all_arrays(model).items()}
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
        found.append((loss.array, all_arrays(model), [param.grad for param in model.params()]))
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
        parts = numpy.concatenate([model(xs[:3]).array, model(xs[3:]).array])
    assert abs(whole - parts).max() < 1e-6


# ---- truncated back-propagation ------------------------------------------------

def updated(window, cell='lstm'):
    """Weights after one batch of 7 steps with this window, and the number of updates."""
    model, xs, labels, lengths, kind = example(cell)
    optimizer = chainer.optimizers.MomentumSGD(0.1)
    optimizer.setup(model)
    updater = rnn.WindowUpdater(model, window, kind, chainer.iterators.SerialIterator([0], 1),
                                optimizer, seed=0)
    updater.step((xs, labels, lengths), optimizer)
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


# ---- the stage -------------------------------------------------------------------

@pytest.fixture
def root(tmp_path):
    featureSet.make_features(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch):
    """Runs rnn.py in this process with tiny settings."""
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['rnn.py', '--root', str(root), '--tiny',
                                          *map(str, flags)])
        rnn.main()
    return run


def lines_of(root):
    return [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]


def log_of(root, name='RNN'):
    return json.loads((root / f'{name}.training' / 'log').read_text())


def test_writes_what_it_says(root, run):
    run(root, '--cells', 12, 8, '--dropout', 0.1, 0.2, 0.3, '--variable-length')
    line, = lines_of(root)
    assert (line['method'], line['unit'], line['n']) == ('LSTM 12-8', 'video', 12)
    assert line['predictions'] == 'RNN_testPredictions.hdf5'
    model, card = load_rnn(root / 'RNN.model')
    assert card['classes'] == featureSet.CLASSES and model.shape['cells'] == [12, 8]
    lists = hf.read_lists(root)
    held_out = hf.hold_out_groups(lists.train)[1]
    for kind, clips in (('test', lists.test), ('validation', held_out)):
        with h5py.File(root / f'RNN_{kind}Predictions.hdf5') as f:
            assert sorted(f) == sorted(clip.name for clip in clips)
            assert all(data.shape == (16, 3) or len(data) > 16 for data in f.values())
    kept = min(log_of(root), key=lambda epoch: epoch['validation/main/loss'])
    # The validation in training looks at the clips as the test does.
    assert line['validation_loss'] == pytest.approx(kept['validation/main/loss'], rel=1e-5)
    assert line['validation_accuracy'] == kept['validation/main/accuracy']
    assert (line['train_loss'], line['epoch']) == (kept['main/loss'], kept['epoch'])


def test_learns_what_there_is_to_learn(root, run):
    run(root, '--epochs', 15, '--optimizer', 'adam', '--lr', 0.02, '--no-batch-norm',
        '--hidden', 0, '--dropout', 0)
    assert lines_of(root)[0]['top1'] > 0.8


@pytest.mark.parametrize('flags', [
    ('--optimizer', 'adam', '--schedule', 'cosine', '--recurrent-dropout', '0.2', '--patience',
     '9'),
    ('--cell', 'gru', '--schedule', 'step', '--lr-drop', '2', '--weight-decay', '0.01', '--noise',
     '0.1', '--variable-length')])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(root, tmp_path, run, stopped_after, flags):
    other = tmp_path / 'other'
    featureSet.make_features(other)
    run(root, '--epochs', 4, *flags)
    for stop in (2, 7):  # in the middle of an epoch of 3 batches, and at the start of one
        stopped_after(stop, run, other, '--epochs', 4, *flags)
    run(other, '--epochs', 4, *flags)
    assert (root / 'RNN.model').read_bytes() == (other / 'RNN.model').read_bytes()
    logs = [[{key: value for key, value in epoch.items() if key != 'elapsed_time'}
             for epoch in log_of(folder)] for folder in (root, other)]
    assert logs[0] == logs[1] and len(logs[0]) == 4


def test_more_epochs_go_on_but_other_settings_are_refused(root, run):
    run(root, '--epochs', 1)
    run(root, '--epochs', 3)
    assert [epoch['epoch'] for epoch in log_of(root)] == [1, 2, 3]
    with pytest.raises(UserError, match='other settings .*lr 0.0005 -> 0.1.*--restart'):
        run(root, '--epochs', 3, '--lr', 0.1)
    run(root, '--epochs', 1, '--lr', 0.1, '--restart')
    assert len(log_of(root)) == 1


def test_fewer_epochs_than_were_trained_are_refused(root, run):
    run(root, '--epochs', 2)
    with pytest.raises(UserError, match='has 2 epochs, but --epochs is 1; .*--restart'):
        run(root, '--epochs', 1)
    assert len(lines_of(root)) == 1


def test_stops_when_the_validation_loss_no_longer_falls(root, run):
    # A rate too small to change any weight: the first epoch stays the best.
    run(root, '--epochs', 9, '--patience', 2, '--lr', 1e-30, '--no-batch-norm')
    assert len(log_of(root)) == 3
    assert lines_of(root)[0]['epoch'] == 1


def test_the_best_epoch_is_kept_not_the_last(root, run):
    # A rate at which the loss jumps about; another epoch where the last is the best so far.
    for epochs in range(5, 12):
        run(root, '--epochs', epochs, '--lr', 0.5, '--optimizer', 'adam')
        losses = [epoch['validation/main/loss'] for epoch in log_of(root)]
        if losses.index(min(losses)) < epochs - 1:
            break
    assert losses.index(min(losses)) < epochs - 1  # or this test shows nothing
    assert lines_of(root)[-1]['validation_loss'] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize('poison', ['loss', 'weights'])
def test_a_loss_that_is_no_number_keeps_the_last_good_snapshot(root, run, monkeypatch, poison):
    run(root, '--epochs', 1)
    snapshot = root / 'RNN.training' / 'snapshot.npz'
    before, model = snapshot.read_bytes(), (root / 'RNN.model').read_bytes()
    if poison == 'loss':
        monkeypatch.setattr('engine.learning.truncated.sequence_loss', lambda *args: (
            sequence_loss(*args)[0] * float('nan'), 0))
    else:
        core = rnn.WindowUpdater.update_core

        def poisoned(self):
            core(self)
            if self.iteration == 5:  # the last of the second epoch
                self.model.out.b.array[0] = numpy.nan
        monkeypatch.setattr(rnn.WindowUpdater, 'update_core', poisoned)
    with pytest.raises(UserError, match='last good snapshot is kept.*lower --lr'):
        run(root, '--epochs', 3)
    assert snapshot.read_bytes() == before
    assert (root / 'RNN.model').read_bytes() == model
    monkeypatch.undo()
    with numpy.load(snapshot) as f:
        assert all(numpy.isfinite(f[name]).all() for name in f if 'out/' in name)


def test_features_of_an_earlier_model_are_told_of(root, run, capsys):
    model = VGGNet_1024((4, 4, 4, 4, 4), 4, 2, 32, 4)
    save_model(root / variants.FRAME_MODEL, model, {'shape': model.shape})
    for same in (True, False):
        for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
            with h5py.File(root / name, 'a') as f:
                f.attrs['model_sha256'] = (weights_digest(root / variants.FRAME_MODEL) if same
                                           else 'another')
        run(root, '--restart')
        assert ('features of an earlier VGG_1024.model' in capsys.readouterr().out) != same


def test_other_inference_without_training_again(root, run):
    run(root, '--test-steps', 12)
    model = (root / 'RNN.model').read_bytes()
    run(root, '--test-only')  # as it was tested in training
    run(root, '--test-only', '--inference', 'segments:3', '--test-steps', 4, '--reverse-too',
        '--readout', 'max', '--lr', 99)
    first, again, other = lines_of(root)
    assert (root / 'RNN.model').read_bytes() == model
    assert again['predictions'] == 'RNN-first12-linear_testPredictions.hdf5'
    assert other['predictions'] == 'RNN-segments3x4-reversed-max_testPredictions.hdf5'
    same = ('top1', 'loss', 'validation_loss', 'settings', 'train_loss', 'seed', 'method')
    assert [first[key] for key in same] == [again[key] for key in same]
    assert [line.get('test_only') for line in (first, again, other)] == [None, True, True]
    assert other['settings'] == {**first['settings'], 'inference': 'segments:3', 'test_steps': 4,
                                 'reverse_too': True, 'readout': 'max'}
    with h5py.File(root / other['predictions']) as f:
        assert f.attrs['readout'] == 'max' and {len(data) for data in f.values()} == {4}
    assert (root / 'RNN-segments3x4-reversed-max_validationPredictions.hdf5').exists()


def test_a_model_of_another_variant_names_the_flags_to_add(root, run):
    names = variants.Names('flow', layer='pool5')
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
        shutil.copy(root / name, root / names.of(name))
    flags = ('--stream', 'flow', '--layer', 'pool5')
    run(root, *flags)
    before = (root / 'RNN_flow_pool5.model').read_bytes()
    for wrong in (('--name', 'RNN_flow_pool5', '--test-only'), ('--start-from', 'RNN_flow_pool5')):
        with pytest.raises(UserError, match='RNN_flow_pool5.model: was trained with --stream flow '
                                            '--layer pool5, not --stream rgb --layer fc7$'):
            run(root, *wrong)
    assert not (root / 'RNN.training').exists()
    # what it says is right, also where one of two is there, and where the others' data are gone
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
        (root / name).unlink()
    with pytest.raises(UserError, match='with --layer pool5, not --layer fc7$'):
        run(root, '--name', 'RNN_flow_pool5', '--test-only', '--stream', 'flow')
    run(root, '--name', 'RNN_flow_pool5', '--test-only', *flags)
    run(root, '--name', 'longer', '--start-from', 'RNN_flow_pool5', *flags)
    assert (root / 'RNN_flow_pool5.model').read_bytes() == before
    # the other way round
    card = read_card(root / 'longer.model')
    save_model(root / 'RNN.model', load_rnn(root / 'longer.model')[0], {
        key: value for key, value in card.items() if key not in ('stream', 'fusion', 'layer')})
    with pytest.raises(UserError, match='with --stream rgb --layer fc7, not '
                                        '--stream flow --layer pool5$'):
        run(root, '--name', 'RNN', '--test-only', *flags)


def test_a_saved_network_gives_the_same_scores(tmp_path):
    model, xs, *_ = example('gru')
    save_model(tmp_path / 'x.model', model, {'shape': model.shape})
    loaded, _ = load_rnn(tmp_path / 'x.model')
    with chainer.using_config('train', False):
        assert numpy.array_equal(model(xs).array, loaded(xs).array)


@pytest.mark.parametrize('flags,why', [
    (['--layers', '3', '--cells', '8', '4'], 'one for each of the layers'),
    (['--dropout', '0.1', '0.2'], 'one ratio or three'), (['--dropout', '1'], 'below 1'),
    (['--name', 'a b'], 'letters'), (['--schedule', 'step'], '--lr-drop'),
    (['--lr-drop', '3'], '--schedule step'), (['--name', 'a/b'], 'not a path'),
    (['--inference', 'segments:2', '--test-steps', '0'], '--test-steps'),
    (['--stream', 'flow', '--reverse-too'], 'not of --stream flow')])
def test_flags_that_make_no_sense(flags, why):
    with pytest.raises(UserError, match=why):
        rnn.parse(rnn.get_parser(), flags)


@pytest.mark.parametrize('stream, reverse', [('rgb', True), ('flow', False)])
def test_sequences_of_flow_never_run_backward(stream, reverse):
    assert rnn.parse(rnn.get_parser(), ['--stream', stream]).reverse is reverse


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


def test_cells_a_layer():
    def cells(*flags):
        args = rnn.parse(rnn.get_parser(), flags)
        return args.layers, args.cells, rnn.method_of(args)
    assert cells() == (1, [1024], 'LSTM 1x1024')
    assert cells('--layers', '3', '--cells', '8') == (3, [8, 8, 8], 'LSTM 3x8')
    assert cells('--cells', '8', '4', '--cell', 'gru') == (2, [8, 4], 'GRU 8-4')


def test_a_seed_is_a_run_of_its_own_and_repeats_itself():
    def weights(seed):
        reseed(chainer.get_device('@numpy'), seed)
        return RNNNet(6, 3, cells=(4,)).out.W.array
    assert numpy.array_equal(weights(1), weights(1))
    assert not numpy.array_equal(weights(1), weights(2))


# ---- bad input, as a person meets it ---------------------------------------------

def change(path, action):
    with h5py.File(path, 'r+') as f:
        clips = [name for name in f if not name.startswith('_')]
        action(f, clips)


def nan_feature(root):
    def action(f, clips):
        f[clips[3]][2, 1] = numpy.nan
    change(root / variants.TRAIN_HDF5, action)


def no_statistics(root):
    change(root / variants.TRAIN_HDF5, lambda f, _: f.__delitem__('_statistics'))


def other_width(root):
    def action(f, clips):
        for name in clips:
            data = f[name][:, :4]
            del f[name]
            f[name] = data
        f.attrs['n_features'] = 4
    change(root / variants.TEST_HDF5, action)


def one_clip_of_other_width(root):
    def action(f, clips):
        del f[clips[3]]
        f[clips[3]] = numpy.zeros((5, 7), 'f')
    change(root / variants.TRAIN_HDF5, action)


def no_frame(root):
    def action(f, clips):
        del f[clips[3]]
        f[clips[3]] = numpy.zeros((0, 6), 'f')
    change(root / variants.TRAIN_HDF5, action)


def unknown_class(root):
    path = root / variants.LISTS / 'trainlist01.txt'
    path.write_text('Juggling/v_Juggling_g01_c01.avi 1\n' + path.read_text())


def another_frame_model(root):
    change(root / variants.TEST_HDF5, lambda f, _: f.attrs.update(model_sha256='another'))


BAD = [(nan_feature, (), 'v_Archery_g02_c02 holds a feature that is not finite'),
       (no_statistics, (), 'normalizeData.py'),
       (other_width, (), 'features of length 4'),
       (one_clip_of_other_width, (), 'v_Archery_g02_c02 has shape (5, 7)'),
       (no_frame, (), 'v_Archery_g02_c02 has no frame'),
       (unknown_class, (), 'trainlist01.txt:1: class "Juggling"'),
       (another_frame_model, (), 'another VGG_1024.model'),
       (lambda root: (root / variants.TRAIN_HDF5).unlink(), (), 'save_hdf5.py'),
       (lambda root: None, ('--lr', '1e30', '--clip', '0'), 'lower --lr'),
       (lambda root: None, ('--test-only',), 'RNN.model'),
       (lambda root: None, ('--inference', 'some'), 'segments:N')]


@pytest.mark.parametrize('spoil,flags,why', BAD, ids=[why for _, _, why in BAD])
def test_bad_input_is_one_clear_line(root, spoil, flags, why):
    spoil(root)
    done = subprocess.run([sys.executable, 'rnn.py', '--root', str(root), '--tiny', *flags],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 2)
    assert 'Traceback' not in done.stderr and 'Exception' not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert 'error: ' in last and why in last
    if done.returncode == 1:
        assert len(done.stderr.splitlines()) == 1


def test_training_on_a_terminal_shows_chainers_progress_bar(tmp_path):
    featureSet.make_features(tmp_path)
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / 'rnn.py', '--tiny', '--epochs', '3', '--root', tmp_path],
        stdout=follower, stderr=subprocess.PIPE)
    os.close(follower)
    shown = b''
    try:
        while block := os.read(leader, 1 << 16):
            shown += block
    except OSError:  # how Linux ends a terminal whose other side is closed
        pass
    finally:
        os.close(leader)
    assert process.wait(timeout=60) == 0, process.stderr.read().decode()
    assert b'this epoch [' in shown and b'3 epoch / 3 epochs' in shown
