"""Confusion matrices against a case of three classes and ten clips counted by hand."""
import numpy as np

from engine.reporting import matrices
from engine.reporting.readout import read_method
from engine.reporting.predictionfile import write_predictions
from engine.reporting.scoring import score, video_log_probability
from helperFunctions import read_lists
from predictionSet import (CLASSES, MATRIX_A, MATRIX_B, NAMES, SAID_A, SAID_B, one_hot,
                           write_lists)


def test_matrix_counts_rows_shown_and_columns_said(tmp_path):
    write_lists(tmp_path)
    for said, expected in ((SAID_A, MATRIX_A), (SAID_B, MATRIX_B)):
        path = tmp_path / 'x.hdf5'
        write_predictions(path, zip(NAMES, map(one_hot, said)), CLASSES, 'x', 1)
        method = read_method(path, read_lists(tmp_path))
        assert (matrices.count(method, method.clips, 3) == expected).all()


def test_pairs_most_first_and_larger_share_of_its_class_first():
    # Archery for Bowling twice; then one of two Divings before one of four Bowlings.
    assert matrices.most_confused(MATRIX_A) == [(0, 1, 2), (2, 0, 1), (1, 0, 1)]


def test_gains_by_hand():
    # Archery 50 -> 75 %, Bowling 75 -> 50 %, Diving 50 -> 100 %
    assert matrices.gains(MATRIX_A, MATRIX_B) == ([2, 0], [1])
    assert matrices.gains(MATRIX_A, MATRIX_B, top=1) == ([2], [1])
    assert matrices.gains(MATRIX_A, MATRIX_A) == ([], [])
    # of two that rise by 50 points the one of more clips comes first
    few_and_many = np.array([[1, 1], [2, 2]]), np.array([[2, 0], [0, 4]])
    assert matrices.gains(*few_and_many) == ([1, 0], [])


def test_class_without_clips_has_no_accuracy_and_no_gain():
    matrix = np.array([[1, 1], [0, 0]])
    assert matrices.class_accuracy(matrix)[0] == 0.5
    assert np.isnan(matrices.class_accuracy(matrix)[1])
    assert matrices.gains(matrix, np.array([[2, 0], [0, 0]])) == ([0], [])


def test_accuracy_is_that_of_score_with_ties_too(tmp_path):
    write_lists(tmp_path)
    ab, bd, ad = [0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.4, 0.2, 0.4]
    a, b, d = np.eye(3) * 0.4 + 0.2
    frames = np.float32([ab, a, bd, ad, b, ab, bd, ad, d, bd])[:, None]
    path = tmp_path / 'ties.hdf5'
    write_predictions(path, zip(NAMES, frames), CLASSES, 'x', 1)
    lists = read_lists(tmp_path)
    method = read_method(path, lists)
    expected = score([video_log_probability(f) for f in frames], [c.label for c in lists.test])
    right = matrices.count(method, method.clips, 3).trace()
    assert right / len(NAMES) == expected['top1'] == 0.3


def test_similar_order_puts_a_confused_pair_side_by_side():
    matrix = np.diag([9, 5, 9, 5])
    matrix[1, 3] = matrix[3, 1] = 4
    order = list(matrices.similar_order(matrix))
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(1) - order.index(3)) == 1
