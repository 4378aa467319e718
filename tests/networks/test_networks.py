"""VGGNet, VGGNet_1024 and model files against Chainer's own layers and numpy.load."""
import io
import pickle

import chainer
import chainer.functions as F
import h5py
import numpy
import pytest

from VGGNet import VGGNet, load_vgg
from FusionNet import load_frame_network
from VGGNet_1024 import VGGNet_1024, from_vgg
from engine.errors import UserError
from engine.weights.card import read_card
from engine.weights.modelfile import load_weights, save_model
from engine.video.preprocessing import preprocess

NARROW = dict(channels=(4, 6, 8, 8, 8), hidden=16, input_size=32)


@pytest.fixture
def vgg():
    numpy.random.seed(0)
    return VGGNet(n_classes=7, **NARROW)


@pytest.fixture
def frames():
    return numpy.random.RandomState(1).randint(256, size=(5, 32, 32, 3)).astype(numpy.uint8)


def by_hand(model, x):
    """VGG-16 written out, layer by layer, with Chainer's functions."""
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for layer in range(1, depth + 1):
            link = model[f'conv{block}_{layer}']
            x = F.relu(F.convolution_2d(x, link.W, link.b, pad=1))
        x = F.max_pooling_2d(x, 2, 2)
    x = F.relu(F.linear(x, model.fc6.W, model.fc6.b))
    return F.linear(x, model.fc7.W, model.fc7.b)


def test_the_whole_network_has_vgg16s_numbers_of_parameters():
    model = VGGNet()
    # 138,357,544 is the figure of configuration D (Simonyan & Zisserman, table 2: 138 M).
    assert sum(p.size for p in model.params()) == 138357544
    assert model.conv_names[0] == 'conv1_1' and model.conv_names[-1] == 'conv5_3'


def test_preprocess_by_hand():
    frame = numpy.array([[[[10, 20, 30]]]], numpy.uint8)  # B, G, R
    x = preprocess(frame)
    assert x.shape == (1, 3, 1, 1) and x.dtype == numpy.float32
    numpy.testing.assert_allclose(x.ravel(), [10 - 103.939, 20 - 116.779, 30 - 123.68],
                                  rtol=1e-6)


def test_feature_is_fc7_linear_with_and_without_the_fast_convolutions(vgg, frames):
    model = from_vgg(vgg, 3, 5)
    x = preprocess(frames)
    expected = by_hand(model, numpy.ascontiguousarray(x))
    feature, prediction = model.feature_and_prediction(x)
    numpy.testing.assert_allclose(feature, expected.array, rtol=1e-4, atol=1e-3)
    scores = F.linear(F.relu(expected), model.fc8.W, model.fc8.b)
    numpy.testing.assert_allclose(prediction, F.softmax(scores).array, rtol=1e-3, atol=1e-5)
    assert (feature < 0).any()  # before the ReLU
    model.fast = False
    slow, _ = model.feature_and_prediction(x)
    numpy.testing.assert_allclose(feature, slow, rtol=1e-4, atol=1e-3)


def test_the_fast_path_notices_changed_weights(vgg, frames):
    x = preprocess(frames)
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        before = vgg(x).array
        vgg.conv1_1.W.array *= 0.5
        after = vgg(x).array
        vgg.fast = False
        numpy.testing.assert_allclose(after, vgg(x).array, rtol=1e-3, atol=1e-3)
    assert not numpy.allclose(before, after)


def test_only_fc7_and_fc8_change_in_training(vgg, frames):
    model = from_vgg(vgg, 3, 5)
    before = {name: p.array.tobytes() for name, p in model.namedparams()}
    trained = model.trained_part()
    optimizer = chainer.optimizers.MomentumSGD(0.01).setup(trained)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
    labels = numpy.array([0, 1, 2, 0, 1], numpy.int32)
    for _ in range(3):
        optimizer.update(lambda: F.softmax_cross_entropy(model(preprocess(frames)), labels))
    changed = {name for name, p in model.namedparams() if p.array.tobytes() != before[name]}
    assert changed == {'/fc7/W', '/fc7/b', '/fc8/W', '/fc8/b'}
    # Chainer fills a gradient that nobody has computed with NaN.
    assert numpy.isnan(model.fc6.W.grad).all() and not numpy.isnan(model.fc7.W.grad).any()


