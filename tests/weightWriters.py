"""Writes small VGG-16s in the formats of other frameworks, without those frameworks.

A network is {layer: {'weight', 'bias'}}, (out, in, h, w) and (out, in), plus
'gamma', 'beta', 'mean', 'var' of batch normalisation behind a convolution.
"""
import json
import pickle
import struct
import zipfile

import engine.chainer_today  # noqa: F401  (before chainer)
import h5py
import numpy
from chainer.links.caffe.protobuf3 import caffe_pb2

CHANNELS, HIDDEN, CLASSES, SIZE = (5, 6, 7, 8, 9), 10, 11, 64
FLAGS = ['--channels', ','.join(map(str, CHANNELS)), '--hidden', str(HIDDEN),
         '--input-size', str(SIZE)]
BLOCKS = [('conv1_1', 'conv1_2'), ('conv2_1', 'conv2_2'), ('conv3_1', 'conv3_2', 'conv3_3'),
          ('conv4_1', 'conv4_2', 'conv4_3'), ('conv5_1', 'conv5_2', 'conv5_3')]
# As torchvision prints them.
PLAIN = dict(zip(sum(BLOCKS, ()), (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)))
NORMALISED = dict(zip(sum(BLOCKS, ()), (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)))
CLASSIFIER = {'fc6': 0, 'fc7': 3, 'fc8': 6}


