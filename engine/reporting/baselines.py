"""Runs that see no order: what a model of time has to beat before it has learned from time."""
import math
import re
import shlex

from engine.errors import UserError
from engine.reporting import scoring
from engine.reporting.resultsfile import RESULTS, is_number, line_of, read_results
from engine.reporting.tables import in_words
from engine.variants import TEST_SUFFIX, Names, place, split_fold
from engine.weights.card import read_card, same_in_cards

BASELINES = ('mean', 'linear')  # cells of rnn.py: one linear layer, on means of frames or on each
# Settings of a network itself; the others say how it was trained and shown its clips.
OF_NETWORK = ('cell', 'cells', 'layers', 'hidden', 'batch_norm', 'recurrent_dropout', 'window',
              'loss_weights')
NO_ORDER = (*BASELINES, 'conv-pool', 'late-pool')
FEATURES = ('stream', 'fusion', 'layer')  # settings that tell which features a network saw
# Flags of rnn.py that a baseline refuses, with their values.
NOT_OF_BASELINES = re.compile(
    r' --(fc-from-frames|(fc|start-from|name)([ =](?!-)\S+)+)(?= |$)')
# Settings that a line tells of only where they are others than these.
UNTOLD = {'class_weights': 'none', 'balanced_sampling': False, 'keep': 'lowest'}


def sees_order(result):
    """Whether a line of results.jsonl tells of a network of rnn.py that can see order."""
    return (result['unit'] == 'video' and not result.get('test_only')
            and result['settings'].get('cell', 'mean') not in NO_ORDER)


def same_features(result, other):
    """Whether two lines may be of the same features: older ones do not tell of which they are."""
    told = result.get('features'), other.get('features')
    return None in told or told[0] == told[1]


def same_test(result, other):
    """Whether two lines may be of the same test clips: older ones tell of how many alone."""
    told = result.get('test_clips'), other.get('test_clips')
    return result['n'] == other['n'] and (None in told or told[0] == told[1])


def baseline_of(result, results, fits=None):
    """The result of a network without order on the same features and test clips, or None.

    Of several one with the same seed, and of these the one of lowest validation loss, never
    the one that the test clips like best; where these are equal one trained with the same flags.

    Args:
        fits: function of a line that tells whether it may be this one (default: whether it may
            be of the same features and test clips).
    """
    if fits is None:
        def fits(line):
            return same_features(line, result) and same_test(line, result)

    def kind(line):
        share = line['settings'].get('train_share')
        # A run that was joined over seeds may come from several roots.
        return (None if 'runs' in line else line.get('root'), line['split'], line['unit'],
                line.get('fold'), share, share and line.get('seed'),  # which says whose share
                [line['settings'].get(key) for key in (*FEATURES, 'without')])
    # Lines before the last one of a file tell of what it held once.
    last = {(line.get('root'), line['split'], line.get('predictions') or number,
             line['settings'].get('without'))
            if 'runs' not in line else number: line for number, line in enumerate(results)}
    found = [line for line in last.values() if line['settings'].get('cell') in BASELINES
             and not line.get('test_only') and kind(line) == kind(result) and fits(line)]
    return min(reversed(found), default=None, key=lambda line: (
        line.get('seed') != result.get('seed'), mean_of(line.get('validation_loss'), math.inf),
        trained_otherwise(result, line) != ''))


def beside(root, name, split, without=None, earlier=False):
    """The line of a run of rnn.py that has just been tested, {} if none; and that of one without
    order to hold it against, or None.

    Args:
        earlier: the latter may be of features, or of lists, that were here before.
    """
    results, _ = read_results(root / RESULTS)
    mine = line_of(results, root / (name + TEST_SUFFIX), split, without)

    def saw_the_same(line):
        return earlier or same_features(line, mine) and same_test(line, mine) and same_in_cards(
            'features', *(root / f'{str(one.get("predictions")).removesuffix(TEST_SUFFIX)}.model'
                          for one in (mine, line)))
    return mine, baseline_of(mine, results, saw_the_same) if mine else None


