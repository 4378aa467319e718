"""Stage 7: looks at what one method confuses, or at what a second one gains over it.

    python confusion.py --root ROOT                     # frames, and the RNN if it has run
    python confusion.py --root ROOT FILE                # one method
    python confusion.py --root ROOT FILE_A FILE_B       # any two: what B gains over A

Reads the lists in ROOT/ucfTrainTestlist and prediction files: one data set
(frames, classes) of softmax a clip, as save_hdf5.py and rnn.py write them.
A FILE is looked for as given, then in ROOT.

Writes to ROOT
    confusion_METHOD.png    row: the true class; column: what the method said
    confusion_METHOD.csv    one line a class: n, right, accuracy, what it is taken for
and for two methods
    gain_A_B.png            the classes that gained and lost most
    confusion_A_B.csv       one line a class: n, right and accuracy of both, change

A class has few test clips (28 to 49 in split 1 of UCF-101), so that a single
clip moves its accuracy by 2 to 4 points: read every change beside its n.
"""
import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from sklearn.metrics import confusion_matrix

from engine.errors import UserError
from engine.files import find_file, replacing
from engine.reporting.predictionfile import read_predictions
from engine.reporting.scoring import video_log_probability
from engine.stage import new_parser as stage_parser, run as stage_main
from engine.variants import TEST_PREDICTIONS, TEST_SUFFIX, maker_of
from helperFunctions import read_lists

RNN_PREDICTIONS = 'RNN' + TEST_SUFFIX
NUMBERS_UP_TO = 16  # classes: a larger matrix has no room for numbers in its cells
INK, MUTED, FAINT = '#1f2933', '#6b7785', '#dfe4ea'
GAINED, LOST = '#2166ac', '#c8553d'  # told apart by colour-blind readers, too
BLUES = LinearSegmentedColormap.from_list(
    'paper to ink', ['#ffffff', '#d6e6f4', '#8fbfe0', '#3f8fc5', '#14599d', '#08284f'])


class Method(NamedTuple):
    """What one method said of each clip it was asked about."""

    name: str
    path: Path
    clips: list    # those of the list that the file holds
    missing: list  # names of those that it lacks
    said: dict     # clip name -> label, int from 0


def read_clips(path, lists, split=1):
    """Reads what a prediction file holds of the lists' clips.

    A file without any test clip is taken as one of validation clips, which are part
    of the train list.

    Returns:
        (clips, missing, found, attrs): the clips that it holds; names of the test clips
        that it lacks; dict clip name -> (frames, classes) float32; the file's attributes.

    Raises:
        UserError: the file was made for other classes or another split, holds no
            clip of the lists, or holds something that is not a probability.
    """
    made_by = maker_of(path, split)
    found, attrs = read_predictions(path, lists.test, lists.classes, made_by)
    clips = [clip for clip in lists.test if clip.name in found]
    missing = [clip.name for clip in lists.test if clip.name not in found]
    if not clips:
        found, attrs = read_predictions(path, lists.train, lists.classes, made_by)
        clips, missing = [clip for clip in lists.train if clip.name in found], []
    if int(attrs.get('split', split)) != split:
        raise UserError(f'{path}: made for split {attrs["split"]}, but the lists read are those '
                        f'of split {split}; add --split {attrs["split"]}')
    if not clips:
        raise UserError(f'{path}: holds no clip of split {split}; made by: {made_by}')
    for clip in clips:
        frames = found[clip.name]
        if not len(frames) or not numpy.isfinite(frames).all():
            raise UserError(f'{path}: {clip.name} holds no frame, or a value that is no '
                            f'probability; make it again: {made_by}')
    return clips, missing, found, attrs


def read_method(path, lists, split=1):
    """Reads a prediction file and decides one label a clip: a Method.

    Frames are joined as the file's own `readout` says.

    Raises:
        UserError: as read_clips.
    """
    clips, missing, found, attrs = read_clips(path, lists, split)
    readout = attrs.get('readout', 'mean')
    said = {clip.name: decide(video_log_probability(found[clip.name], readout), clip.label)
            for clip in clips}
    return Method(str(attrs.get('method', path.stem)), path, clips, missing, said)


