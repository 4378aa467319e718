"""Predictions drawn: as labels on a copy of a video, and as a strip of classes over time.

The copy is made by one ffmpeg that lays a few still panels over the video's own frames, so
that no frame passes through Python and each keeps its moment, also where the rate varies.
"""
import io
import re
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from engine.drawing import plots
from engine.drawing.plots import FAINT, FONT, INK, MUTED
from engine.files import replacing
from engine.video.decode import VideoError, check_alive_to_the_end, complaint_of

# What players find in an .mp4; other sound becomes AAC.
COPIED_SOUND = ('aac', 'mp3', 'ac3', 'eac3', 'alac', 'opus')


# ------------------------------------------------------------------- labels on the video

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


# --------------------------------------------------------------------------- the strip

def draw_strip(path, *arguments):
    """Writes what strip_figure draws as PNG."""
    plots.save(path, strip_figure, *arguments, dpi=150)


def strip_figure(title, classes, methods, edges, frames, aspect, rows=8):
    """Draws the top classes over time, with frames of the video above, as a Figure.

    Args:
        classes: names of all classes.
        methods: {name: ((n, C) log probability of each window, (C,) of the whole video)}.
        edges: (n + 1,) seconds between which each window stands.
        frames: [(seconds, (S, S, 3) uint8 BGR)] to be shown above.
        aspect: width of the video over its height.
        rows: classes at most: those with the highest mean probability.
    """
    from matplotlib.figure import Figure
    share = numpy.mean([numpy.exp(logs).mean(axis=0) for logs, _ in methods.values()], axis=0)
    best = numpy.argsort(-share, kind='stable')[:rows]
    names = max(len(classes[c]) for c in best)
    left, side, right, cell, gap = 0.35 + 0.085 * names, 8.0, 0.95, 0.3, 0.42
    start, end = float(edges[0]), float(max(edges[-1], edges[0] + 1e-3))
    count = max(1, min(len(frames), round(side / (0.9 * aspect))))
    film = side / count / aspect if frames else 0.0
    film = min(film, 1.4)
    top, bottom = 0.62, 0.62
    block = cell * len(best) + gap
    width, height = left + side + right, top + film + block * len(methods) + bottom
    figure = Figure(figsize=(width, height), facecolor='white')

    def add_axes(y, tall):
        return figure.add_axes((left / width, 1 - (y + tall) / height, side / width,
                                tall / height))
    figure.text(0.2 / width, 1 - 0.27 / height, title, fontsize=13, color=INK, weight='bold',
                va='center')
    if frames:
        axes = add_axes(top, film)
        wanted = (numpy.arange(count) + 0.5) / count * (end - start) + start
        moments = numpy.array([moment for moment, _ in frames])
        for place, moment in enumerate(wanted):
            picture = frames[int(abs(moments - moment).argmin())][1][..., ::-1]
            wide = min(1.0, film * aspect * count / side)
            axes.imshow(picture, extent=(place + 0.5 - wide / 2, place + 0.5 + wide / 2, 0, 1),
                        aspect='auto', interpolation='bilinear')
        axes.set(xlim=(0, count), ylim=(0, 1))
        axes.axis('off')
    for number, (name, (logs, whole)) in enumerate(methods.items()):
        y = top + film + gap + number * block
        axes = add_axes(y, block - gap)
        image = axes.pcolormesh(numpy.array([*edges[:-1], end]), numpy.arange(len(best) + 1),
                                numpy.exp(logs[:, best]).T, cmap=plots.shares_map(), vmin=0, vmax=1)
        axes.set(xlim=(start, end), ylim=(len(best), 0))
        axes.set_yticks(numpy.arange(len(best)) + 0.5, [classes[c] for c in best], fontsize=9.5)
        for row, label in enumerate(best):
            chosen = label == whole.argmax()
            axes.text(1 + 0.12 / side, row + 0.5, f'{100 * numpy.exp(whole[label]):.1f} %',
                      transform=axes.get_yaxis_transform(), va='center', fontsize=9.5,
                      color=INK if chosen else MUTED, weight='bold' if chosen else 'normal')
        axes.set_yticks(numpy.arange(1, len(best)), minor=True)
        axes.grid(which='minor', axis='y', color=FAINT, linewidth=0.6)
        axes.tick_params(which='both', length=0, pad=5, colors=INK)
        last = number == len(methods) - 1
        axes.tick_params(axis='x', length=3 if last else 0, labelbottom=last, colors=MUTED)
        for spine in axes.spines.values():
            spine.set(color=MUTED, linewidth=0.8)
        figure.text(left / width, 1 - (y - 0.15) / height, name, fontsize=10, color=MUTED,
                    va='center')
        figure.text((left + side + 0.12) / width, 1 - (y - 0.15) / height, 'whole', fontsize=10,
                    color=MUTED, va='center')
    axes.set_xlabel('seconds', fontsize=10, color=MUTED)
    bar = figure.add_axes(((left + side - 1.6) / width, 1 - 0.31 / height, 1.6 / width,
                           0.1 / height))
    figure.colorbar(image, cax=bar, orientation='horizontal').outline.set_visible(False)
    bar.set_xticks([0, 0.5, 1], ['0', '50', '100 %'], fontsize=8, color=MUTED)
    bar.tick_params(length=0, pad=2)
    return figure
