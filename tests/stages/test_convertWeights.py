"""convertWeights.py: the converted model gives what the source gives."""
import hashlib

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
import pytest

import convertWeights
import weightWriters as ww
from VGGNet import load_vgg
from FusionNet import load_frame_network
from VGGNet_1024 import from_vgg
from engine.errors import UserError
from engine.weights.modelfile import save_model
from engine.video.preprocessing import MEAN, mean_of, preprocess
from localServer import Server
from weightSources import (FRAMES, NORMALISED, PLAIN, SOURCES, WIDE, bgr_input, convert, convolve,
                           reference, refused, rgb_input, scores, torch_input, write)


@pytest.mark.parametrize('name', SOURCES)
def test_gives_what_the_source_gives(tmp_path, name):
    network, source_input = SOURCES[name][2:]
    model, card = convert(write(tmp_path, name), tmp_path)
    expected = reference(source_input(FRAMES), network)
    assert abs(expected[0] - expected[1]).max() > 0.05  # it does look at the picture
    numpy.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-4)
    model.fast = False
    numpy.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-4)
    assert card['preprocessing']['mean'] == pytest.approx(
        list(MEAN) if source_input is bgr_input else [103.53, 116.28, 123.675])


def test_first_layer_also_at_the_border(tmp_path):
    model, _ = convert(write(tmp_path, 'torch'), tmp_path)
    white = numpy.full((1, ww.SIZE, ww.SIZE, 3), 255, numpy.uint8)
    with chainer.no_backprop_mode():
        ours = model.conv1_1(preprocess(white, model.mean)).array
    theirs = convolve(torch_input(white), PLAIN['conv1_1'])
    assert abs(theirs[0, :, 0, 0] - theirs[0, :, 9, 9]).max() > 0.5  # a border does matter
    numpy.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name, kind, source_input, network', [
    ('torch', 'bgr', bgr_input, WIDE), ('torch', 'rgb', rgb_input, WIDE),
    ('caffe', 'torch', torch_input, PLAIN)])
def test_input_can_be_named(tmp_path, name, kind, source_input, network):
    file, writer = SOURCES[name][:2]
    writer(tmp_path / file, network)
    model, _ = convert(tmp_path / file, tmp_path, '--input', kind)
    expected = reference(source_input(FRAMES), network)
    numpy.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-4)


def test_the_mean_goes_on_to_the_next_stages(tmp_path):
    vgg, _ = convert(write(tmp_path, 'torch'), tmp_path)
    assert vgg.mean != MEAN
    model = from_vgg(vgg, 4, 3)
    assert model.mean == vgg.mean
    save_model(tmp_path / 'VGG_1024.model', model, {
        'shape': model.shape, 'preprocessing': {'mean': list(model.mean)}})
    assert load_frame_network(tmp_path / 'VGG_1024.model')[0].mean == vgg.mean


def test_another_preprocessing_is_refused():
    assert mean_of({}, 'x') == MEAN
    for asked, words in (({'order': 'RGB'}, 'order "RGB".*"BGR"'),
                         ({'scale': '0-1'}, 'scale "0-1".*"0-255"'),
                         ({'mean': [1, 2]}, r'mean \[1, 2\]'), ({'mean': 'x'}, 'mean "x"'),
                         ({'mean': [True] * 3}, 'mean .true')):
        with pytest.raises(UserError, match=words):
            mean_of({'preprocessing': asked}, 'x')


def test_a_model_of_another_kind_is_refused(tmp_path):
    vgg, _ = convert(write(tmp_path, 'torch'), tmp_path)
    model = from_vgg(vgg, 4, 3)
    save_model(tmp_path / 'a.model', model, {'kind': 'frames', 'shape': model.shape})
    with pytest.raises(UserError, match='kind frames.*VGGNet cannot have'):
        load_vgg(tmp_path / 'a.model')


def test_random_rest(tmp_path):
    def without_top(layers):
        return {name: parts for name, parts in layers.items() if not name.startswith('fc')}
    source = write(tmp_path, 'keras 2', without_top)
    with pytest.raises(UserError, match='lacks fc6, fc7, fc8; --random-rest'):
        convert(source, tmp_path)
    assert not (tmp_path / 'VGG.model').exists()
    model, card = convert(source, tmp_path, '--random-rest')
    assert card['source'].endswith('random (seed 0): fc6, fc7, fc8')
    numpy.testing.assert_array_equal(model.conv5_3.b.array, WIDE['conv5_3']['bias'])
    assert model.fc6.W.array.std() > 0
    again, _ = convert(source, tmp_path, '--random-rest')
    numpy.testing.assert_array_equal(again.fc6.W.array, model.fc6.W.array)


