"""Things that move, one for each pair of classes.

Each draws itself at a phase in [0, 1) of its cycle. A clip of the pair's first class runs
through the phases forwards, a clip of the second backwards.
"""
import numpy

from engine.drawing.pens import blend, disc, limb, patch, window

WIDTH, HEIGHT = 320, 240  # of a frame, as in UCF-101


def draw_slider(image, look, phase):
    """A patch on the floor that leaves on one side and enters on the other."""
    span = WIDTH + look['size']
    patch(image, phase * span - look['size'] / 2 + look['shake'][0],
          look['ground'] - look['size'] * .9 + look['shake'][1], look['size'], look)


def draw_bubble(image, look, phase):
    """A patch from small to large; it fades in when small and out when large."""
    radius = 12 * (look['largest'] / 12) ** phase
    patch(image, look['x'] + look['shake'][0], look['y'] + look['shake'][1], radius, look,
          min(1., phase / .06, (1 - phase) / .06))


def draw_dial(image, look, phase):
    """A round face with one hand, like a clock's."""
    x, y = look['x'] + look['shake'][0], look['y'] + look['shake'][1]
    radius, angle = look['face'], 2 * numpy.pi * phase
    disc(image, x, y, radius, look['dark'])
    disc(image, x, y, radius * .92, look['pale'])
    for tick in numpy.arange(12) * numpy.pi / 6:
        disc(image, x + radius * .8 * numpy.sin(tick), y - radius * .8 * numpy.cos(tick),
             radius * .04, look['dark'])
    way = numpy.array([numpy.sin(angle), -numpy.cos(angle)])
    tip = (x, y) + way * radius * .56
    limb(image, (x, y) - way * radius * .16, tip, radius * .13, look['first'])
    disc(image, *tip, radius * .27, look['first'])
    disc(image, x, y, radius * .16, look['second'])


# The right half of a figure of height 1 with its feet at 0: (across, up) of every joint.
JOINTS = ('head', 'neck', 'shoulder', 'elbow', 'hand', 'hip', 'knee', 'foot')
STAND = numpy.array([(0, .91), (0, .80), (.11, .77), (.16, .61), (.17, .46), (.06, .46),
                     (.075, .24), (.085, .02)])
STRETCH = numpy.array([(0, .92), (0, .80), (.11, .79), (.24, .90), (.33, 1.04), (.07, .46),
                       (.12, .24), (.17, .02)])
SQUAT = numpy.array([(0, .63), (0, .52), (.11, .49), (.25, .42), (.36, .50), (.07, .20),
                     (.21, .25), (.13, .02)])
POSE_TIMES = (0, .12, .27, .42, .59, .74, .89, 1)
POSES = numpy.stack([STAND, STAND, STRETCH, STRETCH, SQUAT, SQUAT, STAND, STAND])


def pose(phase):
    """The joints at a phase: stand, stretch, squat, stand, with eased moves between."""
    i = min(int(numpy.searchsorted(POSE_TIMES, phase, side='right')) - 1, len(POSES) - 2)
    part = (phase - POSE_TIMES[i]) / (POSE_TIMES[i + 1] - POSE_TIMES[i])
    part = part * part * (3 - 2 * part)
    return POSES[i] + part * (POSES[i + 1] - POSES[i])


def draw_figure(image, look, phase):
    """A person seen from the front."""
    joints = dict(zip(JOINTS, pose(phase) * look['height']))
    x, ground = look['x'] + look['shake'][0], look['ground'] + look['shake'][1]
    wide = look['height'] * look['build']

    def at(joint, side):
        across, up = joints[joint]
        return x + side * across, ground - up

    for side in (-1, 1):
        limb(image, at('hip', side), at('knee', side), wide * 1.25, look['second'])
        limb(image, at('knee', side), at('foot', side), wide, look['second'])
        limb(image, at('foot', side), (at('foot', side)[0] + side * wide, ground - 2),
             wide * .9, look['dark'])
    for across in (-.7, 0, .7):
        limb(image, at('shoulder', across), at('hip', across), wide * 1.5, look['first'])
    for side in (-1, 1):
        limb(image, at('shoulder', side), at('elbow', side), wide * .95, look['first'])
        limb(image, at('elbow', side), at('hand', side), wide * .85, look['first'])
        disc(image, *at('hand', side), wide * .95, look['skin'])
    limb(image, at('neck', 0), at('head', 0), wide * .8, look['skin'])
    disc(image, *at('head', 0), wide * 1.9, look['skin'])
    view, dx, dy = window(image, *at('head', 0), wide * 2, wide * 2)
    blend(view, numpy.maximum(numpy.hypot(dx, dy) - wide * 1.95, dy + wide * .6),
          look['dark'])


# Class that runs forwards, class that runs backwards, pen, and for `pretrain` the phases
# at which one state ends and the next begins (a figure stands at both ends of its cycle).
PAIRS = (('MoveRight', 'MoveLeft', draw_slider, numpy.linspace(0, 1, 13)),
         ('Grow', 'Shrink', draw_bubble, numpy.linspace(0, 1, 9)),
         ('TurnClockwise', 'TurnCounterclockwise', draw_dial, numpy.linspace(0, 1, 13)),
         ('StretchThenSquat', 'SquatThenStretch', draw_figure, POSE_TIMES[:-1]))
CLASSES = sorted(name for pair in PAIRS for name in pair[:2])
