"""Early, late and slow fusion through the stages: what they train, save and refuse."""
import re
import shutil
import sys

import numpy
import pytest

import frameBasedTrain
import helperFunctions as hf
import saveFeatures_1024
from FusionNet import NETWORKS, load_frame_network
from VGGNet_1024 import from_vgg
from engine import variants
from engine.errors import UserError
from engine.files import load_npy
from engine.learning.frames import mirrored
from engine.video.decode import Frames
from engine.video.preprocessing import preprocess
from engine.weights.card import read_card
from engine.weights.modelfile import save_model
from fusionSet import FUSED, make_vgg


@pytest.fixture
def root(small_set, tmp_path):
    """A root with 24 clips of 8 to 12 frames, shorter than late fusion's window."""
    return make_root(small_set, tmp_path / 'root')


def make_root(small_set, root):
    root.mkdir()
    for name in (variants.CLIPS, variants.LISTS):
        (root / name).symlink_to(small_set / name)
    vgg = make_vgg()
    save_model(root / variants.VGG_MODEL, vgg, {'shape': vgg.shape})
    return root


@pytest.fixture
def train(monkeypatch):
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', [
            'frameBasedTrain.py', '--root', str(root), '--tiny', '--features', '8', '--lr',
            '1e-5', *map(str, flags)])
        return frameBasedTrain.main()
    return run


def test_a_stopped_training_of_slow_fusion_goes_on_bit_for_bit(small_set, tmp_path, root, train,
                                                               stopped_after):
    other = make_root(small_set, tmp_path / 'other')
    flags = ('--fusion', 'slow', '--batch', 5, '--frames-per-clip', 2, '--crop', 0.9)
    train(root, *flags)
    stopped_after(3, train, other, *flags)
    train(other, *flags)
    name = 'VGG_1024_slow.model'
    assert (root / name).read_bytes() == (other / name).read_bytes()
    with pytest.raises(UserError, match='train_layers all -> 2'):
        train(root, *flags, '--train-layers', 2)


def test_the_card_says_how_far_the_towers_are_apart(root, train):
    train(root, '--fusion', 'late', '--apart', 4, '--epochs', 1)
    model, card = load_frame_network(root / 'VGG_1024_late.model')
    assert model.offsets == (-2, 2) and card['settings']['apart'] == 4
    with pytest.raises(UserError, match='--apart: of --fusion late alone, not of slow'):
        train(root, '--fusion', 'slow', '--apart', 4)


@pytest.mark.parametrize('fusion, learns', [('single', '2'), ('late', '3'), ('early', 'all')])
def test_what_learns_without_being_asked(root, train, capsys, fusion, learns):
    train(root, '--fusion', fusion, '--epochs', 1)
    card = read_card(root / variants.Names(fusion=fusion).model)
    assert card['fusion'] == fusion and card['settings']['train_layers'] == learns
    model, _ = load_frame_network(root / variants.Names(fusion=fusion).model)
    start = make_vgg()
    n = model.joins('conv1_1')
    same = numpy.array_equal(model.conv1_1.W.array,
                             numpy.concatenate([start.conv1_1.W.array / n] * n, axis=1))
    assert same is (learns != 'all')
    assert 'order of frames' not in capsys.readouterr().out


def test_frozen_layers_that_join_frames_are_told(root, train, capsys):
    train(root, '--fusion', 'late', '--train-layers', 2, '--epochs', 1)
    assert 'fc6: not trained, so the order of frames is not seen' in capsys.readouterr().out


def test_the_top_layer_alone_takes_fc7_as_it_is(root, train):
    with pytest.raises(UserError, match='--train-layers 1 .* 8 units: add --features 8, or'):
        train(root, '--train-layers', 1, '--features', 9)
    train(root, '--train-layers', 1, '--epochs', 1)
    model, _ = load_frame_network(root / variants.FRAME_MODEL)
    numpy.testing.assert_array_equal(model.fc7.W.array, make_vgg().fc7.W.array)


def test_a_clipped_gradient_is_as_long_as_it_may_be(root, train):
    def fc8(*flags):
        train(root, '--train-layers', 1, '--epochs', 1, '--weight-decay', 0, '--momentum', 0,
              '--restart', *flags)
        return load_frame_network(root / variants.FRAME_MODEL)[0].fc8.W.array
    start, free = fc8('--lr', 1e-30), fc8('--lr', 1e-2)
    clipped = fc8('--lr', 1e-2, '--clip', 1e-3)
    # one step: eight clips that are not held out
    assert 0 < numpy.linalg.norm(clipped - start) <= 1e-2 * 1e-3 * 1.01
    assert numpy.linalg.norm(free - start) > 1e-3


