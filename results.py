"""Shows what ROOT/results.jsonl holds as a table, one line a run.

    python results.py --root ROOT
    python results.py --root ROOT --root ROOT_2             # several roots, one table
    python results.py --root ROOT --mean                    # mean and deviation over seeds
    python results.py --root split1 --root split2 --root split3 --mean splits
    python results.py --root ROOT --mean folds              # over runs with --fold K/N
    python results.py --root ROOT --interval                # 95 % interval of video top-1
    python results.py --root ROOT --compare 1 3             # is run 3 better than run 1?
    python results.py --root ROOT --learning-curve curve    # over runs with --train-share
    python results.py --root ROOT --without other           # by video, of all other classes
    python results.py --root ROOT --markdown results.md --csv results.csv

Accuracies are in percent; '-' stands where a figure says nothing (top 10 of 6
classes) or was not measured. `train` is the accuracy by step in training, with
dropout, of the epoch whose weights were kept, `val` that on the validation
clips. `macro F1` and `balanced` accuracy are means over classes in percent, `kappa`
(Cohen 1960) is what is right beyond chance; `ECE` is the expected calibration error,
`ECE cal.` that with the temperature found on validation. They stand where there is
room, and in the files. Under a run stand the settings in which the runs of its method differ.
Frame, segment and video accuracy measure different things: compare lines of
one unit and one split only. The losses, epochs and the way each run looked at
the test clips (inference) have columns in the Markdown and CSV files.

--interval, --compare and --without need the run's prediction file: the field `predictions`
of its line, a path from its root. The interval is a percentile bootstrap
(Efron 1979) over clips, or over groups, whose clips show the same person in the
same place and so stand or fall together; --compare is McNemar's exact test
(1947) on the clips that only one of two runs gets right.

Exit code 3: the table stands, but for a line that is no result or a root without results, which
are named.
"""
import collections
import json
import math
import sys
import textwrap
from pathlib import Path

import engine  # noqa: F401  (before NumPy)

from engine.errors import UserError
from engine.drawing import plotstyle
from engine.files import csv_text, write_text
from engine.progress import number_of
from engine.reporting import learningcurve
from engine.reporting.baselines import lines_about_order
from engine.reporting.calibration import errors, read_logs
from engine.reporting.counted import add_without, counted, label_of
from engine.reporting.means import (lines_about_apart, lines_about_features, mean_over_folds,
                                    mean_over_seeds, mean_over_splits, ranges)
from engine.reporting.readout import read_method
from engine.reporting.resultsfile import RESULTS, is_number, read_results
from engine.reporting.scoring import score
from engine.reporting.significance import bootstrap_interval, mcnemar
from engine.reporting.tables import (WIDTH, as_csv, as_markdown, as_text, differing_settings,
                                     figure, table)
from engine.stage import new_parser as stage_parser, run as stage_main
from helperFunctions import read_lists


MEANS = {'seeds': mean_over_seeds, 'splits': mean_over_splits, 'folds': mean_over_folds}


def right_clips(result):
    """Which clips of a run are right: dict clip name -> (bool, (class name, group)).

    Raises:
        UserError: the line names no prediction file, or the file does not fit the lists,
            or it is of another run.
    """
    if not result.get('predictions'):
        raise UserError(f'{result["method"]} in {result["root"] / RESULTS}: the line names no '
                        'prediction file; run its stage again')
    path = result['root'] / result['predictions']
    lists, without = read_lists(result['root'], result['split']), result['settings'].get('without')
    method = read_method(path, lists, result['split'], without)
    right = {clip.name: (method.said[clip.name] == clip.label, (clip.class_name, clip.group))
             for clip in method.clips}
    check_figures(result, path, score(*counted(*read_logs(path, lists.test),
                                               label_of(without, lists.classes))))
    return right


def check_figures(result, path, figures):
    """Refuses a prediction file that gives other figures than a line tells: runs that write to one
    name leave only the last one's predictions."""
    for key, words in ('top1', 'video top-1'), ('loss', 'loss'):
        if is_number(result.get(key)) and not math.isclose(
                figures[key], result[key], rel_tol=1e-3, abs_tol=1e-4):
            raise UserError(f'{path}: gives {words} {figures[key]:.4f}, but the line of '
                            f'{result["method"]} (seed {result.get("seed")}) says '
                            f'{result[key]:.4f}: another run has written over the file')


def without_class(results, without):
    """The runs by video, measured anew without the clips of a class, and lines on those that
    cannot be; what training and validation gave counts all classes and is not told."""
    found, faults = {}, []
    for result in results:
        if result['unit'] != 'video' or not result.get('predictions'):
            continue
        try:
            right_clips(result)  # refuses the file of another run
            lists = read_lists(result['root'], result['split'])
            pair = counted(*read_logs(result['root'] / result['predictions'], lists.test),
                           label_of(without, lists.classes))
        except UserError as error:
            faults.append(str(error))
            continue
        told = {key: value for key, value in result.items()
                if not key.startswith(('train_loss', 'train_accuracy', 'validation_'))}
        found[str(result['root']), result['predictions'], result['split'], result.get('seed')] = {
            **told, **score(*pair), 'settings': {**result['settings'], 'without': without},
            **(errors(*pair, result['temperature']) if is_number(result.get('temperature'))
               else {})}
    return list(found.values()), faults


