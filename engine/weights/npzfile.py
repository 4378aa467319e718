"""Reads NumPy's .npz after holding what each array's header claims against its length."""
import contextlib
import math
import zipfile

import numpy

from engine.weights.limits import open_zip


class Npz:
    """The arrays of an .npz, read when asked for.

    `headers`: {name: (shape, dtype)}.
    """

    def __init__(self, archive, budget):
        self._archive, self.headers = archive, {}
        for info in archive.infolist():
            if not info.filename.endswith('.npy'):
                raise ValueError(f'{info.filename} is no array')
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f'{info.filename} is packed in a way that NumPy never uses')
            budget.take(objects=1, size=info.file_size)
            with archive.open(info) as f:
                version = numpy.lib.format.read_magic(f)
                read = (numpy.lib.format.read_array_header_1_0 if version == (1, 0)
                        else numpy.lib.format.read_array_header_2_0)
                shape, _, dtype = read(f)
                if math.prod(shape) * dtype.itemsize != info.file_size - f.tell():
                    raise ValueError(f'{info.filename} is not as long as its header says')
            self.headers[info.filename.removesuffix('.npy')] = shape, dtype

    def __contains__(self, name):
        return name in self.headers

    def __iter__(self):
        return iter(self.headers)

    def __getitem__(self, name):
        with self._archive.open(name + '.npy') as f:
            return numpy.lib.format.read_array(f, allow_pickle=False)


@contextlib.contextmanager
def open_npz(path, budget):
    """Gives the Npz of a file.

    Raises:
        limits.DAMAGE: it is cut off or damaged.
    """
    with open_zip(path) as archive:
        yield Npz(archive, budget)
