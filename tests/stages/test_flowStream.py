"""The network that sees flow: how it begins, the later stages with it, and what they wait for."""
import re
import shutil
import sys

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import frameBasedTrain
import helperFunctions as hf
from engine import variants
from engine.cluster.parts import deal
from engine.errors import UserError
from engine.learning.frames import FrameIterator
from engine.video import flowfiles
from engine.video.decode import count_frames
from engine.video.flow import quantise
from engine.video.preprocessing import FLOW_MEAN, mean_of, preprocess, preprocessing
from engine.weights.card import read_card
from engine.weights.modelfile import save_model
from FusionNet import load_frame_network
from VGGNet import VGGNet
from VGGNet_1024 import VGGNet_1024, start_from_pictures
from flowSet import SIZE, clips_of, flow_files, own
from smallSet import REPOSITORY, run, run_stage


@pytest.fixture
def root(flow_set):
    return flow_set


def test_the_first_convolution_is_averaged_over_channels():
    numpy.random.seed(0)
    vgg = VGGNet((8, 8, 8, 8, 8), 32, 10, 32)
    before = vgg.conv1_1.W.array.copy(), vgg.conv1_2.W.array.copy()
    start_from_pictures(vgg)
    for channel in range(3):
        numpy.testing.assert_allclose(
            vgg.conv1_1.W.array[:, channel], (before[0][:, 0] + before[0][:, 1]
                                              + before[0][:, 2]) / 3, rtol=1e-5, atol=1e-7)
    numpy.testing.assert_array_equal(vgg.conv1_2.W.array, before[1])
    # where nothing moves it is given zeros
    still = preprocess(quantise(numpy.zeros((32, 32, 2)), 20)[None], vgg.mean)
    assert vgg.mean == FLOW_MEAN and not still.any()


def test_from_flow_to_features(root, small_set, tmp_path, monkeypatch, capsys):
    other = own(root, tmp_path / 'r')

    def train(*flags):
        monkeypatch.setattr(sys, 'argv', ['frameBasedTrain.py', '--root', str(other), '--tiny',
                                          '--features', '16', *flags])
        return frameBasedTrain.main()
    with pytest.raises(UserError, match='not of flow'):
        train('--stream', 'flow', '--rotate', '3')
    capsys.readouterr()
    assert not train('--stream', 'flow', '--train-layers', '2')
    assert 'conv1_1: not trained' in capsys.readouterr().out
    path = other / 'VGG_1024_flow.model'
    # x and y count alike, so they can be exchanged
    model, _ = load_frame_network(path, stream='flow')
    frames = numpy.random.RandomState(0).randint(256, size=(2, 32, 32, 3)).astype(numpy.uint8)
    numpy.testing.assert_allclose(*(model.feature_and_prediction(frames[..., order])[0]
                                    for order in ([0, 1, 2], [1, 0, 2])), rtol=1e-3, atol=1e-3)
    card = read_card(path)
    assert card['stream'] == 'flow' and card['flow']['bound'] == 20
    assert card['preprocessing']['order'] == 'flow x, flow y, 128'
    assert card['preprocessing']['mean'] == [128, 128, 128]
    with pytest.raises(UserError, match='a network for the stream flow, but it would be given rgb'):
        load_frame_network(path)
    with pytest.raises(UserError, match='a network for the stream rgb, but it would be given flow'):
        mean_of(read_card(other / variants.VGG_MODEL), 'VGG.model', 'flow')
    assert load_frame_network(path, stream='flow')[0].mean == FLOW_MEAN

    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', other, '--stream', 'flow')
    assert done.returncode == 0, done.stdout + done.stderr
    for clip in clips_of(other)[::6]:
        saved = numpy.load(variants.output_path(other, 'UCF-101_features_flow', clip))
        assert len(saved) == count_frames(clip.path)

    # of other flow than the network has learned from
    settings = other / 'UCF-101_flow' / 'flow.json'
    settings.write_text(settings.read_text().replace('"bound": 20.0', '"bound": 40.0'))
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', other, '--stream', 'flow')
    assert done.returncode == 1 and 'trained on flow made with' in done.stderr
    assert done.stderr.count('\n') == 1
    # a network of pictures under the name of one of flow
    shutil.copy(small_set / variants.FRAME_MODEL, path)
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', other, '--stream', 'flow')
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'a network for the stream rgb' in done.stderr


