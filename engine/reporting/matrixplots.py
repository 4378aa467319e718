"""Confusion matrices and gains, drawn; engine/drawing/plotstyle.py turns the Figures into PNG."""
import numpy

from engine.drawing.plotstyle import FAINT, GAINED, INK, LOST, MUTED, shares_map, width_of
from engine.reporting.matrices import class_accuracy, labels_to_draw

NUMBERS_UP_TO = 16  # classes: a larger matrix has no room for numbers in its cells


def confusion_figure(matrix, classes, title, order='list'):
    """Draws the row-normalised matrix as a matplotlib Figure.

    Args:
        matrix: (n_classes, n_classes) int, rows the true class.
        order: 'list' (as in classInd.txt), 'similar', or the labels to draw in their order.
            Only the last draws classes that are neither shown nor said.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    labels = labels_to_draw(matrix, order) if isinstance(order, str) else order
    matrix, classes = matrix[numpy.ix_(labels, labels)], [classes[i] for i in labels]
    n, size = matrix.sum(axis=1), len(classes)
    share = matrix / numpy.maximum(n, 1)[:, None]
    small = size <= NUMBERS_UP_TO

    cell, letters, heading = (0.86, 10.5, 14) if small else (0.165, 8.4, 22)
    # In inches. A letter is about 0.6 of its height wide; names on the left carry "(n)",
    # upright ones below do not, and slanted ones take less height than width.
    names = max(map(width_of, classes)) * letters / 72 * 0.6 + 0.2
    left, bottom = names + 0.7, names * (0.75 if size <= 6 else 1) + 0.3
    right, top = (0.4, 1.0) if small else (names + 0.7, names + 1.1)
    side = cell * size
    width = max(left + side + right, width_of(title) * heading / 72 * 0.66)
    height = top + side + bottom
    figure = Figure(figsize=(width, height), facecolor='white')
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    # The square root makes one clip in forty visible beside a full diagonal.
    image = axes.imshow(share, cmap=shares_map(), norm=PowerNorm(0.5, 0, 1),
                        interpolation='nearest')
    _name_cells(axes, classes, n, letters)
    if small:
        _number_cells(axes, matrix, share, n)
        note = 'row: true class (clips)   column: prediction   cell: % of the row'
    else:
        _name_far_sides(axes, classes, class_accuracy(matrix), letters)
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


def _name_cells(axes, classes, n, letters):
    """Classes on the left, with their clips, and below; rules between the cells."""
    size = len(classes)
    axes.set_yticks(range(size), [f'{name}  ({k})' for name, k in zip(classes, n)],
                    fontsize=letters)
    slanted = {'rotation': 35, 'ha': 'right', 'rotation_mode': 'anchor'}
    axes.set_xticks(range(size), classes, fontsize=letters,
                    **slanted if size <= 6 else {'rotation': 90})
    axes.tick_params(length=0, pad=4, colors=INK)
    edges = numpy.arange(size + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.tick_params(which='minor', length=0)
    axes.grid(which='minor', color=FAINT, linewidth=0.8 if size <= NUMBERS_UP_TO else 0.5)
    for spine in axes.spines.values():
        spine.set(color=MUTED, linewidth=0.8)


def _number_cells(axes, matrix, share, n):
    for i, j in numpy.argwhere(matrix):
        colour = 'white' if share[i, j] > 0.3 else INK
        axes.text(j, i - 0.06, f'{100 * share[i, j]:.0f}', ha='center', va='center',
                  fontsize=13, color=colour)
        axes.text(j, i + 0.28, f'{matrix[i, j]} of {n[i]}', ha='center', va='center',
                  fontsize=7.5, color=colour, alpha=0.85)


def _name_far_sides(axes, classes, accuracies, letters):
    """Names on all four sides: the eye need not cross a hundred cells."""
    size = len(classes)
    above, beside = axes.secondary_xaxis('top'), axes.secondary_yaxis('right')
    above.set_xticks(range(size), classes, fontsize=letters, rotation=90)
    beside.set_yticks(range(size), classes, fontsize=letters)
    above.tick_params(length=0, pad=4, colors=INK)
    beside.tick_params(length=0, pad=36, colors=INK)
    for i, accuracy in enumerate(accuracies):
        axes.annotate('-' if numpy.isnan(accuracy) else f'{100 * accuracy:.0f} %',
                      (size - 0.5, i), xytext=(31, 0), textcoords='offset points',
                      ha='right', va='center', fontsize=letters, color=MUTED)


def gain_figure(labels, matrix_a, matrix_b, classes, names, title):
    """Draws the change of each label's accuracy as horizontal bars, in the order given."""
    from matplotlib.figure import Figure
    accuracy_a, accuracy_b = class_accuracy(matrix_a), class_accuracy(matrix_b)
    n = matrix_a.sum(axis=1)[labels]
    change = 100 * (accuracy_b - accuracy_a)[labels]
    rows = numpy.arange(len(labels))
    longest = max(width_of(classes[i]) for i in labels)
    margin = 0.5 + 0.095 * (longest + 9)
    plot, bar = 6.6, 0.33
    width = max(margin + plot + 1.5, 0.3 + width_of(title) * 0.128)
    height = 1.05 + bar * len(labels) + 0.75
    figure = Figure(figsize=(width, height), facecolor='white')
    axes = figure.add_axes((margin / width, 0.75 / height, plot / width,
                            bar * len(labels) / height))
    _draw_bars(axes, rows, change, 100 / n)
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
    return figure


def _draw_bars(axes, rows, change, one):
    """Bars of the changes over the yardstick: what one clip is worth in each class."""
    axes.barh(rows, 2 * one, left=-one, height=0.92, color='#eceff3', zorder=1)
    axes.barh(rows, change, height=0.62, zorder=3,
              color=[GAINED if value > 0 else LOST for value in change])
    axes.axvline(0, color=INK, linewidth=0.9, zorder=4)
    # Room for the figure behind the longest bar; no empty half where nothing is lost.
    reach = 1.2 * max(numpy.abs(change).max(), one.max())
    least = min(reach, 1.2 * one.max())
    axes.set_xlim(-reach if change.min() < 0 else -least, reach if change.max() > 0 else least)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for row, value in zip(rows, change):
        text = f'{value:+.1f}'.replace('-', '\u2212') if value else '0'
        axes.annotate(text, (value, row), xytext=(4 if value >= 0 else -4, 0),
                      textcoords='offset points', ha='left' if value >= 0 else 'right',
                      va='center', fontsize=9.5, color=INK, zorder=5)
