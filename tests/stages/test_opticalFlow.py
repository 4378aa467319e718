"""The stage of optical flow: in parts, killed and mended, by batch jobs, looked at."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import imageio_ffmpeg
import pytest

import oneNodeSlurm
import opticalFlow
from engine import variants
from engine.video.decode import count_frames
from engine.video.flow import stored_frames
from flowSet import SIZE, clips_of, flow_files, frames_of
from smallSet import REPOSITORY, run, run_stage


@pytest.fixture
def root(flow_set):
    return flow_set


def test_every_clip_has_as_many_flows_as_frames(root):
    made_with = json.loads((root / 'UCF-101_flow' / 'flow.json').read_text())
    assert made_with['size'] == [64, 48] and made_with['bound'] == 20
    for clip in clips_of(root):
        assert stored_frames(variants.flow_path(root, clip)) == count_frames(clip.path)


def test_other_settings_are_refused_until_the_flow_is_removed(root):
    for flags, word in ((('--bound', 40, *SIZE), 'bound'), (('--size', '96x72'), 'size'),
                        ((*SIZE, '--step', 2), 'step'),
                        ((*SIZE, '--method', 'farneback'), 'method')):
        done = run_stage('opticalFlow.py', 1, '--root', root, *flags)
        assert done.returncode == 1 and done.stderr.count('\n') == 1
        assert f'holds flow made with {word}' in done.stderr and 'rm -r' in done.stderr


@pytest.mark.parametrize('flags, word', [
    (('--size', '4x4'), '--size'), (('--bound', '0'), 'above 0'), (('--bound', 'nan'), 'finite'),
    ((), 'part')])
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
    assert stored_frames(alone) == 1
    assert abs(frames_of(alone, (64, 48)).astype(int) - 128).max() <= 1
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


# ------------------------------------------------------------------------------- batch jobs

def test_job_files_and_status(root):
    done = run(REPOSITORY / 'saveFeatures.sh', '--root', root, '--stage', 'opticalFlow',
               '--dry-run', '--parts', '2', *SIZE)
    assert done.returncode == 0, done.stderr
    assert 'no part has clips left' in done.stderr and not done.stdout
    lines = (root / 'jobs_opticalFlow' / 'part02.pbs').read_text().splitlines()
    assert '#PBS -N flow02' in lines and '#PBS -o part02.out' in lines
    assert lines[-1].startswith(f'exec {sys.executable} {REPOSITORY}/opticalFlow.py 2 ')
    assert '--size 64x48' in lines[-1] and '--parts=2' in lines[-1] and '--stage' not in lines[-1]
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
