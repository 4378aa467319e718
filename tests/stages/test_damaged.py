"""What crashes of machines and other hands leave among the features: named, never averaged in."""
import os
import shutil
import sys
import threading

import h5py
import numpy
import pytest

import helperFunctions as hf
import normalizeData
import rnn
import save_hdf5
import saveFeatures_1024
import singleFrameAccuracy
from engine import hdf5, stage as stages, variants
from engine.cluster.parts import Report
from engine.errors import UserError
from engine.learning.featurefile import why_no_features
from engine.learning.sequences import FeatureStore
from engine.reporting import predictionfile
from engine.video.decode import VideoError
from FusionNet import load_frame_network
from smallSet import features, run_stage


@pytest.fixture
def root(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / 'root', symlinks=True)


@pytest.fixture
def stage(root, monkeypatch, capsys):
    def stage(module, *flags):
        """(error or '', output) of a stage called here."""
        monkeypatch.setattr(sys, 'argv', [f'{module.__name__}.py', '--root', str(root), *flags])
        error = ''
        try:
            module.main()
        except UserError as met:
            error = str(met)
        return error, capsys.readouterr().out
    return stage


def zero_rows(rows):
    rows[3:5] = 0
    return rows


def a_frame_of_ones(rows):
    rows[2] = 1
    return rows


@pytest.mark.parametrize('harm, reason', [
    (lambda rows: rows * 0, 'nothing but 0'), (lambda rows: rows * 0 + 7, 'nothing but 7'),
    (zero_rows, 'nothing but 0 for frame 3'), (a_frame_of_ones, 'nothing but 1 for frame 2'),
    (lambda rows: rows * numpy.inf, 'not finite')])
def test_features_that_are_none_are_refused_wherever_they_are_read(root, stage, harm, reason):
    lists = hf.read_lists(root)
    clip = lists.train[0]
    path = variants.output_path(root, variants.FEATURES, clip)
    bad = harm(numpy.load(path))
    with h5py.File(root / variants.TRAIN_HDF5, 'r+') as f:
        del f[clip.name]  # a stranger's, without a checksum
        f[clip.name] = bad
    error, _ = stage(normalizeData)
    assert f'{clip.name} ' in error and reason in error and 'save_hdf5.py' in error
    with hdf5.open_hdf5(root / variants.TRAIN_HDF5, '') as f:
        with pytest.raises(UserError, match=reason):
            FeatureStore(f, lists.train)
        store = FeatureStore(f, lists.train, memory=0)
        store.rows(1, numpy.arange(2))
        with pytest.raises(UserError, match=reason):
            store.rows(0, numpy.array([1]))
    numpy.save(path, bad)
    error, out = stage(save_hdf5)
    assert f'{path}: ' in out and reason in out and './saveFeatures.sh' in error


def test_what_still_pictures_dead_features_and_relus_give_is_taken():
    rows = numpy.random.RandomState(0).rand(5, 8).astype('f4')
    rows[:, 2] = 0
    assert not why_no_features(rows) and not why_no_features(numpy.repeat(rows[:1], 9, axis=0))
    assert not why_no_features(numpy.zeros((3, 1), 'f4'))  # --features 1
    rows[1] = 0
    assert why_no_features(rows) and not why_no_features(rows, 'pool5')
    assert why_no_features(rows * 0, 'pool5')


@pytest.mark.parametrize('spoil, reason', [
    (lambda row: 0 * row, 'without any probability'),
    (lambda row: row - row.max() / 2, 'not from 0 to 1'),  # as logits are
    (lambda row: 9 * row, 'not from 0 to 1')])
def test_predictions_that_are_no_probabilities_are_refused(root, stage, spoil, reason):
    lists = hf.read_lists(root)
    path = variants.output_path(root, variants.FRAME_PREDICTIONS, lists.test[0])
    array = numpy.load(path)
    array[1] = spoil(array[1])
    numpy.save(path, array)
    out = stage(save_hdf5)[1]
    assert f'{path}: holds ' in out and reason in out
    predictionfile.write_predictions(root / 'x.hdf5', [(lists.test[0].name, array)],
                                     lists.classes, 'x', 1)
    with pytest.raises(UserError, match=reason):
        predictionfile.read_predictions(root / 'x.hdf5', lists.test)


