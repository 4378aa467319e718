"""Whole runs on a real Slurm of one node: killed, sent again, packed, requeued."""
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time

import h5py
import pytest

import oneNodeSlurm
from engine import variants
from engine.cluster import record
from smallSet import REPOSITORY, copy_set, features, run

SCRIPT = REPOSITORY / 'saveFeatures.sh'


def submit(root, *flags, **options):
    return run(SCRIPT, '--root', root, *flags, **options)


def sent_jobs(folder):
    """{part: job id}"""
    return {part: sent.job for part, sent in record.read(folder).items()}


@pytest.fixture(scope='module')
def slurm():
    if oneNodeSlurm.missing():
        pytest.skip('Slurm is not installed: no ' + ', '.join(oneNodeSlurm.missing()))
    with oneNodeSlurm.OneNodeSlurm(cpus=4) as started:
        yield started


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.2)


def job_state(slurm, job):
    words = slurm.ask('scontrol', '-o', 'show', 'job', job).stdout.split()
    return next(word.split('=')[1] for word in words if word.startswith('JobState='))


def same_hdf5(one, other):
    """Whether two HDF5 files hold the same, data set by data set."""
    def contents(path):
        found = {}
        with h5py.File(path) as f:
            f.visititems(lambda name, item: found.__setitem__(
                name, item[()].tobytes() if isinstance(item, h5py.Dataset) else None))
        return found
    return contents(one) == contents(other)


# Stands before python in each job. In their first run parts 3 and 5 stop dead once they
# have begun; a SIGTERM wakes part 5, as it would a program at work, and part 3 never.
LAUNCHER = """#!/bin/bash
part=$3 log=part0$3.log
case $part in 3 | 5) if mkdir "disturbed$part" 2>/dev/null; then
    {
        [ "$part" = 3 ] || trap 'kill -CONT $$; exit' TERM
        until grep -qE 'clips? in this part' "$log" 2>/dev/null; do sleep 0.01; done
        kill -STOP $$
        touch "stopped$part"
        while sleep 1; do :; done
    } 2>/dev/null &
    # so that they do not come to their end before they are stopped, on a busy machine
    exec nice -n 19 "$@"
fi ;; esac
exec "$@"
"""


def test_killed_jobs_are_resubmitted_and_end_in_the_same_bytes(slurm, undisturbed, small_set,
                                                               tmp_path):
    root = copy_set(small_set, tmp_path / "root with it's space")
    launcher = tmp_path / 'launcher'
    launcher.write_text(LAUNCHER)
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    done = submit(root, '--then-pack', '--ppn', '1', '--walltime', '00:10:00', '--margin', '1',
                  '--parts', '5', '--launcher', shlex.quote(str(launcher)), env=slurm.env)
    assert done.returncode == 0, done.stderr
    jobs = sent_jobs(root / 'jobs')
    assert sorted(jobs) == ['pack'] + [f'part{n:02d}' for n in range(1, 6)]

    # One is cancelled, one runs into its walltime; the others come to their end.
    wait_for(lambda: all((root / 'jobs' / f'stopped{part}').exists() for part in (3, 5)))
    slurm.ask('scancel', jobs['part05'])
    wait_for(lambda: job_state(slurm, jobs['part05']) == 'CANCELLED')
    status = submit(root, '--status', env=slurm.env)
    assert status.returncode == 4
    lines = status.stdout.splitlines()
    assert lines[3].endswith(f'{jobs["part03"]} running')
    assert lines[5].endswith(f'{jobs["part05"]} ended')
    assert 'part05: stopped (SIGTERM); the same command goes on' in lines
    # The walltime ends now, not in ten minutes; Slurm looks every half minute.
    slurm.ask('scontrol', 'update', f'jobid={jobs["part03"]}', 'EndTime=now')
    wait_for(lambda: {part: job_state(slurm, job) for part, job in jobs.items()} == {
        'part01': 'COMPLETED', 'part02': 'COMPLETED', 'part03': 'TIMEOUT', 'part04': 'COMPLETED',
        'part05': 'CANCELLED', 'pack': 'PENDING'}, 90)
    assert not (root / variants.TRAIN_HDF5).exists()

    done = submit(root, '--resubmit', env=slurm.env)
    assert done.returncode == 0, done.stderr
    assert [line.split(':')[0] for line in done.stdout.splitlines()] == ['part03', 'part05',
                                                                        'pack']
    again = sent_jobs(root / 'jobs')
    wait_for(lambda: job_state(slurm, again['pack']) not in ('PENDING', 'RUNNING'))
    assert job_state(slurm, again['pack']) == 'COMPLETED'
    assert job_state(slurm, jobs['pack']) == 'CANCELLED'
    assert features(root) == features(undisturbed)
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5, variants.TEST_PREDICTIONS):
        assert same_hdf5(root / name, undisturbed / name)
    assert submit(root, '--status', env=slurm.env).returncode == 0
    assert 'no part has clips left' in submit(root, '--resubmit', env=slurm.env).stderr


