"""confusion.py against a case of three classes and ten clips counted by hand."""
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import confusion
from engine.errors import UserError
from engine.reporting.predictionfile import write_predictions
from engine.reporting.scoring import score, video_log_probability
from helperFunctions import read_lists

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ['Archery', 'Bowling', 'Diving']
SHOWN = 'AAAABBBBDD'
SAID_A = 'AABBBBBADA'
SAID_B = 'AAABBBAADD'
MATRIX_A = np.array([[2, 2, 0], [1, 3, 0], [1, 0, 1]])
MATRIX_B = np.array([[3, 1, 0], [2, 2, 0], [0, 0, 2]])


def full_name(letter):
    return next(name for name in CLASSES if name[0] == letter)


NAMES = [f'v_{full_name(letter)}_g01_c{i:02d}' for i, letter in enumerate(SHOWN)]


def one_hot(letter, classes=CLASSES, frames=2):
    share = [0.8 if name[0] == letter else 0.2 / (len(classes) - 1) for name in classes]
    return np.tile(np.float32(share), (frames, 1))


def write_lists(root, classes=CLASSES, names=NAMES):
    folder = root / 'ucfTrainTestlist'
    folder.mkdir(parents=True)
    (folder / 'classInd.txt').write_text(
        ''.join(f'{i} {name}\r\n' for i, name in enumerate(classes, 1)))
    (folder / 'testlist01.txt').write_text(
        ''.join(f'{name.split("_")[1]}/{name}.avi\r\n' for name in names))
    (folder / 'trainlist01.txt').write_text(
        ''.join(f'{name}/v_{name}_g09_c01.avi {i}\r\n' for i, name in enumerate(classes, 1)))


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


def is_drawn(path):
    image = imread(path)
    return min(image.shape[:2]) > 200 and image[..., :3].std() > 0.02


# ---- the numbers -------------------------------------------------------------

def test_matrix_counts_rows_shown_and_columns_said(root):
    lists = read_lists(root)
    for name, expected in (('testPredictions1024.hdf5', MATRIX_A),
                           ('RNN_testPredictions.hdf5', MATRIX_B)):
        method = confusion.read_method(root / name, lists)
        assert (confusion.count(method, method.clips, 3) == expected).all()


def test_pairs_most_first_and_larger_share_of_its_class_first():
    # Archery for Bowling twice; then one of two Divings before one of four Bowlings.
    assert confusion.most_confused(MATRIX_A) == [(0, 1, 2), (2, 0, 1), (1, 0, 1)]


def test_gains_by_hand():
    # Archery 50 -> 75 %, Bowling 75 -> 50 %, Diving 50 -> 100 %
    assert confusion.gains(MATRIX_A, MATRIX_B) == ([2, 0], [1])
    assert confusion.gains(MATRIX_A, MATRIX_B, top=1) == ([2], [1])
    assert confusion.gains(MATRIX_A, MATRIX_A) == ([], [])


def test_class_without_clips_has_no_accuracy_and_no_gain():
    matrix = np.array([[1, 1], [0, 0]])
    assert confusion.class_accuracy(matrix)[0] == 0.5
    assert np.isnan(confusion.class_accuracy(matrix)[1])
    assert confusion.gains(matrix, np.array([[2, 0], [0, 0]])) == ([0], [])


def test_readout_of_the_file_decides(tmp_path):
    write_lists(tmp_path, names=NAMES[:1])
    lists = read_lists(tmp_path)
    # Mean of the logs: Archery (0.36 against 0.025); last frame: Bowling.
    frames = np.float32([[0.9, 0.05, 0.05], [0.4, 0.5, 0.1]])
    for readout, label in (('mean', 0), ('last', 1)):
        path = tmp_path / f'{readout}.hdf5'
        write_predictions(path, [(NAMES[0], frames)], CLASSES, 'x', 1, readout)
        assert confusion.read_method(path, lists).said == {NAMES[0]: label}


