"""Writes ROOT/report.html: what the runs of a root have reached, on one page.

    python report.py --root ROOT                     # frames against the run that validates best
    python report.py --root ROOT --runs deep         # frames against the run named deep
    python report.py --root ROOT --runs RNN deep     # both in the curves; RNN against frames

Reads what is there and says what is not: results.jsonl, the lists, the frame
predictions, for every run NAME its NAME_testPredictions.hdf5 and NAME.training/log, and
the clips for example frames. The page stands alone: it holds its pictures and needs
neither network nor script.

Without --runs the runs are taken in order of their lowest validation loss: a run chosen
by its test accuracy would look better than it is.

Exit code 3: the page is written, but a run that was asked for, or a file, could not be read.
"""
import io
import math
import sys
import time
from typing import NamedTuple

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy

import confusion
import results as res
from engine.errors import UserError
from engine.files import read_json, write_text
from engine.reporting.page import bar, element, join, legend, line_chart, page, picture, table
from engine.video.decode import read_frames
from engine.hdf5 import open_hdf5
from engine.reporting.scoring import video_log_probability
from engine.stage import commit, new_parser as stage_parser, run as stage_main
from engine.variants import TEST_SUFFIX, VARIANTS, maker_of, place
from helperFunctions import read_lists

REPORT = 'report.html'
FRAMES = 'frames'                  # the run that frameBasedTrain.py makes
POSITIONS = (10, 30, 60, 120)      # frames; in the table
CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 120, 180, 250, 350, 500, 700, 1000)
MOST_RUNS = 5                      # without --runs: six lines can be told apart in a chart
HEADINGS = {'top1': 'top-1 %', 'top5': 'top-5 %', 'top10': 'top-10 %', 'train': 'train %',
            'val': 'validation %', 'val loss': 'validation loss'}  # for those of results.py
THUMBNAIL = 112                    # height and decoded width of an example frame, pixels


class Run(NamedTuple):
    """One method's predictions of the test clips (n of them)."""

    name: str                  # 'frames', or the NAME of rnn.py --name NAME
    method: confusion.Method   # its label a clip; method.name is what the page calls it
    probability: dict          # clip name -> (C,) of the whole clip, as the file reads it out
    lengths: dict              # clip name -> frames or steps
    curve: dict                # k -> (share right, mean probability of the class named)
    readout: str

    @property
    def title(self):
        return self.method.name


# ----------------------------------------------------------------------- reading

def read_run(name, path, lists, split):
    """Reads a prediction file and reads out its first k frames for every k of CURVE.

    A clip of fewer than k frames is read out whole, so that every point counts the same
    clips. Points that fewer than a tenth of the clips reach are left out.
    """
    clips, missing, found, attrs = confusion.read_clips(path, lists, split)
    readout = attrs.get('readout', 'mean')
    lengths = {clip.name: len(found[clip.name]) for clip in clips}
    # Where there is one row a clip, segments have been joined: no position is left in it.
    reached = [k for k in sorted({*CURVE, *POSITIONS}) if max(lengths.values()) > 1
               and sum(n >= k for n in lengths.values()) >= 0.1 * len(clips)]
    hits, sureness = dict.fromkeys(reached, 0), dict.fromkeys(reached, 0.0)
    said, probability = {}, {}
    for clip in clips:
        frames = found.pop(clip.name)
        whole = video_log_probability(frames, readout)
        said[clip.name] = confusion.decide(whole, clip.label)
        probability[clip.name] = numpy.exp(whole)
        for k in reached:
            logs = video_log_probability(frames[:k], readout) if k < len(frames) else whole
            hits[k] += confusion.decide(logs, clip.label) == clip.label
            sureness[k] += float(numpy.exp(logs.max()))
    method = confusion.Method(str(attrs.get('method', name)), path, clips, missing, said)
    return Run(name, method, probability, lengths,
               {k: (hits[k] / len(clips), sureness[k] / len(clips)) for k in reached}, readout)


def training_folder(root, name):
    return root / (VARIANTS[name].of('frameTraining') if name in VARIANTS else f'{name}.training')


