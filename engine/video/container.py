"""What a video file says of itself: its streams, its length, its shape; and whether it is whole."""
import re
from fractions import Fraction
from typing import NamedTuple

from engine.video.ffmpeg import (
    NO_VIDEO, VideoError, command, complaint_of, opened, refuse_pipes, run)

# Pictures that come with a film, by their marks: never the film.
NO_FILM = ('attached pic', 'still image', 'timed thumbnails')
# Codecs of a picture: where there is another stream, that is the film.
OF_PICTURES = ('png', 'mjpeg', 'bmp', 'gif', 'tiff', 'webp')


DECODERS = {'dts': 'dca'}  # of a codec, where its name does not begin with the codec's


class Stream(NamedTuple):
    """A stream: its number in the file, 'Video', 'Audio' ..., the codec, frames a second, its own
    seconds (both 0.0 where it does not say), seconds by which it starts behind the file, how its
    channels are laid out ('stereo', '5.1(side)'), and marks such as 'default'."""
    number: int
    kind: str
    codec: str
    rate: float
    seconds: float
    late: float
    channels: str
    marks: tuple


class Header(NamedTuple):
    """The streams of a file."""
    streams: tuple

    @property
    def films(self):
        return [stream for stream in self.streams
                if stream.kind == 'Video' and not set(NO_FILM) & set(stream.marks)]

    @property
    def film(self):
        """The Stream that is the video: the default one, else the first; None without one."""
        return min(self.films, default=None, key=lambda stream: (
            stream.codec in OF_PICTURES, 'default' not in stream.marks, stream.number))

    @property
    def sounds(self):
        return [stream for stream in self.streams if stream.kind == 'Audio']


def header_of(log):
    """The Header in what ffmpeg logs (bytes) of its first input."""
    text = log.decode(errors='replace')
    text = re.split(r'^\[info\] (?:Stream mapping:|Output #0|Input #1)', text,
                    flags=re.MULTILINE)[0]
    whole = _seconds(r'^\[info\]   Duration: (\d+):(\d+):([\d.]+)', text)
    begin = _number(r'^\[info\]   Duration: [^,]*, start: (-?[\d.]+)', text)
    # Matroska's lengths, its own and its streams', are moments: when the last picture ends.
    before = max(0.0, begin) if re.search(r'^\[info\] Input #0, matroska', text, re.M) else 0.0
    streams = []
    for about in re.split(r'^(?=\[info\] +Stream #0:)', text, flags=re.MULTILINE)[1:]:
        found = re.match(r'\[info\] +Stream #0:(\d+)\S*: (\w+): (\w+)(.*)', about)
        if not found:
            continue
        own = _seconds(r'^\[info\] +DURATION +: (\d+):(\d+):([\d.]+)', about)  # of Matroska
        number, kind, codec, rest = found.groups()
        fps, tbr, tbn = (_number(rf', ([\d.]+k?) {unit}', rest) for unit in ('fps', 'tbr', 'tbn'))
        rate = fps if fps not in (0.0, tbn) else tbr or fps  # the clock's unit (DV) is no rate
        marks = re.search(r'((?: \([\w ]+\))*)$', rest)[1]
        streams.append(Stream(int(number), kind, codec, rate,
                              max(0.0, min(own or whole, whole) - before),
                              _number(r', start (-?[\d.]+)', rest, begin) - begin,
                              (re.search(r' Hz, ([^,]+)', rest) or ('', ''))[1],
                              tuple(re.findall(r'\(([\w ]+)\)', marks))))
    return Header(tuple(streams))


def _seconds(pattern, text):
    """What a pattern finds as hours, minutes and seconds, in seconds; 0.0 where it does not."""
    found = re.search(pattern, text, re.MULTILINE)
    hours, minutes, seconds = map(float, found.groups()) if found else (0, 0, 0)
    return 3600 * hours + 60 * minutes + seconds


def _number(pattern, text, otherwise=0.0):
    """The number that a pattern finds in ffmpeg's words; k is for thousands."""
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1].replace('k', 'e3')) if found else otherwise


# What -map takes for the first stream that is no attached picture; right for nearly all files.
FIRST = '0:V:0'


def better_map(log, given=FIRST):
    """What -map should have been given in place of FIRST, by ffmpeg's log; None if that was
    right."""
    header = header_of(log)
    if given != FIRST or header.film is None:
        return None
    first = next((stream for stream in header.streams
                  if stream.kind == 'Video' and 'attached pic' not in stream.marks), None)
    return None if header.film == first else f'0:{header.film.number}'


def why_no_frame(log, path):
    """The reason why not one frame could be read, from ffmpeg's log."""
    header = header_of(log)
    if header.streams and not header.films:
        return f'{path}: holds no video'
    complaint = complaint_of(log, path) or 'ffmpeg gave none'
    kind = 'holds no video: ' * (complaint == NO_VIDEO)  # a text, a sound
    return f'{path}: {kind}no frame could be read ({complaint})'


# ------------------------------------------------------------------------ its length

