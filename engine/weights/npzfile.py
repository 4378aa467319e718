"""Reads NumPy's .npz after holding what each array's header claims against its length."""
import contextlib
import math
import zipfile

import numpy

from engine.weights.limits import MOST_OF_TEXT, open_zip

PIECE = 1 << 18  # numbers
READERS = {(1, 0): numpy.lib.format.read_array_header_1_0,
           (2, 0): numpy.lib.format.read_array_header_2_0}


def read_header(f, size):
    """(shape, dtype) of the .npy that an open file of `size` bytes holds; its array comes next.

    Raises:
        ValueError: it is not as long as it says.
    """
    shape, _, dtype = READERS[numpy.lib.format.read_magic(f)](f)
    if min(shape, default=0) < 0 or not dtype.hasobject and (
            math.prod(shape) * dtype.itemsize != size - f.tell()):
        raise ValueError('is not as long as its header says')
    return shape, dtype


class Npz:
    """The arrays of an .npz, read when asked for.

    `headers`: {name: (shape, dtype)}.
    """

    def __init__(self, archive, budget):
        self._archive, self.headers = archive, {}
        for info in archive.infolist():
            if not info.filename.endswith('.npy'):
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f'{info.filename} is packed in a way that NumPy never uses')
            budget.take(objects=1)
            with archive.open(info) as f:
                try:
                    header = read_header(f, info.file_size)
                except ValueError as error:
                    raise ValueError(f'{info.filename} {error}') from None
            self.headers[info.filename.removesuffix('.npy')] = header

    def __contains__(self, name):
        return name in self.headers

    def __iter__(self):
        return iter(self.headers)

    def size(self, name):
        """Bytes of an array in memory."""
        shape, dtype = self.headers[name]
        return math.prod(shape) * dtype.itemsize

    def __getitem__(self, name):
        with self._archive.open(name + '.npy') as f:
            return numpy.lib.format.read_array(f, allow_pickle=False)

    def pieces(self, name):
        """Yields the numbers of an array, one after another, in arrays of a few megabytes."""
        with self._archive.open(name + '.npy') as f:
            shape, by_columns, dtype = READERS[numpy.lib.format.read_magic(f)](f)
            if dtype.hasobject or by_columns and len(shape) > 1:
                yield self[name].ravel()
                return
            while piece := f.read(PIECE * dtype.itemsize):
                yield numpy.frombuffer(piece, dtype)

    def text(self, name, default):
        """A text that stands among the arrays."""
        if name not in self:
            return default
        if self.size(name) > MOST_OF_TEXT:
            raise ValueError(f'its {name} is far too long')
        return str(self[name])


@contextlib.contextmanager
def open_npz(path, budget):
    """Gives the Npz of a file.

    Raises:
        limits.DAMAGE: it is cut off or damaged.
    """
    with open_zip(path) as archive:
        yield Npz(archive, budget)
