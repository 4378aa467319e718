"""convertWeights.py: the converted model gives what the source gives, and bad files are named."""
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import convertWeights
import weightWriters as ww
from VGGNet import load_vgg
from FusionNet import load_frame_network
from VGGNet_1024 import from_vgg
from engine.errors import UserError
from engine.weights.modelfile import save_model
from engine.video.preprocessing import MEAN, mean_of, preprocess
from engine.weights.weightfiles import read_weights
from localServer import Server

PLAIN, NORMALISED = ww.make_network(), ww.make_network(normalised=True)
# As of Caffe and Keras: trained on 0-255, so their first weights are as much smaller.
WIDE = ww.make_network(deviation=60.)
FRAMES = numpy.random.default_rng(5).integers(0, 256, (2, ww.SIZE, ww.SIZE, 3), numpy.uint8)
TORCHVISION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torch_input(frames):
    """BGR frames as torchvision's networks take them: RGB, 0-1, mean and deviation."""
    x = frames[..., ::-1].astype(numpy.float64) / 255
    return ((x - TORCHVISION[0]) / TORCHVISION[1]).transpose(0, 3, 1, 2)


def bgr_input(frames):
    return (frames - numpy.array([103.939, 116.779, 123.68])).transpose(0, 3, 1, 2)


def rgb_input(frames):
    return bgr_input(frames)[:, ::-1]


def convolve(x, parts):
    """3x3 with a border of zeros and batch normalisation, by nine shifted products, float64."""
    height, width = x.shape[2:]
    around = numpy.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = parts['weight'].astype(numpy.float64)
    x = sum(numpy.einsum('oc,nchw->nohw', weight[:, :, i, j],
                         around[:, :, i:i + height, j:j + width])
            for i in range(3) for j in range(3))

    def side(kind):
        return parts[kind].astype(numpy.float64)[:, None, None]

    x = x + side('bias')
    if 'gamma' in parts:
        x = (x - side('mean')) / numpy.sqrt(side('var') + 1e-5) * side('gamma') + side('beta')
    return x


