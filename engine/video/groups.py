"""Which videos belong together (groups), and which groups are tested."""
import csv
import os
import re
import unicodedata
from collections import Counter, defaultdict

import numpy

from engine.errors import UserError
from engine.video.ownvideos import clean

UCF_GROUP = r'_(g\d+)(?:_c\d+)?\.\w+$'
# Film_CLASS_body_camera_people_direction_quality_number: what HMDB-51 calls its clips
HMDB_CLIP = r'(.+)_{}_[a-z]_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+\.\w+$'
# Random orders of the groups that are tried; the best division is taken.
TRIES = 20


def read_table(path):
    """The text of a table as programs write them: UTF-8, UTF-16 or Windows-1252."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
        encodings = ['utf-16']
    elif b'\0' in data[:2]:
        encodings = ['utf-16-le' if data[1:2] == b'\0' else 'utf-16-be']
    else:
        encodings = ['utf-8-sig', 'cp1252']
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if '\0' not in text:
            return text
    raise UserError(f'{path}: not a text; save the table as CSV in UTF-8')


def _alike(text):
    """A name as it is looked up: one way to write an accent, / between folders."""
    return unicodedata.normalize('NFC', text).replace('\\', '/').removeprefix('./')


def groups_of_table(path, videos):
    """The group that a table gives each video.

    A clip is named by its file, with or without folders and extension: `jump/anna1.mp4`,
    `anna1`, or with more folders before it, as in `C:\\films\\jump\\anna1.mp4`.
    """
    by_name = defaultdict(set)
    for i, video in enumerate(videos):
        for text in (video.relative, video.inner, video.path.name):
            by_name[_alike(text)].add(i)
            by_name[_alike(os.path.splitext(text)[0])].add(i)

    def meant_by(text):
        parts = _alike(text).split('/')
        return next((by_name[tail] for n in range(len(parts))
                     if (tail := '/'.join(parts[n:])) in by_name), set())
    text = read_table(path)
    tab = next((mark for mark in '\t;' if mark in text.partition('\n')[0]), ',')
    groups, unknown = {}, []
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=tab), 1):
        row = [cell.strip() for cell in row]
        if not any(row):
            continue
        if len(row) < 2 or not row[0] or not row[1]:
            raise UserError(f'{path}:{number}: expected a clip and its group, found '
                            f'"{tab.join(row)}"')
        meant = meant_by(row[0])
        if len(meant) > 1:
            raise UserError(f'{path}:{number}: {row[0]} is the name of {len(meant)} clips; write '
                            f'{videos[min(meant)].relative}')
        if not meant and number > 1:  # the first may be a heading
            unknown.append(f'{path}:{number}: {row[0]}')
        for i in meant:
            if groups.setdefault(i, clean(row[1])) != clean(row[1]):
                raise UserError(f'{path}:{number}: {row[0]} is in group {groups[i]} and in group '
                                f'{clean(row[1])}')
    if unknown:
        print(f'{len(unknown)} lines name no clip that is there, {unknown[0]} first')
    without = [video.relative for i, video in enumerate(videos) if i not in groups]
    if without:
        raise UserError(f'{path}: no group for {len(without)} of {len(videos)} clips, '
                        f'{without[0]} first')
    return [groups[i] for i in range(len(videos))]


def groups_of_names(videos, asked=None):
    """The group that a pattern, or else the usual habits, find in each video's path
    below its class folder."""
    def search(expression):
        found = [re.search(expression, video.inner) for video in videos]
        return [clean(match[1]) if match and match[1] else None for match in found]

    def all_or_none(groups, what):
        missing = [v.relative for v, group in zip(videos, groups) if group is None]
        if missing:
            raise UserError(f'{what} tells no group of {len(missing)} of {len(videos)} clips, '
                            f'{missing[0]} first; say what a group is: --group or --groups')
        return groups
    if asked:
        return all_or_none(search(asked), f'--group {asked.pattern}')
    groups = search(UCF_GROUP)
    if any(groups):
        print('groups: _gNN in the name, as in UCF-101')
        return all_or_none(groups, '_gNN in the name')
    groups = ['/'.join(video.inner.split('/')[:-1]) or None for video in videos]
    if any(groups):
        print('groups: the sub-folders of the class folders')
        return [clean(group) for group in all_or_none(groups, 'its sub-folder')]
    groups = films(videos)
    if all(groups):
        print('groups: the film before the class in the name, as in HMDB-51')
        return groups
    print('WARNING: nothing tells which clips belong together, so each is its own group. Clips '
          'of one\nperson, place or film may then be trained on and tested: near-duplicates leak, '
          'and the\naccuracy will be too good to be true. Say what a group is: --group or '
          '--groups.')
    return [video.name for video in videos]


def films(videos):
    """The film each HMDB-51 clip was cut from, None where its name is of another kind."""
    found = [re.match(HMDB_CLIP.format(re.escape(video.class_name)), video.path.name)
             for video in videos]
    return [clean(match[1]) if match else None for match in found]


def choose_test_groups(members, share, splits, seed):
    """Chooses whole groups so that each class is tested with about its share of clips.

    Args:
        members: {group: {class: clips}}; a group may have clips of several classes.
        share: of each class's clips, between 0 and 1.
        splits: how many sets; a later one takes a group of an earlier one only where most of
            it is needed.

    Returns:
        A list of sets of groups.

    Raises:
        UserError: a class cannot have clips on both sides.
    """
    totals = sum((Counter(classes) for classes in members.values()), Counter())
    for name in sorted(totals):
        having = [group for group, classes in members.items() if name in classes]
        if len(having) < 2:
            raise UserError(f'class {name}: all of its {totals[name]} clips are of one group, '
                            f'{having[0]}; it takes two at least, one to train and one to test')

    def cost(name, clips):
        # A class without a test clip, or with nothing else, is worse than any uneven share.
        return abs(clips / totals[name] - share) + (clips in (0, totals[name]))
    random = numpy.random.RandomState(seed)
    names, used, chosen = sorted(members), set(), []
    for _ in range(splits):
        best = None
        for _ in range(TRIES):
            order = [names[i] for i in random.permutation(len(names))]
            have, taken, total = Counter(), set(), 0.0
            for group in sorted(order, key=used.__contains__):  # stable: still in random order
                change = sum(cost(c, have[c] + n) - cost(c, have[c]) for c, n in
                             members[group].items())
                if group in used:
                    change += sum(n / totals[c] for c, n in members[group].items()) / 2
                if change < -1e-9:
                    taken.add(group)
                    have.update(members[group])
                    total += change
            if best is None or total < best[0] - 1e-9:
                best = total, taken, have
        _, taken, have = best
        for name in sorted(totals):
            if have[name] in (0, totals[name]):
                raise UserError(f'class {name}: found no division by groups with clips of it on '
                                'both sides; its groups have clips of too many other classes')
        used |= taken
        chosen.append(taken)
    return chosen
