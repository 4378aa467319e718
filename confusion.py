"""Stage 7: looks at what one method confuses, or at what a second one gains over it.

    python confusion.py --root ROOT                     # frames, and the RNN if it has run
    python confusion.py --root ROOT FILE                # one method
    python confusion.py --root ROOT FILE_A FILE_B       # any two: what B gains over A
    python confusion.py --root ROOT --without other     # of the clips that are not of this class

Reads the lists in ROOT/ucfTrainTestlist and prediction files: one data set
(frames, classes) of softmax a clip, as save_hdf5.py and rnn.py write them.
A FILE is looked for as given, then in ROOT.

Writes to ROOT
    confusion_METHOD.png    row: the true class; column: what the method said
    confusion_METHOD.csv    one line a class: n, right, accuracy, what it is taken for; how often
                            it is said, precision, recall (the accuracy again), F1
and for two methods
    gain_A_B.png            the classes that gained and lost most
    confusion_A_B.csv       one line a class: n, right and accuracy of both, change

A class has few test clips (28 to 49 in split 1 of UCF-101), so that a single
clip moves its accuracy by 2 to 4 points: read every change beside its n.

Exit code 3: all but a picture that could not be drawn, and that is named, is written.
"""
import csv
import re
import sys
from pathlib import Path

import engine  # noqa: F401  (before NumPy)
import numpy

from engine.arguments import whole
from engine.drawing import plotstyle
from engine.errors import UserError
from engine.files import find_file, replacing
from engine.reporting.counted import add_without
from engine.reporting.matrices import class_accuracy, count, gains, most_confused
from engine.reporting.readout import first_few, read_method
from engine.reporting.matrixplots import confusion_figure, gain_figure
from engine.reporting.scoring import class_means
from engine.stage import new_parser as stage_parser, run as stage_main
from engine.variants import (STAND_IN, TEST_PREDICTIONS, TEST_SUFFIX, VARIANTS, fold_of,
                             frames_file, split_fold)
from helperFunctions import read_lists

RNN_PREDICTIONS = 'RNN' + TEST_SUFFIX


def file_name(*names):
    """A part of a file name from names of methods."""
    return '_'.join(re.sub(r'[^\w.+-]+', '-', name) for name in names)


def write_csv(path, header, rows):
    with replacing(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(header)
        writer.writerows(rows)


def percent(value):
    return '' if numpy.isnan(value) else f'{100 * value:.2f}'


def draw(*plot):
    """Whether a picture could be drawn; if not, the reason is printed."""
    try:
        plotstyle.save(*plot)
    except UserError as error:
        print(error, file=sys.stderr)
        return False
    return True


def report_method(method, lists, args):
    """Prints and writes what one method confuses, over all its own clips."""
    matrix = count(method, method.clips, len(lists.classes))
    accuracy, n = class_accuracy(matrix), matrix.sum(axis=1)
    right, total = int(matrix.trace()), len(method.clips)
    print(f'{method.name}: video top-1 {right / total:.3f} ({right} of n {total})  '
          f'{method.path}')
    if method.missing:
        print(f'{method.path} lacks {len(method.missing)} of the clips listed: '
              f'{first_few(method.missing)}')

    from sklearn.metrics import precision_recall_fscore_support  # takes a second
    said = [method.said[clip.name] for clip in method.clips]
    labels = [clip.label for clip in method.clips]
    balanced = class_means(numpy.array(labels), numpy.array(said))
    print(f'  macro F1 {balanced["macro_f1"]:.3f}, balanced accuracy '
          f'{balanced["balanced_accuracy"]:.3f}'
          + ('' if balanced['kappa'] is None else f", Cohen's kappa {balanced['kappa']:.3f}"))
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, said, labels=range(len(lists.classes)), zero_division=numpy.nan)
    pairs = most_confused(matrix)
    if pairs:
        print(f'  {"most confused: shown":<22} {"taken for":<22} clips')
    for i, j, clips in pairs[:args.top]:
        print(f'  {lists.classes[i]:<22} {lists.classes[j]:<22} {clips:>3} of {n[i]}')
    taken_for = {}
    for i, j, clips in pairs:
        taken_for.setdefault(i, (lists.classes[j], clips))
    name = 'confusion_' + file_name(method.name)
    write_csv(args.root / (name + '.csv'),
              ['class', 'n', 'right', 'accuracy_percent', 'most_taken_for', 'clips_taken_for',
               'said', 'precision_percent', 'recall_percent', 'f1_percent'],
              [[class_name, n[i], matrix[i, i], percent(accuracy[i]),
                *taken_for.get(i, ('', 0)), matrix[:, i].sum(), percent(precision[i]),
                percent(recall[i]), percent(f1[i])]
               for i, class_name in enumerate(lists.classes)])
    drawn = draw(args.root / (name + '.png'), confusion_figure, matrix, lists.classes,
                 f'{method.name}: {100 * right / total:.1f} % of {total} videos right, '
                 f'split {args.split}', args.order)
    print(f'  wrote {args.root / name}.{"png and ." * drawn}csv\n')
    return drawn


