"""Submissions to schedulers that are not there: programs that answer as they do."""
import json
import os
import pwd
import re
import shlex
import sys
from types import SimpleNamespace

import pytest

import generate_pbs
import sweep
from engine.cluster import record, submitting
from engine.cluster.dialects import DIALECTS
from engine.cluster.flags import replaced
from engine.errors import UserError
from smallSet import copy_set

# A PBS in a folder: a file for each job that is known, with its state. A job is forgotten once it
# ends, and one that is to wait for a job which is not known vanishes, with an id and no word.
QSUB = '''\
#!/bin/bash
cd "$(dirname "$0")"
echo "qsub $*" >>calls
n=$(ls ids | wc -l)
[ ! -e most ] || [ "$n" -lt "$(cat most)" ] ||
    { echo "qsub: would exceed queue limit" >&2; exit 1; }
id=$((100 + n)); touch ids/$id
state=Q after=
while [ $# -gt 1 ]; do
    case $1 in -h) state=H ;; -W) after=${2#depend=afterok:}; state=H ;; esac
    shift
done
echo $state >jobs/$id
for other in ${after//:/ }; do [ -e jobs/${other%%.*} ] || rm -f jobs/$id; done
[ ! -e after_qsub ] || . ./after_qsub
[ -e banner ] && cat banner
echo $id.server
'''
QSTAT = '''\
#!/bin/bash
cd "$(dirname "$0")"
case $1 in [0-9]*)
    [ -e jobs/${1%%.*} ] || { echo "qstat: Unknown Job Id $1" >&2; exit 153; }
    echo "qstat: Unauthorized Request $1" >&2; exit 159 ;;
esac
[ $# -gt 0 ] && { for id in "${@:2}"; do
    printf 'Job Id: %s\\n    comment = Can Never Run: Insuf\\n\\tficient ncpus\\n' $id
    done; exit; }
for job in jobs/*; do
    [ -e hidden ] && grep -qw ${job#jobs/} hidden && continue
    [ -e $job ] && echo "${job#jobs/}.server name me 0 $(cat $job) batch"
done
exit 0
'''
OTHERS = {'qrls': 'echo Q >jobs/${1%%.*}', 'qdel': 'rm jobs/${1%%.*}'}


@pytest.fixture
def pbs(tmp_path, monkeypatch):
    """Folder of such a PBS, on PATH."""
    folder = tmp_path / 'pbs'
    for name in ('jobs', 'ids'):
        (folder / name).mkdir(parents=True)
    programs = {'qsub': QSUB, 'qstat': QSTAT, **{
        name: f'#!/bin/bash\ncd "$(dirname "$0")"\necho "{name} $*" >>calls\n{what}\n'
        for name, what in OTHERS.items()}}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(folder), prepend=os.pathsep)
    return folder


def states(pbs):
    return {path.name: path.read_text().strip() for path in sorted((pbs / 'jobs').iterdir())}


@pytest.fixture
def submit(monkeypatch, capsys):
    """generate_pbs.py --submit in this process: its exit code and what it prints."""
    def submit(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['generate_pbs.py', '--submit', '--root', str(root),
                                          *map(str, flags)])
        capsys.readouterr()
        try:
            code, error = generate_pbs.main(), ''
        except UserError as refused:
            code, error = 1, f'error: {refused}'
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=printed.out, stderr=printed.err + error)
    return submit


@pytest.fixture
def sent(pbs, small_set, tmp_path, submit):
    """A root whose three parts and packing job are sent."""
    root = copy_set(small_set, tmp_path / 'r')
    done = submit(root, '--parts', 3, '--then-pack')
    assert done.returncode == 0, done.stderr
    return root


def pack_of(root):
    return record.read(root / 'jobs')['pack']


