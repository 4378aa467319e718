"""A task that only order can solve, from the saved features of a root.

    python studies/orderTask.py --root trial --task direction --out trial/direction
    python importFeatures.py trial/direction/arrays --root trial/direction
    python save_hdf5.py --root trial/direction && python normalizeData.py --root trial/direction
    python rnn.py --root trial/direction --no-reverse --fold 1/5

Each clip becomes two of OUT, with the same rows in another order, so that whatever ignores order is
right half of the time: direction, `Forward` and `Backward`; halves, `InOrder` and `Swapped`, whose
second half comes first. A network of single frames sees the same in a clip played backward, so
these are the features that it would save of one. Both stand in the list, and in the group, of their
clip: --fold holds out a group in all classes alike, so that no clip is learned in one order and
validated in the other. What came out: docs/real-clips.md.
"""
import sys
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import helperFunctions as hf  # noqa: E402
from engine import arguments, stage, variants  # noqa: E402

TASKS = {
    'direction': {'Forward': lambda rows: rows, 'Backward': lambda rows: rows[::-1]},
    'halves': {'InOrder': lambda rows: rows,
               'Swapped': lambda rows: numpy.roll(rows, -(len(rows) // 2), axis=0)}}


def make_task(root, task, out):
    """Writes OUT/arrays/CLASS/CLIP.npy and OUT/ucfTrainTestlist."""
    lists, names = hf.read_lists(root), variants.Names()
    folder = out / variants.LISTS
    for name in TASKS[task]:
        (out / 'arrays' / name).mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    hf.write_list(folder / 'classInd.txt',
                  (f'{label} {name}' for label, name in enumerate(TASKS[task], 1)))
    groups = []
    for side, clips in (('train', lists.train), ('test', lists.test)):
        lines = []
        for clip in clips:
            rows = numpy.load(variants.output_path(root, names.features, clip), allow_pickle=False)
            for label, (name, order) in enumerate(TASKS[task].items(), 1):
                line = f'{name}/{clip.name}_{name}.avi'
                numpy.save(out / 'arrays' / name / f'{clip.name}_{name}.npy', order(rows))
                lines.append(f'{line} {label}' if side == 'train' else line)
                groups.append(f'{line}\t{clip.group}')
        hf.write_list(folder / f'{side}list01.txt', lines)
    hf.write_list(folder / variants.GROUPS, groups)
    return len(groups)


def main():
    parser = arguments.Parser(description=__doc__)
    parser.add_argument('--root', type=Path, required=True, help='whose features are saved')
    parser.add_argument('--task', choices=TASKS, required=True)
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    print(f'{make_task(args.root, args.task, args.out)} clips of '
          f'{" and ".join(TASKS[args.task])} in {args.out}')


if __name__ == '__main__':
    stage.run(main)
