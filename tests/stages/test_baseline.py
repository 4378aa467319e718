"""The network without order that rnn.py trains beside one that sees order."""
import json
import re
import shutil

import pytest

from engine.files import append_line
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
    assert 'but that one' not in out
    assert float(told[2]) == pytest.approx(100 * (mine['top1'] - other['top1']), abs=0.05)
    # Another run on these features is held against the same one, unless that is of others.
    keep_in_card(packed / 'baseline.model', features='of others')
    shutil.copy(packed / 'baseline.model', packed / 'old.model')
    append_line(packed / 'results.jsonl', json.dumps({
        **other, 'seed': 1, 'predictions': 'old_testPredictions.hdf5', 'validation_loss': 0.0,
        'top1': 0.123}))
    run_rnn(packed, *FLAGS, '--name', 'other', '--seed', 1, '--no-baseline')
    assert 'order' not in capsys.readouterr().out
    run_rnn(packed, *FLAGS, '--name', 'other', '--seed', 1)
    out = capsys.readouterr().out
    assert 'mean, without order:' in out and 'top-1 0.123' not in out
    assert 'but that one was trained with lr=0.0005; with the same flags: python rnn.py' in (
        baselines.what_order_adds(mine, lines_of(packed)[-1]))
    assert read_card(packed / 'baseline.model')['features'] == 'made up'
    assert [line['method'] for line in lines_of(packed)] == [
        'LSTM 1x4', 'mean', 'mean', 'LSTM 1x4', 'mean']
    few = {**mine, 'settings': {**mine['settings'], 'train_share': 0.5}}
    assert baselines.baseline_of(few, [other]) is None
    assert baselines.baseline_of({**mine, 'fold': '1/2'}, [other]) is None
    assert baselines.baseline_of({**mine, 'seed': 7}, [other]) is other
    # Of one file the last line counts, whatever an earlier one told of validation.
    better = {**other, 'validation_loss': 0.0}
    assert baselines.baseline_of(mine, [better, other]) is other
    # What it tells without a class is another figure of the same run.
    part = {**other, 'settings': {**other['settings'], 'without': 'Diving'}}
    assert baselines.baseline_of(mine, [other, part]) is other
    # A share of another seed is one of other clips.
    share = {**other, 'settings': {**other['settings'], 'train_share': 0.5}}
    assert baselines.baseline_of(few, [share]) is share
    assert baselines.baseline_of({**few, 'seed': 7}, [share]) is None
    # Lines tell of some settings only where they are not the usual ones.
    rare = {**mine, 'settings': {**mine['settings'], 'class_weights': 'balanced'}}
    assert 'was trained with class_weights=none; with' in baselines.what_order_adds(rare, other)


def test_beside_a_share_none_is_trained_and_without_a_class_it_is_told_so(packed, run_rnn, capsys):
    assert not run_rnn(packed, *FLAGS, '--name', 'some', '--without', 'Diving')
    assert not run_rnn(packed, *FLAGS, '--name', 'some')
    capsys.readouterr()
    # The line of all clips, which is there too, is not taken for this one.
    assert not run_rnn(packed, *FLAGS, '--name', 'some', '--without', 'Diving', '--restart')
    *_, mine = lines = lines_of(packed)
    assert [(line['method'], line['n']) for line in lines] == [
        ('LSTM 1x4', 8), ('mean', 8), ('LSTM 1x4', 12), ('mean', 12), ('LSTM 1x4', 8)]
    other = lines[1]
    assert baselines.what_order_adds(mine, other) in capsys.readouterr().out
    assert not run_rnn(packed, *FLAGS, '--name', 'few', '--train-share', 0.5)
    out = capsys.readouterr().out
    assert 'now baseline' not in out
    assert re.search('no run without order to hold against: .* --name mean-share0.5-seed0\n', out)


def test_what_goes_wrong_beside_it_is_no_loss(packed, run_rnn, capsys):
    (packed / 'baseline.training').write_text('in its way')
    assert run_rnn(packed, *FLAGS) == 3
    assert 'no baseline beside RNN: ' in capsys.readouterr().err
    (packed / 'baseline.training').unlink()
    run_rnn(packed, *FLAGS)  # the run itself is told once
    assert [line['method'] for line in lines_of(packed)] == ['LSTM 1x4', 'mean']