def decide(log_probabilities, label):
    """The class with the highest score; a tie is decided against the true class.

    So the share of right clips is to the last clip what helperFunctions.score counts.
    """
    best = numpy.flatnonzero(log_probabilities == log_probabilities.max())
    wrong = best[best != label]
    return int(wrong[0]) if len(wrong) else label


def count(method, clips, n_classes):
    """Counts clips by (true class, said class): (n_classes, n_classes) int64."""
    return confusion_matrix([clip.label for clip in clips],
                            [method.said[clip.name] for clip in clips],
                            labels=range(n_classes))


def class_accuracy(matrix):
    """Share of right clips a class, float64 in 0..1; nan for a class without clips."""
    n = matrix.sum(axis=1)
    return numpy.where(n > 0, matrix.diagonal() / numpy.maximum(n, 1), numpy.nan)


def most_confused(matrix):
    """The most frequent errors: list of (true label, said label, clips), most first.

    Equal counts: the pair that is the larger share of its class comes first.
    """
    n = matrix.sum(axis=1)
    pairs = [(int(i), int(j), int(matrix[i, j])) for i, j in zip(*matrix.nonzero()) if i != j]
    pairs.sort(key=lambda pair: (-pair[2], -pair[2] / n[pair[0]], pair[:2]))
    return pairs


def gains(matrix_a, matrix_b, top=10):
    """Labels that gained most (best first) and that lost most (worst first) from A to B.

    Equal changes: the class with more clips comes first, as it moved by more of them.
    """
    change = class_accuracy(matrix_b) - class_accuracy(matrix_a)
    n = matrix_a.sum(axis=1)

    def ranked(sign):
        labels = [int(i) for i in numpy.flatnonzero(sign * numpy.nan_to_num(change) > 0)]
        labels.sort(key=lambda i: (round(-sign * change[i], 9), -n[i], i))
        return labels[:top]
    return ranked(+1), ranked(-1)


# Figures

def similar_order(matrix):
    """Orders labels so that classes taken for each other stand side by side."""
    share = matrix / numpy.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distance = 1 - numpy.minimum(share + share.T, 1)
    numpy.fill_diagonal(distance, 0)
    distance = squareform(distance, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(distance, 'average'), distance))


def labels_to_draw(matrix, order='list'):
    """Labels of the classes that are shown or said, in the order asked for."""
    met = numpy.flatnonzero(matrix.sum(axis=1) + matrix.sum(axis=0))
    if order == 'similar' and len(met) > 2:
        met = met[similar_order(matrix[numpy.ix_(met, met)])]
    return met


def draw_confusion(path, matrix, classes, title, order='list'):
    """Draws the row-normalised matrix as PNG; arguments as confusion_figure."""
    save(confusion_figure(matrix, classes, title, order), path)


