"""The map of features and the nearest training clips, against a case laid out by hand."""
import h5py
import numpy as np
import pytest

from engine.reporting import featuremap
from engine.reporting.page import Raw
from engine.reporting.predictionfile import write_predictions
from engine.reporting.runs import read_run
from engine.variants import Names
from helperFunctions import read_lists
from pageReader import Page
from predictionSet import CLASSES, NAMES, SAID_A, one_hot, write_lists


@pytest.fixture
def root(tmp_path):
    """Test clips of a class near the class's one training clip, but for the two Divings, which
    lie beside Archery's."""
    write_lists(tmp_path)
    lists = read_lists(tmp_path)
    for name, clips in ((Names().train, lists.train), (Names().test, lists.test)):
        with h5py.File(tmp_path / name, 'w') as f:
            for clip in clips:
                lies = 0 if name == Names().test and clip.class_name == 'Diving' else clip.label
                # their mean over time is what tells the place
                f[clip.name] = np.float32(10 * np.eye(4)[lies] + [[-1], [1]])
    write_predictions(tmp_path / 'x.hdf5', zip(NAMES, map(one_hot, SAID_A)), CLASSES, 'x', 1)
    return tmp_path


def section(root, notes, names=Names()):
    lists = read_lists(root)
    run = read_run('x', root / 'x.hdf5', lists, 1)
    return featuremap.map_section(run, root, names, lists, 'the stage', 10, notes)


def test_wrong_clips_and_their_nearest_training_clips(root):
    notes = []
    page = Page(Raw(section(root, notes)))
    assert notes == [] and '4 of 10 test videos' in page.text
    rows = page.table('The 4 surest of the 4')[1:]
    assert sorted(row[:3] for row in rows) == sorted(
        [name, name.split('_')[1], f'{said} (80\u00a0%)'] for name, said in (
            (NAMES[2], 'Bowling'), (NAMES[3], 'Bowling'), (NAMES[7], 'Archery'),
            (NAMES[9], 'Archery')))
    first = {row[0]: row[3].split(', ')[0] for row in rows}
    assert first[NAMES[9]] == 'v_Archery_g09_c01 (Archery)'  # shows Diving, lies with Archery
    assert first[NAMES[2]] == 'v_Archery_g09_c01 (Archery)'
    assert first[NAMES[7]] == 'v_Bowling_g09_c01 (Bowling)'
    # 3 of the 4 ... as shown: both Archeries and the Bowling; as named: the Diving alone
    assert '1 have as nearest training clip one of the class named and 3 one' in page.text


def test_a_map_keeps_what_lies_together_together():
    random = np.random.default_rng(0)
    features = np.concatenate([place + random.normal(0, 0.1, (12, 6))
                               for place in 5 * np.eye(6)[:3]])
    maps = featuremap.layouts(features)
    assert len(maps) == 2
    for points in maps.values():
        centres = points.reshape(3, 12, 2).mean(axis=1)
        inside = np.abs(points.reshape(3, 12, 2) - centres[:, None]).max()
        between = min(np.linalg.norm(centres[i] - centres[j]) for i in range(3) for j in range(i))
        assert inside < between / 2


def test_where_there_is_no_map_the_reason_is_told(root):
    notes = []
    assert section(root, notes, Names('flow')) == ''
    with h5py.File(root / Names().test, 'r+') as f:
        f[NAMES[0]][0] = np.nan
    assert section(root, notes) == ''
    (root / Names().test).unlink()
    with h5py.File(root / Names().test, 'w') as f:
        f[NAMES[0]] = np.ones((2, 4), np.float32)
    assert section(root, notes) == ''
    assert [why in note for note, why in zip(notes, (
        'train1024_flow.hdf5: not there; made by: the stage', 'not finite', 'too few clips'))] == [
        True] * 3


def test_features_that_are_all_alike(recwarn):
    found = featuremap.layouts(np.ones((5, 4), np.float32))
    assert list(found) == ['PCA: 0 % of the variance'] and not recwarn.list
