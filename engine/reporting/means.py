"""Runs that differ in their seed, their split or their fold alone, joined: mean and deviation."""
import json
import re
import statistics

from engine.reporting.resultsfile import is_number
from engine.reporting.scoring import BALANCED, TOP_K
from engine.reporting.tables import in_words

AVERAGED = ([f'top{k}' for k in TOP_K] + [*BALANCED, 'loss', 'seconds', 'epochs']
            + ['ece', 'ece_calibrated', 'temperature']
            + ['train_loss', 'train_accuracy', 'validation_loss', 'validation_accuracy'])
# What a line tells of a run's making besides its settings. Runs that differ in it are never joined,
# not even one that tells with an older one that does not.
MAKING = ('made_with', 'classes', 'lists', 'n_classes')


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
    return {'method': result['method'], 'settings': settings,
            'members': _without_making(result.get('members'))}


def _without_making(members):
    return members and [{**{key: value for key, value in one.items() if key != 'made_with'},
                         'members': _without_making(one.get('members'))}
                        if isinstance(one, dict) else one for one in members]


def as_member(result):
    """What the line of a combined run tells of one of those combined."""
    told = result.get('made_with')
    return {**recipe(result), 'members': result.get('members'),
            **({'made_with': told} if told else {})}


def making(result):
    """{what: value} of all that a line tells of a run's making besides its recipe, that of its
    members too; None where it does not tell."""
    found = {key: result.get(key) or None for key in MAKING}
    for number, one in enumerate(result.get('members') or (), 1):
        if isinstance(one, dict):
            found.update((f'member {number} {key}', value) for key, value in making(one).items()
                         if 'made_with' in key)
    return found


def settings_key(result):
    """Equal for two runs of one recipe on the same clips, as far as settings tell.

    A model only tested again (rnn.py --test-only) is no run of its own to average over.
    """
    return json.dumps([recipe(result), *(result[key] for key in ('unit', 'split', 'n')),
                       result.get('fold'), bool(result.get('test_only'))], sort_keys=True)


def differences(*made):
    """Words for what dicts, of `making` or of settings, differ in: ['step=1 against step=4']."""
    keys = dict.fromkeys(key for one in made for key in one)
    untold = {key for key in keys if key.endswith('made_with')
              and None in (told := [one.get(key) for one in made]) and any(told)}
    flat = [_flat({key: value for key, value in one.items() if key not in untold})
            for one in made]
    words = ['a line does not tell how its features were made'] * bool(untold)
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [json.dumps(one.get(key), sort_keys=True) for one in flat]
        if len(set(values)) == 1 or key == 'lists' and 'other classes' in words:
            continue
        if key in ('classes', 'lists'):
            words.append(f'other {key}' + ', or an older line does not tell which'
                         * (None in [one.get(key) for one in flat]))
        else:
            words.append(' against '.join(dict.fromkeys(
                in_words({key: one[key]}) if one.get(key) is not None else f'no {key} told'
                for one in flat)))
    return words


def _flat(told):
    """{'made_with': {'step': 1}} -> {'step': 1}; what is not told at all is left out."""
    flat = {}
    for key, value in told.items():
        if isinstance(value, dict):
            flat.update(_flat(value))
        elif not (key.endswith('made_with') and value is None):
            flat[key] = value
    return flat


def mean_over_seeds(results):
    """Joins runs that differ in their seed alone.

    A seed run twice in one root counts once, with its last line. Figures of a joined run are
    (mean, deviation); the deviation has n-1 beneath and is None for one run. `alike` is equal in
    those that were not joined, though their settings are the same.
    """
    groups = {}
    for key, result in _told_last(results):
        groups.setdefault((key, json.dumps(making(result), sort_keys=True)), {})[
            result.get('root'), result.get('seed')] = result
    joined = []
    for (key, _), group in groups.items():
        runs = list(group.values())
        one = {**runs[-1], 'seed': ','.join(str(seed) for _, seed in group), 'runs': len(runs),
               'roots': list(dict.fromkeys(root for root, _ in group)),
               'features': _features_of(runs), 'mixed': _several_features(group),
               'test_clips': _test_clips_of(runs), 'alike': key}
        if len(runs) > 1:  # no one file's name, no one run's weights
            one['settings'] = recipe(one)['settings']
        for key in AVERAGED:
            values = [run[key] for run in runs if is_number(run.get(key))]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            one[key] = (statistics.fmean(values), deviation) if values else None
        joined.append(one)
    return joined


def _told_last(results):
    """[(settings_key, result)] but for lines of earlier code on a run that a later line tells of
    again, and of its making."""
    kept, seen = [], {}
    for result in reversed(results):
        key, made = settings_key(result), making(result)
        later = seen.setdefault((key, result.get('root'), result.get('seed')), [])
        if made in later or not any(all(value in (None, other.get(of)) for of, value in
                                        made.items()) for other in later):
            kept.append((key, result))
        later.append(made)
    return kept[::-1]


def lines_about_apart(results):
    """Lines that say which rows of a table of means are kept apart though their settings are the
    same, and by what."""
    alike = {}
    for number, one in enumerate(results, 1):
        alike.setdefault(one['alike'], []).append((number, one))
    for rows in alike.values():
        if len(rows) > 1:
            numbers, ones = zip(*rows)
            differ = differences(*map(making, ones)) or [
                ' against '.join(dict.fromkeys(f'n={one["n"]}' for one in ones))]
            yield (f'runs {ranges(numbers)} of {ones[0]["method"]} are not joined, as they were '
                   f'made otherwise: {"; ".join(differ)}')


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
            for parts in _parts(results, lambda one: one['split'],
                                {'split': 0, 'n': 0, 'lists': None})]


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

    Where there are several of a part, made otherwise than one another, each of these stays alone.

    Args:
        part_of: function of such a mean that tells its part, the split or fold.
        common: what is to be taken as equal in all parts, and their values.
        also: function that tells what parts must have in common besides their recipe.
    """
    groups = {}
    for one in mean_over_seeds(results):
        same = {**one, **common}
        one['alike'] = settings_key(same), also(one)
        key = one['alike'], json.dumps(making(same), sort_keys=True)
        groups.setdefault(key, {}).setdefault(part_of(one), []).append(one)
    for group in groups.values():
        if whole := {part: ones[0] for part, ones in group.items() if len(ones) == 1}:
            yield whole
        for part, ones in group.items():
            yield from ({part: one} for one in ones if len(ones) > 1)


def _join(parts, **told):
    """One run of {part: run}, each a mean over seeds; `told` is what it says in their place."""
    runs = [parts[part] for part in sorted(parts)]
    one = {**runs[-1], 'runs': sum(run['runs'] for run in runs), **told,
           'roots': list(dict.fromkeys(root for run in runs for root in run['roots'])),
           'features': _features_of(runs), 'test_clips': _test_clips_of(runs),
           'mixed': next((run['mixed'] for run in runs if run['mixed']), {}),
           'seed': ','.join(dict.fromkeys(seed for run in runs for seed in run['seed'].split(',')))}
    if len(runs) > 1:  # no one part's files, no one part's weights
        one['settings'] = recipe(one)['settings']
    for key in AVERAGED:
        values = [run[key][0] for run in runs if run.get(key)]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        one[key] = (statistics.fmean(values), deviation) if values else None
    return one