def test_flow_and_fusion_together(root, tmp_path):
    """Windows beyond a clip's ends are the same in stages 1 and 2."""
    other, flags = own(root, tmp_path / 'r'), ('--stream', 'flow', '--fusion', 'early')
    done = run_stage('frameBasedTrain.py', '--root', other, '--tiny', '--features', '16', *flags)
    assert done.returncode == 0 and 'not trained' not in done.stdout, done.stderr
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', other, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    model, card = load_frame_network(other / 'VGG_1024_flow_early.model', stream='flow')
    assert card['stream'] == 'flow' and card['fusion'] == 'early'
    clip = clips_of(other)[0]
    path, saved = variants.flow_path(other, clip), numpy.load(
        variants.output_path(other, 'UCF-101_features_flow_early', clip))
    ends = FrameIterator([clip._replace(path=path)], {clip.name: len(saved)}, 1, 32,
                         offsets=model.offsets, stream='flow')
    for middle in (0, 3, len(saved) - 1):
        window = ends._windows(ends.clips[0], numpy.array([middle]))
        feature, _ = model.feature_and_prediction(preprocess(window, model.mean))
        numpy.testing.assert_allclose(feature[0], saved[middle], rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------ without the flow

def test_without_flow_the_command_that_makes_it_is_named(small_set, tmp_path, monkeypatch):
    for name in (variants.CLIPS, variants.LISTS):
        (tmp_path / name).symlink_to(small_set / name)
    vgg = VGGNet((8, 8, 8, 8, 8), 32, 10, 32)
    save_model(tmp_path / variants.VGG_MODEL, vgg, {'kind': 'VGG', 'shape': vgg.shape})
    done = run_stage('frameBasedTrain.py', '--root', tmp_path, '--tiny', '--stream', 'flow')
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert ('flow.json: not there; made by: ./saveFeatures.sh --stage opticalFlow --local --root '
            f'{tmp_path}\n') in done.stderr


def without(root, target, *numbers):
    """(a root of its own with the flow of these clips removed, those clips)."""
    other = own(root, target)
    gone = [clips_of(other)[number] for number in numbers]
    for clip in gone:
        variants.flow_path(other, clip).unlink()
    return other, gone


def flow_model(root):
    """A VGG_1024_flow.model of random weights for the flow under root."""
    numpy.random.seed(0)
    model = VGGNet_1024((8, 8, 8, 8, 8), 32, 8, 32, 16)
    start_from_pictures(model)
    # As of one that has learned: else what stands still has features of nothing but zeros.
    model.fc7.b.array[...] = numpy.random.randn(16)
    save_model(root / 'VGG_1024_flow.model', model, {
        'kind': 'frames', 'stream': 'flow', 'shape': model.shape,
        'classes': hf.read_lists(root).classes, 'flow': flowfiles.flow_made_with(root),
        'preprocessing': preprocessing(FLOW_MEAN, 'flow')})


def one_error(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count('\n') == 1 and done.stderr.startswith('error: ')
    assert all(word in done.stderr for word in words), done.stderr


def test_training_waits_for_the_flow_of_its_clips_and_names_the_command(root, tmp_path):
    n = len(hf.read_lists(root).train)
    # the last is a test clip, whose flow is not needed yet
    other, gone = without(root, tmp_path / 'r', 3, 1, -1)
    train = ('frameBasedTrain.py', '--root', other, '--tiny', '--features', 16, '--stream', 'flow')
    done = run_stage(*train)
    one_error(done, f'UCF-101_flow: 2 of {n} clips have no flow, {gone[1].name} first')
    assert not (other / 'frameTraining_flow').exists()
    command = re.search(r'made by: (.*) \(or without --local', done.stderr).group(1)
    assert command == f'./saveFeatures.sh --stage opticalFlow --local --size 64x48 --root {other}'
    assert run('bash', '-c', f'cd {REPOSITORY} && {command}').returncode == 0
    assert flow_files(other) == flow_files(root)
    done = run_stage(*train)
    assert done.returncode == 0, done.stderr


def test_a_clip_that_has_no_flow_for_good_is_left_out_and_named(root, tmp_path):
    other, gone = without(root, tmp_path / 'r', 0, 1)
    gone[0].path.write_text('no video')
    assert run_stage('opticalFlow.py', 1, '--parts', 1, '--root', other, *SIZE).returncode == 3
    done = run_stage('frameBasedTrain.py', '--root', other, '--tiny', '--features', 16,
                     '--epochs', 1, '--stream', 'flow')
    assert done.returncode == 3 and done.stdout.count('left out: ') == 1
    assert f'left out: {variants.flow_path(other, gone[0])}: No such file' in done.stdout
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', other, '--stream', 'flow')
    assert done.returncode == 3 and done.stdout.count('failed: ') == 1
    # once the flow is there that clip alone is left, and a job would try it
    shutil.copy(variants.flow_path(root, gone[0]), variants.flow_path(other, gone[0]))
    done = run(REPOSITORY / 'saveFeatures.sh', '--root', other, '--stream', 'flow', '--dry-run',
               '--parts', 1)
    assert done.stderr.splitlines()[-1].split()[3:6] == ['23', '1', '0'], done.stderr
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', other, '--stream', 'flow')
    assert done.returncode == 0 and '23 finished before' in done.stdout


def test_a_part_of_the_features_waits_for_the_flow_of_its_own_clips(root, tmp_path):
    parts = deal(clips_of(root), 2)
    other, _ = without(root, tmp_path / 'r')
    flow_model(other)
    extract = ('saveFeatures_1024.py', '--parts', 2, '--root', other, '--stream', 'flow')
    gone = parts[1][1:3]
    for clip in gone:
        variants.flow_path(other, clip).unlink()
    one_error(run_stage(*extract, 2),
              f'2 of {len(parts[1])} clips have no flow, {gone[0].name} first',
              '--stage opticalFlow')
    assert not (other / 'UCF-101_features_flow').exists()
    done = run_stage(*extract, 1)
    assert done.returncode == 0, done.stdout + done.stderr
    # Parts are the same whatever of the flow is there, and what is finished needs it no more.
    made = {path.stem for path in (other / 'UCF-101_features_flow').rglob('*.npy')}
    assert made == {clip.name for clip in parts[0]}
    for clip in parts[0]:
        variants.flow_path(other, clip).unlink()
    done = run_stage(*extract, 1)
    assert done.returncode == 0 and f'{len(made)} finished before' in done.stdout

    done = run_stage('save_hdf5.py', '--root', other, '--stream', 'flow')
    one_error(done, f'{len(parts[1])} of 24 clips have no good features; make them: '
              './saveFeatures.sh --stage opticalFlow --local --size 64x48 --root',
              f'as 2 have no flow, {[c for c in clips_of(root) if c in gone][0].name} first; then '
              f'./saveFeatures.sh --local --stream flow --root {other} (or without --local')
    for clip in gone:
        shutil.copy(variants.flow_path(root, clip), variants.flow_path(other, clip))
    done = run_stage('save_hdf5.py', '--root', other, '--stream', 'flow')
    one_error(done, f'make them: ./saveFeatures.sh --local --stream flow --root {other} (or '
              'without')


def test_features_and_predictions_of_the_other_stream_are_refused(undisturbed, tmp_path):
    (tmp_path / variants.LISTS).symlink_to(undisturbed / variants.LISTS)
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5, variants.TEST_PREDICTIONS):
        shutil.copy(undisturbed / name, tmp_path / variants.Names('flow').of(name))
    for script in ('rnn.py', 'singleFrameAccuracy.py'):
        done = run_stage(script, '--root', tmp_path, '--stream', 'flow', '--tiny')
        assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
        assert '1024_flow.hdf5: made with --stream rgb, not flow' in done.stderr
    assert not list(tmp_path.glob('RNN*.model'))
