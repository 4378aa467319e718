"""Writes ROOT/report.html: what the runs of a root have reached, on one page.

    python report.py --root ROOT                     # frames against the run that validates best
    python report.py --root ROOT --runs deep         # frames against the run named deep
    python report.py --root ROOT --runs RNN deep     # both in the curves; RNN against frames

Reads what is there and says what is not: results.jsonl, the lists, the frame
predictions, for every run NAME its NAME_testPredictions.hdf5 and NAME.training/log, the
features for a map of the clips, NAME.model for which frames mattered, and the clips for example
frames. The page stands alone: it holds its pictures and needs neither network nor script.

Beside the run that is set against the frames stands one on the same features that sees no order
(rnn.py --cell mean), if there is one: what a better classifier of frames gains is not time.

Without --runs the runs are taken in order of their lowest validation loss: a run chosen
by its test accuracy would look better than it is.

Exit code 3: the page is written, but a run that was asked for, or a file, could not be read.
"""
import sys
import time
from math import exp

from RNNNet import load_rnn
from engine.arguments import whole
from engine.errors import UserError
from engine.files import write_text
from engine.hdf5 import attribute, open_hdf5, read
from engine.learning.occlusion import leave_out
from engine.reporting.gainsections import change_sections, flips_section, shared_clips, summary
from engine.reporting.featuremap import map_section
from engine.reporting.learningcurve import learning_section
from engine.reporting.readout import first_few
from engine.reporting.page import element, join, page, paragraph, section
from engine.reporting.resultsfile import RESULTS, line_of, read_results, settings_of
from engine.reporting.runs import (MOST_RUNS, find_runs, names_of_run, predictions_path, read_run,
                                   run_of, run_without_order, say_if_of_other_features,
                                   sees_first_frames)
from engine.reporting.scoring import video_log_probability
from engine.reporting.sections import (curve_of, matrix_section, position_section,
                                       results_section)
from engine.reporting.surenesssection import sureness_section
from engine.stage import commit, get_device, new_parser as stage_parser, run as stage_main
from engine.variants import LISTS, Names, fold_of, frames_file, maker_of, place, split_fold
from engine.progress import listed
from helperFunctions import read_lists

REPORT = 'report.html'


def collect(args, notes, faults):
    """Reads what ROOT holds: (results, lists or None, names of runs, [Run], the one of these that
    sees no order and is to be held against the second, or None)."""
    root, results, lists, runs = args.root, [], None, []
    try:
        results, bad = read_results(root / RESULTS)
        faults += bad
    except UserError as error:
        (faults if (root / RESULTS).exists() else notes).append(str(error))
    try:
        lists = read_lists(root, args.split)
    except UserError as error:
        (faults if (root / LISTS).exists() else notes).append(str(error))
    names = args.runs or find_runs(root, results, args.split, notes)
    fold = split_fold(args.runs[0])[1] if args.runs else ''  # each has a frame network of its own
    frames = run_of(frames_file(root, Names(fold=fold)))
    names = [frames] + [name for name in dict.fromkeys(names) if name != frames]
    blind = run_without_order(root, names[1], results, args.split, notes) if names[1:] else None
    names += [blind] if blind and blind not in names else []
    for name in names:
        path = predictions_path(root, name)
        if not path.exists():
            asked = args.runs and name in args.runs
            (faults if asked else notes).append(
                f'{path}: not there; made by: {maker_of(path, args.split)}')
        elif lists:
            try:
                run = read_run(name, path, lists, args.split)
                settings = settings_of(results, path, args.split)
                runs.append(run if sees_first_frames(settings) else run._replace(curve={}))
            except UserError as error:
                faults.append(str(error))
    if len(names) == 1:
        notes.append(f'{root}: no run of rnn.py yet; made by: '
                     f'python rnn.py{place(root, args.split)}')
    for run in runs:
        if run.method.missing:
            notes.append(f'{run.method.path} lacks {len(run.method.missing)} of the clips '
                         f'listed: {first_few(run.method.missing)}')
    say_if_of_other_features(runs[:2], root, results, args.split, notes)
    titles = [run.title for run in runs]
    runs = [run if titles.count(run.title) == 1 else
            run._replace(method=run.method._replace(name=f'{run.title} ({run.name})'))
            for run in runs]
    return results, lists, names, runs, next((run for run in runs if run.name == blind), None)


def drops_by(args, run, names, settings, notes, faults):
    """Which frames mattered to a run of rnn.py.

    Returns:
        None where there is no such model, or a function of a clip: [(first frame, last, how much
        less probable the class that the run names becomes without them)].
    """
    path = args.root / f'{run.name}.model'
    if not path.exists() or not args.examples:
        return None
    try:
        model, card = load_rnn(path)
        made_by = f'python save_hdf5.py{names.flags()}{place(args.root, args.split)}'
        with open_hdf5(args.root / names.test, made_by) as f:
            if attribute(f, 'model_sha256') != card.get('features'):
                raise UserError(f'{f.filename}: features of another network than {path} was '
                                'trained on')
    except UserError as error:
        there = (args.root / names.test).exists()  # then it, or the model, is not what it should be
        (faults if there else notes).append(f'which frames mattered is not shown: {error}')
        return None
    settings = {**card.get('settings', {}), **settings}
    how = {'technique': settings.get('inference', 'full'), 'steps': settings.get('test_steps', 0),
           'reverse_too': bool(settings.get('reverse_too')), 'seed': card.get('seed', 0)}

    def drops_of(clip):
        with open_hdf5(args.root / names.test, made_by) as f:
            rows = read(f, clip.name, made_by).astype('float32')
        whole, parts = leave_out(model, get_device('-1'), clip, rows, **how)

        def probability(softmax):
            return exp(video_log_probability(softmax, run.readout)[run.method.said[clip.name]])
        return [(part.start, part.end, probability(whole) - probability(part.without))
                for part in parts]
    return drops_of


