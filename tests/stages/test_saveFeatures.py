"""Stage 2: what is saved for a clip, what is not, and what survives a kill."""
import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy
import pytest

import helperFunctions as hf
from engine import variants
from FusionNet import load_frame_network
from engine.errors import DecoderKilled, UserError
from engine.files import load_npy, remove_leftovers, save_npy
from engine.weights.card import weights_digest
from engine.weights.modelfile import save_model
from engine.cluster.parts import deal
from engine.video.decode import Frames, count_frames, read_frames
from engine.video.preprocessing import MEAN, preprocess
from smallSet import N_FEATURES, REPOSITORY, copy_set, features, run_stage, save_random_model

COMMAND = [sys.executable, str(REPOSITORY / 'saveFeatures_1024.py')]


def extract(root, *flags, part=1, parts=1, **options):
    return run_stage('saveFeatures_1024.py', part, '--parts', parts, '--root', root, *flags,
                 **options)


def clips_of(root):
    lists = hf.read_lists(root)
    return lists.train + lists.test


@pytest.fixture
def own_clips(small_set, tmp_path):
    """A root whose clips may be changed."""
    root = tmp_path / 'own'
    shutil.copytree(small_set, root)
    return root


# ---------------------------------------------------------------------- what is saved

def test_both_files_hold_every_frame_in_order(undisturbed):
    model, card = load_frame_network(undisturbed / variants.FRAME_MODEL)
    for clip in clips_of(undisturbed)[::8]:
        saved = load_npy(variants.output_path(undisturbed, variants.FEATURES, clip))
        predictions = load_npy(variants.output_path(undisturbed, variants.FRAME_PREDICTIONS, clip))
        assert saved.dtype == predictions.dtype == numpy.float32
        assert saved.shape == (count_frames(clip.path), N_FEATURES)
        assert predictions.shape == (len(saved), 8)
        numpy.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
        # frame by frame, as stage 1 reads frames and by Chainer's own convolutions
        model.fast = False
        for index in (0, len(saved) // 2, len(saved) - 1):
            frame = read_frames(clip.path, [index], 32)
            feature, prediction = model.feature_and_prediction(preprocess(frame))
            numpy.testing.assert_allclose(saved[index], feature[0], rtol=1e-3, atol=1e-4)
            numpy.testing.assert_allclose(predictions[index], prediction[0], atol=1e-5)


def test_frames_are_those_of_training_and_blue_comes_first(tmp_path):
    path = tmp_path / 'blue.avi'
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-f', 'lavfi', '-i',
                    'color=0x0000ff:size=320x240:duration=1:rate=10', '-c:v', 'mpeg4', '-q:v',
                    '2', path], check=True)
    frames = numpy.concatenate(list(Frames(path, 64, batch=4)))
    numpy.testing.assert_array_equal(frames, read_frames(path, range(len(frames)), 64))
    blue, green, red = frames.mean(axis=(0, 1, 2))
    assert blue > 250 and green < 5 and red < 5
    means = preprocess(frames).mean(axis=(0, 2, 3)) - (frames.mean(axis=(0, 1, 2)))
    numpy.testing.assert_allclose(means, [-m for m in MEAN], rtol=1e-3)