def predictions_path(root, name):
    return root / (VARIANTS[name].test_predictions if name in VARIANTS else name + TEST_SUFFIX)


def read_log(root, name):
    """One dict an epoch of a run's training, with numbers only; [] where there is none.

    Raises:
        UserError: the log is not one that a training writes.
    """
    path = training_folder(root, name) / 'log'
    epochs = read_json(path) or []
    if not (isinstance(epochs, list) and all(isinstance(e, dict) for e in epochs)):
        raise UserError(f'{path}: not the log of a training; train again with --restart')
    return [{key: value for key, value in epoch.items()
             if res.is_number(value) and math.isfinite(value)} for epoch in epochs]


def line_of(results, path, split):
    """The last line of results.jsonl that tells of a prediction file by video; {} if none."""
    return next((result for result in reversed(results) if result['unit'] == 'video'
                 and (result.get('predictions'), result['split']) == (path.name, split)), {})


def sees_first_frames(settings):
    """Whether step k of a prediction file is frame k of the clip, seen after those before."""
    return (settings.get('inference', 'full') in ('full', 'first')
            and not settings.get('reverse_too'))


def find_runs(root, results, split, notes):
    """Names of the runs in ROOT but the frames, lowest validation loss first."""
    names = {path.name.removesuffix(TEST_SUFFIX) for path in root.glob('*' + TEST_SUFFIX)}
    names |= {name for name, variant in VARIANTS.items()
              if name != FRAMES and (root / variant.test_predictions).exists()}
    names |= {path.parent.name.removesuffix('.training') for path in root.glob('*.training/log')}

    def loss(name):
        told = line_of(results, predictions_path(root, name), split).get('validation_loss')
        if res.is_number(told) and math.isfinite(told):
            return told
        try:
            return min((epoch['validation/main/loss'] for epoch in read_log(root, name)
                        if 'validation/main/loss' in epoch), default=math.inf)
        except UserError:
            return math.inf  # named where the curves are drawn
    order = sorted(names, key=lambda name: (loss(name), name))
    if len(order) > MOST_RUNS:
        notes.append(f'{len(order)} runs are here; shown in curves and matrices: the '
                     f'{MOST_RUNS} of lowest validation loss. Others: --runs NAME ...; not '
                     f'shown: {confusion.first_few(order[MOST_RUNS:], 20)}')
    return order[:MOST_RUNS]


def count_clips(path):
    """Number of clips in a prediction file; None where it is not there."""
    try:
        with open_hdf5(path, '') as f:
            return sum(not key.startswith('_') for key in f)
    except UserError:
        return None


# ---------------------------------------------------------------------- sections
# Each returns HTML, or '' where it has nothing to show.

def section(name, title, *content):
    return element('section', element('h2', title, id=name), *content)


def paragraph(*content, **attributes):
    return element('p', *content, **attributes)


def percent(share):
    return '-' if share is None or math.isnan(share) else f'{100 * share:.1f}'


def points(change, digits=1):
    """A change in percentage points, with its sign."""
    return signed(100 * change, digits)


def signed(number, digits=0):
    return f'{number:+.{digits}f}'.replace('-', '\u2212') if round(number, digits) else '0'


def accuracy(run):
    said = run.method.said
    return numpy.mean([said[clip.name] == clip.label for clip in run.method.clips])