def reference(x, layers):
    """What the source's own framework would say of x, its own input."""
    for names in ww.BLOCKS:
        for name in names:
            x = numpy.maximum(convolve(x, layers[name]), 0)
        n, c, height, width = x.shape
        x = x.reshape(n, c, height // 2, 2, width // 2, 2).max((3, 5))
    x = x.reshape(len(x), -1)
    for name in ('fc6', 'fc7', 'fc8'):
        x = x @ layers[name]['weight'].T.astype(numpy.float64) + layers[name]['bias']
        x = numpy.maximum(x, 0) if name != 'fc8' else x
    return x


def convert(source, root, *flags):
    """Runs the stage in this process; returns (model, card)."""
    argv, sys.argv = sys.argv, ['convertWeights.py', *map(str, [
        *([source] if source else []), '--root', root, *ww.FLAGS, *flags])]
    try:
        convertWeights.main()
    finally:
        sys.argv = argv
    return load_vgg(Path(root) / 'VGG.model')


def scores(model, frames=FRAMES):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(preprocess(frames, model.mean)).array


def states(layers):
    return ww.state_dict(layers)


def plain_keras(path, layers):
    names = {}
    for _, their, weight, bias in ww.keras_layers(layers):
        names |= {f'{their}__kernel': weight, f'{their}__bias': bias}
    numpy.savez(path, **names)


def short_keras(path, layers):
    names = {}
    for name, _, weight, bias in ww.keras_layers(layers):
        names |= {f'{name}_W': weight, f'{name}_b': bias}
    numpy.savez(path, **names)


def chainer_npz(path, layers):
    numpy.savez_compressed(path, **{f'{name}/{kind}': parts[part] for name, parts in layers.items()
                                    for kind, part in (('W', 'weight'), ('b', 'bias'))})


# name: file name, writer, network, what the source takes
SOURCES = {
    'torch': ('a.pth', lambda p, n: ww.write_torch(p, states(n)), PLAIN, torch_input),
    'torch bn': ('a.pth', lambda p, n: ww.write_torch(p, states(n)), NORMALISED, torch_input),
    'legacy torch': ('a.pth', lambda p, n: ww.write_legacy_torch(p, states(n)), PLAIN,
                     torch_input),
    'legacy torch bn': ('a.pth', lambda p, n: ww.write_legacy_torch(p, states(n)), NORMALISED,
                        torch_input),
    'safetensors': ('a.safetensors', lambda p, n: ww.write_safetensors(p, states(n)), NORMALISED,
                    torch_input),
    'keras 1': ('a.h5', lambda p, n: ww.write_keras(p, n, 1), WIDE, bgr_input),
    'keras 2': ('a.h5', lambda p, n: ww.write_keras(p, n, 2), WIDE, bgr_input),
    'keras 3': ('a.weights.h5', lambda p, n: ww.write_keras(p, n, 3), WIDE, bgr_input),
    'keras whole': ('a.h5', lambda p, n: ww.write_keras(p, n, 'whole'), WIDE, bgr_input),
    'caffe': ('a.caffemodel', ww.write_caffe, WIDE, bgr_input),
    'caffe of today': ('a.caffemodel', lambda p, n: ww.write_caffe(p, n, old=False), WIDE,
                       bgr_input),
    'onnx': ('a.onnx', ww.write_onnx, PLAIN, torch_input),
    'onnx bn': ('a.onnx', ww.write_onnx, NORMALISED, torch_input),
    'onnx and data': ('a.onnx', lambda p, n: ww.write_onnx(p, n, 'a.data'), NORMALISED,
                      torch_input),
    'npz': ('a.npz', plain_keras, WIDE, bgr_input),
    'npz short': ('a.npz', short_keras, WIDE, bgr_input),
    'chainer npz': ('a.npz', chainer_npz, WIDE, bgr_input),
}


def write(folder, name, change=lambda layers: layers):
    file, writer, network, _ = SOURCES[name]
    writer(folder / file, change({layer: dict(parts) for layer, parts in network.items()}))
    return folder / file


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
                         ({'mean': [1, 2]}, r'mean \[1, 2\]'), ({'mean': 'x'}, 'mean x')):
        with pytest.raises(UserError, match=words):
            mean_of({'preprocessing': asked}, 'x')


def test_a_model_of_another_kind_is_refused(tmp_path):
    vgg, _ = convert(write(tmp_path, 'torch'), tmp_path)
    model = from_vgg(vgg, 4, 3)
    save_model(tmp_path / 'a.model', model, {'kind': 'frames', 'shape': model.shape})
    with pytest.raises(UserError, match='kind frames.*VGGNet cannot have'):
        load_vgg(tmp_path / 'a.model')


# --------------------------------------------------------- what may stand around it

def torch_scores(tmp_path, arrays, data=None):
    ww.write_torch(tmp_path / 'a.pth', arrays, data)
    return scores(convert(tmp_path / 'a.pth', tmp_path)[0])


def test_names_of_data_parallel_training_and_timm(tmp_path):
    expected = reference(torch_input(FRAMES), PLAIN)
    arrays = states(PLAIN)
    renamed = {'module.' + name: array for name, array in arrays.items()}
    numpy.testing.assert_allclose(torch_scores(tmp_path, renamed), expected, atol=1e-4)
    timm = {}
    for name, array in arrays.items():
        name = name.replace('classifier.0', 'pre_logits.fc1').replace(
            'classifier.3', 'pre_logits.fc2').replace('classifier.6', 'head.fc')
        if name == 'pre_logits.fc1.weight':  # timm writes it as a convolution
            array = array.reshape(ww.HIDDEN, -1, 2, 2)
        if name == 'pre_logits.fc2.weight':
            array = array[:, :, None, None]
        timm[name] = array
    numpy.testing.assert_allclose(torch_scores(tmp_path, timm), expected, atol=1e-4)


