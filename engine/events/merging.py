"""From what windows along a film say to events: what happens from when to when."""
import itertools
from typing import NamedTuple

import numpy

from engine.errors import UserError
from engine.events.intervals import class_name

OTHER = 'other'  # what cutClips.py calls the class in which nothing is marked
ROUNDING = 1e-6  # seconds: moments are sums of floating point


class Event(NamedTuple):
    """A class, from when to when in seconds, and its mean probability over that time."""
    label: str
    start: float
    stop: float
    probability: float


def class_of_nothing(asked, classes):
    """Which of a network's classes is no event: the one asked for, or OTHER; None where it has
    none.

    Raises:
        UserError: it has none that was asked for.
    """
    found = next((name for name in classes if class_name(name) == (asked or OTHER)), None)
    if asked and not found:
        raise UserError(f'--other {asked}: none of the network\'s classes, {", ".join(classes)}')
    return found


def moments(spans, shares):
    """What is said of each moment: the mean of all windows that saw it.

    Args:
        spans: [(start, stop)] of the windows, seconds; neither starts nor stops go back.
        shares: (n, C) probability of each window.

    Returns:
        (edges (m + 1,) float64 seconds, (m, C) float64): between two edges the same windows
        look; NaN where none does.
    """
    starts, stops = numpy.array(spans, float).reshape(-1, 2).T
    edges = numpy.unique([starts, stops])
    first = numpy.searchsorted(stops, edges[:-1], side='right')
    last = numpy.searchsorted(starts, edges[:-1], side='right')
    sums = numpy.concatenate([numpy.zeros((1, shares.shape[1])),
                              numpy.cumsum(shares, axis=0, dtype=float)])
    count = (last - first)[:, None]
    return edges, numpy.divide(sums[last] - sums[first], count, where=count > 0,
                               out=numpy.full((len(count), shares.shape[1]), numpy.nan))


def merge(edges, shares, classes, threshold=0.0, shortest=0.0, gap=0.0, other=OTHER):
    """Joins moments of one class to events.

    A moment is of its most probable class, if that has `threshold` at least and is not `other`.
    Events of one class that are `gap` apart or less become one, where windows saw all of what is
    between them and no other class happens there; then those shorter than `shortest` go.

    Args:
        edges, shares: of `moments`.
        classes: names of all classes.
        threshold (float): probability; shortest, gap (float): seconds.

    Returns:
        List of Event in order, none overlapping another.
    """
    seen = ~numpy.isnan(shares).any(axis=1)
    best = numpy.where(seen[:, None], shares, 0).argmax(axis=1)
    sure = seen & (shares[numpy.arange(len(shares)), best] >= threshold)
    labels = [int(label) if known and classes[label] != other else None
              for label, known in zip(best, sure)]
    runs = []  # (class, first moment, behind the last)
    for label, run in itertools.groupby(range(len(labels)), labels.__getitem__):
        run = list(run)
        if label is None:
            continue
        first, behind = run[0], run[-1] + 1
        if runs and runs[-1][0] == label:
            between = slice(runs[-1][2], first)
            if seen[between].all() and edges[first] - edges[between.start] <= gap + ROUNDING:
                first = runs.pop()[1]
        runs.append((label, first, behind))
    return [Event(classes[label], float(edges[first]), float(edges[behind]),
                  float(numpy.average(shares[first:behind, label],
                                      weights=numpy.diff(edges[first:behind + 1]))))
            for label, first, behind in runs
            if edges[behind] - edges[first] >= shortest - ROUNDING]