def test_a_clip_replaced_after_its_features_were_saved_is_noticed(root, stage):
    lists = hf.read_lists(root)
    clips = (root / variants.CLIPS).resolve()
    (root / variants.CLIPS).unlink()
    shutil.copytree(clips, root / variants.CLIPS)  # with the times of change
    first, other, gone = lists.train[:3]
    gone.path.unlink()
    os.utime(other.path)  # touched, but the same
    assert not stage(save_hdf5)[0]
    before = features(root)
    first.path.write_bytes(lists.train[-1].path.read_bytes())
    error, out = stage(save_hdf5)
    assert f'{first.path}: replaced after its features were saved' in out
    assert '1 of 24 clips' in error and f'./saveFeatures.sh --local --root {root}' in error
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 2, '--root', root)
    done = [done, run_stage('saveFeatures_1024.py', 2, '--parts', 2, '--root', root)]
    assert [each.returncode for each in done] == [0, 0]
    assert sum('made again' in each.stdout for each in done) == 1
    after = features(root)
    changed = {name for name in before if before[name] != after[name]}
    assert {os.path.basename(name) for name in changed} == {f'{first.name}.npy'}
    assert not stage(save_hdf5)[0]
    # a root without notes, as of earlier code
    for table in (root / variants.FEATURES).glob('*.clips'):
        table.unlink()
    first.path.write_bytes(lists.train[-2].path.read_bytes())
    assert not stage(save_hdf5)[0]


def test_a_set_of_two_runs_is_refused_until_it_is_packed_again(root, stage):
    old = (root / variants.TRAIN_HDF5).read_bytes()
    path = variants.output_path(root, variants.FEATURES, hf.read_lists(root).train[0])
    numpy.save(path, numpy.load(path) + 1)
    assert not stage(save_hdf5)[0] and not stage(normalizeData)[0]
    (root / variants.TRAIN_HDF5).write_bytes(old)  # as if stopped before the last name
    for module in (rnn, normalizeData, singleFrameAccuracy):
        error, _ = stage(module)
        assert 'not packed together' in error and 'python save_hdf5.py' in error
    assert not stage(save_hdf5)[0] and not stage(normalizeData)[0]


@pytest.mark.parametrize('text', [None, '', '{', '[]', '{"model_sha256": 3, "step": 1}',
                                  '{"model_sha256": "x"}', '\x00\xff'])
def test_features_of_which_nobody_knows_the_model(root, stage, text):
    claim = root / variants.FEATURES / 'extraction.json'
    claim.unlink()
    if text is not None:
        claim.write_text(text, encoding='latin-1')
    error, _ = stage(save_hdf5)
    assert 'nobody knows which model' in error and f'rm -r {claim.parent}' in error
    with pytest.raises(UserError, match='nobody knows which model'):
        saveFeatures_1024.claim_folders(root, root / variants.FRAME_MODEL, 1, variants.Names())


@pytest.mark.parametrize('text', ['failed\tv_x\n', '\n', '\x00', 'a\tb\tc\td\nfailed', '\xff\xfe'])
def test_an_odd_report_of_a_part_is_passed_over(tmp_path, text):
    (tmp_path / 'part01.txt').write_bytes(text.encode('latin-1') + b'\nshort\tclip\twhy')
    report = Report(tmp_path, 1)
    assert report.of_kind('short') == [('clip', 'why')]
    (tmp_path / 'part02.txt').mkdir()
    assert Report(tmp_path, 2).lines == {}


def test_what_later_stages_take_for_damage_is_not_saved(root):
    """A network that has learned nothing gives of all frames one number."""
    model, _ = load_frame_network(root / variants.FRAME_MODEL)
    clip, device = hf.read_lists(root).train[0], stages.get_device('-1')
    for layer, said in ((model.fc8, None), (model.fc7, 'nothing but 0')):
        layer.W.array[...] = layer.b.array[...] = 0
        batches = iter([numpy.full((2, 32, 32, 3), 128, numpy.uint8)])
        given = (clip, batches, model, device, threading.Event(), variants.Names())
        if said is None:  # all classes alike are still probabilities
            assert saveFeatures_1024.extract(*given)
        else:
            with pytest.raises(VideoError, match=f'{clip.name}.*holds {said}'):
                saveFeatures_1024.extract(*given)


@pytest.mark.parametrize('name, module', [
    (variants.FEATURES, save_hdf5), (variants.FRAME_PREDICTIONS, save_hdf5),
    (variants.LISTS, save_hdf5), (variants.TEST_HDF5, rnn), (variants.TRAIN_HDF5, normalizeData)])
def test_a_folder_in_a_files_place_and_a_file_in_a_folders(root, stage, name, module):
    path = root / name
    folder = path.is_dir()
    path.rename(root / 'away')
    if folder:
        path.write_text('')
    else:
        path.mkdir()
    error, out = stage(module)
    assert '\n' not in error and str(path) in error + out
