"""Reads the tensors in PyTorch's files without PyTorch, and without running anything.

A .pth file is a pickle, and unpickling calls whatever the file names. Here the
opcodes are followed by hand: dictionaries, lists, tuples, numbers and text are built,
the few names that a file of tensors needs have a meaning of their own below, and any
other name ends the reading. Nothing that a file names is ever imported or called.

Both forms: the zip of PyTorch 1.6 and later, and the stream of pickles before it.
"""
import io
import math
import mmap
import pickletools
import zipfile
from typing import NamedTuple

import numpy

from engine.errors import UserError

LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'

DTYPES = {'DoubleStorage': 'f8', 'FloatStorage': 'f4', 'HalfStorage': 'f2',
          'BFloat16Storage': 'bfloat16', 'LongStorage': 'i8', 'IntStorage': 'i4',
          'ShortStorage': 'i2', 'CharStorage': 'i1', 'ByteStorage': 'u1', 'BoolStorage': '?'}
# Under these keys training scripts keep the weights beside other things.
WRAPPERS = ('state_dict', 'model_state_dict', 'model')
# A pickle of a network's names is some kilobytes; its numbers stand elsewhere.
MAX_PICKLE = 1 << 26


class _Name(NamedTuple):
    """A module's attribute that the pickle names; only its text is kept."""
    module: str
    name: str


class _Storage(NamedTuple):
    dtype: str
    key: str
    numel: int


class _Tensor(NamedTuple):
    """A view into a storage, as the file tells it and not yet checked."""
    storage: _Storage
    offset: int
    size: tuple
    stride: tuple


class _Mark:
    pass


