"""confusion.py against a case of three classes and ten clips counted by hand."""
import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

import confusion
from engine.errors import UserError
from engine.reporting.readout import read_method
from engine.reporting.predictionfile import write_predictions
from helperFunctions import read_lists
from predictionSet import CLASSES, NAMES, SAID_A, SAID_B, is_drawn, one_hot, write_lists

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path):
    write_lists(tmp_path)
    for name, method, said in (('testPredictions1024.hdf5', 'frames', SAID_A),
                               ('RNN_testPredictions.hdf5', 'LSTM 1x8', SAID_B)):
        write_predictions(tmp_path / name, zip(NAMES, map(one_hot, said)), CLASSES, method, 1)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the stage in this process: (exit code, what it printed, its error line)."""
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['confusion.py', *map(str, arguments)])
        try:
            code, error = confusion.main() or 0, ''
        except UserError as refused:
            code, error = 1, str(refused)
        return code, capsys.readouterr().out, error
    return run


def rows_of(path):
    with open(path, newline='') as f:
        return list(csv.DictReader(f))


def test_two_methods_end_to_end(root):
    done = subprocess.run(
        [sys.executable, 'confusion.py', '--root', str(root)], cwd=REPOSITORY,
        env=dict(os.environ, PYTHONWARNINGS='error'), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, '')
    words = ' '.join(done.stdout.split())
    assert 'frames: video top-1 0.600 (6 of n 10)' in words
    assert 'LSTM 1x8: video top-1 0.700 (7 of n 10)' in words
    assert 'Archery Bowling 2 of 4' in words
    assert '+10.0 points over the 10 clips in both' in words
    assert '2 right in LSTM 1x8 alone, 1 in frames alone' in words
    assert 'one clip of a class moves it by 100/n points, here 25.0 to 50.0' in words
    assert 'Diving 2 50.0 100.0 +50.0 +1' in words
    assert 'Bowling 4 75.0 50.0 -25.0 -1' in words
    for name in ('confusion_frames', 'confusion_LSTM-1x8', 'gain_frames_LSTM-1x8'):
        assert is_drawn(root / f'{name}.png')
    rows = rows_of(root / 'confusion_frames_LSTM-1x8.csv')
    assert [(r['class'], r['n'], r['right_frames'], r['right_LSTM 1x8'], r['change_points'])
            for r in rows] == [('Archery', '4', '2', '3', '25.00'),
                               ('Bowling', '4', '3', '2', '-25.00'),
                               ('Diving', '2', '1', '2', '50.00')]
    rows = rows_of(root / 'confusion_frames.csv')
    assert [tuple(r.values()) for r in rows] == [
        ('Archery', '4', '2', '50.00', 'Bowling', '2', '4', '50.00', '50.00', '50.00'),
        ('Bowling', '4', '3', '75.00', 'Archery', '1', '5', '60.00', '75.00', '66.67'),
        ('Diving', '2', '1', '50.00', 'Archery', '1', '1', '100.00', '50.00', '66.67')]
    # (50 + 66.7 + 66.7) / 3; (50 + 75 + 50) / 3; (0.6 - 0.38) / (1 - 0.38)
    assert "macro F1 0.611, balanced accuracy 0.583, Cohen's kappa 0.355" in words


def test_one_file_makes_no_comparison(root, run):
    (root / 'RNN_testPredictions.hdf5').unlink()
    code, out, error = run('--root', root)
    assert code == 0, error
    assert (root / 'confusion_frames.png').exists()
    assert not list(root.glob('gain_*'))


def test_only_clips_in_both_are_compared_and_missing_ones_named(root, run):
    path = root / 'half.hdf5'
    write_predictions(path, zip(NAMES[:4], map(one_hot, SAID_B)), CLASSES, 'half', 1)
    code, out, error = run('--root', root, 'testPredictions1024.hdf5', path)
    assert code == 0, error
    assert f'lacks 6 of the clips listed: {NAMES[4]}, {NAMES[5]}, {NAMES[6]} ...' in out
    assert 'frames: video top-1 0.600 (6 of n 10)' in out
    assert 'top-1 0.500 -> 0.750, +25.0 points\nover the 4 clips in both' in out


def test_same_method_twice_is_told_apart_by_the_file_names(root, run):
    write_predictions(root / 'again.hdf5', zip(NAMES, map(one_hot, SAID_B)), CLASSES, 'frames', 1)
    code, out, error = run('--root', root, 'testPredictions1024.hdf5', 'again.hdf5')
    assert code == 0, error
    assert (root / 'gain_testPredictions1024_again.png').exists()


def test_another_run_and_a_fold_have_files_of_their_own(root, run):
    for name in 'RNN_fold1of3', 'RNN-seed1':
        write_predictions(root / f'{name}_testPredictions.hdf5', zip(NAMES, map(one_hot, SAID_B)),
                          CLASSES, 'LSTM 1x8', 1)
    write_predictions(root / 'testPredictions1024_fold1of3.hdf5', zip(NAMES, map(one_hot, SAID_B)),
                      CLASSES, 'frames', 1)
    run('--root', root)
    before = {path: path.read_bytes() for path in root.glob('*.csv')}
    assert run('--root', root, 'testPredictions1024_fold1of3.hdf5',
               'RNN_fold1of3_testPredictions.hdf5')[0] == 0
    assert run('--root', root, 'RNN-seed1_testPredictions.hdf5')[0] == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in root.glob('*.csv')} - {path.name for path in before} == {
        'confusion_frames-fold-1-3.csv', 'confusion_LSTM-1x8-fold-1-3.csv',
        'confusion_frames-fold-1-3_LSTM-1x8-fold-1-3.csv', 'confusion_LSTM-1x8-RNN-seed1.csv'}


def test_other_class_list_is_refused_naming_both(root, run):
    other = ['Archery', 'Bowling', 'Surfing', 'YoYo']
    write_predictions(root / 'other.hdf5', [(NAMES[0], one_hot('A', other))], other, 'x', 1)
    code, out, error = run('--root', root, 'other.hdf5')
    assert code == 1
    assert 'other.hdf5' in error and '4 classes' in error and '3' in error
    assert len(error.splitlines()) == 1


def test_other_split_and_missing_file_are_named(root, run):
    write_predictions(root / 'two.hdf5', [(NAMES[0], one_hot('A'))], CLASSES, 'x', 2)
    with pytest.raises(UserError, match='split 2'):
        read_method(root / 'two.hdf5', read_lists(root))
    code, out, error = run('--root', root, 'nowhere.hdf5')
    assert code == 1 and 'nowhere.hdf5' in error


def test_a_picture_that_fails_is_named_and_the_rest_written(root, run, capsys):
    (root / 'confusion_frames.png').mkdir()
    code, out, _ = run('--root', root)
    assert code == 3 and f'wrote {root}/confusion_frames.csv' in out
    assert (root / 'gain_frames_LSTM-1x8.png').exists() and 'top-1 0.700' in out