def results_section(results, runs):
    """The table of all runs."""
    if not results:
        return ''
    intervals = []
    for result in results:
        # By the predictions read above, if they are those that the line was written for.
        fits = [run for run in runs if run.method.path.name == result.get('predictions')
                and result['unit'] == 'video' and res.is_number(result.get('top1'))
                and abs(accuracy(run) - result['top1']) < 1e-4]
        if fits:
            clips, said = fits[0].method.clips, fits[0].method.said
            low, high = res.bootstrap_interval(
                [said[clip.name] == clip.label for clip in clips],
                [(clip.class_name, clip.group) for clip in clips])
            intervals.append(f'{100 * low:.1f} to {100 * high:.1f}')
        else:
            intervals.append('-')
    header, rows = res.table(results, intervals)
    differing = res.without_inference(res.differing_settings(results))
    if any(differing):
        header = header + ['settings that differ']
        rows = [row + [res.in_words(settings)] for row, settings in zip(rows, differing)]
    notes = 'Compare lines of one unit and one split only.'
    if any(interval != '-' for interval in intervals):
        notes += (' The interval is a bootstrap over groups: clips of one group show the same '
                  'person in the same place, and stand or fall together.')
    if 'train' in header or 'val' in header:
        notes += (' "Train %" is by step of the training segments, with dropout; "validation %" '
                  'by video of the held-out groups.')
    return section(
        'results', 'Results', paragraph(notes),
        table('Accuracy in percent of n frames, segments or videos, as the column "unit" says',
              [HEADINGS.get(key, key) for key in header], rows, words=res.LEFT,
              long=('settings that differ',), heads=header.index('method')))


def curve_of(root, name, title, notes):
    """Loss and accuracy of one training by epoch: two charts and the figures."""
    try:
        log = read_log(root, name)
    except UserError as error:
        notes.append(str(error))
        return ''
    epochs = [epoch.get('epoch', i) for i, epoch in enumerate(log, 1)]
    keys = ('main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy')
    train_loss, loss, train_accuracy, right = [[e.get(key) for e in log] for key in keys]
    if not any(value is not None for value in train_loss + loss):
        return ''
    known = [(value, epoch) for value, epoch in zip(loss, epochs) if value is not None]
    best = min(known) if known else None
    held_out = count_clips(root / (VARIANTS[name].validation_predictions if name in VARIANTS
                                   else f'{name}_validationPredictions.hdf5'))
    n = f'n {held_out} videos of held-out groups' if held_out else 'n not known'
    if name in VARIANTS:
        units = (f'Train: by frame, with dropout. Validation: by frame, one of each video '
                 f'({n}).')
        kept = None
    else:
        units = ('Train: by segment, every step counted by its weight (loss) or alike '
                 f'(accuracy), with dropout. Validation: by video ({n}).')
        kept = best[1] if best else None
    if kept is not None:
        units += f' Dotted line: epoch {kept:g}, whose weights are kept.'

    def chart(label, curves, unit, largest=None):
        series = [(part, number, epochs, ys) for number, (part, ys) in enumerate(
            zip(('train', 'validation'), curves)) if any(y is not None for y in ys)]
        if not series:
            return ''
        ends = '; '.join(
            f'{part} from {[y for y in ys if y is not None][0]:.3g}{unit} to '
            f'{[y for y in ys if y is not None][-1]:.3g}{unit}' for part, _, _, ys in series)
        return element('figure', line_chart(
            label, f'{label} of {title} over {len(log)} epochs: {ends}.', series, 'epoch',
            largest, unit, mark=kept), legend([(number, part) for part, number, _, _ in series]))

    def hundred(values):
        return [None if value is None else 100 * value for value in values]
    figures = table(f'{title}: figures of each epoch', [
        'epoch', 'train loss', 'validation loss', 'train accuracy %', 'validation accuracy %'],
        [[f'{epoch:g}'] + [res.figure(a, digits=3), res.figure(b, digits=3),
                           res.figure(c, 100), res.figure(d, 100)]
         for epoch, a, b, c, d in zip(epochs, train_loss, loss, train_accuracy, right)])
    return join([
        element('h3', title), paragraph(units, class_='muted'),
        element('div', chart('loss', (train_loss, loss), ''),
                chart('accuracy', (hundred(train_accuracy), hundred(right)), ' %', 100),
                class_='grid charts'),
        element('details', element('summary', 'Figures of each epoch'), figures)])


