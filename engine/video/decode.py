"""Frames of a video through ffmpeg.

ffmpeg (the binary that imageio-ffmpeg brings) decodes, picks and scales in a
process of its own; frames cross a pipe as bytes, so a Python thread that waits
for them costs nothing.
"""
import contextlib
import re
import signal
import subprocess
import tempfile
from array import array

import imageio_ffmpeg
import numpy

from engine.errors import DecoderKilled, UserError

try:
    import fcntl
except ImportError:  # no such thing on Windows
    fcntl = None

PIPE_BYTES = 1 << 20


class VideoError(UserError):
    """A video that gives no frame; the text names it and says why."""


STOPPED = (255, *(-number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
                                          signal.SIGKILL)))


def check_alive_to_the_end(process, path):
    """Raises what an ended ffmpeg, at work on `path`, did not come to its end by."""
    # ffmpeg takes SIGTERM and Ctrl-C for an order to end well, with 255, after a part of
    # the frames; schedulers and terminals send these to every process of a job.
    if process.returncode in STOPPED:
        raise DecoderKilled(f'{path}: ffmpeg was stopped from outside before the end; '
                            'run the command again')
    if process.returncode < 0:
        raise VideoError(f'{path}: ffmpeg crashed on it '
                         f'({signal.Signals(-process.returncode).name})')


class Frames:
    """The frames of one video, in order, in batches of (n, size, size, 3) uint8 BGR.

    Args:
        path: video file, any container and codec that ffmpeg reads.
        size: side of the square that a whole frame is scaled to, pixels; or (width, height).
        batch: frames a batch, the last one may be shorter.
        step: takes every step-th frame.
        only: indices of frames to take instead (ascending).
        timed: whether `times` tells when each frame given so far is shown, in seconds, and
            `clockless` whether the video does not say, so that 25 frames a second are taken.

    After the last batch `count` is the number of frames given, `announced` the
    number that the header promises (None if it does not say) and `complaint`
    ffmpeg's first error, or None.

    Raises (while iterating):
        VideoError: not one frame could be decoded.
        DecoderKilled: a signal has ended ffmpeg.
    """

    # Whether ffmpeg is in a process group of its own, where the terminal's Ctrl-C does not
    # reach it.
    apart = False

    def __init__(self, path, size=224, batch=32, step=1, only=None, timed=False):
        self.path, self.batch = str(path), batch
        self.width, self.height = (size, size) if numpy.isscalar(size) else size
        self.step, self.only, self.timed = step, only, timed
        self.count, self.announced, self.complaint = 0, None, None
        self.times, self.clockless = array('d'), False
        self._process, self._stopped = None, False

    def stop(self):
        """Ends the reading in good order, after the frames that are on their way."""
        if self._process is None:
            raise KeyboardInterrupt  # not begun yet: nothing to end well
        # a second signal would make ffmpeg drop what it has not written yet
        if not self._stopped:
            self._process.terminate()
        self._stopped = True

    @property
    def is_short(self):
        return is_short(self.count, self.announced)

    def _input(self):
        return ['-i', 'file:' + self.path]

    def _command(self):
        picks = []
        if self.only is not None:
            picks = ['select=' + _sum([f'eq(n\\,{index})' for index in self.only])]
        elif self.step > 1:
            picks = [f'select=not(mod(n\\,{self.step}))']
        picks.append(f'scale={self.width}:{self.height}:flags=bilinear')
        limit = ['-frames:v', str(len(self.only))] if self.only is not None else []
        return [imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-hide_banner', '-nostats',
                '-loglevel', 'level+info', '-threads', '1', *self._input(),
                '-map', '0:v:0', '-vf', ','.join(picks), '-fps_mode', 'passthrough', *limit,
                '-pix_fmt', 'bgr24', '-f', 'rawvideo']

    def __iter__(self):
        self.count = 0
        shape = self.height, self.width, 3
        frame_bytes = self.height * self.width * 3
        # stderr goes to a file: a pipe that nobody reads would stop ffmpeg.
        with tempfile.TemporaryFile() as errors, tempfile.NamedTemporaryFile() as times:
            command = self._command()
            if self.timed:
                command += ['-stats_enc_pre', times.name, '-stats_enc_pre_fmt', '{ti}']
            process = self._process = subprocess.Popen(
                [*command, 'pipe:1'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, bufsize=0, process_group=0 if self.apart else None)
            _widen(process.stdout)
            try:
                while True:
                    buffer = numpy.empty((self.batch, *shape), numpy.uint8)
                    n = _read_into(process.stdout, memoryview(buffer).cast('B')) // frame_bytes
                    if n:
                        self.count += n
                        if self.timed:
                            self._read_times(times)
                        yield buffer[:n]
                    if n < self.batch:
                        break
                process.wait()
                if not self._stopped:
                    check_alive_to_the_end(process, self.path)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            errors.seek(0)
            self._read_log(errors.read())
        if not self.count:
            raise VideoError(f'{self.path}: no frame could be read '
                             f'({self.complaint or "ffmpeg gave none"})')

    def _read_times(self, f):
        """Takes in the moments of the frames given; ffmpeg notes one before it gives the frame."""
        while len(self.times) < self.count:
            try:
                moment = float(f.readline())
            except ValueError:
                moment = float('-inf')
            before = self.times[-1] if self.times else 0.0
            # A raw stream, of H.264 say, has no clock; ffmpeg gives a time before all times.
            self.clockless = moment < -1e9
            self.times.append(before + 0.04 * self.step * bool(self.times) if self.clockless
                              else max(moment, before))

    def _read_log(self, log):
        self.complaint = complaint_of(log, self.path)
        log = log.decode(errors='replace')
        announced = _avi_header(self.path)[0] if self.count else 0
        announced = max(announced, _header_of_log(log)[0])
        self.announced = -(-announced // self.step) or None


def read_header(path):
    """What a video's header promises, without decoding it: (frames int, frames a second).

    Both are 0 where it does not say, or is no video.
    """
    frames, rate = _avi_header(path)
    if frames and rate:
        return frames, rate
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-hide_banner',
                           '-i', f'file:{path}'], stdin=subprocess.DEVNULL, capture_output=True)
    return _header_of_log(done.stderr.decode(errors='replace'))


