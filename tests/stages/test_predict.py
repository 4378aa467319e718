"""predict.py against stage 2's features, hand-made averages and a second look at its videos."""
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer.functions as F
import imageio_ffmpeg
import numpy
import pytest
from chainer import using_config
from PIL import Image

import helperFunctions as hf
from engine import variants
import predict
from engine.errors import UserError
from engine.files import load_npy
from engine.video.videosgiven import videos_given
from engine.weights.card import read_card, weights_digest
from engine.weights.modelfile import load_weights, save_model
from engine.video.container import Shape, shape_of
from engine.video.overlay import label_video, panel
from engine.video.sliding import Pictures, moment, slide, zones
from engine.video.decode import Frames, VideoError
from predictSet import about, call, draw, ffmpeg, objects, save_rnn
from smallSet import REPOSITORY, copy_set, run_stage


def probabilities(found, classes):
    """(C,) from a list of {'class', 'probability'}."""
    said = {entry['class']: entry['probability'] for entry in found}
    return numpy.array([said[name] for name in classes])


def joined(softmax, weights):
    """exp of the weighted mean of log, normalised."""
    shares = numpy.exp((numpy.log(softmax) * weights[:, None]).sum(axis=0) / weights.sum())
    return shares / shares.sum()


@pytest.fixture(scope='module')
def root(predict_root):
    return predict_root


# ------------------------------------------------------------------------ what it says

@pytest.mark.parametrize('test_steps, window', [(20, 20), (0, 20)])
def test_clips_are_predicted_as_by_the_stages(root, tmp_path, test_steps, window):
    own = copy_set(root, tmp_path / 'own')
    model = save_rnn(own, 'deep', settings={'steps': window, 'test_steps': test_steps})
    lists = hf.read_lists(root)
    clips = lists.test[:3]
    done = call('--root', own, '--rnn', 'deep', '--top', 99, '--json',
                 *(clip.path for clip in clips))
    assert done.returncode == 0, done.stderr
    for clip, found in zip(clips, objects(done), strict=True):
        frames = load_npy(variants.output_path(root, variants.FRAME_PREDICTIONS, clip))
        frames = frames.astype(float)
        features = load_npy(variants.output_path(root, variants.FEATURES, clip))
        assert found['video'] == str(clip.path) and found['frames_seen'] == len(frames)
        numpy.testing.assert_allclose(
            probabilities(found['predictions']['frames'], lists.classes),
            joined(frames, numpy.ones(len(frames))), atol=1e-4)
        # forward, backward, forward ... as in training, unless it is tested on clips as they are
        shown = [*features, *features[::-1], *features][:window] if test_steps else features
        assert len(features) < window
        model.reset_state()
        with using_config('train', False):
            steps = numpy.concatenate([F.softmax(model(x[None, None])[0]).array for x in shown])
        numpy.testing.assert_allclose(
            probabilities(found['predictions']['rnn'], lists.classes),
            joined(steps.astype(float), numpy.arange(1, len(steps) + 1)), atol=1e-4)


def test_a_long_video_is_the_mean_of_its_windows(root, tmp_path):
    path = draw(tmp_path / 'long.mp4', frames=130)
    done = call('--root', root, '--stride', 30, '--batch', 7, '--top', 99, '--json',
                 path)
    found, = objects(done)
    assert (found['window'], found['frames_seen'], found['seconds']) == (20, 130, 5.2)
    assert [(window['from'], window['to']) for window in found['windows']] == [
        (0, 0.8), (1.2, 2), (2.4, 3.2), (3.6, 4.4), (4.4, 5.2)]
    classes = read_card(root / variants.FRAME_MODEL)['classes']
    rows = numpy.array([probabilities(w['rnn'], classes) for w in found['windows']])
    numpy.testing.assert_allclose(probabilities(found['predictions']['rnn'], classes),
                                  joined(rows, numpy.ones(5)), atol=1e-4)
    # a window is predicted as its frames are when they are all there is
    part = tmp_path / 'part.avi'
    ffmpeg('-i', path, '-vf', 'trim=start_frame=30:end_frame=50', '-an', '-c:v', 'ffv1', part)
    alone, = objects(call('--root', root, '--top', 99, '--json', part))
    for key in ('frames', 'rnn'):
        numpy.testing.assert_allclose(probabilities(found['windows'][1][key], classes),
                                      probabilities(alone['predictions'][key], classes), atol=2e-3)