def test_nothing_is_packed_after_a_failure(slurm, small_set, tmp_path):
    root = tmp_path / 'r'
    shutil.copytree(small_set, root)
    bad = sorted((root / variants.CLIPS).rglob('*.avi'))[7]
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    flags = ('--scheduler', 'slurm', '--ppn', '1', '--parts', '2', '--then-pack')
    done = submit(root, *flags, env=slurm.env)
    jobs = sent_jobs(root / 'jobs')
    assert sorted(jobs) == ['pack', 'part01', 'part02'], done.stderr
    # The same command again submits none of them a second time.
    assert 'part' not in submit(root, '--resubmit', env=slurm.env).stdout
    jobs = sent_jobs(root / 'jobs')
    wait_for(lambda: {job_state(slurm, jobs[p]) for p in ('part01', 'part02')}
             == {'COMPLETED', 'FAILED'})
    status = submit(root, '--status', env=slurm.env)
    assert str(bad) in status.stdout
    assert job_state(slurm, jobs['pack']) == 'PENDING'
    # A part with nothing but failures left is not tried again until the clip is mended.
    assert 'not packed: 1 clips failed' in submit(root, '--resubmit', env=slurm.env).stderr
    bad.write_bytes(whole)
    done = submit(root, '--resubmit', env=slurm.env)
    jobs = sent_jobs(root / 'jobs')
    wait_for(lambda: job_state(slurm, jobs['pack']) == 'COMPLETED')
    assert (root / variants.TRAIN_HDF5).exists()


def test_the_commands_of_the_page_as_they_stand(slurm, undisturbed, small_set, tmp_path):
    """docs/cluster.md: the four lines of "In short", then a training by two workers as one job."""
    page = (REPOSITORY / 'docs' / 'cluster.md').read_text()
    lines = re.findall(r'^    (\./saveFeatures\.sh .*?)(?: #.*)?$',
                       page[page.index('## In short'):page.index('## Settings')], re.M)
    assert len(lines) == 4
    copy_set(small_set, tmp_path / 'DIR')
    (tmp_path / 'DIR' / 'cluster.toml').write_text('ppn = 1\nparts = 2\nwalltime = "00:10:00"\n')

    environment = dict(slurm.env, PYTHON=sys.executable, OMPI_ALLOW_RUN_AS_ROOT='1',
                       OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1')

    def execute(line, code=0):
        done = subprocess.run(['bash', '-c', line.replace('./saveFeatures.sh', str(SCRIPT))],
                              cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == code, line + done.stdout + done.stderr
        return done.stdout
    assert 'part02.pbs' in execute(lines[0]) and not (tmp_path / 'DIR/jobs/jobs.txt').exists()
    execute(lines[1])
    jobs = sent_jobs(tmp_path / 'DIR' / 'jobs')
    assert sorted(jobs) == ['pack', 'part01', 'part02']
    wait_for(lambda: job_state(slurm, jobs['pack']) == 'COMPLETED')
    assert 'part02' in execute(lines[2])
    assert 'part' not in execute(lines[3])
    assert features(tmp_path / 'DIR') == features(undisturbed)

    pytest.importorskip('mpi4py')
    if not shutil.which('mpiexec'):
        pytest.skip('no mpiexec here (openmpi-bin)')
    (tmp_path / 'DIR' / 'cluster.toml').write_text('ppn = 2\n')
    execute('./saveFeatures.sh --root DIR --stage rnn --name deep --processes 2 --scheduler slurm '
            '--communicator naive --tiny')
    job = sent_jobs(tmp_path / 'DIR' / 'jobs')['rnn-deep']
    wait_for(lambda: job_state(slurm, job) == 'COMPLETED')
    settings = json.loads((tmp_path / 'DIR/results.jsonl').read_text())['settings']
    assert settings['workers'] == 2


@pytest.mark.skipif(not os.environ.get('LONG'), reason='takes a minute: LONG=1 make test '
                    'TESTS=tests/cluster')
def test_a_training_whose_walltime_is_over_is_sent_again_and_goes_on(slurm, undisturbed, tmp_path):
    """Slurm tells the job, which saves, and is sent again; the next run resumes."""
    launcher, epochs = tmp_path / 'launcher', tmp_path / 'epochs'
    launcher.write_text(f'#!/bin/bash\nexec "$@" --epochs $(cat {epochs})\n')
    launcher.chmod(0o755)
    epochs.write_text('1000000')
    root = tmp_path / 'r'
    root.mkdir()
    for path in (*undisturbed.glob('*.hdf5'), undisturbed / variants.LISTS):
        (root / path.name).symlink_to(path)
    done = submit(root, '--stage', 'rnn', '--tiny', '--scheduler', 'slurm', '--ppn', '1',
                  '--walltime', '00:01:00', '--requeue', '2', '--launcher', launcher,
                  env=slurm.env)
    assert done.returncode == 0, done.stderr
    job, log = sent_jobs(root / 'jobs')['rnn'], root / 'jobs' / 'rnn.log'
    wait_for(lambda: log.exists() and 'sent again, 1 of at most 2 times' in log.read_text(), 90)
    done = json.loads((root / 'RNN.training' / 'log').read_text())
    epochs.write_text(str(done[-1]['epoch'] + 2))
    left = root / 'RNN.training' / '.snapshot.npz.abcd.part'
    left.touch()

    # Slurm lets two minutes pass before it starts a job again, so that the end of the run before
    # has arrived. A few seconds do here; without them that end is taken for the new run's.
    time.sleep(10)
    slurm.ask('scontrol', 'update', f'jobid={job}', 'StartTime=now')
    wait_for(lambda: job_state(slurm, job) == 'COMPLETED', 150)
    assert 'resumed after epoch' in log.read_text() and not left.exists()
    assert json.loads((root / 'results.jsonl').read_text())['epochs'] == int(
        epochs.read_text())
