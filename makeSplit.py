"""Lays out a root: class and split lists for own videos, for HMDB-51 or a part of UCF-101.

    python makeSplit.py --root own --clips VIDEOS                      # own videos
    python makeSplit.py --root own --clips VIDEOS --group '(person\\d+)'
    python makeSplit.py --root own --clips VIDEOS --groups people.csv --splits 3
    python makeSplit.py --root own --clips VIDEOS --test-folder test   # VIDEOS/train/CLASS ...
    python makeSplit.py --root own --clips FRAMES --pictures 25        # CLASS/clip/0001.jpg ...
    python makeSplit.py --root hmdb --clips hmdb51 --lists testTrainMulti_7030_splits
    python makeSplit.py --root trial --clips UCF-101 --lists ucfTrainTestlist

Needs   a folder of class folders of videos, any container, codec and size that ffmpeg reads
Writes  ROOT/UCF-101           links to the videos, which stay where they are (copies where the
                               file system has no links)
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
import shlex
from collections import Counter, defaultdict
from pathlib import Path

import checkData
import helperFunctions as hf
from engine import arguments, locks, stage, variants
from engine.errors import UserError
from engine.files import write_text
from engine.video.groups import choose_test_groups, films, groups_of_names, groups_of_table
from engine.video.ownvideos import find_videos, in_order, meant_below, sides_above
from engine.video.clipsfolder import check_unused, place_clips

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
                       help="what is a clip's group in its path below the folder of its class: a "
                            "pattern with one pair of parentheses; '(.+)' makes each clip its own "
                            'group (docs/own-videos.md has more)')
    group.add_argument('--test-share', type=arguments.real(above=0, below=1), metavar='SHARE',
                       help='about how much of each class is tested (default: 0.3)')
    group.add_argument('--splits', type=int, choices=(1, 2, 3),
                       help='how many, tested on different groups as far as there are enough '
                            '(default: 1)')
    group.add_argument('--test-folder', metavar='NAME',
                       help='the class folders stand below the sides of a split, as in '
                            'train/CLASS and test/CLASS: what is below this one is tested, the '
                            'rest trains')
    group = parser.add_argument_group('folders of pictures')
    group.add_argument('--pictures', type=arguments.positive, metavar='RATE',
                       help='take each folder of pictures in a class folder as a clip of so many '
                            'pictures a second; it is written to ROOT as a video, without loss')
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
    """UserError if the same bytes stand in two groups or classes; all of them are named."""
    place = {video.path: (video.class_name, group) for video, group in zip(videos, groups)}
    files = [video.path for video in videos if not video.path.is_dir()]
    apart = [same for same in checkData.duplicates(files, workers=2)
             if len({place[path] for path in same}) > 1]
    if not apart:
        return
    for same in apart:
        print('same bytes: ' + '\n          = '.join(
            f'{path} ({place[path][0]}, group {place[path][1]})' for path in same))
    raise UserError(f'{len(apart)} videos stand in two groups or classes, named above; '
                    f'{apart[0][0]} and {apart[0][1]} hold the same bytes: remove all but one of '
                    'each, or give them one group')


def groups_of(args, videos):
    """The group of each video, by --groups, --group or what names tell."""
    return (groups_of_table(args.groups, videos) if args.groups
            else groups_of_names(videos, args.group))


def new_lists(args, videos, groups, seconds=None):
    """{file name: lines} of new lists; `seconds` ({class: seconds}) are shown beside clips."""
    share = 0.3 if args.test_share is None else args.test_share
    members = defaultdict(Counter)
    for video, group in zip(videos, groups):
        members[group][video.class_name] += 1
    tested = choose_test_groups(members, share, args.splits or 1, args.seed)
    show(videos, groups, [[group in test for group in groups] for test in tested], seconds)
    again = sum(len(test & set().union(*tested[:i])) for i, test in enumerate(tested))
    if again:
        print(f'{again} groups are tested in more than one split: there are too few')
    return list_files(videos, groups, {
        split: [group in test for group in groups] for split, test in enumerate(tested, 1)})


def show(videos, groups, tested, seconds=None):
    """Prints clips and groups of each class; `tested`: for each split, whether a video is."""
    def more(text):
        return f' {text:>8}' if seconds else ''
    print(f'{"class":<24} {"clips":>6}{more("seconds")} {"groups":>6}   tested in split '
          + ', '.join(str(n) for n in range(1, len(tested) + 1)))
    few = []
    for name in in_order({video.class_name for video in videos}):
        mine = [i for i, video in enumerate(videos) if video.class_name == name]
        counts = [sum(test[i] for i in mine) for test in tested]
        n_groups = len({groups[i] for i in mine})
        few += [name] * (n_groups < 3)
        spent = more(f'{seconds[name]:.1f}' if seconds else '')
        print(f'{name[:24]:<24} {len(mine):>6}{spent} {n_groups:>6}   ' + ', '.join(
            f'{count} ({count / len(mine):.0%})' for count in counts))
    if few:
        print(f'{", ".join(few)}: of 2 groups one is tested, so none is left to validate on')


def lists_of_sides(args, videos):
    """{file name: lines} of the split that the folders above the classes are."""
    tested = [video.side() == args.test_folder for video in videos]
    for name in in_order({video.class_name for video in videos}):
        sides = {test for video, test in zip(videos, tested) if video.class_name == name}
        if sides != {True, False}:
            raise UserError(f'{args.clips}: class {name} has clips '
                            f'{"only" if True in sides else "none"} below {args.test_folder}; it '
                            'takes some to train and some to test')
    groups = groups_of(args, videos)
    show(videos, groups, [tested])
    both = ({group for group, test in zip(groups, tested) if test}
            & {group for group, test in zip(groups, tested) if not test})
    if both:
        print(f'WARNING: {len(both)} groups are on both sides, {min(both)} first;\ntaken as they '
              'are, since the folders say so, but the accuracy will be too good to be true')
    return list_files(videos, groups, {1: tested}, may_leak=bool(both))


def list_files(videos, groups, tested, may_leak=False):
    """{file name: lines}; `tested` is {split: for each video True, False, or None: unused}."""
    classes = in_order({video.class_name for video in videos})
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
        ({split: {video: True to test, False to train}}, in which a clip marked 0 is in neither;
        {(class, name): whether it is there} of all other clips on the lists).
    """
    known = {(video.class_name, video.path.name): video for video in videos}
    classes = in_order({video.class_name for video in videos})
    sides, on_lists, listed = defaultdict(dict), {}, defaultdict(set)
    for path in sorted(folder.glob('*.txt')):
        found = re.fullmatch(HMDB_LIST, path.name)
        if not found or found[1] not in classes:
            continue
        listed[int(found[2])].add(found[1])
        for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), 1):
            name, _, side = line.strip().rpartition(' ')
            if line.strip() and side not in ('0', '1', '2'):
                raise UserError(f'{path}:{number}: expected "CLIP.avi 0", 1 or 2, found '
                                f'"{line:.80}"')
            video = known.get((found[1], name.strip()))
            if side in ('1', '2'):
                on_lists[found[1], name.strip()] = bool(video)
                if video:
                    sides[int(found[2])][video] = side == '2'
    for split in sorted(listed) or [1]:
        for name in classes:
            here = {side for video, side in sides[split].items() if video.class_name == name}
            if here != {True, False}:
                raise UserError(f'{folder / f"{name}_test_split{split}.txt"}: no clips of '
                                f'{name} that are there, to train and to test')
    return sides, on_lists


