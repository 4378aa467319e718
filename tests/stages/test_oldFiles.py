"""Models and HDF5 files that the code of commit 7668c53 made still load, and stages go on with
them.

tests/old holds them, of 24 clips and small networks: after `python frameBasedTrain.py --tiny
--features 8` on random weights as far as `python rnn.py --test-only --inference full`, and in
answers.npz what VGG_1024.model gave for two random frames.
"""
import json
import shutil
import threading
from pathlib import Path

import smallSet
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import h5py
import numpy
import pytest

import helperFunctions as hf
import normalizeData
import rnn
import singleFrameAccuracy
from engine import hdf5, variants
from engine.errors import UserError
from engine.learning import statistics
from engine.weights.card import read_card
from engine.weights.modelfile import load_weights
from FusionNet import load_frame_network
from saveFeatures_1024 import extract
from VGGNet import VGGNet

OLD = Path(__file__).parents[1] / 'old'


@pytest.fixture
def root(tmp_path):
    return shutil.copytree(OLD, tmp_path / 'root')


@pytest.fixture
def run(root, monkeypatch):
    def run(stage, *flags):
        monkeypatch.setattr('sys.argv', [f'{stage.__name__}.py', '--root', str(root), *flags])
        assert not stage.main()
    return run


def same(path, other, clips):
    with h5py.File(path) as ours, h5py.File(other) as theirs:
        assert hdf5.attributes(ours) == {'fold': '', **hdf5.attributes(theirs)}
        for clip in clips:
            numpy.testing.assert_allclose(ours[clip.name], theirs[clip.name], rtol=1e-5)


def test_an_old_rnn_predicts_from_old_features_what_it_did(root, run):
    clips = hf.read_lists(root).test
    for how, kept in (('full', 'RNN-full-linear'), ('first', 'RNN')):
        (root / f'{kept}_testPredictions.hdf5').unlink()
        run(rnn, '--test-only', '--inference', how)
        name = f'RNN-{how}{"16" * (how == "first")}-linear_testPredictions.hdf5'
        same(root / name, OLD / f'{kept}_testPredictions.hdf5', clips)
    last = json.loads((root / 'results.jsonl').read_text().splitlines()[-1])
    # as the old line of results.jsonl said
    assert last['validation_loss'] == pytest.approx(2.14322330139572, rel=1e-6)
    assert last['loss'] == pytest.approx(2.112675055572134, rel=1e-6)


def test_old_frame_predictions_give_the_old_figures(root, run):
    run(singleFrameAccuracy)
    by_frame, by_video = map(json.loads, (root / 'results.jsonl').read_text().splitlines())
    assert (by_frame['n'], by_video['n']) == (79, 8)
    assert by_frame['loss'] == pytest.approx(2.043220043182373, rel=1e-9)
    assert by_video['loss'] == pytest.approx(2.0326833636729784, rel=1e-9)


def test_old_statistics_are_read_and_made_again_in_their_place(root, run):
    path = root / variants.TRAIN_HDF5
    before = path.read_bytes()
    run(normalizeData)
    assert path.read_bytes() == before  # they were right
    with h5py.File(path, 'r+') as f:
        mean, std = statistics.read(f)
        f['_statistics/mean'][0] += 1
        f['_statistics/digest'][0] += 1
    run(normalizeData)
    with hdf5.open_hdf5(path, '') as f:
        numpy.testing.assert_array_equal(statistics.read(f), (mean, std))
        assert hdf5.read_names(f, 'held_out') and not hdf5.read_names(f, 'missing')
        assert hdf5.clip_names(f) == sorted(clip.name for clip in hf.read_lists(root).train)


def test_a_training_goes_on_with_old_features(root, run):
    run(rnn, '--tiny', '--name', 'new', '--start-from', 'RNN', '--cells', '4', '--hidden', '4')
    assert read_card(root / 'new.model')['training']['epoch']


def test_old_frame_networks_compute_what_they_did():
    model, _ = load_frame_network(OLD / variants.FRAME_MODEL)
    frames = numpy.random.RandomState(0).randint(0, 256, (2, 32, 32, 3)).astype(numpy.uint8)
    got = extract(None, iter([frames]), model, chainer.get_device('@numpy'), threading.Event(),
                  variants.Names())
    with numpy.load(OLD / 'answers.npz') as kept:
        for ours, theirs in zip(got, (kept['features'], kept['predictions'])):
            numpy.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    # the convolutions are those of the network that it began as
    vgg = VGGNet(**read_card(OLD / variants.VGG_MODEL)['shape'])
    load_weights(OLD / variants.VGG_MODEL, vgg)
    numpy.testing.assert_array_equal(vgg.conv5_3.W.array, model.conv5_3.W.array)


def test_an_old_file_beside_files_packed_later_is_refused(root, run):
    with h5py.File(root / variants.TEST_HDF5, 'r+') as f:
        smallSet.say(f, set='another')
    with pytest.raises(UserError, match='not packed together with .* python save_hdf5.py'):
        run(singleFrameAccuracy)
