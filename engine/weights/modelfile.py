"""Model files: a network's weights and its card (what it is and how it was made).

A model file is Chainer's own npz (or HDF5) with one more entry, `card`: a JSON
text. chainer.serializers.load_npz reads the weights as from any other file.
"""
import hashlib
import json

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import h5py
import numpy

from engine.errors import UserError
from engine.files import replacing
from engine.weights.limits import DAMAGE, reason_of

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
        # sorted: Chainer's order changes from process to process, the bytes must not
        numpy.savez(f, **dict(sorted(serializer.target.items())), **{CARD: numpy.array(text)})


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
        card = json.loads(text)
        if not isinstance(card, dict):
            raise ValueError(f'its card is a {type(card).__name__}')
        return card
    except DAMAGE as error:
        raise _damaged(path, error, made_by) from error


def weights_digest(path, made_by='the stage that writes it'):
    """SHA-256, as hexadecimal digits, of what a model computes with, in either form of file.

    Weights, shape and mean of the input count. Who saved it, and when, does not, so a
    model saved again by later code is the same one.
    """
    card = read_card(path, made_by)
    preprocessing = card.get('preprocessing') or {}
    digest = hashlib.sha256(json.dumps([card.get('shape'), preprocessing.get('mean')],
                                       sort_keys=True).encode())
    try:
        with (h5py.File(path, 'r') if _kind(path, made_by) == 'hdf5'
              else numpy.load(path, allow_pickle=False)) as source:
            for name in sorted(_array_names(source)):
                array = numpy.asarray(source[name])  # read once: the largest has 400 MB
                digest.update(f'{name} {array.shape} {array.dtype.str} '.encode())
                digest.update(numpy.ascontiguousarray(array).ravel().view(numpy.uint8))
    except DAMAGE as error:
        raise _damaged(path, error, made_by) from error
    return digest.hexdigest()


def _array_names(source):
    if isinstance(source, h5py.File):
        names = []
        source.visititems(lambda name, item:
                          names.append(name) if isinstance(item, h5py.Dataset) else None)
        return names
    return [name for name in source.files if name != CARD]


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
                # the chain's own arrays (a mean, say), which are no child's
                chainer.Link.serialize(chain, reader)
                for child in chain.children():
                    if child.name not in skip:
                        child.serialize(reader[child.name])
    except DAMAGE as error:
        raise _damaged(path, error, made_by) from error
    if problems:
        raise UserError(f'{path}: does not fit the network: ' + '; '.join(problems[:5])
                        + (f' and {len(problems) - 5} more' if len(problems) > 5 else '')
                        + f'; made by: {made_by}')


def _damaged(path, error, made_by):
    return UserError(f'{path}: damaged model file ({reason_of(error)}); make it again: {made_by}')


def load_network(network, path, made_by='the stage that writes it'):
    """Returns (network, card) from a model file, in the shape that its card tells.

    Args:
        network: class of the model, a chainer.Chain.
    """
    card = read_card(path, made_by)
    model = new_network(network, card, path, made_by)
    load_weights(path, model, made_by=made_by)
    return model, card


def new_network(network, card, path, made_by='the stage that writes it'):
    """Returns network(**shape) with the shape that a model's card tells.

    Raises:
        UserError: the card belongs to another kind of model.
    """
    shape = card.get('shape', {})
    try:
        return network(**shape)
    except (TypeError, ValueError, MemoryError):
        raise UserError(f'{path}: its card tells of a model of kind {card.get("kind")} and '
                        f'shape {shape}, which {network.__name__} cannot have; made by: '
                        f'{made_by}') from None


def go_on_from(path, model, card, made_by='the stage that writes it'):
    """Loads weights into `model` from one of the same make, for more training.

    Args:
        path: the other model's file.
        model (FeatureNet): its weights are replaced, its statistics must be the same.
        card (dict): kind, shape, classes, split and features of `model`.

    Returns:
        weights_digest of the other model.

    Raises:
        UserError: naming what differs.
    """
    theirs = read_card(path, made_by)
    for key in ('kind', 'classes', 'split', 'features'):
        if theirs.get(key) != card[key]:
            values = '' if key == 'classes' else f' ({theirs.get(key)}, here {card[key]})'
            raise UserError(f'{path}: cannot go on from it: other {key}{values}')
    shape = theirs.get('shape', {})
    differ = [f'{key} {shape.get(key)}, here {value}' for key, value in card['shape'].items()
              if 'dropout' not in key and shape.get(key) != value]
    if differ:
        raise UserError(f'{path}: cannot go on from it: another shape ({", ".join(differ)})')
    ours = model.mean.copy(), model.scale.copy()
    load_weights(path, model, made_by=made_by)
    if not (numpy.array_equal(model.mean, ours[0]) and numpy.array_equal(model.scale, ours[1])):
        raise UserError(f'{path}: cannot go on from it: its features are normalised by another '
                        'mean and deviation')
    return weights_digest(path, made_by)


def _differences(source, chain, skip):
    """Lists what `chain` holds and `source` (npz or HDF5 file) lacks or has otherwise."""
    expected = chainer.serializers.DictionarySerializer()
    expected.save(chain)
    problems = []
    for name, value in sorted(expected.target.items()):
        if name.split('/')[0] in skip or getattr(value, 'ndim', None) is None:
            continue
        if name not in source:
            problems.append(f'{name} is missing')
        elif source[name].shape != value.shape:
            problems.append(f'{name} is {source[name].shape}, expected {value.shape}')
        elif not numpy.issubdtype(source[name].dtype, numpy.number):
            problems.append(f'{name} holds {source[name].dtype}, not numbers')
    return problems
