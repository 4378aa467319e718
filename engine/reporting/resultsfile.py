"""results.jsonl: one line of JSON a result."""
import errno
import hashlib
import json
import os
import time
from pathlib import Path

from engine import files, locks
from engine.errors import UserError
from engine.reporting.scoring import TOP_K
from engine.stage import command_line, commit
from engine.variants import GROUPS, LISTS, RESULTS, place

REQUIRED = {'method': str, 'unit': str, 'split': int, 'n': int, 'settings': dict}
# Says when and by which state of the code a result was found, not what it is.
PASSING = ('command', 'commit', 'time', 'seconds')
PATIENCE = 60.0  # seconds for others to write their lines
OPTIONAL = {'predictions': (str,), 'seed': (int, str), 'members': (list,), 'fold': (str,),
            'features': (str,), 'made_with': (dict,), 'classes': (str,), 'lists': (str,),
            'test_clips': (str,)}


def check_outputs(root, *names):
    """Refuses, before the work, files of a root, results.jsonl among them, that could not be
    written after it.

    Raises:
        UserError: the reason.
    """
    path = Path(root) / RESULTS
    files.check_outputs(path, *(Path(root) / name for name in names))
    if path.exists() and not os.access(path, os.W_OK):
        raise files.cannot_be_written(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def append_result(root, method, split, unit, seed, settings, **figures):
    """Appends one result to ROOT/results.jsonl and returns it.

    It is not told again where the last lines on the run that made these predictions say the same
    already: a stage that was killed between its line and its end is run again.

    Args:
        method: short name ('frames', 'LSTM 1x1024').
        unit: 'frame', 'segment' or 'video'.
        figures: n, top1, top5, top10, loss and whatever else was measured.
    """
    root = Path(root)
    if unit not in ('frame', 'segment', 'video'):
        raise ValueError(f'unit {unit!r}')
    line = dict(method=method, split=split, unit=unit, **figures, seed=seed,
                settings=settings, **lists_told(root, split), command=command_line(),
                commit=commit(), time=time.strftime('%Y-%m-%dT%H:%M:%S%z'))
    path = root / RESULTS
    with locks.only_one(path, patience=PATIENCE):  # reading, comparing and writing are one
        if not _is_told(path, line):
            files.append_line(path, json.dumps(line))
    return line


def lists_told(root, split):
    """What a line tells of the lists of a root: {'classes': short digest of the classes, 'lists':
    one of all that the lists of a split say}; {} where they are not there."""
    digest, found = hashlib.sha256(), {}
    try:
        for key, names in (('classes', ['classInd.txt']),
                           ('lists', [f'{side}list{split:02d}.txt' for side in ('train', 'test')])):
            for name in names:
                _take_in(digest, root / LISTS / name)
            if key == 'lists' and (root / LISTS / GROUPS).exists():
                _take_in(digest, root / LISTS / GROUPS)  # says who is held out together
            found[key] = digest.hexdigest()[:16]
    except OSError:
        return {}
    return found


def _take_in(digest, path):
    """Updates a digest by the lines of a list, in whichever order and with whichever ends."""
    lines = path.read_bytes().removeprefix(b'\xef\xbb\xbf').splitlines()
    digest.update(b'\n'.join([path.name.encode(), *sorted(filter(None, map(bytes.strip, lines)))]))


def _is_told(path, line):
    of_these = [result for result in (read_results(path)[0] if path.exists() else ())
                if all(result.get(key) == line.get(key) for key in ('unit', 'predictions'))]
    line = _checked(json.dumps(line)) if of_these else line
    for result in reversed(of_these):
        if _lasting(result) == _lasting(line):
            return True
        if _run_of(result) != _run_of(line):
            break  # what the file held in between
    return False


def _run_of(result):
    """What lines on one run have in common, whichever of its clips they count."""
    return [result.get(key) for key in (
        'method', 'split', 'seed', 'features', 'made_with', 'lists', 'test_only')] + [
        {**result['settings'], 'without': None}]


def _lasting(result):
    return {key: value for key, value in result.items() if key not in (*PASSING, 'root')}


def read_results(path):
    """Reads results.jsonl.

    Returns:
        (results, faults): list of dicts, each with its `root` added, and list of str, one
        for each line that is no result.

    Raises:
        UserError: there is no such file.
    """
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
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
            results.append({**_checked(line), 'root': path.parent})
        except ValueError as error:
            faults.append(f'{path}:{number}: {error}, skipped')
    return results, faults


def _checked(line):
    """The result that a line tells of; ValueError says why it is none."""
    try:
        result = files.json_of(line)
    except ValueError as error:
        raise ValueError(f'not JSON ({error})') from None
    if not isinstance(result, dict):
        raise ValueError('not a JSON object')
    result = {'settings': {}, **result}
    wrong = [key for key, kind in REQUIRED.items() if type(result.get(key)) is not kind]
    wrong += [key for key, kind in OPTIONAL.items()
              if result.get(key) is not None and type(result[key]) not in kind]
    if wrong:
        raise ValueError(f'no usable {", ".join(wrong)}')
    for key, value in result.items():
        if is_number(value) and not abs(value) < 1e300:
            result[key] = None  # nan, infinite, or nothing that can be measured
    for k in TOP_K[1:]:
        if is_number(result.get('n_classes')) and result['n_classes'] <= k:
            result[f'top{k}'] = None  # always right, whatever the method says
    return result


def tested_on(packed, made_with, clips):
    """What a line tells of what was tested: the short digest of the features and how they were
    made, if that is known (cardchecks.packed_in, made_with_in), and a digest of the names and
    labels of the clips that count."""
    names = ''.join(sorted(f'{clip.label} {clip.name}\n' for clip in clips))
    told = {'features': packed, 'made_with': made_with}
    return {**{key: value for key, value in told.items() if value},
            'test_clips': hashlib.sha256(names.encode()).hexdigest()[:16]}


def fold_of(names):
    """What a line tells of the fold that a variant holds out: {} or {'fold': 'K/N'}."""
    return {'fold': names.fold} if names.fold else {}


def line_of(results, path, split, without=None):
    """The last line of results.jsonl on a prediction file by video, on all of it or `without` a
    class; {} if none."""
    return next((result for result in _lines_of(results, path, split)
                 if result['settings'].get('without') == without), {})


def settings_of(results, path, split):
    """With which settings a prediction file was made, whichever of its clips a line counts; {}
    where none tells."""
    return next((result['settings'] for result in _lines_of(results, path, split)), {})


def _lines_of(results, path, split):
    return (result for result in reversed(results) if result['unit'] == 'video'
            and (result.get('predictions'), result['split']) == (path.name, split))


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
