"""Pooling over time (Ng et al. 2015): numbers, order, the stage, and going on from a model."""
import itertools
import json
import sys

import chainer
import h5py
import numpy
import pytest

import PoolingNet as pooling
import featureSet
import helperFunctions as hf
from engine import variants
from engine.learning import featurefile, statistics
from engine.reporting import scoring
import rnn
import smallSet
import sweep
from PoolingNet import FAMILIES, PoolingNet, drop, max_over_time, n_windows
from RNNNet import load_rnn
from FusionNet import load_frame_network
from VGGNet_1024 import VGGNet_1024
from engine.errors import UserError
from engine.files import load_npy
from engine.weights.modelfile import read_card, save_model, weights_digest
from engine.video.decode import read_frames
from engine.video.preprocessing import FLOW_MEAN, preprocess, preprocessing

MAPS = (2, 2, 3)
D = 12
LENGTHS = (23, 4, 16, 10)


# ---- against an independent computation ---------------------------------------

def largest(rows):
    """The maximum of each column, by the real part: complex numbers carry a derivative."""
    rows = numpy.array(rows)
    return rows[rows.real.argmax(axis=0), numpy.arange(rows.shape[1])]


def windows(x):
    """Runs of 10 frames, every 5; the clip goes on in reverse until the last one is whole."""
    n = 10
    while n < len(x):
        n += 5
    there_and_back = [*range(len(x)), *reversed(range(len(x)))]
    frames = list(itertools.islice(itertools.cycle(there_and_back), n))
    return [x[frames[start:start + 10]] for start in range(0, n - 9, 5)]


def convolved(p, window, maps):
    """All kernels at all places of one window, one product after the other."""
    W, b = p['time_conv/W'], p['time_conv/b']
    side, (channels, height, width) = W.shape[-1], maps
    window = window.reshape(10, channels, height, width)
    out = numpy.zeros((len(W), height, width), W.dtype) + b[:, None, None]
    for y, x, i, j in itertools.product(range(height), range(width), range(side), range(side)):
        at = y + i - side // 2, x + j - side // 2
        if 0 <= at[0] < height and 0 <= at[1] < width:
            out[:, y, x] += numpy.einsum('kct,tc->k', W[..., i, j], window[:, :, at[0], at[1]])
    return (out * (out.real > 0)).ravel()


def reference(p, shape, x):
    """The scores of one sequence of frames (n, D)."""
    def layer(k, h):
        h = p[f'fc/{k}/W'] @ h + p[f'fc/{k}/b']
        return h * (h.real > 0)

    def both(h):
        return layer(1, layer(0, h))
    x = (x - p['mean']) * p['scale']
    family = shape['family']
    if family == 'conv-pool':
        h = both(largest(x))
    elif family == 'late-pool':
        h = largest([both(frame) for frame in x])
    elif family == 'slow-pool':
        h = layer(1, largest([layer(0, largest(window)) for window in windows(x)]))
    elif family == 'local-pool':
        h = numpy.concatenate([both(largest(window)) for window in windows(x)])
    else:
        maps = shape['maps'] or (x.shape[1], 1, 1)
        h = both(largest([convolved(p, window, maps) for window in windows(x)]))
    return p['out/W'] @ h + p['out/b']


def reference_loss(p, shape, xs, labels, lengths):
    scores = [reference(p, shape, xs[:n, i]) for i, n in enumerate(lengths)]
    return sum(numpy.log(numpy.exp(s).sum()) - s[label]
               for s, label in zip(scores, labels)) / len(labels)


def arrays(model):
    target = chainer.serializers.DictionarySerializer()
    target.save(model)
    return {name: numpy.array(value) for name, value in target.target.items()}


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
    p = {name: array.astype(float) for name, array in arrays(model).items()}
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


