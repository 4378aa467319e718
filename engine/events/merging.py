"""From what windows along a film say to events: what happens from when to when."""
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy

from engine import arguments
from engine.errors import UserError
from engine.events.intervals import class_name

OTHER = 'other'  # what cutClips.py calls the class in which nothing is marked
EVENTS = """\
Each moment is of the class with the highest mean probability over all windows
that saw it, the RNN's if there; what follows in one class is an event. So events
are smooth over about a window, and one much shorter than that may go unseen. A
moment that no window saw is none."""
ROUNDING = 1e-6  # seconds: moments are sums of floating point


class Event(NamedTuple):
    """A class, from when to when in seconds, and its mean probability over that time."""
    label: str
    start: float
    stop: float
    probability: float


def add_events(parser):
    """Adds the flags that say what of a film is an event, and how it is written."""
    group = parser.add_argument_group('events', EVENTS)
    group.add_argument('--events', action='store_true',
                       help='write what happens from when to when; wants --out')
    group.add_argument('--threshold', type=arguments.real(0, most=1), default=0.5, metavar='P',
                       help='moments less sure than that show nothing; sureness is calibrated by '
                            'the temperature in its network\'s card, if there is one '
                            '(default: 0.5)')
    group.add_argument('--gap', type=arguments.not_negative, default=0.5, metavar='S',
                       help='events of one class that are as near, with no other class between, '
                            'become one (default: 0.5 seconds)')
    group.add_argument('--shortest', type=arguments.not_negative, default=0.5, metavar='S',
                       help='after that, drop events shorter than this (default: 0.5 seconds)')
    group.add_argument('--other', type=class_name, metavar='NAME',
                       help='the class that is no event, as cutClips.py --other calls it '
                            f'(default: {OTHER})')
    group.add_argument('--choose', type=Path, nargs='+', metavar='FILE',
                       help='annotations of these films, in any form that cutClips.py reads: says '
                            'with which --threshold, --gap and --shortest the events are most '
                            'like them; the files written are as these flags were given')
    group.add_argument('--subtitles', action='store_true', help='write them as DIR/NAME.srt, too')
    group.add_argument('--boris', action='store_true',
                       help='write all films as DIR/events.boris, too')


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