def report_gain(a, b, lists, args):
    """Prints and writes what method B gains over A, over the clips that both predict."""
    clips = [clip for clip in a.clips if clip.name in b.said]
    if not clips:
        raise UserError(f'{a.path} and {b.path} have no clip in common')
    matrix_a = count(a, clips, len(lists.classes))
    matrix_b = count(b, clips, len(lists.classes))
    accuracy_a, accuracy_b = class_accuracy(matrix_a), class_accuracy(matrix_b)
    change, n = 100 * (accuracy_b - accuracy_a), matrix_a.sum(axis=1)
    total_a, total_b = matrix_a.trace() / len(clips), matrix_b.trace() / len(clips)
    right = [(a.said[c.name] == c.label, b.said[c.name] == c.label) for c in clips]
    print(f'{a.name} -> {b.name}: video top-1 {total_a:.3f} -> {total_b:.3f}, '
          f'{100 * (total_b - total_a):+.1f} points\n'
          f'over the {len(clips)} clips in both; {right.count((False, True))} right in '
          f'{b.name} alone, {right.count((True, False))} in {a.name} alone')
    few, many = n[n > 0].min(), n.max()
    print(f'one clip of a class moves it by 100/n points, here {100 / many:.1f} to '
          f'{100 / few:.1f} (n {few} to {many})')

    gained, lost = gains(matrix_a, matrix_b, args.top)
    for heading, labels in (('gained most', gained), ('lost most', lost)):
        if not labels:
            print(f'no class {heading.split()[0]}')
            continue
        print(f'{heading:<22}    n {a.name[:11]:>11} % {b.name[:11]:>11} %   points  clips')
        for i in labels:
            print(f'{lists.classes[i]:<22} {n[i]:>4} {100 * accuracy_a[i]:>13.1f} '
                  f'{100 * accuracy_b[i]:>13.1f}   {change[i]:+6.1f} '
                  f'{matrix_b[i, i] - matrix_a[i, i]:+6d}')

    pair = file_name(a.name, b.name)
    table, chart = args.root / f'confusion_{pair}.csv', args.root / f'gain_{pair}.png'
    write_csv(table, ['class', 'n', f'right_{a.name}', f'right_{b.name}',
                      f'accuracy_percent_{a.name}', f'accuracy_percent_{b.name}',
                      'change_points'],
              [[name, n[i], matrix_a[i, i], matrix_b[i, i], percent(accuracy_a[i]),
                percent(accuracy_b[i]), percent(accuracy_b[i] - accuracy_a[i])]
               for i, name in enumerate(lists.classes)])
    title = f'{b.name} over {a.name}, {len(clips)} videos: '
    shown = [int(i) for i in numpy.flatnonzero(n)]
    if len(shown) <= 2 * args.top:
        shown.sort(key=lambda i: (-change[i], -n[i]))
        title += 'what each class gained'
    else:
        shown = gained + lost[::-1]
        title += f'{len(gained)} classes that gained most, {len(lost)} that lost most'
    drawn = shown and draw(chart, gain_figure, shown, matrix_a, matrix_b, lists.classes,
                           (a.name, b.name), title)
    print(f'wrote {f"{chart} and " if drawn else ""}{table}')
    return drawn or not shown


def of_run(method):
    """A method whose name tells which run it is, where it is not the usual one of its kind, and of
    which fold: so are the files of it called, that none is another run's."""
    run, fold = split_fold(method.path.name.removesuffix(TEST_SUFFIX))
    usual = {names.of(kind) for names in VARIANTS.values() for kind in ('RNN', STAND_IN)}
    if not method.path.name.endswith(TEST_SUFFIX):  # of single frames, or from elsewhere
        run, fold = '', fold_of(method.path)
    return method._replace(name=' '.join([
        method.name, *[run] * (run not in ('', *usual)), *[f'fold {fold}'] * bool(fold)]))


def main():
    parser = stage_parser(__doc__)
    parser.add_argument('files', nargs='*', type=Path, metavar='FILE',
                        help=f'one or two prediction files (default: {TEST_PREDICTIONS} and, '
                             f'if it is there, {RNN_PREDICTIONS})')
    look = parser.add_argument_group('look')
    look.add_argument('--top', type=whole(1), default=10, metavar='N',
                      help='how many pairs and classes to show (default: 10)')
    look.add_argument('--order', choices=('list', 'similar'), default='list',
                      help='classes of the matrix as in classInd.txt, or with those side by '
                           'side that are taken for each other (default: list)')
    add_without(look)
    args = parser.parse_args()
    if len(args.files) > 2:
        parser.error('one or two prediction files, please')
    paths = [find_file(name, args.root) for name in args.files]
    if not paths:
        paths = [args.root / frames_file(args.root)]
        if (args.root / RNN_PREDICTIONS).exists():
            paths.append(args.root / RNN_PREDICTIONS)
    lists = read_lists(args.root, args.split)
    methods = [of_run(read_method(path, lists, args.split, args.without)) for path in paths]
    if len({method.name for method in methods}) < len(methods):
        # Two runs of one method: the names of their files tell them apart.
        methods = [method._replace(name=method.path.stem) for method in methods]
    drawn = [report_method(method, lists, args) for method in methods]
    if len(methods) == 2:
        drawn.append(report_gain(*methods, lists, args))
    return 0 if all(drawn) else 3


if __name__ == '__main__':
    stage_main(main)
