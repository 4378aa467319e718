"""Reads the arrays of a network from the files that other frameworks write.

    form, arrays = read_weights('vgg16-397923af.pth')

Nothing in a file is ever run. Every length and offset in it is checked against the
file before it is believed. What the names mean is the business of convertWeights.py.
"""
import json
import math
import mmap
import os
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy

from engine.errors import UserError
from engine.weights.torchfile import LEGACY_START, read_torch

FORMS = ('PyTorch .pth', '.safetensors', 'Keras .h5', 'Caffe .caffemodel', 'ONNX .onnx',
         'NumPy .npz')
# No array of VGG-16 comes near (fc6: 411 MB); a compressed file could ask for any size.
MAX_ARRAY = 1 << 30

SAFETENSORS_DTYPES = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': 'bfloat16',
                      'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': 'i1', 'U8': 'u1',
                      'BOOL': '?'}
ONNX_DTYPES = {1: '<f4', 7: '<i8', 10: '<f2', 11: '<f8', 16: 'bfloat16'}
# What lies between the layers and changes no number of the converted network.
ONNX_PASSING = {'Relu', 'MaxPool', 'Dropout', 'Flatten', 'Reshape', 'Identity', 'Softmax',
                'Constant', 'Shape', 'Gather', 'Concat', 'Unsqueeze', 'Slice', 'Cast',
                'AveragePool'}


def read_weights(path):
    """Reads a file of weights in any of FORMS, told by its content.

    Returns:
        (form, arrays): arrays is {name: NumPy array} and form says how they lie:
        'torch'   (out, in, h, w) and (out, in); names as in the state dict. ONNX too:
                  conv.0.weight, linear.0.bias ... by their place in the graph.
        'chainer' the same, names conv1_1/W and conv1_1/b. Caffe too.
        'keras'   (h, w, in, out) and (in, out).

    Raises:
        UserError: one line that names the file and says what is wrong with it.
    """
    path = Path(path)
    try:
        with open(path, 'rb') as f:
            start = f.read(1024)
        size = os.path.getsize(path)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}; see --download') from None
    reader = _reader(path, start, size)
    try:
        form, arrays = reader(path)
        if not all(len(name) < 300 and name.isprintable() for name in arrays):
            raise ValueError('an array has no proper name')
        return form, arrays
    except UserError as error:
        # it may quote the file, and what the file says goes to a terminal
        raise UserError(''.join(c if c.isprintable() else '?' for c in str(error)[:600])) from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError,
            RuntimeError, struct.error, zlib.error, zipfile.BadZipFile) as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(f'{path}: damaged or cut off ({reason}); fetch it again') from None


def _reader(path, start, size):
    if start.startswith(b'PK'):
        return _read_zip
    if start.startswith(LEGACY_START):
        return _read_torch
    if start.startswith(b'\x89HDF\r\n\x1a\n'):
        return _read_hdf5
    length = int.from_bytes(start[:8], 'little')
    if start[8:9] == b'{' and len(start) > 8:
        return _read_safetensors
    if path.suffix == '.safetensors':
        raise UserError(f'{path}: not safetensors: its header should be {length} bytes of '
                        'JSON; fetch it again')
    if start[:1] == b'<' or start.startswith(b'version https://git-lfs'):
        what = 'a web page' if start[:1] == b'<' else 'a Git LFS pointer'
        raise UserError(f'{path}: {what} in place of the weights; fetch the file itself')
    if not size:
        raise UserError(f'{path}: empty; fetch it again')
    # These two say nothing of themselves at their start.
    if path.suffix == '.caffemodel':
        return _read_caffe
    if path.suffix == '.onnx':
        return _read_onnx
    raise UserError(f'{path}: none of {", ".join(FORMS)}, or its first bytes are damaged')


def _read_torch(path):
    return 'torch', read_torch(path)


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if not any(info.filename.endswith('.npy') for info in infos):
        return _read_torch(path)
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f'{info.filename} is packed in a way that NumPy never uses')
        if info.file_size > MAX_ARRAY:
            raise ValueError(f'{info.filename} is too large for VGG-16')
    with numpy.load(path, allow_pickle=False) as f:
        arrays = {name: f[name] for name in f if name != 'card'}
    return _chainer_or_keras(arrays), arrays


def _chainer_or_keras(arrays):
    return 'chainer' if any(name.endswith('/W') for name in arrays) else 'keras'


