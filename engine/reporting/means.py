"""Runs that differ in their seed, their split or their fold alone, joined: mean and deviation."""
import json
import re
import statistics

from engine.reporting.resultsfile import is_number
from engine.reporting.scoring import BALANCED, TOP_K

AVERAGED = ([f'top{k}' for k in TOP_K] + [*BALANCED, 'loss', 'seconds', 'epochs']
            + ['ece', 'ece_calibrated', 'temperature']
            + ['train_loss', 'train_accuracy', 'validation_loss', 'validation_accuracy'])


def recipe(result):
    """What runs of one kind have in common: method, settings, and the recipes of its members.

    Of a combined run (combine.py) the members' recipes say more than the names of their files,
    and weights that were chosen, like temperatures, were found, not set.
    """
    settings = dict(result['settings'])
    settings.pop('temperatures', None)
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
                       result.get('fold'), bool(result.get('test_only'))], sort_keys=True)


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
        one = {**runs[-1], 'seed': ','.join(str(seed) for _, seed in group), 'runs': len(runs),
               'features': _features_of(runs), 'mixed': _several_features(group),
               'test_clips': _test_clips_of(runs)}
        if len(runs) > 1:  # no one file's name, no one run's weights
            one['settings'] = recipe(one)['settings']
        for key in AVERAGED:
            values = [run[key] for run in runs if is_number(run.get(key))]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            one[key] = (statistics.fmean(values), deviation) if values else None
        joined.append(one)
    return joined


def _features_of(runs):
    """Of which features joined runs are, each once; None where one does not tell."""
    told = [run.get('features') for run in runs]
    if None in told:
        return None
    return sorted({one for each in told for one in ([each] if isinstance(each, str) else each)})


def _test_clips_of(runs):
    """Which test clips joined runs are of; None where they tell of several, or one of none."""
    told = {run.get('test_clips') for run in runs}
    return told.pop() if len(told) == 1 else None


def _several_features(group):
    """{features: seeds} where runs of one root were made from several; else {}."""
    seeds = {}
    for (root, seed), run in group.items():
        if run.get('features'):
            seeds.setdefault(root, {}).setdefault(run['features'], []).append(str(seed))
    return next((of_root for of_root in seeds.values() if len(of_root) > 1), {})


def lines_about_features(results):
    """Lines that say which means are of runs that saw other features than one another."""
    for number, one in enumerate(results, 1):
        if one.get('mixed'):
            *earlier, last = (','.join(seeds) for seeds in one['mixed'].values())
            yield (f'run {number}, {one["method"]}: a mean over several features of one root: '
                   f'seeds {" and ".join(earlier)} saw others than {last}; train them again')


def mean_over_splits(results):
    """Joins runs that differ in their split (and seed): what papers on UCF-101 report.

    Seeds are averaged within their split first, so that each split counts the same; the
    deviation is that of the splits' means.
    """
    return [_join(parts, split=','.join(map(str, sorted(parts))),
                  n=sum(part['n'] for part in parts.values()))
            for parts in _parts(results, lambda one: one['split'], {'split': 0, 'n': 0})]


def mean_over_folds(results):
    """Joins runs that differ in their fold (and seed): each fold counts the same, as above.

    Runs without folds stay means over seeds.
    """
    joined = []
    for parts in _parts(results, fold_of, {'fold': ''}, also=lambda one: fold_of(one)[1:]):
        numbers, n = sorted(number for number, _ in parts), max(parts)[1]
        joined.append(parts[0, 0] if not n else _join(
            parts, fold=f'{ranges(numbers)}/{n}', missing=sorted(set(range(1, n + 1)) - {*numbers}),
            validation_n=sum(part.get('validation_n') or 0 for part in parts.values())))
    return joined


def fold_of(result):
    """(K, N) of a run of fold K/N; (0, 0) of one that is of no fold."""
    found = re.fullmatch(r'(\d{1,5})/(\d{1,5})', result.get('fold') or '')
    return (int(found[1]), int(found[2])) if found else (0, 0)


def ranges(numbers):
    """[1, 2, 3, 5] -> '1-3,5'."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ','.join(f'{low}-{high}' if high > low else str(low) for low, high in runs)


def _parts(results, part_of, common, also=lambda one: None):
    """Runs that become one: dicts {part: mean over its seeds}.

    Args:
        part_of: function of such a mean that tells its part, the split or fold.
        common: what is to be taken as equal in all parts, and their values.
        also: function that tells what parts must have in common besides their recipe.
    """
    groups = {}
    for one in mean_over_seeds(results):
        key = settings_key({**one, **common}), also(one)
        groups.setdefault(key, {})[part_of(one)] = one
    return groups.values()


def _join(parts, **told):
    """One run of {part: run}, each a mean over seeds; `told` is what it says in their place."""
    runs = [parts[part] for part in sorted(parts)]
    one = {**runs[-1], 'runs': sum(run['runs'] for run in runs), **told,
           'features': _features_of(runs), 'test_clips': _test_clips_of(runs),
           'mixed': next((run['mixed'] for run in runs if run['mixed']), {}),
           'seed': ','.join(dict.fromkeys(seed for run in runs for seed in run['seed'].split(',')))}
    for key in AVERAGED:
        values = [run[key][0] for run in runs if run.get(key)]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        one[key] = (statistics.fmean(values), deviation) if values else None
    return one
