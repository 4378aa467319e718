"""Reads the tensors in PyTorch's files without PyTorch, and without running anything.

Both forms: the zip of PyTorch 1.6 and later, and the stream of pickles before it. Their pickles
are followed by torchpickle.py.
"""
import io
import math
import mmap
import zipfile

import numpy

from engine.errors import UserError
from engine.weights.dtypes import BFLOAT16, itemsize, numbers
from engine.weights.limits import MOST_DIMENSIONS, open_zip
from engine.weights.torchpickle import Tensor, follow, of

LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'

# A pickle of a network's names is some kilobytes; its numbers stand elsewhere.
MOST_OF_PICKLE = 1 << 26
PIECE = 1 << 22  # bytes
# A checkpoint has its state dict two or three dictionaries deep.
MOST_DEPTH = 8


def read_torch(path, budget):
    """Reads every tensor of a state dict, or of a checkpoint with one or more of them in it.

    Args:
        path: .pth file, zip or legacy.
        budget (Budget): of opcodes and of bytes.

    Returns:
        dict: name -> NumPy array (bfloat16 becomes float32). Before the name stand the keys of the
        dictionaries around it, model/features.0.weight; an optimizer's are left out.

    Raises:
        UserError: the file names anything but tensors.
        limits.DAMAGE: it is cut off or damaged.
    """
    if zipfile.is_zipfile(path):
        with open_zip(path) as archive:
            return _read_zip(path, archive, budget)
    with open(path, 'rb') as f:
        return _read_legacy(path, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), budget)


def _read_zip(path, archive, budget):
    infos = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in infos if name.endswith('data.pkl')]
    if len(pickles) != 1:
        raise UserError(f'{path}: a zip, but not of tensors: no data.pkl in it')
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
        raise UserError(f'{path}: its entries are compressed, which PyTorch never does; '
                        'fetch it again')
    if infos[pickles[0]].file_size > MOST_OF_PICKLE:
        raise UserError(f'{path}: {pickles[0]} is too long for the names of a network')
    folder = pickles[0].removesuffix('data.pkl')
    order = '<'
    if folder + 'byteorder' in infos:
        order = {b'little': '<', b'big': '>'}[archive.read(folder + 'byteorder')]
    # read to the end, which checks its CRC-32
    saved = follow(io.BytesIO(archive.read(pickles[0])), path, budget)
    storages = {}

    def stored(storage):
        if storage.key not in storages:
            # writable, so that a network can take it as it is
            storages[storage.key] = data = numpy.empty(size(storage), 'u1')
            with archive.open(f'{folder}data/{storage.key}') as f:
                at = 0
                while piece := f.read(PIECE):
                    data[at:at + len(piece)] = numpy.frombuffer(piece, 'u1')
                    at += len(piece)
        return storages[storage.key], 0

    def size(storage):
        return infos[f'{folder}data/{storage.key}'].file_size

    return _arrays(path, saved, stored, size, order, budget)


def _read_legacy(path, view, budget):
    """The form before PyTorch 1.6: pickles one behind another, then the numbers.

    They are a magic number, a version, facts of the machine, the dictionary, and the
    storages' keys in the order in which the numbers follow, each behind its length.
    """
    magic, version, machine = (follow(view, path, budget) for _ in range(3))
    if magic != 0x1950a86a20f9469cfc6c or version != 1001:
        raise UserError(f'{path}: a pickle, but not of a PyTorch that can be read here')
    order = '<' if of(dict, machine)['little_endian'] else '>'
    storages = []
    saved = follow(view, path, budget, storages)
    keys = follow(view, path, budget)
    found, dtypes = {}, {storage.key: storage.dtype for storage in storages}
    for key in of(list, keys):
        length = int.from_bytes(view.read(8), 'little' if order == '<' else 'big')
        found[of(str, key)] = view.tell()
        end = view.tell() + length * itemsize(dtypes[key])
        if end > len(view):
            raise ValueError(f'the numbers of storage {key} go on past the end')
        view.seek(end)
    return _arrays(path, saved, lambda storage: (view, found[storage.key]), lambda storage: 0,
                   order, budget)


def _named_tensors(saved):
    """{name: Tensor} of all tensors in a saved object but an optimizer's."""
    found, waiting, seen = {}, [('', 0, saved)], set()
    while waiting:
        start, depth, value = waiting.pop()
        if isinstance(value, Tensor):
            found[start.removesuffix('/')] = value
        elif isinstance(value, dict) and {'state', 'param_groups'} <= value.keys():
            continue
        elif depth < MOST_DEPTH and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f'{start}{key}/', depth + 1, inner) for key, inner in items
                        if isinstance(inner, (dict, list, tuple))]
    return dict(reversed(found.items()))


def _arrays(path, saved, stored, size, order, budget):
    """Turns the tensors of a state dict into arrays.

    Args:
        stored: function of a Storage, giving (bytes-like, where in it it starts).
        size: function of a Storage, giving the bytes that the former takes.
        order: '<' or '>', the byte order of the numbers.
    """
    tensors = _named_tensors(saved)
    if not tensors:
        raise UserError(f'{path}: holds no tensors; save what model.state_dict() gives')
    # Before any is read: storages may lie over one another in the file, and views in a storage.
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    budget.take(size=sum(map(size, storages.values())))
    for name, tensor in tensors.items():
        _check(name, tensor)
        if tensor.storage.dtype == BFLOAT16:
            budget.take(size=4 * math.prod(tensor.size))
    return {name: _array(tensor, stored, order) for name, tensor in tensors.items()}


def _check(name, tensor):
    """Refuses a view that is none, or reaches out of its storage."""
    storage, offset, size, stride = tensor
    counts = (offset, *size, *stride)
    if (len(size) != len(stride) or len(size) > MOST_DIMENSIONS
            or any(type(n) is not int or not 0 <= n < 1 << 63 for n in counts)):
        raise ValueError(f'{name} has no proper shape')
    # Overlapping views could ask for any amount of memory.
    if math.prod(size) > storage.numel or 0 not in size and _last(tensor) >= storage.numel:
        raise ValueError(f'{name} reaches past the end of its storage')


def _last(tensor):
    """The place in its storage of a tensor's last number."""
    return tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride))


def _array(tensor, stored, order):
    storage, offset, size, stride = tensor
    if 0 in size:
        return numpy.empty(size, 'f4')
    data, start = stored(storage)
    flat = numbers(data, storage.dtype, _last(tensor) - offset + 1,
                   start + offset * itemsize(storage.dtype), order)
    return numpy.lib.stride_tricks.as_strided(flat, size,
                                              [step * flat.itemsize for step in stride])
