"""Reads the arrays of Keras's files: HDF5, weights alone or a whole model, and .keras archives.

Chainer's own HDF5 is read by the same.
"""
import io
import json

from engine.weights.card import notes_of
from engine.weights.hdf5file import open_arrays
from engine.weights.limits import MOST_OF_TEXT, open_zip

WHOLE_MODEL, OPTIMIZER = 'model_weights/', 'optimizer'
# In a .keras archive, beside config.json.
ARCHIVED, CONFIG = 'model.weights.h5', 'config.json'
# Kinds of layers that do not change what is put in before the first convolution sees it.
HARMLESS = {'Functional', 'Model', 'Sequential', 'InputLayer', 'Conv2D', 'MaxPooling2D', 'ReLU',
            'Flatten', 'Dense', 'Dropout', 'Activation', 'Softmax', 'GlobalAveragePooling2D',
            'GlobalMaxPooling2D', 'BatchNormalization', 'AveragePooling2D', 'Reshape',
            'ZeroPadding2D', 'GaussianNoise', 'SpatialDropout2D'}


def read_hdf5(path, budget):
    """Returns (arrays, notes): {name: array}, the names those of the groups with / between.

    Keras of version 1 to 3; the optimizer's arrays are left out. Notes: those of _notes, and of
    Chainer's 'card', where it has one.

    Args:
        path: the file, or it as a file object.

    Raises:
        UserError: another process writes it.
        limits.DAMAGE: it is cut off or damaged.
    """
    with open_arrays(path, budget) as source:
        names = [name for name, (_, dtype) in source.headers.items() if dtype.kind in 'fiu']
        if any(name.startswith(WHOLE_MODEL) for name in names):
            names = [name for name in names if name.startswith(WHOLE_MODEL)]
        names = [name for name in names if not name.startswith(OPTIMIZER)]
        budget.take(size=sum(map(source.size, names)))
        return ({name.removeprefix(WHOLE_MODEL): source[name] for name in names},
                {**_notes(source.text('model_config', 'null')), **notes_of(source)})


def read_keras_archive(path, budget):
    """The same of a .keras archive, which has its weights as HDF5 in a zip."""
    with open_zip(path) as archive:
        size = archive.getinfo(ARCHIVED).file_size
        budget.take(size=size)
        config = 'null'
        if CONFIG in archive.namelist():
            fits = archive.getinfo(CONFIG).file_size < MOST_OF_TEXT
            config = archive.read(CONFIG) if fits else ''
        arrays, _ = read_hdf5(io.BytesIO(archive.read(ARCHIVED)), budget)
    return arrays, _notes(config)


def _notes(config):
    """What a model's description tells: {'other_layers': [...]}, kinds that may change the input.

    Of one that is not JSON {'unread_layers': True}: the weights are as good, but unlike where
    there is none it may have told of such layers.
    """
    try:
        kinds, waiting = set(), [json.loads(config)]
    except (TypeError, ValueError, RecursionError):
        return {'unread_layers': True}
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            layers = value.get('layers')
            for layer in layers if isinstance(layers, list) else ():
                kinds.add(str(layer.get('class_name')) if isinstance(layer, dict) else 'None')
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return {'other_layers': sorted(kinds - HARMLESS)}
