"""How far the parts are, from the lists and what stands in the folders; the table that tells."""
import os
from statistics import median
from typing import NamedTuple

from engine.cluster import parts as clip_parts

PACK = 'pack'


class Part(NamedTuple):
    """How far one part is; `left` are the clips that a job would still try."""
    name: str
    clips: int
    megabytes: float
    done: int
    left: int
    failed: list
    frames: int
    rate: float


def inspect(work, parts):
    """Returns a Part for each part, from the lists and what stands in the folders."""
    return [_inspect_part(work, number, clips)
            for number, clips in enumerate(clip_parts.deal(work.clips, parts), 1)]


def _inspect_part(work, number, clips):
    frames = {clip: work.finished(clip) for clip in clips}
    report = clip_parts.Report(work.folder, number)
    names = {clip.name: clip for clip in clips if not frames[clip]}
    # A clip that failed is tried again only once somebody has replaced it.
    failed = [reason for name, reason in report.of_kind('failed')
              if name in names
              and _changed(work.seen(names[name]).path) <= _changed(report.path)]
    done = [clip for clip in clips if frames[clip]]
    return Part(f'part{number:02d}', len(clips), sum(map(clip_parts.size, clips)) / 1e6,
                len(done), len(clips) - len(done) - len(failed), failed, sum(frames.values()),
                _rate([(_changed(work.results(clip)[-1]), frames[clip]) for clip in done]))


def _changed(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _rate(times):
    """Frames/s of the last clips, from (time finished, frames); 0 where it cannot be told."""
    times = sorted(times)[-50:]
    # The median does not see the pause between two jobs.
    rates = [n / (after - before) for (before, _), (after, n) in zip(times, times[1:])
             if after > before]
    return median(rates) if rates else 0.0


def table(parts, shown):
    """The lines of the table that --status and a submission print.

    Args:
        parts: a list of Part.
        shown: {part's name: what to say of its job}.
    """
    form = '{:<6} {:>6} {:>9} {:>6} {:>6} {:>6} {:>9} {:>8}  {}'
    lines = [form.format('part', 'clips', 'MB', 'done', 'left', 'failed', 'frames', 'frames/s',
                         'job')]
    for part in parts:
        lines.append(form.format(
            part.name, part.clips, f'{part.megabytes:.1f}', part.done, part.left,
            len(part.failed), part.frames, f'{part.rate:.1f}' if part.rate else '-',
            shown.get(part.name, '-')))
    lines.append(form.format(
        'all', sum(p.clips for p in parts), f'{sum(p.megabytes for p in parts):.1f}',
        sum(p.done for p in parts), sum(p.left for p in parts),
        sum(len(p.failed) for p in parts), sum(p.frames for p in parts), '',
        shown.get(PACK, '')).rstrip())
    return lines


def report(parts, jobs, folder):
    """The table, and below it what failed and the last words of parts that died: lines."""
    lines = table(parts, jobs.shown)
    for part in parts:
        lines += [f'{part.name}: failed: {reason}' for reason in part.failed]
        if part.left and part.name not in jobs.alive:
            lines += [f'{part.name}: {line}' for line in last_words(folder, part.name)]
    return lines


def last_words(folder, name):
    """The last line of each of a part's two logs, ours and the scheduler's: why it died."""
    found = []
    for path in (folder / f'{name}.log', folder / f'{name}.out'):
        try:
            with open(path, 'rb') as f:
                f.seek(max(os.path.getsize(path) - 2000, 0))
                text = f.read().decode(errors='replace')
        except OSError:
            continue
        found += text.strip().splitlines()[-1:]
    return found
