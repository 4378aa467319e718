"""Of two runs that would write the same files the second is refused by every stage."""
import importlib
import json
import os
import sys

import pytest

import featureSet
from engine import locks, variants
from engine.cluster import parts
from engine.errors import UserError
from smallSet import copy_set, run_stage, vgg_set


def runs(script, *flags):
    """Runs a stage in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [f'{script}.py', *map(str, flags)])
        return importlib.import_module(script).main()


def is_refused(path, script, *flags):
    """Runs a stage while this process has the lock of what it writes."""
    with locks.only_one(path), pytest.raises(UserError) as refused:
        runs(script, *flags)
    assert str(refused.value).startswith(f'{path}: is being written by process {os.getpid()} on ')


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    root = tmp_path_factory.mktemp('packed')
    featureSet.make_features(root)
    return root


def test_stages_that_make_a_root(tmp_path):
    for class_name in 'ab':
        (tmp_path / 'videos' / class_name).mkdir(parents=True)
        for person in ('anna', 'ben', 'cleo'):
            path = tmp_path / 'videos' / class_name / f'{person}1.avi'
            path.write_bytes(f'{class_name}{person}'.encode())
    root = tmp_path / 'root'
    is_refused(root / variants.LISTS, 'makeSplit', '--root', root, '--clips', tmp_path / 'videos')
    is_refused(root / variants.CLIPS, 'demo', 'clips', '--tiny', '--root', root)
    is_refused(root / variants.VGG_MODEL, 'demo', 'pretrain', '--tiny', '--root', root)
    is_refused(root / variants.CLIPS, 'getData', '--root', root)
    assert not list(root.iterdir())


def test_trainings(packed, small_set, tmp_path):
    is_refused(packed / 'RNN.model', 'rnn', '--tiny', '--root', packed)
    is_refused(packed / 'other.model', 'rnn', '--tiny', '--restart', '--name', 'other', '--root',
               packed)
    assert not (packed / 'RNN.training').exists()
    root = vgg_set(small_set, tmp_path / 'root')
    is_refused(root / variants.FRAME_MODEL, 'frameBasedTrain', '--tiny', '--root', root)
    assert not (root / 'frameTraining').exists()


def test_tests_of_one_model_stand_not_in_each_others_way(packed):
    runs('rnn', '--tiny', '--root', packed)
    with locks.only_one(packed / 'RNN.model'):
        runs('rnn', '--test-only', '--readout', 'max', '--root', packed)
    name = json.loads((packed / 'results.jsonl').read_text().splitlines()[-1])['predictions']
    is_refused(packed / name, 'rnn', '--test-only', '--readout', 'max', '--root', packed)


def test_packing_and_normalising(packed):
    """One may not pack what the other is measuring."""
    is_refused(packed / variants.TRAIN_HDF5, 'save_hdf5', '--root', packed)
    is_refused(packed / variants.TRAIN_HDF5, 'normalizeData', '--root', packed)


def test_combine_and_sweep(packed):
    (packed / 'runs.txt').write_text('--cell linear\n')
    is_refused(packed / 'sweep', 'sweep', packed / 'runs.txt', '--root', packed)
    is_refused(packed / 'both_testPredictions.hdf5', 'combine', '--name', 'both', '--root', packed,
               'a.hdf5', 'b.hdf5')


@pytest.mark.parametrize('script', ['saveFeatures_1024', 'opticalFlow'])
def test_a_part_that_was_submitted_twice(small_set, tmp_path, script):
    root = copy_set(small_set, tmp_path / 'root')
    folder = root / (variants.FEATURES if script == 'saveFeatures_1024' else
                     variants.clips_folder('flow'))
    report = parts.Report(folder, 2).path
    with locks.only_one(report):
        refused = run_stage(f'{script}.py', 2, '--parts', 24, '--root', root)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f'error: {report}: is being written by process '
                                         f'{os.getpid()} on ')
        assert refused.stderr.count('\n') == 1
        if script == 'opticalFlow':
            return
        # Another part has nothing to do with it, nor has one that looks on.
        assert run_stage(f'{script}.py', 1, '--parts', 24, '--root', root).returncode == 0
        status = run_stage('generate_pbs.py', '--status', '--stage', script, '--root', root,
                           '--parts', 24)
        assert 'part02' in status.stdout and not status.stderr
    assert run_stage(f'{script}.py', 2, '--parts', 24, '--root', root).returncode == 0
    assert not list(folder.glob('.*'))
