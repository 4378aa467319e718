"""Predictions drawn as labels on a copy of a video.

The copy is made by one ffmpeg that lays a few still panels over the video's own frames, so
that no frame passes through Python and each keeps its moment, also where the rate varies.
"""
import io
import re
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from engine.drawing.plots import FONT
from engine.files import replacing
from engine.video.decode import VideoError, check_alive_to_the_end, complaint_of

# What players find in an .mp4; other sound becomes AAC.
COPIED_SOUND = ('aac', 'mp3', 'ac3', 'eac3', 'alac', 'opus')


def shown_size(path):
    """(width, height) in pixels of a video as it is shown, after any rotation mark.

    Raises:
        VideoError: not one frame could be decoded.
    """
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-hide_banner', '-loglevel', 'level+error',
         '-i', f'file:{path}', '-map', '0:v:0', '-frames:v', '1', '-c:v', 'ppm',
         '-f', 'image2pipe', 'pipe:1'], stdin=subprocess.DEVNULL, capture_output=True)
    try:
        with Image.open(io.BytesIO(done.stdout)) as image:
            return image.size
    except UnidentifiedImageError:
        raise VideoError(f'{path}: no frame could be read '
                         f'({complaint_of(done.stderr, path) or "ffmpeg gave none"})') from None


def panel(rows, size):
    """Draws class names with bars and percentages.

    Args:
        rows: [(name, probability)], the best first; a low video has no room for all.
        size: (width, height) of the video, pixels.

    Returns:
        PIL image, RGBA, no larger than the video.
    """
    width, height = size
    letters = max(10, round(0.034 * height))
    line, margin = round(1.6 * letters), max(3, letters // 3)
    font = ImageFont.truetype(FONT, letters)
    rows = rows[:max(1, (round(0.45 * height) - margin) // line)]
    room = font.getlength('100 %') + 4 * margin
    inner = min(width - 2 * margin, max(18 * letters, round(0.42 * width)))
    image = Image.new('RGBA', (max(inner, 8), margin + line * len(rows)), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((0, 0, image.width - 1, image.height - 1), margin, (12, 18, 26, 215))
    for number, (name, probability) in enumerate(rows):
        top = margin + number * line
        bar = (image.width - 2 * margin - 1) * min(max(probability, 0.0), 1.0)
        if bar >= 1:
            pen.rectangle((margin, top, margin + round(bar), top + line - margin - 1),
                          (45, 125, 205, 255) if number == 0 else (70, 95, 125, 255))
        colour = (255, 255, 255, 255) if number == 0 else (215, 222, 230, 255)
        middle = top + (line - margin) / 2
        pen.text((2 * margin, middle), _fitting(name, font, image.width - room), colour, font,
                 anchor='lm')
        pen.text((image.width - 2 * margin, middle), f'{100 * probability:.0f} %', colour, font,
                 anchor='rm')
    return image.crop((0, 0, *(min(side) for side in zip(image.size, size))))


def _fitting(text, font, room):
    """The text, or as much of its start as `room` pixels hold."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + '\u2026') > room:
        text = text[:-1]
    return text + '\u2026' if text else ''


def label_video(source, path, panels, clockless=False):
    """Writes a copy of a video, as .mp4, with panels in its lower left corner.

    Size, frames and their moments are the source's own; so is the sound, copied where an
    .mp4 can hold it. The file appears whole or not at all.

    Args:
        panels: iterable of (seconds from which it is shown, PIL image); all of one size.
        clockless (bool): the source says of no frame when it is shown: 25 a second.

    Raises:
        VideoError: ffmpeg cannot do it; the text says why.
    """
    width, height = shown_size(source)
    sound = []
    for number, codec in enumerate(_sound_of(source)):
        sound += [f'-c:a:{number}', 'copy' if codec in COPIED_SOUND else 'aac']
    with replacing(path) as temporary, tempfile.TemporaryDirectory() as folder:
        _write_panels(Path(folder), panels)
        margin = max(2, height // 40)
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-hide_banner', '-loglevel',
            'level+error', '-y', *(['-r', '25'] if clockless else []), '-i', f'file:{source}',
            '-f', 'concat', '-safe', '0', '-i', f'file:{folder}/panels.txt', '-filter_complex',
            f'[0:v:0][1:v]overlay={margin}:H-h-{margin}:eof_action=repeat:format=auto[v]',
            '-map', '[v]', '-map', '0:a?', '-fps_mode', 'passthrough', '-enc_time_base', 'demux',
            '-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20',
            # Odd sides need the form of H.264 that not every player knows.
            '-pix_fmt', 'yuv444p' if width % 2 or height % 2 else 'yuv420p',
            *sound, '-movflags', '+faststart', '-f', 'mp4', f'file:{temporary}']
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        check_alive_to_the_end(done, source)
        if done.returncode:
            raise VideoError(f'{source}: no labelled copy could be made '
                             f'({complaint_of(done.stderr, source) or "ffmpeg does not say why"})')


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


def _sound_of(path):
    """The codecs of a video's sound tracks, in their order."""
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-hide_banner',
                           '-i', f'file:{path}'], stdin=subprocess.DEVNULL, capture_output=True)
    return re.findall(r'^ *Stream #0:.*: Audio: (\w+)', done.stderr.decode(errors='replace'),
                      re.MULTILINE)
