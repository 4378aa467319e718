"""Writes small VGG-16s in the formats of other frameworks, without those frameworks.

A network is {layer: {'weight', 'bias'}}, (out, in, h, w) and (out, in), plus
'gamma', 'beta', 'mean', 'var' of batch normalisation behind a convolution.
"""
import json
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

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

def write_keras_archive(path, layers, kinds=('InputLayer', 'Conv2D', 'Dense')):
    """A .keras file of Keras 3: what it describes, and its weights, in a zip."""
    with tempfile.TemporaryDirectory() as folder:
        write_keras(Path(folder) / 'w.h5', layers, 3)
        weights = (Path(folder) / 'w.h5').read_bytes()
    layers = [{'module': 'keras.layers', 'class_name': kind, 'config': {'name': kind.lower()}}
              for kind in kinds]
    with zipfile.ZipFile(path, 'w') as f:
        f.writestr('metadata.json', json.dumps({'keras_version': '3.12.0'}))
        f.writestr('config.json', json.dumps({'class_name': 'Functional', 'config': {
            'name': 'vgg16', 'layers': layers}, 'compile_config': {'optimizer': 'adam'}}))
        f.writestr('model.weights.h5', weights)


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


def onnx_node(op, inputs, output, raw=(), **attributes):
    out = b''.join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    for key, value in dict(raw).items():
        out += field(5, field(1, key) + value)
    for key, value in attributes.items():
        place, values = {list: (8, value), int: (3, [value]), float: (2, [value])}[type(value)]
        out += field(5, field(1, key) + b''.join(field(place, v) for v in values))
    return out


class OnnxWriter:
    """A graph of one chain: put() adds a constant, step() a node on what came last."""

    def __init__(self, beside=None):
        self.nodes, self.tensors, self.numbers, self.x, self.beside = [], [], b'', 'input', beside

    def put(self, name, array):
        place = self.beside and (self.beside, len(self.numbers))
        self.tensors.append(onnx_tensor(name, array, place))
        self.numbers += array.tobytes()
        return name

    def node(self, op, inputs, **attributes):
        name = f'x{len(self.nodes)}'
        self.nodes.append(onnx_node(op, inputs, name, **attributes))
        return name

    def step(self, op, inputs=(), **attributes):
        self.x = self.node(op, [self.x, *inputs], **attributes)

    def write(self, path, producer='pytorch', notes=()):
        graph = b''.join(field(1, node) for node in self.nodes) + field(2, 'graph')
        graph += b''.join(field(5, tensor) for tensor in self.tensors)
        graph += field(11, field(1, 'input'))
        model = field(1, 8) + field(2, producer) + field(7, graph)
        for key, value in dict(notes).items():
            model += field(14, field(1, key) + field(2, value))
        path.write_bytes(model)
        if self.beside is not None:
            (path.parent / self.beside).write_bytes(self.numbers)


def put_layer(graph, name, parts):
    """One layer as PyTorch exports it, up to its ReLU."""
    inputs = [graph.put(f'onnx::{name}_{kind}', parts[kind]) for kind in ('weight', 'bias')]
    if name.startswith('conv'):
        graph.step('Conv', inputs, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    else:
        graph.step('Gemm', inputs, transB=1, alpha=1.0, beta=1.0)


def put_layer_in_pieces(graph, name, parts):
    """One layer with constants as nodes, turned weights, and the bias added by itself."""
    weight, bias = (field(5, onnx_tensor('', parts[kind])) for kind in ('weight', 'bias'))
    weight, bias = (graph.node('Constant', [], raw={'value': value}) for value in (weight, bias))
    if name.startswith('conv'):
        bias = graph.node('Unsqueeze', [bias], axes=[1, 2])
        graph.step('Conv', [weight], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    else:
        graph.step('MatMul', [graph.node('Transpose', [weight], perm=[1, 0])])
    graph.nodes.append(onnx_node('Add', [bias, graph.x], graph.x + '+'))
    graph.x += '+'
    graph.step('Identity')


def write_onnx(path, layers, beside=None, put=put_layer, **more):
    """The graph of a VGG-16 of PyTorch; with `beside` the numbers go to a file of that name."""
    graph = OnnxWriter(beside)
    ends = [names[-1] for names in BLOCKS]
    for name, parts in layers.items():
        if name == 'fc6':
            graph.step('Flatten')
        put(graph, name, parts)
        if 'gamma' in parts:
            graph.step('BatchNormalization', [graph.put(f'{name}_{kind}', parts[kind])
                                              for kind in ('gamma', 'beta', 'mean', 'var')],
                       epsilon=1e-5)
        if name != 'fc8':
            graph.step('Relu')
        if name in ends:
            graph.step('MaxPool', kernel_shape=[2, 2], strides=[2, 2])
    graph.write(path, **more)


def write_keras_onnx(path, layers, other_top=False):
    """The graph of a VGG-16 as tf2onnx exports Keras's: channels last but for the convolutions.

    With other_top the fully connected layers have batch normalisation of their own between.
    """
    graph = OnnxWriter()
    ends = [names[-1] for names in BLOCKS]
    graph.step('Transpose', perm=[0, 3, 1, 2])
    for name, _, kernel, bias in keras_layers(layers):
        if name == 'fc6':
            shape = graph.node('Gather', [graph.node('Shape', [graph.x]), 'order'])
            graph.step('Transpose', perm=[0, 2, 3, 1])
            shape = graph.node('Cast', [graph.node('Slice', [shape, 'starts', 'ends'])], to=7)
            graph.step('Reshape', [graph.node('Concat', [shape, 'rest'], axis=0)])
        if kernel.ndim == 4:
            kernel = numpy.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            graph.step('Conv', [graph.put(f'{name}/kernel:0', kernel),
                                graph.put(f'{name}/Squeeze:0', bias)],
                       dilations=[1, 1], strides=[1, 1], kernel_shape=[3, 3],
                       pads=[1, 1, 1, 1], group=1)
        else:
            graph.step('MatMul', [graph.put(f'{name}/kernel:0', numpy.ascontiguousarray(kernel))])
            graph.step('Add', [graph.put(f'{name}/bias:0', bias)])
        graph.step('Relu' if name != 'fc8' else 'Softmax')
        if other_top and name == 'fc6':
            graph.step('Mul', [graph.put('scale', bias)])
        if name in ends:
            graph.step('MaxPool', kernel_shape=[2, 2], strides=[2, 2])
    for name in ('order', 'starts', 'ends', 'rest'):
        graph.put(name, numpy.zeros(1, 'f4'))
    graph.write(path, 'tf2onnx')
