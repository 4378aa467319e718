"""results.jsonl: one line of JSON a result."""
import json
import time
from pathlib import Path

from engine.errors import UserError
from engine.files import append_line
from engine.reporting.scoring import TOP_K
from engine.stage import command_line, commit
from engine.variants import place

RESULTS = 'results.jsonl'
REQUIRED = {'method': str, 'unit': str, 'split': int, 'n': int, 'settings': dict}


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
    append_line(Path(root) / RESULTS, json.dumps(line))
    return line


def read_results(path):
    """Reads results.jsonl.

    Returns:
        (results, faults): list of dicts, each with its `root` added, and list of str, one
        for each line that is no result.

    Raises:
        UserError: there is no such file.
    """
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    except FileNotFoundError:
        raise UserError(f'{path}: not there; every stage that measures something writes it, '
                        f'first of all python singleFrameAccuracy.py{place(path.parent)}'
                        ) from None
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    results, faults = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            result = json.loads(line)
        except ValueError as error:
            faults.append(f'{path}:{number}: not JSON ({error}), skipped')
            continue
        if not isinstance(result, dict):
            faults.append(f'{path}:{number}: not a JSON object, skipped')
            continue
        result = {'settings': {}, **result, 'root': path.parent}
        wrong = [key for key, kind in REQUIRED.items() if not isinstance(result.get(key), kind)]
        if wrong:
            faults.append(f'{path}:{number}: no usable {", ".join(wrong)}, skipped')
            continue
        for k in TOP_K[1:]:
            if is_number(result.get('n_classes')) and result['n_classes'] <= k:
                result[f'top{k}'] = None  # always right, whatever the method says
        results.append(result)
    return results, faults


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
