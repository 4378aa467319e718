"""Dense optical flow: how to compute, quantise, store and look at it.

Flow says for every pixel of a frame how far what it shows moves until the next frame:
(H, W, 2) float32, x to the right and y down, in pixels. It is stored as a video whose frames
hold x, y and 128 in the channels B, G and R: bytes that every stage reads as it reads frames.
"""
import struct
import subprocess
import tempfile

import cv2
import numpy

from engine.errors import UserError
from engine.files import as_output, replacing
from engine.video.decode import Frames
from engine.video.ffmpeg import check_alive_to_the_end, command, complaint_of

MIDDLE = 128
# Near-lossless x264 in RGB, so that no channel is halved or mixed with another; see
# docs/flow.md for what else was measured. bitexact: the same flow is the same bytes.
CODEC = ('-c:v', 'libx264rgb', '-preset', 'fast', '-crf', '18', '-g', '50', '-bitexact')
FRAMES_A_SECOND = 25


def _dis(preset):
    def make():
        method = cv2.DISOpticalFlow_create(getattr(cv2, f'DISOpticalFlow_PRESET_{preset}'))
        return lambda before, after: method.calc(before, after, None)
    return make


def _farneback():
    return lambda before, after: cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 4, 15, 3,
                                                              5, 1.1, 0)


def _tvl1():
    method = cv2.optflow_DualTVL1OpticalFlow.create()
    return lambda before, after: method.calc(before, after, None)


# Each makes a function of two grey (H, W) uint8 frames. DIS: Kroeger et al. 2016, the default;
# Farneback 2003; TV-L1: Zach et al. 2007, in opencv-contrib-python-headless only.
METHODS = {'dis-ultrafast': _dis('ULTRAFAST'), 'dis-fast': _dis('FAST'),
           'dis-medium': _dis('MEDIUM'), 'farneback': _farneback, 'tvl1': _tvl1}


def get_method(name):
    """Returns the function (before, after) -> flow of a METHODS name; not for two threads.

    Raises:
        UserError: this OpenCV does not have it.
    """
    try:
        return METHODS[name]()
    except AttributeError:
        raise UserError(f'--method {name}: not in this OpenCV ({cv2.__version__}): pip uninstall '
                        'opencv-python-headless, then pip install '
                        'opencv-contrib-python-headless') from None


# ------------------------------------------------------------------------------ bytes

def quantise(flow, bound):
    """Flow in pixels -> (H, W, 3) uint8: x, y and 128.

    Clipped to [-bound, bound] and mapped to 1..255 in equal steps of bound/127 pixels, with
    no motion at 128: a byte b says the opposite of 256 - b, exactly. The third channel is
    constant, since a network for pictures takes three; 128 is what preprocessing turns
    into 0.
    """
    frame = numpy.full((*flow.shape[:2], 3), MIDDLE, numpy.uint8)
    frame[..., :2] = numpy.rint(numpy.clip(flow, -bound, bound) * (127 / bound)) + MIDDLE
    return frame


def dequantise(frames, bound):
    """(..., 3) uint8 -> (..., 2) float32, pixels."""
    return (frames[..., :2].astype(numpy.float32) - MIDDLE) * numpy.float32(bound / 127)


def flow_of_frames(frames, method, bound):
    """Yields the quantised flow of each frame to the next; the last one's is said twice.

    So there are as many as frames. One frame alone does not move.

    Args:
        frames: iterable of (H, W, 3) uint8 BGR.
        method: from get_method.
        bound: see quantise.
    """
    before = quantised = None
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        if before is not None:
            quantised = quantise(method(before, grey), bound)
            yield quantised
        before = grey
    if before is not None:
        yield quantise(numpy.zeros((*before.shape, 2)), bound) if quantised is None else quantised


# ------------------------------------------------------------------------------ files

