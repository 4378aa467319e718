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
from engine.weights.elements import itemsize, numbers
from engine.weights.limits import MOST_DIMENSIONS, open_zip
from engine.weights.torchpickle import Tensor, follow, of

LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'

# Under these keys training scripts keep the weights beside other things.
WRAPPERS = ('state_dict', 'model_state_dict', 'model')
# A pickle of a network's names is some kilobytes; its numbers stand elsewhere.
MOST_OF_PICKLE = 1 << 26


def read_torch(path, budget):
    """Reads every tensor of a state dict.

    Args:
        path: .pth file, zip or legacy; a dictionary of tensors, or one that holds such
            a dictionary under 'state_dict', 'model_state_dict' or 'model'.
        budget (Budget): of opcodes and of bytes.

    Returns:
        dict: name -> NumPy array (bfloat16 becomes float32), without the 'module.' that
        data-parallel training puts in front.

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
            name = f'{folder}data/{storage.key}'
            # entries may lie over one another in the file
            budget.take(size=infos[name].file_size)
            storages[storage.key] = archive.read(name)
        return storages[storage.key], 0

    return _arrays(path, saved, stored, order, budget)


def _read_legacy(path, view, budget):
    """The form before PyTorch 1.6: pickles one behind another, then the numbers.

    They are a magic number, a version, facts of the machine, the dictionary, and the
    storages' keys in the order in which the numbers follow, each behind its length.
    """
    magic, version, machine = (follow(view, path, budget) for _ in range(3))
    if magic != 0x1950a86a20f9469cfc6c or version != 1001:
        raise UserError(f'{path}: a pickle, but not of a PyTorch that can be read here')
    order = '<' if of(dict, machine)['little_endian'] else '>'
    saved = follow(view, path, budget)
    keys = follow(view, path, budget)
    found, tensors = {}, []
    _collect(saved, tensors)
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors}
    for key in of(list, keys):
        length = int.from_bytes(view.read(8), 'little' if order == '<' else 'big')
        found[of(str, key)] = view.tell()
        end = view.tell() + length * itemsize(dtypes[key])
        if end > len(view):
            raise ValueError(f'the numbers of storage {key} go on past the end')
        view.seek(end)
    return _arrays(path, saved, lambda storage: (view, found[storage.key]), order, budget)


def _collect(value, tensors):
    """Appends every tensor in a saved object, to any depth of dictionaries and lists."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _arrays(path, saved, stored, order, budget):
    """Turns the tensors of a state dict into arrays.

    Args:
        stored: function of a Storage, giving (bytes-like, where in it it starts).
        order: '<' or '>', the byte order of the numbers.
    """
    for key in WRAPPERS:
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    if not isinstance(saved, dict):
        raise UserError(f'{path}: holds a {type(saved).__name__}, not the dictionary of '
                        'tensors that model.state_dict() gives')
    return {str(name).removeprefix('module.'): _array(name, tensor, stored, order, budget)
            for name, tensor in saved.items() if isinstance(tensor, Tensor)}


def _array(name, tensor, stored, order, budget):
    storage, offset, size, stride = tensor
    counts = (offset, *size, *stride)
    if (len(size) != len(stride) or len(size) > MOST_DIMENSIONS
            or any(type(n) is not int or not 0 <= n < 1 << 63 for n in counts)):
        raise ValueError(f'{name} has no proper shape')
    elements = math.prod(size)
    if not elements:
        return numpy.empty(size, 'f4')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    # Overlapping views could ask for any amount of memory.
    if last >= storage.numel or elements > storage.numel:
        raise ValueError(f'{name} reaches past the end of its storage')
    budget.take(size=elements * 4)
    data, start = stored(storage)
    first = start + offset * itemsize(storage.dtype)
    flat = numbers(data, storage.dtype, last - offset + 1, first, order)
    return numpy.lib.stride_tricks.as_strided(flat, size,
                                              [step * flat.itemsize for step in stride])
