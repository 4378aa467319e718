"""Optical flow: known motions, bytes, files, the stage in parts, and the network that sees it."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import imageio_ffmpeg
import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import frameBasedTrain
import helperFunctions as hf
from engine import variants
from engine.video import flowfiles
import opticalFlow
import oneNodeSlurm
from VGGNet import VGGNet
from FusionNet import load_frame_network
from VGGNet_1024 import VGGNet_1024, start_from_pictures
from bench.flow import move, textures
from engine.video.augmentation import Augmentation, mirror, views
from engine.errors import UserError
from engine.video.flow import (FlowWriter, colours, dequantise, flow_of_frames, get_method, quantise,
                         save_flow, stored_frames, wheel)
from engine.learning.frames import FrameIterator
from engine.weights.modelfile import read_card, save_model
from engine.cluster.parts import deal
from engine.video.decode import Frames, count_frames, read_frames
from engine.video.preprocessing import FLOW_MEAN, mean_of, preprocess, preprocessing
from smallSet import REPOSITORY, run, run_stage, vgg_set

SIZE = ('--size', '64x48')


def frames_of(path, size):
    return numpy.concatenate(list(Frames(path, size)))


@pytest.fixture(scope='module')
def root(small_set, tmp_path_factory):
    """Clips, lists, VGG.model and flow; only to be read."""
    root = vgg_set(small_set, tmp_path_factory.mktemp('flow') / 'root')
    for part in (1, 2):
        done = run_stage('opticalFlow.py', part, '--parts', 2, '--root', root, *SIZE)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def own(root, target):
    """A root whose flow and clips may be changed."""
    shutil.copytree(root, target)
    return target


def clips_of(root):
    lists = hf.read_lists(root)
    return lists.train + lists.test


def flow_files(root):
    return {path.name: path.read_bytes() for path in (root / 'UCF-101_flow').rglob('*.mkv')}


# ------------------------------------------------------------------------- known motion

@pytest.mark.parametrize('motion', [dict(dx=.3, dy=-.2), dict(dx=2.5, dy=1.5),
                                    dict(dx=-6.3, dy=3.1), dict(zoom=1.03)])
def test_known_motion_is_found_within_a_fifth_of_a_pixel(motion):
    random = numpy.random.RandomState(0)
    for picture in textures(2, (320, 240), random):
        before, after, flow, valid = move(picture, None, random, **motion)
        found = dequantise(quantise(get_method('dis-fast')(before, after), 20), 20)
        error = numpy.hypot(*numpy.moveaxis(found - flow, 2, 0))[valid]
        assert error.mean() < 0.2
        # x is to the right and y down, and not the other way round
        for channel in (0, 1):
            told, truth = found[..., channel][valid].mean(), flow[..., channel][valid].mean()
            assert abs(told - truth) < 0.2


def test_a_shifted_real_frame(real_data):
    clip = sorted((real_data / variants.CLIPS / 'BasketballDunk').glob('*.avi'))[3]
    frame = cv2.cvtColor(read_frames(clip, [10], (320, 240))[0], cv2.COLOR_BGR2GRAY)
    moved = cv2.warpAffine(frame, numpy.float64([[1, 0, 3.4], [0, 1, -1.7]]), (320, 240),
                           flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    flow = get_method('dis-fast')(frame, moved)[20:-20, 20:-20]
    assert abs(numpy.median(flow[..., 0]) - 3.4) < 0.2
    assert abs(numpy.median(flow[..., 1]) + 1.7) < 0.2


def test_a_method_that_this_opencv_lacks_is_one_line(tmp_path):
    if hasattr(cv2, 'optflow_DualTVL1OpticalFlow'):
        pytest.skip('it has TV-L1')
    with pytest.raises(UserError, match='opencv-contrib-python-headless'):
        get_method('tvl1')


# -------------------------------------------------------------------------------- bytes

@pytest.mark.parametrize('bound', [20, 40, 3.5])
def test_quantised_and_back_within_half_a_step_and_negated_exactly(bound):
    flow = numpy.random.RandomState(0).uniform(-bound, bound, (40, 50, 2)).astype('f')
    flow[0, :5] = [[0, bound], [bound, 0], [-bound, 0], [0, 0], [bound / 254, -bound / 254]]
    frame = quantise(flow, bound)
    assert frame.dtype == numpy.uint8 and (frame[..., 2] == 128).all() and frame.min() >= 1
    assert tuple(frame[0, 3]) == (128, 128, 128)
    assert abs(dequantise(frame, bound) - flow).max() <= bound / 254 * 1.0001
    numpy.testing.assert_array_equal(quantise(-flow, bound)[..., :2].astype(int),
                                     256 - frame[..., :2].astype(int))
    far = quantise(numpy.float32([[[1e6, -1e6]]]), bound)
    assert tuple(far[0, 0]) == (255, 1, 128)


def test_as_many_flows_as_frames_and_the_last_is_repeated():
    random = numpy.random.RandomState(0)
    frames = random.randint(256, size=(4, 48, 64, 3)).astype(numpy.uint8)

    def method(before, after):
        return numpy.full((48, 64, 2), float(after.mean()) - float(before.mean()), 'f')
    found = list(flow_of_frames(frames, method, 20))
    assert len(found) == 4
    numpy.testing.assert_array_equal(found[2], found[3])
    assert not numpy.array_equal(found[1], found[2])
    alone, = flow_of_frames(frames[:1], method, 20)
    assert (alone == 128).all()
    assert list(flow_of_frames([], method, 20)) == []


def test_stored_flow_is_read_back_nearly_as_it_was(real_data, tmp_path):
    clip = sorted((real_data / variants.CLIPS / 'PushUps').glob('*.avi'))[0]
    truth = numpy.stack(list(flow_of_frames(frames_of(clip, (320, 240))[:30],
                                            get_method('dis-fast'), 20)))
    path = tmp_path / 'flow.mkv'
    with FlowWriter(path, (320, 240)) as writer:
        for frame in truth:
            writer.write(frame)
    assert stored_frames(path) == count_frames(path) == 30
    got = frames_of(path, (320, 240))
    error = abs(got.astype(int) - truth)
    assert error[..., :2].mean() < 0.3 and numpy.percentile(error[..., :2], 99.9) <= 4
    assert error[..., 2].max() <= 3
    # as stages read it, scaled by ffmpeg: no channel runs into another
    small = frames_of(path, 64).astype(float)
    expected = numpy.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA)
                            for frame in truth])
    assert abs(small - expected).mean() < 0.4
    assert path.stat().st_size < 30 * 320 * 240 / 20


def test_a_file_cut_off_is_not_taken_for_whole(root, tmp_path):
    path = next((root / 'UCF-101_flow').rglob('*.mkv'))
    data = path.read_bytes()
    assert stored_frames(path) == count_frames(path)
    for i, harmed in enumerate((data[:-1], data[:300], data[:10], b'', data + b'x', b'text' * 99)):
        target = tmp_path / f'{i}.mkv'
        target.write_bytes(harmed)
        assert stored_frames(target) == 0
    assert stored_frames(tmp_path / 'none.mkv') == 0


def test_nothing_is_left_of_a_flow_that_was_stopped_or_cannot_be_written(small_set, tmp_path):
    clip = clips_of(small_set)[0]
    assert save_flow(clip.path, tmp_path / 'a.mkv', 'dis-fast', 20, (64, 48),
                     stopped=lambda: True) is None
    with pytest.raises(UserError, match='x.mkv: cannot be written'):
        with FlowWriter(tmp_path / 'x.mkv', (64, 48), codec=('-c:v', 'no-such-codec')) as writer:
            for _ in range(50):
                writer.write(numpy.full((48, 64, 3), 128, numpy.uint8))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------ the stage

def test_every_clip_has_as_many_flows_as_frames(root):
    made_with = json.loads((root / 'UCF-101_flow' / 'flow.json').read_text())
    assert made_with['size'] == [64, 48] and made_with['bound'] == 20
    for clip in clips_of(root):
        assert stored_frames(variants.flow_path(root, clip)) == count_frames(clip.path)


def test_every_nth_frame(small_set, tmp_path):
    clip = clips_of(small_set)[0]
    taken = save_flow(clip.path, tmp_path / 'f.mkv', 'dis-fast', 20, (64, 48), step=3)
    expected = -(-count_frames(clip.path) // 3)
    assert taken.count == stored_frames(tmp_path / 'f.mkv') == expected
    frames = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f in frames_of(clip.path, (64, 48))[::3]]
    truth = quantise(get_method('dis-fast')(frames[0], frames[1]), 20)
    first = read_frames(tmp_path / 'f.mkv', [0], (64, 48))[0]
    assert abs(first.astype(int) - truth).mean() < 0.5


def test_other_settings_are_refused_until_the_flow_is_removed(root):
    for flags, word in ((('--bound', 40, *SIZE), 'bound'), (('--size', '96x72'), 'size'),
                        ((*SIZE, '--step', 2), 'step'),
                        ((*SIZE, '--method', 'farneback'), 'method')):
        done = run_stage('opticalFlow.py', 1, '--root', root, *flags)
        assert done.returncode == 1 and done.stderr.count('\n') == 1
        assert f'holds flow made with {word}' in done.stderr and 'rm -r' in done.stderr


@pytest.mark.parametrize('flags, word', [(('--size', '4x4'), '--size'), (('--bound', '0'), 'above 0'),
                                         (('--bound', 'nan'), 'above 0'), ((), 'part')])
def test_wrong_flags(flags, word, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['opticalFlow.py', '--root', str(tmp_path), *flags])
    with pytest.raises(SystemExit) as error:
        opticalFlow.main()
    assert error.value.code == 2 and word in capsys.readouterr().err


def test_killed_and_bad_clips_then_mended_gives_the_same_bytes(root, tmp_path):
    other = tmp_path / 'r'
    other.mkdir()
    shutil.copytree((root / variants.CLIPS).resolve(), other / variants.CLIPS)
    (other / variants.LISTS).symlink_to(root / variants.LISTS)
    command = [sys.executable, str(REPOSITORY / 'opticalFlow.py'), '1', '--parts', '1', '--root',
               str(other), *SIZE]
    # one is killed, one is told to go
    for number, codes in ((signal.SIGKILL, (-9,)), (signal.SIGTERM, (4, 0))):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while 'finished before' not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(0.3)
        process.send_signal(number)
        process.communicate(timeout=20)
        # One that had done all of it was leaving already, and no longer listened.
        assert process.returncode in codes or (process.returncode == -number
                                               and flow_files(other) == flow_files(root))
        expected = flow_files(root)
        assert all(expected[name] == data for name, data in flow_files(other).items())
    clips = clips_of(other)
    shutil.rmtree(other / 'UCF-101_flow')
    whole = {clip: clip.path.read_bytes() for clip in clips[:3]}
    clips[0].path.write_text('no video at all\n' * 100)
    clips[1].path.unlink()
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-y', '-f', 'lavfi',
                    '-i', 'testsrc=size=64x48:rate=10', '-frames:v', '1', clips[2].path],
                   check=True)
    done = run_stage('opticalFlow.py', 1, '--parts', 1, '--root', other, *SIZE)
    assert done.returncode == 3 and not done.stderr
    told = sorted(line for line in done.stdout.splitlines()
                  if line.startswith(('failed: ', 'still: ')))
    assert [line.split(':')[0] for line in told] == ['failed', 'failed', 'still']
    assert all(str(clip.path) in ''.join(told) for clip in clips[:3])
    alone = variants.flow_path(other, clips[2])
    assert stored_frames(alone) == 1 and abs(frames_of(alone, (64, 48)).astype(int) - 128).max() <= 1
    for clip, data in whole.items():
        clip.path.write_bytes(data)
    alone.unlink()
    assert run_stage('opticalFlow.py', 1, '--parts', 1, '--root', other, *SIZE).returncode == 0
    assert flow_files(other) == flow_files(root)
    assert not (other / 'UCF-101_flow' / 'part01.txt').read_text()
    assert not list(other.rglob('.*.part'))


def test_pictures_of_flow(root):
    clip = clips_of(root)[0].name
    done = run_stage('opticalFlow.py', '--show', clip, '--root', root)
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(root / f'flow_{clip}.png'))
    assert min(picture.shape[:2]) > 500
    done = run_stage('opticalFlow.py', '--show', 'v_Nobody_g01_c01', '--root', root)
    assert done.returncode == 1 and 'not on the lists' in done.stderr


def test_colours_of_directions():
    flow = numpy.float32([[[5, 0], [0, 5], [-5, 0], [0, -5], [0, 0], [50, 0]]])
    right, down, left, up, still, far = colours(flow, 5)[0].tolist()
    assert right == far == [255, 0, 0] and still == [255, 255, 255]
    assert left == [0, 255, 255] and down[1] == 255 and up[2] == 255
    legend = wheel(101, 5)
    assert legend[50, 98].tolist()[0] == 255 and legend[50, 98][1] < 20
    assert (legend[50, 50] == 255).all() and (legend[0, 0] == 255).all()


# ------------------------------------------------------------------------------- batch jobs

def test_job_files_and_status(root):
    done = run(REPOSITORY / 'saveFeatures.sh', '--root', root, '--stage', 'opticalFlow',
               '--dry-run', '--parts', '2', *SIZE)
    assert done.returncode == 0, done.stderr
    assert 'no part has clips left' in done.stderr and not done.stdout
    lines = (root / 'jobs_opticalFlow' / 'part02.pbs').read_text().splitlines()
    assert '#PBS -N flow02' in lines and '#PBS -o part02.out' in lines
    assert lines[-1].startswith(f'exec {sys.executable} {REPOSITORY}/opticalFlow.py 2 ')
    assert '--size 64x48' in lines[-1] and '--parts 2' in lines[-1] and '--stage' not in lines[-1]
    assert not (root / 'jobs_opticalFlow' / 'pack.pbs').exists()
    done = run(REPOSITORY / 'saveFeatures.sh', '--root', root, '--stage=opticalFlow', '--status',
               '--parts', '2', env=dict(os.environ, PATH='/usr/bin:/bin'))
    total = done.stdout.splitlines()[-1].split()
    assert total[:2] == ['all', '24'] and total[3:6] == ['24', '0', '0']
    assert int(total[6]) == sum(count_frames(clip.path) for clip in clips_of(root))
    done = run(REPOSITORY / 'saveFeatures.sh', '--root', root, '--stage', 'opticalFlow',
               '--then-pack')
    assert done.returncode == 1 and 'nothing is packed' in done.stderr


@pytest.mark.skipif(bool(oneNodeSlurm.missing()), reason='Slurm is not installed')
def test_jobs_on_a_real_slurm(root, tmp_path):
    other = tmp_path / 'r'
    other.mkdir()
    for name in (variants.CLIPS, variants.LISTS):
        (other / name).symlink_to(root / name)
    with oneNodeSlurm.OneNodeSlurm(cpus=2) as slurm:
        done = run(REPOSITORY / 'saveFeatures.sh', '--root', other, '--stage', 'opticalFlow',
                   '--parts', '2', '--ppn', '1', *SIZE, env=slurm.env)
        assert done.returncode == 0, done.stderr
        end = time.monotonic() + 100
        while slurm.ask('squeue', '-h').stdout and time.monotonic() < end:
            time.sleep(0.2)
        status = run(REPOSITORY / 'saveFeatures.sh', '--root', other, '--stage', 'opticalFlow',
                     '--status', env=slurm.env)
    assert status.returncode == 0, status.stdout
    assert flow_files(other) == flow_files(root)


# ------------------------------------------------------------------------------ the network

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


def test_a_mirrored_clip_has_the_mirrored_flow():
    """Flip of the flow against the flow of flipped frames: only x changes its sign."""
    random = numpy.random.RandomState(0)
    picture, = textures(1, (128, 128), random)
    before, after, _, _ = move(picture, None, random, dx=4, dy=2)
    method = get_method('dis-medium')
    flow = quantise(method(before, after), 20)
    of_mirrored = quantise(method(before[:, ::-1].copy(), after[:, ::-1].copy()), 20)
    mirrored = mirror(flow[None], 'flow')[0]
    inner = (slice(12, -12), slice(12, -12))
    assert abs(mirrored.astype(int) - of_mirrored)[inner][..., :2].mean() < 1
    assert mirrored[inner][..., 0].mean() < 110 and flow[inner][..., 0].mean() > 146
    numpy.testing.assert_array_equal(mirror(mirrored[None], 'flow')[0], flow)
    assert (mirrored[..., 2] == 128).all()
    # a byte 0, which only a codec can leave, is no motion to the far right of 256
    assert mirror(numpy.zeros((1, 2, 2, 3), numpy.uint8), 'flow')[0, 0, 0, 0] == 255


def test_augmentation_and_views_of_flow():
    flow = quantise(numpy.full((32, 32, 2), [4.0, -8.0]), 20)
    window = numpy.tile(flow, 4)[None]  # of four moments
    flipped = Augmentation(flip=True, stream='flow')
    seen = {tuple(flipped(window, numpy.random.RandomState(seed))[0, 0, 0]) for seed in range(20)}
    x, y = map(int, flow[0, 0, :2])
    assert seen == {(x, y, 128) * 4, (256 - x, y, 128) * 4}
    # twice as near, twice as far in as many pixels
    zoomed = Augmentation(crop=0.5, stream='flow')(flow[None], numpy.random.RandomState(0))
    numpy.testing.assert_allclose(dequantise(zoomed[0], 20)[0, 0], [8, -16], atol=0.2)
    assert (zoomed[..., 2] == 128).all()
    whole, other, corner = (view(flow[None]) for view in views(10, 'flow')[:3])
    numpy.testing.assert_array_equal(whole[0], flow)
    assert other[0, 0, 0, 0] == 256 - x
    numpy.testing.assert_allclose(dequantise(corner[0], 20)[0, 0], [4 / .875, -8 / .875], atol=.2)
    with pytest.raises(ValueError):
        Augmentation(rotate=3, stream='flow')


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
    done = run_stage('frameBasedTrain.py', '--root', other, '--tiny', '--features', 16, '--epochs', 1,
                 '--stream', 'flow')
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
    one_error(run_stage(*extract, 2), f'2 of {len(parts[1])} clips have no flow, {gone[0].name} first',
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
    one_error(done, f'make them: ./saveFeatures.sh --local --stream flow --root {other} (or without')


def test_features_and_predictions_of_the_other_stream_are_refused(undisturbed, tmp_path):
    (tmp_path / variants.LISTS).symlink_to(undisturbed / variants.LISTS)
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5, variants.TEST_PREDICTIONS):
        shutil.copy(undisturbed / name, tmp_path / variants.Names('flow').of(name))
    for script in ('rnn.py', 'singleFrameAccuracy.py'):
        done = run_stage(script, '--root', tmp_path, '--stream', 'flow', '--tiny')
        assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
        assert '1024_flow.hdf5: made with --stream rgb, not flow' in done.stderr
    assert not list(tmp_path.glob('RNN*.model'))