@pytest.mark.parametrize('last', [3, 4])
def test_pass_rest_hands_on_what_comes_in(last, tmp_path):
    def up_to_last(layers):
        return {name: parts for name, parts in layers.items()
                if name.startswith('conv') and int(name[4]) <= last}
    source = write(tmp_path, 'keras 2', up_to_last)
    model, card = convert(source, tmp_path, '--pass-rest')
    square = [n for n in model.conv_names
              if int(n[4]) > last and model[n].W.shape[0] == model[n].W.shape[1]]
    assert square and f'handing on their input: {", ".join(square)}; random' in card['source']
    share = float(model[square[0]].W.array.max())
    assert 0 < share != 1
    for name in square:
        h = numpy.random.RandomState(0).rand(2, model[name].W.shape[0], 4, 4).astype('f')
        numpy.testing.assert_allclose(model[name](h).array, share * h, rtol=1e-6)
    # What they hand on is what comes out of the last trained layer, at a deviation near 1.
    coarse = numpy.random.RandomState(1).uniform(0, 255, (4, 3, 8, 8)).astype('f')
    size = model.shape['input_size']
    pictures = F.resize_images(coarse, (size, size)).array.transpose(0, 2, 3, 1).astype('u1')
    with chainer.no_backprop_mode():
        assert 0.3 < model.convolutions(pictures).array.std() < 3


def test_not_there_and_flags(tmp_path):
    assert 'No such file' in refused(tmp_path / 'nothing.pth', tmp_path)
    source = write(tmp_path, 'torch')
    with pytest.raises(UserError, match='five numbers'):
        convert(source, tmp_path, '--channels', '1,2')
    with pytest.raises(UserError, match='SOURCE or --download'):
        convert(None, tmp_path)
    with pytest.raises(UserError, match='multiple of 32'):
        convert(source, tmp_path, '--input-size', '100')


# ---------------------------------------------------------------------- download

def test_download(tmp_path, monkeypatch):
    ww.write_torch(tmp_path / 'made.pth', ww.state_dict(PLAIN))
    data = (tmp_path / 'made.pth').read_bytes()
    with Server(data=data, faults=['cut off']) as server:
        monkeypatch.setitem(convertWeights.DOWNLOADS, 'torchvision', convertWeights.Download(
            server.url, 'sha256:' + hashlib.sha256(data).hexdigest()[:8]))
        root = tmp_path / 'root'
        model, card = convert(None, root, '--download', 'torchvision')
        assert card['source_sha256'] == hashlib.sha256(data).hexdigest()
        numpy.testing.assert_allclose(scores(model), reference(torch_input(FRAMES), PLAIN),
                                      rtol=0, atol=1e-4)
        server.data = data[:-1] + b'x'
        with pytest.raises(UserError, match='not the file that was expected'):
            convert(None, tmp_path / 'other', '--download', 'torchvision')
        assert not list((tmp_path / 'other').iterdir())


def test_downloads_are_well_formed():
    lengths = {'sha256': (8, 64), 'md5': (32,), 'sha1': (40,)}
    for name, (url, digest, _) in convertWeights.DOWNLOADS.items():
        kind, digits = digest.split(':')
        assert len(digits) in lengths[kind] and int(digits, 16), name
        if 'pytorch.org' in url:
            assert url.endswith(f'-{digits[:8]}.pth')
    with pytest.raises(UserError, match='keras-notop lacks fc6, fc7, fc8'):
        convert(None, '.', '--download', 'keras-notop')


# ------------------------------------------------- the frameworks' own, where they are

def torch_network(torch, normalised):
    """torchvision's vgg16, narrow, with the weights of weightWriters."""
    nn = torch.nn
    features, inputs = [], 3
    for names, outputs in zip(ww.BLOCKS, ww.CHANNELS):
        for _ in names:
            features.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            features += [nn.BatchNorm2d(outputs)] * normalised + [nn.ReLU()]
            inputs = outputs
        features.append(nn.MaxPool2d(2))
    network = nn.Sequential()
    network.add_module('features', nn.Sequential(*features))
    network.add_module('flatten', nn.Flatten())
    network.add_module('classifier', nn.Sequential(
        nn.Linear(inputs * 4, ww.HIDDEN), nn.ReLU(), nn.Dropout(),
        nn.Linear(ww.HIDDEN, ww.HIDDEN), nn.ReLU(), nn.Dropout(),
        nn.Linear(ww.HIDDEN, ww.CLASSES)))
    arrays = ww.state_dict(NORMALISED if normalised else PLAIN)
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return network.eval()


def torch_writers(torch):
    def safetensors(network, path):
        pytest.importorskip('safetensors.torch').save_file(network.state_dict(), path)

    def onnx(network, path):
        pytest.importorskip('onnx')
        torch.onnx.export(network, (torch.zeros(1, 3, ww.SIZE, ww.SIZE),), path, dynamo=False)
    return {
        'a.pth': lambda network, path: torch.save(network.state_dict(), path),
        'legacy.pth': lambda network, path: torch.save(
            network.state_dict(), path, _use_new_zipfile_serialization=False),
        'parameters.pth': lambda network, path: torch.save(
            {'epoch': 3, 'state_dict': dict(network.named_parameters())
             | dict(network.named_buffers())}, path),
        'a.safetensors': safetensors, 'a.onnx': onnx}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('normalised', [False, True], ids=['plain', 'bn'])
@pytest.mark.parametrize('file', ['a.pth', 'legacy.pth', 'parameters.pth', 'a.safetensors',
                                  'a.onnx'])
def test_gives_what_pytorch_gives(tmp_path, file, normalised):
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    network = torch_network(torch, normalised)
    torch_writers(torch)[file](network, tmp_path / file)
    with torch.no_grad():
        expected = network(torch.tensor(torch_input(FRAMES).astype('f4'))).numpy()
    model, _ = convert(tmp_path / file, tmp_path)
    numpy.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-4)