def read_torch(path):
    """Reads every tensor of a state dict.

    Args:
        path: .pth file, zip or legacy; a dictionary of tensors, or one that holds such
            a dictionary under 'state_dict', 'model_state_dict' or 'model'.

    Returns:
        dict: name -> NumPy array (bfloat16 becomes float32), without the 'module.' that
        data-parallel training puts in front.

    Raises:
        UserError: the file is cut off, damaged, or names anything but tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with open(path, 'rb') as f:
            return _read_legacy(path, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    except UserError:
        raise
    # What a file that was changed or cut off at any place can make of the reading.
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError,
            OverflowError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(f'{path}: damaged or cut off ({reason}); fetch it again') from None


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in infos if name.endswith('data.pkl')]
        if len(pickles) != 1:
            raise UserError(f'{path}: a zip, but not of tensors: no data.pkl in it')
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
            raise UserError(f'{path}: its entries are compressed, which PyTorch never does; '
                            'fetch it again')
        if infos[pickles[0]].file_size > MAX_PICKLE:
            raise UserError(f'{path}: {pickles[0]} is too long for the names of a network')
        folder = pickles[0].removesuffix('data.pkl')
        order = '<'
        if folder + 'byteorder' in infos:
            order = {b'little': '<', b'big': '>'}[archive.read(folder + 'byteorder')]
        # read to the end, which checks its CRC-32
        saved = _follow(io.BytesIO(archive.read(pickles[0])), path)
        storages = {}

        def numbers(storage):
            if storage.key not in storages:
                storages[storage.key] = archive.read(f'{folder}data/{storage.key}')
            return storages[storage.key], 0

        return _arrays(path, saved, numbers, order)


def _read_legacy(path, view):
    """The form before PyTorch 1.6: pickles one behind another, then the numbers.

    They are a magic number, a version, facts of the machine, the dictionary, and the
    storages' keys in the order in which the numbers follow, each behind its length.
    """
    magic, version, machine = (_follow(view, path) for _ in range(3))
    if magic != 0x1950a86a20f9469cfc6c or version != 1001:
        raise UserError(f'{path}: a pickle, but not of a PyTorch that can be read here')
    order = '<' if machine['little_endian'] else '>'
    saved = _follow(view, path)
    keys = _follow(view, path)
    found, tensors = {}, []
    _collect(saved, tensors)
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors}
    for key in keys:
        length = int.from_bytes(view.read(8), 'little' if order == '<' else 'big')
        found[key] = view.tell()
        end = view.tell() + length * _itemsize(dtypes[key])
        if end > len(view):
            raise ValueError(f'the numbers of storage {key} go on past the end')
        view.seek(end)
    return _arrays(path, saved, lambda storage: (view, found[storage.key]), order)


def _follow(stream, path):
    """Follows one pickle from `stream` to its STOP; returns what it builds."""
    stack, memo = [], {}

    def from_mark():
        for i in range(len(stack) - 1, -1, -1):
            if stack[i] is _Mark:
                items = stack[i + 1:]
                del stack[i:]
                return items
        raise ValueError('no mark')

    def put_items(target, items):
        for key, value in zip(items[::2], items[1::2], strict=True):
            # other keys would need hashing, which goes as deep as the file likes
            if not isinstance(key, (str, int)):
                raise ValueError('a dictionary with keys that are no text')
            target[key] = value

    for opcode, argument, _ in pickletools.genops(stream):
        op = opcode.name
        if op in ('PROTO', 'FRAME'):
            pass
        elif op == 'STOP':
            return stack.pop()
        elif op == 'MARK':
            stack.append(_Mark)
        elif op in ('NONE', 'NEWTRUE', 'NEWFALSE'):
            stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}[op])
        elif op in ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE',
                    'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING'):
            stack.append(argument)
        elif op in ('EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE'):
            stack.append({'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}[op]())
        elif op == 'TUPLE':
            stack.append(tuple(from_mark()))
        elif op in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            n = int(op[-1])
            stack[-n:] = [tuple(stack[-n:])]
        elif op in ('BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
            memo[len(memo) if op == 'MEMOIZE' else argument] = stack[-1]
        elif op in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif op == 'APPEND':
            value = stack.pop()
            _of(list, stack[-1]).append(value)
        elif op == 'APPENDS':
            items = from_mark()
            _of(list, stack[-1]).extend(items)
        elif op == 'SETITEM':
            items = stack[-2:]
            del stack[-2:]
            put_items(_of(dict, stack[-1]), items)
        elif op == 'SETITEMS':
            items = from_mark()
            put_items(_of(dict, stack[-1]), items)
        elif op == 'GLOBAL':
            stack.append(_admitted(_Name(*argument.split(' ', 1)), path))
        elif op == 'STACK_GLOBAL':
            name = _of(str, stack.pop())
            stack.append(_admitted(_Name(_of(str, stack.pop()), name), path))
        elif op == 'BINPERSID':
            stack.append(_storage(stack.pop()))
        elif op in ('REDUCE', 'NEWOBJ'):
            arguments = _of(tuple, stack.pop())
            stack.append(_made(_of(_Name, stack.pop()), arguments))
        elif op == 'BUILD':
            stack.pop()  # hooks and versions that PyTorch hangs on; nothing here needs them
        else:
            raise UserError(f'{path}: its pickle does {op}, which no file of tensors needs; '
                            'not read')
    raise ValueError('no end')


def _of(kind, value):
    if not isinstance(value, kind):
        raise ValueError(f'{type(value).__name__} in place of {kind.__name__}')
    return value


def _admitted(name, path):
    module, attribute = name
    if module == 'torch' and attribute in DTYPES or name in (
            ('collections', 'OrderedDict'), ('torch._utils', '_rebuild_tensor'),
            ('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_parameter'),
            ('torch.nn.parameter', 'Parameter')):
        return name
    raise UserError(f'{path}: asks for {module}.{attribute}, which is no tensor, and is not '
                    'read; if you trust it, save its weights alone where it came from: '
                    'torch.save(model.state_dict(), "weights.pth")')


def _storage(identifier):
    kind, dtype, key, _, numel = identifier[:5]
    if kind != 'storage' or not isinstance(key, (str, int)) or _of(int, numel) < 0:
        raise ValueError('a storage of an unknown kind')
    if len(identifier) > 5 and identifier[5] is not None:
        raise ValueError('a storage that is a view of another')
    return _Storage(DTYPES[_of(_Name, dtype).name], str(key), numel)


def _made(name, arguments):
    """What a call of one of the admitted names stands for."""
    if name.name == 'OrderedDict':
        return {key: value for key, value in (arguments[0] if arguments else ())
                if isinstance(key, str)}
    if name.name in ('Parameter', '_rebuild_parameter'):
        return _of(_Tensor, arguments[0])
    if name.name.startswith('_rebuild_tensor'):
        storage, offset, size, stride = arguments[:4]
        return _Tensor(_of(_Storage, storage), _of(int, offset), _of(tuple, size),
                       _of(tuple, stride))
    raise ValueError(f'a call of {name.name}')


def _collect(value, tensors):
    """Appends every tensor in a saved object, to any depth of dictionaries and lists."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Tensor):
            tensors.append(value)
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _itemsize(dtype):
    return 2 if dtype == 'bfloat16' else numpy.dtype(dtype).itemsize


def _arrays(path, saved, numbers, order):
    """Turns the tensors of a state dict into arrays.

    Args:
        numbers: function of a _Storage, giving (bytes-like, where in it it starts).
        order: '<' or '>', the byte order of the numbers.
    """
    for key in WRAPPERS:
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    if not isinstance(saved, dict):
        raise UserError(f'{path}: holds a {type(saved).__name__}, not the dictionary of '
                        'tensors that model.state_dict() gives')
    arrays = {}
    for name, tensor in saved.items():
        if isinstance(tensor, _Tensor):
            arrays[str(name).removeprefix('module.')] = _array(name, tensor, numbers, order)
    return arrays


def _array(name, tensor, numbers, order):
    storage, offset, size, stride = tensor
    counts = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError(f'{name} has no proper shape')
    elements = math.prod(size)
    if not elements:
        return numpy.empty(size, 'f4')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    # Overlapping views could ask for any amount of memory.
    if last >= storage.numel or elements > storage.numel:
        raise ValueError(f'{name} reaches past the end of its storage')
    data, start = numbers(storage)
    dtype = numpy.dtype('u2' if storage.dtype == 'bfloat16' else storage.dtype)
    flat = numpy.frombuffer(data, dtype.newbyteorder(order), storage.numel, start)
    array = numpy.lib.stride_tricks.as_strided(
        flat[offset:], size, [step * dtype.itemsize for step in stride])
    if storage.dtype == 'bfloat16':
        # the upper half of a float32
        return (array.astype('u4') << 16).view('f4')
    return array