def test_parts_are_held_until_the_packing_job_is_in(pbs, sent, submit):
    assert states(pbs) == {'100': 'Q', '101': 'Q', '102': 'Q', '103': 'H'}
    calls = (pbs / 'calls').read_text().splitlines()
    assert [call.split()[0] for call in calls] == ['qsub'] * 4 + ['qrls'] * 3
    assert pack_of(sent).after == ('100.server', '101.server', '102.server')
    # All is well: the same again leaves the packing job alone, and the flags do not grow.
    flags = json.loads((sent / 'jobs' / 'flags.json').read_text())
    for _ in range(2):
        done = submit(sent, '--resubmit')
        assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr
    assert sorted(json.loads((sent / 'jobs' / 'flags.json').read_text())) == sorted(flags)
    assert len((pbs / 'calls').read_text().splitlines()) == 7


def test_a_part_that_ends_in_the_midst_of_a_submission(pbs, sent, submit):
    """The packing job that was to wait for it, too, vanishes; another is sent."""
    (pbs / 'jobs' / '100').unlink()     # died
    (pbs / 'jobs' / '101').write_text('R')
    (pbs / 'after_qsub').write_text('[ $id != 104 ] || rm -f jobs/101')
    done = submit(sent, '--resubmit')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'pack: part02 ended meanwhile' in done.stdout
    assert pack_of(sent).after == ('102.server', '104.server')
    assert states(pbs) == {'102': 'Q', '104': 'Q', '106': 'H'}


def test_an_old_packing_job_that_cannot_be_cancelled_ends_nothing(pbs, sent, submit):
    (pbs / 'jobs' / '100').unlink()
    (pbs / 'qdel').write_text('#!/bin/sh\necho "qdel: Unauthorized Request 103" >&2; exit 1\n')
    done = submit(sent, '--resubmit')
    assert done.returncode == 0 and 'Unauthorized' in done.stdout
    assert pack_of(sent).job == '105.server'


def test_parts_done_but_not_packed(pbs, undisturbed, tmp_path, submit):
    """The packing job is gone: told, and sent by --resubmit, without anything to wait for."""
    root = copy_set(undisturbed, tmp_path / 'r')
    for name in ('UCF-101_features', 'UCF-101_framePrediction'):
        (root / name).symlink_to(undisturbed / name)
    done = submit(root, '--parts', 2, '--then-pack')
    assert done.stdout == 'pack: job 100.server\n', done.stderr
    (pbs / 'jobs' / '100').unlink()
    (root / 'jobs' / 'pack.log').write_text('error: no space\n')
    done = submit(root, '--status')
    assert done.returncode == 4
    assert done.stdout.splitlines()[-2:] == ['parts done, not packed', 'pack: error: no space']
    assert submit(root, '--resubmit').stdout == 'pack: job 101.server\n'
    done = submit(root, '--status')
    assert done.returncode == 4 and done.stdout.endswith('pack: job 101.server queued\n')
    (pbs / 'jobs' / '101').unlink()
    for path in undisturbed.glob('*.hdf5'):
        (root / path.name).symlink_to(path)
    assert submit(root, '--status').returncode == 0
    assert not submit(root, '--resubmit').stdout


def test_a_quota(pbs, small_set, tmp_path, submit):
    root = copy_set(small_set, tmp_path / 'r')
    (pbs / 'most').write_text('2')
    done = submit(root, '--parts', 3, '--then-pack')
    assert done.returncode == 1
    assert 'error: part03: qsub refused it: qsub: would exceed queue limit; sent: part01 part02; ' \
           'not sent: part03 pack.' in done.stderr
    assert '--resubmit goes on' in done.stderr
    assert states(pbs) == {'100': 'Q', '101': 'Q'}  # none is left held
    (pbs / 'most').unlink()
    done = submit(root, '--resubmit')
    assert [line.split(':')[0] for line in done.stdout.splitlines()] == ['part03', 'pack']
    assert pack_of(root).after == ('100.server', '101.server', '102.server')