@pytest.fixture(scope='module')
def with_maps(small_set, tmp_path_factory):
    root = smallSet.copy_set(small_set, tmp_path_factory.mktemp('maps') / 'root')
    for script, *flags in (('saveFeatures_1024.py', 1, '--parts', 1, '--step', 3),
                           ('save_hdf5.py',), ('normalizeData.py',)):
        done = smallSet.run_stage(script, *flags, '--layer', 'pool5', '--root', root)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_saved_maps_are_the_convolutions_answer(with_maps):
    names = variants.Names(layer='pool5')
    clip = hf.read_lists(with_maps).train[3]
    model, _ = load_frame_network(with_maps / variants.FRAME_MODEL)
    saved = load_npy(variants.output_path(with_maps, 'UCF-101_features_pool5', clip))
    frames = read_frames(clip.path, numpy.arange(0, 3 * len(saved), 3), 32)
    x = chainer.Variable(numpy.ascontiguousarray(preprocess(frames, model.mean)))
    for name in model.conv_names:
        x = chainer.functions.relu(chainer.functions.convolution_2d(
            x, model[name].W, model[name].b, pad=1))
        if name in ('conv1_2', 'conv2_2', 'conv3_3', 'conv4_3', 'conv5_3'):
            x = chainer.functions.max_pooling_2d(x, 2, 2)
    assert saved.dtype == numpy.float16 and saved.shape == (len(frames), 8)
    # Half precision keeps 11 bits.
    numpy.testing.assert_allclose(saved, x.array.reshape(len(frames), -1), rtol=2 ** -11,
                                  atol=1e-4)
    with h5py.File(with_maps / names.train) as f:
        assert f.attrs['maps'].tolist() == [8, 1, 1] and f[clip.name].dtype == numpy.float16
        assert (f[clip.name][()] == saved).all()


def test_maps_of_another_type_or_width_are_refused(with_maps, tmp_path):
    names, clip = variants.Names(layer='pool5'), hf.read_lists(with_maps).train[3]
    assert featurefile.check_results(with_maps, clip, 8, 8, names=names) > 2
    for folder in (names.features, names.frame_predictions):
        path = variants.output_path(tmp_path, folder, clip)
        path.parent.mkdir(parents=True)
        numpy.save(path, load_npy(variants.output_path(with_maps, folder, clip)).astype('f4'))
    with pytest.raises(UserError, match='holds float32, expected float16'):
        featurefile.check_results(tmp_path, clip, 8, 8, names=names)
    with pytest.raises(UserError, match=r'expected \(frames, 9\)'):
        featurefile.check_results(with_maps, clip, 9, 8, names=names)


def test_training_on_maps_starts_from_the_frame_network(with_maps, run, capsys):
    # A rate too small to change any weight.
    run(with_maps, '--cell', 'conv-pool', '--layer', 'pool5', '--fc-from-frames', '--lr', 1e-30)
    assert 'fc6, fc7, fc8 from' in capsys.readouterr().out
    line = results(with_maps)[-1]
    assert line['method'] == 'pool5 conv pooling' and 'window' not in line['settings']
    model, card = load_rnn(with_maps / 'RNN_pool5.model')
    vgg, _ = load_frame_network(with_maps / variants.FRAME_MODEL)
    assert model.shape['maps'] == [8, 1, 1] and card['kind'] == 'pooling'
    for link, name in zip((*model.fc, model.out), ('fc6', 'fc7', 'fc8')):
        assert (link.W.array == vgg[name].W.array).all()


def test_layers_of_the_flow_networks_top_are_found(with_maps, tmp_path):
    names = variants.Names('flow', layer='pool5')
    vgg, card = load_frame_network(with_maps / variants.FRAME_MODEL)
    save_model(tmp_path / names.model, vgg, {
        **card, 'stream': 'flow', 'preprocessing': preprocessing(FLOW_MEAN, 'flow')})
    args = rnn.parse(rnn.get_parser(), [
        '--root', str(tmp_path), *names.flags().split(), '--cell', 'conv-pool', '--fc-from-frames'])
    with h5py.File(tmp_path / names.train, 'w') as f:
        f.attrs.update(maps=(8, 1, 1), model_sha256=weights_digest(tmp_path / names.model))
        model = rnn.new_model(args, 8, 8, f)
    assert (model.fc[0].W.array == vgg.fc6.W.array).all()


# ---- the stage -----------------------------------------------------------------------

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


