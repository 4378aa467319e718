"""Clips in parts, as batch jobs take them: dealing and reports.

A stage that works in parts (saveFeatures_1024.py, opticalFlow.py) tells generate_pbs.py what
there is to do by `work_of(args)`, which gives a Work.
"""
import os
from pathlib import Path
from typing import Callable, NamedTuple

from engine import locks
from engine.arguments import not_negative, whole
from engine.errors import UserError
from engine.progress import number_of
from engine.files import remove_leftovers, write_text


MOST_PARTS = 99999


def add_parts(parser, needed=True):
    """Adds the number of the part and --parts, --walltime, --margin; returns their group."""
    parser.add_argument('part', type=whole(1, MOST_PARTS), nargs=None if needed else '?',
                        help='which part, from 1')
    group = parser.add_argument_group('work')
    group.add_argument('--parts', type=whole(1, MOST_PARTS), default=12,
                       help='into how many parts the clips are dealt (default: 12)')
    group.add_argument('--walltime', default=None, metavar='HH:MM:SS',
                       help='leave in good order before this much time has passed')
    group.add_argument('--margin', type=not_negative, default=120, metavar='SECONDS',
                       help='how long before --walltime to leave (default: 120)')
    return group


class Work(NamedTuple):
    """What a stage has to do, all parts together.

    clips: list of Clip; folder: where the reports of the parts stand; finished: function of
    a clip, the frames of its whole result, else 0; results: function of a clip, the files
    that are written for it, the last one last; seen: function of a clip, the clip with the
    file that the stage reads, where its own file only says how large a part is; announced:
    function of a clip, the frames that its header promises and a job will do; frame_bytes: what
    the results of a frame take; packed: function of the time of the newest result, whether all
    that is made of them is there and no older.
    """
    clips: list
    folder: Path
    finished: Callable
    results: Callable
    seen: Callable = lambda clip: clip
    announced: Callable = lambda clip: 0
    frame_bytes: float = 0.0
    packed: Callable = lambda newest: True


def size(clip):
    """Bytes of a clip's file; 0 if it is not there."""
    try:
        return os.path.getsize(clip.path)
    except OSError:
        return 0


def deal(clips, parts):
    """Deals clips into parts of nearly equal bytes: [[Clip, ...], ...].

    The largest clip goes to the part with least so far. Only the lists and the
    files' sizes decide, never what is finished, so a part means the same every day.
    """
    sized = sorted(((size(clip), clip) for clip in clips), key=lambda s: (-s[0], s[1].name))
    dealt, loads = [[] for _ in range(parts)], [0] * parts
    for bytes_, clip in sized:
        # a file that is not there still counts a little, or all would go to one part
        lightest = loads.index(min(loads))
        dealt[lightest].append(clip)
        loads[lightest] += max(bytes_, 1)
    return [sorted(part, key=lambda clip: str(clip.path)) for part in dealt]


class Report:
    """The clips of a part that failed or are short, kept in a file beside the results.

    A line of the file is KIND, clip and reason, with tabs between.
    """

    def __init__(self, folder, part):
        self.path = folder / f'part{part:02d}.txt'
        self.lines = {}
        try:
            text = self.path.read_text(encoding='utf-8', errors='surrogateescape')
        except OSError:
            return
        for line in text.split('\n'):
            fields = line.split('\t', 2)
            if len(fields) == 3:  # else it was cut off: the stage looks at the clip again
                self.lines[fields[1]] = fields[0], fields[2]

    def add(self, kind, name, reason):
        self.lines[name] = kind, ' '.join(reason.split())
        self.save()

    def remove(self, name):
        if self.lines.pop(name, None):
            self.save()

    def save(self):
        write_text(self.path, ''.join(f'{kind}\t{name}\t{reason}\n' for name, (kind, reason)
                                      in sorted(self.lines.items())))

    def failed(self, clip, error, folder):
        """Enters a clip that could not be read.

        Raises:
            UserError: `folder`, where the clips stand, has gone, so it is not this clip's fault.
        """
        if not folder.is_dir():
            raise UserError(f'{folder}: not there any more; run the command again when it is '
                            'back') from None
        self.add('failed', clip.name, str(error))

    def finished(self, clip, frames, otherwise=None):
        """Enters a clip whose result is there, if it is short.

        Args:
            frames (Frames): of the clip, read to the end.
            otherwise: None, or (kind, reason) to enter if it is not short.
        """
        if frames.remark:
            self.add(frames.remark.kind, clip.name, f'{clip.path}: {frames.remark.reason}')
        elif otherwise:
            self.add(otherwise[0], clip.name, otherwise[1])
        else:
            self.remove(clip.name)

    def of_kind(self, kind):
        return [(name, reason) for name, (k, reason) in sorted(self.lines.items()) if k == kind]


def failed_clips(folder):
    """Names of the clips that a stage could not do, from the reports of all parts in a folder."""
    numbers = [path.stem.removeprefix('part') for path in folder.glob('part*.txt')]
    return {name for number in numbers if number.isdigit()
            for name, _ in Report(folder, int(number)).of_kind('failed')}


def only_one(work, part):
    """Lets no second job into a part (engine.locks.only_one)."""
    return locks.only_one(Report(work.folder, part).path)


def begin(work, part, parts):
    """Returns (clips of the part, those that are left as they are read, its Report), and says
    how many."""
    mine = deal(work.clips, parts)[part - 1]
    todo = [clip for clip in mine if not work.finished(clip)]
    print(f'{number_of(len(mine), "clip")} in this part, {len(mine) - len(todo)} finished before',
          flush=True)
    remove_leftovers(path for clip in todo for path in work.results(clip))
    report = Report(work.folder, part)
    finished_before = {clip.name for clip in mine} - {clip.name for clip in todo}
    report.lines = {name: line for name, line in report.lines.items()
                    if line[0] != 'failed' and name in finished_before}
    report.save()
    return mine, [work.seen(clip) for clip in todo], report


def end(mine, report, part):
    """Names the clips that are not well; returns the exit code, 0 or 3."""
    kinds = {kind for kind, _ in report.lines.values()}
    for kind in sorted(kinds, key=lambda kind: (kind == 'failed', kind)):
        for _, reason in report.of_kind(kind):
            print(f'{kind}: {reason}')
    failed = report.of_kind('failed')
    print(f'part {part}: {number_of(len(mine) - len(failed), "clip")} finished, '
          f'{len(failed)} failed'
          + (f'; see {report.path}' if report.lines else ''), flush=True)
    return 3 if failed else 0
