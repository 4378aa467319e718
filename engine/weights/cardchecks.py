"""What a file says of its making (a model's card, the attributes of an HDF5 file), held against
what is asked for: classes, split, variant.
"""
import json
import re
from pathlib import Path

from engine.errors import UserError
from engine.files import json_of
from engine.variants import OF_FRAMES, Names, place


def check_classes(path, attrs, classes):
    """Refuses a file made for another class list, naming both."""
    try:
        theirs = list(json_of(attrs.get('classes', 'null')) or [])
    except (TypeError, ValueError):
        theirs = []
    if theirs != list(classes):
        where = next((i for i, pair in enumerate(zip(theirs, classes)) if pair[0] != pair[1]),
                     min(len(theirs), len(classes)))
        name = [names[where] if where < len(names) else 'nothing' for names in (theirs, classes)]
        raise UserError(f'{path}: made for {len(theirs)} classes, the lists name {len(classes)}; '
                        f'class {where + 1} is {name[0]} there, {name[1]} here; make it again '
                        'with these lists')


def check_split(path, attrs, split, names):
    """Refuses a file of another split, whose network has seen test clips of this one, or of
    another variant than its name says."""
    for field, ours in names._asdict().items():
        # What is usual a file need not tell.
        theirs = attrs.get(field, getattr(Names(), field))
        if theirs != ours:
            made = f'with --{field} {theirs}' if theirs else f'without --{field}'
            raise UserError(f'{path}: made {made}, not {ours or "without"}; make it again: '
                            f'python save_hdf5.py{names.flags()}{place(Path(path).parent, split)}')
    theirs = attrs.get('split', split)
    if theirs != split:
        raise UserError(f'{path}: made for split {theirs}; add --split {theirs}, or begin under '
                        f'another --root: python frameBasedTrain.py --split {split}'
                        + names.flags(*OF_FRAMES) + ' --root ANOTHER')


def packed_in(attrs):
    """A short digest of the features that a file holds, or that its predictions are of: of all
    that save_hdf5.py packed together, in other files of the network; None where nothing tells."""
    told = attrs.get('set', attrs.get('model_sha256'))
    return told and told[:16]


def recipe_of_features(card, told, dtype):
    """How features were made, as a dict of JSON values: what those of several folds, seeds or
    roots must have in common to be one method's.

    Args:
        card: of the frame network; {} of imported features.
        told: what stands beside the features (featurefile.made_with).
        dtype (str): in which they are packed.
    """
    found = {'step': told['step'], 'views': told.get('views', 1), 'dtype': dtype}
    if not card:
        return {**found, **{key: told.get(key) for key in ('imported', 'n_features')}}
    # A top that starts at random has other numbers with each seed, as all that is averaged.
    base = re.sub(r' \(seed \d+\)', '', str(card.get('base', '')))
    return {**found, 'base': base, 'network': card.get('settings', {}),
            **{key: card[key] for key in ('shape', 'flow') if key in card}}


def made_with_in(path, attrs):
    """The recipe of the features that a file holds, or that its predictions are of; of files of
    earlier code as much of it as they tell, {} where that is nothing."""
    if 'made_with' not in attrs:
        return {key: attrs.get(key, 1) for key in ('step', 'views') if 'step' in attrs}
    return _dict_in(path, attrs, 'made_with')


def made_in(path, attrs):
    """(packed_in, made_with_in) of one file."""
    return packed_in(attrs), made_with_in(path, attrs)


def settings_in(path, attrs):
    """The settings (dict) that a file says it was made with; {} where it says nothing."""
    return _dict_in(path, attrs, 'settings')


def _dict_in(path, attrs, key):
    try:
        told = json_of(attrs.get(key, '{}'))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise UserError(f'{path}: its {key}, how it was made, cannot be read; make it again')
    return told


def check_frame_model(path, card, tested, split, names=Names()):
    """Refuses a frame network that has seen a clip of `tested`, those of the test list, or was
    trained on another split or as another variant."""
    for field in OF_FRAMES:
        theirs, ours = card.get(field, getattr(Names(), field)), getattr(names, field)
        if theirs != ours:
            raise UserError(f'{path}: a network of {field} {theirs or "none"}, not '
                            f'{ours or "none"}; make it again: python frameBasedTrain.py'
                            + names.flags(*OF_FRAMES) + place(Path(path).parent, split))
    theirs = card.get('split', split)
    if theirs != split:
        raise UserError(f'{path}: trained on split {theirs}, so it has seen test clips of split '
                        f'{split}; train it again under another --root: '
                        f'python frameBasedTrain.py --split {split}'
                        + names.flags(*OF_FRAMES) + ' --root ANOTHER')
    if both := _seen(card, tested, 'trained_clips', 'held_out'):
        raise UserError(f'{path}: trained by other lists, so it has seen {len(both)} of the '
                        f'{len(tested)} test clips ({both[0]}, say); remove it and train again: '
                        'python frameBasedTrain.py'
                        + names.flags(*OF_FRAMES) + place(Path(path).parent, split))


def check_rnn(path, card, classes, split, made_by):
    """Refuses a model of rnn.py of other classes or of another split, or whose card does not tell
    what its test asks for."""
    lacks = [key for key in ('features', 'method', 'seed', 'settings', 'split', 'training')
             if key not in card]
    if not isinstance(card.get('training', {}), dict):
        lacks.append('training')
    if lacks:
        raise UserError(f'{path}: its card does not tell {", ".join(lacks)}; train it again: '
                        f'{made_by}')
    check_classes(path, {'classes': json.dumps(card.get('classes'))}, classes)
    if card['split'] != split:
        raise UserError(f'{path}: trained on split {card["split"]}; add --split {card["split"]}')


def check_unseen(path, card, clips, kind, ways_out):
    """Refuses a network that has learned from some of `clips`, of a kind ('validation', 'test'), as
    its card tells; older cards tell nothing.

    Args:
        ways_out: what to do, for the error's text.
    """
    if both := _seen(card, clips, 'trained_clips'):
        raise UserError(f'{path}: has learned from {len(both)} of the {len(clips)} {kind} clips of '
                        f'now ({both[0]}, say), so that they would flatter it; {ways_out}')


def check_trained_on(path, card, names):
    """Refuses a model trained on another variant's features than the flags (`names`) ask for."""
    differ = [(f' --{field} {theirs or "none"}', f' --{field} {ours or "none"}')
              for field, ours in names._asdict().items()
              if (theirs := card.get(field, getattr(Names(), field))) != ours]
    if differ:
        theirs, ours = map(''.join, zip(*differ))
        raise UserError(f'{path}: was trained with{theirs}, not{ours}')


def _seen(card, clips, *keys):
    """The names of those clips that a card tells of under some of its keys."""
    told = {name for key in keys for name in card.get(key, ())}
    return [clip.name for clip in clips if clip.name in told]
