"""engine/weights/modelfile.py: a model loads whole and finite, or is refused by name."""
import tracemalloc

import chainer
import h5py
import numpy
import pytest

from RNNNet import RNNNet, load_rnn
from VGGNet import VGGNet, load_vgg
from VGGNet_1024 import VGGNet_1024, from_vgg
from engine.errors import UserError
from engine.weights.card import read_card, weights_digest
from engine.weights.modelfile import load_weights, save_model

SHAPE = {'channels': (2, 2, 2, 2, 2), 'hidden': 4, 'n_classes': 3, 'input_size': 32}
FORMS = ['npz', 'hdf5']


def save(path, form, model=None):
    model = model or VGGNet(**SHAPE)
    save_model(path, model, {'kind': 'vgg', 'shape': model.shape}, form)
    return model


@pytest.mark.parametrize('form', FORMS)
def test_what_was_saved_is_loaded(tmp_path, form):
    model = save(tmp_path / 'a.model', form)
    loaded, card = load_vgg(tmp_path / 'a.model')
    assert card['shape'] == {**SHAPE, 'channels': [2] * 5}
    for name, parameter in model.namedparams():
        numpy.testing.assert_array_equal(dict(loaded.namedparams())[name].array, parameter.array)
    save(tmp_path / 'again.model', 'npz', model)
    assert weights_digest(tmp_path / 'again.model') == weights_digest(tmp_path / 'a.model')


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('value', [numpy.nan, numpy.inf, -numpy.inf])
def test_numbers_that_are_not_finite(tmp_path, form, value):
    model = VGGNet(**SHAPE)
    model.conv3_2.W.array[1, 0, 2, 2] = model.fc8.b.array[-1] = value
    save(tmp_path / 'a.model', form, model)
    with pytest.raises(UserError, match='a.model.*conv3_2/W holds numbers that are not finite; '
                                        'fc8/b holds.*made by: python x'):
        load_vgg(tmp_path / 'a.model', 'python x')
    # layers that are left as they are may be what they will
    loaded = VGGNet(**SHAPE)
    load_weights(tmp_path / 'a.model', loaded, skip=('conv3_2', 'fc8'))
    numpy.testing.assert_array_equal(loaded.fc7.W.array, model.fc7.W.array)


def test_statistics_that_are_not_finite(tmp_path):
    model = RNNNet(4, 3, cells=(5,), hidden=0)
    model.scale[2] = numpy.inf
    save_model(tmp_path / 'a.model', model, {'kind': 'rnn', 'shape': model.shape})
    with pytest.raises(UserError, match='scale holds numbers that are not finite'):
        load_rnn(tmp_path / 'a.model')


@pytest.mark.parametrize('form', FORMS)
def test_loading_takes_the_memory_of_the_weights_alone(tmp_path, form):
    shape = {'channels': [8] * 5, 'hidden': 2000, 'input_size': 64, 'n_classes': 9}
    path = tmp_path / 'a.model'
    save(path, form, VGGNet(**shape))
    size = path.stat().st_size
    tracemalloc.start()
    vgg, _ = load_vgg(path)
    weights_digest(path)
    numpy.random.seed(3)
    model = from_vgg(vgg, 7, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 1.6e7 and peak < 1.5 * size
    numpy.random.seed(3)  # the new layers' numbers are those of Chainer's initializers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('VGGNet.HeNormal', chainer.initializers.HeNormal)
        again = VGGNet_1024(**dict(shape, n_classes=7), n_features=5)
    for name in ('fc7', 'fc8'):
        numpy.testing.assert_array_equal(model[name].W.array, again[name].W.array)


def test_a_model_reads_no_other_file(tmp_path):
    save(tmp_path / 'other.h5', 'hdf5')
    for link in (h5py.ExternalLink('other.h5', '/conv1_1'), h5py.SoftLink('/conv1_2')):
        save(tmp_path / 'a.model', 'hdf5')
        with h5py.File(tmp_path / 'a.model', 'r+') as f:
            del f['conv1_1']
            f['conv1_1'] = link
        with pytest.raises(UserError, match='conv1_1 is a link'):
            load_vgg(tmp_path / 'a.model')
    with h5py.File(tmp_path / 'a.model', 'r+') as f:
        del f['conv1_1']
        f.create_dataset('conv1_1/W', (2, 3, 3, 3), 'f4',
                         external=[(str(tmp_path / 'other.h5'), 0, 216)])
        f['conv1_1/b'] = numpy.zeros(2, 'f4')
    with pytest.raises(UserError, match='conv1_1/W has its numbers in another file'):
        load_vgg(tmp_path / 'a.model')


@pytest.mark.parametrize('form', FORMS)
def test_a_card_that_is_none(tmp_path, form):
    for card in ('[' * 50000, '[]', '{"shape": [1]}', '{"shape": {"hidden": 1e400}}', '7',
                 '{"shape": {"input_size": 0}}', '{"shape": {"hidden": 1000000000000}}',
                 '{"split": "1"}', '{"fusion": {"a": 1}}', '{"preprocessing": [1]}', 'x'):
        save(tmp_path / 'a.model', form)
        if form == 'hdf5':
            with h5py.File(tmp_path / 'a.model', 'r+') as f:
                f.attrs['card'] = card
        else:
            with numpy.load(tmp_path / 'a.model') as f:
                numpy.savez(tmp_path / 'a.npz', **{**f, 'card': numpy.array(card)})
            (tmp_path / 'a.npz').replace(tmp_path / 'a.model')
        with pytest.raises(UserError, match='a.model'):
            load_vgg(tmp_path / 'a.model')
    with pytest.raises(UserError, match='damaged model file'):
        read_card(tmp_path / 'a.model')


@pytest.mark.parametrize('claim', [
    {'hidden': 40000}, {'channels': [30000] * 5}, {'input_size': 96000}, {'n_classes': 10 ** 10},
    {'channels': [1] * 10 ** 4}])
def test_a_card_that_claims_gigabytes_is_refused_before_any_are_made(tmp_path, claim):
    model = VGGNet(**SHAPE)
    save_model(tmp_path / 'a.model', model, {'kind': 'vgg', 'shape': {**model.shape, **claim}})
    assert (tmp_path / 'a.model').stat().st_size < 1e6
    with pytest.raises(UserError, match='a.model: .* 32 arrays of 559 numbers in the file; made'):
        load_vgg(tmp_path / 'a.model')


def test_a_card_that_leaves_out_layers_of_the_file(tmp_path):
    model = RNNNet(4, 3, cells=(4, 4), hidden=0)
    save_model(tmp_path / 'a.model', model, {'kind': 'rnn', 'shape': {**model.shape, 'cells': [4]}})
    with pytest.raises(UserError, match='does not fit the network: recurrent/1/layer0/b has no'):
        load_rnn(tmp_path / 'a.model')
