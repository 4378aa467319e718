"""Reads the arrays of an HDF5 file by following its own groups, and no way out of it."""
import contextlib
import math

import h5py
import numpy

from engine import hdf5
from engine.weights.limits import MOST_OF_TEXT

# Keras nests groups five or six deep. HDF5's own way of visiting all follows a forged circle of
# groups until the stack is full.
MOST_DEPTH = 16
PIECE = 1 << 18  # numbers
# What opening one object of a file costs, in those that a Budget counts.
COST = 100


class Hdf5Arrays:
    """The arrays of an HDF5 file, read when asked for.

    `headers`: {name: (shape, dtype)}, the names those of the groups with / between.
    """

    def __init__(self, f, budget):
        self._data, self.headers, self._attrs = {}, {}, f.attrs
        waiting = [('', f)]
        while waiting:
            path, group = waiting.pop()
            if path.count('/') > MOST_DEPTH:
                raise ValueError(f'{path} lies too deep in it')
            for name in group:
                budget.take(objects=COST)
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f'{path}{name} is a link, which may lead to another file')
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append((f'{path}{name}/', item))
                elif isinstance(item, h5py.Dataset):
                    self._data[path + name] = item
                    self.headers[path + name] = item.shape or (), item.dtype

    def __contains__(self, name):
        return name in self.headers

    def __iter__(self):
        return iter(self.headers)

    def size(self, name):
        """Bytes that reading an array takes; a piece of a packed one is unpacked as a whole.

        Raises:
            ValueError: it is none to read: its numbers lie elsewhere, or it claims too many.
        """
        data = self._data[name]
        try:
            hdf5.check_data(data)
        except ValueError as error:
            raise ValueError(f'{name} {error}') from None
        return max(data.size, math.prod(data.chunks or ())) * data.dtype.itemsize

    def __getitem__(self, name):
        self.size(name)
        return self._data[name][()]

    def pieces(self, name):
        """Yields the numbers of an array, one after another, in arrays of a few megabytes where it
        is not packed."""
        data, whole = self._data[name], self.size(name)
        if not data.ndim or data.chunks or not whole:
            yield numpy.ravel(data[()])
            return
        rows = max(1, PIECE * len(data) // data.size)
        for at in range(0, len(data), rows):
            yield data[at:at + rows].ravel()

    def text(self, name, default):
        """A text among the file's attributes."""
        if name in self._attrs and self._attrs.get_id(name).get_storage_size() > MOST_OF_TEXT:
            raise ValueError(f'its {name} is far too long')
        found = self._attrs.get(name, default)
        return found.decode(errors='replace') if isinstance(found, bytes) else found


@contextlib.contextmanager
def open_arrays(path, budget):
    """Gives the Hdf5Arrays of a file, or of one that lies in memory.

    Raises:
        UserError: another process writes it.
        limits.DAMAGE: it is cut off or damaged.
    """
    try:
        f = hdf5.open_file(path)
    except BlockingIOError:
        raise hdf5.in_use(path) from None
    with f:
        yield Hdf5Arrays(f, budget)