@pytest.mark.parametrize('name', ['a.model', 'a.h5'])
def test_model_file_round_trip_and_chainers_own_reader(vgg, tmp_path, name):
    path = tmp_path / name
    save_model(path, vgg, {'shape': vgg.shape, 'classes': ['a']})
    again, card = load_vgg(path)
    assert card['classes'] == ['a']
    for mine, theirs in zip(vgg.params(), again.params()):
        numpy.testing.assert_array_equal(mine.array, theirs.array)
    other = VGGNet(n_classes=7, **NARROW)
    load = (chainer.serializers.load_hdf5 if name.endswith('h5')
            else chainer.serializers.load_npz)
    load(str(path), other)
    numpy.testing.assert_array_equal(other.fc8.W.array, vgg.fc8.W.array)


def test_model_files_that_chainer_wrote_are_read(tmp_path):
    model = VGGNet_1024(n_classes=3, n_features=5, **NARROW)
    chainer.serializers.save_npz(str(tmp_path / 'a'), model)
    again = VGGNet_1024(n_classes=3, n_features=5, **NARROW)
    load_weights(tmp_path / 'a', again)
    numpy.testing.assert_array_equal(again.conv3_2.W.array, model.conv3_2.W.array)
    assert read_card(tmp_path / 'a') == {}


def test_batch_normalisations_statistics_are_loaded_too(tmp_path):
    bn = chainer.Chain(bn=chainer.links.BatchNormalization(4))
    bn.bn.avg_mean[...] = [1, 2, 3, 4]
    save_model(tmp_path / 'bn', bn, {})
    other = chainer.Chain(bn=chainer.links.BatchNormalization(4))
    load_weights(tmp_path / 'bn', other)
    numpy.testing.assert_array_equal(other.bn.avg_mean, [1, 2, 3, 4])


def test_errors_name_the_file_and_the_layers(vgg, tmp_path):
    save_model(tmp_path / 'small', vgg, {'shape': vgg.shape})
    wide = VGGNet(n_classes=7, channels=(4, 6, 8, 8, 9), hidden=16, input_size=32)
    with pytest.raises(UserError, match=r'small: .*conv5_1/W is \(8, 8, 3, 3\), expected '
                                        r'\(9, 8, 3, 3\)'):
        load_weights(tmp_path / 'small', wide)
    with pytest.raises(UserError, match='nothing: No such file.*frameBasedTrain.py'):
        load_frame_network(tmp_path / 'nothing')
    whole = (tmp_path / 'small').read_bytes()
    for name, content in (('cut', whole[:len(whole) // 2]), ('text', b'hello'), ('empty', b'')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_vgg(tmp_path / name)


class Malice:
    def __reduce__(self):
        return (open, ('pwned', 'w'))


def test_a_model_file_never_runs_code(vgg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = chainer.serializers.DictionarySerializer()
    arrays.save(vgg)
    evil = dict(arrays.target, **{'fc8/b': numpy.array([Malice()], object)})
    with open('evil', 'wb') as f:
        numpy.savez(f, **evil)
    with pytest.raises(UserError, match='evil'):
        load_weights('evil', vgg)
    (tmp_path / 'pickle').write_bytes(pickle.dumps(Malice()))
    with pytest.raises(UserError, match='pickle'):
        load_weights('pickle', vgg)
    assert not (tmp_path / 'pwned').exists()


def test_a_failed_save_leaves_the_old_file(vgg, tmp_path):
    path = tmp_path / 'a.model'
    save_model(path, vgg, {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_model(path, vgg, {'bad': io})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['a.model']


def test_hdf5_model_is_hdf5(vgg, tmp_path):
    save_model(tmp_path / 'a.h5', vgg, {})
    with h5py.File(tmp_path / 'a.h5') as f:
        assert f['conv1_1/W'].shape == (4, 3, 3, 3)
