"""Folders of pictures, made into videos without loss."""
import os
import re
import tempfile
from collections import Counter

from engine.files import as_output, replacing, why_no_file
from engine.video.decode import count_frames
from engine.video.ffmpeg import VideoError, command, complaint_of, run
from engine.video.ownvideos import PICTURE

CODEC = ('-c:v', 'libx264rgb', '-qp', '0', '-preset', 'ultrafast')
SAME = {'.jpeg': '.jpg', '.tiff': '.tif'}


def _kind(path):
    ending = path.suffix.lower()
    return SAME.get(ending, ending)


def _all_pictures(folder):
    return [path for path in folder.iterdir()
            if path.suffix[1:].lower() in PICTURE and not path.name.startswith('.')]


def pictures_of(folder):
    """The pictures of a folder, those of its commonest kind, by the numbers in their names:
    2.jpg before 10.jpg."""
    paths = _all_pictures(folder)
    kinds = Counter(map(_kind, paths))
    kind = max(sorted(kinds), key=kinds.get)
    return sorted((path for path in paths if _kind(path) == kind), key=lambda path: [
        int(text) if text.isdecimal() else text for text in re.split(r'(\d+)', path.name)])


def make_video(folder, target, rate):
    """Writes the pictures of a folder as a video of that rate, every picture a frame.

    Raises:
        VideoError: a picture cannot be read.
    """
    paths = pictures_of(folder)
    for path in paths:
        if reason := why_no_file(path):
            raise VideoError(f'{path}: {reason}')
    ending, others = _kind(paths[0]), len(_all_pictures(folder)) - len(paths)
    if others:
        print(f'{folder}: {others} pictures that are no {ending} are passed over', flush=True)
    with (replacing(target) as temporary, open(temporary, 'w+b') as f,
          tempfile.TemporaryDirectory() as row):
        # pictures of some forms cannot be told apart in a pipe
        for number, path in enumerate(paths):
            os.symlink(path.resolve(), os.path.join(row, f'{number}{ending}'))
        done = run(command(
            '-y', '-f', 'image2', '-framerate', rate, '-start_number', 0, '-i', f'%d{ending}',
            '-filter_complex', 'split[v][w];[w]scale=2:2:flags=neighbor,format=gray[alive]',
            '-map', '[v]', *CODEC, '-f', 'matroska', as_output(f),
            # ends it when nobody reads any more
            '-map', '[alive]', '-f', 'rawvideo', '-flush_packets', 1, 'pipe:1'), folder, cwd=row,
            pass_fds=[f.fileno()])
        frames = 0 if done.code else count_frames(temporary)
        if frames != len(paths):
            reason = complaint_of(done.log, folder) or complaint_of(done.log, folder, True)
            raise VideoError(f'{folder}: {frames} of {len(paths)} pictures could be read '
                             f'({reason or "ffmpeg says no more"})')