def test_accuracy_is_that_of_score_with_ties_too(tmp_path):
    write_lists(tmp_path)
    ab, bd, ad = [0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.4, 0.2, 0.4]
    a, b, d = np.eye(3) * 0.4 + 0.2
    frames = np.float32([ab, a, bd, ad, b, ab, bd, ad, d, bd])[:, None]
    path = tmp_path / 'ties.hdf5'
    write_predictions(path, zip(NAMES, frames), CLASSES, 'x', 1)
    lists = read_lists(tmp_path)
    method = confusion.read_method(path, lists)
    expected = score([video_log_probability(f) for f in frames], [c.label for c in lists.test])
    right = confusion.count(method, method.clips, 3).trace()
    assert right / len(NAMES) == expected['top1'] == 0.3


def test_similar_order_puts_a_confused_pair_side_by_side():
    matrix = np.diag([9, 5, 9, 5])
    matrix[1, 3] = matrix[3, 1] = 4
    order = list(confusion.similar_order(matrix))
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(1) - order.index(3)) == 1


# ---- the script --------------------------------------------------------------

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
        ('Archery', '4', '2', '50.00', 'Bowling', '2'),
        ('Bowling', '4', '3', '75.00', 'Archery', '1'),
        ('Diving', '2', '1', '50.00', 'Archery', '1')]


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


def test_validation_predictions_are_looked_at_as_well(root):
    path = root / 'validationPredictions1024.hdf5'
    write_predictions(path, [('v_Diving_g09_c01', one_hot('A'))], CLASSES, 'frames', 1)
    method = confusion.read_method(path, read_lists(root))
    assert (method.said, method.missing) == ({'v_Diving_g09_c01': 0}, [])


def test_other_class_list_is_refused_naming_both(root, run):
    other = ['Archery', 'Bowling', 'Surfing', 'YoYo']
    write_predictions(root / 'other.hdf5', [(NAMES[0], one_hot('A', other))], other, 'x', 1)
    code, out, error = run('--root', root, 'other.hdf5')
    assert code == 1
    assert 'other.hdf5' in error and '4 classes' in error and '3' in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize('value', [np.nan, None])
def test_what_is_no_probability_is_refused(root, value):
    frames = np.zeros((0, 3)) if value is None else np.full((2, 3), value)
    write_predictions(root / 'bad.hdf5', [(NAMES[0], frames)], CLASSES, 'x', 1)
    with pytest.raises(UserError, match=NAMES[0]):
        confusion.read_method(root / 'bad.hdf5', read_lists(root))


def test_other_split_and_missing_file_are_named(root, run):
    write_predictions(root / 'two.hdf5', [(NAMES[0], one_hot('A'))], CLASSES, 'x', 2)
    with pytest.raises(UserError, match='split 2'):
        confusion.read_method(root / 'two.hdf5', read_lists(root))
    code, out, error = run('--root', root, 'nowhere.hdf5')
    assert code == 1 and 'nowhere.hdf5' in error


# ---- the figures -------------------------------------------------------------

@pytest.mark.parametrize('size', [1, 2, 8, 101])
def test_figures_draw(tmp_path, size):
    random = np.random.default_rng(size)
    classes = [f'Class{i:03d}WithALongName' for i in range(size)]
    a = np.diag(np.full(size, 20)) + random.integers(0, 2, (size, size))
    b = np.diag(np.full(size, 20)) + random.integers(0, 2, (size, size))
    order = 'similar' if size == 101 else 'list'
    confusion.draw_confusion(tmp_path / 'm.png', a, classes, 'title', order)
    confusion.draw_gain(tmp_path / 'g.png', list(range(size))[:20], a, b, classes, ('a', 'b'),
                        'title')
    assert is_drawn(tmp_path / 'm.png') and is_drawn(tmp_path / 'g.png')


def test_classes_neither_shown_nor_said_are_left_out(tmp_path):
    matrix = np.zeros((101, 101), int)
    matrix[:3, :3] = MATRIX_A
    classes = CLASSES + [f'Class{i}' for i in range(98)]
    confusion.draw_confusion(tmp_path / 'few.png', matrix, classes, 'title')
    confusion.draw_confusion(tmp_path / 'three.png', MATRIX_A, CLASSES, 'title')
    assert (imread(tmp_path / 'few.png') == imread(tmp_path / 'three.png')).all()
