"""Mean and deviation of features, inside the HDF5 file that they were taken from.

Their place is made when the file is written and only filled later, so that filling
changes no structure of a file of many gigabytes: a kill in between leaves numbers
whose digest does not fit, never a broken file.
"""
import hashlib

import numpy

from engine import hdf5
from engine.errors import UserError
from engine.files import sync

KEY = 'statistics'
PARTS = ('mean', 'std', 'frames')


def reserve(f, n_features):
    """Makes room for the statistics in an hdf5.NewFile."""
    group = f.about().create_group(KEY)
    for name, shape, dtype in (('mean', (n_features,), 'f8'), ('std', (n_features,), 'f8'),
                               ('frames', (1,), 'i8'), ('digest', (32,), 'u1')):
        # written at once, so that their space on disk is there
        group.create_dataset(name, data=numpy.zeros(shape, dtype), track_times=False)


def store(path, mean, std, frames, made_by='python save_hdf5.py'):
    """Fills in mean and std (n_features,) float64 and the number of frames.

    Where they are there already, the file is not touched. `made_by`: the command that makes it,
    for the error's text.

    Raises:
        UserError: the file is read-only, in use, or has no room for them.
    """
    try:
        with hdf5.open_file(path) as f:
            values = [part.tobytes() for part in (mean, std, numpy.array([frames]))]
            if _read(f) == values:
                return
            group = hdf5.about(f, KEY)
            places = [group[name].id.get_offset() for name in (*PARTS, 'digest')]
        # Not by HDF5, which crashes where the disk takes no more.
        with open(path, 'rb+') as raw:
            for place, value in zip(places, (*values, _digest(values))):
                raw.seek(place)
                raw.write(value)
            raw.flush()
            sync(raw.fileno())
    except BlockingIOError:
        raise hdf5.in_use(path) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        raise UserError(f'{path}: cannot take mean and deviation ({reason}); check its rights '
                        f'and who has it open, or make it again: {made_by}') from error


def _digest(values):
    return hashlib.sha256(b''.join(values)).digest()


def _read(f):
    """The bytes of mean, std and frames in an open HDF5 file; None if they are not whole."""
    group = hdf5.about(f, KEY)
    if group is None:
        raise KeyError('it has no room for them')
    values = []
    for name in (*PARTS, 'digest'):
        data = hdf5.member(group, name)
        hdf5.check_data(data)
        values.append(data[()].tobytes())
    return values[:-1] if values[-1] == _digest(values[:-1]) else None


def read(f, made_by='python normalizeData.py'):
    """Returns (mean, std), (n_features,) float64, from an open HDF5 file.

    Raises:
        UserError: there are none, or a run that wrote them was killed.
    """
    try:
        values = _read(f)
    except hdf5.DAMAGE:  # a file of another origin
        values = None
    if not values:
        raise UserError(f'{f.filename}: holds no mean and deviation; made by: {made_by}')
    return tuple(numpy.frombuffer(value).copy() for value in values[:2])
