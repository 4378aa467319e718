"""Lays out a root: class and split lists for own videos, for HMDB-51 or a part of UCF-101.

    python makeSplit.py --root own --clips VIDEOS                      # own videos
    python makeSplit.py --root own --clips VIDEOS --group '(person\\d+)'
    python makeSplit.py --root own --clips VIDEOS --groups people.csv --splits 3
    python makeSplit.py --root hmdb --clips hmdb51 --lists testTrainMulti_7030_splits
    python makeSplit.py --root trial --clips UCF-101 --lists ucfTrainTestlist

Needs   a folder of class folders of videos, any container, codec and size that ffmpeg reads
Writes  ROOT/UCF-101           links to the videos, which stay where they are
        ROOT/ucfTrainTestlist  classInd.txt, trainlist01.txt, testlist01.txt ..., groups.txt

Own videos are divided by group: all that shows one person, or was cut out of one film, goes
to one side, in all classes; near-duplicates on both sides would be learned by heart. A group
is what a table says (--groups), or a pattern (--group), or UCF's _gNN in the name, or the
sub-folder of the class folder; where nothing tells, each video is its own group.

With --lists the official ones are cut down to the classes whose folders exist and numbered
anew from 1; who trains and who is tested stays as they say.
"""
import argparse
import os
import re
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import checkData
import helperFunctions as hf
from engine import stage, variants
from engine.errors import UserError
from engine.files import files_under, write_text
from engine.video.ownvideos import (choose_test_groups, films, find_videos, groups_of_names,
                              groups_of_table)

HMDB_LIST = r'(.+)_test_split([123])\.txt'


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parser.add_argument_group('clips')
    group.add_argument('--clips', type=Path, required=True, metavar='DIR',
                       help='folder of class folders of clips')
    group.add_argument('--lists', type=Path, metavar='DIR',
                       help='folder of official lists: classInd.txt, trainlist01.txt ..., or '
                            'CLASS_test_split1.txt ... of HMDB-51 (default: new lists)')
    group = parser.add_argument_group('new lists')
    group.add_argument('--groups', type=Path, metavar='FILE',
                       help='table of two columns, clip and group, .csv or tabs; a clip is named '
                            'as it stands below --clips, or by its file name alone')
    group.add_argument('--group', type=pattern, metavar='REGEX',
                       help="what is a clip's group in its path below --clips: a pattern with one "
                            "pair of parentheses; '(.+)' makes each clip its own group")
    group.add_argument('--test-share', type=float, metavar='SHARE',
                       help='about how much of each class is tested (default: 0.3)')
    group.add_argument('--splits', type=int, choices=(1, 2, 3),
                       help='how many, tested on different groups as far as there are enough '
                            '(default: 1)')
    parser.set_defaults(split=None)
    return parser


def pattern(text):
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f'{text}: {error}') from None
    if compiled.groups != 1:
        raise argparse.ArgumentTypeError(f'{text}: {compiled.groups} pairs of parentheses; one '
                                         'is to say what the group is: (?:...) for the others')
    return compiled


# ---------------------------------------------------------------------- new lists

def refuse_copies(videos, groups):
    """UserError if the same bytes stand in two groups or classes."""
    place = {video.path: (video.class_name, group) for video, group in zip(videos, groups)}
    for same in checkData.duplicates([video.path for video in videos], workers=2):
        other = next((path for path in same if place[path] != place[same[0]]), None)
        if other:
            raise UserError(f'{same[0]} and {other} hold the same bytes, but are of two groups or '
                            'classes; remove one, or give both one group')


def new_lists(args, videos):
    """{file name: lines} of new lists."""
    share = 0.3 if args.test_share is None else args.test_share
    if not 0 < share < 1:
        raise UserError(f'--test-share {share}: expected a number between 0 and 1')
    groups = (groups_of_table(args.groups, videos) if args.groups
              else groups_of_names(videos, args.group))
    refuse_copies(videos, groups)
    members = defaultdict(Counter)
    for video, group in zip(videos, groups):
        members[group][video.class_name] += 1
    tested = choose_test_groups(members, share, args.splits or 1, args.seed)
    print(f'{"class":<24} {"clips":>6} {"groups":>6}   tested in split '
          + ', '.join(str(n) for n in range(1, len(tested) + 1)))
    classes, n_groups = sorted({video.class_name for video in videos}), {}
    for name in classes:
        of_class = [group for video, group in zip(videos, groups) if video.class_name == name]
        counts = [sum(group in test for group in of_class) for test in tested]
        n_groups[name] = len(set(of_class))
        print(f'{name[:24]:<24} {len(of_class):>6} {n_groups[name]:>6}   ' + ', '.join(
            f'{count} ({count / len(of_class):.0%})' for count in counts))
    again = sum(len(test & set().union(*tested[:i])) for i, test in enumerate(tested))
    if again:
        print(f'{again} groups are tested in more than one split: there are too few')
    few = [name for name in classes if n_groups[name] < 3]
    if few:
        print(f'{", ".join(few)}: of 2 groups one is tested, so none is left to validate on')
    return list_files(videos, groups, {
        split: [group in test for group in groups] for split, test in enumerate(tested, 1)})