# ---- stage 2 ----------------------------------------------------------------------

def save_network(root, fusion):
    """Writes the model of a fusion whose joining layers have learnt; returns its path."""
    classes = hf.read_lists(root).classes
    model = from_vgg(make_vgg(), len(classes), 8, NETWORKS[fusion])
    random = numpy.random.RandomState(1)
    for name in model.taps:
        W = model[name].W.array
        W += (W.std() * random.standard_normal(W.shape)).astype(W.dtype)
    path = root / variants.Names(fusion=fusion).model
    save_model(path, model, {'shape': model.shape, 'fusion': fusion, 'classes': classes})
    return path


def saved(root, fusion, clip):
    names = variants.Names(fusion=fusion)
    return [load_npy(variants.output_path(root, folder, clip))
            for folder in (names.features, names.frame_predictions)]


@pytest.fixture
def extract(monkeypatch, capsys):
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['saveFeatures_1024.py', '1', '--parts', '1', '--root',
                                          str(root), *map(str, flags)])
        return saveFeatures_1024.main()
    return run


@pytest.mark.parametrize('fusion', FUSED)
def test_every_frame_gets_a_feature_whatever_the_batch(root, extract, fusion):
    path = save_network(root, fusion)
    model, _ = load_frame_network(path)
    clips = hf.read_lists(root).test
    assert extract(root, '--fusion', fusion, '--batch', 5) == 0
    before = [saved(root, fusion, c) for c in clips]
    model.fast = False
    for c, (features, predictions) in zip(clips, before):
        frames = numpy.concatenate(list(Frames(c.path, 32)))
        wanted = mirrored(numpy.arange(len(frames))[:, None] + model.offsets, len(frames))
        pair = model.feature_and_prediction(preprocess(frames[wanted]))
        for mine, expected in zip((features, predictions), pair):
            assert mine.shape == expected.shape and mine.dtype == numpy.float32
            assert abs(mine - expected).max() < 1e-4 * abs(expected).max()
    names = variants.Names(fusion=fusion)
    for name in (names.features, names.frame_predictions):
        shutil.rmtree(root / name)
    assert extract(root, '--fusion', fusion, '--batch', 64, '--step', 3) == 0
    for c, pair in zip(clips, before):
        for again, first in zip(saved(root, fusion, c), pair):
            assert again.shape == first[::3].shape
            assert abs(again - first[::3]).max() < 1e-5 * abs(first).max()


def test_features_of_another_fusion_are_refused(root, extract):
    path = save_network(root, 'late')
    path.rename(root / variants.Names(fusion='early').model)
    with pytest.raises(UserError) as error:
        extract(root, '--fusion', 'early')
    assert re.search('a network of fusion late, not early; .*--fusion early', str(error.value))
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='VGG_1024_slow.model: No such file.*--fusion slow'):
        extract(root, '--fusion', 'slow')
    with pytest.raises(UserError, match='two towers'):
        extract(root, '--fusion', 'late', '--layer', 'pool5')


@pytest.mark.parametrize('fusion', ['single', 'slow'])
def test_views_average_predictions_and_leave_features(root, extract, fusion):
    model, _ = load_frame_network(save_network(root, fusion))
    c = hf.read_lists(root).test[0]
    extract(root, '--fusion', fusion)
    plain = saved(root, fusion, c)
    with pytest.raises(UserError, match='add --step 1 --views 1 .*anew, remove them'):
        extract(root, '--fusion', fusion, '--views', 2)
    names = variants.Names(fusion=fusion)
    for folder in (names.features, names.frame_predictions):
        shutil.rmtree(root / folder)
    extract(root, '--fusion', fusion, '--views', 2, '--batch', 64)
    features, predictions = saved(root, fusion, c)
    assert abs(features - plain[0]).max() < 1e-5 * abs(plain[0]).max()
    frames = numpy.concatenate(list(Frames(c.path, 32)))[:, :, ::-1]  # the mirror image
    if fusion != 'single':
        wanted = numpy.arange(len(frames))[:, None] + model.offsets
        frames = frames[mirrored(wanted, len(frames))]
    other = model.feature_and_prediction(preprocess(frames))[1]
    product = numpy.sqrt(plain[1].astype(float) * other)
    product /= product.sum(axis=1, keepdims=True)
    assert abs(other - plain[1]).max() > 1e-3
    numpy.testing.assert_allclose(predictions, product, rtol=1e-3, atol=1e-6)