def position_section(runs):
    """Accuracy and sureness after the first k frames."""
    without = [run.title for run in runs if not run.curve]
    runs = [run for run in runs if run.curve]
    if not runs:
        return ''

    # One scale, so that sureness can be held against accuracy.
    largest = max(100 * value for run in runs for pair in run.curve.values() for value in pair)

    def chart(which, label, what):
        series = [(run.title, number, list(run.curve), [100 * pair[which] for pair in
                                                        run.curve.values()])
                  for number, run in enumerate(runs)]
        ends = '; '.join(f'{title} from {ys[0]:.1f} % after {xs[0]} to {ys[-1]:.1f} % after '
                         f'{xs[-1]}' for title, _, xs, ys in series)
        drawn = line_chart(
            label, f'{label} by frames seen: {ends}.', series, 'frames seen (logarithmic)',
            largest, ' %', [1, 3, 10, 30, 60, 120, 250, 500, 1000], log=True)
        return element('figure', drawn, element('figcaption', what))
    rows = []
    for run in runs:
        clips, lengths = len(run.method.clips), list(run.lengths.values())
        whole = numpy.mean([run.probability[name].max() for name in run.lengths])
        for label, which in (('right %', 0), ('how sure %', 1)):
            rows.append([run.title, label, clips]
                        + [percent(run.curve[k][which]) if k in run.curve else '-'
                           for k in POSITIONS]
                        + [percent((accuracy(run), whole)[which])])
        rows.append([run.title, 'videos so long', clips]
                    + [sum(n >= k for n in lengths) for k in POSITIONS] + [clips])
    left_out = (f' Not drawn, as their predictions keep no order of frames: {", ".join(without)}.'
                if without else '')
    readouts = '; '.join(f'{run.title} by "{run.readout}"' for run in runs)
    return section(
        'position', 'Accuracy over sequence position',
        paragraph(f'Each video is read out from its first k frames only ({readouts}). A shorter '
                  'video counts with all it has, so every point is over the same n test videos; '
                  f'where fewer than a tenth are that long, none is given.{left_out}'),
        element('div', chart(0, 'videos right', 'Share of videos whose class is named right.'),
                chart(1, 'how sure', 'Mean over videos of the probability given to the class '
                      'named. Above the share that is right: surer than it should be.'),
                class_='grid charts'),
        legend([(number, f'{run.title} (n {len(run.method.clips)} videos)')
                for number, run in enumerate(runs)]),
        element('h3', 'In figures'),
        table('By video, after the first k frames: percent right; how sure; videos so long',
              ['method', 'what', 'n'] + [f'{k} frames' for k in POSITIONS] + ['whole video'],
              rows, words=('what',)))


def matrix_section(runs, lists, args):
    """The confusion matrices of all runs, their classes in one and the same order."""
    if not runs:
        return ''
    matrices = [confusion.count(run.method, run.method.clips, len(lists.classes))
                for run in runs]
    labels = confusion.labels_to_draw(sum(matrices), args.order)
    return section(
        'confusion', 'Confusion matrices',
        paragraph('By video. Row: the class shown; column: the class named; both in the same '
                  'order in every matrix. Tick "full size" to read small names.'),
        element('div', *(matrix_figure(run, matrix, lists.classes, labels, args.split)
                         for run, matrix in zip(runs, matrices)), class_='grid wide'))


def matrix_figure(run, matrix, classes, labels, split):
    """One confusion matrix as a picture that a tick enlarges."""
    clips = run.method.clips
    right, n = int(matrix.trace()), matrix.sum(axis=1)
    drawn = confusion.confusion_figure(
        matrix, classes, f'{run.title}: {100 * right / len(clips):.1f} % of '
        f'{len(clips)} videos right, split {split}', labels)
    data = io.BytesIO()
    drawn.savefig(data, format='png', dpi=100)
    width, height = (drawn.get_size_inches() * 100).round().astype(int)
    most = ', '.join(f'{classes[i]} taken for {classes[j]} ({k} of {n[i]})'
                     for i, j, k in confusion.most_confused(matrix)[:3])
    alt = (f'Confusion matrix of {run.title}: {right} of {len(clips)} videos on the diagonal. '
           f'Most confused: {most or "nothing"}.')
    tick = f'zoom-{run.name}'
    return element(
        'figure', element('input', type='checkbox', class_='zoom', id=tick),
        element('label', f'full size: {run.title}', for_=tick),
        element('div', picture(data.getvalue(), 'png', alt, width=width, height=height),
                class_='scroll', tabindex=0, role='region',
                aria_label=f'Confusion matrix of {run.title}'),
        class_='picture')


