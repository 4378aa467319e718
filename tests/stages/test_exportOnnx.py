"""exportOnnx.py: what onnxruntime makes of the files is what Chainer makes of the models."""
import json
import subprocess
import sys

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
import pytest

import convertWeights
import exportOnnx
import smallSet
from FusionNet import EarlyFusion, load_frame_network
from PoolingNet import PoolingNet
from RNNNet import RNNNet
from VGGNet import VGGNet, load_vgg
from engine.errors import UserError
from engine.video.decode import Frames
from engine.weights.card import weights_digest
from engine.weights.modelfile import save_model

onnxruntime = pytest.importorskip('onnxruntime', reason='pip install -r requirements-onnx.txt')
pytest.importorskip('onnx', reason='pip install -r requirements-onnx.txt')


def called(script, root, *flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [script.__name__ + '.py', *map(str, flags), '--root', str(root)])
        return script.main()


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path)
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))


@pytest.mark.parametrize('floats', [False, True])
def test_frame_network_on_frames_of_clips(small_set, tmp_path, floats):
    called(exportOnnx, small_set, 'VGG_1024.model', '--out', tmp_path, *['--floats'] * floats)
    model, card = load_frame_network(small_set / 'VGG_1024.model')
    model.fast = False  # Chainer's own convolutions
    for clip in sorted((small_set / 'UCF-101').rglob('*.avi'))[:3]:
        frames = numpy.concatenate(list(Frames(clip, 32)))
        ours = model.feature_and_prediction(frames)
        theirs = run(tmp_path / 'VGG_1024.onnx',
                     frames=frames.astype(numpy.float32) if floats else frames)
        numpy.testing.assert_allclose(theirs['feature'], ours[0], rtol=0,
                                      atol=1e-5 * abs(ours[0]).max())
        numpy.testing.assert_allclose(theirs['probability'], ours[1], rtol=0, atol=1e-5)
    notes = onnxruntime.InferenceSession(tmp_path / 'VGG_1024.onnx').get_modelmeta()
    assert json.loads(notes.custom_metadata_map['classes']) == card['classes']


@pytest.mark.parametrize('shape', [
    {}, {'cells': (5, 6, 7)}, {'cell': 'gru'}, {'cell': 'gru', 'cells': (6, 5), 'hidden': 0},
    {'cell': 'linear'}, {'cell': 'mean'}, {'batch_norm': False}, {'hidden': 0}], ids=str)
def test_rnn_on_sequences_of_any_length(tmp_path, shape):
    random = numpy.random.default_rng(0)
    numpy.random.seed(0)
    model = RNNNet(9, 4, **{'cells': (8,), 'hidden': 7, **shape})
    model.set_statistics(random.normal(size=9), random.uniform(0.5, 2, 9))
    for name, array in model.namedparams():
        array.array[...] = random.normal(0, 0.5, array.shape)
    for norm in ('norm1', 'norm2'):
        if hasattr(model, norm):
            getattr(model, norm).avg_mean[...] = random.normal(size=len(model[norm].avg_mean))
            getattr(model, norm).avg_var[...] = random.uniform(0.5, 2, len(model[norm].avg_var))
    save_model(tmp_path / 'a.model', model, {'kind': 'rnn', 'shape': model.shape,
                                             'classes': list('abcd')})
    called(exportOnnx, tmp_path, 'a.model')
    for lengths in ([30], [7, 30, 1], [120, 40]):
        xs = random.normal(size=(len(lengths), max(lengths), 9)).astype('f')
        mask = numpy.arange(max(lengths)) < numpy.array(lengths)[:, None]
        theirs = run(tmp_path / 'a.onnx', features=xs, mask=mask)['probability']
        assert theirs.shape == (*mask.shape, 4) and not theirs[~mask].any()
        for sequence, length, answer in zip(xs, lengths, theirs):
            model.reset_state()
            with chainer.using_config('train', False), chainer.no_backprop_mode():
                ours = chainer.functions.softmax(model(sequence[:length, None]), axis=2).array
            numpy.testing.assert_allclose(answer[:length], ours[:, 0], rtol=0, atol=1e-5)


