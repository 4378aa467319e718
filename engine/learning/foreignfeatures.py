"""Features that another program computed: finds the arrays, and which clip each belongs to.

An array is a .npy file or stands in an .npz or HDF5 file, which count as folders here. It belongs
to the clip whose name its own begins with; what follows is its key ('resnet' of
`v_Diving_g01_c01_resnet.npy`), with # for numbers, by which the windows of a clip are told apart.
Or to the clip that a folder above it is called after: `v_Diving_g01_c01/resnet.npy`.
"""
import contextlib
import functools
import math
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy

from engine.files import files_under, why_no_file
from engine.video.ownvideos import VIDEO, clean
from engine.weights.hdf5file import open_arrays
from engine.weights.limits import DAMAGE, Budget, reason_of
from engine.weights.npzfile import open_npz, read_header

PACKED = {'.npz': open_npz, '.h5': open_arrays, '.hdf5': open_arrays, '.hdf': open_arrays}
# What v-iashin/video_features writes beside the features of frames.
TIMES, RATE = 'timestamps_ms', 'fps'
# Parts of a file that may hold a whole data set, and bytes of one array.
MOST_OBJECTS, MOST_OF_ONE = 1 << 27, 1 << 31


class Array(NamedTuple):
    """One array of numbers: the file, its name inside (None of a .npy), and of which clip it is by
    its name, with key and numbers as above."""
    path: Path
    member: str
    shape: tuple
    dtype: numpy.dtype
    clip: str = None
    key: str = ''
    numbers: tuple = ()

    def __str__(self):
        return str(self.path) + (f': {self.member}' if self.member else '')


# ------------------------------------------------------------------------ what is there

def find_arrays(folder):
    """All arrays below a folder; nothing in it is executed, and no link in a file followed.

    Returns:
        ([Array], {path: why it cannot be read}, Counter of the endings of other files).

    Raises:
        UserError: the folder is none.
    """
    arrays, wrong, others = [], {}, Counter()
    for path in files_under(folder, lambda place, reason: wrong.update({place: reason})):
        ending = path.suffix.lower()
        if ending != '.npy' and ending not in PACKED:
            others[ending or 'without an ending'] += 1
        elif reason := why_no_file(path):
            wrong[path] = reason
        else:
            try:
                arrays += _arrays_in(path, ending)
            except DAMAGE as error:
                wrong[path] = reason_of(error)
    return arrays, wrong, others


def _budget():
    budget = Budget(MOST_OF_ONE)
    budget.objects = MOST_OBJECTS
    return budget


def _arrays_in(path, ending):
    if ending == '.npy':
        with open(path, 'rb') as f:
            return [Array(path, None, *read_header(f, os.fstat(f.fileno()).st_size))]
    held = _opened(path)
    return [Array(path, name, *held.headers[name]) for name in held]


