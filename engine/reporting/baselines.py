"""Runs that see no order: what a model of time has to beat before it has learned from time."""
import math
import re

from engine.reporting import scoring
from engine.reporting.resultsfile import is_number
from engine.reporting.tables import in_words
from engine.variants import Names, place

BASELINES = ('mean', 'linear')  # cells of rnn.py: one linear layer, on means of frames or on each
# Settings of a network itself; the others say how it was trained and shown its clips.
OF_NETWORK = ('cell', 'cells', 'layers', 'hidden', 'batch_norm', 'recurrent_dropout', 'window',
              'loss_weights')
NO_ORDER = (*BASELINES, 'conv-pool', 'late-pool')
FEATURES = ('stream', 'fusion', 'layer')  # settings that tell which features a network saw
# Flags of rnn.py that a baseline refuses, with their values.
NOT_OF_BASELINES = re.compile(r' --(fc-from-frames|(fc|start-from)([ =](?!-)\S+)+)(?= |$)')
# Settings that a line tells of only where they are others than these.
UNTOLD = {'class_weights': 'none', 'balanced_sampling': False, 'keep': 'lowest'}


def sees_order(result):
    """Whether a line of results.jsonl tells of a network of rnn.py that can see order."""
    return (result['unit'] == 'video' and not result.get('test_only')
            and result['settings'].get('cell', 'mean') not in NO_ORDER)


def baseline_of(result, results, fits=lambda line: True):
    """The result of a network without order on the same features, or None.

    Of several one with the same seed, and of these the one of lowest validation loss, never
    the one that the test clips like best.

    Args:
        fits: function of a line that tells whether it may be this one.
    """
    def features(line):
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
             and not line.get('test_only') and features(line) == features(result) and fits(line)]
    return min(reversed(found), default=None, key=lambda line: (
        line.get('seed') != result.get('seed'), mean_of(line.get('validation_loss'), math.inf)))


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
    return (f'{command} --cell mean --name {names.of("mean")}'
            + (f'-share{share}-seed{result.get("seed")}' if share else ''))


def trained_otherwise(result, other):
    """'but that one was trained with epochs=2', of a run without order; '' where it was trained
    as `result` was."""
    ours, theirs = ({**UNTOLD, **line['settings']} for line in (result, other))
    differ = [in_words({key: theirs[key]}) for key in sorted(ours.keys() & theirs.keys())
              if key not in OF_NETWORK and ours[key] != theirs[key]]
    return f'but that one was trained with {", ".join(differ)}' if differ else ''


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
            lacking[what_makes_one(result)] = None
            continue
        gain = 100 * (mean_of(result.get('top1')) - mean_of(other.get('top1')))
        place_of_other = next(i for i, line in enumerate(results, 1) if line is other)
        lines.append(f'  {gain:+5.1f}  run {number}, {result["method"]}, over run '
                     f'{place_of_other}, {other["method"]}')
        if differ := trained_otherwise(result, other):
            lines.append(f'         {differ}')
    if lines:
        lines.insert(0, 'What order adds: points of top-1 over a run on the same features that '
                        'sees none')
    lines += [f'no run without order to hold against: {command}' for command in lacking]
    return lines