def hmdb_lists(folder, videos):
    """(the videos on a list, {file name: lines}, what read_hmdb says of the clips on the lists)
    of the official splits of HMDB-51."""
    sides, on_lists = read_hmdb(folder, videos)
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
        split: [side.get(video) for video in videos] for split, side in sides.items()
    }, may_leak), on_lists


# ------------------------------------------------------------------------ writing

def stale_lists(root, files):
    """Names of the lists under a root that are others than these ({file name: lines}); refuses
    where networks have learned from them."""
    lists = root / variants.LISTS
    there = {path.name: path.read_bytes().decode(errors='replace')
             for path in lists.glob('*.txt')} if lists.is_dir() else {}
    stale = [name for name, text in there.items() if text != as_text(files.get(name, []))]
    if stale:
        check_unused(root, lists)
    return stale


def as_text(lines):
    return ''.join(line + '\r\n' for line in lines)


def write_lists(root, files):
    """Writes the lists in the place of others; refuses as stale_lists does."""
    lists = root / variants.LISTS
    stale = stale_lists(root, files)
    if stale:
        print(f'{lists}: replaces the lists that were there; nothing was trained on them')
    for name in stale:
        (lists / name).unlink()
    for name, lines in files.items():
        write_text(lists / name, as_text(lines))


def write_root(args, videos, files):
    """Writes the lists and places the videos; refuses a root whose models know other lists."""
    stale_lists(args.root, files)
    place_clips(args.root, videos, args.pictures)
    write_lists(args.root, files)
    print(f'{len(files["classInd.txt"])} classes, {len(videos)} clips; wrote '
          f'{args.root / variants.LISTS}')
    print(f'look at it: python checkData.py{variants.place(args.root)}')


