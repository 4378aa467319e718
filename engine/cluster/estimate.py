"""What parts will take, told before they are submitted: frames, hours, gigabytes."""
import shutil
from statistics import median

from engine.cluster.parts import size


def estimate(work, parts, walltime, root, packed):
    """What the clips that are left will take, in words: frames, hours a part, gigabytes.

    The frames are reckoned from a sample of the clips' headers and the sizes of all. `packed`:
    whether the results are copied into other files afterwards.
    """
    sample = work.clips[::max(len(work.clips) // 100, 1)]
    frames, bytes_ = sum(_announced(work, clip) for clip in sample), sum(map(size, sample))
    whole = [part.megabytes * 1e6 * frames / bytes_ if bytes_ else 0 for part in parts]
    left = [n * part.left / max(part.clips, 1) for n, part in zip(whole, parts)]
    if not any(left):
        return []
    rates = [part.rate for part in parts if part.rate]
    wanting = sum(1 for n in left if n)
    words = [f'{wanting} part{"s" * (wanting > 1)}, {_count(sum(left))} frames']
    longest, late = max(left), ''
    if rates:
        hours = longest / median(rates) / 3600
        words.append(f'at {_figure(median(rates))} frames/s, as measured here, about '
                     f'{_hours(hours)} a part')
        if hours * 3600 > walltime:
            late = ('longer than the walltime: parts will stop and want --resubmit; or more '
                    '--parts, or --requeue 3')
    else:
        words.append(f'{_count(longest)} a part, which ends in time at '
                     f'{_figure(longest / walltime)} frames/s or more (--status shows the rate '
                     'of the first clips)')
    needed, free = sum(left) * work.frame_bytes, shutil.disk_usage(root).free
    words.append(_bytes(needed) + ', and as much again when packed' * packed)
    if needed * (1 + packed) > free:
        words.append(f'but {_bytes(free)} are free')
    return [', '.join(words), *filter(None, [late])]


def _announced(work, clip):
    try:
        return work.announced(clip)
    except OSError:
        return 0


def _count(n):
    return f'{n / 1e6:.2f} M' if n >= 1e6 else f'{n / 1e3:.0f} k' if n >= 1e4 else f'{n:.0f}'


def _hours(hours):
    minutes = round(hours * 60)
    return f'{minutes // 60} h {minutes % 60:02d}' if minutes >= 60 else f'{max(minutes, 1)} min'


def _figure(x):
    return f'{x:.3g}' if x < 1000 else f'{x:.0f}'


def _bytes(n):
    return f'{_figure(n / 1e9)} GB' if n >= 1e8 else f'{_figure(n / 1e6)} MB'