def pick(results, wanted):
    """The result that a number of the table or the name of a method stands for."""
    if wanted.isdigit():
        if not 1 <= int(wanted) <= len(results):
            raise UserError(f'--compare {wanted}: the table has runs 1 to {len(results)}')
        return results[int(wanted) - 1]
    named = [r for r in results if r['method'] == wanted and r.get('predictions')]
    if not named:
        methods = ', '.join(dict.fromkeys(r['method'] for r in results if r.get('predictions')))
        raise UserError(f'--compare {wanted}: no run of that method has a prediction file; '
                        f'those that have: {methods or "none"}')
    if len({(str(r['root']), r['predictions']) for r in named}) > 1:
        numbers = ', '.join(str(n) for n, r in enumerate(results, 1) if r in named)
        raise UserError(f'--compare {wanted}: several runs are of that method; give the number '
                        f'of one: {numbers}')
    return named[-1]


def compare(a, b):
    """Prints McNemar's test of run A against run B on the clips that both predict."""
    if a['split'] != b['split']:
        raise UserError(f'--compare: split {a["split"]} against split {b["split"]}; the test '
                        'clips differ')
    right_a, right_b = right_clips(a), right_clips(b)
    shared = [name for name in right_a if name in right_b]
    if not shared:
        raise UserError('--compare: the two prediction files have no clip in common')
    pairs = [(right_a[name][0], right_b[name][0]) for name in shared]
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    names = f'A = {a["method"]} ({a["predictions"]}), B = {b["method"]} ({b["predictions"]})'
    print(textwrap.fill(names, WIDTH))
    print(f'{len(shared)} clips: right in both {pairs.count((True, True))}, in A alone '
          f'{only_a}, in B alone {only_b}, in neither {pairs.count((False, False))}')
    difference = 100 * (only_b - only_a) / len(shared)
    print(f'video top-1 of B over A: {difference:+.2f} points; McNemar exact p = '
          f'{mcnemar(only_a, only_b):.3g}')
    print('The test takes clips as independent, which clips of one group are not quite: '
          'a p\nnear 0.05 proves nothing.')


def intervals_of(results, units, seed):
    """The column of bootstrap intervals, '-' where a line has no predictions that fit it."""
    for result in results:
        if result['unit'] != 'video' or not result.get('predictions'):
            yield '-'
            continue
        try:
            right = right_clips(result)
        except UserError as error:  # the other runs still have their say
            print(error, file=sys.stderr)
            yield '-'
            continue
        drawn = list(right) if units == 'clips' else [group for _, group in right.values()]
        low, high = bootstrap_interval([hit for hit, _ in right.values()], drawn, seed)
        yield f'{100 * low:.1f} to {100 * high:.1f}'


def lines_about_folds(results):
    """What validation over folds counts, and which folds it still lacks."""
    if not any('missing' in result for result in results):
        yield 'no run is of a fold; they are made by --fold K/N, see docs/accuracy.md'
    for number, result in enumerate(results, 1):
        if 'missing' not in result:
            continue
        k, n = result['fold'].split('/')
        if result['missing']:
            yield (f'run {number}: has folds {k} of {n}, lacks {ranges(result["missing"])}; made '
                   f'by --fold {result["missing"][0]}/{n} ...')
        elif result['validation_n']:
            yield (f'run {number}: val {figure(result.get("validation_accuracy"), 100)}, of '
                   f'{result["validation_n"]} clips of the training list, each held out in one '
                   'fold')


def say_of_means(results, over):
    """Prints what a table of means over 'seeds', 'splits' or 'folds' is, and what it is not."""
    print(f'mean ± deviation over the {over} named (n-1 beneath the deviation)'
          if any(result['runs'] > 1 for result in results) else
          f'each line is of one run: no two differ in their {over} alone')
    for line in lines_about_apart(results):
        print(textwrap.fill(line, WIDTH, break_on_hyphens=False))
    if over == 'splits':
        print('n is the sum over the splits; each split counts the same in the mean')
        if any(result['split'] != '1,2,3' for result in results):
            print('Papers report the mean over splits 1, 2 and 3: a line of fewer does not '
                  'compare.')
    if over == 'folds':
        for line in lines_about_folds(results):
            print(line)


def write_learning_curve(path, results):
    """Writes PATH.csv and PATH.png; a UserError where no runs make a curve."""
    found = learningcurve.curves(results)
    if not found:
        raise UserError(f'{path}: no two runs of one kind that learned from different shares; they '
                        'are made by python rnn.py --train-share 0.1 --name share0.1 and so on')
    stem = path.with_suffix('') if path.suffix in ('.csv', '.png') else path
    write_text(f'{stem}.csv', csv_text([learningcurve.HEADER, *learningcurve.rows(found)]))
    plotstyle.save(f'{stem}.png', learningcurve.curve_figure, found)
    print(f'wrote {stem}.csv and {stem}.png')