def may_be_replaced(root, name, result):
    """Whether there is a model of this name that rnn.py has trained by itself, beside another.

    Raises:
        UserError: there is something that somebody has called so.
    """
    model, predictions = root / f'{name}.model', root / (name + TEST_SUFFIX)
    if model.exists() and 'beside' in read_card(model):
        return True
    for path in (model, predictions):
        if path.exists():
            raise UserError(f'{path}: is not written over, as it was not trained beside another '
                            f'run; give it another name, or: {what_makes_one(result)}')
    return False


def mean_of(value, otherwise=math.nan):
    """A figure of one run, or the mean of one that was joined over seeds."""
    value = value[0] if isinstance(value, tuple) else value
    return value if is_number(value) else otherwise


def what_makes_one(result):
    """A command that trains a run without order on the features of a result.

    With the flags of the run itself where its line tells them: a baseline that was trained
    badly would flatter it.
    """
    given = {key: result['settings'][key] for key in FEATURES if key in result['settings']}
    names = Names(**{key: str(value) for key, value in given.items()})
    split = result['split'] if isinstance(result['split'], int) else 1  # of joined ones each
    command = ' '.join(str(result.get('command')).split())
    if not command.startswith('python rnn.py '):
        command = f'python rnn.py{names.flags()}{place(result["root"], split)}'
    command = NOT_OF_BASELINES.sub('', command)
    share = result['settings'].get('train_share')
    # A name of its own: that of another run's would hold other settings.
    run = split_fold(str(result.get('predictions')).removesuffix(TEST_SUFFIX))[0]
    name = names.of('mean') if run in ('None', names.of('RNN')) else f'{run}-mean'
    return (f'{command} --cell mean --name {shlex.quote(name)}'
            + (f'-share{share}-seed{result.get("seed")}' if share else ''))


def trained_otherwise(result, other):
    """'but that one was trained with epochs=2', of a run without order; '' where it was trained
    as `result` was."""
    ours, theirs = ({**UNTOLD, **line['settings']} for line in (result, other))
    differ = [in_words({key: theirs[key]}) for key in sorted(ours.keys() & theirs.keys())
              if key not in OF_NETWORK and ours[key] != theirs[key]]
    if 'runs' not in result and 'runs' not in other:  # joined ones tell of their last alone
        differ += [in_words({key: other[key]}) for key in ('train_clips', 'train_groups')
                   if is_number(result.get(key)) and is_number(other.get(key))
                   and result[key] != other[key]]
    return f'but that one was trained with {", ".join(differ)}' if differ else ''


def of_others(result, results):
    """' (mean, seed 0, is of other features)', or of other test clips, where only such a run is
    without order; else ''."""
    other = baseline_of(result, results, lambda line: True)
    of = [] if other is None else [what for what, same in (
        ('features', same_features), ('test clips', same_test)) if not same(result, other)]
    return (f' ({other["method"]}, seed {other.get("seed")}, is of other {" and ".join(of)})'
            if of else '')


def what_order_adds(result, other):
    """Words that hold a run that sees order against one on the same features that does not."""
    gain = 100 * (mean_of(result.get('top1')) - mean_of(other.get('top1')))
    line = (f'{other["method"]}, without order:  {scoring.in_words(other)}; what order adds: '
            f'{gain:+.1f} points of top-1')
    differ = trained_otherwise(result, other)
    return line + (f'\n{differ}; with the same flags: {what_makes_one(result)}' if differ else '')


def lines_about_order(results):
    """Lines that hold each run that sees order against one on the same features that does not."""
    lines, lacking = [], {}
    for number, result in enumerate(results, 1):
        if not sees_order(result):
            continue
        other = baseline_of(result, results)
        if other is None:
            lacking[what_makes_one(result)] = of_others(result, results)
            continue
        gain = 100 * (mean_of(result.get('top1')) - mean_of(other.get('top1')))
        place_of_other = next(i for i, line in enumerate(results, 1) if line is other)
        lines.append(f'  {gain:+5.1f}  run {number}, {result["method"]}, over run '
                     f'{place_of_other}, {other["method"]}')
        if differ := trained_otherwise(result, other):
            lines.append(f'         {differ}')
        if (result.get('features') is None) != (other.get('features') is None):
            lines.append('         if on the same features: an older line does not tell on which')
    if lines:
        lines.insert(0, 'What order adds: points of top-1 over a run on the same features that '
                        'sees none')
    lines += [f'no run without order to hold against{but}: {command}'
              for command, but in lacking.items()]
    return lines
