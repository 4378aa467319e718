"""Nested folds: each fifth of the training list as the test list of a root of its own.

    python studies/innerSplits.py --root trial --out inner --folds 5

Writes OUT1 ... OUT5, each with ROOT's clips and VGG.model (links) and lists whose test clips are
one fold of ROOT's training list, the folds of --fold. In these roots all stages run as ever, and
hold out groups of what is left to choose by: so a rule that chooses (--keep, a rate, a method) can
be judged by clips that it did not choose by, and ROOT's test list stays unread. What came out:
docs/real-clips.md.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import helperFunctions as hf  # noqa: E402
from engine import arguments, stage, variants  # noqa: E402
from engine.errors import UserError  # noqa: E402


def make_inner(root, out, fold):
    """Lays out `out` for a fold 'K/N' of the training list of `root`; returns (trained, tested),
    lists of Clip."""
    lists = hf.read_lists(root)
    train, test = hf.hold_out_fold(lists.train, fold)
    folder = out / variants.LISTS
    folder.mkdir(parents=True)
    for name in (variants.CLIPS, 'VGG.model'):
        (out / name).symlink_to((root / name).resolve())

    def line(clip):
        return f'{clip.class_name}/{clip.path.name}'
    hf.write_list(folder / 'classInd.txt',
                  (f'{label} {name}' for label, name in enumerate(lists.classes, 1)))
    hf.write_list(folder / 'trainlist01.txt', (f'{line(c)} {c.label + 1}' for c in train))
    hf.write_list(folder / 'testlist01.txt', map(line, test))
    hf.write_list(folder / variants.GROUPS, (f'{line(c)}\t{c.group}' for c in lists.train))
    return train, test


def main():
    parser = arguments.Parser(description=__doc__)
    parser.add_argument('--root', type=Path, required=True, help='clips, lists and VGG.model')
    parser.add_argument('--out', required=True, help='what the new roots begin with')
    parser.add_argument('--folds', type=arguments.whole(2), default=5)
    args = parser.parse_args()
    if not (model := args.root / 'VGG.model').exists():
        raise UserError(f'{model}: not there; made by: python convertWeights.py')
    folders = [Path(f'{args.out}{k}') for k in range(1, args.folds + 1)]
    for out in folders:
        if os.path.lexists(out):
            raise UserError(f'{out}: there already; remove it, or give another --out')
    for k, out in enumerate(folders, 1):
        train, test = make_inner(args.root, out, f'{k}/{args.folds}')
        print(f'{out}: {len(train)} clips to learn from, {len(test)} to judge by')


if __name__ == '__main__':
    stage.run(main)
