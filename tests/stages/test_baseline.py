"""The network without order that rnn.py trains beside one that sees order."""
import json
import re
import shutil

import h5py
import pytest

from engine import variants
from engine.errors import UserError
from engine.files import append_line
from engine.reporting import baselines, means, runs
from engine.weights.card import keep_in_card, read_card
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
    mine, *_ = lines = lines_of(packed)
    assert [(line['method'], line['n']) for line in lines] == [
        ('LSTM 1x4', 8), ('mean', 8), ('LSTM 1x4', 12), ('mean', 12)]
    other = lines[1]
    assert baselines.what_order_adds(mine, other) in capsys.readouterr().out
    assert not run_rnn(packed, *FLAGS, '--name', 'few', '--train-share', 0.5)
    out = capsys.readouterr().out
    assert 'now baseline' not in out
    assert re.search('no run without order to hold against: .* --name few-mean-share0.5-seed0\n',
                     out)


def test_what_goes_wrong_beside_it_is_no_loss(packed, run_rnn, capsys):
    (packed / 'baseline.training').write_text('in its way')
    assert run_rnn(packed, *FLAGS) == 3
    assert 'no baseline beside RNN: ' in capsys.readouterr().err
    (packed / 'baseline.training').unlink()
    run_rnn(packed, *FLAGS)  # the run itself is told once
    assert [line['method'] for line in lines_of(packed)] == ['LSTM 1x4', 'mean']



def test_none_is_held_against_one_of_other_features(packed, run_rnn, capsys):
    assert not run_rnn(packed, *FLAGS)
    mine, other = lines_of(packed)
    assert mine['features'] == other['features'] == 'made up'
    later = {**mine, 'features': 'saved anew', 'root': packed}
    for line in (mine, other):
        line['root'] = packed
    assert baselines.lines_about_order([mine, other])[0].startswith('What order adds')
    for lines in ([later, other], means.mean_over_seeds([later, other])):
        line, = baselines.lines_about_order(lines)
        assert line.startswith('no run without order to hold against (mean, seed 0, is of other '
                               'features): python rnn.py ')
    # An older line tells of none.
    older = {key: value for key, value in other.items() if key != 'features'}
    assert baselines.lines_about_order([later, older])[-1] == (
        '         if on the same features: an older line does not tell on which')
    notes = []
    assert runs.run_without_order(packed, 'RNN', [later, other], 1, notes) is None
    assert 'is of other features); made by: python rnn.py' in notes[0]
    # A mean over seeds that saw several says so.
    joined = means.mean_over_seeds([mine, {**later, 'seed': 1}, {**later, 'seed': 2}])
    assert list(means.lines_about_features(joined)) == [
        'run 1, LSTM 1x4: a mean over several features of one root: seeds 0 saw others than 1,2; '
        'train them again']
    # Nor does a training go on from other features, packed anew.
    for name in ('train1024.hdf5', 'test1024.hdf5'):
        with h5py.File(packed / name, 'r+') as f:
            f.attrs['set'] = 'f' * 64
    with pytest.raises(UserError, match='other settings .*packed made up -> ffff'):
        run_rnn(packed, *FLAGS)


def test_one_of_other_lists_is_made_anew(packed, run_rnn, capsys):
    assert not run_rnn(packed, *FLAGS)
    path = packed / variants.LISTS / 'testlist01.txt'
    path.write_text(''.join(path.read_text().splitlines(keepends=True)[1:]))
    capsys.readouterr()
    assert not run_rnn(packed, *FLAGS, '--name', 'later')
    assert 'now baseline, which sees no order' in capsys.readouterr().out
    lines = lines_of(packed)
    assert [(line['method'], line['n']) for line in lines] == [
        ('LSTM 1x4', 12), ('mean', 12), ('LSTM 1x4', 11), ('mean', 11)]
    assert len({line['test_clips'] for line in lines}) == 2
    assert lines[2]['test_clips'] == lines[3]['test_clips'] != lines[0]['test_clips']
    assert not run_rnn(packed, *FLAGS, '--name', 'later')
    assert 'now baseline' not in capsys.readouterr().out


def test_what_is_called_so_is_not_written_over(packed, run_rnn, capsys):
    own = ('--cells', 3, '--epochs', 1, '--name', 'baseline')
    run_rnn(packed, *own)
    before = (packed / 'baseline.model').read_bytes()
    assert run_rnn(packed, *FLAGS, '--restart') == 3
    err = capsys.readouterr().err
    assert f'no baseline beside RNN: {packed / "baseline.model"}: is not written over' in err
    assert err.count('\n') == 1 and '--cell mean --name mean' in err
    assert (packed / 'baseline.model').read_bytes() == before
    # What combine.py has called so, likewise.
    for path in packed.glob('baseline*'):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy(packed / 'RNN_testPredictions.hdf5', packed / 'baseline_testPredictions.hdf5')
    assert run_rnn(packed, *FLAGS) == 3
    assert 'baseline_testPredictions.hdf5: is not written over' in capsys.readouterr().err
    (packed / 'baseline_testPredictions.hdf5').unlink()
    # One that was trained beside another run is made anew where the features are.
    assert not run_rnn(packed, *FLAGS)
    assert read_card(packed / 'baseline.model')['beside'] == 'RNN'
    keep_in_card(packed / 'baseline.model', features='of others')
    assert not run_rnn(packed, *FLAGS)
    assert read_card(packed / 'baseline.model')['features'] == 'made up'
