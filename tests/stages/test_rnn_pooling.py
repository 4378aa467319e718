"""Stage 6 with networks that pool, on saved maps, and going on from a model."""
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
import rnn
import smallSet
import sweep
from PoolingNet import FAMILIES
from RNNNet import load_rnn, new_network
from FusionNet import load_frame_network
from engine.errors import UserError
from engine.files import load_npy
from engine.weights.card import read_card, weights_digest
from engine.weights.modelfile import save_model
from engine.video.decode import read_frames
from engine.video.preprocessing import FLOW_MEAN, preprocess, preprocessing
from featureSet import arrays_of, lines_of
from poolingReference import reference


# ---- on saved maps -----------------------------------------------------------------

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


def test_training_on_maps_starts_from_the_frame_network(with_maps, run_rnn, capsys):
    # A rate too small to change any weight.
    run_rnn(with_maps, '--cell', 'conv-pool', '--layer', 'pool5', '--fc-from-frames', '--lr', 1e-30)
    assert 'fc6, fc7, fc8 from' in capsys.readouterr().out
    line = lines_of(with_maps)[-1]
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
        model = new_network(args, 8, 8, f)
    assert (model.fc[0].W.array == vgg.fc6.W.array).all()


# ---- the stage -----------------------------------------------------------------------

@pytest.mark.parametrize('family', FAMILIES)
def test_one_answer_a_clip_trained_or_only_tested(family, packed, run_rnn, monkeypatch):
    monkeypatch.setattr(pooling, 'KERNELS', 4)
    run_rnn(packed, '--cell', family, '--name', 'x')
    run_rnn(packed, '--name', 'x', '--test-only', '--test-steps', 16, '--readout', 'max')
    first, again = lines_of(packed)
    assert first['method'] == FAMILIES[family].method == again['method']
    assert (first['top1'], first['loss']) == (again['top1'], again['loss'])
    with h5py.File(packed / 'x_testPredictions.hdf5') as f:
        predicted = {name: data[()] for name, data in f.items()}
    assert {data.shape for data in predicted.values()} == {(1, 3)} and len(predicted) == 12
    # By hand, for a clip of more than 16 frames.
    model, _ = load_rnn(packed / 'x.model')
    with h5py.File(packed / variants.TEST_HDF5) as f:
        name = next(name for name in predicted if len(f[name]) > 16)
        x = f[name][:16].astype(float)
    p = {key: array.astype(float) for key, array in arrays_of(model).items()}
    if len(model.fc) == 1:  # the reference has two layers; a second one that does nothing
        p.update({'fc/1/W': numpy.eye(16), 'fc/1/b': numpy.zeros(16)})
    scores = numpy.exp(reference(p, model.shape, x))
    numpy.testing.assert_allclose(predicted[name][0], scores / scores.sum(), rtol=1e-4)


def test_whole_clips_of_any_length(packed, run_rnn):
    run_rnn(packed, '--cell', 'slow-pool', '--name', 'x', '--variable-length', '--inference',
            'full')
    model, _ = load_rnn(packed / 'x.model')
    p = {key: array.astype(float) for key, array in arrays_of(model).items()}
    p.update({'fc/1/W': numpy.eye(16), 'fc/1/b': numpy.zeros(16)})
    with h5py.File(packed / 'x_testPredictions.hdf5') as f, \
            h5py.File(packed / variants.TEST_HDF5) as features:
        assert min(len(features[name]) for name in f) < 10  # or this test shows less
        for name, data in f.items():
            scores = numpy.exp(reference(p, model.shape, features[name][()].astype(float)))
            numpy.testing.assert_allclose(data[0], scores / scores.sum(), rtol=1e-4)


def test_learns_what_there_is_to_learn(packed, run_rnn):
    run_rnn(packed, '--cell', 'time-conv', '--epochs', 15, '--optimizer', 'adam', '--lr', 0.003,
            '--dropout', 0)
    assert lines_of(packed)[0]['top1'] > 0.8


@pytest.mark.parametrize('flags', [('--cell', 'late-pool', '--variable-length'),
                                   ('--cell', 'local-pool', '--optimizer', 'adam')])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(packed, tmp_path, run_rnn, stopped_after,
                                                      flags):
    other = tmp_path / 'other'
    featureSet.make_features(other)
    run_rnn(packed, '--epochs', 3, *flags)
    stopped_after(4, run_rnn, other, '--epochs', 3, *flags)
    run_rnn(other, '--epochs', 3, *flags)
    assert (packed / 'RNN.model').read_bytes() == (other / 'RNN.model').read_bytes()


