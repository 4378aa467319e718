"""The network without order that rnn.py trains beside one that sees order."""
import re

import pytest

from engine.reporting import baselines
from engine.weights.modelfile import keep_in_card, read_card
from featureSet import lines_of

FLAGS = ('--cells', 4, '--epochs', 1, '--baseline')


def test_it_is_trained_once_with_the_same_flags_and_the_difference_told(packed, run_rnn, capsys):
    run_rnn(packed, *FLAGS, '--lr', 0.01)
    mine, other = lines_of(packed)
    assert (other['method'], other['predictions']) == ('mean', 'baseline_testPredictions.hdf5')
    assert other['settings'] == {**mine['settings'], 'cell': 'mean'}
    out = capsys.readouterr().out
    told = re.search(r'mean, without order:  top-1 ([\d.]+) .*; what order adds: ([-+][\d.]+) '
                     'points', out)
    assert float(told[1]) == pytest.approx(other['top1'], abs=5e-4)
    assert float(told[2]) == pytest.approx(100 * (mine['top1'] - other['top1']), abs=0.05)
    # Another run on these features is held against the same one.
    run_rnn(packed, *FLAGS, '--name', 'other', '--seed', 1)
    assert [line['method'] for line in lines_of(packed)] == ['LSTM 1x4', 'mean', 'LSTM 1x4']
    assert 'mean, without order:' in capsys.readouterr().out
    # One that sees no order wants none, and of other features, shares or folds another one.
    run_rnn(packed, '--cell', 'linear', '--epochs', 1, '--baseline', '--name', 'linear')
    assert 'without order' not in capsys.readouterr().out
    few = {**mine, 'settings': {**mine['settings'], 'train_share': 0.5}}
    assert baselines.baseline_of(few, [other]) is None
    assert baselines.baseline_of({**mine, 'fold': '1/2'}, [other]) is None
    assert baselines.baseline_of({**mine, 'seed': 7}, [other]) is other


def test_none_where_it_is_not_wanted_and_what_goes_wrong_is_no_loss(packed, run_rnn, capsys):
    run_rnn(packed, *FLAGS[:-1], '--no-baseline')
    assert len(lines_of(packed)) == 1 and 'order' not in capsys.readouterr().out
    (packed / 'baseline.training').write_text('in its way')
    assert run_rnn(packed, *FLAGS) == 3
    assert 'no baseline beside RNN: ' in capsys.readouterr().err
    (packed / 'baseline.training').unlink()
    run_rnn(packed, *FLAGS)  # the run itself is told once
    assert [line['method'] for line in lines_of(packed)] == ['LSTM 1x4', 'mean']


def test_one_of_features_that_were_here_before_is_trained_again(packed, run_rnn):
    run_rnn(packed, *FLAGS)
    keep_in_card(packed / 'baseline.model', features='of others')
    run_rnn(packed, *FLAGS)
    assert read_card(packed / 'baseline.model')['features'] == 'made up'
