"""Which run without order a run is held against."""
from pathlib import Path

from engine.reporting import baselines, means, runs


def run(cell, top1=0.5, seed=0, loss=1.0, root='r', split=1, stream='rgb', **more):
    return {'method': cell, 'unit': 'video', 'split': split, 'n': 9, 'top1': top1, 'seed': seed,
            'validation_loss': loss, 'root': Path(root), **more,
            'settings': {'cell': cell, 'stream': stream, 'fusion': 'single', 'layer': 'fc7'}}


def test_the_baseline_has_seen_the_same_features_and_validates_best():
    lstm = run('lstm', 0.8)
    right = run('mean', 0.6, loss=0.9)
    others = [run('linear', 0.7, loss=1.0),  # the test clips like it better
              run('mean', 0.9, loss=0.1, seed=1), run('mean', 0.9, loss=0.1, split=2),
              run('mean', 0.9, loss=0.1, stream='flow'), run('mean', 0.9, loss=0.1, root='q'),
              run('mean', 0.9, loss=0.1, test_only=True), run('gru', 0.9, loss=0.1)]
    for lines in (others + [right], [right] + others):
        assert baselines.baseline_of(lstm, [lstm] + lines) is right
    # of another seed rather than none; of two alike the later
    assert baselines.baseline_of(lstm, others[1:]) is others[1]
    assert baselines.baseline_of(lstm, [right, later := dict(right)]) is later
    assert baselines.baseline_of(lstm, [lstm, *others[2:]]) is None


def test_none_is_held_against_one_of_other_test_clips():
    lstm, mean = run('lstm', 0.8, test_clips='a'), run('mean', 0.6, test_clips='a')
    assert baselines.baseline_of(lstm, [lstm, mean]) is mean
    older = {key: value for key, value in mean.items() if key != 'test_clips'}
    assert baselines.baseline_of(lstm, [lstm, older]) is older
    others = [{**mean, 'test_clips': 'b'}, {**older, 'n': 8}, {**mean, 'n': 8}]
    for other in others:
        for lines in ([lstm, other], means.mean_over_seeds([lstm, other])):
            line, = baselines.lines_about_order(lines)
            assert line.startswith('no run without order to hold against (mean, seed 0, is of '
                                   'other test clips): python rnn.py ')
        notes = []
        lstm['predictions'], other['predictions'] = (f'{name}_testPredictions.hdf5'
                                                     for name in ('RNN', 'blind'))
        assert runs.run_without_order(lstm['root'], 'RNN', [lstm, other], 1, notes) is None
        assert 'is of other test clips); made by: ' in notes[0]
    assert baselines.of_others({**lstm, 'features': 'y'}, [{**others[0], 'features': 'x'}]) == (
        ' (mean, seed 0, is of other features and test clips)')
    # As many clips, but of several lists: as many is all that is known of the mean.
    joined = means.mean_over_seeds([lstm, {**lstm, 'seed': 1, 'test_clips': 'b'}])
    assert joined[0]['test_clips'] is None
    # Learned from others it is told so.
    fewer = {**mean, 'train_clips': 20}
    assert baselines.baseline_of({**lstm, 'train_clips': 24}, [fewer]) is fewer
    assert 'but that one was trained with train_clips=20;' in baselines.what_order_adds(
        {**lstm, 'train_clips': 24}, fewer)


def test_what_order_adds_is_said_or_the_command_that_tells_it():
    lines = [run('lstm', 0.8), run('mean', 0.65), run('lstm', 0.9, split=2, stream='flow'),
             run('conv-pool', 0.7, split=2), {**run('lstm'), 'settings': {}},
             run('lstm', test_only=True)]
    assert baselines.lines_about_order(lines)[1:] == [
        '  +15.0  run 1, lstm, over run 2, mean',
        'no run without order to hold against: python rnn.py --stream flow --root r --split 2 '
        '--cell mean --name mean_flow']
    assert baselines.lines_about_order(lines[1:2]) == []
    for one, lr in zip(lines, (0.1, 0.2)):
        one['settings'].update(lr=lr, cells=[8])
    assert baselines.lines_about_order(lines[:2])[2:] == [
        '         but that one was trained with lr=0.2']
    # with the run's own flags, of which the last of two counts
    lines = [run('lstm', command='python rnn.py --root r --lr 0.1 --cell lstm --name x')]
    assert baselines.lines_about_order(lines) == [
        'no run without order to hold against: python rnn.py --root r --lr 0.1 --cell lstm '
        '--cell mean --name mean']
    # but for those that it refuses
    lines = [run('time-conv', command='python rnn.py --fc 32 8 --cell time-conv --start-from a '
                                      '--fc-from-frames --lr 0.1 --fc=4')]
    assert baselines.lines_about_order(lines) == [
        'no run without order to hold against: python rnn.py --cell time-conv --lr 0.1 '
        '--cell mean --name mean']


def test_means_over_seeds_are_held_against_each_other():
    lines = [run(cell, top1, seed, root=root) for cell, seed, top1, root in (
        ('lstm', 0, 0.8, 'r0'), ('lstm', 1, 0.7, 'r1'), ('mean', 0, 0.5, 'r0'),
        ('mean', 1, 0.4, 'r1'), ('lstm', 2, 0.9, 'r2'))]
    assert baselines.lines_about_order(means.mean_over_seeds(lines))[1:] == [
        '  +35.0  run 1, lstm, over run 2, mean']


def test_of_equally_good_ones_that_of_the_same_flags_counts():
    lstm, same, other = run('lstm', 0.8), run('mean', 0.6), run('mean', 0.5)
    for one, epochs in (lstm, 2), (same, 2), (other, 3):
        one['settings'] = {**one['settings'], 'epochs': epochs}
    for lines in ([same, other], [other, same]):
        assert baselines.baseline_of(lstm, lines) is same


def test_the_command_names_the_baseline_after_its_run():
    lstm = run('lstm', predictions='deep_fold1of3_testPredictions.hdf5',
               command='python rnn.py --name deep --fold 1/3 --seed 1')
    assert baselines.what_makes_one(lstm) == (
        'python rnn.py --fold 1/3 --seed 1 --cell mean --name deep-mean')
    assert baselines.what_makes_one({**lstm, 'predictions': 'RNN_testPredictions.hdf5'}).endswith(
        '--name mean')
