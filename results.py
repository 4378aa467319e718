"""Shows what ROOT/results.jsonl holds as a table, one line a run.

    python results.py --root ROOT
    python results.py --root ROOT --root ROOT_2             # several roots, one table
    python results.py --root ROOT --mean                    # mean and deviation over seeds
    python results.py --root split1 --root split2 --root split3 --mean splits
    python results.py --root ROOT --interval                # 95 % interval of video top-1
    python results.py --root ROOT --compare 1 3             # is run 3 better than run 1?
    python results.py --root ROOT --markdown results.md --csv results.csv

Accuracies are in percent; '-' stands where a figure says nothing (top 10 of 6
classes) or was not measured. `train` is the accuracy by step in training, with
dropout, of the epoch whose weights were kept, `val` that on the validation
clips. Under a run stand the settings in which the runs of its method differ.
Frame, segment and video accuracy measure different things: compare lines of
one unit and one split only. The losses, epochs and the way each run looked at
the test clips (inference) have columns in the Markdown and CSV files.

--interval and --compare need the run's prediction file: the field `predictions`
of its line, a path from its root. The interval is a percentile bootstrap
(Efron 1979) over clips, or over groups, whose clips show the same person in the
same place and so stand or fall together; --compare is McNemar's exact test
(1947) on the clips that only one of two runs gets right.

Exit code 1: a line of a file is not JSON, or is no result; it is named and skipped.
"""
import csv
import io
import json
import statistics
import sys
import textwrap
from pathlib import Path

import numpy
from scipy.stats import binomtest

from engine.errors import UserError
from engine.files import write_text
from engine.reporting.predictionfile import read_predictions
from engine.reporting.scoring import TOP_K, score, video_log_probability
from engine.stage import TEST_FLAGS, new_parser as stage_parser, run as stage_main
from engine.variants import place
from helperFunctions import read_lists

RESULTS = 'results.jsonl'
WIDTH = 80
REQUIRED = {'method': str, 'unit': str, 'split': int, 'n': int, 'settings': dict}
LEFT = ('method', 'unit', 'top-1 95 %', 'inference')  # columns of words; the others hold figures
FILES_ONLY = ('train loss', 'val loss', 'epochs', 'inference')  # no room for them in WIDTH
EXPENDABLE = ('train', 'val', 'seconds')  # left out of the text where it would be too wide
AVERAGED = ([f'top{k}' for k in TOP_K]
            + ['loss', 'seconds', 'epochs', 'train_loss', 'train_accuracy', 'validation_loss',
               'validation_accuracy'])


def read_results(path):
    """Reads results.jsonl.

    Returns:
        (results, faults): list of dicts, each with its `root` added, and list of str, one
        for each line that is no result.

    Raises:
        UserError: there is no such file.
    """
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    except FileNotFoundError:
        raise UserError(f'{path}: not there; every stage that measures something writes it, '
                        f'first of all python singleFrameAccuracy.py{place(path.parent)}'
                        ) from None
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    results, faults = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            result = json.loads(line)
        except ValueError as error:
            faults.append(f'{path}:{number}: not JSON ({error}), skipped')
            continue
        if not isinstance(result, dict):
            faults.append(f'{path}:{number}: not a JSON object, skipped')
            continue
        result = {'settings': {}, **result, 'root': path.parent}
        wrong = [key for key, kind in REQUIRED.items() if not isinstance(result.get(key), kind)]
        if wrong:
            faults.append(f'{path}:{number}: no usable {", ".join(wrong)}, skipped')
            continue
        for k in TOP_K[1:]:
            if is_number(result.get('n_classes')) and result['n_classes'] <= k:
                result[f'top{k}'] = None  # always right, whatever the method says
        results.append(result)
    return results, faults


def settings_key(result):
    """Equal for two runs of one method with the same settings on the same data.

    A model only tested again (rnn.py --test-only) is no run of its own to average over.
    """
    return json.dumps([*(result[key] for key in REQUIRED), bool(result.get('test_only'))],
                      sort_keys=True)


