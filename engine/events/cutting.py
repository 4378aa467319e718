"""Cutting clips out of films: to the frame, and without loss.

A frame belongs to a clip if it is shown at its start or later, and before its stop. The film is
decoded from its beginning (seeking would give other frames in some files), once for many clips.
Clips hold the film's own pixels: what networks see of a clip is what they would see of the film.
"""
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy

from engine.errors import UserError
from engine.files import make_folder, put
from engine.video.container import shape_of
from engine.video.decode import count_frames
from engine.video.ffmpeg import command, complaint_of, opened, run

# Times of annotations are rounded to a millisecond, and those of some containers, too.
ROUNDED = 0.0006
# Clips cut by one decoding; each costs a few threads and an open file.
AT_ONCE = 24
# What the encoder of H.264 stores as it is; all else goes to FFV1, which is slower to read.
H264 = {f'yuv{full}{form}p' for full in ('', 'j') for form in ('420', '422', '444')}


class Cut(NamedTuple):
    """A clip to be cut: where to, its first frame in the film and how many there are."""
    target: Path
    first: int
    count: int


def frames_of(times, start, stop):
    """(first frame, how many) that are shown from `start` on and before `stop`, seconds."""
    first, end = numpy.searchsorted(times, (start - ROUNDED, stop - ROUNDED))
    return int(first), int(end - first)


def cut(path, times, cuts, part):
    """Cuts clips out of a film; each appears whole or not at all.

    Args:
        path: the film.
        times: seconds of its frames, from engine.events.films.survey.
        cuts: list of Cut.
        part: folder for what is half written, in the file system of the targets.

    Yields:
        (list of Cut that are in place, lines that name each one that could not be cut), for
        AT_ONCE of them at a time.

    Raises:
        UserError: nothing can be written there.
    """
    shape = shape_of(path)
    cuts = sorted(cuts, key=lambda cut: cut.first)
    for i in range(0, len(cuts), AT_ONCE):
        shutil.rmtree(part, ignore_errors=True)
        try:
            make_folder(part)
            yield _cut_some(path, shape, times, cuts[i:i + AT_ONCE], part)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _cut_some(path, shape, times, cuts, part):
    # Next to nothing goes to the pipe, frame by frame: if we die, ffmpeg ends, too.
    words = ['-map', shape.map, '-vf', 'scale=2:2:flags=neighbor', '-fps_mode', 'passthrough',
             '-frames:v', max(cut.first + cut.count for cut in cuts), '-pix_fmt', 'gray',
             '-f', 'rawvideo', '-flush_packets', 1, 'pipe:1']
    parts = {part / f'{i}.mkv': cut for i, cut in enumerate(cuts)}
    for temporary, cut in parts.items():
        words += ['-map', shape.map, *_output(shape, times, cut), '-y', f'file:{temporary}']
    done = run(command('-threads', 1, *opened(path), *words), path)
    if done.code:
        reason = complaint_of(done.log, path, writing=True) or 'ffmpeg says no more'
        raise UserError(f'{path}: no clips could be cut ({reason}); check space and rights in '
                        f'{part.parent}')
    right, wrong = [], []
    for temporary, cut in parts.items():
        found = count_frames(temporary)
        if found == cut.count:
            make_folder(cut.target.parent)
            put(temporary, cut.target)
            right.append(cut)
        else:
            wrong.append(f'{cut.target}: only {found} of {cut.count} frames could be cut')
    return right, wrong


def _output(shape, times, cut):
    """The words of ffmpeg for one clip, but for its file."""
    shown = numpy.asarray(times[cut.first:cut.first + cut.count])
    # Stamps that do not grow by a millisecond are none that Matroska takes.
    steady = len(shown) < 2 or numpy.diff(shown).min() >= 1e-3
    period = (shown[-1] - shown[0]) / max(len(shown) - 1, 1) or 0.04
    stamps = 'PTS-STARTPTS' if steady else f'N*{period:.6f}/TB'
    h264 = shape.stored in H264 and shape.width % 2 == shape.height % 2 == 0
    codec = (['-c:v', 'libx264', '-qp', '0', '-preset', 'ultrafast'] if h264 else
             ['-c:v', 'ffv1', '-level', 3, '-g', 1,
              *(['-color_range', 'pc'] if shape.full_range else [])])
    return ['-vf', f'select=between(n\\,{cut.first}\\,{cut.first + cut.count - 1}),'
                   f'setpts={stamps},scale={shape.width}:{shape.height}',
            '-frames:v', cut.count, '-fps_mode', 'passthrough', '-enc_time_base', 'demux',
            '-threads', 1, *codec, '-an', '-sn', '-dn', '-map_metadata', -1, '-f', 'matroska']
