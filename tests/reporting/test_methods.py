"""What a prediction file says of each clip."""
import numpy as np
import pytest

from engine.errors import UserError
from engine.reporting.readout import read_method
from engine.reporting.predictionfile import write_predictions
from helperFunctions import read_lists
from predictionSet import CLASSES, NAMES, one_hot, write_lists


@pytest.fixture
def root(tmp_path):
    write_lists(tmp_path)
    return tmp_path


def test_readout_of_the_file_decides(tmp_path):
    write_lists(tmp_path, names=NAMES[:1])
    lists = read_lists(tmp_path)
    # Mean of the logs: Archery (0.36 against 0.025); last frame: Bowling.
    frames = np.float32([[0.9, 0.05, 0.05], [0.4, 0.5, 0.1]])
    for readout, label in (('mean', 0), ('last', 1)):
        path = tmp_path / f'{readout}.hdf5'
        write_predictions(path, [(NAMES[0], frames)], CLASSES, 'x', 1, readout)
        assert read_method(path, lists).said == {NAMES[0]: label}


def test_validation_predictions_are_looked_at_as_well(root):
    path = root / 'validationPredictions1024.hdf5'
    write_predictions(path, [('v_Diving_g09_c01', one_hot('A'))], CLASSES, 'frames', 1)
    method = read_method(path, read_lists(root))
    assert (method.said, method.missing) == ({'v_Diving_g09_c01': 0}, [])


@pytest.mark.parametrize('value', [np.nan, None])
def test_what_is_no_probability_is_refused(root, value):
    frames = np.zeros((0, 3)) if value is None else np.full((2, 3), value)
    write_predictions(root / 'bad.hdf5', [(NAMES[0], frames)], CLASSES, 'x', 1)
    with pytest.raises(UserError, match=NAMES[0]):
        read_method(root / 'bad.hdf5', read_lists(root))
