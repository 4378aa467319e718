"""Frames of a video through ffmpeg.

ffmpeg decodes, picks and scales in a process of its own; frames cross a pipe as
bytes, so a Python thread that waits for them costs nothing.
"""
import contextlib
import os
import subprocess
import sys
import tempfile
from array import array

import numpy

from engine.files import as_output
from engine.video.container import (FIRST, better_map, complaint_about_film, header_of,
                                    remark_on, why_no_frame)
from engine.video.ffmpeg import (VideoError, check_alive_to_the_end, command, ended, opened, run,
                                 start)
from engine.video.packets import MOST_BYTES, packets_of

try:
    import fcntl
except ImportError:  # no such thing on Windows
    fcntl = None

PIPE_BYTES = 1 << 20


class Frames:
    """The frames of one video, in order, in batches of (n, size, size, 3) uint8 BGR.

    Args:
        path: video file, any container and codec that ffmpeg reads.
        size: side of the square that a whole frame is scaled to, pixels; or (width, height).
        batch: frames a batch, the last one may be shorter.
        step: takes every step-th frame.
        only: indices of frames to take instead (ascending).
        timed: whether `times` tells when each frame given so far is shown, in seconds.

    After the last batch `count` is the number of frames given, `complaint` ffmpeg's first
    error, or None, and `remark` an engine.video.container.Remark if frames are missing or the
    decoder complained, or None.

    Raises (while iterating):
        VideoError: not one frame could be decoded.
        DecoderKilled: a signal has ended ffmpeg.
    """

    # Whether ffmpeg is in a process group of its own, where the terminal's Ctrl-C does not
    # reach it.
    apart = False
    handed = ()  # open files that ffmpeg gets

    def __init__(self, path, size=224, batch=32, step=1, only=None, timed=False):
        self.path, self.batch = str(path), batch
        self.width, self.height = (size, size) if numpy.isscalar(size) else size
        self.step, self.only, self.timed = step, only, timed
        self.count, self.complaint, self.remark = 0, None, None
        self.times = array('d')
        self._process, self._stopped, self._map = None, False, FIRST
        self._film, self._late = None, 0.0

    def stop(self):
        """Ends the reading in good order, after the frames that are on their way."""
        if self._process is None:
            raise KeyboardInterrupt  # not begun yet: nothing to end well
        # a second signal would make ffmpeg drop what it has not written yet
        if not self._stopped:
            self._process.terminate()
        self._stopped = True

    def _input(self):
        return opened(self.path)

    def _command(self, times):
        picks = []
        if self.only is not None:
            picks = ['select=' + _sum([f'eq(n\\,{index})' for index in self.only])]
        elif self.step > 1:
            picks = [f'select=not(mod(n\\,{self.step}))']
        picks.append(f'scale={self.width}:{self.height}:flags=bilinear')
        limit = ['-frames:v', len(self.only)] if self.only is not None else []
        # {t}: what ffmpeg makes of the packets' clock, or of the rate where they have none
        timed = ['-enc_time_base', 'demux', '-stats_enc_pre', times, '-stats_enc_pre_fmt',
                 '{t}'] if self.timed else []
        return command('-threads', 1, *self._input(), '-map', self._map, '-vf', ','.join(picks),
                       '-fps_mode', 'passthrough', *limit, *timed, '-pix_fmt', 'bgr24', '-f',
                       'rawvideo', 'pipe:1')

    def __iter__(self):
        self.count = 0
        # stderr goes to a file: a pipe that nobody reads would stop ffmpeg.
        with tempfile.TemporaryFile() as errors, _scratch() as times:
            process = None
            try:
                process, buffer, n = self._first_batch(errors, times)
                while True:
                    if n:
                        self.count += n
                        if self.timed:
                            self._read_times(times)
                        yield buffer[:n]
                    if n < self.batch:
                        break
                    buffer, n = self._next_batch(process)
                process.wait()
            finally:
                if process:
                    ended(process)
            log = _content(errors)
            if not self._stopped:
                check_alive_to_the_end(process.returncode, log, self.path)
            self._read_log(log)
        if not self.count:
            raise VideoError(why_no_frame(log, self.path))

    def _first_batch(self, errors, times):
        """Starts ffmpeg, again if by its log another stream is the video; returns the process,
        the first batch and how many frames of it are filled."""
        while True:
            process = self._process = start(
                self._command(_name_of(times)), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=errors, bufsize=0,
                pass_fds=[f.fileno() for f in (times, *self.handed)],
                process_group=0 if self.apart else None)
            _widen(process.stdout)
            try:
                batch = self._next_batch(process)
            except BaseException:
                ended(process)
                raise
            # before ffmpeg gives a frame it has told of the streams
            log = _content(errors)
            better = better_map(log, self._map)
            if not better:
                self._film = header_of(log).film
                self._late = self._film.late if self._film else 0.0
                return process, *batch
            ended(process)
            os.ftruncate(errors.fileno(), 0)
            os.lseek(errors.fileno(), 0, os.SEEK_SET)
            self._map = better

    def _next_batch(self, process):
        """A batch, and how many frames of it are filled: fewer only at the end."""
        buffer = numpy.empty((self.batch, self.height, self.width, 3), numpy.uint8)
        return buffer, _read_into(process.stdout, memoryview(buffer).cast('B')) // buffer[0].size

    def _read_times(self, f):
        """Takes in the moments of the frames given; ffmpeg notes one before it gives the frame."""
        while len(self.times) < self.count:
            try:
                moment = float(f.readline())
            except ValueError:
                moment = float('-inf')
            # Where clocks may jump ffmpeg begins at 0, though sound may have begun before.
            if not self.times:
                self._late = max(0.0, self._late - max(moment, 0.0))
            moment += self._late
            # A stamp that cannot be is as far from the last one as that is from the one before.
            least = self.times[-1] if self.times else 0.0
            gap = (least - self.times[-2] if len(self.times) > 1 else
                   0.04 * self.step if self.times else 0.0)
            self.times.append(moment if moment >= least else least + gap)

    def end(self):
        """Seconds at which the last frame given ends: as long after it as frames come on average,
        but not after the film ends where its header tells."""
        n, last, rate = len(self.times), self.times[-1], self._film.rate if self._film else 0.0
        gap = ((last - self.times[0]) / (n - 1) if n > 1 else self.step / rate if rate else 0.04)
        if self._film and self._film.seconds:
            # where packets have no clock the first frame may be shown late
            return min(last + gap, max(self.times[0] + self._film.seconds, last + gap / self.step))
        return last + gap

    def _read_log(self, log):
        self.complaint = complaint_about_film(log, self.path)
        if self.count and self.only is None:
            self.remark = remark_on(self.path, self.count, log, self.step)


