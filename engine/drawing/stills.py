"""Still pictures of the things that the clips show, to name: a stand-in for ImageNet."""
import numpy
from PIL import Image

from engine.drawing.scenes import cut_grain, draw_picture, make_look, make_place, noise_bank
from engine.drawing.shapes import PAIRS

STILL_STREAM = 2  # a random stream of its own, as in engine/drawing/clips.py


def still_labels():
    """(first label of each kind, number of labels)."""
    ends = numpy.cumsum([len(pair[3]) - 1 for pair in PAIRS])
    return [0, *map(int, ends[:-1])], int(ends[-1])


def make_stills(task):
    """Draws labelled still pictures of the kinds of things that the clips show.

    Args:
        task: (seed, part, count, size); each part is an own random stream.
    Returns:
        (count, size, size, 3) uint8 BGR and (count,) int32: what is drawn, and where
        it is, how big, how turned or in which pose.
    """
    seed, part, count, size = task
    rng = numpy.random.default_rng([seed, STILL_STREAM, part])
    firsts, _ = still_labels()
    bank = noise_bank(rng)
    stills = numpy.empty((count, size, size, 3), numpy.uint8)
    labels = numpy.empty(count, numpy.int32)
    for i in range(count):
        if i % 8 == 0:
            place = make_place(rng)
            grain = (bank * rng.uniform(1, 5)).astype(numpy.int8).view(numpy.uint8)
        # Angles and poses are harder to learn than places and sizes.
        kind, phase = int(rng.choice(len(PAIRS), p=(.2, .15, .3, .35))), rng.uniform()
        shift = tuple(int(v) for v in rng.integers(-3, 4, 2))
        picture = draw_picture(PAIRS[kind][2], make_look(rng, place), phase, shift)
        picture += cut_grain(rng, grain)
        stills[i] = numpy.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR))
        edges = PAIRS[kind][3]
        state = int(numpy.searchsorted(edges, phase, side='right')) - 1
        labels[i] = firsts[kind] + state % (len(edges) - 1)
    return stills[..., ::-1], labels
