"""A camera, or another live source that ffmpeg opens, read like the frames of a video."""
import contextlib
import os
import signal
import tempfile

from engine import stage
from engine.video.decode import Frames
from engine.video.ffmpeg import complaint_of


class Camera(Frames):
    """The frames of a live source, until stop() or its own end.

    Args:
        name: what ffmpeg calls the source: /dev/video0.
        form: ffmpeg's name for this kind of source: v4l2, avfoundation, dshow, lavfi ...
        seconds (float): ends after so long; None goes on until stop().
        record: Matroska file to which pictures and sound go, at their own size and rate,
            or None. It is whole after stop().
        The others as in Frames.
    """

    apart = True

    def __init__(self, name, form='v4l2', seconds=None, record=None, **options):
        super().__init__(name, **options)
        self.form, self.seconds, self.record = form, seconds, record

    def _input(self):
        limit = [] if self.seconds is None else ['-t', f'{self.seconds:g}']
        # The recording is an output of its own; it stands before ours, which Frames adds.
        record = [] if self.record is None else [
            # H.264 in its usual form wants even sides
            '-map', '0:v:0', '-map', '0:a?', '-vf', 'pad=ceil(iw/2)*2:ceil(ih/2)*2',
            '-c:v', 'libx264', '-preset', 'ultrafast', '-crf', '18', '-pix_fmt', 'yuv420p',
            '-fps_mode', 'passthrough', '-enc_time_base', 'demux',
            '-c:a', 'aac', '-f', 'matroska', '-y', f'file:{self.record}']
        return ['-f', self.form, *limit, '-i', self.path, *record]

    def _read_log(self, log):
        self.complaint = complaint_of(log, self.path)


@contextlib.contextmanager
def look_through(name, form, seconds, folder, **options):
    """Gives a Camera that a signal to stop ends in good order, for the length of a block.

    Args:
        folder: where the recording stands till the block ends; None records nothing.
        The others as in Camera.
    """
    with contextlib.ExitStack() as stack:
        record = None
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            record = os.path.join(stack.enter_context(tempfile.TemporaryDirectory(
                prefix='.camera.', dir=folder)), 'camera.mkv')
        camera = Camera(name, form, seconds, record, **options)
        for number in stage.stopping():
            stack.callback(signal.signal, number,
                           signal.signal(number, lambda *_: camera.stop()))
        yield camera