# -------------------------------------------------------------------- safetensors

def _read_safetensors(path):
    """Eight bytes of length, a header in JSON, then the numbers without a gap."""
    with open(path, 'rb') as f:
        view = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(view[:8], 'little')
    if length > min(len(view) - 8, 100_000_000):
        raise ValueError(f'a header of {length} bytes in a file of {len(view)}')
    header = json.loads(view[8:8 + length].decode(), object_pairs_hook=_without_twins)
    header.pop('__metadata__', None)
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
        first, last = entry['data_offsets']
        dtype, shape = SAFETENSORS_DTYPES[entry['dtype']], entry['shape']
        if any(type(n) is not int or n < 0 for n in (first, last, *shape)):
            raise ValueError(f'{name} has no proper shape')
        if first != end or last - first != math.prod(shape) * _itemsize(dtype):
            raise ValueError(f'{name} does not lie where its shape says')
        end = last
        if 8 + length + last > len(view):
            raise ValueError(f'{name} goes on past the end')
        arrays[name.removeprefix('module.')] = _numbers(view, dtype, math.prod(shape),
                                                        8 + length + first).reshape(shape)
    if 8 + length + end != len(view):
        raise ValueError(f'{len(view) - 8 - length - end} bytes too many')
    return 'torch', arrays


