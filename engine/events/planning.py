"""Which stretches of films become clips: marks without what two of them share, and nothing."""
import itertools
import math
from typing import NamedTuple

import numpy

from engine.events.films import Film
from engine.events.intervals import composed

TRIES = 20
# Sound often ends a little behind the last frame, and marks end where the player stops.
LATE = 0.1


class Stretch(NamedTuple):
    """A stretch of a film that is to be a clip: seconds, its class, subject, and the row it comes
    from ('' where it was drawn)."""
    film: Film
    start: float
    stop: float
    label: str
    subject: str
    where: str


def place(mark, film, made):
    """(Stretch of a mark, '') or (None, why it is none)."""
    about = made.films[film.name]
    end, late = about['end'], max(LATE, 2 * about['period'])
    if mark.lasts and abs(mark.lasts - end) > max(1.0, 0.01 * end):
        return None, (f'annotated in a film of {mark.lasts:.1f} s, but {film.path} has '
                      f'{end:.1f} s: another film, or several of one observation')
    if mark.start < 0 or mark.start >= end or mark.stop > end + late:
        return None, (f'{mark.label} from {mark.start:.3f} to {mark.stop:.3f} s, but {film.path} '
                      f'goes from 0 to {end:.3f} s')
    return as_stretch(mark, film)._replace(stop=min(mark.stop, end)), ''


def as_stretch(mark, film):
    return Stretch(film, mark.start, mark.stop, composed(mark.label), composed(mark.subject),
                   mark.where)


def without_overlaps(stretches):
    """Cuts off what two stretches of one film share, so that no frame shows two things.

    What two classes share goes to neither; of one class, the later gives way. A stretch that
    keeps less than half of itself in one piece is left out.

    Returns:
        (list of Stretch, lines that name each one that was cut or left out).
    """
    kept, problems, by_film = [], [], {}
    for stretch in stretches:
        by_film.setdefault(stretch.film.path, []).append(stretch)
    for inside in by_film.values():
        inside.sort(key=lambda stretch: (stretch.start, stretch.stop))
        before = []  # those that began earlier and last until here, each longer than those before
        for i, stretch in enumerate(inside):
            before = [other for other in before if other.stop > stretch.start]
            hidden = bool(before) and before[-1].stop >= stretch.stop
            behind = itertools.takewhile(
                lambda other: not hidden and other.start < stretch.stop,
                map(inside.__getitem__, range(i + 1, len(inside))))
            others = before + [other for other in behind if other.label != stretch.label
                               and other.stop > stretch.start]
            if not hidden:
                before.append(stretch)
            if not others:
                kept.append(stretch)
                continue
            free = gaps(stretch.start, stretch.stop, others)
            start, stop = max(free, key=lambda piece: piece[1] - piece[0], default=(0, 0))
            enough = stop - start >= (stretch.stop - stretch.start) / 2
            problems.append(
                f'{stretch.where}: {stretch.label} from {stretch.start:.3f} to '
                f'{stretch.stop:.3f} s overlaps {others[0].label} of {others[0].where}: '
                + (f'cut to {start:.3f} to {stop:.3f} s' if enough else 'left out'))
            if enough:
                kept.append(stretch._replace(start=start, stop=stop))
    return kept, problems


def gaps(start, stop, stretches, margin=0.0):
    """[(start, stop)] of what no stretch, nor the margin around it, takes of a piece of film."""
    free = []
    for taken in sorted(stretches, key=lambda stretch: stretch.start):
        if taken.start - margin > start:
            free.append((start, min(stop, taken.start - margin)))
        start = max(start, taken.stop + margin)
    if start < stop:
        free.append((start, stop))
    return free


def pieces(free, shortest, longest):
    """All of what is free, in equal pieces of each stretch.

    Args:
        free: [(film, start, stop)]; what lasts shorter than `shortest` seconds is left out.
        longest (float): seconds of a piece at most.

    Returns:
        [(film, start, stop)], seconds to three decimals.
    """
    found = []
    for film, start, stop in free:
        if stop - start >= shortest:
            edges = numpy.linspace(start, stop, max(1, math.ceil((stop - start) / longest)) + 1)
            # rounded up and down, as a margin is to stay one
            edges = [math.ceil(1000 * start) / 1000, *(round(edge, 3) for edge in edges[1:-1]),
                     math.floor(1000 * stop) / 1000]
            found += [(film, float(one), float(two)) for one, two in zip(edges, edges[1:])
                      if one < two]
    return found


def draw(free, lengths, number, random):
    """Draws stretches of the lengths given out of free pieces, no two of which share a moment.

    Args:
        free: [(film, start, stop)].
        lengths: seconds, of which each is drawn.
        number: how many stretches are wanted; where room ends, there are fewer.
        random: numpy.random.RandomState, the only source of chance.

    Returns:
        [(film, start, stop)], seconds to three decimals.
    """
    drawn = []
    for _ in range(TRIES):  # where room is scarce, some draws leave no place for the last ones
        again = _draw(list(free), lengths, number, random)
        drawn = max(drawn, again, key=len)
        if len(drawn) == number:
            break
    return drawn


def _draw(free, lengths, number, random):
    drawn = []
    for length in random.choice(lengths, number):
        slack = [stop - start - length for _, start, stop in free]
        fitting = [i for i, left in enumerate(slack) if left >= 0]
        if not fitting:
            continue
        share = sum(slack[i] + length for i in fitting)
        i = fitting[random.choice(len(fitting), p=[(slack[i] + length) / share for i in fitting])]
        film, start, stop = free.pop(i)
        begin = min(round(start + random.uniform(0, slack[i]), 3), stop - length)
        drawn.append((film, begin, begin + length))
        free += [(film, *piece) for piece in ((start, begin), (begin + length, stop))
                 if piece[0] < piece[1]]
    return drawn
