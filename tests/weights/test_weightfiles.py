"""engine/weights/: files of weights, whole, damaged or another's, are read or named."""
import gzip
import json
import pickle
import random
import zipfile

import h5py
import numpy
import pytest

import weightWriters as ww
from VGGNet import load_vgg
from engine.errors import UserError
from engine.weights.weightfiles import read_weights
from weightSources import (FRAMES, PLAIN, SOURCES, convert, reference, refused, scores, torch_input,
                           write)


def torch_scores(tmp_path, arrays, data=None):
    ww.write_torch(tmp_path / 'a.pth', arrays, data)
    return scores(convert(tmp_path / 'a.pth', tmp_path)[0])


def test_names_of_data_parallel_training_and_timm(tmp_path):
    expected = reference(torch_input(FRAMES), PLAIN)
    arrays = ww.state_dict(PLAIN)
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


def test_half_precision(tmp_path):
    header, numbers = {}, b''
    for name, array in ww.state_dict(PLAIN).items():
        upper = (array.astype('f4').view('u4') >> 16).astype('u2')  # bfloat16
        header[name] = {'dtype': 'BF16', 'shape': array.shape,
                        'data_offsets': [len(numbers), len(numbers) + upper.nbytes]}
        numbers += upper.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path / 'a.safetensors'
    path.write_bytes(len(text).to_bytes(8, 'little') + text + numbers)
    for name, array in read_weights(path)[1].items():
        numpy.testing.assert_allclose(array, ww.state_dict(PLAIN)[name], rtol=1 / 128)


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


@pytest.mark.parametrize('kind', ['weight', 'bias'])
def test_numbers_that_are_too_large_for_float32(tmp_path, kind):
    arrays = ww.state_dict(PLAIN)
    arrays[f'features.5.{kind}'] = numpy.where(arrays[f'features.5.{kind}'] > 0, 1e39, 0)
    numpy.savez(tmp_path / 'a.npz', **arrays)
    assert 'conv2_1 holds numbers that are not finite' in refused(tmp_path / 'a.npz', tmp_path)


def test_other_networks(tmp_path):
    arrays = ww.state_dict(PLAIN)
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


@pytest.mark.parametrize('name, content, words', [
    ('a.pth', b'', 'empty'), ('a.pth', b'<html>404', 'web page'),
    ('a.h5', b'\xef\xbb\xbf\n <!DOCTYPE html>', 'web page'),
    ('a.h5', b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS pointer'),
    ('a.pth', b'404: Not Found', '"404: Not Found"'), ('a.onnx', b'{"error": "gone"}', 'text'),
    ('a.pth', gzip.compress(b'x', mtime=0), 'gzip; unpack it'), ('a.pth', b'Rar!\x1a\7\1\0', 'RAR'),
    ('a.pth', b'x' * 257 + b'ustar\0', 'tar archive'), ('a.mat', b'MATLAB 5.0 MAT', 'MATLAB'),
    ('vgg16.npy', b'\x93NUMPY\1\0', 'single .npy'), ('a.pkl', pickle.dumps([1]), 'a pickle that'),
    ('a.pth', b'PK\3\4' + b'x' * 99, 'contents at its end is missing'),
    ('a.bin', b'\1' * 100, 'none of PyTorch'), ('a.safetensors', b'\1' * 100, 'safetensors'),
    ('a.safetensors', b'\xff' * 8 + b'{}', 'damaged'), ('a.caffemodel', b'\0' * 9, 'damaged'),
    ('a.safetensors', b'\2' + b'\0' * 7 + b'{}' + b'more', 'bytes too many')])
def test_no_weights_at_all(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refused(tmp_path / name, tmp_path)


@pytest.mark.parametrize('names, words', [
    (['a/data.pkl', 'a/code/__torch__.py'], 'TorchScript'),
    (['a/data.pkl', 'a/constants.pkl'], 'TorchScript'), (['vgg16.pth', 'readme'], 'vgg16.pth'),
    ([], 'holds nothing')])
def test_zips_of_other_things(tmp_path, names, words):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as f:
        for name in names:
            f.writestr(name, b'x')
    assert words in refused(tmp_path / 'a.zip', tmp_path)


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
