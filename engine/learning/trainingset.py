"""What rnn.py trains and validates on, out of a file of features; and which clips it tests."""
from typing import NamedTuple

import numpy

from engine import hdf5, variants
from engine.learning import examples, statistics
from engine.errors import UserError
from engine.learning.sequences import FeatureStore
from engine.weights import cardchecks
from engine.weights.card import weights_digest
from engine.progress import number_of


class Data(NamedTuple):
    """Features that are trained and validated on (FeatureStore), their deviation (D,), the digest
    of the network that made them, their own, and how they were made (cardchecks.made_with_in)."""
    training: FeatureStore
    validation: FeatureStore
    std: numpy.ndarray
    made_by: str
    packed: str | None
    made_with: dict

    def told(self):
        """What a model's card tells of the features it was trained on."""
        return {key: value for key, value in (('packed', self.packed),
                                              ('made_with', self.made_with)) if value}


def clips_of(kind, f, lists):
    """The 'training', 'validation' or 'test' clips of an open file of features."""
    if kind == 'test':
        return lists.test
    held_out = set(hdf5.read_names(f, 'held_out'))
    return [clip for clip in lists.train if (clip.name in held_out) == (kind == 'validation')]


def read_training(args, f, lists, made_by):
    """Returns the Data of an open train1024.hdf5, and says how much there is.

    Args:
        args: of rnn.py.
        lists (helperFunctions.Lists): the clips.
        made_by: the command that makes the file, for the errors' texts.
    """
    said = hdf5.attributes(f)
    cardchecks.check_classes(f.filename, said, lists.classes)
    cardchecks.check_split(f.filename, said, args.split, variants.names_of(args))
    std = statistics.read(f, f'python normalizeData.py{variants.flags_of(args)}')[1]
    clips = examples.share_of_groups(clips_of('training', f, lists), args.train_share, args.seed)
    training, validation = (FeatureStore(f, some, args.memory, made_by)
                            for some in (clips, clips_of('validation', f, lists)))
    print(f'{number_of(len(training), "clip")} to train, {len(validation)} to validate, '
          f'{number_of(len(lists.classes), "class", "classes")}, features '
          f'{"in memory" if training.in_memory else "read from the file"}', flush=True)
    return Data(training, validation, std, said.get('model_sha256', 'None'),
                *cardchecks.made_in(f.filename, said))


def read_tested(args, f, kind, lists, model, card, made_by, trained_by):
    """Returns the FeatureStore of the 'validation' or 'test' clips of an open file of features.

    Args:
        model, card: the network that is to predict them, of args.name, and what it says of itself.
        made_by, trained_by: the commands that make the file and train the network.

    Raises:
        UserError: the network does not fit them, was trained on others, or has seen these clips.
    """
    path = args.root / f'{args.name}.model'
    clips, said = clips_of(kind, f, lists), hdf5.attributes(f)
    cardchecks.check_classes(f.filename, said, lists.classes)
    store = FeatureStore(f, clips, args.memory, made_by)
    if store.n_features != model.shape['n_in']:
        raise UserError(f'{f.filename}: features of length {store.n_features}, but {path} takes '
                        f'{model.shape["n_in"]}; make it again: {made_by}')
    if said.get('model_sha256', 'None') != card['features']:
        raise UserError(f'{f.filename}: features of another {variants.names_of(args).model} than '
                        f'{path} was trained on; train it again: {trained_by} --restart')
    cardchecks.check_unseen(path, card, store.clips, kind, 'pack the features as they were, '
                            f'{made_by}, or train it anew: {trained_by} --restart')
    if kind == 'test' and card.get('packed') not in (None, packed := cardchecks.packed_in(said)):
        print(f'{f.filename}: other features ({packed}) than {path} was trained on '
              f'({card["packed"]}), of the same network; the result is of those there now')
    if missing := len(clips) - len(store):
        print(f'without features, and not counted: {number_of(missing, f"{kind} clip")}')
    return store


def check_test_features(args, made_by):
    """Before hours of training: test1024.hdf5 is of this split, and of the model there now."""
    names = variants.names_of(args)
    with hdf5.open_hdf5(args.root / names.test, made_by) as f:
        cardchecks.check_split(f.filename, said := hdf5.attributes(f), args.split, names)
        model = None if 'imported' in said else args.root / names.model
        if model and model.exists() and said.get('model_sha256') != weights_digest(model):
            print(f'{f.filename}: features of an earlier {model.name} than the one there now; '
                  f'save them anew: {variants.features_maker(args)}', flush=True)
