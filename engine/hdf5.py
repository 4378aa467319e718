"""HDF5 files, opened to be read."""
import h5py

from engine.errors import UserError


def open_hdf5(path, made_by):
    """Opens an HDF5 file to read; says which command makes it where it is missing."""
    try:
        return h5py.File(path, 'r')
    except FileNotFoundError:
        raise UserError(f'{path}: not there; made by: {made_by}') from None
    except OSError as error:
        raise UserError(f'{path}: not a readable HDF5 file ({" ".join(str(error).split())}); '
                        f'make it again: {made_by}') from None