def _scratch():
    """A file to be handed to ffmpeg; on Linux it has no name, and so goes with us, even if we are
    killed."""
    return (tempfile.TemporaryFile if sys.platform == 'linux' else tempfile.NamedTemporaryFile)()


def _name_of(file):
    return as_output(file).removeprefix('file:')


def _content(f):
    """All bytes of an open file; where others write into it does not change."""
    return os.pread(f.fileno(), os.fstat(f.fileno()).st_size, 0)


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


class _Joined(Frames):
    """Frames of an open file that was joined from packets of the video `path`, and of others."""

    def __init__(self, joined, path, *args, **options):
        super().__init__(path, *args, **options)
        self.handed = [joined]

    def _input(self):
        return opened(_name_of(*self.handed))

    def _read_log(self, log):
        super()._read_log(log)
        # What is missing in a picture is made up from what was decoded before; ffmpeg tells so,
        # but not as of an error.
        if b'] concealing ' in log or b'corrupt decoded frame' in log:
            self.complaint = self.complaint or 'a picture is damaged'


def read_frames(path, indices, size=224):
    """Returns the frames at `indices` (ascending) as (n, size, size, 3) uint8 BGR.

    A frame's number means the same in every stage: what a decode from the start gives. An
    index past the last decodable frame gives the last one.
    """
    return read_chosen([(path, indices)], size)[0]


def read_chosen(wanted, size=224):
    """The frames of several videos, [(path, indices)]: a list of what `read_frames` gives of each.

    Those whose packets are plain are decoded from the key frames before, by one ffmpeg as many as
    MOST_BYTES hold; others from their start, since seeking would give another frame in some.
    """
    alike, held, got = {}, 0, {}
    for number, (path, indices) in enumerate(wanted):
        clip = packets_of(path)
        if clip:
            alike.setdefault(clip.kind, []).append((number, path, clip, indices))
            held += len(clip.data)
        if held > MOST_BYTES or number + 1 == len(wanted):
            for clips in alike.values():
                got.update(_from_key_frames(clips, size))
            alike, held = {}, 0
    return [got[number] if number in got else _from_the_start(path, indices, size)
            for number, (path, indices) in enumerate(wanted)]


def _from_key_frames(clips, size):
    """{number: frames} of clips of one kind, [(number, path, Packets, indices)]; without those of
    which the decoder complains, as it would show them by what it has decoded before."""
    parts, places = [], {}
    for number, _, clip, indices in clips:
        packets, where = clip.needed(numpy.minimum(indices, len(clip.begins) - 1))
        places[number] = len(parts) + where
        parts += packets
    # The last one is shown last: had any given no frame, it were not there.
    only = sorted({*numpy.concatenate(list(places.values())).tolist(), len(parts) - 1})
    with _scratch() as f:
        f.write(clips[0][2].wrap(parts))
        f.flush()
        frames = _Joined(f, clips[0][1], size, len(only), only=only)
        with contextlib.suppress(VideoError):
            got = numpy.concatenate(list(frames))
            if len(got) == len(only) and not frames.complaint:
                return {number: got[numpy.searchsorted(only, where)]
                        for number, where in places.items()}
    if len(clips) == 1:
        return {}
    return {number: frames for clip in clips
            for number, frames in _from_key_frames([clip], size).items()}


def _from_the_start(path, indices, size):
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
    """Returns the number of frames that can be decoded: by the packets where these are plain, else
    by decoding them all, since headers lie by a frame or two.

    Raises:
        VideoError: not one frame could be decoded.
        DecoderKilled: a signal has ended ffmpeg.
    """
    clip = packets_of(path)
    return len(clip.begins) if clip else survey(path)[0]


def survey(path, where=FIRST):
    """Decodes a whole video; returns (frames, Remark or None).

    Raises:
        VideoError: not one frame could be decoded.
        DecoderKilled: a signal has ended ffmpeg.
    """
    # A frame becomes 4 bytes: next to nothing to make, and written to a pipe that tells whether
    # we still live.
    done = run(command('-threads', 1, *opened(path), '-map', where, '-vf',
                       'scale=2:2:flags=neighbor', '-fps_mode', 'passthrough', '-pix_fmt', 'gray',
                       '-f', 'rawvideo', '-flush_packets', 1, 'pipe:1'), path)
    better = better_map(done.log, where)
    if better:
        return survey(path, better)
    count = done.written // 4
    if not count:
        raise VideoError(why_no_frame(done.log, path))
    return count, remark_on(path, count, done.log)
