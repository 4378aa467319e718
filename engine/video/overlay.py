"""Predictions drawn as labels on a copy of a video.

The copy is made by one ffmpeg that lays a few still panels over the video's own frames, so
that no frame passes through Python and each keeps its moment, also where the rate varies.
"""
import os
import re
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from engine.drawing.fonts import Lettering
from engine.files import as_output, replacing
from engine.video.container import shape_of
from engine.video.ffmpeg import VideoError, command, complaint_of, opened, run

# What players find in an .mp4; other sound becomes AAC.
COPIED_SOUND = ('aac', 'mp3', 'ac3', 'eac3', 'alac', 'opus')


def panel(rows, shape):
    """Draws class names with bars and percentages.

    Args:
        rows: [(name, probability)], the best first; a low video has no room for all. A
            probability of None is not shown.
        shape: engine.video.container.Shape of the video.

    Returns:
        PIL image, RGBA, no larger than the video, in its pixels, square or not.
    """
    image = _drawn(rows, max(1, round(shape.width * shape.pixel)), shape.height)
    if shape.pixel != 1:
        image = image.resize((max(1, round(image.width / shape.pixel)), image.height))
    return image.crop((0, 0, min(image.width, shape.width), image.height))


def _drawn(rows, width, height):
    """The panel for a video of so many square pixels."""
    letters = max(10, round(min(0.034 * height, 0.06 * width)))
    line, margin = round(1.6 * letters), max(3, letters // 3)
    rows = rows[:max(1, (round(0.45 * height) - margin) // line)]
    room = Lettering('100 %', letters).width() + 4 * margin
    inner = min(width - 2 * margin, max(18 * letters, min(round(0.42 * width), 40 * letters)))
    if inner - room < 5 * letters:  # too small for both: the name says more than the share
        rows, room = [(name, None) for name, _ in rows], 4 * margin
    image = Image.new('RGBA', (max(inner, 8), margin + line * len(rows)), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((0, 0, image.width - 1, image.height - 1), margin, (12, 18, 26, 215))
    for number, (name, probability) in enumerate(rows):
        top = margin + number * line
        bar = (image.width - 2 * margin - 1) * min(max(probability or 0.0, 0.0), 1.0)
        if bar >= 1:
            pen.rectangle((margin, top, margin + round(bar), top + line - margin - 1),
                          (45, 125, 205, 255) if number == 0 else (70, 95, 125, 255))
        colour = (255, 255, 255, 255) if number == 0 else (215, 222, 230, 255)
        middle = top + (line - margin) / 2
        _fitting(name, letters, image.width - room).draw(pen, 2 * margin, middle, colour)
        if probability is not None:
            share = Lettering(f'{100 * probability:.0f} %', letters)
            share.draw(pen, image.width - 2 * margin - share.width(), middle, colour)
    return image.crop((0, 0, min(image.width, width), min(image.height, height)))


def _fitting(text, size, room):
    """The text, or as much of its start as `room` pixels hold, as Lettering."""
    shown = Lettering(text, size)
    while text and shown.width() > room:
        text = text[:-1]
        shown = Lettering(text + '\u2026' if text else '', size)
    return shown


def label_video(source, path, panels, shape=None):
    """Writes a copy of a video, as .mp4, with panels in its lower left corner.

    Size, frames and their moments are the source's own; so is the sound, copied where an
    .mp4 can hold it, else as AAC. The file appears whole or not at all.

    Args:
        panels: iterable of (seconds from which it is shown, PIL image); all of one size.
        shape: engine.video.container.Shape of the source, if it is known.

    Returns:
        A list of lines, one for each sound track that had to be left out, with the reason.

    Raises:
        VideoError: ffmpeg cannot do it; the text says why.
    """
    shape = shape or shape_of(source)
    sound, silent = _sound(source, shape.sounds)
    margin = max(2, min(shape.width, shape.height) // 40)
    with (replacing(path) as temporary, open(temporary, 'w+b') as f,
          tempfile.TemporaryDirectory() as folder):
        _write_panels(Path(folder), panels)
        words = command(
            # the list is found by its folder: a name of any kind may stand in a longer path
            '-y', *opened(os.path.abspath(source)), '-f', 'concat', '-safe', '0', '-i',
            'panels.txt',
            '-filter_complex',
            f'[{shape.map}][1:v]overlay={margin}:H-h-{margin}:eof_action=repeat:format=auto,'
            'split[v][w];[w]scale=2:2:flags=neighbor,format=gray[alive]',
            '-map', '[v]', *sound, '-fps_mode', 'passthrough', '-enc_time_base', 'demux',
            '-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20',
            # Odd sides need the form of H.264 that not every player knows.
            '-pix_fmt', 'yuv444p' if shape.width % 2 or shape.height % 2 else 'yuv420p',
            '-movflags', '+faststart', '-f', 'mp4', as_output(f),
            # ends it when nobody reads any more
            '-map', '[alive]', '-fps_mode', 'passthrough', '-f', 'rawvideo', '-flush_packets', 1,
            'pipe:1')
        done = run(words, source, cwd=folder, pass_fds=[f.fileno()])
        if done.code:
            raise VideoError(f'{source}: no labelled copy could be made ('
                             f'{complaint_of(done.log, source, True) or "ffmpeg gave no reason"})')
    return silent


def _write_panels(folder, panels):
    """Writes the panels as pictures, and the list by which ffmpeg shows each in its time."""
    with open(folder / 'panels.txt', 'w', encoding='utf-8') as f:
        f.write('ffconcat version 1.0\n')
        before = None
        for number, (moment, image) in enumerate(panels):
            image.save(folder / f'{number}.png', compress_level=1)
            if before is not None:
                f.write(f'duration {max(moment - before, 0.001):.3f}\n')
            # without it moments would be rounded to a 25th of a second
            f.write(f'file {number}.png\noption framerate 1000\n')
            before = moment if number else 0.0


def _sound(source, tracks):
    """(what ffmpeg is told of a video's sound tracks, a line for each that is left out).

    Each is tried alone and to its end, in seconds: copied, else as AAC of the same channels if
    players know these, else as AAC in stereo at 48 kHz; damage and forms that an .mp4 or the
    encoder does not take show then.
    """
    words, silent, kept = [], [], 0
    for number, track in enumerate(tracks):
        usual = bool(re.match(r'mono|stereo|quad|[2-7]\.[01]', track.channels))
        ways = [['copy']] * (usual and track.codec in COPIED_SOUND) + [['aac']] * usual + [
            ['aac', f'-ac:a:{kept}', '2', f'-ar:a:{kept}', '48000']]
        reasons = []
        for way in ways:
            done = run(command(
                *opened(source), '-map', f'0:{track.number}', '-c:a:0',
                *(word.replace(f':a:{kept}', ':a:0') for word in way), '-f', 'mp4',
                # a file that is written from its start to its end
                '-movflags', '+delay_moov', '-frag_duration', '10000000', 'pipe:1'), source)
            reason = complaint_of(done.log, source) or complaint_of(done.log, source, True)
            # what is damaged is not copied: decoding it fills the holes
            if not done.code and done.written and not (reason and way == ['copy']):
                words += ['-map', f'0:{track.number}', f'-c:a:{kept}', *way]
                kept += 1
                break
            reasons.append(reason)
        else:
            silent.append(f'{source}: the copy is without sound track {number + 1}, {track.codec} '
                          f'({reasons[-2:][0] or "ffmpeg gave no reason"})')
    return words, silent