@pytest.mark.parametrize('flags,why', [
    (('--cell', 'conv-pool', '--window', 5), '--window is not for --cell conv-pool'),
    (('--cell', 'time-conv', '--loss', 'last'), '--loss is not'),
    (('--fc', 5), '--fc is not for --cell lstm'),
    (('--cell', 'conv-pool', '--fc-from-frames'), 'wants --layer pool5'),
    (('--cell', 'local-pool', '--test-steps', 99), 'one length'),
    (('--cell', 'local-pool', '--variable-length'), 'one length'),
    (('--start-from', 'x', '--name', 'x'), 'from itself'),
    (('--start-from', 'x'), 'x.model: No such file')])
def test_what_does_not_fit_is_refused(packed, run_rnn, flags, why):
    with pytest.raises(UserError, match=why):
        run_rnn(packed, *flags)


def test_local_pooling_is_tested_at_its_length(packed, run_rnn):
    run_rnn(packed, '--cell', 'local-pool')
    with pytest.raises(UserError, match='--test-steps 16'):
        run_rnn(packed, '--test-only', '--test-steps', 30)


# ---- growing ---------------------------------------------------------------------------

def test_a_model_goes_on_with_longer_sequences(packed, run_rnn):
    flags = ('--layers', 2, '--no-batch-norm', '--hidden', 0)
    run_rnn(packed, '--name', 'short', '--steps', 8, *flags)
    # A rate too small to change any weight: what is kept is what it began with.
    run_rnn(packed, '--name', 'long', '--start-from', 'short', '--lr', 1e-30, *flags)
    before, after = (arrays_of(load_rnn(packed / f'{name}.model')[0]) for name in ('short', 'long'))
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (array == after[name]).all(), name
    card = read_card(packed / 'long.model')
    assert card['settings']['start_from'] == 'short'
    assert card['start_from_sha256'] == weights_digest(packed / 'short.model')
    first, second = lines_of(packed)
    assert 'start_from' not in first['settings']
    assert second['settings']['start_from'] == 'short' and second['settings']['steps'] == 16
    # Another start would be another run.
    run_rnn(packed, '--name', 'short', '--steps', 8, '--epochs', 3, *flags)
    with pytest.raises(UserError, match='other settings .*start_from_sha256'):
        run_rnn(packed, '--name', 'long', '--start-from', 'short', '--lr', 1e-30, '--epochs', 3,
                *flags)


def other_mean(root):
    with h5py.File(root / variants.TRAIN_HDF5) as f:
        mean, std = statistics.read(f)
    statistics.store(root / variants.TRAIN_HDF5, mean + 1, std, 1)


def other_features(root):
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
        with h5py.File(root / name, 'r+') as f:
            smallSet.say(f, model_sha256='another')


def other_classes(root):
    path = root / variants.LISTS / 'classInd.txt'
    classes = json.dumps(['Archery', 'Bowling', 'Rowing'])
    path.write_text(path.read_text().replace('Diving', 'Rowing'))
    for number in ('train', 'test'):
        path = root / variants.LISTS / f'{number}list01.txt'
        path.write_text(path.read_text().replace('Diving/', 'Rowing/'))
        with h5py.File(root / f'{number}1024.hdf5', 'r+') as f:
            smallSet.say(f, classes=classes)


@pytest.mark.parametrize('change,flags,why', [
    (None, ('--cells', 8), r'another shape \(cells \[16\], here \[8\]\)'),
    (None, ('--cell', 'conv-pool'), 'other kind'),
    (other_mean, (), 'another mean'), (other_features, (), 'other features'),
    (other_classes, (), 'other classes')])
def test_another_model_is_no_start(packed, run_rnn, change, flags, why):
    run_rnn(packed, '--name', 'short', '--epochs', 1)
    if change:
        change(packed)
    with pytest.raises(UserError, match=f'short.model: cannot go on from it: .*{why}'):
        run_rnn(packed, '--name', 'long', '--start-from', 'short', '--dropout', 0.1, *flags)


def test_a_sweep_trains_a_model_before_what_starts_from_it(packed, monkeypatch, capsys):
    (packed / 'runs.txt').write_text('--name short --steps 6\n'
                                   '--name long --start-from short --steps 12\n')
    flags = ['sweep.py', str(packed / 'runs.txt'), '--root', str(packed), '--tiny', '--seeds', '3']
    monkeypatch.setattr(sys, 'argv', [*flags, '--jobs'])
    sweep.main()
    jobs = capsys.readouterr()
    assert 'short-seed3.pbs' in jobs.out and 'long' not in jobs.out
    assert 'long-seed3: later; the same command once short-seed3 has ended' in jobs.err
    monkeypatch.setattr(sys, 'argv', [*flags, '--parallel', '4'])
    assert not sweep.main()
    card = read_card(packed / 'long-seed3.model')
    assert card['start_from_sha256'] == weights_digest(packed / 'short-seed3.model')


def test_two_towers_have_no_maps(packed, run_rnn):
    with pytest.raises(UserError, match='two sets of maps'):
        run_rnn(packed, '--layer', 'pool5', '--fusion', 'late')
