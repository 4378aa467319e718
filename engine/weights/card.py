"""A model file's card, and its digest: what is asked of a model that nobody computes with.

See engine/weights/modelfile.py for what a model file is. Nothing here needs Chainer, so that stages
which do without it start at once.
"""
import contextlib
import hashlib
import json
import math
import os
import shutil
import zipfile

import numpy

from engine.errors import UserError
from engine.files import replacing
from engine.hdf5 import open_file
from engine.weights.hdf5file import open_arrays
from engine.weights.limits import DAMAGE, Budget, reason_of
from engine.weights.npzfile import open_npz

CARD = 'card'
# Of what a card says, what is relied on before it is looked at.
KINDS = {'kind': str, 'stream': str, 'fusion': str, 'layer': str, 'split': int, 'shape': dict,
         'preprocessing': dict, 'classes': list, 'held_out': list, 'trained_clips': list,
         'settings': dict, 'seed': int, 'features': str, 'packed': str, 'method': str,
         'made_with': dict, 'beside': str}
# The same of the settings in it: how a model is tested if nothing else is said.
SETTINGS = {'inference': str, 'test_steps': int, 'steps': int, 'reverse_too': bool,
            'variable_length': bool, 'readout': str}
PIECE = 1 << 20  # bytes


@contextlib.contextmanager
def opened(path, made_by):
    """Gives (its card's text, its arrays: an Npz or Hdf5Arrays); names what is wrong with it."""
    try:
        with open(path, 'rb') as f:
            start = f.read(8)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}; made by: {made_by}') from None
    hdf5 = start.startswith(b'\x89HDF')
    if not hdf5 and not start.startswith(b'PK'):
        raise UserError(f'{path}: neither Chainer npz nor HDF5; make it again: {made_by}')
    budget = Budget(math.inf)  # each array is held against the network before it is read
    try:
        with open_arrays(path, budget) if hdf5 else open_npz(path, budget) as source:
            yield source.text(CARD, '{}'), source
    except DAMAGE as error:
        raise UserError(f'{path}: damaged model file ({reason_of(error)}); make it again: '
                        f'{made_by}') from error


def same_in_cards(key, *paths):
    """Whether model files are all there, and their cards tell one and the same of `key`."""
    said = [read_card(path).get(key) if path.exists() else None for path in paths]
    return None not in said and all(value == said[0] for value in said)


def read_card(path, made_by='the stage that writes it'):
    """Returns the card (dict) of a model file; {} where there is none.

    Args:
        made_by: the command that makes the file, for the error's text.
    """
    with opened(path, made_by) as (text, _):
        return _parsed(text)


def notes_of(source):
    """What a model's card tells, as notes of engine.weights.weightfiles: {'card': dict}.

    {} where there is none, and where the arrays are not named as a model's: what is called card
    there may be anything.

    Args:
        source: an Npz or Hdf5Arrays.

    Raises:
        limits.DAMAGE: it is no card.
    """
    ours = any(name.endswith('/W') for name in source)
    card = _parsed(source.text(CARD, '{}')) if ours else {}
    return {'card': card} if card else {}


def _parsed(text):
    card = json.loads(text)
    if not isinstance(card, dict):
        raise ValueError(f'its card is a {type(card).__name__}')
    _check_kinds(card, KINDS)
    _check_kinds(card.get('settings', {}), SETTINGS)
    return card


def _check_kinds(card, kinds):
    for key, kind in kinds.items():
        value = card.get(key, kind())
        if type(value) is not kind:
            raise ValueError(f'the {key} in its card is a {type(value).__name__}')
        if kind is int and value < 0:
            raise ValueError(f'the {key} in its card is {value}')
        if kind is list and not all(isinstance(name, str) for name in value):
            raise ValueError(f'the {key} in its card are no names')


def keep_in_card(path, **more):
    """Writes more JSON values into the card of a model file, whose weights stay as they are.

    So does its date: what was made with the model is no older than it.
    """
    card = read_card(path)
    if {**card, **more} == card:
        return
    text = json.dumps({**card, **more}, sort_keys=True)
    with replacing(path) as temporary:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(temporary, 'w') as new:
                for item in old.infolist():
                    if item.filename != f'{CARD}.npy':
                        with old.open(item) as source, new.open(item, 'w', force_zip64=True) as f:
                            shutil.copyfileobj(source, f, PIECE)
                with new.open(f'{CARD}.npy', 'w') as f:
                    numpy.lib.format.write_array(f, numpy.array(text), allow_pickle=False)
        else:
            shutil.copyfile(path, temporary)
            with open_file(temporary, 'r+') as f:
                f.attrs[CARD] = text
        status = os.stat(path)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))


def weights_digest(path, made_by='the stage that writes it'):
    """SHA-256, as hexadecimal digits, of what a model computes with, in either form of file.

    Weights, shape and mean of the input count. Who saved it, and when, does not, so a
    model saved again by later code is the same one.
    """
    card = read_card(path, made_by)
    preprocessing = card.get('preprocessing') or {}
    digest = hashlib.sha256(json.dumps([card.get('shape'), preprocessing.get('mean')],
                                       sort_keys=True).encode())
    with opened(path, made_by) as (_, source):
        for name in sorted(set(source) - {CARD}):
            shape, dtype = source.headers[name]
            digest.update(f'{name} {shape} {dtype.str} '.encode())
            for piece in source.pieces(name):
                digest.update(piece.view(numpy.uint8))
    return digest.hexdigest()
