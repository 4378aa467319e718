"""Reads the layers of an ONNX graph without running it."""
import math
import mmap
import struct

import numpy

from engine.errors import UserError
from engine.weights.elements import BFLOAT16, numbers
from engine.weights.protobuf import Messages, text

DTYPES = {1: 'f4', 7: 'i8', 10: 'f2', 11: 'f8', 16: BFLOAT16}
# What lies between the layers and changes no number of the converted network.
PASSING = {'Relu', 'MaxPool', 'Dropout', 'Flatten', 'Reshape', 'Identity', 'Softmax', 'Constant',
           'Shape', 'Gather', 'Concat', 'Unsqueeze', 'Slice', 'Cast', 'AveragePool'}


def read_onnx(path, budget):
    """The layers of an ONNX graph in their order: conv.N, norm.N (behind conv.N), linear.N.

    A graph that is more than VGG-16's chain is refused: it would have to be run.
    """
    messages = Messages(budget)
    with open(path, 'rb') as f:
        view = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    model = messages.grouped(view)
    graph = messages.grouped(model[7][0])
    tensors = {}
    for data in graph.get(5, ()):
        name, array = _tensor(path, messages, data)
        tensors[name] = array
    arrays, convs, linears, last = {}, 0, 0, None
    for data in graph.get(1, ()):
        node = messages.grouped(data)
        inputs = [text(value) for value in node.get(1, ())]
        op = text(node[4][0])
        attributes = {text(a[1][0]): a for a in map(messages.grouped, node.get(5, ()))}
        weights = [tensors[name] for name in inputs[1:] if name in tensors]
        if op == 'Identity' and inputs[0] in tensors:
            # two layers with equal weights share them by this
            tensors[text(node[2][0])] = tensors[inputs[0]]
        elif op == 'Constant' and 'value' in attributes:
            tensors[text(node[2][0])] = _tensor(path, messages, attributes['value'][5][0])[1]
        elif op == 'Conv':
            _same_convolution(path, messages, attributes)
            last = f'conv.{convs}'
            convs += 1
            arrays.update(zip((f'{last}.weight', f'{last}.bias'), weights, strict=False))
        elif op == 'BatchNormalization' and last and last.startswith('conv'):
            name = last.replace('conv', 'norm')
            epsilon = struct.unpack('<f', attributes['epsilon'][2][0])[0] \
                if 'epsilon' in attributes else 1e-5
            kinds = ('weight', 'bias', 'running_mean', 'running_var')
            arrays.update(zip((f'{name}.{kind}' for kind in kinds), weights, strict=True))
            arrays[f'{name}.epsilon'] = numpy.array(epsilon)
        elif op in ('Gemm', 'MatMul'):
            last = f'linear.{linears}'
            linears += 1
            transposed = op == 'Gemm' and _integer(attributes, 'transB')
            if any(struct.unpack('<f', attributes[key][2][0])[0] != 1
                   for key in ('alpha', 'beta') if key in attributes):
                raise UserError(f'{path}: a Gemm with alpha or beta; only plain layers are read')
            arrays[f'{last}.weight'] = weights[0] if transposed else weights[0].T
            if len(weights) > 1:
                arrays[f'{last}.bias'] = weights[1]
        elif op == 'Add' and last and last.startswith('linear') and f'{last}.bias' not in arrays:
            arrays[f'{last}.bias'] = next(tensors[name] for name in inputs if name in tensors)
        elif op not in PASSING:
            raise UserError(f'{path}: its graph has {op}, which VGG-16 lacks; convert the '
                            'weights from the framework that made it')
    if not convs:
        raise UserError(f'{path}: no convolution with stored weights in its graph')
    return arrays


def _integer(attributes, name, default=0):
    return attributes[name][3][0] if name in attributes else default


def _same_convolution(path, messages, attributes):
    """Refuses a convolution that is not 3x3, stride 1, with a border of 1."""
    expected = {'kernel_shape': [3, 3], 'strides': [1, 1], 'dilations': [1, 1],
                'pads': [1, 1, 1, 1]}
    if 'auto_pad' in attributes and text(attributes['auto_pad'][4][0]).startswith('SAME'):
        del expected['pads']
    elif 'pads' not in attributes:
        raise UserError(f'{path}: a convolution without a border, which VGG-16 lacks')
    for name, ours in expected.items():
        theirs = messages.packed(attributes[name][8]) if name in attributes else ours
        if theirs != ours:
            raise UserError(f'{path}: a convolution with {name} {theirs}, expected {ours}')
    if _integer(attributes, 'group', 1) != 1:
        raise UserError(f'{path}: a convolution in groups, which VGG-16 lacks')


def _tensor(path, messages, data):
    """Returns (name, array) of a TensorProto; its numbers may lie in a file beside."""
    tensor = messages.grouped(data)
    name = text(tensor[8][0]) if 8 in tensor else ''
    shape = messages.packed(tensor.get(1, ()))
    kind = tensor[2][0]
    if kind not in DTYPES:
        return name, numpy.empty(0, 'f4')
    dtype = DTYPES[kind]
    if tensor.get(14, [0])[0] == 1:
        places = {text(e[1][0]): text(e[2][0]) for e in map(messages.grouped, tensor[13])}
        # A plain name only: the file must not reach elsewhere on this machine.
        beside = places['location']
        if beside in ('', '.', '..') or '/' in beside or '\\' in beside:
            raise UserError(f'{path}: its numbers should lie in {beside!r}; only a file in '
                            'the same folder is read')
        if (path.parent / beside).is_symlink() or not (path.parent / beside).is_file():
            raise UserError(f'{path}: its numbers lie in {beside}, which is not there; '
                            'fetch that file too, into the same folder')
        with open(path.parent / beside, 'rb') as f:
            raw = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        offset = int(places.get('offset', 0))
        if offset < 0:
            raise ValueError(f'{name} starts before its file')
        return name, numbers(raw, dtype, math.prod(shape), offset).reshape(shape)
    if 9 in tensor:
        return name, numbers(tensor[9][0], dtype).reshape(shape)
    if kind == 1 and 4 in tensor:
        raw = b''.join(bytes(value) for value in tensor[4])
        return name, numbers(raw, dtype).reshape(shape)
    return name, numpy.zeros(0, 'f4')