def list_files(videos, groups, tested, may_leak=False):
    """{file name: lines}; `tested` is {split: for each video True, False, or None: unused}."""
    classes = sorted({video.class_name for video in videos})
    files = {'classInd.txt': [f'{i} {name}' for i, name in enumerate(classes, 1)],
             variants.GROUPS: [variants.MAY_LEAK] * may_leak + [
                 f'{video.line()}\t{group}' for video, group in zip(videos, groups)]}
    for split, sides in tested.items():
        files[f'trainlist{split:02d}.txt'] = [
            f'{video.line()} {classes.index(video.class_name) + 1}'
            for video, side in zip(videos, sides) if side is False]
        files[f'testlist{split:02d}.txt'] = [
            video.line() for video, side in zip(videos, sides) if side]
    return files


# ------------------------------------------------------------------------ HMDB-51

def read_hmdb(folder, videos):
    """Reads CLASS_test_splitN.txt of the classes that are there: CLIP.avi 0, 1 or 2 a line.

    Returns:
        {split: {video: True to test, False to train}}; a clip marked 0 is in neither.
    """
    known = {(video.class_name, video.path.name): video for video in videos}
    classes = sorted({video.class_name for video in videos})
    sides, missing, listed = defaultdict(dict), [], defaultdict(set)
    for path in sorted(folder.glob('*.txt')):
        found = re.fullmatch(HMDB_LIST, path.name)
        if not found or found[1] not in classes:
            continue
        listed[int(found[2])].add(found[1])
        for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), 1):
            name, _, side = line.strip().rpartition(' ')
            if line.strip() and side not in ('0', '1', '2'):
                raise UserError(f'{path}:{number}: expected "CLIP.avi 0", 1 or 2, found "{line}"')
            video = known.get((found[1], name.strip()))
            if side in ('1', '2'):
                if video:
                    sides[int(found[2])][video] = side == '2'
                else:
                    missing.append(f'{path}:{number}: {name.strip()}')
    for split in sorted(listed) or [1]:
        for name in classes:
            here = {side for video, side in sides[split].items() if video.class_name == name}
            if here != {True, False}:
                raise UserError(f'{folder / f"{name}_test_split{split}.txt"}: no clips of '
                                f'{name} that are there, to train and to test')
    if missing:
        print(f'WARNING: {len(missing)} clips of the lists are not there, {missing[0]} first; '
              'figures\nwill not compare with those on the whole lists')
    return sides


def hmdb_lists(folder, videos):
    """(the videos on a list, {file name: lines}) of the official splits of HMDB-51."""
    sides = read_hmdb(folder, videos)
    videos = [video for video in videos if any(video in side for side in sides.values())]
    groups = [group or video.name for video, group in zip(videos, films(videos))]
    may_leak = False
    for split, side in sorted(sides.items()):
        train, test = ({(video.class_name, group) for video, group in zip(videos, groups)
                        if side.get(video) is tested} for tested in (False, True))
        leaking = ['/'.join(film) for film in sorted(train & test)]
        print(f'split {split}: {list(side.values()).count(False)} clips to train, '
              f'{list(side.values()).count(True)} to test')
        if leaking:
            may_leak = True
            print(f'WARNING: {len(leaking)} films are on both sides of split {split}, '
                  f'{leaking[0]} first;\ntaken as they are, since the lists are official')
    return videos, list_files(videos, groups, {
        split: [side.get(video) for video in videos] for split, side in sides.items()}, may_leak)


# ------------------------------------------------------------------------ writing