def test_parts_that_a_submission_cut_off_has_left_held(pbs, sent, submit):
    (pbs / 'jobs' / '101').write_text('H')
    (pbs / 'jobs' / '103').unlink()
    done = submit(sent, '--resubmit')
    assert done.returncode == 0 and states(pbs)['101'] == 'Q'


def test_an_id_that_cannot_be_read(pbs, small_set, tmp_path, submit):
    root = copy_set(small_set, tmp_path / 'r')
    (pbs / 'banner').write_text('7.old\n')
    done = submit(root, '--parts', 2, '--then-pack')
    assert done.returncode == 1 and 'part01: was submitted' in done.stderr
    assert [sent.job for sent in record.read(root / 'jobs').values()] == ['?']
    (pbs / 'banner').write_text('Your project has 1000 hours left\n')
    done = submit(root, '--resubmit')
    # Nobody knows whether it runs: never sent twice.
    assert done.stdout.splitlines()[-1] == 'part02: job 101.server'
    assert 'part01: was sent under an id that could not be read' in done.stderr


def test_clips_are_not_dealt_anew_while_jobs_are_at_work(pbs, sent, submit):
    done = submit(sent, '--resubmit', '--parts', 4)
    assert 'part01 part02 part03 may be at work, of 3 parts' in done.stderr
    for job in ('100', '101', '102', '103'):
        (pbs / 'jobs' / job).unlink()
    assert submit(sent, '--resubmit', '--parts', 4).stdout.count('part') == 4


def test_an_id_counts_whatever_a_script_around_qsub_ends_with(pbs, small_set, tmp_path, submit):
    with open(pbs / 'qsub', 'a') as f:
        f.write('exit 1\n')
    done = submit(copy_set(small_set, tmp_path / 'r'), '--parts', 2)
    assert done.stdout == 'part01: job 100.server\npart02: job 101.server\n', done.stderr


def test_what_a_job_waits_for_is_told_in_the_schedulers_words(pbs, sent, submit):
    done = submit(sent, '--status')
    assert 'part01 part02 part03 pack: Can Never Run: Insufficient ncpus' in done.stdout


@pytest.mark.parametrize('scheduler, printed, job', [
    ('torque', '12.server.long.name\n', '12.server.long.name'), ('torque', '12\n', '12'),
    ('openpbs', 'INFO: 1000 hours left\n12.bw\n', '12.bw'),
    ('openpbs', '12.bw\nRemember: maintenance on Friday\n', '12.bw'),
    ('openpbs', '12[].bw', '12[].bw'), ('torque', 'Submitted batch job 12\n', '12'),
    ('torque', 'Your job 12 ("features01") has been submitted', None), ('torque', '', None),
    ('torque', '12.a\n13.a\n', None),
    ('slurm', '12;cluster\n', '12'), ('slurm', '----\n Welcome\n--> OK\n12\n', '12'),
    ('slurm', 'Submitted batch job 12 on cluster c1\n', '12'),
    ('slurm', 'sbatch: error: 12 is odd\n', None)])
def test_ids(scheduler, printed, job):
    assert DIALECTS[scheduler].id_in(printed) == job


def test_flags_given_again_take_the_place_of_the_old():
    old = ['--ppn', '4', '--module', 'a', '--module=b', '--then-pack', '--root', 'x']
    assert replaced(old, ['--module', 'c', '--ppn=2']) == [
        '--then-pack', '--root', 'x', '--module', 'c', '--ppn=2']
    old = ['--pack-flags', '--dtype float16', '--launcher=--x y', '--ppn', '4']
    assert replaced(old, ['--pack-flags=--chunks 2', '--launcher', '']) == [
        '--ppn', '4', '--pack-flags=--chunks 2', '--launcher', '']


