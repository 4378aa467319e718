"""Lists for the classes that are there: lays out a root with a part of UCF-101.

    python makeSplit.py --root trial --clips /data/UCF-101 --lists /data/ucfTrainTestlist

Writes ROOT/UCF-101 (a link to the clips) and ROOT/ucfTrainTestlist/: the official
lists cut down to the classes whose folders exist, numbered anew from 1. Who trains and
who is tested stays as the official split says.
"""
import os
from pathlib import Path

import helperFunctions as hf
from engine.errors import UserError


def get_parser():
    parser = hf.stage_parser(__doc__)
    parser.add_argument('--clips', type=Path, required=True, metavar='DIR',
                        help='folder of class folders of clips')
    parser.add_argument('--lists', type=Path, required=True, metavar='DIR',
                        help='folder of classInd.txt, trainlist01.txt ... of all classes')
    return parser


def main():
    args = hf.parse_stage(get_parser())
    if not args.clips.is_dir():
        raise UserError(f'{args.clips}: no such folder of clips')
    there = {path.name.lower() for path in args.clips.iterdir() if path.is_dir()}
    args.root.mkdir(parents=True, exist_ok=True)
    link = args.root / hf.CLIPS
    if not os.path.lexists(link):
        os.symlink(args.clips.resolve(), link)
    elif link.resolve() != args.clips.resolve():
        raise UserError(f'{link}: already there and not {args.clips}; choose another --root')
    out = args.root / hf.LISTS
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
    hf.write_list(out / 'classInd.txt', (f'{i} {name}' for i, name in enumerate(classes, 1)))
    print(f'{len(classes)} of {len(lists.classes)} classes; wrote {out}')


if __name__ == '__main__':
    hf.stage_main(main)
