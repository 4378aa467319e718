"""convertWeights.py given a model of this project's own: its card tells what it takes."""
import numpy
import pytest

import weightWriters as ww
from VGGNet import VGGNet
from VGGNet_1024 import VGGNet_1024
from engine.video.preprocessing import FLOW_MEAN, preprocessing
from engine.weights.modelfile import save_model
from weightSources import PLAIN, chainer_npz, convert, refused, scores

SHAPE = {'channels': ww.CHANNELS, 'hidden': ww.HIDDEN, 'input_size': ww.SIZE}
MEAN = [100., 110., 120.]
FORMS = ['npz', 'hdf5']


def save(path, model=None, form='npz', **card):
    model = model or VGGNet(**SHAPE)
    model.mean = tuple(MEAN)
    save_model(path, model, {'kind': 'vgg', 'shape': model.shape,
                             'preprocessing': preprocessing(MEAN), **card}, form)
    return model


@pytest.mark.parametrize('form', FORMS)
def test_its_mean_stays_what_it_was(tmp_path, form):
    model = save(tmp_path / 'a.model', form=form)
    again, card = convert(tmp_path / 'a.model', tmp_path)
    assert card['source_input'] == 'told' and card['preprocessing'] == preprocessing(MEAN)
    numpy.testing.assert_array_equal(scores(again), scores(model))


@pytest.mark.parametrize('form', FORMS)
def test_the_convolutions_of_a_frame_network_bring_its_mean(tmp_path, form):
    model = save(tmp_path / 'a.model', VGGNet_1024(**SHAPE, n_features=8, n_classes=3), form,
                 kind='frames')
    again, _ = convert(tmp_path / 'a.model', tmp_path, '--no-top')
    assert list(again.mean) == MEAN
    for name in model.conv_names:
        numpy.testing.assert_array_equal(again[name].W.array, model[name].W.array)


@pytest.mark.parametrize('form', FORMS)
def test_a_flag_that_contradicts_its_card_is_refused(tmp_path, form):
    save(tmp_path / 'a.model', form=form)
    for name in ('torch', 'rgb', 'bgr'):
        message = refused(tmp_path / 'a.model', tmp_path, '--input', name)
        assert 'less 100, 110, 120' in message and f'leave out --input {name}' in message
    save(tmp_path / 'a.model', form=form, preprocessing=preprocessing())
    assert convert(tmp_path / 'a.model', tmp_path, '--input', 'bgr')[1]['source_input'] == 'told'


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('change, words', [
    ({'order': 'RGB'}, 'frames with order "RGB"'), ({'scale': '\x1b[2J'}, r'"\u001b[2J"'),
    ({'mean': [1, 2, 300]}, 'the mean [1, 2, 300]'), ({'mean': ['\n']}, r'the mean ["\n"]')])
def test_what_no_stage_gives_is_refused(tmp_path, form, change, words):
    save(tmp_path / 'a.model', form=form, preprocessing={**preprocessing(), **change})
    assert words in refused(tmp_path / 'a.model', tmp_path)


@pytest.mark.parametrize('form', FORMS)
def test_a_network_of_flow_is_refused_without_advice_that_this_stage_cannot_take(tmp_path, form):
    save(tmp_path / 'a.model', form=form, preprocessing=preprocessing(FLOW_MEAN, 'flow'))
    message = refused(tmp_path / 'a.model', tmp_path)
    assert 'for optical flow' in message and 'say --stream' not in message


@pytest.mark.parametrize('form', FORMS)
def test_an_older_card_that_tells_less_is_read_as_by_the_stages(tmp_path, form):
    save(tmp_path / 'a.model', form=form, preprocessing={'mean': MEAN})
    assert list(convert(tmp_path / 'a.model', tmp_path)[0].mean) == MEAN


def test_the_size_of_its_pictures_is_not_changed_unasked(tmp_path, monkeypatch):
    save(tmp_path / 'a.model')
    monkeypatch.setattr(ww, 'FLAGS', ww.FLAGS[:-2])
    assert 'input_size 64; say --input-size' in refused(tmp_path / 'a.model', tmp_path)
    assert 'say --input-size' in refused(tmp_path / 'a.model', tmp_path, '--no-top')
    model, _ = convert(tmp_path / 'a.model', tmp_path, '--no-top', '--input-size', '96')
    assert model.shape['input_size'] == 96


@pytest.mark.parametrize('text', ['imagenet', '[]', '{"preprocessing": [1]}', '[' * 50000])
def test_a_card_that_is_none(tmp_path, text):
    def write(**arrays):
        numpy.savez(tmp_path / 'a.npz', **arrays, card=numpy.array(text))
    chainer_npz(tmp_path / 'a.npz', PLAIN)
    with numpy.load(tmp_path / 'a.npz') as f:
        write(**f)
    assert 'damaged' in refused(tmp_path / 'a.npz', tmp_path)
    # among arrays of others it may be anything
    write(**ww.state_dict(PLAIN))
    assert convert(tmp_path / 'a.npz', tmp_path)[1]['source_input'] == 'torch'


def test_a_card_of_many_texts_is_not_read(tmp_path):
    chainer_npz(tmp_path / 'a.npz', PLAIN)
    with numpy.load(tmp_path / 'a.npz') as f:
        numpy.savez_compressed(tmp_path / 'a.npz', **f, card=numpy.zeros(1 << 23, 'U1'))
    assert 'its card is far too long' in refused(tmp_path / 'a.npz', tmp_path)