def test_a_checkpoint_around_the_state_dict(tmp_path):
    arrays = states(PLAIN)
    inner = ww.torch_pickle(arrays)[2:-1]
    data = (b'\x80\x02}(' + ww.text('epoch') + ww.integer(3) + ww.text('state_dict') + inner
            + b'u.')
    numpy.testing.assert_allclose(torch_scores(tmp_path, arrays, data),
                                  reference(torch_input(FRAMES), PLAIN), atol=1e-4)


def test_half_precision(tmp_path):
    header, numbers = {}, b''
    for name, array in states(PLAIN).items():
        upper = (array.astype('f4').view('u4') >> 16).astype('u2')  # bfloat16
        header[name] = {'dtype': 'BF16', 'shape': array.shape,
                        'data_offsets': [len(numbers), len(numbers) + upper.nbytes]}
        numbers += upper.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path / 'a.safetensors'
    path.write_bytes(len(text).to_bytes(8, 'little') + text + numbers)
    for name, array in read_weights(path)[1].items():
        numpy.testing.assert_allclose(array, states(PLAIN)[name], rtol=1 / 128)


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


# --------------------------------------------------------------------- bad input

def refused(source, tmp_path, *flags):
    """The error's text: one line that names the file, and no model is written."""
    with pytest.raises(UserError) as caught:
        convert(source, tmp_path, *flags)
    message = str(caught.value)
    assert source.name in message and '\n' not in message and message.isprintable()
    assert not (tmp_path / 'VGG.model').exists()
    return message


class Evil:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


EVIL_PICKLES = [
    lambda path: pickle.dumps(Evil(path), 2),
    lambda path: pickle.dumps(Evil(path), 4),
    lambda path: pickle.dumps(Evil(path), 0),
    lambda path: pickle.dumps({'state_dict': {'features.0.weight': Evil(path)}}, 2),
    lambda path: ww.torch_pickle({}, extra=ww.text('x') + pickle.dumps(Evil(path), 2)[2:-1]),
    # names that look like PyTorch's own
    lambda path: b'\x80\x04' + b'\x8c\x05torch\x8c\x16serialization.os.mkdir\x93'
                 + ww.text(path) + b'\x85R.',
    lambda path: b'\x80\x02ctorch._utils\n_import_dotted_name\n' + ww.text('os') + b'\x85R.',
    lambda path: b'\x80\x02cbuiltins\neval\n' + ww.text(f'__import__("os").mkdir({path!r})')
                 + b'\x85R.',
    # opcodes that call without REDUCE
    lambda path: b'\x80\x02(' + ww.text(path) + b'ios\nmkdir\n.',
    lambda path: b'\x80\x02(cos\nmkdir\n' + ww.text(path) + b'o.',
    # an admitted name given something to call
    lambda path: b'\x80\x02ccollections\nOrderedDict\n)R(cos\nmkdir\n' + ww.text(path)
                 + b'\x85tb.']


@pytest.mark.parametrize('which', range(len(EVIL_PICKLES)))
@pytest.mark.parametrize('writer', [ww.write_torch, ww.write_legacy_torch])
def test_nothing_in_a_file_is_run(tmp_path, writer, which):
    trace = tmp_path / 'trace'
    data = EVIL_PICKLES[which](str(trace))
    writer(tmp_path / 'evil.pth', {}, data)
    message = refused(tmp_path / 'evil.pth', tmp_path)
    assert 'not read' in message or 'damaged' in message
    assert not trace.exists()


def test_the_evil_is_evil(tmp_path):
    """Without this the test above could pass for a file that is merely broken."""
    pickle.loads(EVIL_PICKLES[0](str(tmp_path / 'trace')))
    assert (tmp_path / 'trace').exists()


