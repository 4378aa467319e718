"""Model files: a network's weights and its card (what it is and how it was made).

A model file is Chainer's own npz (or HDF5) with one more entry, `card`: a JSON
text. chainer.serializers.load_npz reads the weights as from any other file.
"""
import contextlib
import json
import math

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

from engine.errors import UserError
from engine.files import replacing
from engine.hdf5 import writing
from engine.weights import initial
from engine.weights.card import CARD, opened, read_card, weights_digest
from engine.weights.limits import DAMAGE

HARMLESS = 1 << 16  # what a card may tell of that its network has no use for, such as units


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
        with writing(path) as [f]:
            chainer.serializers.HDF5Serializer(f, compression=None).save(chain)
            f.attrs[CARD] = text
            f.check()
        return
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(chain)
    with replacing(path) as temporary, open(temporary, 'wb') as f:
        # sorted: Chainer's order changes from process to process, the bytes must not
        numpy.savez(f, **dict(sorted(serializer.target.items())), **{CARD: numpy.array(text)})


def load_weights(path, chain, skip=(), made_by='the stage that writes it', whole=False):
    """Loads the weights in place, after checking that each is there, has its shape and is finite.

    Args:
        skip: names of child links to leave as they are (layers new in `chain`).
        whole (bool): the file is to hold nothing else.

    Raises:
        UserError: naming every layer that is missing, differs in shape, or holds NaN or infinity.
    """
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(chain)
    expected = {name: value for name, value in serializer.target.items()
                if name.split('/')[0] not in skip and getattr(value, 'ndim', None) is not None}
    with opened(path, made_by) as (_, source):
        problems = _differences(source.headers, expected)
        if whole:
            problems += [f'{name} has no place in it' for name in
                         sorted(set(source) - set(serializer.target) - {CARD})]
        if not problems:
            reader = _Filling(source)
            # the chain's own arrays (a mean, say), which are no child's
            chainer.Link.serialize(chain, reader)
            for child in chain.children():
                if child.name not in skip:
                    child.serialize(reader[child.name])
            problems = reader.problems
    if problems:
        raise UserError(f'{path}: does not fit the network: ' + '; '.join(problems[:5])
                        + (f' and {len(problems) - 5} more' if len(problems) > 5 else '')
                        + f'; made by: {made_by}')


class _Filling(chainer.Deserializer):
    """Fills a network's arrays from a file's, piece by piece, as the largest has 400 MB.

    `problems` names those with NaN or infinity in them.
    """

    def __init__(self, source, path='', problems=None):
        self._source, self._path = source, path
        self.problems = [] if problems is None else problems

    def __getitem__(self, key):
        return _Filling(self._source, f'{self._path}{key.strip("/")}/', self.problems)

    def __call__(self, key, value):
        name = self._path + key.lstrip('/')
        if name not in self._source:
            return value
        if not isinstance(value, numpy.ndarray) or not value.flags.c_contiguous:
            array = self._source[name]
            self._look_at(name, numpy.isfinite(array).all())
            return chainer.serializers.NpzDeserializer({name: array})(name, value)
        flat, at, finite = value.reshape(-1), 0, True
        for piece in self._source.pieces(name):
            numpy.copyto(flat[at:at + len(piece)], piece)
            finite = finite and numpy.isfinite(piece).all()
            at += len(piece)
        if at != flat.size:
            raise ValueError(f'{name} is not as long as its header says')
        self._look_at(name, finite)
        return value

    def _look_at(self, name, finite):
        if not finite:
            self.problems.append(f'{name} holds numbers that are not finite')


def _differences(headers, expected):
    """Lists what a network expects and a file lacks or has otherwise."""
    problems = []
    for name, value in sorted(expected.items()):
        if name not in headers:
            problems.append(f'{name} is missing')
            continue
        shape, dtype = headers[name]
        if shape != value.shape:
            problems.append(f'{name} is {shape}, expected {value.shape}')
        elif dtype.kind not in 'fiub':
            problems.append(f'{name} holds {dtype}, not numbers')
    return problems


def load_network(network, path, made_by='the stage that writes it'):
    """Returns (network, card) from a model file, in the shape that its card tells.

    Args:
        network: class of the model, a chainer.Chain.
    """
    card = read_card(path, made_by)
    shape = card.get('shape', {})
    with opened(path, made_by) as (_, source):
        sizes = [source.size(name) // source.headers[name][1].itemsize
                 for name in source if name != CARD]
    try:
        with _no_larger_than(sizes, shape):
            model = network(**shape)
    except DAMAGE as error:
        raise UserError(f'{path}: its card tells of a model of kind {card.get("kind")} and '
                        f'shape {str(shape)[:300]}, which {network.__name__} cannot have'
                        + f', as {error}' * isinstance(error, _TooLarge)
                        + f'; made by: {made_by}') from None
    # Of another's file without a card nobody knows what else is in it.
    load_weights(path, model, made_by=made_by, whole=bool(card))
    return model, card


class _TooLarge(ValueError):
    """A card claims more than is in its file."""


@contextlib.contextmanager
def _no_larger_than(sizes, shape):
    """Lets networks be made in a block as large as what is in a file, and empty: a card of a few
    bytes may claim a hundred gigabytes.

    Args:
        sizes: how many numbers each array of the file has.
        shape: what the card tells.
    """
    left = {'arrays': 2 * len(sizes), 'numbers': 2 * sum(sizes)}  # each has its gradient

    def take(**what):
        for name, n in what.items():
            left[name] -= n
            if left[name] < 0:
                raise _TooLarge(f'there are {len(sizes)} arrays of {sum(sizes)} numbers in the '
                                'file')

    def choose(initializer, shape):
        take(arrays=1, numbers=math.prod(shape if isinstance(shape, tuple) else [shape]))
        return initial.nothing(initializer, shape)
    for value in shape.values():  # of these come arrays that Chainer does not make
        n = value if isinstance(value, int) else len(value) if isinstance(value, list) else 0
        most = max(sum(sizes), HARMLESS if isinstance(value, int) else 0)
        take(numbers=n if n > most else 0)
    with initial.chosen(choose):
        yield


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
