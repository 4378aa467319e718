"""Loading the data set: its classes, its clips and their groups, and the split into training,
validation and test.
"""
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import engine  # noqa: F401  (before NumPy)
import numpy

from engine.errors import UserError
from engine.files import write_text
from engine.stage import check_root
from engine.variants import (CLIPS, GROUPS, LISTS, MAY_LEAK, in_stream, place,
                             why_no_name)


class Clip(NamedTuple):
    """One video: where it is, what it shows (label from 0), who is in it (group)."""
    name: str
    class_name: str
    label: int
    group: str
    path: Path


class Lists(NamedTuple):
    """Classes in order of their number, and the clips of one official split."""
    classes: list
    train: list
    test: list


def read_lists(root, split=1, folder=None, leaks=False, stream='rgb', clips=None):
    """Reads classInd.txt, trainlist0N.txt and testlist0N.txt.

    CRLF, blank lines and spaces around are taken as they come. The label is that
    of the folder's class; a number in the list that says otherwise is an error.
    A clip's group is what groups.txt beside the lists says, or else its name (group_of).
    The lists stand in ROOT/ucfTrainTestlist, or in `folder`; the clips in ROOT/UCF-101, or in
    `clips`. With `leaks` a clip or a
    group may be on both lists: checkData.py names them all. With the stream 'flow' a clip's
    path is that of its flow.

    Raises:
        UserError: naming file and line: unknown class, wrong label, a clip named twice
            or without a group in groups.txt, a group on both lists.
    """
    check_root(root)
    folder, place_of = Path(folder or Path(root) / LISTS), Path(clips or Path(root) / CLIPS)
    classes = _read_classes(folder / 'classInd.txt')
    groups, may_leak = _read_groups(folder / GROUPS)
    train = _read_list(place_of, folder / f'trainlist{split:02d}.txt', classes, groups)
    test = _read_list(place_of, folder / f'testlist{split:02d}.txt', classes, groups)
    train, test = ([in_stream(root, clip, stream) for clip in clips] for clips in (train, test))
    if leaks:
        return Lists(classes, train, test)
    both = {clip.name for clip in train} & {clip.name for clip in test}
    if both:
        raise UserError(f'{folder}: {len(both)} clips are on both lists of split {split}, '
                        f'{sorted(both)[0]} first')
    # The same person before the same background on both sides would be learned by heart.
    leaking = ({(c.class_name, c.group) for c in train}
               & {(c.class_name, c.group) for c in test})
    if leaking:
        text = (f'{folder}: {len(leaking)} groups are on both lists of split {split}, '
                f'{"/".join(sorted(leaking)[0])} first')
        if not may_leak:
            raise UserError(text)
        print(f'warning: {text}; so are the official lists', file=sys.stderr)
    return Lists(classes, train, test)


def _lines(path):
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'not a text'
        where, number = place(path.parent.parent), path.stem[-1]
        raise UserError(f'{path}: {reason}; the official lists '
                        '(UCF101TrainTestSplits-RecognitionTask.zip) come by python getData.py '
                        f'--lists-only{where}, those of own videos by python makeSplit.py{where} '
                        '--clips VIDEOS' + f' --splits {number}' * (number in '23')) from None
    # not splitlines: names may hold what that takes for the end of a line
    for number, line in enumerate(text.split('\n'), 1):
        if line.strip():
            yield number, line.strip()


def _read_classes(path):
    numbers = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 2 or not fields[0].isdigit():
            raise UserError(f'{path}:{number}: expected "NUMBER CLASS", found "{line:.80}"')
        if reason := why_no_name(fields[1]):
            raise UserError(f'{path}:{number}: {fields[1]!r} {reason}; rename the class')
        if int(fields[0]) in numbers or fields[1] in numbers.values():
            raise UserError(f'{path}:{number}: "{line}" is there twice')
        numbers[int(fields[0])] = fields[1]
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise UserError(f'{path}: class numbers must run from 1 without a gap')
    return [numbers[i] for i in sorted(numbers)]


def _read_groups(path):
    """({clip name: group} or None where there is no such file, whether a group may leak)."""
    if not path.exists():
        return None, False
    groups, may_leak = {}, False
    for number, line in _lines(path):
        if line.startswith('#') and '\t' not in line:
            may_leak = may_leak or line == MAY_LEAK
            continue
        clip, _, group = line.partition('\t')
        name = os.path.splitext(clip.rpartition('/')[2])[0]
        if not group or name in groups:
            raise UserError(f'{path}:{number}: '
                            + ('is there twice' if group else 'expected "CLASS/CLIP.ext", a tab '
                               f'and the group, found "{line:.80}"'))
        groups[name] = group
    return groups, may_leak


