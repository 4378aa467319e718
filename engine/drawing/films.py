"""Films: the actions of the clips one behind the other, with stretches of nothing between them."""
from typing import NamedTuple

import numpy

from engine.drawing.clips import FPS, GROUP_STREAM, make_phases, write_avi
from engine.drawing.scenes import cut_grain, draw_picture, make_look, make_place, noise_bank
from engine.drawing.shapes import CLASSES, PAIRS
from engine.files import replacing

FILM_STREAM = 2  # of random numbers; engine.drawing.clips has those before
FILM_RECIPE = 'demo films 1'  # change it when the drawing changes: old films are remade
ACTION, PAUSE = (2.0, 5.0), (1.0, 5.0)  # seconds, shortest and longest


class Act(NamedTuple):
    """Frames `start` to `stop` - 1 of a film: an action, or None where nothing is done."""
    label: str
    start: int
    stop: int


def plan(seed, person, shortest, longest):
    """The Acts of a person's film, from its first frame to its last; all classes come by turns.

    Args:
        shortest, longest (float): bounds of its length, seconds.
    """
    rng = numpy.random.default_rng([seed, FILM_STREAM, person])
    end = int(FPS * rng.uniform(shortest, longest))
    acts, waiting = [], []
    while not acts or acts[-1].stop < end:
        start, label = acts[-1].stop if acts else 0, None
        if acts and acts[-1].label is None:
            waiting = waiting or list(rng.permutation(CLASSES))
            label = str(waiting.pop())
        length = int(FPS * rng.uniform(*(ACTION if label else PAUSE)))
        if label and start + length + FPS > end:  # no room for it: the pause goes on to the end
            label, start, length = None, acts.pop().start, end
        acts.append(Act(label, start, min(start + length, end)))
    return acts


def frames(seed, person, acts):
    """Draws a film; yields (HEIGHT, WIDTH, 3) uint8 RGB.

    While nothing is done the place is empty, or what has just moved, or is about to, stands still.
    """
    place = make_place(numpy.random.default_rng([seed, GROUP_STREAM, person]))
    rng = numpy.random.default_rng([seed, FILM_STREAM, person, 1])
    bank = (noise_bank(rng) * rng.uniform(1, 5)).astype(numpy.int8).view(numpy.uint8)
    periods, starts, widths = rng.uniform(15, 50, 2), rng.uniform(size=2), rng.uniform(0, 2.5, 2)
    moves = [_movement(rng, place, act) for act in acts]
    for number, (act, move) in enumerate(zip(acts, moves)):
        length = act.stop - act.start
        if move is None:
            draw, look, phases = _pause(rng, place, length, *(
                moves[i] if 0 <= i < len(moves) else None for i in (number - 1, number + 1)))
        else:
            draw, look, phases = move
        for frame, phase in zip(range(act.start, act.stop), phases):
            shake = widths * numpy.sin(2 * numpy.pi * (frame / periods + starts))
            picture = draw_picture(draw, look, phase, tuple(map(int, numpy.rint(shake))))
            # uint8 arithmetic wraps, so adding 254 takes 2 away; colours keep off both ends.
            yield picture + cut_grain(rng, bank)


def _movement(rng, place, act):
    """(pen, look, phases) of an action; None of nothing."""
    if act.label is None:
        return None
    pair = next(names for names in PAIRS if act.label in names[:2])
    phases = make_phases(rng, act.stop - act.start)
    return pair[2], make_look(rng, place), phases[::-1] if act.label == pair[1] else phases


def _pause(rng, place, length, before, after):
    """(pen, look, phases) of a pause between two movements, where they are there."""
    kind = rng.integers(4)
    if kind == 0 and before:
        return *before[:2], numpy.full(length, before[2][-1])
    if kind == 1 and after:
        return *after[:2], numpy.full(length, after[2][0])
    return lambda *_: None, make_look(rng, place), numpy.zeros(length)


def film_recipe(seed, shortest, longest):
    """What a film depends on besides its name; it stands in the file as a comment."""
    return f'{FILM_RECIPE} seed {seed} seconds {shortest:g}-{longest:g}'


def make_film(task):
    """Draws and writes one film; `task` is (path, seed, person, (shortest, longest))."""
    path, seed, person, bounds = task
    with replacing(path) as part:
        write_avi(part, frames(seed, person, plan(seed, person, *bounds)),
                  film_recipe(seed, *bounds))
