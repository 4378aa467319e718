"""results.jsonl: one line of JSON a result."""
import json
import time
from pathlib import Path

from engine.files import append_line
from engine.stage import command_line, commit


def append_result(root, method, split, unit, seed, settings, **figures):
    """Appends one result to ROOT/results.jsonl and returns it.

    Args:
        method: short name ('frames', 'LSTM 1x1024').
        unit: 'frame', 'segment' or 'video'.
        figures: n, top1, top5, top10, loss and whatever else was measured.
    """
    if unit not in ('frame', 'segment', 'video'):
        raise ValueError(f'unit {unit!r}')
    line = dict(method=method, split=split, unit=unit, **figures, seed=seed,
                settings=settings, command=command_line(), commit=commit(),
                time=time.strftime('%Y-%m-%dT%H:%M:%S%z'))
    append_line(Path(root) / 'results.jsonl', json.dumps(line))
    return line