def each_once(roots):
    """The roots but for those whose results are another one's, by a link or another path; says
    which."""
    seen = {}
    for root in roots:
        path = root / RESULTS
        try:
            key = path.stat().st_dev, path.stat().st_ino
        except OSError:  # read_results says what is wrong
            key = path.resolve(strict=False)
        if key in seen:
            print(f'{root}: the same {RESULTS} as in {seen[key]}; counted once', file=sys.stderr)
            continue
        seen[key] = root
        yield root


def each_line_once(results):
    """The lines but for those that another root has too, made in the same second: these are copies,
    no runs of their own. Says whose they are."""
    first, kept, copies = {}, [], collections.Counter()
    for result in results:
        text = json.dumps({**result, 'root': None}, sort_keys=True)
        root = first.setdefault(text, result['root'])
        if root != result['root'] and result.get('time'):
            copies[result['root'], root] += 1
        else:
            kept.append(result)
    for (root, other), n in copies.items():
        print(f'{root}: {number_of(n, "line")} of {RESULTS} copied from {other}, or to it; counted '
              'once', file=sys.stderr)
    return kept


def get_parser():
    parser = stage_parser(__doc__)
    parser.conflict_handler = 'resolve'  # here --root may be given again, and --split selects
    data = parser.add_argument_group('which runs')
    data.add_argument('--root', type=Path, action='append', metavar='DIR',
                      help=f'folder of a {RESULTS}; may be given several times (default: here)')
    data.add_argument('--split', type=int, choices=(1, 2, 3),
                      help='runs on this split only (default: all)')
    data.add_argument('--unit', choices=('frame', 'segment', 'video'),
                      help='runs measured on this unit only (default: all)')
    look = parser.add_argument_group('what to show')
    add_without(look)
    look.add_argument('--mean', nargs='?', const='seeds', choices=tuple(MEANS),
                      help='join runs that differ in their seed alone (default), or in their '
                           'split or fold, too: mean ± deviation')
    look.add_argument('--interval', nargs='?', const='clips', choices=('clips', 'groups'),
                      help='95 %% bootstrap interval of video top-1, drawing clips (default) or '
                           'whole groups')
    look.add_argument('--compare', nargs=2, metavar=('A', 'B'),
                      help="McNemar's test of two runs: numbers of the table, or methods")
    out = parser.add_argument_group('files')
    out.add_argument('--markdown', type=Path, metavar='FILE', help='write the table there, too')
    out.add_argument('--csv', type=Path, metavar='FILE', help='write the table there, too')
    out.add_argument('--learning-curve', type=Path, metavar='FILE',
                     help='write video top-1 by --train-share, mean and 95 %% interval over seeds, '
                          'into FILE.csv and FILE.png')
    return parser


def main():
    parser = get_parser()
    args = parser.parse_args()
    if args.mean and (args.interval or args.compare):
        parser.error('--interval and --compare look at single runs; leave out --mean')

    if args.without and args.mean == 'folds':
        parser.error('--mean folds is of validation clips, --without of test clips: one of the two')
    results, faults = [], []
    for root in each_once(args.root or [Path('.')]):
        try:
            of_root, bad = read_results(root / RESULTS)
        except UserError as error:
            of_root, bad = [], [str(error)]
        results += of_root
        faults += bad
    results = each_line_once(results)
    results = [r for r in results if args.split in (None, r['split'])
               and args.unit in (None, r['unit'])]
    if args.without:
        results, bad = without_class(results, args.without)
        faults += bad
    for fault in dict.fromkeys(faults):
        print(fault, file=sys.stderr)
    if not results:
        print('no result to show')
        return 1 if faults else 0
    runs = results
    if args.mean:
        results = MEANS[args.mean](results)
    intervals = args.interval and list(intervals_of(results, args.interval, args.seed))
    header, rows = table(results, intervals)
    settings = differing_settings(results)
    if len(args.root or ()) > 1 and args.mean != 'splits':
        settings = [{'root': ','.join(map(str, result.get('roots', [result['root']]))), **differing}
                    for result, differing in zip(results, settings)]
    print(as_text(header, rows, settings))
    if args.without:
        print(f'by video, without the clips of {args.without}, from the prediction files')
    if args.mean:
        say_of_means(results, args.mean)
    for line in (*lines_about_features(results), *lines_about_order(results)):
        print(line)
    for path, write in ((args.markdown, as_markdown), (args.csv, as_csv)):
        if path:
            write_text(path, write(header, rows, settings))
            print(f'wrote {path}')
    if args.learning_curve:
        write_learning_curve(args.learning_curve, runs)
    if args.compare:
        print()
        compare(*(pick(results, wanted) for wanted in args.compare))
    return 3 if faults else 0


if __name__ == '__main__':
    stage_main(main)