def write_root(root, videos, files):
    """Writes the lists and the links to the videos; refuses a root of other clips or lists."""
    lists, links = root / variants.LISTS, root / variants.CLIPS
    texts = {name: ''.join(line + '\r\n' for line in lines) for name, lines in files.items()}
    there = {path.name: path.read_bytes().decode(errors='replace')
             for path in lists.glob('*.txt')} if lists.is_dir() else {}
    if any(text != texts.get(name) for name, text in there.items()):
        raise UserError(f'{lists}: holds other lists, and models made with them have seen what '
                        'these would test; choose another --root, or remove that folder and what '
                        'was made with it')
    wanted = {video.line(): str(video.path.resolve()) for video in videos}
    if os.path.lexists(links):
        if links.is_symlink() or any(not p.is_symlink() for p in files_under(links)):
            raise UserError(f'{links}: already there and not made of links to --clips; choose '
                            'another --root')
    if not os.path.lexists(links) or wanted != {
            p.relative_to(links).as_posix(): os.readlink(p) for p in files_under(links)}:
        part = root / f'.{variants.CLIPS}.part'
        shutil.rmtree(part, ignore_errors=True)
        for line, target in wanted.items():
            (part / line).parent.mkdir(parents=True, exist_ok=True)
            (part / line).symlink_to(target)
        if os.path.lexists(links):
            shutil.rmtree(links)
        part.rename(links)
    for name, text in texts.items():
        write_text(lists / name, text)
    print(f'{len(files["classInd.txt"])} classes, {len(videos)} clips; wrote {lists}')
    print(f'look at it: python checkData.py{variants.place(root)}')


def cut_lists(args):
    """Cuts UCF-101's lists, or others of that form, down to the classes that are there."""
    if not args.clips.is_dir():
        raise UserError(f'{args.clips}: no such folder of clips')
    there = {path.name.lower() for path in args.clips.iterdir() if path.is_dir()}
    args.root.mkdir(parents=True, exist_ok=True)
    link = args.root / variants.CLIPS
    if not os.path.lexists(link):
        os.symlink(args.clips.resolve(), link)
    elif link.resolve() != args.clips.resolve():
        raise UserError(f'{link}: already there and not {args.clips}; choose another --root')
    out = args.root / variants.LISTS
    splits = [n for n in (1, 2, 3) if (args.lists / f'trainlist{n:02d}.txt').exists()]
    if not splits:
        raise UserError(f'{args.lists}: holds no trainlist01.txt; name the folder of the lists')
    for split in splits:
        # read_lists looks for the lists under a root
        lists = hf.read_lists(args.root, split, folder=args.lists)
        classes = [name for name in lists.classes if name.lower() in there]
        if not classes:
            raise UserError(f'{args.clips}: holds no folder of a class in {args.lists}')
        for name, clips in (('train', lists.train), ('test', lists.test)):
            kept = [clip for clip in clips if clip.class_name in classes]
            hf.write_list(out / f'{name}list{split:02d}.txt', (
                f'{clip.path.parent.name}/{clip.path.name}'
                + (f' {classes.index(clip.class_name) + 1}' if name == 'train' else '')
                for clip in kept))
            print(f'split {split}: {len(kept)} clips to {name}')
    if (args.lists / variants.GROUPS).exists():
        write_text(out / variants.GROUPS, (args.lists / variants.GROUPS).read_text(encoding='utf-8'))
    hf.write_list(out / 'classInd.txt', (f'{i} {name}' for i, name in enumerate(classes, 1)))
    print(f'{len(classes)} of {len(lists.classes)} classes; wrote {out}')


def main():
    args = stage.parse(get_parser())
    # Files may have names that are no text, and are named all the same.
    sys.stdout.reconfigure(errors='backslashreplace')
    given = [flag for flag, value in (('--groups', args.groups), ('--group', args.group),
                                      ('--test-share', args.test_share),
                                      ('--splits', args.splits)) if value is not None]
    if args.lists and given:
        raise UserError(f'{given[0]} is for new lists; those of --lists stay as they are')
    if args.split:
        raise UserError(f'--split {args.split} is for the stages; --splits says how many to make')
    if args.groups and args.group:
        raise UserError('--group and --groups: one of them, please')
    if args.lists and not any(re.fullmatch(HMDB_LIST, path.name)
                              for path in args.lists.glob('*.txt')):
        return cut_lists(args)
    if (args.root / variants.CLIPS).resolve() == args.clips.resolve():
        raise UserError(f'{args.clips}: links to the clips shall stand there; choose another '
                        '--root')
    videos = find_videos(args.clips)
    if args.lists:
        videos, files = hmdb_lists(args.lists, videos)
    else:
        files = new_lists(args, videos)
    write_root(args.root, videos, files)


if __name__ == '__main__':
    stage.run(main)
