"""Model files: a network's weights and its card (what it is and how it was made).

A model file is Chainer's own npz (or HDF5) with one more entry, `card`: a JSON
text. chainer.serializers.load_npz reads the weights as from any other file.
"""
import json
import zipfile

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import h5py
import numpy

from engine.errors import UserError
from engine.files import replacing

CARD = 'card'


def save_model(path, chain, card, form=None):
    """Saves the weights of `chain` with its card.

    Args:
        path: file to write; it appears whole or not at all.
        chain: chainer.Link.
        card (dict): JSON values: classes, preprocessing, settings, versions ...
        form: 'npz' or 'hdf5'; default by the name (.h5, .hdf5), else npz.
    """
    if form is None:
        form = 'hdf5' if str(path).endswith(('.h5', '.hdf5')) else 'npz'
    text = json.dumps(card, sort_keys=True)
    if form == 'hdf5':
        with replacing(path) as temporary, h5py.File(temporary, 'w') as f:
            serializer = chainer.serializers.HDF5Serializer(f, compression=None)
            serializer.save(chain)
            f.attrs[CARD] = text
        return
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(chain)
    with replacing(path) as temporary, open(temporary, 'wb') as f:
        numpy.savez(f, **serializer.target, **{CARD: numpy.array(text)})


def _kind(path, made_by):
    try:
        with open(path, 'rb') as f:
            start = f.read(8)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}; made by: {made_by}') from None
    if start.startswith(b'\x89HDF'):
        return 'hdf5'
    if start.startswith(b'PK'):
        return 'npz'
    raise UserError(f'{path}: neither Chainer npz nor HDF5; make it again: {made_by}')


def read_card(path, made_by='the stage that writes it'):
    """Returns the card (dict) of a model file; {} where there is none.

    Args:
        made_by: the command that makes the file, for the error's text.
    """
    kind = _kind(path, made_by)
    try:
        if kind == 'hdf5':
            with h5py.File(path, 'r') as f:
                text = f.attrs.get(CARD, '{}')
        else:
            with numpy.load(path, allow_pickle=False) as f:
                text = str(f[CARD]) if CARD in f else '{}'
        return json.loads(text)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f'{path}: damaged model file ({error}); make it again: '
                        f'{made_by}') from error


def load_weights(path, chain, skip=(), made_by='the stage that writes it'):
    """Loads the weights in place, after checking that each is there and has its shape.

    Args:
        skip: names of child links to leave as they are (layers new in `chain`).

    Raises:
        UserError: naming every layer that is missing or differs in shape.
    """
    kind = _kind(path, made_by)
    try:
        with (h5py.File(path, 'r') if kind == 'hdf5'
              else numpy.load(path, allow_pickle=False)) as source:
            problems = _differences(source, chain, skip)
            if not problems:
                reader = (chainer.serializers.HDF5Deserializer(source, strict=False)
                          if kind == 'hdf5' else
                          chainer.serializers.NpzDeserializer(source, strict=False))
                for child in chain.children():
                    if child.name not in skip:
                        child.serialize(reader[child.name])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f'{path}: damaged model file ({error}); make it again: '
                        f'{made_by}') from error
    if problems:
        raise UserError(f'{path}: does not fit the network: ' + '; '.join(problems[:5])
                        + (f' and {len(problems) - 5} more' if len(problems) > 5 else '')
                        + f'; made by: {made_by}')


def _differences(source, chain, skip):
    """Lists what `chain` holds and `source` (npz or HDF5 file) lacks or has otherwise."""
    expected = chainer.serializers.DictionarySerializer()
    expected.save(chain)
    problems = []
    for name, value in expected.target.items():
        if name.split('/')[0] in skip or getattr(value, 'ndim', None) is None:
            continue
        if name not in source:
            problems.append(f'{name} is missing')
        elif source[name].shape != value.shape:
            problems.append(f'{name} is {source[name].shape}, expected {value.shape}')
        elif not numpy.issubdtype(source[name].dtype, numpy.number):
            problems.append(f'{name} holds {source[name].dtype}, not numbers')
    return problems
