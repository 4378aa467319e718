"""Every stage's script, one after the other, as a person runs them: on tiny made-up clips,
and on real ones where they are at hand."""
import json
import shutil

import h5py
import numpy
import pytest

import helperFunctions as hf
from engine import hdf5, variants
from engine.reporting import scoring
from smallSet import run, run_stage


def ok(done):
    assert done.returncode == 0, f'{done.args}\n{done.stdout}\n{done.stderr}'
    assert 'Traceback' not in done.stderr
    return done.stdout


def run_stages(root, frame_flags=(), feature_flags=()):
    ok(run_stage('frameBasedTrain.py', '--root', root, '--tiny', '--features', 24, *frame_flags))
    ok(run('./saveFeatures.sh', '--local', '--root', root, '--parts', 2, *feature_flags))
    ok(run_stage('save_hdf5.py', '--root', root))
    ok(run_stage('normalizeData.py', '--root', root))
    ok(run_stage('singleFrameAccuracy.py', '--root', root))
    ok(run_stage('rnn.py', '--root', root, '--tiny'))
    ok(run_stage('confusion.py', '--root', root))
    return ok(run_stage('results.py', '--root', root))


def check(root):
    lists = hf.read_lists(root)
    for clip in lists.train + lists.test:
        features = numpy.load(variants.output_path(root, variants.FEATURES, clip))
        predictions = numpy.load(variants.output_path(root, variants.FRAME_PREDICTIONS, clip))
        assert features.shape == (len(predictions), 24) and features.dtype == numpy.float32
        numpy.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    results = [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]
    assert [(r['method'], r['unit']) for r in results] == [
        ('frames', 'frame'), ('frames', 'video'), ('LSTM 1x16', 'video')]
    assert results[1]['n'] == results[2]['n'] == len(lists.test)
    # the reported figure is that of the file which the look scripts read
    with h5py.File(root / 'RNN_testPredictions.hdf5') as f:
        said = [scoring.video_log_probability(f[c.name][()], hdf5.attribute(f, 'readout')).argmax()
                for c in lists.test]
    right = [label == clip.label for label, clip in zip(said, lists.test)]
    assert results[2]['top1'] == pytest.approx(numpy.mean(right))
    pngs = [path.name for path in root.glob('*.png')]
    assert 'confusion_frames.png' in pngs and len(pngs) >= 3


def changed(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*.npy')}


def test_all_stages_on_made_up_clips(tmp_path):
    ok(run_stage('demo.py', 'clips', '--root', tmp_path, '--tiny'))
    ok(run_stage('demo.py', 'pretrain', '--root', tmp_path, '--tiny'))
    table = run_stages(tmp_path, ['--no-flip'])
    check(tmp_path)
    assert 'LSTM 1x16' in table and 'frames' in table
    # a second time: what is finished is not done again, and stays as it is
    before = changed(tmp_path / variants.FEATURES)
    ok(run('./saveFeatures.sh', '--local', '--root', tmp_path, '--parts', 2))
    assert before == changed(tmp_path / variants.FEATURES)


def test_all_stages_on_real_clips(real_data, tmp_path):
    """Two classes, five groups of UCF-101, real weights up to conv3_3."""
    clips, lists = tmp_path / 'clips', tmp_path / 'lists'
    lists.mkdir()
    for name in ('PlayingPiano', 'PushUps'):
        (clips / name).mkdir(parents=True)
        for group in (1, 2, 8, 9, 10):
            shutil.copy(real_data / 'UCF-101' / name / f'v_{name}_g{group:02d}_c01.avi',
                        clips / name)
    shutil.copy(real_data / 'ucfTrainTestlist' / 'classInd.txt', lists)
    for side in ('train', 'test'):
        official = (real_data / 'ucfTrainTestlist' / f'{side}list01.txt').read_text()
        kept = [line for line in official.splitlines(keepends=True)
                if (clips / line.split()[0]).exists()]
        (lists / f'{side}list01.txt').write_text(''.join(kept))
    root = tmp_path / 'root'
    ok(run_stage('makeSplit.py', '--root', root, '--clips', clips, '--lists', lists))
    assert [len(side) for side in hf.read_lists(root)] == [2, 6, 4]
    ok(run_stage('convertWeights.py', real_data / 'weights' / 'vgg16_imagenet_conv1_to_conv3.npz',
             '--root', root, '--random-rest', '--channels', '64,128,256,16,16',
             '--hidden', 32, '--input-size', 32))
    run_stages(root, feature_flags=['--step', 20])
    check(root)


def test_a_missing_stage_is_named(tmp_path):
    ok(run_stage('demo.py', 'clips', '--root', tmp_path, '--tiny', '--groups', 3,
             '--clips-per-group', 1))
    for script, flags, made_by in (
            ('frameBasedTrain.py', (), 'convertWeights.py'),
            ('saveFeatures_1024.py', (1,), 'frameBasedTrain.py'),
            ('save_hdf5.py', (), 'frameBasedTrain.py'), ('normalizeData.py', (), 'save_hdf5.py'),
            ('singleFrameAccuracy.py', (), 'save_hdf5.py'), ('rnn.py', (), 'save_hdf5.py'),
            ('confusion.py', (), 'save_hdf5.py')):
        done = run_stage(script, *flags, '--root', tmp_path)
        assert done.returncode == 1, script
        assert made_by in done.stderr and 'Traceback' not in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