def cut_lists(args):
    """Cuts UCF-101's lists, or others of that form, down to the classes that are there."""
    if not args.clips.is_dir():
        raise UserError(f'{args.clips}: no such folder of clips')
    there = {path.name.lower() for path in args.clips.iterdir() if os.path.isdir(path)}
    link, files, listed = args.root / variants.CLIPS, {}, {}
    if os.path.lexists(link) and link.resolve() != args.clips.resolve():
        raise UserError(f'{link}: already there and not {args.clips}; choose another --root')
    splits = [n for n in (1, 2, 3) if (args.lists / f'trainlist{n:02d}.txt').exists()]
    if not splits:
        raise UserError(f'{args.lists}: holds no trainlist01.txt; name the folder of the lists')
    for split in splits:
        # a root that may not be there yet has no part in it
        lists = hf.read_lists(args.lists, split, folder=args.lists, clips=args.clips)
        classes = [name for name in lists.classes if name.lower() in there]
        if not classes:
            raise UserError(f'{args.clips}: holds no folder of a class in {args.lists}'
                            + meant_below(args.clips))
        for name, clips in (('train', lists.train), ('test', lists.test)):
            kept = [clip for clip in clips if clip.class_name in classes]
            files[f'{name}list{split:02d}.txt'] = [
                f'{clip.path.parent.name}/{clip.path.name}'
                + (f' {classes.index(clip.class_name) + 1}' if name == 'train' else '')
                for clip in kept]
            listed.update((clip.path, os.path.exists(clip.path)) for clip in kept)
            print(f'split {split}: {len(kept)} clips to {name}')
    files['classInd.txt'] = [f'{i} {name}' for i, name in enumerate(classes, 1)]
    with locks.only_one(args.root / variants.LISTS):
        write_cut_lists(args, files)
    print(f'{len(classes)} of {len(lists.classes)} classes; wrote {args.root / variants.LISTS}')
    return say_missing(args.clips, [path for path, is_there in listed.items() if not is_there],
                       len(listed))


def write_cut_lists(args, files):
    """Lays out the root: a link to the folder of clips, and the lists, {file name: lines}."""
    link = args.root / variants.CLIPS
    if (args.lists / variants.GROUPS).exists():
        text = (args.lists / variants.GROUPS).read_text(encoding='utf-8-sig')
        files = {**files, variants.GROUPS: list(filter(None, map(str.strip, text.split('\n'))))}
    stale_lists(args.root, files)
    if not os.path.lexists(link):
        os.symlink(args.clips.resolve(), link)
    write_lists(args.root, files)


def say_missing(folder, missing, n_listed):
    """Says how many of the clips that lists name are not there; returns the exit code."""
    if not missing:
        return None
    print(f'{len(missing)} of {n_listed} listed clips are not in {folder} ({missing[0]} first): '
          'bring them, or leave --lists away to make lists of what is there; figures do not '
          'compare with those on the whole lists')
    return 3


def check_flags(args):
    """Refuses flags that do not go together."""
    given = [flag for flag, value in (('--groups', args.groups), ('--group', args.group),
                                      ('--test-share', args.test_share),
                                      ('--splits', args.splits), ('--pictures', args.pictures),
                                      ('--test-folder', args.test_folder)) if value is not None]
    if args.lists and given:
        raise UserError(f'{given[0]} is for new lists; those of --lists stay as they are')
    if args.split:
        raise UserError(f'--split {args.split} is for the stages; --splits says how many to make')
    if args.groups and args.group:
        raise UserError('--group and --groups: one of them, please')
    if args.test_folder and (args.test_share or args.splits):
        raise UserError('--test-folder says what is tested: no --test-share, no --splits')
    root, clips = args.root.resolve(), args.clips.resolve()
    if root == clips or clips in root.parents or root / variants.CLIPS == clips:
        raise UserError(f'{args.root}: stands in the folder of the clips, which is only read, and '
                        'would be taken for a class; choose a --root beside it')


def check_sides(args):
    """Refuses class folders whose names are those of sides, unless told which one tests."""
    sides, sure = sides_above(args.clips)
    if args.test_folder:
        if args.test_folder not in sides:
            raise UserError(f'--test-folder {args.test_folder}: '
                            + (f'is none of {", ".join(sides)}' if sides else
                               f'below {args.clips} the same class folders do not stand twice'))
    elif sides:
        offered = next((name for name in sides if 'test' in name.lower()), sides[-1])
        text = (f'below {", ".join(sides)} in {args.clips} stand the same folders: '
                + 'sides of a split' * sure)
        command = f'--test-folder {shlex.quote(offered)}'
        if sure:
            raise UserError(f'{text}, not classes; add {command}')
        print(f'{text}taken as groups of the classes {", ".join(sides)}; if these are sides of a '
              f'split and not classes,\nadd {command}')


def main():
    args = stage.parse(get_parser())
    check_flags(args)
    if args.lists and not any(re.fullmatch(HMDB_LIST, path.name)
                              for path in args.lists.glob('*.txt')):
        return cut_lists(args)
    if not args.lists:
        check_sides(args)
    videos, wrong = find_videos(args.clips, bool(args.test_folder), bool(args.pictures))
    for line in wrong:
        print(f'left out: {line}')
    on_lists = {}
    if args.lists:
        videos, files, on_lists = hmdb_lists(args.lists, videos)
    elif args.test_folder:
        files = lists_of_sides(args, videos)
    else:
        groups = groups_of(args, videos)
        refuse_copies(videos, groups)
        files = new_lists(args, videos, groups)
    with locks.only_one(args.root / variants.LISTS):
        write_root(args, videos, files)
    if wrong:
        print(f'{len(wrong)} videos or folders were left out, named above; put them right, then '
              'run this again')
    return say_missing(args.clips, ['/'.join(clip) for clip, there in on_lists.items()
                                    if not there], len(on_lists)) or (3 if wrong else None)


if __name__ == '__main__':
    stage.run(main)