def _opened(path):
    """What a packed file holds; it stays open, as reading its table of contents takes long."""
    status = os.stat(path)
    return _open(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _open(path, _):
    stack = contextlib.ExitStack()
    held = stack.enter_context(PACKED[path.suffix.lower()](path, _budget()))
    held.kept_open_by = stack
    return held


def read(array):
    """The numbers of an Array.

    Raises:
        ValueError: it holds none, or cannot be read.
    """
    if array.dtype.hasobject:
        raise ValueError('holds pickled objects, which are never loaded')
    if math.prod(array.shape) * array.dtype.itemsize > MOST_OF_ONE:
        raise ValueError(f'has shape {array.shape}: too large for one clip')
    try:
        if array.member is None:
            return numpy.load(array.path, allow_pickle=False)
        held = _opened(array.path)
        held.size(array.member)  # refuses what is not in the file itself
        return held[array.member]
    except DAMAGE as error:
        raise ValueError(reason_of(error)) from None


# ------------------------------------------------------------------------ of which clip

def assign(arrays, folder, names):
    """Tells of which clip each array is: ([Array] with clip, key and numbers, others).

    Args:
        names: of the clips.
    """
    names, ours, others = {clean(name): name for name in names}, [], []
    for array in arrays:
        parts = list(array.path.relative_to(folder).with_suffix('').parts)
        if array.member:
            parts += [part for part in array.member.split('/') if part]
        name, tail = _clip_of([clean(part) for part in parts], names)
        if name is None:
            others.append(array)
            continue
        number = r'(?<![^\W_])\d+(?![^\W_])'
        ours.append(array._replace(
            clip=names[name], key=re.sub(number, '#', tail),
            numbers=tuple(int(digits) for digits in re.findall(number, tail))))
    return ours, others


def _clip_of(parts, names):
    """(name of the clip that an array at this place is of, what follows it); (None, '') of none."""
    *above, last = parts
    # Clips that share a file's name are called after their folders too.
    for start in range(len(parts) - 1, -1, -1):
        whole = '_'.join(parts[start:])
        for end in [len(whole), *(m.start() for m in reversed([*re.finditer(r'[_\-. ]', whole)]))]:
            if end and whole[:end] in names:
                return whole[:end], _key(whole[end:])
    for depth in range(len(above) - 1, -1, -1):
        for name in (above[depth], os.path.splitext(above[depth])[0]):
            if name in names:
                return name, _key('_'.join(parts[depth + 1:]))
    return None, ''


def _key(tail):
    """What follows a clip's name, without the ending of its video."""
    words = re.match(r'\.([A-Za-z0-9]+)', tail)
    if words and words[1].lower() in VIDEO:
        tail = tail[words.end():]
    return tail.strip('_-. ')


def keys_of(arrays):
    """[(key, how many clips have such arrays)], most first; not those of times and rates."""
    clips = defaultdict(set)
    for array in arrays:
        if array.key not in (TIMES, RATE) and array.shape:
            clips[array.key].add(array.clip)
    return sorted(((key, len(its)) for key, its in clips.items()), key=lambda pair: -pair[1])


# ------------------------------------------------------------------------ what a clip gets

def rows_of(arrays):
    """The (n, D) float32 features that the arrays of one clip make.

    One array of (n, D), with axes of length 1 around, or of (D,); or several of (D,), a window
    each, in the order of their numbers.

    Raises:
        ValueError: they are no such arrays.
    """
    rows = [_as_rows(array) for array in arrays]
    if len(arrays) == 1:
        return rows[0]
    if len({array.numbers for array in arrays}) < len(arrays):
        raise ValueError(f'is there twice: {arrays[0]} and {arrays[1]}')
    if any(len(row) != 1 for row in rows):
        raise ValueError(f'has {len(arrays)} arrays that are no single windows, {arrays[0]} first')
    if len({row.shape[1] for row in rows}) > 1:
        raise ValueError(f'has windows of several widths, {arrays[0]} first')
    order = sorted(range(len(arrays)), key=lambda i: arrays[i].numbers)
    # The number that counts is the first in which they differ.
    place = next(i for i, values in enumerate(zip(*(a.numbers for a in arrays)))
                 if len(set(values)) > 1)
    counted = numpy.array([arrays[i].numbers[place] for i in order])
    if len(set(numpy.diff(counted)) - {0}) > 1:
        raise ValueError(f'has windows {", ".join(map(str, counted[:8]))} ...: one is missing')
    return numpy.concatenate([rows[i] for i in order])


def _as_rows(array):
    if array.dtype.kind != 'f':
        read(array)  # says what else is wrong with it
        raise ValueError(f'holds {array.dtype}, no floating-point numbers: {array}')
    shape = list(array.shape)
    while len(shape) > 2 and shape[-1] == 1:
        del shape[-1]
    while len(shape) > 2 and shape[0] == 1:
        del shape[0]
    if len(shape) == 1:
        shape = [1, *shape]
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f'has shape {array.shape}, expected (frames, D): {array}')
    values = read(array)
    if not numpy.isfinite(values).all():
        raise ValueError(f'holds a number that is not finite: {array}')
    with numpy.errstate(over='ignore'):
        rows = values.reshape(shape).astype(numpy.float32)
    if not numpy.isfinite(rows).all():
        raise ValueError(f'holds a number too large for float32: {array}')
    return rows


def rate_of(times, n):
    """Features a second, by the times in ms of a clip's n features; None of one alone.

    Raises:
        ValueError: they are not the times of these features.
    """
    values = read(times).ravel()
    if len(values) != n:
        raise ValueError(f'has {n} features, but {len(values)} times: {times}')
    if n < 2 or values.dtype.kind not in 'fiu' or not values[-1] > values[0]:
        return None
    return float(1000 * (n - 1) / (values[-1] - values[0]))
