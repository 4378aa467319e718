"""How far the parts are, from the lists and what stands in the folders; the table that tells."""
import os
from statistics import median
from typing import NamedTuple

from engine.cluster import parts as clip_parts
from engine.cluster import record
from engine.cluster.jobstates import NEVER, WAITING

PACK = 'pack'
# Frames/s that no machine computes: the files were copied.
FASTEST = 10_000


class Part(NamedTuple):
    """How far one part is; `left` are the clips that a job would still try, `newest` when the
    last of its results was made."""
    name: str
    clips: int
    megabytes: float
    done: int
    left: int
    failed: list
    frames: int
    rate: float
    newest: float


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
    times = sorted((_changed(work.results(clip)[-1]), frames[clip]) for clip in done)
    return Part(f'part{number:02d}', len(clips), sum(map(clip_parts.size, clips)) / 1e6,
                len(done), len(clips) - len(done) - len(failed), failed, sum(frames.values()),
                _rate(times), times[-1][0] if times else 0.0)


def _changed(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _rate(times):
    """Frames/s of the last clips, from (time finished, frames) in order; 0 if it cannot be told."""
    times = times[-50:]
    # The median does not see the pause between two jobs.
    rates = [n / (after - before) for (before, _), (after, n) in zip(times, times[1:])
             if n < FASTEST * (after - before)]
    return median(rates) if rates else 0.0


def table(parts, jobs):
    """The lines of the table that --status and a submission print.

    Args:
        parts: a list of Part.
        jobs (states.Jobs): those that were sent for them.
    """
    form = '{:<6} {:>6} {:>9} {:>6} {:>6} {:>6} {:>9} {:>8}  {}'
    lines = [form.format('part', 'clips', 'MB', 'done', 'left', 'failed', 'frames', 'frames/s',
                         'job')]
    for part in parts:
        lines.append(form.format(
            part.name, part.clips, f'{part.megabytes:.1f}', part.done, part.left,
            len(part.failed), part.frames, f'{part.rate:.1f}' if part.rate else '-',
            jobs.shown(part.name)))
    lines.append(form.format(
        'all', sum(p.clips for p in parts), f'{sum(p.megabytes for p in parts):.1f}',
        sum(p.done for p in parts), sum(p.left for p in parts),
        sum(len(p.failed) for p in parts), sum(p.frames for p in parts), '',
        jobs.shown(PACK) if PACK in jobs.sent else '').rstrip())
    return lines


def report(parts, jobs):
    """The table, and below it what failed, why jobs wait, and the last words of those that died."""
    lines = table(parts, jobs)
    for part in parts:
        lines += [f'{part.name}: failed: {reason}' for reason in part.failed]
    for comment, names in jobs.waiting().items():
        lines.append(f'{" ".join(names)}: {comment}')
    for part in parts:
        if part.left and part.name not in jobs.alive:
            lines += [f'{part.name}: {line}' for line in last_words(jobs.folder, part.name)]
    for name in jobs.unclear:
        lines.append(f'{name}: was sent under an id that could not be read; put it into '
                     f'{jobs.folder / record.RECORD} in place of the {record.UNCLEAR}, or take the '
                     'line out if no such job is there')
    return lines


def packing(parts, jobs, packed, without):
    """What there is to say of packing where it is wanted, and whether a packing job is to be sent.

    Args:
        packed: of parts.Work.
        without: how to pack without the clips that failed.

    Returns:
        (text, bool): '' if all is packed, and whether a job would get on with it.
    """
    left = sum(part.left for part in parts)
    failed = sum(len(part.failed) for part in parts)
    waiting = jobs.states.get(PACK)
    if waiting and (waiting.word not in WAITING or _can_begin(parts, jobs)):
        return f'{PACK}: job {jobs.shown(PACK)}', False
    if left:
        return f'{PACK}: waits for the parts', True
    if packed(max(part.newest for part in parts)):
        return '', False
    if failed:
        return f'not packed: {failed} clips failed; mend them, or go on without: {without}', False
    died = last_words(jobs.folder, PACK) if PACK in jobs.sent else []
    return '\n'.join(['parts done, not packed', *(f'{PACK}: {line}' for line in died)]), True


def _can_begin(parts, jobs):
    """Whether all that the packing job waits for has ended well or may still do so."""
    if jobs.states[PACK].comment == NEVER:
        return False
    well = {part.name for part in parts if not part.left and not part.failed}
    awaited = jobs.sent[PACK].after or [job for name, job in jobs.alive.items() if name != PACK]
    alive = {job: name for name, job in jobs.alive.items()}
    ended_well = {jobs.sent[name].job for name in well if name in jobs.sent}
    if not all(job in alive or job in ended_well for job in awaited):
        return False
    # Every part that wants work is among those that it waits for.
    if not all(jobs.alive.get(part.name) in awaited for part in parts if part.left):
        return False
    return jobs.states[PACK].word != 'held' or any(job in alive for job in awaited)


def of_training(job, jobs):
    """What there is to say of a training's job: lines."""
    return [f'{job}: {jobs.shown(job) if job in jobs.sent else "never submitted"}',
            *(f'  {comment}' for comment, names in jobs.waiting().items() if job in names),
            *(f'  {line}' for line in last_words(jobs.folder, job))]


def last_words(folder, name):
    """The last line of each of a job's two logs, ours and the scheduler's: why it died."""
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
