"""Pens: strokes, discs and textured shapes with soft edges, and the colours they take.

A picture is (height, width, 3) uint8 RGB and is painted in place; places and lengths are in
pixels, x to the right and y down.
"""
import colorsys

import numpy
from PIL import Image


def pick_colour(rng, hue, saturation, value):
    """A colour near a hue: (3,) float32 RGB that stays clear of 0 and 255.

    The distance to both ends lets noise be added in uint8 without a clip.
    """
    rgb = colorsys.hsv_to_rgb((hue + rng.normal(0, .02)) % 1, rng.uniform(*saturation),
                              rng.uniform(*value))
    return numpy.array(rgb, numpy.float32) * 180 + 38


def cloud(rng, cells, height, width):
    """Smooth random texture: (height, width) float32 of about unit deviation."""
    coarse = rng.normal(size=(max(cells * height // width, 2), cells)).astype(numpy.float32)
    return numpy.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def window(image, x, y, reach_x, reach_y):
    """The part of an image around (x, y): a view, and the pixels' offsets from (x, y)."""
    height, width = image.shape[:2]
    left, right = max(int(x - reach_x), 0), min(int(x + reach_x) + 2, width)
    top, bottom = max(int(y - reach_y), 0), min(int(y + reach_y) + 2, height)
    view = image[top:max(bottom, top), left:max(right, left)]
    dx = numpy.arange(left, left + view.shape[1], dtype=numpy.float32) - numpy.float32(x)
    dy = numpy.arange(top, top + view.shape[0], dtype=numpy.float32) - numpy.float32(y)
    return view, dx[None, :], dy[:, None]


def blend(view, outside, colour, opacity=1.):
    """Paints where `outside` (distance from the shape's edge in pixels) is below zero."""
    alpha = numpy.clip(.5 - outside, 0, 1)[..., None] * numpy.float32(opacity)
    view[...] = view + alpha * (colour - view) + .5


def disc(image, x, y, radius, colour, opacity=1.):
    view, dx, dy = window(image, x, y, radius + 1, radius + 1)
    blend(view, numpy.sqrt(dx * dx + dy * dy) - radius, colour, opacity)


def limb(image, start, end, thickness, colour):
    """A stroke with round ends from start to end, (x, y) in pixels."""
    (x0, y0), (x1, y1) = start, end
    view, dx, dy = window(image, (x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2 + thickness + 1,
                          abs(y1 - y0) / 2 + thickness + 1)
    ax, ay = (x1 - x0) / 2, (y1 - y0) / 2
    along = numpy.clip((dx * ax + dy * ay) / max(ax * ax + ay * ay, 1e-6), -1, 1)
    blend(view, numpy.hypot(dx - along * ax, dy - along * ay) - thickness, colour)


def patch(image, x, y, radius, look, opacity=1.):
    """A textured shape with a dark rim. All its detail grows with the radius."""
    view, dx, dy = window(image, x, y, radius * 1.2 + 2, radius * 1.2 + 2)
    if look['shape'] == 'disc':
        outside = numpy.sqrt(dx * dx + dy * dy) - radius
    elif look['shape'] == 'square':
        outside = numpy.maximum(abs(dx), abs(dy)) - radius * .88
    else:  # a square on its corner
        outside = (abs(dx) + abs(dy) - radius * 1.2) * .7
    turn = look['texture_angle']
    u = (dx * numpy.float32(numpy.cos(turn)) + dy * numpy.float32(numpy.sin(turn))) / radius
    v = (dy * numpy.float32(numpy.cos(turn)) - dx * numpy.float32(numpy.sin(turn))) / radius
    wave = {'stripes': lambda: numpy.sin(7 * u) + 0 * v,
            'checks': lambda: numpy.sin(5 * u) * numpy.sin(5 * v) * 2,
            'rings': lambda: numpy.cos(9 * numpy.hypot(u, v)),
            'plain': lambda: 0 * u + 0 * v + 1}[look['texture']]()
    mix = numpy.clip(wave * 2 + .5, 0, 1)[..., None].astype(numpy.float32)
    colour = look['second'] + mix * (look['first'] - look['second'])
    rim = numpy.clip(outside + max(radius * .12, 2), 0, 1)[..., None]
    blend(view, outside, colour + rim * (look['dark'] - colour), opacity)