def mean_over_seeds(results):
    """Joins runs that differ in their seed alone.

    A seed run twice in one root counts once, with its last line. Figures of a joined run are
    (mean, deviation); the deviation has n-1 beneath and is None for one run.
    """
    groups = {}
    for result in results:
        groups.setdefault(settings_key(result), {})[
            result.get('root'), result.get('seed')] = result
    joined = []
    for group in groups.values():
        runs = list(group.values())
        one = {**runs[-1], 'seed': ','.join(str(seed) for _, seed in group), 'runs': len(runs)}
        for key in AVERAGED:
            values = [run[key] for run in runs if is_number(run.get(key))]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            one[key] = (statistics.fmean(values), deviation) if values else None
        joined.append(one)
    return joined


def mean_over_splits(results):
    """Joins runs that differ in their split (and seed): what papers on UCF-101 report.

    Seeds are averaged within their split first, so that each split counts the same; the
    deviation is that of the splits' means.
    """
    groups = {}
    for one in mean_over_seeds(results):
        key = settings_key({**one, 'split': 0, 'n': 0})
        groups.setdefault(key, {})[one['split']] = one
    joined = []
    for group in groups.values():
        runs = [group[split] for split in sorted(group)]
        one = {**runs[-1], 'split': ','.join(map(str, sorted(group))),
               'n': sum(run['n'] for run in runs), 'runs': sum(run['runs'] for run in runs),
               'seed': ','.join(dict.fromkeys(seed for run in runs
                                              for seed in run['seed'].split(',')))}
        for key in AVERAGED:
            values = [run[key][0] for run in runs if run.get(key)]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            one[key] = (statistics.fmean(values), deviation) if values else None
        joined.append(one)
    return joined


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def differing_settings(results):
    """For each result a dict of the settings in which runs of its method differ."""
    by_method = {}
    for result in results:
        by_method.setdefault(result['method'], []).append(result['settings'])
    differing = {}
    inferences = {method: {inference(run) for run in runs} for method, runs in by_method.items()}
    for method, runs in by_method.items():
        differing[method] = [
            key for key in sorted(set().union(*runs))
            if key not in TEST_FLAGS
            and len({json.dumps(run.get(key), sort_keys=True) for run in runs}) > 1]
    shown = [{key: result['settings'][key] for key in differing[result['method']]
              if key in result['settings']} for result in results]
    for result, settings in zip(results, shown):
        if len(inferences[result['method']]) > 1:
            settings['inference'] = inference(result['settings'])
    return shown


def inference(settings):
    """How a run looked at the test clips: 'first of 180, linear'; '-' where it does not say."""
    if 'inference' not in settings:
        return '-'
    whole = settings['inference'] == 'full' or not settings.get('test_steps')
    return ', '.join(['full' if whole else f'{settings["inference"]} of {settings["test_steps"]}']
                     + ['reversed too'] * bool(settings.get('reverse_too'))
                     + [str(settings.get('readout', '-'))])


# ------------------------------------------------------- what the clips say

def right_clips(result):
    """Which clips of a run are right: dict clip name -> (bool, (class name, group)).

    Raises:
        UserError: the line names no prediction file, or the file does not fit the lists,
            or it is of another run.
    """
    if not result.get('predictions'):
        raise UserError(f'{result["method"]} in {result["root"] / RESULTS}: the line names no '
                        'prediction file; run its stage again')
    lists = read_lists(result['root'], result['split'])
    clips = lists.test + lists.train  # validation clips are some of the train list
    path = result['root'] / result['predictions']
    found, attrs = read_predictions(path, clips, lists.classes,
                                    str(result.get('command', 'the stage of that line')))
    right = {}
    for clip in clips:
        if clip.name in found:
            if not numpy.isfinite(found[clip.name]).all():
                raise UserError(f'{path}: {clip.name} holds a value that is no probability')
            logs = video_log_probability(found[clip.name], attrs.get('readout', 'mean'))
            right[clip.name] = (bool(score(logs[None], [clip.label])['top1']),
                                (clip.class_name, clip.group))
    if not right:
        raise UserError(f'{path}: holds no clip of split {result["split"]}')
    top1 = numpy.mean([hit for hit, _ in right.values()])
    # Runs that write to one name leave only the last one's predictions.
    if is_number(result.get('top1')) and abs(top1 - result['top1']) > 1e-4:
        raise UserError(f'{path}: gives video top-1 {top1:.4f}, but the line of '
                        f'{result["method"]} (seed {result.get("seed")}) says '
                        f'{result["top1"]:.4f}: another run has written over the file')
    return right


