"""Figures without the clips of one class, such as `other` of cutClips.py: how right are actions?

These clips count in no figure, whatever they are taken for; a clip of another class that is taken
for it still counts as wrong. Training, predictions and temperatures know nothing of it.
"""
import numpy

from engine.errors import UserError


def add_without(parser):
    parser.add_argument('--without', metavar='CLASS',
                        help='leave the clips of a class, such as other of cutClips.py, out of all '
                             'figures; what is taken for it stays wrong (default: all count)')


def settings(without):
    """What a result's settings say of it: nothing, where all clips count."""
    return {'without': without} if without else {}


def label_of(without, classes):
    """The label of the class that does not count, None where all do.

    Raises:
        UserError: there is no such class.
    """
    if without is None:
        return None
    if without not in classes:
        raise UserError(f'--without {without}: none of the classes, {", ".join(classes)}')
    return list(classes).index(without)


def counted(logs, labels, label):
    """Those of (n, C) log probabilities and (n,) labels that count, both as arrays.

    Raises:
        UserError: none does.
    """
    logs, labels = numpy.asarray(logs), numpy.asarray(labels)
    if label is None:
        return logs, labels
    kept = labels != label
    if not kept.any():
        raise UserError('--without: all clips are of this class, so none is left to count')
    return logs[kept], labels[kept]
