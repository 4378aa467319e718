"""Follows the pickle in a PyTorch file without unpickling it.

Unpickling calls whatever the file names. Here the opcodes are followed by hand: dictionaries,
lists, tuples, numbers and text are built, the few names that a file of tensors needs have a
meaning of their own below, and any other name ends the reading. Nothing that a file names is
ever imported or called, and nothing it builds is ever hashed or compared but text and numbers.
"""
import pickletools
from typing import NamedTuple

from engine.errors import UserError
from engine.weights.dtypes import BFLOAT16

DTYPES = {'DoubleStorage': 'f8', 'FloatStorage': 'f4', 'HalfStorage': 'f2',
          'BFloat16Storage': BFLOAT16, 'LongStorage': 'i8', 'IntStorage': 'i4',
          'ShortStorage': 'i2', 'CharStorage': 'i1', 'ByteStorage': 'u1', 'BoolStorage': '?'}
TENSORS = {('collections', 'OrderedDict'), ('torch._utils', '_rebuild_tensor'),
           ('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_parameter'),
           ('torch.nn.parameter', 'Parameter')}
# What stands beside the tensors in checkpoints: figures and settings, which are not read.
BESIDE = {('numpy', 'dtype'), ('numpy', 'ndarray'), ('_codecs', 'encode'),
          ('numpy.core.multiarray', 'scalar'), ('numpy._core.multiarray', 'scalar'),
          ('numpy.core.multiarray', '_reconstruct'), ('numpy._core.multiarray', '_reconstruct'),
          ('argparse', 'Namespace'), ('torch', 'Size'), ('torch', 'device')}


class Name(NamedTuple):
    """A module's attribute that the pickle names; only its text is kept."""
    module: str
    name: str


class Storage(NamedTuple):
    dtype: str
    key: str
    numel: int


class Tensor(NamedTuple):
    """A view into a storage, as the file tells it and not yet checked."""
    storage: Storage
    offset: int
    size: tuple
    stride: tuple


class Other:
    """What was made by one of BESIDE."""


class _Mark:
    pass


def follow(stream, path, budget, storages=None):
    """Follows one pickle to its STOP; returns what it builds.

    Args:
        stream: binary file or mmap, left behind the STOP.
        path: the file, for the errors' texts.
        budget (Budget): of opcodes.
        storages: None, or a list that every Storage it names is added to.

    Raises:
        UserError: it names or does something that no file of tensors needs.
        ValueError, KeyError, IndexError, TypeError: it is damaged.
    """
    machine = _Machine(path, budget, [] if storages is None else storages)
    for opcode, argument, _ in pickletools.genops(stream):
        budget.take(objects=1)
        if opcode.name == 'STOP':
            return machine.stack.pop()
        if opcode.name not in _STEPS:
            raise UserError(f'{path}: its pickle does {opcode.name}, which no file of tensors '
                            'needs; not read')
        _STEPS[opcode.name](machine, argument)
    raise ValueError('no end')


class _Machine:
    """The stack and the memo that the opcodes work on."""

    def __init__(self, path, budget, storages):
        self.path, self.budget, self.storages = path, budget, storages
        self.stack, self.memo = [], {}

    def push(self, value):
        self.stack.append(value)

    def from_mark(self):
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _Mark:
                items = self.stack[i + 1:]
                del self.stack[i:]
                return items
        raise ValueError('no mark')

    def take(self, n):
        if len(self.stack) < n:
            raise ValueError('an empty stack')
        items = self.stack[-n:]
        del self.stack[-n:]
        return items

    def put_items(self, items):
        target = of(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            # others would need hashing, which goes as deep as the file likes
            if isinstance(key, (str, int)):
                target[key] = value

    def extend(self, items):
        of(list, self.stack[-1]).extend(items)

    def remember(self, place):
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def name(self, module, attribute):
        name = Name(of(str, module), of(str, attribute))
        if not (name.module == 'torch' and name.name in DTYPES or name in TENSORS
                or name in BESIDE):
            raise UserError(f'{self.path}: asks for {name.module}.{name.name}, which is no '
                            'tensor, and is not read; if you trust it, save its weights alone '
                            'where it came from: torch.save(model.state_dict(), "weights.pth")')
        self.push(name)

    def storage(self):
        kind, dtype, key, _, numel = (identifier := of(tuple, self.stack.pop()))[:5]
        if kind != 'storage' or not isinstance(key, (str, int)) or of(int, numel) < 0:
            raise ValueError('a storage of an unknown kind')
        if len(identifier) > 5 and identifier[5] is not None:
            raise ValueError('a storage that is a view of another')
        self.push(Storage(DTYPES[of(Name, dtype).name], str(key), numel))
        self.storages.append(self.stack[-1])

    def make(self):
        """What a call of one of the admitted names stands for."""
        name, arguments = self.take(2)
        arguments = of(tuple, arguments)
        module, called = of(Name, name)
        if called == 'OrderedDict':
            pairs = of(list, arguments[0]) if arguments else []
            self.budget.take(objects=len(pairs))
            made = {key: value for key, value in pairs if isinstance(key, str)}
        elif called in ('Parameter', '_rebuild_parameter'):
            made = of(Tensor, arguments[0])
        elif called.startswith('_rebuild_tensor'):
            storage, offset, size, stride = arguments[:4]
            made = Tensor(of(Storage, storage), of(int, offset), of(tuple, size),
                          of(tuple, stride))
        elif (module, called) in BESIDE:
            made = Other()
        else:
            raise ValueError(f'a call of {called}')
        self.push(made)


def of(kind, value):
    if not isinstance(value, kind):
        raise ValueError(f'{type(value).__name__} in place of {kind.__name__}')
    return value


_STEPS = {
    **dict.fromkeys(('PROTO', 'FRAME'), lambda machine, _: None),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE',
                     'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES',
                     'SHORT_BINBYTES'), _Machine.push),
    'NONE': lambda machine, _: machine.push(None),
    'NEWTRUE': lambda machine, _: machine.push(True),
    'NEWFALSE': lambda machine, _: machine.push(False),
    'EMPTY_DICT': lambda machine, _: machine.push({}),
    'EMPTY_LIST': lambda machine, _: machine.push([]),
    'EMPTY_TUPLE': lambda machine, _: machine.push(()),
    'MARK': lambda machine, _: machine.push(_Mark),
    'TUPLE': lambda machine, _: machine.push(tuple(machine.from_mark())),
    'TUPLE1': lambda machine, _: machine.push(tuple(machine.take(1))),
    'TUPLE2': lambda machine, _: machine.push(tuple(machine.take(2))),
    'TUPLE3': lambda machine, _: machine.push(tuple(machine.take(3))),
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _Machine.remember),
    **dict.fromkeys(('BINGET', 'LONG_BINGET'),
                    lambda machine, place: machine.push(machine.memo[place])),
    'APPEND': lambda machine, _: machine.extend(machine.take(1)),
    'APPENDS': lambda machine, _: machine.extend(machine.from_mark()),
    'SETITEM': lambda machine, _: machine.put_items(machine.take(2)),
    'SETITEMS': lambda machine, _: machine.put_items(machine.from_mark()),
    'GLOBAL': lambda machine, names: machine.name(*names.split(' ', 1)),
    'STACK_GLOBAL': lambda machine, _: machine.name(*machine.take(2)),
    'BINPERSID': lambda machine, _: machine.storage(),
    'REDUCE': lambda machine, _: machine.make(),
    'NEWOBJ': lambda machine, _: machine.make(),
    # hooks and versions that PyTorch hangs on; nothing here needs them
    'BUILD': lambda machine, _: machine.take(1),
}
