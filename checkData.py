"""Inventory of a root: are the clips of the lists there, whole, and each there once?

Needs   ROOT/UCF-101/, ROOT/ucfTrainTestlist/
Writes  ROOT/frameCounts.json   what was counted, so that a second run takes seconds

    python checkData.py                        # decodes every clip: minutes to an hour
    python checkData.py --quick                # believes the headers: seconds
    python checkData.py --json inventory.json  # every name, for a program

Names the clips that are missing, unreadable, short (frames are missing) or damaged (all frames
are there, but the decoder complained), files that no list names, clips and groups on both
lists, and files of the same bytes; where these stand in one class and group, which no split
divides, that is only said. Exit code 0: all is well; 3: something was found; 1: could not be
checked.
"""
import json
import os
import shlex
from collections import Counter, defaultdict
from pathlib import Path

import helperFunctions as hf
from engine import arguments, stage, variants
from engine.errors import UserError
from engine.files import files_under, sha256, write_text
from engine.video.framecounts import frame_counts
from engine.progress import Progress
from engine.video.container import read_header
from engine.video.ffmpeg import readers

# Lines of a kind that the terminal shows; --json has them all.
SHOWN = 10
COLUMNS = ('listed', 'missing', 'unread.', 'short', 'frames', 'seconds')


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parser.add_argument_group('check')
    group.add_argument('--workers', type=arguments.at_once, default=2, metavar='N',
                       help='files read at once (default: 2)')
    group.add_argument('--quick', action='store_true',
                       help='believe the headers and decode nothing; --tiny says the same')
    group.add_argument('--json', type=Path, default=None, metavar='FILE',
                       help='also write the whole inventory to FILE')
    return parser


def leaks(lists):
    """What is on both lists: (clip names, 'Class/group' of the groups), sorted."""
    train, test = ({clip.name for clip in part} for part in (lists.train, lists.test))
    groups = [{f'{clip.class_name}/{clip.group}' for clip in part}
              for part in (lists.train, lists.test)]
    return sorted(train & test), sorted(groups[0] & groups[1])


def duplicates(paths, workers):
    """Lists of the files that hold the same bytes; a file whose size is alone is not read."""
    by_size = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    alike = [path for same in by_size.values() if len(same) > 1 for path in same]

    def digest(path):
        try:
            return sha256(path)
        except OSError:
            return f'unreadable: {path}'
    by_digest = defaultdict(list)
    if alike:
        with Progress(len(alike), 'comparing files', 'files') as progress, \
                readers(workers) as pool:
            for path, key in zip(alike, pool.map(digest, alike)):
                by_digest[key].append(path)
                progress.update()
    return [same for same in by_digest.values() if len(same) > 1]


def headers(clips, workers):
    """{clip name: (frames, frames a second)} that the headers promise, 0 where they do not."""
    def read(clip):
        try:
            return read_header(clip.path)
        except OSError:
            return 0, 0.0
    with Progress(len(clips), 'reading headers') as progress, \
            readers(workers) as pool:
        found = {}
        for clip, header in zip(clips, pool.map(read, clips)):
            found[clip.name] = header
            progress.update()
    return found


def listed_in_any_split(root, split, clips):
    """{path: (class, group)} of the clips of this split and of the others whose lists are there:
    what another split's lists name is no stray file."""
    listed = {clip.path: (clip.class_name, clip.group) for clip in clips}
    for other in {1, 2, 3} - {split}:
        if all((root / variants.LISTS / f'{side}list{other:02d}.txt').exists()
               for side in ('train', 'test')):
            theirs = hf.read_lists(root, other, leaks=True)
            listed.update((clip.path, (clip.class_name, clip.group))
                          for clip in theirs.train + theirs.test)
    return listed


def copies(files, listed, workers):
    """The duplicates among files, as an inventory holds them: those within one group, as
    listed_in_any_split tells, apart from the others."""
    found = {'same bytes': [], REMARK: []}
    for same in duplicates(files, workers):
        places = {listed.get(path) for path in same}
        found['same bytes' if len(places) > 1 or None in places else REMARK].append(
            [str(path) for path in same])
    return found


