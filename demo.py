"""Makes a small data set in the shape of UCF-101, and a small VGG for it: no download.

    python demo.py clips    --root demo     # 256 short .avi clips and their lists, half a minute
    python demo.py pretrain --root demo     # ROOT/VGG.model, about a minute

The eight classes are four pairs. A pair shows the same things, in the same places, with
the same people: one class is the other played backwards (never the same clip). So every
single frame, and the average of all frames, looks alike in both classes of a pair; only
the order of the frames tells them apart. A network that sees one frame can name the pair
and then has to guess, which gives about 50 %. What an LSTM gains above that is what it
learnt from time.

`pretrain` stands in for ImageNet: it trains a narrow VGG on still pictures, drawn by the
same pens in other colours and places, to name what is in them and where, how big, how
turned. It is no ImageNet network and knows nothing outside of this demo.

Both stages draw from --seed alone, so the same command makes the same files on the same
machine. A clip or list has its name only once it is whole; a second run makes what is
missing.
"""
import argparse
import colorsys
import contextlib
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import imageio_ffmpeg
import numpy
from PIL import Image
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from VGGNet import VGGNet
from engine.errors import UserError
from engine.files import remove_leftovers, replacing
from engine.weights.modelfile import read_card, save_model
from engine.video.preprocessing import PREPROCESSING, preprocess
from engine.stage import run as stage_main
from engine.variants import CLIPS, LISTS, VGG_MODEL
from helperFunctions import write_list

WIDTH, HEIGHT, FPS = 320, 240, 25  # as in UCF-101
MARGIN = 8                         # how far the camera may shake, in pixels
RECIPE = 'demo 2'                  # change it when the drawing changes: old clips are remade
# One random stream for each purpose, so that none depends on how much another drew.
GROUP_STREAM, CLIP_STREAM, STILL_STREAM, TRAIN_STREAM = range(4)
# The narrow VGG of the demo.
CHANNELS, HIDDEN, INPUT_SIZE = (6, 12, 24, 32, 32), 128, 64
INPUT_SCALE = 64  # pixels less their mean are divided by this while the network trains
STILLS_IN_PART = 100  # drawn by one task
# flag: (default, default with --tiny, what it counts)
CLIPS_NUMBERS = {'--groups': (8, 4, 'places and people of each class'),
                 '--clips-per-group': (4, 2, 'clips of each'),
                 '--shortest': (48, 12, 'frames of the shortest clip'),
                 '--longest': (72, 16, 'frames of the longest clip')}
PRETRAIN_NUMBERS = {'--stills': (2500, 100, 'still pictures to draw'),
                    '--epochs': (5, 2, 'passes over them'),
                    '--batch': (32, 32, 'pictures a step')}


# ---------------------------------------------------------------- pens

def _colour(rng, hue, saturation, value):
    """A colour near a hue: (3,) float32 RGB that stays clear of 0 and 255.

    The distance to both ends lets noise be added in uint8 without a clip.
    """
    rgb = colorsys.hsv_to_rgb((hue + rng.normal(0, .02)) % 1, rng.uniform(*saturation),
                              rng.uniform(*value))
    return numpy.array(rgb, numpy.float32) * 180 + 38