def missing_section(lines):
    """What is not there or could not be read; '' where there is nothing of that."""
    return '' if not lines else element('aside', element('h2', 'Missing'), element(
        'ul', *(element('li', line) for line in lines)), class_='missing')


def nothing_to_report(args, results, faults):
    """The UserError of a root without anything of the split; prints what could not be read."""
    for line in faults:
        print(line, file=sys.stderr)
    if results:
        splits = sorted({result['split'] for result in results})
        return UserError(f'{args.root}: nothing to report of split {args.split}; what is there is '
                         f'of split {listed(map(str, splits))}: add --split {splits[0]}')
    return UserError(f'{args.root}: nothing to report: no result in {RESULTS}, no predictions, no '
                     'log of a training; run the stages first, or make demo')


def what_of(split, runs, lists):
    """What a page is of: the split, the folds of its runs if they are of any, numbers of clips."""
    folds = dict.fromkeys(filter(None, (fold_of(run.method.path) for run in runs)))
    return ', '.join([f'Split {split}', *([f'fold {listed(folds)}'] if folds else []), *([
        f'{len(lists.classes)} classes',
        f'{len(lists.train)} train and {len(lists.test)} test videos'] if lists else [])])


def build(args):
    """The page of ROOT: (HTML, notes on what is missing, faults of what was found).

    Raises:
        UserError: ROOT holds nothing to report.
    """
    root, notes, faults = args.root, [], []
    if not root.is_dir():
        raise UserError(f'{root}: no such folder; made by: make demo, or the stages in order')
    results, lists, names, runs, blind = collect(args, notes, faults)
    titles = {run.name: run.title for run in runs}
    combined = [name for name in names if 'files' in line_of(
        results, predictions_path(root, name), args.split).get('settings', {})]
    curves = join([curve_of(root, name, titles.get(name, name), line_of(
        results, predictions_path(root, name), args.split), args.split, notes, faults)
                   for name in names if name not in combined])
    of_split = any(result['split'] == args.split for result in results)
    if not (runs or of_split or curves and not results):  # a curve tells no split
        raise nothing_to_report(args, results, faults)
    body = [('Results', results_section(results, runs)),
            ('Curves', section(
                'curves', 'Loss curves', paragraph(
                    'A train loss that falls on while the validation loss rises is '
                    'overtraining.'), curves) if curves else ''),
            ('Learning', learning_section(results)),
            ('Position', position_section(runs)),
            ('Sureness', sureness_section(runs, {
                run.name: line_of(results, run.method.path, args.split) for run in runs})),
            ('Confusion', matrix_section(runs, lists, args, faults))]
    lead = ''
    if len(runs) > 1 and shared_clips(*runs[:2]):
        a, b = runs[:2]
        lead = summary(a, b, blind)
        body += [('Classes and pairs', change_sections(a, b, lists, args.top)),
                 ('Flipped clips', flips_section(a, b, lists, args, notes, drops_by(
                     args, b, names_of_run(root, b.name, results, args.split), settings_of(
                         results, b.method.path, args.split), notes, faults)))]
    elif len(runs) > 1:
        faults.append(f'{runs[0].method.path} and {runs[1].method.path} have no clip in common')
    if runs:
        seen = names_of_run(root, runs[:2][-1].name, results, args.split)
        body.append(('Features', map_section(
            runs[:2][-1], root, seen, lists, f'python save_hdf5.py{seen.flags()}'
            f'{place(root, args.split)}', args.top, notes)))
    anchors = {'Classes and pairs': 'classes', 'Flipped clips': 'flips'}
    links = [element('li', element('a', title, href='#' + anchors.get(title, title.lower())))
             for title, content in body if content]
    name = root.resolve().name
    header = element(
        'header', element('h1', f'What the runs of {name} have reached'),
        paragraph(what_of(args.split, runs, lists), class_='muted'),
        lead, missing_section(faults + notes),
        element('nav', element('ul', *links), aria_label='Sections'))
    footer = element('footer', f'Made by python report.py (commit {commit()}) on '
                     f'{time.strftime("%Y-%m-%d at %H:%M")}.')
    return (page(f'Report of {name}', join([
        header, element('main', *(content for _, content in body)), footer], '\n')),
        notes, faults)


def main():
    parser = stage_parser(__doc__)
    look = parser.add_argument_group('look')
    look.add_argument('--runs', nargs='+', metavar='NAME',
                      help='names of runs (rnn.py --name); the first is set against the frames '
                           f'(default: the {MOST_RUNS} of lowest validation loss)')
    look.add_argument('--top', type=whole(1), default=10, metavar='N',
                      help='how many classes and pairs to show (default: 10)')
    look.add_argument('--examples', type=whole(0), default=6, metavar='N',
                      help='clips each way to show frames of, 0 for none (default: 6)')
    look.add_argument('--order', choices=('list', 'similar'), default='similar',
                      help='classes of the matrices as in classInd.txt, or with those side by '
                           'side that are taken for each other (default: similar)')
    args = parser.parse_args()
    html, notes, faults = build(args)
    for line in faults + notes:
        print(line, file=sys.stderr)
    write_text(args.root / REPORT, html)
    print(f'wrote {args.root / REPORT} ({len(html) / 1e6:.1f} MB); open it in a browser')
    return 3 if faults else 0


if __name__ == '__main__':
    stage_main(main)