def bootstrap_interval(right, units, seed=0, draws=2000, level=0.95):
    """Percentile bootstrap interval of the share of right clips.

    Args:
        right: (n,) bool.
        units: n hashable values; clips of one unit are drawn together.

    Returns:
        (low, high), shares of 1.
    """
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    index = numpy.array([numbers[unit] for unit in units])
    sizes = numpy.bincount(index)
    hits = numpy.bincount(index, weights=numpy.asarray(right, float))
    random = numpy.random.default_rng(seed)
    shares = []
    for _ in range(draws):  # one draw at a time: 2000 x 3783 indices need not be held
        drawn = random.integers(len(sizes), size=len(sizes))
        shares.append(hits[drawn].sum() / sizes[drawn].sum())
    tail = 50 * (1 - level)
    low, high = numpy.percentile(shares, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar(only_a, only_b):
    """Two-sided exact p: the chance of a split at least as uneven if both were equally good."""
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_b, only_a + only_b, 0.5).pvalue)


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


# ------------------------------------------------------------------- tables

def figure(value, factor=1, digits=1):
    """One cell: a number, 'mean ± deviation', or '-'."""
    if isinstance(value, tuple):
        mean, deviation = value
        return f'{factor * mean:.{digits}f}' + (
            '' if deviation is None else f' ± {factor * deviation:.{digits}f}')
    return f'{factor * value:.{digits}f}' if is_number(value) else '-'


def table(results, intervals=None):
    """Turns results into (header, rows of str); columns that are empty throughout are left out."""
    rows = []
    for number, result in enumerate(results, 1):
        row = {'#': str(number), 'method': result['method'], 'unit': result['unit'],
               'split': str(result['split']), 'n': str(result['n'])}
        row.update((f'top{k}', figure(result.get(f'top{k}'), 100)) for k in TOP_K)
        if intervals:
            row['top-1 95 %'] = intervals[number - 1]
        row['train'] = figure(result.get('train_accuracy'), 100)
        row['val'] = figure(result.get('validation_accuracy'), 100)
        row['train loss'] = figure(result.get('train_loss'), digits=3)
        row['val loss'] = figure(result.get('validation_loss'), digits=3)
        row['seed'] = str(result.get('seed', '-'))
        row['epochs'] = figure(result.get('epochs'), digits=0)
        row['seconds'] = figure(result.get('seconds'), digits=0)
        row['inference'] = inference(result['settings'])
        rows.append(row)
    optional = [key for key in (*FILES_ONLY, *EXPENDABLE, 'top-1 95 %')
                if all(row.get(key, '-') == '-' for row in rows)]
    header = [key for key in rows[0] if key not in optional]
    return header, [[row[key] for key in header] for row in rows]


def as_text(header, rows, settings):
    """The table in WIDTH columns; settings stand under their row, long names are cut."""
    columns = {name: column for name, *column in zip(header, *rows) if name not in FILES_ONLY}
    for name in EXPENDABLE:
        least = sum(8 if key == 'method' else max(map(len, (key, *column)))
                    for key, column in columns.items()) + len(columns) - 1
        if least > WIDTH:
            columns.pop(name, None)
    header, rows = list(columns), list(zip(*columns.values()))
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    method = header.index('method')
    gap = '  ' if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else ' '
    too_wide = sum(widths) + len(gap) * (len(widths) - 1) - WIDTH
    if too_wide > 0:
        widths[method] = max(8, widths[method] - too_wide)

    def line(cells):
        cut = [cell if len(cell) <= width else cell[:width - 1] + '~'
               for cell, width in zip(cells, widths)]
        return gap.join(cell.ljust(width) if name in LEFT else cell.rjust(width)
                        for cell, width, name in zip(cut, widths, header)).rstrip()
    indent = ' ' * (widths[0] + len(gap))
    lines = [line(header)]
    for row, differing in zip(rows, settings):
        lines.append(line(row))
        if differing:
            lines += textwrap.wrap(in_words(differing), WIDTH, initial_indent=indent,
                                   subsequent_indent=indent, break_on_hyphens=False)
    return '\n'.join(lines)