def shared_clips(a, b):
    return [clip for clip in a.method.clips if clip.name in b.method.said]


def change_sections(a, b, lists, top):
    """Classes that gained and lost from A to B, and the most confused pairs of both."""
    clips = shared_clips(a, b)
    matrix_a = confusion.count(a.method, clips, len(lists.classes))
    matrix_b = confusion.count(b.method, clips, len(lists.classes))
    accuracy_a, accuracy_b = map(confusion.class_accuracy, (matrix_a, matrix_b))
    change, n = accuracy_b - accuracy_a, matrix_a.sum(axis=1)
    shown = [int(i) for i in numpy.flatnonzero(n)]
    shown.sort(key=lambda i: (round(-change[i], 9), -n[i], i))
    largest = max(abs(change[i]) for i in shown)

    def classes(caption, labels):
        rows = [[lists.classes[i], n[i], join([bar(change[i], largest), points(change[i])]),
                 percent(accuracy_a[i]), percent(accuracy_b[i]),
                 signed(matrix_b[i, i] - matrix_a[i, i])] for i in labels]
        return table(caption, ['class', 'n', 'points', f'{a.title} %', f'{b.title} %', 'videos'],
                     rows)
    by = 'by video; n: test videos of the class'
    if len(shown) <= 2 * top:
        tables = [classes(f'All {len(shown)} classes, most gained first ({by})', shown)]
    else:
        gained, lost = confusion.gains(matrix_a, matrix_b, top)
        tables = [classes(f'The {len(labels)} classes that {word} most ({by})', labels)
                  if labels else paragraph(f'No class {word}.')
                  for word, labels in (('gained', gained), ('lost', lost))]
        tables.append(element('details', element('summary', f'All {len(shown)} classes'), classes(
            f'All {len(shown)} classes, most gained first ({by})', shown)))
    few, many = n[n > 0].min(), n.max()
    yardstick = f'{100 / many:.1f}' + (f' to {100 / few:.1f}' if few < many else '')
    gains = section(
        'classes', f'Classes: what {b.title} gains over {a.title}',
        paragraph(f'One video moves its class by 100/n points, here by {yardstick}: read each '
                  'change beside its n.'),
        # Side by side where both fit.
        element('div', *tables[:2], class_='grid wide') if len(tables) > 1 else '',
        *(tables[2:] if len(tables) > 1 else tables))

    def pairs(caption, matrix):
        rows = [[lists.classes[i], lists.classes[j], n[i], matrix_a[i, j], matrix_b[i, j]]
                for i, j, _ in confusion.most_confused(matrix)[:top]]
        if not rows:
            return paragraph(f'{caption}: none, every video is right.')
        return table(f'{caption} (by video; n: test videos of the class shown)',
                     ['shown', 'taken for', 'n', a.title, b.title], rows, words=('taken for',))
    return join([gains, section(
        'pairs', 'Most confused pairs, before and after',
        paragraph(f'How many of the n videos of one class are taken for another, by {a.title} '
                  f'(before) and by {b.title} (after).'),
        element('div', pairs(f'Before: most confused by {a.title}', matrix_a),
                pairs(f'After: most confused by {b.title}', matrix_b), class_='grid wide'))])