def _without_twins(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError('a name stands twice in the header')
    return values


def _itemsize(dtype):
    return 2 if dtype == 'bfloat16' else numpy.dtype(dtype).itemsize


def _numbers(data, dtype, count=-1, offset=0):
    """(count,) array over bytes; bfloat16, which NumPy lacks, becomes float32."""
    if dtype == 'bfloat16':
        return (numpy.frombuffer(data, '<u2', count, offset).astype('u4') << 16).view('f4')
    return numpy.frombuffer(data, dtype, count, offset)


# -------------------------------------------------------------------------- HDF5

def _read_hdf5(path):
    """Keras: weights alone or a whole model, version 1 to 3; or Chainer's own HDF5."""
    arrays = {}

    def take(name, item):
        if not isinstance(item, h5py.Dataset) or name.startswith('optimizer'):
            return
        # Either could point at another file on this machine.
        if item.is_virtual or item.external:
            raise ValueError(f'{name} lies in another file')
        if item.dtype.kind not in 'fiu':
            return
        if item.size * item.dtype.itemsize > MAX_ARRAY:
            raise ValueError(f'{name} is too large for VGG-16: {item.shape}')
        arrays[name] = item[()]
    with h5py.File(path, 'r') as f:
        # visits no link that leads out of the file
        (f['model_weights'] if 'model_weights' in f else f).visititems(take)
    return _chainer_or_keras(arrays), arrays


# ---------------------------------------------------------------- protocol buffers

def _fields(data):
    """Gives (number, value) of every field of a protocol buffers message.

    Args:
        data: memoryview. A value is an int, or a memoryview for what has a length.
    """
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError('a number of more than 64 bits')

    at = 0
    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        length = {1: lambda: 8, 2: varint, 5: lambda: 4}.get(kind, lambda: -1)()
        if length < 0 or at + length > len(data):
            raise ValueError('a field goes on past the end')
        yield number, data[at:at + length]
        at += length


def _grouped(data):
    """{field number: [values]} of a message."""
    fields = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _text(value):
    return bytes(value).decode()


def _packed(values):
    """A repeated integer field, packed or not, as a list of int."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
        else:  # a run of varints reads like fields without their tags
            number = shift = 0
            for byte in value:
                number |= (byte & 127) << shift
                shift = shift + 7 if byte > 127 else 0
                if not shift:
                    numbers.append(number)
                    number = 0
    return numbers


def _read_caffe(path):
    """The blobs of a Caffe NetParameter, with layers of the first form or the second."""
    with open(path, 'rb') as f:
        net = _grouped(memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))
    arrays = {}
    # numbers of the fields `layers` and `layer`, and of `name` and `blobs` in them
    for of_net, of_name, of_blobs in ((2, 4, 6), (100, 1, 7)):
        for layer in map(_grouped, net.get(of_net, ())):
            name, blobs = _text(layer[of_name][0]), layer.get(of_blobs, ())
            if len(blobs) > 2:
                raise UserError(f'{path}: layer {name} has {len(blobs)} blobs; only '
                                'convolutions and inner products can be read')
            for kind, blob in zip(('W', 'b'), map(_grouped, blobs)):
                arrays[f'{name}/{kind}'] = _caffe_blob(kind, blob)
    if not arrays:
        raise ValueError('no layer with weights')
    return 'chainer', arrays


def _caffe_blob(kind, blob):
    if 7 in blob:
        shape = _packed(_grouped(blob[7][0]).get(1, ()))
    else:  # num, channels, height, width, each 0 where it is not written
        shape = [blob.get(field, [0])[0] for field in (1, 2, 3, 4)]
    field, dtype = (5, '<f4') if 5 in blob else (8, '<f8')
    values = blob[field][0] if len(blob[field]) == 1 else b''.join(blob[field])
    values = _numbers(values, dtype)
    if kind == 'b':
        return values
    # Caffe of 2014 gives a matrix four sides, the first two of length 1.
    return values.reshape(shape[2:] if shape[:2] == [1, 1] else shape)


def _read_onnx(path):
    """The layers of an ONNX graph in their order: conv.N, norm.N (behind conv.N), linear.N.

    A graph that is more than VGG-16's chain is refused: it would have to be run.
    """
    with open(path, 'rb') as f:
        view = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    model = _grouped(view)
    graph = _grouped(model[7][0])
    tensors = {}
    for data in graph.get(5, ()):
        name, array = _onnx_tensor(path, data)
        tensors[name] = array
    arrays, convs, linears, last = {}, 0, 0, None
    for data in graph.get(1, ()):
        node = _grouped(data)
        inputs = [_text(value) for value in node.get(1, ())]
        op = _text(node[4][0])
        attributes = {_text(a[1][0]): a for a in map(_grouped, node.get(5, ()))}
        weights = [tensors[name] for name in inputs[1:] if name in tensors]
        if op == 'Identity' and inputs[0] in tensors:
            # two layers with equal weights share them by this
            tensors[_text(node[2][0])] = tensors[inputs[0]]
        elif op == 'Constant' and 'value' in attributes:
            tensors[_text(node[2][0])] = _onnx_tensor(path, attributes['value'][5][0])[1]
        elif op == 'Conv':
            _same_convolution(path, attributes)
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
        elif op not in ONNX_PASSING:
            raise UserError(f'{path}: its graph has {op}, which VGG-16 lacks; convert the '
                            'weights from the framework that made it')
    if not convs:
        raise UserError(f'{path}: no convolution with stored weights in its graph')
    return 'torch', arrays


def _integer(attributes, name, default=0):
    return attributes[name][3][0] if name in attributes else default


def _same_convolution(path, attributes):
    """Refuses a convolution that is not 3x3, stride 1, with a border of 1."""
    expected = {'kernel_shape': [3, 3], 'strides': [1, 1], 'dilations': [1, 1],
                'pads': [1, 1, 1, 1]}
    if 'auto_pad' in attributes and _text(attributes['auto_pad'][4][0]).startswith('SAME'):
        del expected['pads']
    elif 'pads' not in attributes:
        raise UserError(f'{path}: a convolution without a border, which VGG-16 lacks')
    for name, ours in expected.items():
        theirs = _packed(attributes[name][8]) if name in attributes else ours
        if theirs != ours:
            raise UserError(f'{path}: a convolution with {name} {theirs}, expected {ours}')
    if _integer(attributes, 'group', 1) != 1:
        raise UserError(f'{path}: a convolution in groups, which VGG-16 lacks')


def _onnx_tensor(path, data):
    """Returns (name, array) of a TensorProto; its numbers may lie in a file beside."""
    tensor = _grouped(data)
    name = _text(tensor[8][0]) if 8 in tensor else ''
    shape = _packed(tensor.get(1, ()))
    kind = tensor[2][0]
    if kind not in ONNX_DTYPES:
        return name, numpy.empty(0, 'f4')
    dtype = ONNX_DTYPES[kind]
    if tensor.get(14, [0])[0] == 1:
        places = {_text(e[1][0]): _text(e[2][0]) for e in map(_grouped, tensor[13])}
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
        return name, _numbers(raw, dtype, math.prod(shape), offset).reshape(shape)
    if 9 in tensor:
        return name, _numbers(tensor[9][0], dtype).reshape(shape)
    if kind == 1 and 4 in tensor:
        raw = b''.join(bytes(value) for value in tensor[4])
        return name, _numbers(raw, dtype).reshape(shape)
    return name, numpy.zeros(0, 'f4')