def confusion_figure(matrix, classes, title, order='list'):
    """Draws the row-normalised matrix as a matplotlib Figure.

    Args:
        matrix: (n_classes, n_classes) int, rows the true class.
        order: 'list' (as in classInd.txt), 'similar', or the labels to draw in their order.
            Only the last draws classes that are neither shown nor said.
    """
    labels = labels_to_draw(matrix, order) if isinstance(order, str) else order
    matrix, classes = matrix[numpy.ix_(labels, labels)], [classes[i] for i in labels]
    n, size = matrix.sum(axis=1), len(classes)
    share = matrix / numpy.maximum(n, 1)[:, None]
    small = size <= NUMBERS_UP_TO

    cell, letters, heading = (0.86, 10.5, 14) if small else (0.165, 8.4, 22)
    # In inches. A letter is about 0.6 of its height wide; names on the left carry "(n)",
    # upright ones below do not, and slanted ones take less height than width.
    names = max(map(len, classes)) * letters / 72 * 0.6 + 0.2
    left, bottom = names + 0.7, names * (0.75 if size <= 6 else 1) + 0.3
    right, top = (0.4, 1.0) if small else (names + 0.7, names + 1.1)
    side = cell * size
    width, height = max(left + side + right, len(title) * heading / 72 * 0.66), top + side + bottom
    figure = Figure(figsize=(width, height), facecolor='white')
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    # The square root makes one clip in forty visible beside a full diagonal.
    image = axes.imshow(share, cmap=BLUES, norm=PowerNorm(0.5, 0, 1), interpolation='nearest')

    ticks = range(size)
    axes.set_yticks(ticks, [f'{name}  ({k})' for name, k in zip(classes, n)], fontsize=letters)
    if size <= 6:
        axes.set_xticks(ticks, classes, fontsize=letters, rotation=35, ha='right',
                        rotation_mode='anchor')
    else:
        axes.set_xticks(ticks, classes, fontsize=letters, rotation=90)
    axes.tick_params(length=0, pad=4, colors=INK)
    edges = numpy.arange(size + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.tick_params(which='minor', length=0)
    axes.grid(which='minor', color=FAINT, linewidth=0.8 if small else 0.5)
    for spine in axes.spines.values():
        spine.set(color=MUTED, linewidth=0.8)

    if small:
        for i, j in numpy.argwhere(matrix):
            colour = 'white' if share[i, j] > 0.3 else INK
            axes.text(j, i - 0.06, f'{100 * share[i, j]:.0f}', ha='center', va='center',
                      fontsize=13, color=colour)
            axes.text(j, i + 0.28, f'{matrix[i, j]} of {n[i]}', ha='center', va='center',
                      fontsize=7.5, color=colour, alpha=0.85)
        note = 'row: true class (clips)   column: prediction   cell: % of the row'
    else:
        # Names on all four sides: the eye need not cross a hundred cells.
        above, beside = axes.secondary_xaxis('top'), axes.secondary_yaxis('right')
        above.set_xticks(ticks, classes, fontsize=letters, rotation=90)
        beside.set_yticks(ticks, classes, fontsize=letters)
        above.tick_params(length=0, pad=4, colors=INK)
        beside.tick_params(length=0, pad=36, colors=INK)
        for i, accuracy in enumerate(class_accuracy(matrix)):
            axes.annotate('-' if numpy.isnan(accuracy) else f'{100 * accuracy:.0f} %',
                          (size - 0.5, i), xytext=(31, 0), textcoords='offset points',
                          ha='right', va='center', fontsize=letters, color=MUTED)
        note = 'row: true class (clips)   column: prediction   right: % of the class right'
        bar = figure.add_axes(((left + side - 3.6) / width, (height - 0.68) / height,
                               3.6 / width, 0.18 / height))
        scale = figure.colorbar(image, cax=bar, orientation='horizontal')
        scale.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=['0', '5', '20', '50', '100 % of row'])
        scale.ax.tick_params(labelsize=10, colors=MUTED, length=2)
        scale.outline.set_visible(False)
    figure.text(0.3 / width, 1 - 0.42 / height, title, fontsize=heading, color=INK,
                weight='bold', va='center')
    figure.text(0.3 / width, 1 - (0.72 if small else 0.82) / height, note,
                fontsize=heading * 0.66, color=MUTED, va='center')
    return figure