def test_a_sweep_sends_each_run_once(pbs, tmp_path, monkeypatch, capsys):
    runs = tmp_path / 'runs.txt'
    runs.write_text('--layers 1 --name a\n--layers 2 --name b\n--start-from a --name c\n')
    (tmp_path / 'cluster.toml').write_text('requeue = 2\nparts = 3\nthen-pack = true\n')

    def jobs(*flags):
        monkeypatch.setattr(sys, 'argv', ['sweep.py', str(runs), '--root', str(tmp_path),
                                          '--jobs', '--submit', *flags])
        assert sweep.main() == 0
        return capsys.readouterr()
    assert jobs().out == 'a: job 100.server\nb: job 101.server\n'
    told = jobs()
    assert not told.out and 'a: job 100.server queued' in told.err and 'c: later' in told.err
    (pbs / 'jobs' / '101').unlink()
    assert jobs().out == 'b: job 102.server\n'
    # near its end it sends itself again, from the node
    text = (tmp_path / 'sweep' / 'b.pbs').read_text()
    monkeypatch.setattr(sys, 'argv', shlex.split(
        re.search(r'again=\((.*)\)\n', text)[1].partition(f'{sys.executable} ')[2]))
    monkeypatch.setenv('PBS_JOBID', '102.server')
    assert generate_pbs.main() == 0
    assert {name: sent.job for name, sent in record.read(tmp_path / 'sweep').items()} == {
        'a': '100.server', 'b': '103.server'}
    with pytest.raises(UserError, match='--status: not with'):
        jobs('--status')


def test_jobs_of_another_person_that_the_scheduler_hides_are_not_sent_again(pbs, sent, submit):
    """Torque shows everybody their own alone."""
    path = sent / 'jobs' / 'jobs.txt'
    mine = f'by {pwd.getpwuid(os.geteuid()).pw_name}'
    path.write_text(path.read_text().replace(mine, 'by another'))
    (pbs / 'hidden').write_text('100 101 103')
    (pbs / 'jobs' / '102').unlink()
    status = submit(sent, '--status').stdout
    assert status.count('.server hidden') == 4 and '102.server ended' in status
    assert "part01 part02 pack: another person's" in status
    done = submit(sent, '--resubmit')
    assert done.stdout.splitlines() == ['part03: job 104.server'], done.stderr


def test_a_job_that_cannot_be_written_down_is_cancelled(pbs, small_set, tmp_path, monkeypatch,
                                                        submit):
    root = copy_set(small_set, tmp_path / 'r')

    def add(folder, part, *rest, add=record.add):
        if part == 'part02':
            raise UserError('disk full')
        add(folder, part, *rest)
    monkeypatch.setattr(record, 'add', add)
    assert 'disk full' in submit(root, '--parts', 3, '--then-pack').stderr
    assert states(pbs) == {'100': 'Q'}


def test_who_may_not_write_submits_nothing(tmp_path, monkeypatch):
    log = tmp_path / 'part01.log'
    log.touch()
    monkeypatch.setattr(os, 'access', lambda path, mode: path != log)
    with pytest.raises(UserError, match=rf'{log}: belongs to .* \(-rw.* may not write there; '
                                        'nothing is submitted'):
        record.check_rights([tmp_path, log, tmp_path / 'new' / 'file'])


def test_jobs_txt_takes_lines_of_two(tmp_path, monkeypatch):
    record.add(tmp_path, 'part01', '1.a')
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # the other one's
    monkeypatch.setattr(record, 'user_name', lambda number: 'other')
    record.add(tmp_path, 'part02', '2.a', ['1.a', '0.a'])
    record.add(tmp_path, 'part03', '3.a')
    assert {part: sent[1:] for part, sent in record.read(tmp_path).items()} == {
        'part01': ((), pwd.getpwuid(os.geteuid()).pw_name),
        'part02': (('1.a', '0.a'), 'other'), 'part03': ((), 'other')}


def test_of_two_submissions_one_waits(tmp_path):
    with submitting.only_one(tmp_path), pytest.raises(UserError, match='is being written by'):
        with submitting.only_one(tmp_path):
            pass
