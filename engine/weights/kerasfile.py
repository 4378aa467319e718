"""Reads the arrays of HDF5 files: Keras's, weights alone or a whole model, or Chainer's."""
import h5py

from engine.weights.limits import MOST_OF_ARRAY


def read_hdf5(path, budget):
    """Returns {name: array}, the names those of the groups with / between.

    Keras of version 1 to 3; the optimizer's arrays are left out.

    Raises:
        limits.DAMAGE: it is cut off or damaged.
    """
    arrays = {}

    def take(name, item):
        if not isinstance(item, h5py.Dataset) or name.startswith('optimizer'):
            return
        # Either could point at another file on this machine.
        if item.is_virtual or item.external:
            raise ValueError(f'{name} lies in another file')
        if item.dtype.kind not in 'fiu':
            return
        if item.size * item.dtype.itemsize > MOST_OF_ARRAY:
            raise ValueError(f'{name} is too large for VGG-16: {item.shape}')
        budget.take(objects=1, size=item.size * item.dtype.itemsize)
        arrays[name] = item[()]
    with h5py.File(path, 'r') as f:
        # visits no link that leads out of the file
        (f['model_weights'] if 'model_weights' in f else f).visititems(take)
    return arrays