def example(clip, a, b, classes):
    """Three frames of a clip, and what both methods say of it.

    Raises:
        UserError: the clip cannot be decoded.
    """
    n = a.lengths[clip.name]
    indices = sorted({n // 10, n // 2, n * 9 // 10})
    frames = read_frames(clip.path, indices, THUMBNAIL)
    header = imageio_ffmpeg.read_frames(str(clip.path))
    width, height = next(header)['size']
    header.close()
    strip = numpy.hstack(list(frames[..., ::-1]))  # BGR to RGB
    data = imageio.imwrite('<bytes>', strip, extension='.jpg', quality=82)
    said = [f'{run.title}: {classes[run.method.said[clip.name]]} '
            f'({100 * run.probability[clip.name][run.method.said[clip.name]]:.0f}\u00a0%)'
            for run in (a, b)]
    # Frames are decoded as squares; the page gives them their own shape back.
    shape = f'aspect-ratio:{len(frames) * width}/{height}'
    return element(
        'figure', picture(data, 'jpeg', f'{len(frames)} frames of {clip.name}, which shows '
                          f'{clip.class_name}: at a tenth, the middle and nine tenths of it',
                          style=shape, loading='lazy'),
        element('figcaption', element('strong', clip.class_name), f' \u00b7 {clip.name}',
                *(element('span', words) for words in said)), class_='clip')


def flips(a, b):
    """Clips that flipped to right and to wrong from A to B; the surest change first."""
    right, wrong = [], []
    for clip in shared_clips(a, b):
        before, after = (run.method.said[clip.name] == clip.label for run in (a, b))
        if before != after:
            (right if after else wrong).append(clip)

    def change(clip):
        return -abs(b.probability[clip.name][clip.label] - a.probability[clip.name][clip.label])
    return sorted(right, key=change), sorted(wrong, key=change)


def flips_section(a, b, lists, args, notes):
    parts, failed = [], []
    for word, clips in zip(('right', 'wrong'), flips(a, b)):
        there = [clip for clip in clips if clip.path.exists()]
        failed += [f'{clip.path}: not there' for clip in clips if not clip.path.exists()]
        # One clip a class before a second one: clips of a class look alike.
        seen, first, later = set(), [], []
        for clip in there:
            (later if clip.label in seen else first).append(clip)
            seen.add(clip.label)
        shown = []
        for clip in (first + later)[:args.examples]:
            try:
                shown.append(example(clip, a, b, lists.classes))
            except UserError as error:
                failed.append(str(error))
        parts += [element('h3', f'{len(clips)} video{"s" * (len(clips) != 1)} flipped to {word}'),
                  element('div', *shown, class_='grid') if shown else
                  paragraph('None.' if not clips else 'No frame could be read.'
                            if args.examples else 'No frames asked for.')]
    if failed and args.examples:
        notes.append(f'{len(failed)} clips that flipped give no example frame, first: '
                     f'{failed[0]}')
    return section(
        'flips', 'Clips that flipped',
        paragraph(f'From {a.title} to {b.title}, over {len(shared_clips(a, b))} test videos. '
                  f'Shown are up to {args.examples} each way, first those where the probability '
                  'of the true class changed most, one a class before a second. In brackets: '
                  'the probability given to the class named.'), *parts)


def summary(a, b):
    """The three figures to take away."""
    clips = shared_clips(a, b)
    right_a, right_b = (numpy.mean([run.method.said[c.name] == c.label for c in clips])
                        for run in (a, b))
    gained, lost = map(len, flips(a, b))
    p = res.mcnemar(lost, gained)
    p = f'p = {p:.2g}' if p >= 0.0001 else 'p < 0.0001'

    unit = f'top-1 by video (n\u00a0{len(clips)})'

    def one(number, words):
        return element('div', element('dt', words), element('dd', number))
    return join([
        element('dl', one(f'{100 * right_a:.1f} %', f'{a.title}, {unit}'),
                one(f'{100 * right_b:.1f} %', f'{b.title}, {unit}'),
                one(points(right_b - right_a), 'percentage points between them'),
                class_='figures'),
        paragraph(f'Over the {len(clips)} test videos that both predict: {gained} flipped to '
                  f'right, {lost} to wrong; McNemar\u2019s exact test {p} (it takes videos '
                  'as independent, which those of one group are not quite).')])


# -------------------------------------------------------------------------- main

def collect(args, notes, faults):
    """Reads what ROOT holds: (results, lists or None, names of runs, [Run])."""
    root, results, lists, runs = args.root, [], None, []
    try:
        results, bad = res.read_results(root / res.RESULTS)
        faults += bad
    except UserError as error:
        notes.append(str(error))
    try:
        lists = read_lists(root, args.split)
    except UserError as error:
        notes.append(str(error))
    names = args.runs or find_runs(root, results, args.split, notes)
    names = [FRAMES] + [name for name in dict.fromkeys(names) if name != FRAMES]
    for name in names:
        path = predictions_path(root, name)
        if not path.exists():
            asked = args.runs and name in args.runs
            (faults if asked else notes).append(
                f'{path}: not there; made by: {maker_of(path, args.split)}')
        elif lists:
            try:
                run = read_run(name, path, lists, args.split)
                settings = line_of(results, path, args.split).get('settings', {})
                runs.append(run if sees_first_frames(settings) else run._replace(curve={}))
            except UserError as error:
                faults.append(str(error))
    if len(names) == 1:
        notes.append(f'{root}: no run of rnn.py yet; made by: '
                     f'python rnn.py{place(root, args.split)}')
    for run in runs:
        if run.method.missing:
            notes.append(f'{run.method.path} lacks {len(run.method.missing)} of the clips '
                         f'listed: {confusion.first_few(run.method.missing)}')
    titles = [run.title for run in runs]
    runs = [run if titles.count(run.title) == 1 else
            run._replace(method=run.method._replace(name=f'{run.title} ({run.name})'))
            for run in runs]
    return results, lists, names, runs


def build(args):
    """The page of ROOT: (HTML, notes on what is missing, faults of what was found).

    Raises:
        UserError: ROOT holds nothing to report.
    """
    root, notes, faults = args.root, [], []
    if not root.is_dir():
        raise UserError(f'{root}: no such folder; made by: make demo, or the stages in order')
    results, lists, names, runs = collect(args, notes, faults)
    titles = {run.name: run.title for run in runs}
    curves = join([curve_of(root, name, titles.get(name, name), faults) for name in names])
    if not (results or runs or curves):
        raise UserError(f'{root}: nothing to report: no results.jsonl, no predictions, no log of '
                        'a training; run the stages first, or make demo')
    body = [('Results', results_section(results, runs)),
            ('Curves', section(
                'curves', 'Loss curves', paragraph(
                    'A train loss that falls on while the validation loss rises is '
                    'overtraining.'), curves) if curves else ''),
            ('Position', position_section(runs)),
            ('Confusion', matrix_section(runs, lists, args))]
    lead = ''
    if len(runs) > 1 and shared_clips(*runs[:2]):
        a, b = runs[:2]
        lead = summary(a, b)
        body += [('Classes and pairs', change_sections(a, b, lists, args.top)),
                 ('Flipped clips', flips_section(a, b, lists, args, notes))]
    elif len(runs) > 1:
        faults.append(f'{runs[0].method.path} and {runs[1].method.path} have no clip in common')
    anchors = {'Classes and pairs': 'classes', 'Flipped clips': 'flips'}
    links = [element('li', element('a', title, href='#' + anchors.get(title, title.lower())))
             for title, content in body if content]
    missing = element('aside', element('h2', 'Missing'), element('ul', *(
        element('li', note) for note in faults + notes)), class_='missing') \
        if faults + notes else ''
    name = root.resolve().name
    header = element(
        'header', element('h1', f'What the runs of {name} have reached'),
        paragraph(f'Split {args.split}' + (
            f', {len(lists.classes)} classes, {len(lists.train)} train and {len(lists.test)} '
            'test videos' if lists else ''), class_='muted'),
        lead, missing, element('nav', element('ul', *links), aria_label='Sections'))
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
    look.add_argument('--top', type=int, default=10, metavar='N',
                      help='how many classes and pairs to show (default: 10)')
    look.add_argument('--examples', type=int, default=6, metavar='N',
                      help='clips each way to show frames of, 0 for none (default: 6)')
    look.add_argument('--order', choices=('list', 'similar'), default='similar',
                      help='classes of the matrices as in classInd.txt, or with those side by '
                           'side that are taken for each other (default: similar)')
    args = parser.parse_args()
    if args.top < 1 or args.examples < 0:
        parser.error('--top starts at 1, --examples at 0')
    html, notes, faults = build(args)
    for line in faults + notes:
        print(line, file=sys.stderr)
    write_text(args.root / REPORT, html)
    print(f'wrote {args.root / REPORT} ({len(html) / 1e6:.1f} MB); open it in a browser')
    return 3 if faults else 0


if __name__ == '__main__':
    stage_main(main)
