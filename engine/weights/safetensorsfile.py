"""Reads .safetensors: eight bytes of length, a header in JSON, then the numbers without a gap."""
import json
import math
import os

import numpy

from engine.weights.dtypes import BFLOAT16, itemsize, numbers
from engine.weights.limits import MOST_DIMENSIONS

DTYPES = {'F64': 'f8', 'F32': 'f4', 'F16': 'f2', 'BF16': BFLOAT16, 'I64': 'i8', 'I32': 'i4',
          'I16': 'i2', 'I8': 'i1', 'U8': 'u1', 'BOOL': '?'}
# About 100 bytes an array.
MOST_OF_HEADER = 1 << 22


def read_safetensors(path, budget):
    """Returns {name: array}.

    Raises:
        limits.DAMAGE: it is cut off or damaged.
    """
    with open(path, 'rb') as f:
        return _arrays(f, os.fstat(f.fileno()).st_size, budget)


def _arrays(f, size, budget):
    length = int.from_bytes(f.read(8), 'little')
    if length > min(size - 8, MOST_OF_HEADER):
        raise ValueError(f'a header of {length} bytes in a file of {size}')
    header = json.loads(f.read(length).decode(), object_pairs_hook=_without_twins)
    header.pop('__metadata__', None)
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets'][0]):
        first, last = entry['data_offsets']
        dtype, shape = DTYPES[entry['dtype']], entry['shape']
        if (any(type(n) is not int or not 0 <= n < 1 << 63 for n in (first, last, *shape))
                or len(shape) > MOST_DIMENSIONS):
            raise ValueError(f'{name} has no proper shape')
        if first != end or last - first != math.prod(shape) * itemsize(dtype):
            raise ValueError(f'{name} does not lie where its shape says')
        end = last
        if 8 + length + last > size:
            raise ValueError(f'{name} goes on past the end')
        budget.take(objects=1, size=math.prod(shape) * 4)
        data = numpy.fromfile(f, 'u1', last - first)
        arrays[name] = numbers(data, dtype, math.prod(shape)).reshape(shape)
    if 8 + length + end != size:
        raise ValueError(f'{size - 8 - length - end} bytes too many')
    return arrays


def _without_twins(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError('a name stands twice in the header')
    return values