def _cloud(rng, cells, height, width):
    """Smooth random texture: (height, width) float32 of about unit deviation."""
    coarse = rng.normal(size=(max(cells * height // width, 2), cells)).astype(numpy.float32)
    return numpy.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def _window(image, x, y, reach_x, reach_y):
    """The part of an image around (x, y): a view, and the pixels' offsets from (x, y)."""
    height, width = image.shape[:2]
    left, right = max(int(x - reach_x), 0), min(int(x + reach_x) + 2, width)
    top, bottom = max(int(y - reach_y), 0), min(int(y + reach_y) + 2, height)
    view = image[top:max(bottom, top), left:max(right, left)]
    dx = numpy.arange(left, left + view.shape[1], dtype=numpy.float32) - numpy.float32(x)
    dy = numpy.arange(top, top + view.shape[0], dtype=numpy.float32) - numpy.float32(y)
    return view, dx[None, :], dy[:, None]


def _blend(view, outside, colour, opacity=1.):
    """Paints where `outside` (distance from the shape's edge in pixels) is below zero."""
    alpha = numpy.clip(.5 - outside, 0, 1)[..., None] * numpy.float32(opacity)
    view[...] = view + alpha * (colour - view) + .5


def _disc(image, x, y, radius, colour, opacity=1.):
    view, dx, dy = _window(image, x, y, radius + 1, radius + 1)
    _blend(view, numpy.sqrt(dx * dx + dy * dy) - radius, colour, opacity)


def _limb(image, start, end, thickness, colour):
    """A stroke with round ends from start to end, (x, y) in pixels."""
    (x0, y0), (x1, y1) = start, end
    view, dx, dy = _window(image, (x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2 + thickness + 1,
                           abs(y1 - y0) / 2 + thickness + 1)
    ax, ay = (x1 - x0) / 2, (y1 - y0) / 2
    along = numpy.clip((dx * ax + dy * ay) / max(ax * ax + ay * ay, 1e-6), -1, 1)
    _blend(view, numpy.hypot(dx - along * ax, dy - along * ay) - thickness, colour)


def _patch(image, x, y, radius, look, opacity=1.):
    """A textured shape with a dark rim. All its detail grows with the radius."""
    view, dx, dy = _window(image, x, y, radius * 1.2 + 2, radius * 1.2 + 2)
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
    _blend(view, outside, colour + rim * (look['dark'] - colour), opacity)


# ---------------------------------------------------------------- things that move
# Each draws itself at a phase in [0, 1) of its cycle. A clip of the pair's first class runs
# through the phases forwards, a clip of the second backwards.

def _draw_slider(image, look, phase):
    """A patch on the floor that leaves on one side and enters on the other."""
    span = WIDTH + look['size']
    _patch(image, phase * span - look['size'] / 2 + look['shake'][0],
           look['ground'] - look['size'] * .9 + look['shake'][1], look['size'], look)


def _draw_bubble(image, look, phase):
    """A patch from small to large; it fades in when small and out when large."""
    radius = 12 * (look['largest'] / 12) ** phase
    _patch(image, look['x'] + look['shake'][0], look['y'] + look['shake'][1], radius, look,
           min(1., phase / .06, (1 - phase) / .06))


def _draw_dial(image, look, phase):
    """A round face with one hand, like a clock's."""
    x, y = look['x'] + look['shake'][0], look['y'] + look['shake'][1]
    radius, angle = look['face'], 2 * numpy.pi * phase
    _disc(image, x, y, radius, look['dark'])
    _disc(image, x, y, radius * .92, look['pale'])
    for tick in numpy.arange(12) * numpy.pi / 6:
        _disc(image, x + radius * .8 * numpy.sin(tick), y - radius * .8 * numpy.cos(tick),
              radius * .04, look['dark'])
    way = numpy.array([numpy.sin(angle), -numpy.cos(angle)])
    tip = (x, y) + way * radius * .56
    _limb(image, (x, y) - way * radius * .16, tip, radius * .13, look['first'])
    _disc(image, *tip, radius * .27, look['first'])
    _disc(image, x, y, radius * .16, look['second'])


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


def _pose(phase):
    """The joints at a phase: stand, stretch, squat, stand, with eased moves between."""
    i = min(int(numpy.searchsorted(POSE_TIMES, phase, side='right')) - 1, len(POSES) - 2)
    part = (phase - POSE_TIMES[i]) / (POSE_TIMES[i + 1] - POSE_TIMES[i])
    part = part * part * (3 - 2 * part)
    return POSES[i] + part * (POSES[i + 1] - POSES[i])


def _draw_figure(image, look, phase):
    """A person seen from the front."""
    joints = dict(zip(JOINTS, _pose(phase) * look['height']))
    x, ground = look['x'] + look['shake'][0], look['ground'] + look['shake'][1]
    wide = look['height'] * look['build']

    def at(joint, side):
        across, up = joints[joint]
        return x + side * across, ground - up

    for side in (-1, 1):
        _limb(image, at('hip', side), at('knee', side), wide * 1.25, look['second'])
        _limb(image, at('knee', side), at('foot', side), wide, look['second'])
        _limb(image, at('foot', side), (at('foot', side)[0] + side * wide, ground - 2),
              wide * .9, look['dark'])
    for across in (-.7, 0, .7):
        _limb(image, at('shoulder', across), at('hip', across), wide * 1.5, look['first'])
    for side in (-1, 1):
        _limb(image, at('shoulder', side), at('elbow', side), wide * .95, look['first'])
        _limb(image, at('elbow', side), at('hand', side), wide * .85, look['first'])
        _disc(image, *at('hand', side), wide * .95, look['skin'])
    _limb(image, at('neck', 0), at('head', 0), wide * .8, look['skin'])
    _disc(image, *at('head', 0), wide * 1.9, look['skin'])
    view, dx, dy = _window(image, *at('head', 0), wide * 2, wide * 2)
    _blend(view, numpy.maximum(numpy.hypot(dx, dy) - wide * 1.95, dy + wide * .6),
           look['dark'])


# Class that runs forwards, class that runs backwards, pen, and for `pretrain` the phases
# at which one state ends and the next begins (a figure stands at both ends of its cycle).
PAIRS = (('MoveRight', 'MoveLeft', _draw_slider, numpy.linspace(0, 1, 13)),
         ('Grow', 'Shrink', _draw_bubble, numpy.linspace(0, 1, 9)),
         ('TurnClockwise', 'TurnCounterclockwise', _draw_dial, numpy.linspace(0, 1, 13)),
         ('StretchThenSquat', 'SquatThenStretch', _draw_figure, POSE_TIMES[:-1]))
CLASSES = sorted(name for pair in PAIRS for name in pair[:2])


# ---------------------------------------------------------------- places, people, clips

def _place(rng):
    """What a group shares: its background and its colours.

    Returns a dict with 'background', (HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3) uint8 RGB,
    and colours as (3,) float32 RGB.
    """
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    hue = rng.uniform()
    wall = _colour(rng, hue, (.08, .35), (.55, .95))
    floor = _colour(rng, hue + rng.uniform(.05, .2), (.15, .45), (.35, .6))
    horizon = rng.integers(int(height * .74), int(height * .84))
    picture = numpy.empty((height, width, 3), numpy.float32)
    picture[:] = wall
    picture *= numpy.linspace(1.04, .94, height, dtype=numpy.float32)[:, None, None]
    for _ in range(rng.integers(2, 6)):  # frames on the wall
        w, h = rng.integers(25, 90), rng.integers(20, 70)
        x, y = rng.integers(0, width - w), rng.integers(0, horizon - h)
        tint = _colour(rng, hue + rng.uniform(-.1, .1), (.1, .35), (.5, .95))
        picture[y:y + h, x:x + w] += .45 * (tint - picture[y:y + h, x:x + w])
    picture[horizon:] = floor
    picture[horizon:horizon + 3] *= .85
    boards = numpy.sin(numpy.arange(width) * rng.uniform(.05, .25)) > .95
    picture[horizon:, boards] *= .9
    picture += 5 * _cloud(rng, rng.integers(6, 40), height, width)[..., None]
    thing = hue + rng.uniform(.3, .7)
    return {
        'background': numpy.clip(picture, 32, 223).astype(numpy.uint8),
        'horizon': horizon - MARGIN,
        'first': _colour(rng, thing, (.65, 1), (.6, 1)),
        'second': _colour(rng, thing + rng.uniform(.08, .3), (.4, .9), (.25, .6)),
        'dark': _colour(rng, thing, (.2, .6), (.02, .15)),
        'pale': _colour(rng, thing, (.02, .12), (.92, 1)),
        'skin': _colour(rng, .07, (.3, .55), (.5, .95)),
        'shape': str(rng.choice(['disc', 'square', 'diamond'])),
        'texture': str(rng.choice(['stripes', 'checks', 'rings', 'plain'])),
        'texture_angle': rng.uniform(0, numpy.pi),
        'build': rng.uniform(.038, .050),
    }


def _look(rng, place):
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


def _noise_bank(rng):
    """Grains of unit strength to cut frames from: (2 HEIGHT, 2 WIDTH) float32 in [-3, 3]."""
    return numpy.clip(rng.normal(size=(2 * HEIGHT, 2 * WIDTH)), -3, 3).astype(numpy.float32)


def _grain(rng, bank):
    """A random cut of the bank, for one frame: (HEIGHT, WIDTH, 1) uint8, modulo 256."""
    y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
    return bank[y:y + HEIGHT, x:x + WIDTH, None]


def _picture(draw, look, phase, shift=(0, 0)):
    """One frame without noise: (HEIGHT, WIDTH, 3) uint8 RGB; shift in whole pixels."""
    x, y = MARGIN - shift[0], MARGIN - shift[1]
    image = look['background'][y:y + HEIGHT, x:x + WIDTH].copy()
    draw(image, dict(look, shake=shift), phase)
    return image


def _phases(rng, length):
    """Phases of `length` frames that run forwards: (length,) float64 in [0, 1).

    The start is uniform over the cycle and the speed's wobble has a random start too. So
    the phase of each frame is uniform whichever way the clip runs, and a reversed clip is
    distributed like the phases of a clip that runs backwards.
    """
    period = rng.uniform(24, 42)
    time = numpy.arange(length)
    wobble = .12 * numpy.sin(2 * numpy.pi * (time / rng.uniform(20, 60) + rng.uniform()))
    return (rng.uniform() + time / period + wobble / 2 / numpy.pi) % 1


def render_clip(seed, group, class_name, clip, shortest, longest):
    """Draws one clip.

    Args:
        seed, group, clip (int): which clip; group and clip count from 1.
        class_name (str): one of CLASSES.
        shortest, longest (int): bounds of the number of frames, both included.
    Returns:
        (T, HEIGHT, WIDTH, 3) uint8 RGB.
    """
    pair = next(i for i, names in enumerate(PAIRS) if class_name in names[:2])
    draw, backwards = PAIRS[pair][2], class_name == PAIRS[pair][1]
    # Both classes of a pair share the group's place and people, as the same person would
    # film both; a frame network cannot even learn the clips by heart.
    place = _place(numpy.random.default_rng([seed, GROUP_STREAM, group]))
    rng = numpy.random.default_rng([seed, CLIP_STREAM, group, CLASSES.index(class_name), clip])
    look = _look(rng, place)
    length = int(rng.integers(shortest, longest + 1))
    phases = _phases(rng, length)
    time = numpy.arange(length)[:, None]
    shake = rng.uniform(0, 2.5, 2) * numpy.sin(
        2 * numpy.pi * (time / rng.uniform(15, 50, 2) + rng.uniform(size=2)))
    shake = numpy.rint(shake).astype(int)
    if backwards:
        phases, shake = phases[::-1], shake[::-1]
    bank = (_noise_bank(rng) * rng.uniform(1, 5)).astype(numpy.int8).view(numpy.uint8)
    frames = numpy.empty((length, HEIGHT, WIDTH, 3), numpy.uint8)
    for frame, phase, shift in zip(frames, phases, shake):
        # uint8 arithmetic wraps, so adding 254 takes 2 away; colours keep off both ends.
        numpy.add(_picture(draw, look, phase, tuple(map(int, shift))), _grain(rng, bank),
                  out=frame)
    return frames


# ---------------------------------------------------------------- files

def _clip_name(class_name, group, clip):
    return f'v_{class_name}_g{group:02d}_c{clip:02d}'


def _recipe(seed, shortest, longest):
    """What the clips depend on besides their name; it stands in each file as a comment."""
    return f'{RECIPE} seed {seed} frames {shortest}-{longest}'


def _is_whole(path, recipe):
    """Whether path is a complete AVI made by this recipe (its length is in its header)."""
    try:
        with open(path, 'rb') as f:
            head = f.read(16384)  # ffmpeg leaves 4 KiB free before the comment
        return (head[:4] == b'RIFF' and recipe.encode() + b'\0' in head
                and struct.unpack('<I', head[4:8])[0] + 8 == os.path.getsize(path))
    except OSError:
        return False


def write_avi(path, frames, comment):
    """Writes (T, H, W, 3) uint8 RGB frames as MPEG-4 in AVI; raises UserError."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-y', '-f', 'rawvideo',
        '-pix_fmt', 'rgb24', '-s', f'{frames.shape[2]}x{frames.shape[1]}', '-r', str(FPS),
        '-i', '-', '-c:v', 'mpeg4', '-q:v', '4', '-pix_fmt', 'yuv420p', '-threads', '1',
        '-fflags', '+bitexact', '-flags:v', '+bitexact', '-metadata', f'comment={comment}',
        '-f', 'avi', path]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True)
    if done.returncode:
        raise UserError(f'{path}: ffmpeg could not write it: '
                        f'{done.stderr.decode(errors="replace").strip()}')


def _make_clip(task):
    """Draws and writes one clip; `task` is (path, seed, group, class, clip, bounds)."""
    path, seed, group, class_name, clip, bounds = task
    with replacing(path) as part:
        write_avi(part, render_clip(seed, group, class_name, clip, *bounds),
                  _recipe(seed, *bounds))


def _write_lists(folder, groups, clips_per_group):
    """Writes classInd.txt and three train/test splits in the official format.

    As officially, a split tests on whole groups; 1 on the first ones, 2 on the next.
    """
    write_list(folder / 'classInd.txt', [f'{i} {name}' for i, name in enumerate(CLASSES, 1)])
    n_test = max(1, groups * 3 // 8)
    for split in (1, 2, 3):
        tested = {((split - 1) * n_test + i) % groups + 1 for i in range(n_test)}
        train, test = [], []
        for label, name in enumerate(CLASSES, 1):
            for group in range(1, groups + 1):
                for clip in range(1, clips_per_group + 1):
                    line = f'{name}/{_clip_name(name, group, clip)}.avi'
                    if group in tested:
                        test.append(line)
                    else:
                        train.append(f'{line} {label}')
        write_list(folder / f'trainlist{split:02d}.txt', train)
        write_list(folder / f'testlist{split:02d}.txt', test)


def _progress(work, total, what, out=sys.stdout):
    """Passes `work` on with a bar on a terminal, and a plain line each quarter elsewhere."""
    if out.isatty():
        yield from tqdm(work, total=total, desc=what, file=out)
        return
    for done, item in enumerate(work, 1):
        if done * 4 // total > (done - 1) * 4 // total:
            print(f'{what}: {done} of {total}', file=out, flush=True)
        yield item


@contextlib.contextmanager
def _workers(n):
    """A pool of processes that leave at Ctrl-C without a word and without a part file."""
    pool = multiprocessing.get_context('spawn').Pool(max(n, 1), initializer=_quiet_worker)
    with pool:  # ends the workers if something goes wrong
        yield pool
        pool.close()
        pool.join()


def _quiet_worker():
    # The main process hears Ctrl-C and ends its workers; SystemExit runs their clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def make_clips(args):
    """Makes the clips and their lists."""
    if args.groups < 2 or args.clips_per_group < 1:
        raise UserError('--groups must be 2 or more (one side of the split would be empty), '
                        '--clips-per-group 1 or more')
    if not 1 <= args.shortest <= args.longest:
        raise UserError('--shortest must be at least 1 and at most --longest')
    class_index = args.root / LISTS / 'classInd.txt'
    if class_index.exists() and class_index.read_text().split()[1::2] != CLASSES:
        raise UserError(f'{class_index}: another data set stands here; '
                        'give the demo a folder of its own, such as --root demo')
    bounds = args.shortest, args.longest
    tasks = [(str(args.root / CLIPS / name / f'{_clip_name(name, group, clip)}.avi'),
              args.seed, group, name, clip, bounds)
             for name in CLASSES for group in range(1, args.groups + 1)
             for clip in range(1, args.clips_per_group + 1)]
    missing = [task for task in tasks if not _is_whole(task[0], _recipe(args.seed, *bounds))]
    if len(missing) < len(tasks):
        print(f'{len(tasks) - len(missing)} clips are there already')
    remove_leftovers(task[0] for task in tasks)
    if missing:
        with _workers(args.workers) as pool:
            for _ in _progress(pool.imap_unordered(_make_clip, missing), len(missing), 'clips'):
                pass
    _write_lists(args.root / LISTS, args.groups, args.clips_per_group)
    print(f'{args.root}: {len(tasks)} clips of {len(CLASSES)} classes, '
          f'{args.groups} groups, three splits')


# ---------------------------------------------------------------- the stand-in for ImageNet

def _still_labels():
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
    firsts, _ = _still_labels()
    bank = _noise_bank(rng)
    stills = numpy.empty((count, size, size, 3), numpy.uint8)
    labels = numpy.empty(count, numpy.int32)
    for i in range(count):
        if i % 8 == 0:
            place = _place(rng)
            grain = (bank * rng.uniform(1, 5)).astype(numpy.int8).view(numpy.uint8)
        # Angles and poses are harder to learn than places and sizes.
        kind, phase = int(rng.choice(len(PAIRS), p=(.2, .15, .3, .35))), rng.uniform()
        shift = tuple(int(v) for v in rng.integers(-3, 4, 2))
        picture = _picture(PAIRS[kind][2], _look(rng, place), phase, shift)
        picture += _grain(rng, grain)
        stills[i] = numpy.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR))
        edges = PAIRS[kind][3]
        state = int(numpy.searchsorted(edges, phase, side='right')) - 1
        labels[i] = firsts[kind] + state % (len(edges) - 1)
    return stills[..., ::-1], labels


def _scores(model, x):
    """model(x) without dropout, in half the time that Chainer's convolution takes to train.

    The columns of an im2col lie ready for one matrix product a picture; Chainer's own
    convolution first transposes them, and with so few channels that is most of its time.
    """
    for name in model.conv_names:
        layer = model[name]
        n, channels, height, width = x.shape
        weights = F.reshape(layer.W, (1, -1, channels * 9))
        weights = F.broadcast_to(weights, (n,) + weights.shape[1:])
        columns = F.reshape(F.im2col(x, 3, pad=1), (n, channels * 9, height * width))
        x = F.reshape(F.matmul(weights, columns), (n, -1, height, width))
        x = F.relu(F.bias(x, layer.b))
        if model.pooled_after(name):
            x = F.max_pooling_2d(x, 2, stride=2)
    return model.fc8(F.relu(model.fc7(F.relu(model.fc6(x)))))


def _gradient(model, pictures, labels):
    """Leaves the gradient of the mean loss in the model; returns the loss."""
    x = preprocess(pictures) / INPUT_SCALE
    loss = F.softmax_cross_entropy(_scores(model, x), labels)
    model.cleargrads()
    loss.backward()
    return float(loss.array)


def _train(model, stills, labels, epochs, batch, rng):
    """Trains the network; yields each epoch's mean loss.

    Each of two threads takes half of every batch on a copy of the model (always two,
    as the number decides how sums are rounded). NumPy frees the interpreter meanwhile;
    BLAS threads on top would only stand in the way.
    """
    optimizer = chainer.optimizers.Adam(alpha=1e-3).setup(model)
    steps = epochs * (len(stills) // batch)
    twin = model.copy('copy')
    with threadpool_limits(1), ThreadPoolExecutor(1) as thread:
        for epoch in range(epochs):
            order = rng.permutation(len(stills))[:len(stills) // batch * batch]
            total = 0.
            for step, picked in enumerate(order.reshape(-1, batch)):
                # Falls in a straight line from its first value to 0.
                optimizer.alpha = 1e-3 * (1 - (epoch * (len(stills) // batch) + step) / steps)
                mine, other = picked[:batch // 2], picked[batch // 2:]
                twin.copyparams(model)
                loss = thread.submit(_gradient, twin, stills[other], labels[other])
                total += _gradient(model, stills[mine], labels[mine]) + loss.result()
                model.addgrads(twin)
                optimizer.update()
            yield total / 2 / (step + 1)


def pretrain(args):
    """Trains the stand-in for ImageNet weights."""
    if args.batch < 2 or args.batch % 2 or args.stills < args.batch or args.epochs < 1:
        raise UserError('--batch must be even, --stills at least a batch, --epochs at least 1')
    path = args.root / VGG_MODEL
    remove_leftovers([path])
    what = {'made_by': 'demo.py pretrain', 'seed': args.seed, 'stills': args.stills,
            'epochs': args.epochs, 'batch': args.batch, 'recipe': RECIPE}
    if path.exists():
        card = read_card(path)
        if card.get('made_by') != what['made_by']:
            raise UserError(f'{path}: not made by this stage and not overwritten; '
                            'give the demo a folder of its own, such as --root demo')
        if all(card.get(key) == value for key, value in what.items()):
            print(f'{path} is there already')
            return
    print('A stand-in for ImageNet weights: a narrow VGG learns still pictures drawn by this '
          'script. It knows nothing outside of the demo.')
    firsts, n_classes = _still_labels()
    shape = dict(channels=CHANNELS, hidden=HIDDEN, n_classes=n_classes, input_size=INPUT_SIZE)
    n_train = -(-args.stills // STILLS_IN_PART)
    n_held_out = -(-n_train // 10)
    tasks = [(args.seed, part, STILLS_IN_PART, INPUT_SIZE)
             for part in range(n_train + n_held_out)]
    with _workers(args.workers) as pool:
        made = list(_progress(pool.imap(make_stills, tasks), len(tasks), 'stills'))
    stills, labels = (numpy.concatenate(arrays) for arrays in zip(*made))
    start = n_train * STILLS_IN_PART
    held_out, held_out_labels = stills[start:], labels[start:]
    stills, labels = stills[:args.stills], labels[:args.stills]

    # Chainer's initialisers draw from NumPy's global state.
    numpy.random.seed(args.seed)
    model = VGGNet(**shape)
    rng = numpy.random.default_rng([args.seed, TRAIN_STREAM])
    training = _train(model, stills, labels, args.epochs, args.batch, rng)
    for epoch, loss in enumerate(training, 1):
        if not numpy.isfinite(loss):
            raise UserError(f'the loss is {loss} in epoch {epoch}; try another --seed')
        print(f'epoch {epoch} of {args.epochs}: loss {loss:.3f}', flush=True)
    # The network was trained on inputs of about unit size; from now on it takes them as
    # the other stages give them.
    model.expect_input(INPUT_SCALE)
    with chainer.no_backprop_mode():
        named = numpy.concatenate([
            _scores(model, preprocess(held_out[i:i + 50])).array.argmax(axis=1)
            for i in range(0, len(held_out), 50)])
    accuracy = float((named == held_out_labels).mean())
    kinds = numpy.searchsorted(firsts, [named, held_out_labels], side='right')
    print(f'{len(held_out)} stills held out: {accuracy:.1%} right of {n_classes} labels, '
          f'{float((kinds[0] == kinds[1]).mean()):.1%} of the kinds')
    save_model(path, model, dict(
        what, shape=model.shape, preprocessing=PREPROCESSING, accuracy=accuracy,
        note='narrow stand-in trained on drawn stills; not an ImageNet network'))
    print(f'{path} written')


def build_parser(tiny=False):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True, metavar='STAGE')
    for name, stage, numbers in (('clips', make_clips, CLIPS_NUMBERS),
                                 ('pretrain', pretrain, PRETRAIN_NUMBERS)):
        one = stages.add_parser(name, help=stage.__doc__, description=stage.__doc__)
        one.set_defaults(stage=stage)
        one.add_argument('--root', type=Path, default=Path('demo'), metavar='DIR',
                         help='folder to write into (default: demo)')
        one.add_argument('--seed', type=int, default=0,
                         help='start of every random choice (default: 0)')
        one.add_argument('--tiny', action='store_true',
                         help='just enough to see every stage work; '
                              'flags given beside it still count')
        one.add_argument('--workers', type=int, default=os.cpu_count(), metavar='N',
                         help='processes that draw (default: one a core)')
        for flag, (usual, small, what) in numbers.items():
            one.add_argument(flag, type=int, default=small if tiny else usual, metavar='N',
                             help=f'{what} (default: {usual}; tiny: {small})')
    return parser


def main():
    args = build_parser('--tiny' in sys.argv).parse_args()
    return args.stage(args)


if __name__ == '__main__':
    stage_main(main)