def _read_list(place_of, path, classes, groups):
    labels = {name.lower(): label for label, name in enumerate(classes)}
    clips, seen, folders = [], set(), {}
    for number, line in _lines(path):
        # "Class/clip.avi 12" (train) or "Class/clip.avi" (test); clips' names may hold spaces
        found = re.fullmatch(r'([^/]+)/(.+?\.[\w-]+)(?:\s+(\d+))?', line)
        if not found:
            raise UserError(f'{path}:{number}: expected "CLASS/CLIP.avi [NUMBER]", '
                            f'found "{line:.80}"')
        class_name, file_name, given = found.groups()
        # The official lists spell HandstandPushups two ways.
        label = labels.get(class_name.lower())
        if label is None:
            raise UserError(f'{path}:{number}: class "{class_name}" is not in classInd.txt')
        if given is not None and int(given) != label + 1:
            raise UserError(f'{path}:{number}: label {given}, but {classes[label]} is '
                            f'number {label + 1} in classInd.txt')
        name = file_name.rpartition('.')[0]
        if reason := why_no_name(name):
            raise UserError(f'{path}:{number}: {name!r} {reason}; rename the clip')
        if name in seen:
            raise UserError(f'{path}:{number}: {name} is there twice')
        seen.add(name)
        if groups is not None and name not in groups:
            raise UserError(f'{path}:{number}: {path.with_name(GROUPS)} names no group of {name}')
        if class_name not in folders:
            # As the list spells it, unless only the class's own spelling is there.
            spelled = [place_of / spelling for spelling in (class_name, classes[label])]
            folders[class_name] = next((f for f in spelled if f.is_dir()), spelled[0])
        clips.append(Clip(name, classes[label], label,
                          group_of(name) if groups is None else groups[name],
                          folders[class_name] / file_name))
    if not clips:
        raise UserError(f'{path}: names no clip')
    return clips


def write_list(path, lines):
    """Writes a class or split list with the line ends of the official ones."""
    write_text(path, ''.join(line + '\r\n' for line in lines))


def group_of(name):
    """'v_PushUps_g07_c02' -> 'g07'; a clip of no group is a group of its own."""
    found = re.search(r'_(g\d+)(?:_c\d+)?$', name)
    return found.group(1) if found else name


def hold_out_fold(clips, fold):
    """Splits clips into (training, validation): a fold 'K/N' of the groups, in all classes alike.

    A group, such as a person, is held out in every class that shows it. The largest groups are
    dealt first, each to the fold that has least of its classes, so that folds are alike in size
    and classes; nothing is drawn, so that all stages, streams and seeds have the same folds.
    scikit-learn's StratifiedGroupKFold refuses to leave single groups out where classes have
    fewer clips than there are groups.

    Raises:
        UserError: there are fewer groups than folds, or fewer than two.
    """
    k, n = map(int, fold.split('/'))
    groups = {}
    for clip in clips:
        groups.setdefault(clip.group, Counter())[clip.class_name] += 1
    if n > len(groups):
        raise UserError(f'--fold {fold}: the training list has {len(groups)} groups'
                        + (f', so at most {len(groups)} folds: --fold 1/{len(groups)} leaves out '
                           'one group' if len(groups) > 1 else ', too few to hold one out'))
    total = sum(groups.values(), Counter())
    folds = [Counter() for _ in range(n)]
    held = set()
    for name, counts in sorted(groups.items(), key=lambda item: (-item[1].total(), item[0])):
        best = min(folds, key=lambda its: (sum(counts[c] * its[c] / total[c] for c in counts),
                                           its.total()))
        best.update(counts)
        if best is folds[k - 1]:
            held.add(name)
    lost = sorted(c for c in folds[k - 1] if folds[k - 1][c] == total[c])
    if lost:
        print(f'--fold {fold}: holds out all groups of {len(lost)} classes, {lost[0]} first, so '
              'that it cannot learn them; fewer folds, or more groups of them, help')
    return ([clip for clip in clips if clip.group not in held],
            [clip for clip in clips if clip.group in held])


def hold_out_groups(clips, every=5, seed=0):
    """Splits clips into (training, validation) by whole groups, class by class.

    One group in `every` of each class (at least one where the class has two) is
    held out: clips of a group share a person and a background, so that any other
    split would measure memory.
    """
    held = set()
    by_class = {}
    for clip in clips:
        by_class.setdefault(clip.class_name, set()).add(clip.group)
    for class_name, groups in sorted(by_class.items()):
        groups = sorted(groups)
        n = max(1, len(groups) // every) if len(groups) > 1 else 0
        # The same groups in classes of equally many: where a group of one class stands before
        # the background of another's, both are held out, or neither.
        order = numpy.random.RandomState([seed, len(groups)]).permutation(len(groups))
        held.update((class_name, groups[i]) for i in order[:n])
    training = [c for c in clips if (c.class_name, c.group) not in held]
    validation = [c for c in clips if (c.class_name, c.group) in held]
    return training, validation