def test_every_nth_frame(undisturbed, small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    assert extract(root, '--step', 3).returncode == 0
    for clip in clips_of(root)[::6]:
        path = variants.output_path(Path(), variants.FEATURES, clip)
        numpy.testing.assert_allclose(load_npy(root / path), load_npy(undisturbed / path)[::3],
                                      rtol=1e-3, atol=1e-5)


def test_bytes_depend_on_neither_parts_nor_workers(undisturbed, small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    env = dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
    assert extract(root, '--workers', 5, part=1, parts=2, env=env).returncode == 0
    assert extract(root, '--workers', 1, part=2, parts=2).returncode == 0
    assert features(root) == features(undisturbed)


def test_batch_changes_no_more_than_rounding(undisturbed, small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    assert extract(root, '--batch', 5).returncode == 0
    for clip in clips_of(root):
        path = variants.output_path(Path(), variants.FEATURES, clip)
        numpy.testing.assert_allclose(load_npy(root / path), load_npy(undisturbed / path),
                                      rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------- the parts

def test_parts_share_all_clips_and_nearly_equal_bytes(tmp_path):
    rng = random.Random(0)
    clips = []
    for number in range(300):
        path = tmp_path / f'v_Class_g{number:03d}_c01.avi'
        os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), rng.randint(50_000, 900_000))
        clips.append(hf.Clip(path.stem, 'Class', 0, f'g{number}', path))
    parts = deal(clips, 12)
    assert sorted(clip for part in parts for clip in part) == sorted(clips)
    loads = [sum(clip.path.stat().st_size for clip in part) for part in parts]
    assert max(loads) < 1.01 * min(loads)
    rng.shuffle(clips)
    assert deal(clips, 12) == parts


def test_parts_do_not_depend_on_what_is_finished(small_set, undisturbed):
    fresh, finished = clips_of(small_set), clips_of(undisturbed)
    names = [[[clip.name for clip in part] for part in deal(clips, 5)]
             for clips in (fresh, finished)]
    assert names[0] == names[1]


# ----------------------------------------------------------------- finished, and not so

def test_only_what_is_not_whole_is_made_again(undisturbed, tmp_path):
    root = tmp_path / 'r'
    shutil.copytree(undisturbed, root, symlinks=True)
    expected = features(root)
    clips = clips_of(root)
    harm = {
        'cut off': lambda f, p: os.truncate(f, os.path.getsize(f) // 2),
        'empty': lambda f, p: os.truncate(p, 0),
        'gone': lambda f, p: p.unlink(),
        'other dtype': lambda f, p: numpy.save(f, numpy.zeros((9, N_FEATURES))),
        'other width': lambda f, p: numpy.save(f, numpy.zeros((9, 3), numpy.float32)),
        'fewer predictions': lambda f, p: numpy.save(p, numpy.load(p)[:-1]),
        'no frame': lambda f, p: [numpy.save(x, numpy.load(x)[:0]) for x in (f, p)],
        'objects': lambda f, p: numpy.save(f, numpy.array([{}])),
        'text': lambda f, p: f.write_text('not an array'),
        'NaN': lambda f, p: numpy.save(f, numpy.load(f) * numpy.nan),
        'NaN predicted': lambda f, p: numpy.save(p, numpy.load(p) * numpy.nan),
    }
    for clip, damage in zip(clips, harm.values()):
        damage(*(variants.output_path(root, folder, clip)
                 for folder in (variants.FEATURES, variants.FRAME_PREDICTIONS)))
    kept = variants.output_path(root, variants.FEATURES, clips[len(harm)])
    before = kept.stat().st_mtime_ns
    done = extract(root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'24 clips in this part, {24 - len(harm)} finished before' in done.stdout
    assert features(root) == expected
    assert kept.stat().st_mtime_ns == before


def test_another_model_or_step_is_refused(undisturbed, tmp_path):
    root = tmp_path / 'r'
    shutil.copytree(undisturbed, root, symlinks=True)
    done = extract(root, '--step', 2)
    assert done.returncode == 1 and 'made with --step 1' in done.stderr
    assert extract(root, '--step', 2, *re.search(  # what it says, done as it says it
        'add (.*) to this command; or.*rm -r', done.stderr)[1].split()).returncode == 0
    (root / variants.FRAME_MODEL).unlink()
    save_random_model(root, seed=1)
    done = extract(root)
    assert done.returncode == 1 and 'made with another model' in done.stderr
    assert done.stderr.count('\n') == 1
    assert features(root) == features(undisturbed)


def test_the_same_weights_saved_again_are_the_same_model(undisturbed, tmp_path):
    root = tmp_path / 'r'
    shutil.copytree(undisturbed, root, symlinks=True)
    path = root / variants.FRAME_MODEL
    digest = weights_digest(path)
    assert digest == json.loads((root / variants.FEATURES / 'extraction.json').read_text())[
        'model_sha256']
    model, card = load_frame_network(path)
    path.unlink()
    save_model(path, model, {**card, 'commit': 'another'})
    assert extract(root).returncode == 0
    save_model(tmp_path / 'model.h5', model, card)
    assert weights_digest(tmp_path / 'model.h5') == digest
    for changed in ({'shape': {**card['shape'], 'input_size': 33}},
                    {'preprocessing': {'mean': [1.0, 2.0, 3.0]}}):
        save_model(path, model, {**card, **changed})
        assert weights_digest(path) != digest
    model.fc7.b.array[0] += 1e-3
    save_model(path, model, card)
    assert weights_digest(path) != digest


def test_model_of_another_split_is_refused(own_clips):
    lists = own_clips / variants.LISTS
    for kind in ('train', 'test'):
        shutil.copy(lists / f'{kind}list01.txt', lists / f'{kind}list02.txt')
    model, card = load_frame_network(own_clips / variants.FRAME_MODEL)
    save_model(own_clips / variants.FRAME_MODEL, model, {**card, 'split': 1})
    for done in (extract(own_clips, '--split', 2),
                 run_stage('save_hdf5.py', '--root', own_clips, '--split', 2)):
        one_error(done, 'trained on split 1', 'test clips of split 2',
                  'another --root: python frameBasedTrain.py --split 2 --root ANOTHER')
    assert not features(own_clips)


def test_model_of_other_classes_is_refused(own_clips):
    names = own_clips / variants.LISTS / 'classInd.txt'
    names.write_text(names.read_text() + '9 Ninth\n')
    done = extract(own_clips)
    assert done.returncode == 1 and 'trained for 8 classes' in done.stderr


# --------------------------------------------------------------------------- bad clips

def test_bad_clips_are_named_and_the_rest_is_done(own_clips, undisturbed):
    clips = clips_of(own_clips)
    whole = {clip: clip.path.read_bytes() for clip in clips[:5]}
    clips[0].path.write_bytes(b'')
    clips[1].path.write_text('no video at all\n' * 100)
    clips[2].path.unlink()
    clips[3].path.write_bytes(whole[clips[3]][:400])
    clips[4].path.write_bytes(whole[clips[4]][:len(whole[clips[4]]) * 6 // 10])
    done = extract(own_clips)
    assert done.returncode == 3 and not done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith('failed: ')]
    short = [line for line in done.stdout.splitlines() if line.startswith('short: ')]
    assert sorted(line.split(': ')[1] for line in failed) == sorted(
        str(clip.path) for clip in clips[:4])
    assert len(short) == 1 and str(clips[4].path) in short[0]
    assert 'No such file' in next(line for line in failed if clips[2].name in line)
    frames = len(load_npy(variants.output_path(own_clips, variants.FEATURES, clips[4])))
    of_whole = load_npy(variants.output_path(undisturbed, variants.FEATURES, clips[4]))
    assert 0 < frames < len(of_whole)
    assert len(features(own_clips)) == 40
    report = (own_clips / variants.FEATURES / 'part01.txt').read_text().splitlines()
    assert [line.split('\t')[0] for line in sorted(report)] == ['failed'] * 4 + ['short']

    # Mended clips are taken by the same command, and the list of failures is empty again.
    for clip in clips[:4]:
        clip.path.write_bytes(whole[clip])
    assert extract(own_clips).returncode == 0
    assert len(features(own_clips)) == 48
    assert 'failed' not in (own_clips / variants.FEATURES / 'part01.txt').read_text()


def test_a_feature_that_is_not_finite_is_not_saved(own_clips):
    model, card = load_frame_network(own_clips / variants.FRAME_MODEL)
    model.fc7.W.array[0] = 3e38  # which float32 still holds, and no sum of them
    save_model(own_clips / variants.FRAME_MODEL, model, card)
    done = extract(own_clips, '--step', 8)
    assert done.returncode == 3
    assert done.stdout.count('not finite') == 24 and not features(own_clips)


# ------------------------------------------------------------------------ kills, stops

def started(root, *flags, group=False):
    """Starts the stage and waits until it is at its clips."""
    process = subprocess.Popen([*COMMAND, '1', '--parts', '1', '--root', str(root), *flags],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=group)
    while 'finished before' not in process.stdout.readline():
        assert process.poll() is None
    return process


def test_killed_at_any_moment_and_restarted_gives_the_same_bytes(undisturbed, small_set,
                                                                 tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    rng = random.Random(0)
    for _ in range(4):
        process = started(root)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
    assert extract(root).returncode == 0
    assert features(root) == features(undisturbed)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_the_job_leaves_whole_clips(number, undisturbed, small_set,
                                                                 tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    process = started(root, group=True)
    while not (root / variants.FEATURES / 'part01.txt').exists():  # written last before the clips
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=20)
    expected = features(undisturbed)
    if process.returncode != 0:  # it may have come to the end before it heard
        assert process.returncode == 4
        assert f'stopped ({number.name}); the same command goes on' in out
    assert 'failed' not in (root / variants.FEATURES / 'part01.txt').read_text()
    assert all(expected[name] == data for name, data in features(root).items())
    assert extract(root).returncode == 0
    assert features(root) == expected


def test_clip_whose_decoder_is_killed_is_not_taken_for_whole(own_clips, monkeypatch, tmp_path):
    # ffmpeg answers SIGTERM by ending well after a part of the frames.
    fake = tmp_path / 'ffmpeg'
    fake.write_text('#!/bin/bash\nhead -c 6144 /dev/zero\n'
                    'echo "[info] Exiting normally, received signal 15." >&2\nexit 255\n')
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, 'get_ffmpeg_exe', lambda: str(fake))
    for read in (lambda: list(Frames('x.avi', 32)), lambda: read_frames('x.avi', [0, 5], 32),
                 lambda: count_frames('x.avi')):
        with pytest.raises(DecoderKilled, match='x.avi'):
            read()


def test_a_pipe_or_a_device_is_no_clip(own_clips):
    pipe, device = (clip.path for clip in clips_of(own_clips)[:2])
    for path in (pipe, device):
        path.unlink()
    os.mkfifo(pipe)
    device.symlink_to('/dev/zero')
    done = extract(own_clips, timeout=60)
    assert done.returncode == 3
    for path in (pipe, device):
        assert f'{path}: no file but a pipe, a socket or a device' in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith('part 1: 22 clips finished, 2 failed')


def waiting_at(path, tmp_path, monkeypatch):
    """As on a file system that hangs: each ffmpeg waits at this clip until somebody opens what is
    returned for writing, and closes it."""
    hold, slow = tmp_path / 'hold', tmp_path / 'slow'
    os.mkfifo(hold)
    slow.write_text(f'''#!/bin/sh
case "$*" in *{path.name}*) read line < '{hold}' ;; esac
exec '{imageio_ffmpeg.get_ffmpeg_exe()}' "$@"
''')
    slow.chmod(0o755)
    monkeypatch.setenv('IMAGEIO_FFMPEG_EXE', str(slow))
    return hold


def test_leaves_before_the_walltime_is_over(small_set, tmp_path, monkeypatch):
    root = copy_set(small_set, tmp_path / 'r')
    hold = waiting_at(clips_of(root)[0].path, tmp_path, monkeypatch)
    begin = time.monotonic()
    done = extract(root, '--walltime', '00:02:08', '--margin', 120)
    assert done.returncode == 4
    assert 'stopped (120 s are left of --walltime)' in done.stdout
    assert time.monotonic() - begin < 60
    with contextlib.suppress(OSError):  # of one that still waits
        os.close(os.open(hold, os.O_WRONLY | os.O_NONBLOCK))


def test_of_two_jobs_at_the_same_part_one_works(undisturbed, small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    both = [subprocess.Popen([*COMMAND, '1', '--parts', '1', '--root', str(root)], text=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    # or both, where the second began when the first was done
    assert sorted(codes) in ([0, 1], [0, 0])
    assert all('is being written by process' in text for text, code in zip(said, codes) if code)
    assert features(root) == features(undisturbed)


# ---------------------------------------------------------------------- a bad target

def leftovers(root):
    return list(root.rglob('.*.part'))


def one_error(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count('\n') == 1 and done.stderr.startswith('error: ')
    assert all(word in done.stderr for word in words), done.stderr


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / 'a.npy'
    save_npy(path, numpy.arange(3))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, 'fsync', full)  # where a disk that is full may say so first
    with pytest.raises(UserError, match='a.npy: cannot be written: No space left on device'):
        save_npy(path, numpy.arange(4))
    assert list(tmp_path.iterdir()) == [path] and len(load_npy(path)) == 3


@pytest.mark.skipif(sys.platform != 'linux' or os.geteuid() != 0, reason='mounting needs root')
def test_full_and_read_only_file_systems(small_set, tmp_path):
    target = tmp_path / 'disk'
    target.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', target],
                      capture_output=True).returncode:
        pytest.skip('no right to mount')
    try:
        root = copy_set(small_set, target / 'r')
        one_error(extract(root), 'No space left on device')
        assert not leftovers(root)
        for path in (root / variants.FEATURES).rglob('*.npy'):
            load_npy(path)
        subprocess.run(['mount', '-o', 'remount,ro', target], check=True)
        one_error(extract(root), 'Read-only file system')
    finally:
        subprocess.run(['umount', target], check=True)


def test_vanished_clips_stop_the_part_and_fail_no_clip(own_clips, tmp_path, monkeypatch):
    # The clips go away once the stage has dealt them out.
    hold = waiting_at(deal(clips_of(own_clips), 1)[0][0].path, tmp_path, monkeypatch)
    process = started(own_clips, '--workers', '1')
    pipe = os.open(hold, os.O_WRONLY)  # once ffmpeg waits for it
    os.rename(own_clips / variants.CLIPS, own_clips / 'elsewhere')
    os.close(pipe)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f'error: {own_clips / variants.CLIPS}: not there any more' in out
    assert 'failed' not in (own_clips / variants.FEATURES / 'part01.txt').read_text()


def test_only_old_leftovers_of_own_files_are_removed(tmp_path):
    names = {'.a.npy.x1y2.part': True, '.a.npy.new0.part': False, '.b.npy.x1y2.part': False,
             'a.npy': False, '.a.npy.part': False}
    for name, old in names.items():
        (tmp_path / name).touch()
        if name != '.a.npy.new0.part':
            os.utime(tmp_path / name, (0, 0))
    remove_leftovers([tmp_path / 'a.npy', tmp_path / 'nowhere' / 'a.npy'])
    assert {path.name for path in tmp_path.iterdir()} == {
        name for name, gone in names.items() if not gone}


def test_claim_is_written_once(undisturbed):
    claim = json.loads((undisturbed / variants.FEATURES / 'extraction.json').read_text())
    assert claim['step'] == 1 and len(claim['model_sha256']) == 64
