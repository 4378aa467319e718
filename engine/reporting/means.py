"""Runs that differ in their seed or their split alone, joined: mean and deviation."""
import json
import statistics

from engine.reporting.resultsfile import is_number
from engine.reporting.scoring import BALANCED, TOP_K

AVERAGED = ([f'top{k}' for k in TOP_K] + [*BALANCED, 'loss', 'seconds', 'epochs']
            + ['ece', 'ece_calibrated', 'temperature']
            + ['train_loss', 'train_accuracy', 'validation_loss', 'validation_accuracy'])


def recipe(result):
    """What runs of one kind have in common: method, settings, and the recipes of its members.

    Of a combined run (combine.py) the members' recipes say more than the names of their files,
    and weights that were chosen were found, not set.
    """
    settings = dict(result['settings'])
    if settings.get('chosen'):
        settings.pop('weights', None)
    if result.get('members'):
        settings.pop('files', None)
    return {'method': result['method'], 'settings': settings, 'members': result.get('members')}


def settings_key(result):
    """Equal for two runs of one recipe on the same data.

    A model only tested again (rnn.py --test-only) is no run of its own to average over.
    """
    return json.dumps([recipe(result), *(result[key] for key in ('unit', 'split', 'n')),
                       bool(result.get('test_only'))], sort_keys=True)


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
        if len(runs) > 1:  # no one file's name, no one run's weights
            one['settings'] = recipe(one)['settings']
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