def draw_gain(path, labels, matrix_a, matrix_b, classes, names, title):
    """Draws the change of each label's accuracy as horizontal bars, in the order given."""
    accuracy_a, accuracy_b = class_accuracy(matrix_a), class_accuracy(matrix_b)
    n = matrix_a.sum(axis=1)[labels]
    change = 100 * (accuracy_b - accuracy_a)[labels]
    rows = numpy.arange(len(labels))
    longest = max(len(classes[i]) for i in labels)
    margin = 0.5 + 0.095 * (longest + 9)
    plot, bar = 6.6, 0.33
    width = max(margin + plot + 1.5, 0.3 + len(title) * 0.128)
    height = 1.05 + bar * len(labels) + 0.75
    figure = Figure(figsize=(width, height), facecolor='white')
    axes = figure.add_axes((margin / width, 0.75 / height, plot / width,
                            bar * len(labels) / height))
    # The yardstick: what one clip is worth in this class.
    one = 100 / n
    axes.barh(rows, 2 * one, left=-one, height=0.92, color='#eceff3', zorder=1)
    axes.barh(rows, change, height=0.62, zorder=3,
              color=[GAINED if value > 0 else LOST for value in change])
    axes.axvline(0, color=INK, linewidth=0.9, zorder=4)
    # Room for the figure behind the longest bar; no empty half where nothing is lost.
    reach = 1.2 * max(numpy.abs(change).max(), one.max())
    least = min(reach, 1.2 * one.max())
    axes.set_xlim(-reach if change.min() < 0 else -least, reach if change.max() > 0 else least)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for row, value in zip(rows, change):
        text = f'{value:+.1f}'.replace('-', '\u2212') if value else '0'
        axes.annotate(text, (value, row), xytext=(4 if value >= 0 else -4, 0),
                      textcoords='offset points', ha='left' if value >= 0 else 'right',
                      va='center', fontsize=9.5, color=INK, zorder=5)
    axes.set_yticks(rows, [f'{classes[i]}  ({k})' for i, k in zip(labels, n)], fontsize=10)
    mirror = axes.secondary_yaxis('right')
    mirror.set_yticks(rows, [f'{100 * accuracy_a[i]:.0f} \u2192 {100 * accuracy_b[i]:.0f} %'
                             for i in labels], fontsize=9.5)
    axes.grid(axis='x', color=FAINT, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    mirror.tick_params(length=0, pad=10, colors=MUTED)
    mirror.spines['right'].set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel('change of the class accuracy, percentage points', fontsize=10, color=MUTED)
    left = 0.3 / width
    figure.text(left, 1 - 0.38 / height, title, fontsize=14, color=INK, weight='bold',
                va='center')
    figure.text(left, 1 - 0.70 / height,
                f'class (clips)   right: {names[0]} \u2192 {names[1]}   '
                'grey band: one clip, 100/n points', fontsize=9.5, color=MUTED, va='center')
    save(figure, path)


def save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', dpi=130)


# Tables

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


def first_few(names, few=3):
    return ', '.join(names[:few]) + (' ...' if len(names) > few else '')


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
              ['class', 'n', 'right', 'accuracy_percent', 'most_taken_for', 'clips_taken_for'],
              [[class_name, n[i], matrix[i, i], percent(accuracy[i]),
                *taken_for.get(i, ('', 0))] for i, class_name in enumerate(lists.classes)])
    draw_confusion(args.root / (name + '.png'), matrix, lists.classes,
                   f'{method.name}: {100 * right / total:.1f} % of {total} videos right, '
                   f'split {args.split}', args.order)
    print(f'  wrote {args.root / name}.png and .csv\n')


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
    if shown:
        draw_gain(chart, shown, matrix_a, matrix_b, lists.classes, (a.name, b.name), title)
    print(f'wrote {f"{chart} and " if shown else ""}{table}')


def main():
    parser = stage_parser(__doc__)
    parser.add_argument('files', nargs='*', type=Path, metavar='FILE',
                        help=f'one or two prediction files (default: {TEST_PREDICTIONS} and, '
                             f'if it is there, {RNN_PREDICTIONS})')
    look = parser.add_argument_group('look')
    look.add_argument('--top', type=int, default=10, metavar='N',
                      help='how many pairs and classes to show (default: 10)')
    look.add_argument('--order', choices=('list', 'similar'), default='list',
                      help='classes of the matrix as in classInd.txt, or with those side by '
                           'side that are taken for each other (default: list)')
    args = parser.parse_args()
    if len(args.files) > 2:
        parser.error('one or two prediction files, please')
    if args.top < 1:
        parser.error('--top starts at 1')
    paths = [find_file(name, args.root) for name in args.files]
    if not paths:
        paths = [args.root / TEST_PREDICTIONS]
        if (args.root / RNN_PREDICTIONS).exists():
            paths.append(args.root / RNN_PREDICTIONS)
    lists = read_lists(args.root, args.split)
    methods = [read_method(path, lists, args.split) for path in paths]
    if len({method.name for method in methods}) < len(methods):
        # Two runs of one method: the names of their files tell them apart.
        methods = [method._replace(name=method.path.stem) for method in methods]
    for method in methods:
        report_method(method, lists, args)
    if len(methods) == 2:
        report_gain(*methods, lists, args)


if __name__ == '__main__':
    stage_main(main)
