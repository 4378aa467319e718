"""The learning curve: accuracy by how much was learned from (--train-share), with its spread over
seeds; as rows for a table, as a picture, and as a section of report.py's page.
"""
import json
import math
import statistics
from typing import NamedTuple, Optional

from engine.reporting import tables
from engine.reporting.means import making, recipe
from engine.reporting.page import element, paragraph, section, table
from engine.reporting.resultsfile import is_number
from engine.reporting.svgcharts import legend, line_chart

HEADER = ('run', 'split', 'fold', 'share %', 'groups', 'clips', 'seeds', 'top-1 %', 'deviation',
          '95 % from', 'to', 'validation %')


class Point(NamedTuple):
    """Runs of one recipe and one share that differ in their seeds."""
    share: float
    groups: Optional[float]   # of a class, that were learned from: mean over the seeds
    clips: Optional[float]
    seeds: int
    top1: float               # by video, mean over the seeds
    deviation: Optional[float]       # with n-1 beneath; None of one seed, as the interval
    interval: Optional[tuple]        # 95 % of the mean, by Student's t
    validation: Optional[float]


class Curve(NamedTuple):
    """The points of one recipe, smallest share first."""
    title: str
    split: int
    fold: str
    points: list


def share_of(result):
    """What share of the training groups a run learned from."""
    share = result['settings'].get('train_share', 1.0)
    return share if is_number(share) and 0 < share <= 1 else None


def _made_of_all(result):
    """What `making` tells, but for the share that the frame network learned from."""
    made = making(result)
    network = (made['made_with'] or {}).get('network')
    return {**made, 'made_with': made['made_with'] and {
        **made['made_with'], 'network': {key: value for key, value in network.items()
                                         if key != 'train_share'}}} if isinstance(
        network, dict) else made


def curves(results):
    """The Curves of those recipes of which results (lines of results.jsonl) tell two shares or
    more; a model only tested again is no run of its own."""
    groups = {}
    for result in results:
        if (result['unit'] == 'video' and not result.get('test_only') and share_of(result)
                and is_number(result.get('top1'))):
            plain = recipe({**result, 'settings': {
                key: value for key, value in result['settings'].items() if key != 'train_share'}})
            key = json.dumps([plain, _made_of_all(result), result['split'], result.get('fold'),
                              result['n']], sort_keys=True)
            groups.setdefault(key, {}).setdefault(share_of(result), {})[
                result.get('root'), result.get('seed')] = result
    groups = [shares for shares in groups.values() if len(shares) > 1]
    first = [next(iter(next(iter(shares.values())).values())) for shares in groups]
    differing = tables.differing_settings(first)
    found = []
    for one, settings, shares in zip(first, differing, groups):
        settings.pop('train_share', None)
        title = ' '.join([one['method'], tables.in_words(settings)]).strip()
        found.append(Curve(title, one['split'], one.get('fold') or '', [
            _point(share, list(shares[share].values())) for share in sorted(shares)]))
    return found


def _point(share, runs):
    def mean(key):
        values = [run[key] for run in runs if is_number(run.get(key))]
        return statistics.fmean(values) if values else None
    right, n = [run['top1'] for run in runs], len(runs)
    deviation = interval = None
    if n > 1:
        from scipy.stats import t as student  # a second, which --help need not wait
        deviation = statistics.stdev(right)
        half = student.ppf(0.975, n - 1) * deviation / math.sqrt(n)
        interval = max(0.0, mean('top1') - half), min(1.0, mean('top1') + half)
    return Point(share, mean('train_groups'), mean('train_clips'), n, mean('top1'), deviation,
                 interval, mean('validation_accuracy'))


def rows(found):
    """A row of str for each point of some Curves, under HEADER."""
    def number(value, factor=100):
        return '-' if value is None else f'{factor * value:.1f}'.removesuffix('.0' * (factor == 1))
    return [[curve.title, str(curve.split), curve.fold or '-', f'{100 * point.share:g}',
             number(point.groups, 1), number(point.clips, 1), str(point.seeds),
             number(point.top1), number(point.deviation),
             *map(number, point.interval or (None, None)), number(point.validation)]
            for curve in found for point in curve.points]


def curve_figure(found):
    """Draws Curves into a matplotlib Figure, a bar where there is an interval."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.add_subplot(xlabel='share of the training groups, %',
                              ylabel='video top-1, %')
    for curve in found:
        xs, ys = zip(*((100 * point.share, 100 * point.top1) for point in curve.points))
        bars = [[100 * abs(point.top1 - (point.interval or (point.top1,) * 2)[side])
                 for point in curve.points] for side in (0, 1)]
        axes.errorbar(xs, ys, yerr=bars, marker='.', capsize=3, label=_label(curve))
    axes.set_xlim(0, 102)
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(f'Bars: {BARS}', fontsize='small')
    return figure


BARS = '95 % interval of the mean over seeds (Student)'


def _label(curve):
    least, most = (end(point.seeds for point in curve.points) for end in (min, max))
    seeds = f'{least} seed{"s" * (least > 1)}' if least == most else f'{least} to {most} seeds'
    return (curve.title + f', split {curve.split}' * (curve.split != 1)
            + f', fold {curve.fold}' * bool(curve.fold) + f' ({seeds})')


def learning_section(results):
    """The learning curves on report.py's page; '' where no recipe was run with two shares."""
    found = curves(results)
    if not found:
        return ''
    series = [(_label(curve), number, [100 * point.share for point in curve.points],
               [100 * point.top1 for point in curve.points]) for number, curve in enumerate(found)]
    bars = [(number, 100 * point.share, 100 * point.interval[0], 100 * point.interval[1])
            for number, curve in enumerate(found) for point in curve.points if point.interval]
    words = '; '.join(f'{curve.title} from {100 * curve.points[0].top1:.1f} % at '
                      f'{100 * curve.points[0].share:g} % to {100 * curve.points[-1].top1:.1f} % '
                      f'at {100 * curve.points[-1].share:g} %' for curve in found)
    return section(
        'learning', 'Learning curve',
        paragraph('Video top-1 by the share of the training groups that was learned from, as if no '
                  f'more had been labelled. Bars: {BARS}; where seeds are few they are wide, and '
                  'one seed has none.'),
        element('div', element('figure', line_chart(
            'video top-1', f'Learning curve: {words}.', series, 'share of the training groups, %',
            100, ' %', bars=bars)), class_='grid charts'),
        legend([(number, name) for name, number, *_ in series]),
        table('By share; groups and clips are means over the seeds', list(HEADER), rows(found)))