def is_short(count, announced):
    """Whether frames are missing: a header is off by a frame or two even in good clips."""
    return bool(announced) and count < min(0.95 * announced, announced - 2)


def _header_of_log(log):
    duration = re.search(r'Duration: (\d+):(\d+):([\d.]+)', log)
    rate = re.search(r'Stream #.*Video:.* ([\d.]+) fps', log)
    if not (duration and rate):
        return 0, 0.0
    hours, minutes, seconds = duration.groups()
    length = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return int(round(length * float(rate.group(1)))), float(rate.group(1))


def _avi_header(path):
    """Frames and frames a second of an .avi's main header, or 0, 0.0: of a cut-off file
    ffmpeg's own duration tells what is left, not what was there."""
    with open(path, 'rb') as f:
        start = f.read(52)
    if start[:4] != b'RIFF' or start[8:12] != b'AVI ' or start[24:28] != b'avih':
        return 0, 0.0
    microseconds = int.from_bytes(start[32:36], 'little')
    return int.from_bytes(start[48:52], 'little'), 1e6 / microseconds if microseconds else 0.0


def _sum(terms):
    """a+b+c+d as ((a+b)+(c+d)): ffmpeg refuses expressions more than about 100 deep."""
    if len(terms) < 3:
        return '+'.join(terms)
    half = len(terms) // 2
    return f'({_sum(terms[:half])}+{_sum(terms[half:])})'


def _widen(pipe):
    """Gives a pipe room for whole frames, where it can: fewer waits, a fifth less time."""
    with contextlib.suppress(AttributeError, OSError):  # Linux only, and within a user's limit
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _read_into(stream, view):
    """Fills `view` from the pipe; returns the bytes read, fewer only at the end."""
    done = 0
    while done < len(view):
        got = stream.readinto(view[done:])
        if not got:
            break
        done += got
    return done


def read_frames(path, indices, size=224):
    """Returns the frames at `indices` (ascending) as (n, size, size, 3) uint8 BGR.

    The video is decoded from its start: seeking would give another frame in some
    files, and a frame number must mean the same in every stage. An index past the
    last decodable frame gives the last one.
    """
    wanted = sorted(set(indices))
    try:
        got = numpy.concatenate(list(Frames(path, size, batch=len(wanted), only=wanted)))
    except VideoError:
        got = []
    if len(got) < len(wanted):
        # Headers promise a frame or two too many; the last one stands in.
        everything = Frames(path, size, batch=64)
        for batch in everything:
            last = batch[-1:]
        missing = len(wanted) - len(got)
        got = numpy.concatenate([*([got] if len(got) else []), *[last] * missing])
    return got[numpy.searchsorted(wanted, indices)]


def count_frames(path):
    """Returns the number of frames that can be decoded (by decoding them all).

    Headers lie by a frame or two, and a frame that is asked for must exist.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-hide_banner',
               '-loglevel', 'level+error', '-threads', '1', '-i', f'file:{path}',
               '-map', '0:v:0', '-fps_mode', 'passthrough', '-f', 'null',
               '-progress', 'pipe:1', '-']
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    check_alive_to_the_end(done, path)
    counts = re.findall(rb'^frame=\s*(\d+)', done.stdout, re.MULTILINE)
    count = int(counts[-1]) if counts else 0
    if not count:
        raise VideoError(f'{path}: no frame could be read '
                         f'({complaint_of(done.stderr, path) or "ffmpeg gave none"})')
    return count


def complaint_of(log, path):
    """The first error in ffmpeg's log (bytes), without addresses and the file's name."""
    for line in log.decode(errors='replace').splitlines():
        # "[h264 @ 0x55..] [error] text"
        found = re.match(r'^(?:\[.*?\] )?\[(?:error|fatal)\] (.*)', line)
        if found:
            return found.group(1).replace(f'file:{path}', '').strip(' :.')
    return None