def in_words(settings):
    def word(value):
        if isinstance(value, list):
            return ','.join(map(word, value))
        return value if isinstance(value, str) else json.dumps(value)
    return ' '.join(f'{key}={word(value)}' for key, value in settings.items())


def without_inference(settings):
    """The settings for a file, which has a column for the inference."""
    return [{key: value for key, value in one.items() if key != 'inference'} for one in settings]


def as_markdown(header, rows, settings):
    settings = without_inference(settings)

    def line(cells):
        return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'
    rule = ['---' if name in LEFT + ('settings',) else '---:' for name in header + ['settings']]
    lines = [line(header + ['settings']), line(rule)]
    lines += [line(row + [in_words(differing)]) for row, differing in zip(rows, settings)]
    return '\n'.join(lines) + '\n'


def as_csv(header, rows, settings):
    settings = without_inference(settings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header + ['settings'])
    writer.writerows(row + [in_words(differing)] for row, differing in zip(rows, settings))
    return text.getvalue()


def main():
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
    look.add_argument('--mean', nargs='?', const='seeds', choices=('seeds', 'splits'),
                      help='join runs that differ in their seed alone (default), or in their '
                           'split, too: mean ± deviation')
    look.add_argument('--interval', nargs='?', const='clips', choices=('clips', 'groups'),
                      help='95 %% bootstrap interval of video top-1, drawing clips (default) or '
                           'whole groups')
    look.add_argument('--compare', nargs=2, metavar=('A', 'B'),
                      help="McNemar's test of two runs: numbers of the table, or methods")
    out = parser.add_argument_group('files')
    out.add_argument('--markdown', type=Path, metavar='FILE', help='write the table there, too')
    out.add_argument('--csv', type=Path, metavar='FILE', help='write the table there, too')
    args = parser.parse_args()
    if args.mean and (args.interval or args.compare):
        parser.error('--interval and --compare look at single runs; leave out --mean')

    results, faults = [], []
    for root in args.root or [Path('.')]:
        of_root, bad = read_results(root / RESULTS)
        results += of_root
        faults += bad
    for fault in faults:
        print(fault, file=sys.stderr)
    results = [r for r in results if args.split in (None, r['split'])
               and args.unit in (None, r['unit'])]
    if not results:
        print('no result to show')
        return 1 if faults else 0
    if args.mean:
        results = (mean_over_seeds if args.mean == 'seeds' else mean_over_splits)(results)
    intervals = None
    if args.interval:
        intervals = []
        for result in results:
            if result['unit'] != 'video' or not result.get('predictions'):
                intervals.append('-')
                continue
            try:
                right = right_clips(result)
            except UserError as error:  # the other runs still have their say
                print(error, file=sys.stderr)
                intervals.append('-')
                continue
            units = (list(right) if args.interval == 'clips'
                     else [group for _, group in right.values()])
            low, high = bootstrap_interval([hit for hit, _ in right.values()], units, args.seed)
            intervals.append(f'{100 * low:.1f} to {100 * high:.1f}')

    header, rows = table(results, intervals)
    settings = differing_settings(results)
    if len(args.root or ()) > 1 and args.mean != 'splits':
        settings = [{'root': str(result['root']), **differing}
                    for result, differing in zip(results, settings)]
    print(as_text(header, rows, settings))
    if args.mean:
        print(f'mean ± deviation over the {args.mean} named (n-1 beneath the deviation)')
    if args.mean == 'splits':
        print('n is the sum over the splits; each split counts the same in the mean')
        if any(result['split'] != '1,2,3' for result in results):
            print('Papers report the mean over splits 1, 2 and 3: a line of fewer does not compare.')
    for path, write in ((args.markdown, as_markdown), (args.csv, as_csv)):
        if path:
            write_text(path, write(header, rows, settings))
            print(f'wrote {path}')
    if args.compare:
        print()
        compare(*(pick(results, wanted) for wanted in args.compare))
    return 1 if faults else 0


if __name__ == '__main__':
    stage_main(main)
