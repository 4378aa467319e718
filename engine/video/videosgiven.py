"""Videos and folders named on a command line, and the names of what is written of each."""
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.files import files_under, why_no_file
from engine.video.ownvideos import MOST_BYTES, is_video


class Given(NamedTuple):
    """A video to look at, the stem of what is written of it, and what is wrong with it, if so."""
    path: Path
    stem: Path
    wrong: str


def videos_given(paths, out=None, mark=''):
    """Finds the videos in what was named; a file counts whatever its name.

    Args:
        paths: files and folders; a folder is searched for files whose names end like a video's.
        out: folder of outputs, or None.
        mark: ends the stem of each output, so that none of them is taken for a video again.

    Returns:
        List of Given, in the order named; below a folder, sorted.

    Raises:
        UserError: the outputs of two videos would have one name.
    """
    found = []
    for path in map(Path, paths):
        if not os.path.isdir(path):
            reason = why_no_file(path)
            found.append((path, Path(path.name), f'{path}: {reason}' if reason else ''))
            continue
        closed = []
        inside = [video for video in files_under(path, lambda *why: closed.append(why))
                  if is_video(video) and not (mark and video.stem.endswith(mark))]
        for video in inside:
            reason = why_no_file(video)
            found.append((video, video.relative_to(path), f'{video}: {reason}' if reason else ''))
        found += [(Path(folder), Path(folder).relative_to(path), f'{folder}: {reason}')
                  for folder, reason in closed]
        if not inside and not closed:
            found.append((path, Path(path.name), f'{path}: holds no video'))
    if out is None:
        return [Given(path, None, wrong) for path, _, wrong in found]
    # Where a.avi and a.mp4 stand together, each keeps its ending.
    same = Counter(name.with_suffix('') for _, name, _ in found)
    stems = [Path(out) / f'{name if same[name.with_suffix("")] > 1 else name.with_suffix("")}{mark}'
             for _, name, _ in found]
    for stem, times in Counter(stems).items():
        if times > 1:
            raise UserError(f'{stem}: {times} videos would have this name there; name them one '
                            'at a time, each with an --out of its own')
    return [Given(path, stem, wrong or _too_long(path, stem))
            for (path, _, wrong), stem in zip(found, stems)]


def _too_long(path, stem):
    """What is wrong with a video whose outputs' names no file system would take."""
    if len(os.fsencode(stem.name)) <= MOST_BYTES:
        return ''
    return (f'{path}: its name is too long for what is written of it, NAME{stem.name[-10:]}.json; '
            'give it a shorter one, or a link of a shorter one')
