"""Reading out the first frames of a run."""
import numpy as np
import pytest

from engine.reporting.predictionfile import write_predictions
from engine.reporting.runs import read_log, read_run
from engine.reporting.sections import position_section
from helperFunctions import read_lists
from predictionSet import CLASSES, NAMES, one_hot, write_lists


def test_position_reads_out_the_first_frames_only(tmp_path):
    write_lists(tmp_path, names=NAMES[:2])
    # Wrong for 20 frames, then right; the second clip has 10 frames, all right.
    turn = np.concatenate([one_hot('B', frames=20), one_hot('A', frames=40)])
    for readout, expected in (('mean', {10: 0.5, 30: 0.5, 60: 1.0}),
                              ('last', {10: 0.5, 30: 1.0, 60: 1.0})):
        path = tmp_path / 'turn.hdf5'
        write_predictions(path, zip(NAMES, (turn, one_hot('A', frames=10))), CLASSES, 'x', 1,
                          readout)
        got = read_run('turn', path, read_lists(tmp_path), 1)
        assert {k: got.curve[k][0] for k in expected} == expected
        assert max(got.curve) == 60  # no clip is longer
        # Equal frames: their normalised geometric mean is the frame itself.
        assert got.curve[10][1] == pytest.approx(0.8)
        assert got.lengths == {NAMES[0]: 60, NAMES[1]: 10}


def test_one_row_a_clip_has_no_position(tmp_path):
    write_lists(tmp_path, names=NAMES[:1])
    write_predictions(tmp_path / 'joined.hdf5', [(NAMES[0], one_hot('A', frames=1))], CLASSES,
                      'x', 1)
    got = read_run('joined', tmp_path / 'joined.hdf5', read_lists(tmp_path), 1)
    assert got.curve == {} and position_section([got]) == ''


def test_a_number_that_no_float_holds_is_passed_over(tmp_path):
    (tmp_path / 'x.training').mkdir()
    (tmp_path / 'x.training' / 'log').write_text('[{"epoch": 1, "main/loss": 1%s}]' % ('0' * 400))
    assert read_log(tmp_path, 'x') == [{'epoch': 1}]
