"""Folders of pictures, made into videos without loss."""
import contextlib
import re
import subprocess
import tempfile
from collections import Counter

from engine.errors import UserError
from engine.files import replacing
from engine.video.decode import count_frames
from engine.video.ffmpeg import command, complaint_of
from engine.video.ownvideos import PICTURE

CODEC = ('-c:v', 'libx264rgb', '-qp', '0', '-preset', 'ultrafast')
# What ffmpeg calls the forms of pictures that come one behind the other.
DECODERS = {'jpg': 'mjpeg', 'jpeg': 'mjpeg', 'tif': 'tiff'}


def pictures_of(folder):
    """The pictures of a folder, those of its commonest ending, by the numbers in their names:
    2.jpg before 10.jpg."""
    paths = [path for path in folder.iterdir()
             if path.suffix[1:].lower() in PICTURE and not path.name.startswith('.')]
    endings = Counter(path.suffix.lower() for path in paths)
    ending = max(sorted(endings), key=endings.get)
    return sorted((path for path in paths if path.suffix.lower() == ending), key=lambda path: [
        int(text) if text.isdecimal() else text for text in re.split(r'(\d+)', path.name)])


def make_video(folder, target, rate):
    """Writes the pictures of a folder as a video of that rate, every picture a frame.

    Raises:
        UserError: a picture cannot be read.
    """
    paths = pictures_of(folder)
    ending = paths[0].suffix[1:].lower()
    with replacing(target) as temporary, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command('-f', 'image2pipe', '-framerate', rate, '-c:v', DECODERS.get(ending, ending),
                    '-i', 'pipe:0', *CODEC, '-f', 'matroska', '-y', temporary),
            stdin=subprocess.PIPE, stderr=errors)
        try:
            with contextlib.suppress(BrokenPipeError):
                for path in paths:
                    process.stdin.write(path.read_bytes())
                process.stdin.close()
            failed = process.wait()
        except OSError as error:
            raise UserError(f'{error.filename}: {error.strerror}') from None
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        frames = 0 if failed else count_frames(temporary)
        if frames != len(paths):
            raise UserError(f'{folder}: {frames} of {len(paths)} pictures could be read '
                            f'({complaint_of(errors.read(), folder) or "ffmpeg says no more"})')