def test_the_stage_says_it_in_one_line(tmp_path):
    ww.write_torch(tmp_path / 'evil.pth', {}, EVIL_PICKLES[0](str(tmp_path / 'trace')))
    done = subprocess.run([sys.executable, convertWeights.__file__, str(tmp_path / 'evil.pth'),
                           '--root', str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert '.mkdir' in done.stderr and 'state_dict' in done.stderr


def test_pickled_arrays_and_links_out_of_the_file(tmp_path):
    numpy.savez(tmp_path / 'a.npz', conv1_1_W=numpy.array([Evil(str(tmp_path / 'trace'))]))
    refused(tmp_path / 'a.npz', tmp_path)
    assert not (tmp_path / 'trace').exists()
    # HDF5 and ONNX may name other files of this machine
    (tmp_path / 'secret').write_bytes(bytes(4000))
    with h5py.File(tmp_path / 'a.h5', 'w') as f:
        f.create_dataset('block1_conv1/kernel:0', (3, 3, 3, 5), 'f4',
                         external=[(str(tmp_path / 'secret'), 0, 4000)])
    assert 'another file' in refused(tmp_path / 'a.h5', tmp_path)
    folder = tmp_path / 'folder'
    folder.mkdir()
    ww.write_onnx(folder / 'a.onnx', PLAIN, '../secret')
    assert 'same folder' in refused(folder / 'a.onnx', folder)
    ww.write_onnx(folder / 'a.onnx', PLAIN, 'a.data')
    (folder / 'a.data').unlink()
    assert 'a.data, which is not there' in refused(folder / 'a.onnx', folder)


@pytest.mark.parametrize('name', SOURCES)
def test_what_is_missing_or_misshapen_is_named(tmp_path, name):
    def without(layers):
        return {k: v for k, v in layers.items() if k not in ('fc7', 'fc8')}

    def misshapen(layers):
        layers['fc7']['weight'] = layers['fc7']['weight'][:, :-1].copy()
        return layers

    def not_finite(layers):
        layers['conv2_2']['bias'] = layers['conv2_2']['bias'] * numpy.float32('nan')
        return layers
    assert 'lacks fc7, fc8' in refused(write(tmp_path, name, without), tmp_path)
    message = refused(write(tmp_path, name, misshapen), tmp_path)
    assert 'fc7 is (10, 9), expected (10, 10)' in message
    assert 'conv2_2' in refused(write(tmp_path, name, not_finite), tmp_path)


def test_other_networks(tmp_path):
    arrays = states(PLAIN)
    ww.write_torch(tmp_path / 'vgg19.pth', {**arrays, 'features.30.weight': arrays[
        'features.28.weight'], 'features.30.bias': arrays['features.28.bias']})
    assert 'features.30.weight' in refused(tmp_path / 'vgg19.pth', tmp_path)
    ww.write_torch(tmp_path / 'resnet.pth', {'layer1.0.conv1.weight': arrays['features.0.weight']})
    assert 'no layer of VGG-16' in refused(tmp_path / 'resnet.pth', tmp_path)
    with h5py.File(tmp_path / 'vgg19.h5', 'w') as f:
        f['block1_conv1/kernel:0'] = numpy.zeros((3, 3, 3, 5))
        f['block3_conv4/kernel:0'] = numpy.zeros((3, 3, 3, 5))
    assert 'block3_conv4' in refused(tmp_path / 'vgg19.h5', tmp_path)
    nodes = ww.onnx_node('Conv', ['x', 'w'], 'y', pads=[0, 0, 0, 0])
    (tmp_path / 'a.onnx').write_bytes(ww.field(7, ww.field(1, nodes)))
    assert 'pads [0, 0, 0, 0]' in refused(tmp_path / 'a.onnx', tmp_path)
    nodes = ww.onnx_node('Transpose', ['x'], 'y')
    (tmp_path / 'a.onnx').write_bytes(ww.field(7, ww.field(1, nodes)))
    assert 'Transpose' in refused(tmp_path / 'a.onnx', tmp_path)


@pytest.mark.parametrize('name, content, words', [
    ('a.pth', b'', 'empty'), ('a.pth', b'<html>404', 'web page'),
    ('a.h5', b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
    ('a.bin', b'\1' * 100, 'none of PyTorch'), ('a.safetensors', b'\1' * 100, 'safetensors'),
    ('a.safetensors', b'\xff' * 8 + b'{}', 'damaged'), ('a.caffemodel', b'\0' * 9, 'damaged'),
    ('a.safetensors', b'\2' + b'\0' * 7 + b'{}' + b'more', 'bytes too many')])
def test_no_weights_at_all(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refused(tmp_path / name, tmp_path)


def test_not_there_and_flags(tmp_path):
    assert 'No such file' in refused(tmp_path / 'nothing.pth', tmp_path)
    source = write(tmp_path, 'torch')
    with pytest.raises(UserError, match='five numbers'):
        convert(source, tmp_path, '--channels', '1,2')
    with pytest.raises(UserError, match='SOURCE or --download'):
        convert(None, tmp_path)
    with pytest.raises(UserError, match='multiple of 32'):
        convert(source, tmp_path, '--input-size', '100')


def test_compressed_zip(tmp_path):
    """A few bytes that unpack to gigabytes."""
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as f:
        f.writestr('archive/data.pkl', b'.' * 1_000_000)
    assert 'compressed' in refused(tmp_path / 'a.pth', tmp_path)


@pytest.mark.parametrize('size, stride, offset', [
    ((10 ** 9, 10 ** 9), (0, 0), 0), ((5,), (-1,), 4), ((5,), (1,), -3), ((6,), (1,), 0),
    ((2, 5), (1, 1), 0), ((5,), (2,), 0), ((3,), (1,), 3), ((2, 2), (4, 1), 0)])
def test_views_that_reach_out_of_their_numbers(tmp_path, size, stride, offset):
    data = (b'\x80\x02}(' + ww.text('features.0.bias')
            + b'ctorch._utils\n_rebuild_tensor_v2\n((' + ww.text('storage')
            + b'ctorch\nFloatStorage\n' + ww.text('0') + ww.text('cpu') + ww.integer(5) + b'tQ'
            + ww.integer(offset) + b'(' + b''.join(map(ww.integer, size)) + b't('
            + b''.join(map(ww.integer, stride)) + b't\x89NtRu.')
    ww.write_torch(tmp_path / 'a.pth', {'x': numpy.zeros(5, 'f4')}, data)
    assert 'damaged' in refused(tmp_path / 'a.pth', tmp_path)


@pytest.mark.parametrize('name', SOURCES)
def test_damage_anywhere_is_read_or_refused(tmp_path, name):
    """Bytes changed or lost at 60 places: another exception than UserError fails this."""
    path = write(tmp_path, name)
    whole, chance = path.read_bytes(), random.Random(name)
    for trial in range(60):
        data = bytearray(whole)
        if trial % 4 == 0:
            del data[chance.randrange(len(data)):]
        else:
            for _ in range(trial % 4):
                # names and places stand at the start or the end
                edge = min(len(data), 3000)
                place = chance.choice([chance.randrange(edge), -1 - chance.randrange(edge)])
                data[place] = chance.randrange(256)
        path.write_bytes(data)
        try:
            read_weights(path)
        except UserError as error:
            assert str(error).isprintable()


def test_a_damaged_model_is_refused(tmp_path):
    convert(write(tmp_path, 'torch'), tmp_path)
    path, chance = tmp_path / 'VGG.model', random.Random(1)
    whole = path.read_bytes()
    for trial in range(60):
        data = bytearray(whole)
        if trial % 4 == 0:
            del data[chance.randrange(len(data)):]
        else:
            place = -1 - chance.randrange(6000)
            data[place] = data[place] ^ 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            load_vgg(path)
        except UserError as error:
            assert str(path) in str(error)


# ---------------------------------------------------------------------- download

def test_download(tmp_path, monkeypatch):
    ww.write_torch(tmp_path / 'made.pth', states(PLAIN))
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
    arrays = states(NORMALISED if normalised else PLAIN)
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
