"""Sections of report.py's page on runs: results, loss curves, position, confusion matrices.

Each function returns HTML, or '' where it has nothing to show.
"""
import struct

import numpy

from engine.drawing import plotstyle
from engine.errors import UserError
from engine.reporting import tables
from engine.reporting.svgcharts import legend, line_chart
from engine.reporting.matrices import count, labels_to_draw, most_confused
from engine.reporting.page import element, join, paragraph, percent, picture, section, table
from engine.reporting.matrixplots import confusion_figure
from engine.reporting.resultsfile import is_number
from engine.reporting.runs import (POSITIONS, count_clips, frames_of, predictions_path, read_log,
                                   training_folder, validation_path)
from engine.reporting.significance import bootstrap_interval
from engine.variants import OF_FRAMES, maker_of, place

HEADINGS = {'top1': 'top-1 %', 'top5': 'top-5 %', 'top10': 'top-10 %', 'train': 'train %',
            'macro F1': 'macro F1 %', 'balanced': 'balanced %', 'val': 'validation %',
            'val loss': 'validation loss'}  # for those of results.py


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
                and result['unit'] == 'video' and 'without' not in result['settings']
                and is_number(result.get('top1'))
                and abs(accuracy(run) - result['top1']) < 1e-4]
        if fits:
            clips, said = fits[0].method.clips, fits[0].method.said
            low, high = bootstrap_interval(
                [said[clip.name] == clip.label for clip in clips],
                [(clip.class_name, clip.group) for clip in clips])
            intervals.append(f'{100 * low:.1f} to {100 * high:.1f}')
        else:
            intervals.append('-')
    header, rows = tables.table(results, intervals)
    differing = tables.without_inference(tables.differing_settings(results))
    if any(differing):
        header = header + ['settings that differ']
        rows = [row + [tables.in_words(settings)] for row, settings in zip(rows, differing)]
    notes = 'Compare lines of one unit and one split only.'
    if 'macro F1' in header:
        notes += (' Macro F1 and balanced accuracy are means over classes, kappa is what is right '
                  'beyond chance: a frequent class does not rule them.')
    if any(interval != '-' for interval in intervals):
        notes += (' The interval is a bootstrap over groups: clips of one group show the same '
                  'person in the same place, and stand or fall together.')
    if 'train' in header or 'val' in header:
        notes += (' "Train %" is by step of the training segments, with dropout; "validation %" '
                  'by video of the held-out groups.')
    return section(
        'results', 'Results', paragraph(notes),
        table('Accuracy in percent of n frames, segments or videos, as the column "unit" says',
              [HEADINGS.get(key, key) for key in header], rows, words=tables.LEFT,
              long=('settings that differ',), heads=header.index('method')))


def why_no_curve(root, name, title, line, split):
    """What a note says of a run of which there are predictions, but no losses by epoch; '' of one
    that was only tested again, which has its curve under another name."""
    log, names, command = training_folder(root, name) / 'log', frames_of(name), line.get('command')
    if line.get('test_only'):
        return ''
    if names:
        maker = f'python frameBasedTrain.py{names.flags(*OF_FRAMES)}{place(root, split)}'
    elif command and not str(command).startswith('python rnn.py'):
        return f'no loss curve of {title}: it was made by {command}, which tells no losses by epoch'
    else:
        maker = command or maker_of(predictions_path(root, name), split)
    return (f'no loss curve of {title}: {log}: {"no losses in it" if log.exists() else "not there"}'
            f'; made by: {maker}')


def curve_of(root, name, title, line, split, notes, faults):
    """Loss and accuracy of one training by epoch: two charts and the figures.

    Args:
        line: the result that tells of the run; {} where none does.
    """
    kept = line.get('epoch')  # whose weights are kept
    try:
        log = read_log(root, name)
    except UserError as error:
        faults.append(str(error))
        return ''
    epochs = [epoch.get('epoch', i) for i, epoch in enumerate(log, 1)]
    keys = ('main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy')
    train_loss, loss, train_accuracy, right = [[e.get(key) for e in log] for key in keys]
    if not any(value is not None for value in train_loss + loss):
        if predictions_path(root, name).exists():
            notes += filter(None, [why_no_curve(root, name, title, line, split)])
        return ''
    known = [(value, epoch) for value, epoch in zip(loss, epochs) if value is not None]
    best = min(known) if known else None
    held_out = count_clips(validation_path(root, name))
    n = f'n {held_out} videos of held-out groups' if held_out else 'n not known'
    if frames_of(name):
        units = (f'Train: by frame, with dropout. Validation: by frame, one of each video '
                 f'({n}).')
        kept = None
    else:
        units = ('Train: by segment, every step counted by its weight (loss) or alike '
                 f'(accuracy), with dropout. Validation: by video ({n}).')
        kept = kept if is_number(kept) else best[1] if best else None
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
        [[f'{epoch:g}'] + [tables.figure(a, digits=3), tables.figure(b, digits=3),
                           tables.figure(c, 100), tables.figure(d, 100)]
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


def matrix_section(runs, lists, args, faults):
    """The confusion matrices of all runs, their classes in one and the same order."""
    if not runs:
        return ''
    matrices = [count(run.method, run.method.clips, len(lists.classes))
                for run in runs]
    labels = labels_to_draw(sum(matrices), args.order)
    drawn = []
    for run, matrix in zip(runs, matrices):
        try:
            drawn.append(matrix_figure(run, matrix, lists.classes, labels, args.split))
        except UserError as error:
            faults.append(f'confusion matrix of {run.title}: {error}')
    return section(
        'confusion', 'Confusion matrices',
        paragraph('By video. Row: the class shown; column: the class named; both in the same '
                  'order in every matrix. Tick "full size" to read small names.'),
        element('div', *drawn, class_='grid wide'))


def matrix_figure(run, matrix, classes, labels, split):
    """One confusion matrix as a picture that a tick enlarges."""
    clips = run.method.clips
    right, n = int(matrix.trace()), matrix.sum(axis=1)
    data = plotstyle.as_png(
        confusion_figure, matrix, classes, f'{run.title}: {100 * right / len(clips):.1f} % of '
        f'{len(clips)} videos right, split {split}', labels, dpi=100)
    width, height = struct.unpack('>II', data[16:24])
    most = ', '.join(f'{classes[i]} taken for {classes[j]} ({k} of {n[i]})'
                     for i, j, k in most_confused(matrix)[:3])
    alt = (f'Confusion matrix of {run.title}: {right} of {len(clips)} videos on the diagonal. '
           f'Most confused: {most or "nothing"}.')
    tick = f'zoom-{run.name}'
    return element(
        'figure', element('input', type='checkbox', class_='zoom', id=tick),
        element('label', f'full size: {run.title}', for_=tick),
        element('div', picture(data, 'png', alt, width=width, height=height),
                class_='scroll', tabindex=0, role='region',
                aria_label=f'Confusion matrix of {run.title}'),
        class_='picture')