def make_network(normalised=False, seed=0, deviation=1.):
    """Random layers; `deviation` is that of the input which the first is made for."""
    random = numpy.random.default_rng(seed)
    layers, inputs = {}, 3
    for names, outputs in zip(BLOCKS, CHANNELS):
        for name in names:
            layers[name] = {
                'weight': random.normal(0, (2 / 9 / inputs) ** .5, (outputs, inputs, 3, 3)),
                'bias': random.normal(0, .3, outputs)}
            if normalised:
                layers[name] |= {'gamma': random.uniform(.7, 1.5, outputs),
                                 'beta': random.normal(0, .3, outputs),
                                 'mean': random.normal(0, .3, outputs),
                                 'var': random.uniform(.4, 2, outputs)}
            inputs = outputs
    layers['conv1_1']['weight'] /= deviation
    inputs *= (SIZE // 32) ** 2
    for name, outputs in (('fc6', HIDDEN), ('fc7', HIDDEN), ('fc8', CLASSES)):
        layers[name] = {'weight': random.normal(0, (2 / inputs) ** .5, (outputs, inputs)),
                        'bias': random.normal(0, .3, outputs)}
        inputs = outputs
    return {name: {kind: array.astype('f4') for kind, array in parts.items()}
            for name, parts in layers.items()}


def state_dict(layers):
    """Names and order as in torchvision's vgg16 and vgg16_bn."""
    normalised = 'gamma' in layers['conv1_1']
    result = {}
    for name, parts in layers.items():
        if name in CLASSIFIER:
            place = f'classifier.{CLASSIFIER[name]}'
        else:
            place = f'features.{(NORMALISED if normalised else PLAIN)[name]}'
        result |= {f'{place}.weight': parts['weight'], f'{place}.bias': parts['bias']}
        if 'gamma' in parts:
            place = f'features.{NORMALISED[name] + 1}'
            result |= {f'{place}.weight': parts['gamma'], f'{place}.bias': parts['beta'],
                       f'{place}.running_mean': parts['mean'],
                       f'{place}.running_var': parts['var'],
                       f'{place}.num_batches_tracked': numpy.array(7)}
    return result


# ----------------------------------------------------------------------- PyTorch

STORAGES = {'f4': b'FloatStorage', 'i8': b'LongStorage'}


def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def integer(value):
    return b'J' + struct.pack('<i', value)


def torch_pickle(arrays, legacy=False, extra=b''):
    """The opcodes that torch.save writes for an OrderedDict of tensors."""
    out = [b'\x80\x02ccollections\nOrderedDict\n)Rq\x00(']
    for key, (name, array) in enumerate(arrays.items()):
        strides = [step // array.itemsize for step in array.strides]
        kind = STORAGES[array.dtype.str[1:]]
        out += [text(name), b'ctorch._utils\n_rebuild_tensor_v2\n((', text('storage'),
                b'ctorch\n' + kind + b'\n', text(str(key)), text('cpu'),
                integer(array.size), b'N' if legacy else b'', b'tQ', integer(0),
                b'(', *map(integer, array.shape), b't(', *map(integer, strides), b't',
                b'\x89ccollections\nOrderedDict\n)RtR']
    # the attribute _metadata, as PyTorch hangs it on
    out += [extra, b'u}', text('_metadata'), b'ccollections\nOrderedDict\n)Rsb.']
    return b''.join(out)


def write_torch(path, arrays, data=None):
    with zipfile.ZipFile(path, 'w') as f:
        f.writestr('archive/data.pkl', torch_pickle(arrays) if data is None else data)
        f.writestr('archive/byteorder', 'little')
        for key, array in enumerate(arrays.values()):
            f.writestr(f'archive/data/{key}', array.tobytes())
        f.writestr('archive/version', '3\n')


def write_legacy_torch(path, arrays, data=None):
    head = [0x1950a86a20f9469cfc6c, 1001,
            {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}]
    with open(path, 'wb') as f:
        for value in head:
            pickle.dump(value, f, 2)
        f.write(torch_pickle(arrays, legacy=True) if data is None else data)
        pickle.dump([str(key) for key in range(len(arrays))], f, 2)
        for array in arrays.values():
            f.write(struct.pack('<q', array.size) + array.tobytes())


def write_safetensors(path, arrays):
    header, place = {'__metadata__': {'format': 'pt'}}, 0
    for name, array in arrays.items():
        header[name] = {'dtype': {'f4': 'F32', 'i8': 'I64'}[array.dtype.str[1:]],
                        'shape': array.shape, 'data_offsets': [place, place + array.nbytes]}
        place += array.nbytes
    data = json.dumps(header).encode()
    data += b' ' * (-len(data) % 8)
    path.write_bytes(struct.pack('<Q', len(data)) + data
                     + b''.join(array.tobytes() for array in arrays.values()))


# ------------------------------------------------------------------------- Keras

def keras_layers(layers):
    """(layer, Keras's name, kernel, bias): channels last, fc6 by row, column, channel."""
    for name, parts in layers.items():
        weight = parts['weight']
        if name == 'fc6':
            side = SIZE // 32
            weight = weight.reshape(HIDDEN, -1, side, side).transpose(0, 2, 3, 1)
            weight = weight.reshape(HIDDEN, -1)
        weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        their = {'fc6': 'fc1', 'fc7': 'fc2', 'fc8': 'predictions'}.get(
            name, f'block{name[4:5]}_conv{name[6:]}')
        yield name, their, weight, parts['bias']


def write_keras(path, layers, version):
    """Names of Keras 1 ('..._W_1:0'), of 2 ('kernel:0'), of a whole model, and of Keras 3."""
    with h5py.File(path, 'w') as f:
        group = f
        if version == 'whole':
            group = f.create_group('model_weights')
            f['optimizer_weights/iter:0'] = 3
            f['optimizer_weights/block1_conv1/kernel/m:0'] = numpy.zeros((3, 3, 3, 5))
        counts = {'conv2d': 0, 'dense': 0}
        for name, their, weight, bias in keras_layers(layers):
            kind = 'conv2d' if weight.ndim == 4 else 'dense'
            number = f'_{counts[kind]}' if counts[kind] else ''
            counts[kind] += 1
            where = {1: [f'{their}/{their}_W_1:0', f'{their}/{their}_b_1:0'],
                     3: [f'layers/{kind}{number}/vars/{i}' for i in (0, 1)]}.get(
                version, [f'{their}/{their}/kernel:0', f'{their}/{their}/bias:0'])
            group[where[0]], group[where[1]] = weight, bias
        if version == 3:
            f['optimizer/vars/0'] = 3


# ------------------------------------------------------------------------- Caffe

def write_caffe(path, layers, old=True):
    net = caffe_pb2.NetParameter(name='VGG_ILSVRC_16_layers')
    for name, parts in layers.items():
        layer = (net.layers if old else net.layer).add(name=name)
        for kind in ('weight', 'bias'):
            blob, array = layer.blobs.add(), parts[kind]
            blob.data.extend(array.ravel().tolist())
            if old:
                sides = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = sides
            else:
                blob.shape.dim.extend(array.shape)
        (net.layers if old else net.layer).add(name='relu' + name)
    path.write_bytes(net.SerializeToString())


# -------------------------------------------------------------------------- ONNX

def field(number, value):
    """One field of a protocol buffers message: an int, a float, or bytes (or text)."""
    def varint(n):
        out = b''
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack('<f', value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_tensor(name, array, beside=None):
    out = b''.join(field(1, side) for side in array.shape) + field(2, 1) + field(8, name)
    if beside is None:
        return out + field(9, array.tobytes())
    place, offset = beside
    for key, value in (('location', place), ('offset', str(offset))):
        out += field(13, field(1, key) + field(2, value))
    return out + field(14, 1)


def onnx_node(op, inputs, output, **attributes):
    out = b''.join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    for key, value in attributes.items():
        place, values = {list: (8, value), int: (3, [value]), float: (2, [value])}[type(value)]
        out += field(5, field(1, key) + b''.join(field(place, v) for v in values))
    return out


def write_onnx(path, layers, beside=None):
    """The graph of a VGG-16; with `beside` the numbers go to a file of that name."""
    nodes, tensors, numbers, x = [], [], b'', 'input'

    def put(name, array):
        nonlocal numbers
        tensors.append(onnx_tensor(name, array, beside and (beside, len(numbers))))
        numbers += array.tobytes()
        return name

    def step(op, inputs, **attributes):
        nonlocal x
        nodes.append(onnx_node(op, [x, *inputs], f'x{len(nodes)}', **attributes))
        x = f'x{len(nodes) - 1}'

    for name, parts in layers.items():
        ends = [names[-1] for names in BLOCKS]
        if name == 'fc6':
            step('Flatten', [])
        inputs = [put(f'onnx::{name}_{kind}', parts[kind]) for kind in ('weight', 'bias')]
        if parts['weight'].ndim == 4:
            step('Conv', inputs, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
        else:
            step('Gemm', inputs, transB=1, alpha=1.0, beta=1.0)
        if 'gamma' in parts:
            step('BatchNormalization', [put(f'{name}_{kind}', parts[kind])
                                        for kind in ('gamma', 'beta', 'mean', 'var')],
                 epsilon=1e-5)
        if name != 'fc8':
            step('Relu', [])
        if name in ends:
            step('MaxPool', [], kernel_shape=[2, 2], strides=[2, 2])
    graph = b''.join(field(1, node) for node in nodes)
    graph += b''.join(field(5, tensor) for tensor in tensors)
    path.write_bytes(field(1, 8) + field(7, graph))
    if beside is not None:
        (path.parent / beside).write_bytes(numbers)