def test_networks_that_do_not_belong_together(small_set, tmp_path):
    both, model = (small_set / 'VGG_1024.model', tmp_path / 'RNN.model'), RNNNet(16, 3, cells=[4])
    card = {'kind': 'rnn', 'shape': model.shape, 'classes': ['a', 'b', 'c']}
    save_model(both[1], model, {**card, 'features': 'of others'})
    with pytest.raises(UserError, match='RNN.model: trained on other features than those of .*VGG'):
        called(exportOnnx, small_set, *both, '--out', tmp_path)
    assert not list(tmp_path.glob('*.onnx'))
    called(exportOnnx, small_set, both[1], '--out', tmp_path)  # alone
    save_model(both[1], model, {**card, 'features': weights_digest(both[0])})
    called(exportOnnx, small_set, *both, '--out', tmp_path)


def test_convertWeights_reads_back(small_set, tmp_path):
    numpy.random.seed(3)
    vgg = VGGNet((4, 5, 6, 7, 8), 12, 10, 64)
    vgg.mean = (100., 110., 120.)
    save_model(tmp_path / 'VGG.model', vgg, {'kind': 'vgg', 'shape': vgg.shape, 'preprocessing': {
        'order': 'BGR', 'scale': '0-255', 'mean': list(vgg.mean)}})
    called(exportOnnx, tmp_path, 'VGG.model')
    again = tmp_path / 'again'
    called(convertWeights, again, tmp_path / 'VGG.onnx', '--channels', '4,5,6,7,8', '--hidden', 12,
           '--input-size', 64)
    model, _ = load_vgg(again / 'VGG.model')
    assert model.mean == vgg.mean
    for (name, ours), (_, theirs) in zip(sorted(model.namedparams()), sorted(vgg.namedparams())):
        numpy.testing.assert_array_equal(ours.array, theirs.array, err_msg=name)
    # of a network for actions fc7 is another
    called(exportOnnx, small_set, 'VGG_1024.model', '--out', tmp_path)
    flags = ['--channels', '8,8,8,8,8', '--hidden', 32, '--input-size', 32]
    with pytest.raises(UserError, match='--no-top'):
        called(convertWeights, again, tmp_path / 'VGG_1024.onnx', *flags)
    called(convertWeights, again, tmp_path / 'VGG_1024.onnx', *flags, '--no-top')
    frames, _ = load_frame_network(small_set / 'VGG_1024.model')
    model, _ = load_vgg(again / 'VGG.model')
    for name in model.conv_names:
        numpy.testing.assert_array_equal(model[name].W.array, frames[name].W.array)


def test_networks_that_are_not_exported(tmp_path):
    for model, card in ((PoolingNet(9, 4, 'late-pool', fc=(5,)), {'kind': 'pooling'}),
                        (EarlyFusion((2, 2, 2, 2, 2), 4, 3, 32, 4),
                         {'kind': 'frames', 'fusion': 'early'})):
        save_model(tmp_path / 'a.model', model, {**card, 'shape': model.shape})
        with pytest.raises(UserError, match='a.model.*not exported'):
            called(exportOnnx, tmp_path, 'a.model')
    with pytest.raises(UserError, match='VGG_1024.model'):
        called(exportOnnx, tmp_path)


def test_the_script_of_the_docs_labels_a_video(small_set, tmp_path):
    model = RNNNet(smallSet.N_FEATURES, 8, cells=(5,), hidden=0)
    _, card = load_frame_network(small_set / 'VGG_1024.model')
    save_model(tmp_path / 'RNN.model', model, {'kind': 'rnn', 'shape': model.shape,
                                               'classes': card['classes']})
    called(exportOnnx, small_set, 'VGG_1024.model', tmp_path / 'RNN.model', '--out', tmp_path)
    clip = sorted((small_set / 'UCF-101').rglob('*.avi'))[0]
    script = smallSet.REPOSITORY / 'docs' / 'label_with_onnx.py'
    done = subprocess.run([sys.executable, script, tmp_path / 'VGG_1024.onnx',
                           tmp_path / 'RNN.onnx', clip], capture_output=True, text=True,
                          cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and {line.split()[0] for line in lines} <= set(card['classes'])
    assert [float(line.split()[1]) for line in lines] == sorted(
        (float(line.split()[1]) for line in lines), reverse=True)
