"""Places and people: what the clips of a group share, what each adds, and a frame of it."""
import numpy

from engine.drawing.pens import cloud, pick_colour
from engine.drawing.shapes import HEIGHT, WIDTH

MARGIN = 8  # how far the camera may shake, in pixels


def make_place(rng):
    """What a group shares: its background and its colours.

    Returns a dict with 'background', (HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3) uint8 RGB,
    and colours as (3,) float32 RGB.
    """
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    hue = rng.uniform()
    wall = pick_colour(rng, hue, (.08, .35), (.55, .95))
    floor = pick_colour(rng, hue + rng.uniform(.05, .2), (.15, .45), (.35, .6))
    horizon = rng.integers(int(height * .74), int(height * .84))
    picture = numpy.empty((height, width, 3), numpy.float32)
    picture[:] = wall
    picture *= numpy.linspace(1.04, .94, height, dtype=numpy.float32)[:, None, None]
    for _ in range(rng.integers(2, 6)):  # frames on the wall
        w, h = rng.integers(25, 90), rng.integers(20, 70)
        x, y = rng.integers(0, width - w), rng.integers(0, horizon - h)
        tint = pick_colour(rng, hue + rng.uniform(-.1, .1), (.1, .35), (.5, .95))
        picture[y:y + h, x:x + w] += .45 * (tint - picture[y:y + h, x:x + w])
    picture[horizon:] = floor
    picture[horizon:horizon + 3] *= .85
    boards = numpy.sin(numpy.arange(width) * rng.uniform(.05, .25)) > .95
    picture[horizon:, boards] *= .9
    picture += 5 * cloud(rng, rng.integers(6, 40), height, width)[..., None]
    thing = hue + rng.uniform(.3, .7)
    return {
        'background': numpy.clip(picture, 32, 223).astype(numpy.uint8),
        'horizon': horizon - MARGIN,
        'first': pick_colour(rng, thing, (.65, 1), (.6, 1)),
        'second': pick_colour(rng, thing + rng.uniform(.08, .3), (.4, .9), (.25, .6)),
        'dark': pick_colour(rng, thing, (.2, .6), (.02, .15)),
        'pale': pick_colour(rng, thing, (.02, .12), (.92, 1)),
        'skin': pick_colour(rng, .07, (.3, .55), (.5, .95)),
        'shape': str(rng.choice(['disc', 'square', 'diamond'])),
        'texture': str(rng.choice(['stripes', 'checks', 'rings', 'plain'])),
        'texture_angle': rng.uniform(0, numpy.pi),
        'build': rng.uniform(.038, .050),
    }


def make_look(rng, place):
    """What one clip adds to its group's look: sizes, positions, tints; a new dict."""
    tint = rng.normal(0, 6, 3).astype(numpy.float32)
    look = {name: numpy.clip(value + tint, 36, 219) if isinstance(value, numpy.ndarray)
            and value.ndim == 1 else value for name, value in place.items()}
    height = rng.uniform(145, 172)
    look.update(
        x=WIDTH / 2 + rng.uniform(-40, 40), y=HEIGHT / 2 + rng.uniform(-36, 20),
        size=rng.uniform(30, 44), largest=rng.uniform(75, 95), face=rng.uniform(72, 88),
        height=height, ground=rng.uniform(max(place['horizon'] + 8, height * 1.12),
                                          HEIGHT - 6),
        shake=(0., 0.))
    return look


def noise_bank(rng):
    """Grains of unit strength to cut frames from: (2 HEIGHT, 2 WIDTH) float32 in [-3, 3]."""
    return numpy.clip(rng.normal(size=(2 * HEIGHT, 2 * WIDTH)), -3, 3).astype(numpy.float32)


def cut_grain(rng, bank):
    """A random cut of the bank, for one frame: (HEIGHT, WIDTH, 1) uint8, modulo 256."""
    y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
    return bank[y:y + HEIGHT, x:x + WIDTH, None]


def draw_picture(draw, look, phase, shift=(0, 0)):
    """One frame without noise: (HEIGHT, WIDTH, 3) uint8 RGB; shift in whole pixels."""
    x, y = MARGIN - shift[0], MARGIN - shift[1]
    image = look['background'][y:y + HEIGHT, x:x + WIDTH].copy()
    draw(image, dict(look, shake=shift), phase)
    return image
