"""Which training clips a network learns from, how often each comes and what it counts.

All of it is worked out from training clips alone, and alike in both trainings. Validation and
test stay as they are: clips as they come, each counting the same.
"""
import hashlib

import numpy

from engine import arguments

WEIGHTS = ('none', 'balanced', 'effective')
BETA = 0.99  # of effective numbers: the 100th clip of a class still brings a third of a new one
# Of the original; where they hold, no settings tell of them, as there was no choice once.
USUAL = {'class_weights': 'none', 'balanced_sampling': False, 'train_share': 1.0}


def add_examples(parser):
    """Adds the flags of this module to a stage that trains."""
    group = parser.add_argument_group('training clips', 'The validation loss, by which the epoch '
                                      'is kept, is never weighted, so that runs compare.')
    group.add_argument('--class-weights', choices=WEIGHTS, default='none',
                       help="what a clip's loss counts. balanced: 1 over the clips of its class, "
                            'so that all classes count alike; effective: (1 - b) / (1 - b^n) for '
                            f'n clips, b = {BETA} (Cui et al. 2019), less far apart where classes '
                            'are large. The mean over all training clips is 1 (default: none)')
    group.add_argument('--balanced-sampling', action='store_true',
                       help='draw as many clips of each class an epoch: of rare ones some again, '
                            'of frequent ones not all. In place of --class-weights rather than '
                            'beside it')
    group.add_argument('--train-share', type=arguments.real(above=0, most=1), default=1.0,
                       metavar='SHARE',
                       help='learn from this share of the groups of each class, at least one, as '
                            'if no more had been labelled; what a smaller share takes, a larger '
                            'one of the same --seed takes too (default: 1)')


def without_usual(settings):
    """The settings (dict) of a run but for those of this module that ask for nothing."""
    return {key: value for key, value in settings.items()
            if key not in USUAL or value != USUAL[key]}


def class_weights(kind, labels, n_classes):
    """What the loss of a clip of each class counts; the mean over the clips is 1.

    The loss of a batch is the sum of its weighted losses over its number of clips (Chainer's
    class_weight), so that parts of a batch add up to the whole.

    Args:
        kind: one of WEIGHTS.
        labels: (n,) int of the training clips.

    Returns:
        (n_classes,) float32, 0 for a class without clips; None for 'none'.
    """
    if kind == 'none':
        return None
    counts = numpy.bincount(labels, minlength=n_classes).astype(float)
    there = counts > 0
    weights = numpy.zeros(n_classes)
    weights[there] = (1 / counts[there] if kind == 'balanced' else
                      (1 - BETA) / (1 - BETA ** counts[there]))
    return (weights * len(labels) / (weights @ counts)).astype(numpy.float32)


def which(training, held_out):
    """What the settings of a training tell of its clips, {'trained_clips': '48, 1f0c52ab9e34' ...}:
    how many, and a digest of their names and labels, in any order."""
    def told(clips):
        names = sorted(f'{clip.label} {clip.class_name}/{clip.name}\n' for clip in clips)
        return f'{len(names)}, {hashlib.sha256("".join(names).encode()).hexdigest()[:12]}'
    return {'trained_clips': told(training), 'held_out_clips': told(held_out)}


def told_of(clips):
    """What a result tells of the training clips: how many, of how many groups of a class."""
    return {'train_clips': len(clips),
            'train_groups': len({(clip.label, clip.group) for clip in clips})}


def told_of_weights(weights, classes):
    """What a model's card tells of class_weights: those of the classes that are there, or {}."""
    return {} if weights is None else {'class_weights': {
        name: round(float(weight), 6) for name, weight in zip(classes, weights) if weight}}


def draws_of_epoch(labels, random, balanced=False):
    """The clips of an epoch in random order, (n,) int, for n labels (n,).

    A draw d is clip d % n; d // n tells how many times that has come in this epoch, so that
    each draw is a random choice of its own. Without `balanced` each clip comes once; with it
    all classes come equally often, to within one draw, and no clip of a class comes once more
    before all others of it have come.
    """
    n = len(labels)
    if not balanced:
        return random.permutation(n)
    classes = numpy.unique(labels)
    wanted = n // len(classes) + (random.permutation(len(classes)) < n % len(classes))
    draws = []
    for label, times in zip(classes, wanted):
        members = numpy.flatnonzero(labels == label)
        rounds = range(-(-times // len(members)))
        draws += [random.permutation(members) + n * i for i in rounds]
        draws[-1] = draws[-1][:times - len(members) * (len(rounds) - 1)]
    return random.permutation(numpy.concatenate(draws))


def share_of_groups(clips, share, seed):
    """The clips of a share of the groups of each class, at least one; prints how many.

    What a group's name and the seed give decides which come first, whatever other groups there
    are: a smaller share is part of a larger one, and a person who is in several classes comes
    early or late in all of them.
    """
    if share == 1:
        return clips
    groups = {}
    for clip in clips:
        groups.setdefault(clip.label, set()).add(clip.group)
    kept, alone = set(), 0
    for label, names in groups.items():
        order = sorted(names, key=lambda name: hashlib.sha256(f'{seed} {name}'.encode()).digest())
        wanted = int(share * len(order) + 0.5)
        alone += not wanted
        kept.update((label, name) for name in order[:max(1, wanted)])
    chosen = [clip for clip in clips if (clip.label, clip.group) in kept]
    print(f'--train-share {share:g}: {len(chosen)} of {len(clips)} training clips, {len(kept)} of '
          f'{sum(map(len, groups.values()))} groups (of a class)'
          + (f'; {alone} of {len(groups)} classes keep one group, more than that share'
             if alone else ''), flush=True)
    return chosen