@pytest.mark.parametrize('n, window, stride, batch', [
    (1, 5, 2, 3), (5, 5, 2, 3), (6, 5, 2, 3), (7, 5, 2, 3), (40, 6, 3, 16), (40, 3, 7, 5),
    (41, 1, 1, 4), (30, 8, 20, 1)])
def test_windows(n, window, stride, batch):
    rows = numpy.arange(n)[:, None]
    got = list(slide(((rows[i:i + batch], -rows[i:i + batch]) for i in range(0, n, batch)),
                     window, stride))
    spans = [(end - window, end) for end in range(window, n + 1, stride)]
    if not spans or spans[-1][1] != n:
        spans.append((max(n - window, 0), n))
    assert [(start, end) for start, end, *_ in got] == spans
    for start, end, features, softmax in got:
        assert features[:, 0].tolist() == list(range(start, end)) == (-softmax[:, 0]).tolist()


def test_lines_for_people(root, tmp_path):
    path = draw(tmp_path / 'a b.mp4', frames=4)
    done = run_stage('predict.py', '--root', root, path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = [line for line in lines if line.startswith(str(path))]
    assert [line.split('  ')[:2] for line in said] == [
        [str(path), 'frames'], [str(path), 'LSTM 1x12']]
    shares = [[float(x) for x in re.findall(r' ([\d.]+) %', line)] for line in said]
    assert all(len(row) == 5 and row == sorted(row, reverse=True) for row in shares)
    assert 'every frame; a window of 20 every 5' in lines[0]
    assert re.search(r'4 frames in .* frames/s, .* x real time on the CPU; quicker: --step \d',
                     lines[-1])
    found, = objects(call('--root', root, '--no-rnn', '--json', path))
    assert list(found['predictions']) == ['frames'] and found['window'] == 120


def test_the_step_is_that_of_the_training_features(root, tmp_path):
    own = copy_set(root, tmp_path / 'own')
    (own / variants.FEATURES).mkdir()
    card = own / variants.FEATURES / 'extraction.json'
    path = draw(tmp_path / 'a.mp4', frames=20)
    for digest, flags, step in ((weights_digest(root / variants.FRAME_MODEL), (), 3),
                                (weights_digest(root / variants.FRAME_MODEL), ('--step', 5), 5),
                                ('another model', (), 1)):
        card.write_text(json.dumps({'model_sha256': digest, 'step': 3}))
        found, = objects(call('--root', own, '--json', *flags, path))
        assert (found['step'], found['frames_seen']) == (step, -(-20 // step))


def test_memory_does_not_grow_with_the_video(root, tmp_path):
    networks = predict.Networks(predict.get_parser().parse_args(['--root', str(root)]))
    peaks = []
    for frames in (300, 1500):
        path = draw(tmp_path / f'{frames}.mp4', '-preset', 'ultrafast', frames=frames, sound=False)
        tracemalloc.start()
        seen = predict.Seen(networks, Frames(path, 32, batch=16, timed=True))
        assert list(seen)[-1][1] == frames
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 1200 frames of 32x32 have 3.7 MB as bytes, and four times so many as floats
    assert peaks[1] - peaks[0] < 5e5


# -------------------------------------------------------------------------- what it draws

def test_the_copy_keeps_frames_moments_size_rate_and_sound(root, tmp_path):
    clips = tmp_path / 'my clips'
    clips.mkdir()
    draw(clips / 'plain.mp4', '-c:a', 'aac', '-pix_fmt', 'yuv420p', size='160x120')
    draw(clips / 'odd sides, pcm.avi', '-c:v', 'ffv1', '-c:a', 'pcm_s16le', size='97x63')
    draw(clips / 'one frame.mkv', frames=1, sound=False)
    draw(clips / 'plain.mov', rate=30, sound=False)
    ffmpeg('-display_rotation', 90, '-i', clips / 'plain.mp4', '-c', 'copy', clips / 'turned.mp4')
    draw(clips / 'uneven.mkv', '-vf', "select='lt(n,20)+not(mod(n,7))'", '-fps_mode', 'vfr',
         '-enc_time_base', '1:1000')
    out = tmp_path / 'out'
    done = call('--root', root, '--out', out, '--json', clips)
    assert done.returncode == 0, done.stderr
    assert len(objects(done)) == 6
    # a name that two videos share keeps its ending
    names = {'plain.mp4': 'plain.mp4', 'plain.mov': 'plain.mov', 'one frame.mkv': 'one frame',
             'odd sides, pcm.avi': 'odd sides, pcm', 'turned.mp4': 'turned', 'uneven.mkv': 'uneven'}
    assert sorted(os.listdir(out)) == sorted(
        f'{name}.predicted{end}' for name in names.values() for end in ('.mp4', '.png', '.json'))
    for source, name in names.items():
        log, times, frames = about(clips / source)
        their_log, their_times, theirs = about(out / f'{name}.predicted.mp4')
        assert theirs.shape == frames.shape and len(times) == len(frames)
        numpy.testing.assert_allclose(their_times, times, atol=0.0011)
        sound = [re.findall(r'Audio: (\w+)', text.split('Output #0')[0])
                 for text in (log, their_log)]
        assert sound[1] == ['aac' for _ in sound[0]]
        # the labels stand below on the left, the rest is the same picture
        difference = abs(theirs.astype(int) - frames).mean(axis=(0, 3))
        tall, wide = difference.shape
        assert difference[:tall // 3].mean() < 6 and difference[-tall // 4:, :wide // 2].mean() > 30
        with Image.open(out / f'{name}.predicted.png') as picture:
            assert picture.width > 1000 and picture.height > 400
        assert json.loads((out / f'{name}.predicted.json').read_text()) in objects(done)
    # outputs are no inputs
    assert [given.path for given in videos_given([out], mark='.predicted')] == [out]


def test_each_panel_has_its_time(tmp_path):
    source = draw(tmp_path / 'a.mp4', '-pix_fmt', 'yuv420p', frames=50)
    colours = [(220, 0, 0, 255), (0, 220, 0, 255), (0, 0, 220, 255)]
    label_video(source, tmp_path / 'b.mp4', (
        (start, Image.new('RGBA', (40, 20), colour))
        for start, colour in zip((0.0, 0.47, 1.21), colours)))
    frames = about(tmp_path / 'b.mp4')[2]
    shown = frames[:, -12, 20].argmax(axis=1)
    # at 25 frames/s frames 12 and 31 are the first after 0.47 and 1.21 s
    assert shown.tolist() == [0] * 12 + [1] * 19 + [2] * 19


def test_a_panel_fits(tmp_path):
    rows = [('A' * 60, 0.7), ('Bowling', 0.2), ('Diving', 0.0)]
    for size in ((320, 240), (1920, 1080), (32, 16), (4000, 60), (2, 2)):
        for pixel in (1, 1.42, 0.5):
            image = panel(rows, Shape('', *size, pixel, ()))
            assert image.mode == 'RGBA' and image.width <= size[0] and image.height <= size[1]

    # a film too small for both shows the name
    for size in ((64, 48), (120, 1080)):
        small = [numpy.asarray(panel([(name, 0.7)], Shape('', *size, 1, ())))
                 for name in ('', 'Dive')]
        assert (small[1] != small[0]).any(axis=2).sum() > 20

    def drawn(share):
        return numpy.asarray(panel([('', share)], Shape('', 320, 240, 1, ())).convert('RGB'))
    full, empty = (drawn(share).astype(int) for share in (1.0, 0.0))
    blue = (full - empty)[..., 2] > 60
    half = (drawn(0.5) - empty)[..., 2] > 60
    assert abs(half.sum() / blue.sum() - 0.5) < 0.1


def test_times_between_windows():
    times = [0.0, 0.1, 0.2, 0.5, 0.6]
    assert moment(times, 2) == 0.2 and moment(times, 5) == pytest.approx(0.75)
    assert zones([(0, 3), (2, 5)], times) == [
        (0, pytest.approx(0.3625), 0), (pytest.approx(0.3625), pytest.approx(0.75), 1)]
    # late pictures, windows that touch, and one that leaves a gap
    times = [3 + 0.1 * i for i in range(10)]
    assert [tuple(round(v, 3) for v in zone[:2]) + zone[2:] for zone in zones(
        [(0, 2), (2, 4), (6, 8), (8, 10)], times)] == [
            (3, 3.2, 0), (3.2, 3.4, 1), (3.4, 3.6, None), (3.6, 3.8, 2), (3.8, 4, 3)]
    assert moment([0.0], 1) == 0.04


def test_pictures_are_evenly_spaced_and_few():
    for n in (1, 7, 8, 9, 1000):
        pictures = Pictures(4)
        for start in range(0, n, 6):
            pictures.add(numpy.arange(start, min(start + 6, n)))
        indices = [index for index, _ in pictures.kept]
        assert indices == list(range(0, n, pictures.every)) and len(indices) <= 8
        assert n < 4 or len(indices) >= 4
        assert all(index == value for index, value in pictures.kept)


# --------------------------------------------------------------------------- bad input

def test_bad_videos_are_named_and_the_rest_goes_on(root, tmp_path):
    folder, nothing, out = tmp_path / 'folder', tmp_path / 'nothing here', tmp_path / 'out'
    folder.mkdir()
    nothing.mkdir()
    (nothing / 'readme.txt').write_text('no video')
    (folder / 'text.mp4').write_text('no video at all\n' * 50)
    (folder / 'empty.avi').touch()
    (folder / 'notes.txt').write_text('no video either')
    draw(folder / 'good.mp4', frames=5)
    ffmpeg('-f', 'lavfi', '-i', 'sine=duration=1', folder / 'sound alone.mp4')
    done = call('--root', root, '--json', '--out', out, folder, nothing,
                 tmp_path / 'missing.avi')
    assert done.returncode == 3
    found = {Path(entry['video']).name: entry for entry in objects(done)}
    assert set(found) == {'text.mp4', 'empty.avi', 'good.mp4', 'sound alone.mp4', 'nothing here',
                          'missing.avi'}
    for name, entry in found.items():
        if name != 'good.mp4':
            assert entry['error'].startswith(entry['video']) and '\n' not in entry['error']
            assert done.stderr.splitlines().count(entry['error']) == 1
    assert 'Traceback' not in done.stderr and found['good.mp4']['frames_seen'] == 5
    assert sorted(os.listdir(out)) == [f'good.predicted.{end}' for end in ('json', 'mp4', 'png')]


def test_one_name_for_two_videos_is_refused(tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'x.avi').touch()
    files = [tmp_path / folder / 'x.avi' for folder in ('a', 'b')]
    with pytest.raises(UserError, match='2 videos'):
        videos_given(files, tmp_path / 'out', '.predicted')
    # below a folder their places tell them apart
    stems = [given.stem for given in videos_given([tmp_path], tmp_path / 'out', '.predicted')]
    assert stems == [tmp_path / 'out' / folder / 'x.predicted' for folder in ('a', 'b')]


def test_networks_that_do_not_belong_together_are_refused(root, tmp_path):
    own = copy_set(root, tmp_path / 'own')
    card = read_card(own / variants.FRAME_MODEL)
    path = draw(tmp_path / 'a.mp4', frames=3)

    def refusal(*flags):
        args = predict.get_parser().parse_args(['--root', str(own), *flags, str(path)])
        with pytest.raises(UserError) as error:
            predict.Networks(args)
        assert '\n' not in str(error.value)
        return str(error.value)
    for changes, why in (({'features': 'of another'}, 'other features'),
                         ({'classes': card['classes'][::-1]}, 'other classes'),
                         ({'classes': card['classes'][:-1]}, 'for None where'),
                         ({'layer': 'pool5'}, '--layer pool5, which predict.py does not take'),
                         ({'stream': 'flow'}, '--stream flow')):
        save_rnn(own, **changes)
        text = refusal()
        assert why in text and 'RNN.model' in text and variants.FRAME_MODEL in text
    assert f'python rnn.py --name other --root {own}' in refusal('--rnn', 'other')
    (own / 'RNN.model').unlink()
    (own / variants.FRAME_MODEL).unlink()
    assert refusal().endswith(f'python frameBasedTrain.py --root {own}')
    model = predict.load_frame_network(root / variants.FRAME_MODEL)[0]
    load_weights(root / variants.FRAME_MODEL, model)
    for field, value in (('stream', 'flow'), ('fusion', 'slow')):
        save_model(own / variants.FRAME_MODEL, model, {**card, field: value})
        assert f'{field} {value}' in refusal()
    save_model(own / variants.FRAME_MODEL, model, {'shape': model.shape})
    assert 'names no classes' in refusal()


def test_videos_or_a_camera(root):
    for flags in ((), ('--camera', '0', 'a.avi')):
        with pytest.raises(UserError, match='name videos'):
            call('--root', root, *flags)
    done = call('--root', root, '--camera', '/dev/no camera')
    assert done.returncode == 3 and '/dev/no camera: no frame' in done.stderr


def test_no_copy_of_what_ffmpeg_cannot_label(tmp_path):
    source = draw(tmp_path / 'a.mp4', frames=3)
    with pytest.raises(VideoError, match='no labelled copy'):
        label_video(source, tmp_path / 'b.mp4', [])
    assert os.listdir(tmp_path) == ['a.mp4']


# ----------------------------------------------------------------------------- camera

def test_a_camera_till_its_end(root, tmp_path):
    done = call('--root', root, '--camera', 'testsrc=size=96x64:rate=25', '--json',
                 '--input-format', 'lavfi', '--seconds', 2, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    found, = objects(done)
    assert found['frames_seen'] == 50 and len(found['windows']) == 7
    assert '0.0 to 0.8 s  LSTM 1x12' in done.stderr
    assert sorted(os.listdir(tmp_path)) == [f'camera.predicted.{end}'
                                            for end in ('json', 'mp4', 'png')]
    _, times, frames = about(tmp_path / 'camera.predicted.mp4')
    assert frames.shape == (50, 64, 96, 3)
    numpy.testing.assert_allclose(times, numpy.arange(50) / 25, atol=1e-3)


def test_ctrl_c_ends_a_camera_with_whole_files(root, tmp_path):
    command = [sys.executable, REPOSITORY / 'predict.py', '--root', root, '--camera',
               'testsrc=size=96x64:rate=25,realtime', '--input-format', 'lavfi', '--out', tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=REPOSITORY, start_new_session=True)
    for line in process.stdout:
        if ' to ' in line:
            break
    # as a terminal does: to this process and to its ffmpeg
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert len(os.listdir(tmp_path)) == 3
    found = json.loads((tmp_path / 'camera.predicted.json').read_text())
    frames = about(tmp_path / 'camera.predicted.mp4')[2]
    assert len(frames) >= found['frames_seen'] >= 20


# ------------------------------------------------------------------------- a real clip

def test_a_real_clip(root, real_data, tmp_path):
    clip = real_data / 'UCF-101' / 'PushUps' / 'v_PushUps_g01_c01.avi'
    done = call('--root', root, '--out', tmp_path, clip)
    assert done.returncode == 0, done.stderr
    count, seconds = imageio_ffmpeg.count_frames_and_secs(tmp_path / f'{clip.stem}.predicted.mp4')
    assert (count, seconds) == imageio_ffmpeg.count_frames_and_secs(clip)
    assert shape_of(tmp_path / f'{clip.stem}.predicted.mp4')[1:3] == (320, 240)