def results(root):
    return [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('family', FAMILIES)
def test_one_answer_a_clip_trained_or_only_tested(family, root, run, monkeypatch):
    monkeypatch.setattr(pooling, 'KERNELS', 4)
    run(root, '--cell', family, '--name', 'x')
    run(root, '--name', 'x', '--test-only', '--test-steps', 16, '--readout', 'max')
    first, again = results(root)
    assert first['method'] == FAMILIES[family].method == again['method']
    assert (first['top1'], first['loss']) == (again['top1'], again['loss'])
    with h5py.File(root / 'x_testPredictions.hdf5') as f:
        predicted = {name: data[()] for name, data in f.items()}
    assert {data.shape for data in predicted.values()} == {(1, 3)} and len(predicted) == 12
    # By hand, for a clip of more than 16 frames.
    model, _ = load_rnn(root / 'x.model')
    with h5py.File(root / variants.TEST_HDF5) as f:
        name = next(name for name in predicted if len(f[name]) > 16)
        x = f[name][:16].astype(float)
    p = {key: array.astype(float) for key, array in arrays(model).items()}
    if len(model.fc) == 1:  # the reference has two layers; a second one that does nothing
        p.update({'fc/1/W': numpy.eye(16), 'fc/1/b': numpy.zeros(16)})
    scores = numpy.exp(reference(p, model.shape, x))
    numpy.testing.assert_allclose(predicted[name][0], scores / scores.sum(), rtol=1e-4)


def test_whole_clips_of_any_length(root, run):
    run(root, '--cell', 'slow-pool', '--name', 'x', '--variable-length', '--inference', 'full')
    model, _ = load_rnn(root / 'x.model')
    p = {key: array.astype(float) for key, array in arrays(model).items()}
    p.update({'fc/1/W': numpy.eye(16), 'fc/1/b': numpy.zeros(16)})
    with h5py.File(root / 'x_testPredictions.hdf5') as f, \
            h5py.File(root / variants.TEST_HDF5) as features:
        assert min(len(features[name]) for name in f) < 10  # or this test shows less
        for name, data in f.items():
            scores = numpy.exp(reference(p, model.shape, features[name][()].astype(float)))
            numpy.testing.assert_allclose(data[0], scores / scores.sum(), rtol=1e-4)


def test_learns_what_there_is_to_learn(root, run):
    run(root, '--cell', 'time-conv', '--epochs', 15, '--optimizer', 'adam', '--lr', 0.003,
        '--dropout', 0)
    assert results(root)[0]['top1'] > 0.8


@pytest.mark.parametrize('flags', [('--cell', 'late-pool', '--variable-length'),
                                   ('--cell', 'local-pool', '--optimizer', 'adam')])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(root, tmp_path, run, stopped_after, flags):
    other = tmp_path / 'other'
    featureSet.make_features(other)
    run(root, '--epochs', 3, *flags)
    stopped_after(4, run, other, '--epochs', 3, *flags)
    run(other, '--epochs', 3, *flags)
    assert (root / 'RNN.model').read_bytes() == (other / 'RNN.model').read_bytes()


@pytest.mark.parametrize('flags,why', [
    (('--cell', 'conv-pool', '--window', 5), '--window is not for --cell conv-pool'),
    (('--cell', 'time-conv', '--loss', 'last'), '--loss is not'),
    (('--fc', 5), '--fc is not for --cell lstm'),
    (('--cell', 'conv-pool', '--fc-from-frames'), 'wants --layer pool5'),
    (('--cell', 'local-pool', '--test-steps', 99), 'one length'),
    (('--cell', 'local-pool', '--variable-length'), 'one length'),
    (('--start-from', 'x', '--name', 'x'), 'from itself'),
    (('--start-from', 'x'), 'x.model: No such file')])
def test_what_does_not_fit_is_refused(root, run, flags, why):
    with pytest.raises(UserError, match=why):
        run(root, *flags)


def test_local_pooling_is_tested_at_its_length(root, run):
    run(root, '--cell', 'local-pool')
    with pytest.raises(UserError, match='--test-steps 16'):
        run(root, '--test-only', '--test-steps', 30)


# ---- growing ---------------------------------------------------------------------------

def test_a_model_goes_on_with_longer_sequences(root, run):
    flags = ('--layers', 2, '--no-batch-norm', '--hidden', 0)
    run(root, '--name', 'short', '--steps', 8, *flags)
    # A rate too small to change any weight: what is kept is what it began with.
    run(root, '--name', 'long', '--start-from', 'short', '--lr', 1e-30, *flags)
    before, after = (arrays(load_rnn(root / f'{name}.model')[0]) for name in ('short', 'long'))
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (array == after[name]).all(), name
    card = read_card(root / 'long.model')
    assert card['settings']['start_from'] == 'short'
    assert card['start_from_sha256'] == weights_digest(root / 'short.model')
    first, second = results(root)
    assert 'start_from' not in first['settings']
    assert second['settings']['start_from'] == 'short' and second['settings']['steps'] == 16
    # Another start would be another run.
    run(root, '--name', 'short', '--steps', 8, '--epochs', 3, *flags)
    with pytest.raises(UserError, match='other settings .*start_from_sha256'):
        run(root, '--name', 'long', '--start-from', 'short', '--lr', 1e-30, '--epochs', 3, *flags)


def other_mean(root):
    with h5py.File(root / variants.TRAIN_HDF5) as f:
        mean, std = statistics.read(f)
    statistics.store(root / variants.TRAIN_HDF5, mean + 1, std, 1)


def other_features(root):
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
        with h5py.File(root / name, 'r+') as f:
            f.attrs['model_sha256'] = 'another'


def other_classes(root):
    path = root / variants.LISTS / 'classInd.txt'
    classes = json.dumps(['Archery', 'Bowling', 'Rowing'])
    path.write_text(path.read_text().replace('Diving', 'Rowing'))
    for number in ('train', 'test'):
        path = root / variants.LISTS / f'{number}list01.txt'
        path.write_text(path.read_text().replace('Diving/', 'Rowing/'))
        with h5py.File(root / f'{number}1024.hdf5', 'r+') as f:
            f.attrs['classes'] = classes


@pytest.mark.parametrize('change,flags,why', [
    (None, ('--cells', 8), r'another shape \(cells \[16\], here \[8\]\)'),
    (None, ('--cell', 'conv-pool'), 'other kind'),
    (other_mean, (), 'another mean'), (other_features, (), 'other features'),
    (other_classes, (), 'other classes')])
def test_another_model_is_no_start(root, run, change, flags, why):
    run(root, '--name', 'short', '--epochs', 1)
    if change:
        change(root)
    with pytest.raises(UserError, match=f'short.model: cannot go on from it: .*{why}'):
        run(root, '--name', 'long', '--start-from', 'short', '--dropout', 0.1, *flags)


def test_a_sweep_trains_a_model_before_what_starts_from_it(root, monkeypatch, capsys):
    (root / 'runs.txt').write_text('--name short --steps 6\n'
                                   '--name long --start-from short --steps 12\n')
    flags = ['sweep.py', str(root / 'runs.txt'), '--root', str(root), '--tiny', '--seeds', '3']
    monkeypatch.setattr(sys, 'argv', [*flags, '--jobs'])
    sweep.main()
    jobs = capsys.readouterr()
    assert 'short-seed3.pbs' in jobs.out and 'long' not in jobs.out
    assert 'long-seed3: later; the same command once short-seed3 has ended' in jobs.err
    monkeypatch.setattr(sys, 'argv', [*flags, '--parallel', '4'])
    assert not sweep.main()
    card = read_card(root / 'long-seed3.model')
    assert card['start_from_sha256'] == weights_digest(root / 'short-seed3.model')


def test_the_mean_names_the_class_that_the_sum_does():
    for steps in numpy.random.RandomState(0).dirichlet(numpy.ones(5), size=(20, 7)):
        summed = numpy.log(steps).sum(axis=0)
        assert scoring.video_log_probability(steps, 'mean').argmax() == summed.argmax()


def test_two_towers_have_no_maps(root, run):
    with pytest.raises(UserError, match='two sets of maps'):
        run(root, '--layer', 'pool5', '--fusion', 'late')
