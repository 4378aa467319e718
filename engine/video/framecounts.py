"""How many frames each clip has, kept in a table beside the clips."""
import json
import os
import time
from typing import NamedTuple

from engine.files import json_of, write_text
from engine.progress import Progress
from engine.video.container import Remark
from engine.video.decode import VideoError, survey
from engine.video.ffmpeg import readers
from engine.video.packets import packets_of

COUNTS = 'frameCounts.json'
# Seconds of counting that a kill may cost.
SAVE_EVERY = 20.0
# No kind of remark, and why there is none: nothing was decoded.
BY_PACKETS = ['', 'packets']


class Counts(NamedTuple):
    """{clip name: frames}; [(clip name, reason)] of the clips that cannot be read; {clip name:
    engine.video.container.Remark} of those that are short or damaged."""
    frames: dict
    failures: list
    remarks: dict


def frame_counts(root, clips, workers, table=COUNTS, whole=False):
    """Counts the decodable frames of each clip; what was counted before is looked up.

    The table stands in ROOT/frameCounts.json (or another `table` there) with each file's size
    and time of change, so a replaced file is counted again. Where a clip's packets tell how many
    frames there are it is not decoded, and damage within a picture not seen, unless `whole`.
    Returns Counts.
    """
    path = os.path.join(root, table)
    try:
        with open(path, encoding='utf-8') as f:
            known = {str(name): [int(size), int(changed), int(count), str(kind), str(reason)]
                     for name, (size, changed, count, kind, reason) in json_of(f.read()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        known = {}  # none, or no such table: counted anew
    counts, failures, remarks, fresh = {}, [], {}, []
    for clip in clips:
        try:
            stat = os.stat(clip.path)
        except OSError as error:
            failures.append((clip.name, f'{clip.path}: {error.strerror}'))
            continue
        stamp = [stat.st_size, stat.st_mtime_ns]
        found = known.get(clip.name, [])
        if found[:2] != stamp or whole and found[3:] == BY_PACKETS:
            fresh.append((clip, stamp))

    def count(item):
        try:
            packets = None if whole else packets_of(item[0].path)
            return ([len(packets.begins), *BY_PACKETS] if packets
                    else _surveyed(item[0].path))
        except VideoError as error:
            return error

    def save():
        write_text(path, json.dumps(known))
    if fresh:
        saved = time.monotonic()
        # A thread a worker is enough: the work is ffmpeg's, in processes of its own.
        with Progress(len(fresh), 'counting frames') as progress, \
                readers(workers) as pool:
            for (clip, stamp), got in zip(fresh, pool.map(count, fresh)):
                known.pop(clip.name, None)
                if isinstance(got, VideoError):
                    failures.append((clip.name, str(got)))
                else:
                    known[clip.name] = [*stamp, *got]
                progress.update()
                if time.monotonic() - saved > SAVE_EVERY:
                    save()
                    saved = time.monotonic()
        save()
    unreadable = dict(failures)
    for clip in clips:
        if clip.name not in unreadable:
            *_, counts[clip.name], kind, reason = known[clip.name]
            if kind:
                remarks[clip.name] = Remark(kind, reason)
    return Counts(counts, failures, remarks)


def _surveyed(path):
    count, remark = survey(path)
    return [count, *(remark or ('', ''))]
