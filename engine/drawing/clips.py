"""Clips: the order of their frames, and the files that hold them."""
import contextlib
import os
import struct
import subprocess

import imageio_ffmpeg
import numpy

from engine.drawing.scenes import cut_grain, draw_picture, make_look, make_place, noise_bank
from engine.drawing.shapes import CLASSES, HEIGHT, PAIRS, WIDTH
from engine.errors import UserError
from engine.files import as_output, replacing

FPS = 25  # as in UCF-101
RECIPE = 'demo 2'  # change it when the drawing changes: old clips are remade
# One random stream for each purpose, so that none depends on how much another drew.
GROUP_STREAM, CLIP_STREAM = range(2)


def make_phases(rng, length):
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
    place = make_place(numpy.random.default_rng([seed, GROUP_STREAM, group]))
    rng = numpy.random.default_rng([seed, CLIP_STREAM, group, CLASSES.index(class_name), clip])
    look = make_look(rng, place)
    length = int(rng.integers(shortest, longest + 1))
    phases = make_phases(rng, length)
    time = numpy.arange(length)[:, None]
    shake = rng.uniform(0, 2.5, 2) * numpy.sin(
        2 * numpy.pi * (time / rng.uniform(15, 50, 2) + rng.uniform(size=2)))
    shake = numpy.rint(shake).astype(int)
    if backwards:
        phases, shake = phases[::-1], shake[::-1]
    bank = (noise_bank(rng) * rng.uniform(1, 5)).astype(numpy.int8).view(numpy.uint8)
    frames = numpy.empty((length, HEIGHT, WIDTH, 3), numpy.uint8)
    for frame, phase, shift in zip(frames, phases, shake):
        # uint8 arithmetic wraps, so adding 254 takes 2 away; colours keep off both ends.
        numpy.add(draw_picture(draw, look, phase, tuple(map(int, shift))), cut_grain(rng, bank),
                  out=frame)
    return frames


# ---------------------------------------------------------------- files

def clip_name(class_name, group, clip):
    return f'v_{class_name}_g{group:02d}_c{clip:02d}'


def recipe_of(seed, shortest, longest):
    """What the clips depend on besides their name; it stands in each file as a comment."""
    return f'{RECIPE} seed {seed} frames {shortest}-{longest}'


def is_whole(path, recipe):
    """Whether path is a complete AVI made by this recipe (its length is in its header)."""
    try:
        with open(path, 'rb') as f:
            head = f.read(16384)  # ffmpeg leaves 4 KiB free before the comment
        return (head[:4] == b'RIFF' and recipe.encode() + b'\0' in head
                and struct.unpack('<I', head[4:8])[0] + 8 == os.path.getsize(path))
    except OSError:
        return False


def write_avi(path, frames, comment):
    """Writes (HEIGHT, WIDTH, 3) uint8 RGB frames, any iterable, as MPEG-4 in AVI; raises
    UserError."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-y', '-f', 'rawvideo',
        '-pix_fmt', 'rgb24', '-s', f'{WIDTH}x{HEIGHT}', '-r', str(FPS),
        '-i', '-', '-c:v', 'mpeg4', '-q:v', '4', '-pix_fmt', 'yuv420p', '-threads', '1',
        '-fflags', '+bitexact', '-flags:v', '+bitexact', '-metadata', f'comment={comment}',
        '-f', 'avi']
    ended = contextlib.suppress(BrokenPipeError)  # it says why
    with ended, open(path, 'w+b') as f, subprocess.Popen(
            [*command, as_output(f)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, pass_fds=[f.fileno()]) as process:
        with ended:
            for frame in frames:
                process.stdin.write(frame)
            process.stdin.close()
        complaint = process.stderr.read()
    if process.returncode:
        raise UserError(f'{path}: ffmpeg could not write it: '
                        f'{complaint.decode(errors="replace").strip()}')


def make_clip(task):
    """Draws and writes one clip; `task` is (path, seed, group, class, clip, bounds)."""
    path, seed, group, class_name, clip, bounds = task
    with replacing(path) as part:
        write_avi(part, render_clip(seed, group, class_name, clip, *bounds),
                  recipe_of(seed, *bounds))