def inventory(root, split, workers, quick=False):
    """Compares the clips under `root` with the lists of `split`.

    Returns:
        dict of JSON values: 'classes' holds the figures of each class, every other list
        what was found, empty where all is well.

    Raises:
        UserError: the lists cannot be read, or there are no clips at all.
    """
    lists = hf.read_lists(root, split, leaks=True)
    folder = root / variants.CLIPS
    if not folder.is_dir():
        place = variants.place(root)
        raise UserError(f'{folder}: not there; python getData.py{place} fetches UCF-101, python '
                        f'makeSplit.py{place} --clips VIDEOS lays out own videos, and small clips '
                        f'are drawn by python demo.py clips --root {shlex.quote(str(root))}')
    clips = list({clip.name: clip for clip in lists.train + lists.test}.values())
    files = [path for path in files_under(folder) if os.path.isfile(path)]
    there = set(files)
    found = [clip for clip in clips if clip.path in there]
    promised = headers(found, workers)
    if quick:
        counts = {name: frames for name, (frames, _) in promised.items() if frames}
        failures = [(clip.name, f'{clip.path}: its header promises no frame')
                    for clip in found if clip.name not in counts]
        remarks = {}
    else:
        counts, failures, remarks = frame_counts(root, found, workers, whole=True)
    unreadable = dict(failures)
    of_kind = {kind: [clip for clip in clips if clip.name in remarks
                      and remarks[clip.name].kind == kind] for kind in ('short', 'damaged')}
    missing = {clip.name for clip in clips if clip.path not in there}
    figures = {name: Counter() for name in lists.classes}
    for clip in clips:
        row = figures[clip.class_name]
        row['listed'] += 1
        row['missing'] += clip.name in missing
        row['unread.'] += clip.name in unreadable
        row['short'] += clip in of_kind['short']
        row['frames'] += counts.get(clip.name, 0)
        rate = promised.get(clip.name, (0, 0.0))[1]
        row['seconds'] += counts.get(clip.name, 0) / rate if rate else 0
    names, groups = leaks(lists)
    listed = listed_in_any_split(root, split, clips)
    return {
        'root': str(root), 'split': split, 'quick': quick,
        'listed': len(clips), 'found': len(found),
        'classes': {name: {column: round(row[column], 1) for column in COLUMNS}
                    for name, row in figures.items()},
        'missing': [str(clip.path) for clip in clips if clip.name in missing],
        'unreadable': [unreadable[clip.name] for clip in clips if clip.name in unreadable],
        **{kind: [f'{clip.path}: {remarks[clip.name].reason}' for clip in which]
           for kind, which in of_kind.items()},
        'extra': [str(path) for path in files if path not in listed],
        'clip on both lists': names,
        'group on both lists': groups, **copies(files, listed, workers)}


# What is said, and nothing that has to be mended.
REMARK = 'same bytes in one group'
KINDS = ('missing', 'unreadable', 'short', 'damaged', 'extra', 'clip on both lists',
         'group on both lists', 'same bytes')


def table(classes):
    """The figures of each class and their sum, in lines of at most 80 characters."""
    def line(name, values):
        return f'{name[:22]:<22}' + ''.join(f' {value:>8}' for value in values)
    yield line('class', COLUMNS)
    for name, row in classes.items():
        yield line(name, [f'{row[column]:.0f}' for column in COLUMNS])
    yield line('all', [f'{sum(row[column] for row in classes.values()):.0f}'
                       for column in COLUMNS])


def main():
    args = stage.parse(get_parser(), quick=True)
    if args.workers < 1:
        raise UserError(f'--workers {args.workers}: expected 1 or more')
    found = inventory(args.root, args.split, args.workers, args.quick)
    if args.json:
        write_text(args.json, json.dumps(found, indent=1))
    return show(found)


def show(found):
    """Prints an inventory; returns the exit code: 0 all is well, 3 something was found."""
    print('\n'.join(table(found['classes'])))
    inside = found['root'].rstrip('/') + '/'  # said once: lines stay short
    if any(found[kind] for kind in (*KINDS, REMARK)):
        print(f'\nin {inside}')
    for kind in (*KINDS, REMARK):
        for item in found[kind][:SHOWN]:
            item = item if isinstance(item, str) else f'\n{" " * len(kind)}= '.join(item)
            print(f'{kind}: {item.replace(inside, "")}')
        if len(found[kind]) > SHOWN:
            print(f'{kind}: ... and {len(found[kind]) - SHOWN} more; all of them: --json FILE')
    wrong = {kind: len(found[kind]) for kind in KINDS if found[kind]}
    print(f'{found["found"]} of {found["listed"]} clips found; '
          + (', '.join(f'{n} {kind}' for kind, n in wrong.items()).replace(
              'same bytes', 'stored twice') or 'all is well'))
    return 3 if wrong else 0


if __name__ == '__main__':
    stage.run(main)
