"""Section of report.py's page on features: where test clips lie, beside which training clips."""
import os
import struct

import numpy

from engine.drawing import plotstyle
from engine.drawing.plotstyle import FAINT, INK, MUTED
from engine.errors import UserError
from engine.hdf5 import data_set, open_hdf5, read
from engine.reporting.page import element, paragraph, picture, section, table

LARGE, FEW = 2 ** 30, 16  # bytes of a file, of whose clips only so many frames are read
MOST_FOR_TSNE = 1500      # clips; it ends in seconds
MARKS = 'osD^vP*X<>'      # classes are told apart by colour and by mark


def mean_features(path, clips, made_by):
    """The mean over its frames of each clip's features.

    Returns:
        (clips that the file holds, (n, D) float64).

    Raises:
        UserError: the file is not there, or a clip in it cannot be read.
    """
    found, means = [], []
    with open_hdf5(path, made_by) as f:
        large = os.path.getsize(path) > LARGE
        for clip in clips:
            data = data_set(f, clip.name, made_by)
            if data is not None and len(data):
                step = max(1, len(data) // FEW) if large else 1
                found.append(clip)
                means.append(read(f, clip.name, made_by, slice(None, None, step)).mean(
                    axis=0, dtype=numpy.float64))
    means = numpy.array(means)
    if not numpy.isfinite(means).all():
        raise UserError(f'{path}: holds a number that is not finite; make it again: {made_by}')
    return found, means


def layouts(features):
    """Two axes for (n, D) features, n from 3: {what they are: (n, 2)}."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    pca = PCA(min(50, *features.shape), random_state=0)
    with numpy.errstate(invalid='ignore'):  # of features that are all alike
        axes = pca.fit_transform(features)
    first = numpy.zeros((len(features), 2))
    first[:, :min(2, axes.shape[1])] = axes[:, :2]
    share = 100 * numpy.nan_to_num(pca.explained_variance_ratio_[:2]).sum()
    found = {f'PCA: {share:.0f} % of the variance': first}
    if 10 <= len(features) <= MOST_FOR_TSNE:
        found['t-SNE: who is near whom'] = TSNE(
            perplexity=min(30, (len(features) - 1) / 3), init='random', random_state=0
        ).fit_transform(axes)
    return found


def nearest(features, others, most=3):
    """(n, k) places of the k nearest `others` (m, D) of each of (n, D) features, nearest first."""
    from sklearn.neighbors import NearestNeighbors
    search = NearestNeighbors(n_neighbors=min(most, len(others))).fit(others)
    return search.kneighbors(features, return_distance=False)


def map_figure(maps, labels, wrong, classes):
    """Draws the maps of `layouts` side by side.

    Args:
        labels: (n,) int; wrong: (n,) bool, ringed; classes: names of all classes.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    shown = numpy.unique(labels)
    colours = matplotlib.colormaps['hsv'](numpy.linspace(0, 0.94, len(shown)) % 1)
    colours[:, :3] *= 0.8  # yellow and cyan would be too faint on white
    few = len(shown) <= 20  # in a legend; the names of more stand amid their marks
    figure = Figure(figsize=(6.4 * len(maps), 6.4), facecolor='white', layout='constrained')
    for axes, (name, points) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items()):
        for number, label in enumerate(shown):
            of_class = labels == label
            axes.scatter(*points[of_class].T, s=26, color=colours[number], linewidths=0,
                         marker=MARKS[number % len(MARKS)], alpha=0.8, label=classes[label])
        axes.scatter(*points[wrong].T, s=95, facecolors='none', edgecolors=INK, linewidths=1.1)
        for label in () if few else shown:
            axes.text(*numpy.median(points[labels == label], axis=0), classes[label], fontsize=6,
                      color=INK, ha='center', va='center',
                      path_effects=[withStroke(linewidth=2.5, foreground='white')])
        axes.set_title(name, fontsize=11, color=INK)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=FAINT)
    if few:
        figure.legend(*axes.get_legend_handles_labels(), loc='outside right upper', fontsize=9,
                      frameon=False)
    figure.supxlabel('a mark: a test clip, coloured by the class it shows; a ring: named wrong',
                     fontsize=10, color=MUTED)
    return figure


def map_section(run, root, names, lists, made_by, top, notes):
    """The map of the test clips, and the training clips nearest to those named wrong.

    Args:
        names (variants.Names): whose features the run saw.
        made_by: the command that makes their files.
    """
    try:
        train, of_train = mean_features(root / names.train, lists.train, made_by)
        test, of_test = mean_features(root / names.test, run.method.clips, made_by)
    except UserError as error:
        notes.append(f'no map of features: {error}')
        return ''
    if len(test) < 3 or not train or of_train.shape[1:] != of_test.shape[1:]:
        notes.append(f'no map of features: {root / names.train} and {root / names.test} hold too '
                     'few clips, or features of other lengths')
        return ''
    deviation = of_train.std(axis=0)
    deviation[deviation == 0] = 1
    of_train, of_test = ((features - of_train.mean(axis=0)) / deviation
                         for features in (of_train, of_test))
    wrong = numpy.array([run.method.said[clip.name] != clip.label for clip in test])
    try:
        data = plotstyle.as_png(map_figure, layouts(of_test), numpy.array([c.label for c in test]),
                            wrong, lists.classes, dpi=100)
    except UserError as error:
        notes.append(f'map of features: {error}')
        return ''
    width, height = struct.unpack('>II', data[16:24])
    return section(
        'features', 'Features: where the clips lie',
        paragraph('Each test clip by the mean of its features over time, in deviations of the '
                  'training clips\u2019 means: what can be told without order. Clips of one class '
                  'that lie together are easy; a ring among others\u2019 marks looks like those '
                  f'to the network. Rings: the {wrong.sum()} of {len(test)} test videos that '
                  f'{run.title} names wrong.'),
        element('div', picture(data, 'png', f'Map of {len(test)} test clips by their mean '
                               f'features, {wrong.sum()} of them named wrong by {run.title}.',
                               width=width, height=height), class_='picture'),
        neighbours_of_wrong(run, test, of_test, train, of_train, wrong, lists.classes, top))


def neighbours_of_wrong(run, test, of_test, train, of_train, wrong, classes, top):
    """The table of clips named wrong, the surest first, with their nearest training clips."""
    places = numpy.flatnonzero(wrong)
    if not len(places):
        return ''
    beside = nearest(of_test[places], of_train)
    said = [run.method.said[test[place].name] for place in places]
    sure = [run.probability[test[place].name][label] for place, label in zip(places, said)]
    as_said = sum(train[near[0]].label == label for near, label in zip(beside, said))
    as_shown = sum(train[near[0]].label == test[place].label for near, place in zip(beside, places))
    rows = [[test[places[i]].name, test[places[i]].class_name,
             f'{classes[said[i]]} ({100 * sure[i]:.0f}\u00a0%)',
             ', '.join(f'{train[k].name} ({train[k].class_name})' for k in beside[i])]
            for i in sorted(range(len(places)), key=lambda i: -sure[i])[:top]]
    return element(
        'div', paragraph(
            f'Of the {len(places)} named wrong, {as_said} have as nearest training clip one of the '
            f'class named and {as_shown} one of the class shown: where the first are many the '
            'features mislead, where the second are, the network behind them does.'),
        table(f'The {len(rows)} surest of the {len(places)} videos that {run.title} names wrong',
              ['video', 'shows', 'named (how sure)', 'nearest training clips'], rows,
              words=('shows', 'named (how sure)'), long=('nearest training clips',)))