def read_header(path):
    """What a video's header promises, without decoding it: (frames int, frames a second).

    Both are 0 where it does not say, or is no video.
    """
    try:
        frames, rate = avi_header(path)
        if frames and rate:
            return frames, rate
        return _by_length(header_of(run(command(*opened(path)), path).log))
    except VideoError:
        return 0, 0.0


def _by_length(header):
    film = header.film
    return ((round(film.seconds * film.rate), film.rate) if film and film.seconds and film.rate
            else (0, 0.0))


# What an .avi says beyond this may be the unit of its clock, with empty packets between frames.
MOST_RATE = 120


def avi_header(path):
    """Frames and frames a second of an .avi's main header, or 0, 0.0 where there is none to
    trust: of a cut-off file ffmpeg's own duration tells what is left, not what was there."""
    refuse_pipes(path)
    try:
        with open(path, 'rb') as f:
            start = f.read(52)
    except OSError:
        return 0, 0.0
    if start[:4] != b'RIFF' or start[8:12] != b'AVI ' or start[24:28] != b'avih':
        return 0, 0.0
    microseconds = int.from_bytes(start[32:36], 'little')
    if microseconds < 1e6 / MOST_RATE:
        return 0, 0.0
    return int.from_bytes(start[48:52], 'little'), 1e6 / microseconds


# ------------------------------------------------------------------- whether it is whole

# Seconds by which a length may be off where there is sound: its packets are up to an eighth of a
# second long, and what an encoder puts before the first is counted or not.
SLACK = 0.5


class Remark(NamedTuple):
    """What is wrong with a video that can be read: 'short' or 'damaged', and why."""
    kind: str
    reason: str


def complaint_about_film(log, path):
    """The first error in ffmpeg's log of reading a file, but for what is wrong with its sound."""
    others = [stream.codec for stream in header_of(log).streams if stream.kind != 'Video']
    return complaint_of(log, path, but=tuple(
        DECODERS.get(codec, codec).replace('_', '') for codec in others))


def remark_on(path, count, log, step=1):
    """The Remark on a video of which every step-th frame was read, `count` in all; or None.

    It is short if by its length and rate there should be more frames, and besides the decoder
    complained or nothing in the file lasts that long. Longer sound, subtitles, late pictures
    and rates that vary are no fault. It is damaged if nothing is missing but the decoder
    complained.
    """
    complaint, header = complaint_about_film(log, path), header_of(log)
    promised, rate = avi_header(path)
    slack = 0.0
    if not (promised and rate):
        promised, rate = _by_length(header)
        slack = SLACK if header.sounds else 0.0
    expected = -(-promised // step)
    if _fewer(count, expected) and (complaint
                                    or _fewer((_end_of(path) + slack) * rate, promised)):
        return Remark('short', f'{count} of {expected} frames ({complaint or "no complaint"})')
    return Remark('damaged', f'{count} frames, but {complaint}') if complaint else None


def _fewer(count, promised):
    """Whether frames are missing: a header is off by a frame or two even in good clips."""
    return count < min(0.95 * promised, promised - 2)


def _end_of(path):
    """Seconds at which the last packet of a file ends, of whatever stream."""
    log = run(command(*opened(path), '-map', '0', '-ignore_unknown', '-c', 'copy', '-f',
                      'framecrc', 'pipe:2'), path).log
    units = {number: float(Fraction(text.decode())) for number, text in
             re.findall(rb'^#tb (\d+): (\d+/\d+)', log, re.MULTILINE)}
    # of each packet: stream, when it is decoded, when it is shown, how long
    packets = re.findall(rb'^(\d+), +(-?\d+), +(-?\d+), +(\d+),', log, re.MULTILINE)
    return max((units[number] * (int(shown) + int(length))
                for number, _, shown, length in packets), default=0.0)


# -------------------------------------------------------------------------- its shape

class Shape(NamedTuple):
    """A video as it is shown, after any rotation mark: what -map takes for it, pixels across and
    down, how much wider than tall a pixel is shown, its sound tracks (Stream), and how pixels
    are stored: ffmpeg's name for it, and whether they use the full range of their numbers."""
    map: str
    width: int
    height: int
    pixel: float
    sounds: tuple
    stored: str = ''
    full_range: bool = False

    @property
    def aspect(self):
        """Width of what is shown over its height."""
        return self.width * self.pixel / self.height


def shape_of(path, where=FIRST):
    """The Shape of a video, by its first frame.

    Raises:
        VideoError: not one frame could be decoded.
    """
    log = run(command(*opened(path), '-map', where, '-frames:v', 1, '-f', 'null', '-'), path).log
    better = better_map(log, where)
    if better:
        return shape_of(path, better)
    found = re.search(rb'^\[info\] Output #0.*?Stream #0:0[^\n]* (\d+)x(\d+)'
                      rb'(?:,? \[?SAR (\d+):(\d+))?', log, re.MULTILINE | re.DOTALL)
    if not found:
        raise VideoError(why_no_frame(log, path))
    width, height, across, down = (int(number or 1) for number in found.groups())
    stored = re.search(rb'Stream #0:0[^\n]*: Video: [^\n,]*, (\w+)(\(pc)?', found[0])
    return Shape(where, width, height, across / down, tuple(header_of(log).sounds),
                 *((stored[1].decode(), bool(stored[2])) if stored else ()))