class FlowWriter:
    """Writes quantised flow as a video; it appears whole or not at all.

        with FlowWriter(path, (320, 240)) as writer:
            writer.write(frame)
    """

    def __init__(self, path, size, codec=CODEC):
        self.path, self._replacing = path, replacing(path)
        self.size, self.codec = size, codec

    def __enter__(self):
        temporary = self._replacing.__enter__()
        try:
            self._errors, self._file = tempfile.TemporaryFile(), open(temporary, 'w+b')
            self._process = subprocess.Popen(
                [*command(), '-y', '-threads', '1', '-f', 'rawvideo', '-pix_fmt', 'bgr24',
                 '-video_size', '{}x{}'.format(*self.size), '-framerate', str(FRAMES_A_SECOND),
                 '-i', 'pipe:0', *self.codec, '-threads', '1', '-f', 'matroska',
                 as_output(self._file)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors,
                pass_fds=[self._file.fileno()])
        except BaseException as error:
            self._replacing.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, frame):
        try:
            self._process.stdin.write(numpy.ascontiguousarray(frame).data)
        except BrokenPipeError:
            pass  # told by the exit code

    def __exit__(self, *problem):
        try:
            if problem[0] is not None:
                self._process.kill()
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
            code = self._process.wait()
            self._errors.seek(0)
            log = self._errors.read()
            self._errors.close()
            self._file.close()
            if problem[0] is None:
                check_alive_to_the_end(code, log, self.path)
                if code:
                    reason = complaint_of(log, self.path, True) or f'ffmpeg ended with {code}'
                    raise UserError(f'{self.path}: cannot be written: {reason}; check space and '
                                    'rights there, then run the command again')
        except BaseException as error:
            self._replacing.__exit__(type(error), error, error.__traceback__)
            raise
        return self._replacing.__exit__(*problem)


def stored_frames(path):
    """How many flows a file of FlowWriter holds; 0 if it is not there or not whole.

    Only the file's head is read: it tells its length (Matroska: RFC 9559, section 5.1).
    """
    try:
        with open(path, 'rb') as f:
            head = f.read(1000)
            size = f.seek(0, 2)
    except OSError:
        return 0
    segment, duration = head.find(b'\x18\x53\x80\x67'), head.find(b'\x44\x89\x88')
    if not head.startswith(b'\x1a\x45\xdf\xa3') or segment < 0 or duration < 0:
        return 0
    # The segment's length, in 7 of 8 bytes, and the duration in milliseconds.
    length = int.from_bytes(head[segment + 5:segment + 12], 'big')
    if head[segment + 4] != 1 or segment + 12 + length != size:
        return 0
    return round(struct.unpack('>d', head[duration + 3:duration + 11])[0]
                 * FRAMES_A_SECOND / 1000)


def save_flow(source, target, method, bound, size, step=1, stopped=lambda: False):
    """Computes and stores the flow of a video.

    Args:
        source, target: video files.
        method: name, of METHODS.
        bound: see quantise.
        size: (width, height) that frames are scaled to first; pixels of flow are these.
        step: takes every step-th frame; flow is from each of them to the next of them.
        stopped: function that says whether to give up.

    Returns:
        engine.video.decode.Frames, whose `count` and `remark` tell of the clip; None if stopped.

    Raises:
        VideoError, DecoderKilled: as Frames.
    """
    class Stopped(Exception):
        pass
    frames = Frames(source, size, 16, step)

    def one_by_one():
        for batch in frames:
            if stopped():
                raise Stopped
            yield from batch
    try:
        with FlowWriter(target, size) as writer:
            for frame in flow_of_frames(one_by_one(), get_method(method), bound):
                writer.write(frame)
    except Stopped:
        return None
    return frames


# ---------------------------------------------------------------------------- looking

def colours(flow, most):
    """Flow as a picture (H, W, 3) uint8 RGB: the hue tells where to, the saturation how fast.

    Still is white; what moves right is red, down green, left cyan, up violet. Beyond `most`
    pixels colours do not get stronger. After the wheel of Baker et al. 2011.
    """
    x, y = flow[..., 0], flow[..., 1]
    hue = numpy.arctan2(y, x) * (90 / numpy.pi) % 180
    strength = numpy.minimum(numpy.hypot(x, y) / most, 1) * 255
    hsv = numpy.stack([hue, strength, numpy.full_like(hue, 255)], axis=-1)
    return cv2.cvtColor(numpy.uint8(hsv), cv2.COLOR_HSV2RGB)


def wheel(size, most):
    """The legend of `colours`: (size, size, 3) uint8, flow from the middle outwards."""
    place = numpy.linspace(-1, 1, size, dtype=numpy.float32)
    flow = numpy.stack(numpy.meshgrid(place, place), axis=-1)
    picture = colours(flow * most, most)
    picture[numpy.hypot(*numpy.moveaxis(flow, 2, 0)) > 1] = 255
    return picture
