"""A clip's two .npy files of stage 2, its features and its frames' predictions, and what stands
beside them: which model made them (extraction.json, or imported.json of features without
predictions that another program computed), and from which file (part03.clips ...)."""
import os
import shlex
import stat
import time

import numpy

from engine.errors import UserError
from engine.files import append_line, load_npy, read_json, sha256
from engine.variants import CLAIM, IMPORTED, Names, is_imported, output_path


def why_no_features(rows, layer='fc7'):
    """Why (frames, D) numbers are no features of a clip's frames; '' where they may be.

    A file server that crashed leaves zeros. Single features may be dead, and a still picture
    gives the same features over and over; but no frame has one number for all of them, unless a
    ReLU comes last (pool5): then no clip has.
    """
    if not numpy.isfinite(rows).all():
        return 'holds a number that is not finite'
    if rows.shape[1] > 1:
        if (rows == rows[0, 0]).all():
            return f'holds nothing but {rows[0, 0] + 0:g}'
        even = (rows == rows[:, :1]).all(axis=1)
        if layer != 'pool5' and even.any():
            frame = int(even.argmax())
            return f'holds nothing but {rows[frame, 0] + 0:g} for frame {frame}'
    return ''


def why_no_predictions(rows):
    """The same of (frames, classes) probabilities."""
    if not numpy.isfinite(rows).all():
        return 'holds a number that is not finite'
    if rows.min() < 0 or rows.max() > 1.001:
        return 'holds what is no probability (not from 0 to 1)'
    return '' if (rows.max(axis=1) > 0).all() else 'holds a frame without any probability'


def check_results(root, clip, n_features, n_classes, values=True, names=Names()):
    """Returns the number of frames of a clip whose two .npy files of stage 2 are well.

    With n_classes=None there are features alone. With values=False their headers and lengths
    are read, not the numbers themselves.

    Raises:
        UserError: one is missing or damaged, holds what it should not, or they disagree.
    """
    lengths = []
    for folder, width, dtype in ((names.features, n_features, names.dtype),
                                 (names.frame_predictions, n_classes, 'float32')):
        if width is None:
            continue
        path = output_path(root, folder, clip)
        array = load_npy(path, mmap=True)
        if array.dtype != dtype:
            raise UserError(f'{path}: holds {array.dtype}, expected {dtype}')
        if array.shape[1:] != (width,):
            raise UserError(f'{path}: shape {array.shape}, expected (frames, {width})')
        if not len(array):
            raise UserError(f'{path}: no frame')
        if values and (reason := why_no_features(array, names.layer)
                       if folder == names.features else why_no_predictions(array)):
            raise UserError(f'{path}: {reason}')
        lengths.append(len(array))
    if lengths[0] != lengths[-1]:
        raise UserError(f'{clip.name}: {lengths[0]} features, {lengths[-1]} predictions')
    return lengths[0]


# --------------------------------------------------------------- of which model, of which file

def made_with(root, names):
    """What extraction.json (or imported.json) says of the features: a dict with model_sha256 and
    step; None where there are none.

    Raises:
        UserError: it is damaged, or not there though features are, or an import was stopped.
    """
    folder = root / names.features
    path = folder / (IMPORTED if is_imported(root, names) else CLAIM)
    try:
        found = read_json(path)
    except UserError:
        found = 'damaged'
    if found is None and not any(folder.glob('*/*.npy')):
        return None
    if isinstance(found, dict) and found.get('unfinished'):
        raise UserError(f'{path}: the import was stopped in the middle; run it again: '
                        f'{found.get("command")}')
    if not (isinstance(found, dict) and isinstance(found.get('model_sha256'), str)
            and isinstance(found.get('step'), int)):
        raise UserError(f'{path}: {"not there" if found is None else "damaged"}, so '
                        'that nobody knows which model made the features; remove them: '
                        + remover(root, names) + ', then make them again')
    return found


def remover(root, names):
    """The command that removes all features and predictions of a variant."""
    return shlex.join(['rm', '-r', str(root / names.features), *(
        [] if is_imported(root, names) else [str(root / names.frame_predictions)])])


def identity(path):
    """(size, time of change in ns, SHA-256) of a file; None where it is no file to read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_size, status.st_mtime_ns, sha256(path)
    except OSError:
        return None


def note_source(folder, part, clip, source):
    """Notes the identity of the file that a clip's results, written just now, were made from."""
    if source:
        append_line(folder / f'part{part:02d}.clips',
                    '\t'.join(map(str, (time.time_ns(), clip.name, *source))))


def read_sources(folder):
    """{clip name: identity of the file that its results were made from}, as far as it is noted.

    Of two notes, of two parts, the later counts; a line that was cut off counts nothing.
    """
    notes = {}
    for path in sorted(folder.glob('part*.clips')):
        try:
            lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
        except OSError:
            continue
        for line in lines:
            fields = line.split('\t')
            if len(fields) == 5 and all(fields[i].isdecimal() for i in (0, 2, 3)) \
                    and len(fields[4]) == 64:
                when, size, changed = (int(fields[i]) for i in (0, 2, 3))
                notes[fields[1]] = max(notes.get(fields[1], (0,)),
                                       (when, (size, changed, fields[4])))
    return {name: source for name, (_, source) in notes.items()}


def is_replaced(path, source):
    """Whether a file is another than the one with the identity `source` (None: not known).

    One that has gone is none, and one that was only copied or touched has its bytes.
    """
    if source is None:
        return False
    try:
        status = os.stat(path)
    except OSError:
        return False
    if (status.st_size, status.st_mtime_ns) == source[:2]:
        return False
    return status.st_size != source[0] or sha256(path) != source[2]
