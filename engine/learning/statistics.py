"""Mean and deviation of features, inside the HDF5 file that they were taken from.

Their place is made when the file is written and only filled later, so that filling
changes no structure of a file of many gigabytes: a kill in between leaves numbers
whose digest does not fit, never a broken file.
"""
import hashlib

import h5py
import numpy

from engine.errors import UserError

GROUP = '_statistics'


def reserve(f, n_features):
    """Makes room for the statistics in a new, open HDF5 file."""
    group = f.create_group(GROUP)
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
        with h5py.File(path, 'r') as f:
            group = f[GROUP]
            if (_is_whole(group) and group['frames'][0] == frames
                    and numpy.array_equal(group['mean'], mean)
                    and numpy.array_equal(group['std'], std)):
                return
        with h5py.File(path, 'r+') as f:
            group = f[GROUP]
            group['mean'][...], group['std'][...], group['frames'][...] = mean, std, frames
            group['digest'][...] = numpy.frombuffer(_digest(group), numpy.uint8)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise UserError(f'{path}: cannot take mean and deviation ({reason}); check its rights '
                        f'and who has it open, or make it again: {made_by}') from error


def _is_whole(group):
    return group['digest'][()].tobytes() == _digest(group)


def _digest(group):
    return hashlib.sha256(b''.join(group[name][()].tobytes()
                                   for name in ('mean', 'std', 'frames'))).digest()


def read(f, made_by='python normalizeData.py'):
    """Returns (mean, std), (n_features,) float64, from an open HDF5 file.

    Raises:
        UserError: there are none, or a run that wrote them was killed.
    """
    try:
        whole = _is_whole(f[GROUP])
    except (OSError, KeyError):  # a file of another origin
        whole = False
    if not whole:
        raise UserError(f'{f.filename}: holds no mean and deviation; made by: {made_by}')
    return f[GROUP]['mean'][()], f[GROUP]['std'][()]


def clip_names(f):
    """Names of the clips in an open HDF5 file; what starts with _ is about the file."""
    return [name for name in f if not name.startswith('_')]


def write_names(f, key, names):
    """Stores a list of clip names under `key` (an attribute would hold 64 KiB at most)."""
    f.create_dataset(key, data=numpy.array([name.encode() for name in names], 'S'),
                     track_times=False)


def read_names(f, key):
    """The list that write_names stored; [] where there is none."""
    return [name.decode() for name in f[key][()]] if key in f and f[key].size else []
