"""A folder of class folders of videos: which there are, what they are called, their groups,
and which groups are tested."""
import csv
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy

from engine.errors import UserError
from engine.files import files_under

# Files whose names end otherwise are no clips: ffmpeg reads pictures and even texts as videos.
VIDEO = set('3g2 3gp amv asf avi divx dv f4v flv gif m2ts m2v m4v mjpg mjpeg mkv mov mp4 mpe mpeg '
            'mpg mts mxf nut ogg ogv qt rm rmvb ts vob webm wmv y4m'.split())
UCF_GROUP = r'_(g\d+)(?:_c\d+)?\.\w+$'
# Film_CLASS_body_camera_people_direction_quality_number: what HMDB-51 calls its clips
HMDB_CLIP = r'(.+)_{}_[a-z]_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+\.\w+$'
# Random orders of the groups that are tried; the best division is taken.
TRIES = 20


class Video(NamedTuple):
    """A file: its place below the folder of clips, and what it is called under the root."""
    path: Path
    relative: str
    class_name: str
    name: str

    def line(self):
        return f'{self.class_name}/{self.name}{self.path.suffix}'


# --------------------------------------------------------------------- what is there

def clean(name):
    """A name that lists and HDF5 can hold: '_' for blanks and what is no character."""
    name = name.encode('utf-8', 'replace').decode()
    return re.sub(r'[\s\x00-\x1f\x7f-\x9f/]+', '_', name)


def is_video(path):
    return path.suffix[1:].lower() in VIDEO


def find_videos(folder):
    """The videos below each class folder, sorted; prints which other files are passed over."""
    try:
        folders = sorted(path for path in folder.iterdir()
                         if path.is_dir() and not path.name.startswith('.'))
    except OSError as error:
        raise UserError(f'{folder}: no folder of clips ({error.strerror})') from None
    spelled, found, others = {}, [], []
    for class_folder in folders:
        class_name = clean(class_folder.name)
        if class_name.lower() in spelled:
            raise UserError(f'{class_folder}: taken for the same class as '
                            f'{spelled[class_name.lower()]}; rename one, or join them')
        spelled[class_name.lower()] = class_folder
        files = files_under(class_folder)
        videos = [path for path in files if is_video(path)]
        others += [path for path in files if not is_video(path)]
        if not videos:
            raise UserError(f'{class_folder}: a class without a video; remove the folder '
                            f'({len(files)} other files)')
        for path in videos:
            try:
                if not path.stat().st_size:
                    raise UserError(f'{path}: an empty file; remove it')
            except OSError as error:
                raise UserError(f'{path}: {error.strerror}; remove it') from None
        found += [(path, class_name) for path in videos]
    others += sorted(path for path in folder.iterdir() if path.is_file())
    if others:
        print(f'passed over {len(others)} files that are no videos by their names, '
              f'{others[0]} first')
    if len(folders) < 2:
        raise UserError(f'{folder}: holds {len(folders)} class folders, but two at least are '
                        'needed: DIR/Class/clip.mp4')
    return named(folder, found)


def named(folder, found):
    """Gives each (path, class name) its name: the file's, with its folders' where that is not
    enough to tell two apart."""
    relative = [path.relative_to(folder).as_posix() for path, _ in found]
    names = [clean(path.stem) for path, _ in found]
    times = Counter(names)
    for i, text in enumerate(relative):
        if times[names[i]] > 1:
            names[i] = clean(os.path.splitext(text)[0].replace('/', '_'))
    longer = sum(times[clean(path.stem)] > 1 for path, _ in found)
    if longer:
        print(f'{longer} clips have a name that others have too and get their folders\' before it')
    first = {}
    for text, name in zip(relative, names):
        if name in first:
            raise UserError(f'{folder}: {first[name]} and {text} would have one name, {name}; '
                            'if they show the same, remove one, else rename it')
        first[name] = text
    return [Video(path, text, class_name, name)
            for (path, class_name), text, name in zip(found, relative, names)]


# ------------------------------------------------------------------------- groups

def groups_of_table(path, videos):
    """The group that a table gives each video."""
    by_name = defaultdict(set)
    for i, video in enumerate(videos):
        # with and without its extension, by file name or whole
        for text in (video.relative, video.path.name):
            by_name[text].add(i)
            by_name[os.path.splitext(text)[0]].add(i)
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: {getattr(error, "strerror", None) or "not a text"}') from None
    tab = next((mark for mark in '\t;' if mark in text.partition('\n')[0]), ',')
    groups, unknown = {}, []
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=tab), 1):
        row = [cell.strip() for cell in row]
        if not any(row):
            continue
        if len(row) < 2 or not row[0] or not row[1]:
            raise UserError(f'{path}:{number}: expected a clip and its group, found '
                            f'"{tab.join(row)}"')
        meant = by_name.get(row[0].removeprefix('./'), set())
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
    """The group that a pattern, or else the usual habits, find in each video's path."""
    def search(expression):
        found = [re.search(expression, video.relative) for video in videos]
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
    groups = ['/'.join(video.relative.split('/')[1:-1]) or None for video in videos]
    if any(groups):
        print('groups: the sub-folders of the class folders')
        return [clean(group) for group in all_or_none(groups, 'its sub-folder')]
    groups = films(videos)
    if all(groups):
        print('groups: the film before the class in the name, as in HMDB-51')
        return groups
    print('WARNING: nothing tells which clips belong together, so each is its own group. Clips '
          'of one\nperson, place or film may then be trained on and tested: near-duplicates leak, '
          'and the\naccuracy will be too good to be true. Say what a group is: --group or --groups.')
    return [video.name for video in videos]


def films(videos):
    """The film each HMDB-51 clip was cut from, None where its name is of another kind."""
    found = [re.match(HMDB_CLIP.format(re.escape(video.class_name)), video.path.name)
             for video in videos]
    return [clean(match[1]) if match else None for match in found]


# ------------------------------------------------------------------------- splits

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
