"""The job files that generate_pbs.py writes: what each scheduler is told."""
import os
import subprocess
import sys

import pytest

import generate_pbs
from engine import files
from engine.cluster.dialects import DIALECTS
from engine.errors import UserError
from smallSet import REPOSITORY, copy_set


def text_of(monkeypatch, root, *flags):
    """The lines of part02.pbs that generate_pbs.py writes with these flags."""
    monkeypatch.setattr(sys, 'argv', ['generate_pbs.py', '--root', str(root), '--dry-run',
                                      *flags])
    generate_pbs.main()
    return (root / 'jobs' / 'part02.pbs').read_text().splitlines()


def test_header_for_torque(small_set, tmp_path, monkeypatch):
    lines = text_of(monkeypatch, copy_set(small_set, tmp_path / 'r'), '--property', 'xk',
                    '--account', 'abc', '--directive', '-l pmem=1gb', '--memory', '32gb',
                    '--module', 'cudatoolkit',
                    '--launcher', 'aprun -n {workers} -N {processes} -d {cores}',
                    '--python', '/opt/python', '--device', '0')
    assert lines == [
        '#!/bin/bash -l', '#PBS -S /bin/bash', '#PBS -N features02', '#PBS -l nodes=1:ppn=16:xk',
        '#PBS -l mem=32768mb', '#PBS -l walltime=02:30:00', '#PBS -j oe', '#PBS -o part02.out',
        f'#PBS -W umask=0{files.UMASK:o}', '#PBS -m n', '#PBS -A abc', '#PBS -l pmem=1gb',
        f'umask 0{files.UMASK:o}', f'exec >>{tmp_path}/r/jobs/part02.log 2>&1',
        f'here={REPOSITORY}', '. "$here/engine/cluster/job.sh" || exit 1', 'load cudatoolkit',
        'needs - - aprun -n 1 -N 1 -d 16 /opt/python', f'cd {tmp_path}/r/jobs || exit 1',
        f'exec aprun -n 1 -N 1 -d 16 /opt/python {REPOSITORY}/saveFeatures_1024.py 2 --device 0 '
        f'--walltime 02:30:00 --root {tmp_path}/r </dev/null']


def test_header_for_openpbs_and_slurm(small_set, tmp_path, monkeypatch):
    root = copy_set(small_set, tmp_path / 'r')
    flags = ('--ppn', '8', '--gpus', '1', '--queue', 'gpu', '--mail', 'a@b.org', '--memory', '8gb')
    lines = text_of(monkeypatch, root, '--scheduler', 'openpbs', *flags)
    assert '#PBS -l select=1:ncpus=8:ngpus=1:mem=8192mb' in lines
    assert '#PBS -q gpu' in lines and '#PBS -m ae -M a@b.org' in lines
    lines = text_of(monkeypatch, root, '--scheduler', 'slurm', *flags)
    assert {'#SBATCH --cpus-per-task=8', '#SBATCH --gres=gpu:1', '#SBATCH --partition=gpu',
            '#SBATCH --time=02:30:00', '#SBATCH --mem=8192M'} <= set(lines)
    assert not any(line.startswith('#PBS') for line in lines)


def test_a_training_on_several_nodes(small_set, tmp_path, monkeypatch, capsys):
    root = copy_set(small_set, tmp_path / 'r')

    def lines(*flags):
        monkeypatch.setattr(sys, 'argv', [
            'generate_pbs.py', '--root', str(root), '--python', '/opt/python', '--ppn', '8',
            '--nodes', '3', '--processes', '2', *flags])
        assert generate_pbs.main() == 0
        job = capsys.readouterr().out.split()[-1].removesuffix('.pbs')
        return (root / 'jobs' / f'{job}.pbs').read_text().splitlines()
    rnn = ('--stage', 'rnn', '--name', 'deep', '--communicator', 'naive', '--layers', '5')
    assert '#PBS -l nodes=3:ppn=8' in lines(*rnn)
    assert '#PBS -l select=3:ncpus=8:mpiprocs=2' in lines(*rnn, '--scheduler', 'openpbs')
    text = lines(*rnn, '--scheduler', 'slurm')
    assert {'#SBATCH --nodes=3', '#SBATCH --ntasks=6', '#SBATCH --cpus-per-task=4',
            '#SBATCH --job-name=rnn-deep'} <= set(text)
    assert text[-1] == ('exec mpiexec "${machines[@]}" -n 6 env OMP_NUM_THREADS="$OMP_NUM_THREADS" '
                        f'/opt/python {REPOSITORY}/rnn.py --communicator naive --layers 5 '
                        f'--name deep --root {root} </dev/null')
    assert 'export OMP_NUM_THREADS=4' in text
    text = lines(*rnn, '--launcher', 'aprun -n {workers} -N {processes} -d {cores} -cc none')
    assert text[-1].startswith('exec aprun -n 6 -N 2 -d 4 -cc none /opt/python ')
    with pytest.raises(UserError, match='add --communicator'):
        lines('--stage', 'frameBasedTrain')
    with pytest.raises(UserError, match='--resubmit is for stages in parts'):
        lines(*rnn, '--resubmit')


def test_trainings_of_two_variants_are_two_jobs(small_set, tmp_path, monkeypatch, capsys):
    root = copy_set(small_set, tmp_path / 'r')
    qstat = tmp_path / 'qstat'
    qstat.write_text('#!/bin/sh\necho "7.bw frameBasedTrain someone 0 R normal"\n')
    qstat.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)

    def job(*flags):
        monkeypatch.setattr(sys, 'argv', ['generate_pbs.py', '--root', str(root), *flags])
        generate_pbs.main()
        return capsys.readouterr().out.split()[-1].removesuffix('.pbs')
    train = ('--stage', 'frameBasedTrain')
    assert job(*train) == 'frameBasedTrain'
    (root / 'jobs' / 'jobs.txt').write_text('frameBasedTrain\t7.bw\tnow\n')
    with pytest.raises(UserError, match='frameBasedTrain: may still run'):
        job(*train, '--stream', 'rgb')
    assert job(*train, '--stream', 'flow') == 'frameBasedTrain_flow'
    lines = (root / 'jobs' / 'frameBasedTrain_flow.pbs').read_text().splitlines()
    # as many characters as Torque takes
    assert '#PBS -N frameBased_flow' in lines and '#PBS -o frameBasedTrain_flow.out' in lines
    assert lines[-1].endswith(f'--stream flow --root {root} </dev/null')
    assert job(*train, '--fusion=slow') == 'frameBasedTrain_slow'
    assert job(*train, '--fusion', 'slow', '--name', 'b') == 'frameBasedTrain_slow-b'
    assert job('--stage', 'rnn', '--stream', 'flow', '--layer', 'pool5') == 'rnn_flow_pool5'
    # whose files have its name, whatever it sees
    assert job('--stage', 'rnn', '--stream', 'flow', '--name', 'deep') == 'rnn-deep'
    (root / 'cluster.toml').write_text('stream = "flow"\n')
    assert job('--stage', 'rnn') == 'rnn_flow'


def test_settings_file_gives_way_to_flags(small_set, tmp_path, monkeypatch):
    root = copy_set(small_set, tmp_path / 'r')
    (root / 'cluster.toml').write_text('\ufeffppn = 4\nwalltime = "01:00:00"\nparts = 3\n'
                                       'module = ["a", "b"]\nthen-pack = false\n')
    lines = text_of(monkeypatch, root, '--ppn', '2')
    assert '#PBS -l nodes=1:ppn=2' in lines and '#PBS -l walltime=01:00:00' in lines
    assert 'load a' in lines and 'load b' in lines
    assert '--parts=3' in lines[-1]
    assert sorted(p.name for p in (root / 'jobs').iterdir()) == [
        'pack.pbs', 'part01.pbs', 'part02.pbs', 'part03.pbs']


@pytest.mark.parametrize('lines, words', [
    (['module() { echo "ModuleCmd_Load.c(213):ERROR:105: no such module" >&2; }', 'load cuda'],
     'not started: module load cuda: ModuleCmd_Load.c(213):ERROR:105: no such module'),
    (['module() { return 1; }', 'load cuda'], 'not started: module load cuda:'),
    (['unset -f module', 'load cuda'], 'not started: module load cuda:'),
    (["{ false\n} </dev/null || not_started '--setup false'"], 'not started: --setup false'),
    (['needs - - /no/python'], 'not started: /no/python does not run on'),
    # whatever this machine has built before
    (['export PATH=/nothing', 'bare() {', f'{sys.executable} -c "import engine.fast.compiled as c',
      "c.load = lambda name: (None, 'no C compiler')", '$2"; }',
      'needs winograd ENGINE_CONV bare'],
     'not started: no compiled kernel: numpy (no C compiler'),
    (['export ENGINE_CONV=numpy CC=nocc', f'needs winograd ENGINE_CONV {sys.executable}',
      'echo began'], 'began'),
    (['module() { loaded=$2; }', 'load cuda', 'echo $loaded'], 'cuda')])
def test_a_job_that_cannot_start_well_stops_and_says_why(lines, words):
    """Run as a scheduler would, which hands the file to a shell's standard input."""
    text = '\n'.join([f'here={REPOSITORY}', '. "$here/engine/cluster/job.sh" || exit 1', *lines])
    done = subprocess.run(['bash'], input=text, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1].startswith(words), done.stdout + done.stderr
    assert done.returncode == (1 if words.startswith('not started') else 0)


def test_workers_are_spread_over_the_nodes_of_the_schedulers_list(tmp_path):
    nodes = tmp_path / 'nodes'
    nodes.write_text('a\n' * 8 + 'b\n' * 4)  # Torque: a twice, with 4 cores each time
    text = (f'here={REPOSITORY}; . "$here/engine/cluster/job.sh"\n'
            f'nodes_file {tmp_path}/chosen 4 2; echo "${{machines[@]}}"')
    environment = {**os.environ, 'PBS_NODEFILE': str(nodes)}
    environment.pop('SLURM_JOB_ID', None)
    done = subprocess.run(['bash', '-c', text], env=environment, capture_output=True, text=True)
    assert done.stdout == f'-machinefile {tmp_path}/chosen\n'
    assert (tmp_path / 'chosen').read_text().split() == ['a'] * 4 + ['b'] * 2


@pytest.mark.parametrize('scheduler, base, rest, name', [
    ('torque', 'averyverylongname', '07', 'averyverylong07'),
    ('torque', '2026run', '01', 'j2026run01'),
    ('openpbs', 'a+b', '12', 'a-b12'), ('slurm', 'averyverylongname', '07', 'averyverylongname07'),
    ('torque', 'rnn', '-layers1-dropout0.5,0.2-seed3', 'rnn-5-0.2-seed3')])
def test_names_of_jobs(scheduler, base, rest, name):
    assert DIALECTS[scheduler].job_name(base, rest) == name


@pytest.mark.parametrize('flags, words', [
    (('--ppn', '0'), 'at least 1'), (('--gpus', '-1'), 'at least 0'),
    (('--walltime', '02:30:00.5'), 'expected HH:MM:SS'),
    (('--walltime', '00:02:00'), 'would do nothing'),
    (('--walltime', '-1:00:00'), '--walltime'), (('--name', 'two words'), '--name'),
    (('--name', 'a/b'), '--name'), (('--name', 'x;touch y'), '--name'),
    (('--memory', '8'), '--memory'),
    (('--memory', '0gb'), '--memory'), (('--account', 'x y'), '--account'),
    (('--setup', "echo 'x"), 'bash says'), (('--launcher', 'a "b'), 'bash says'),
    (('--pack-flags', "'"), '--pack-flags'), (('--name', 101 * 'x'), '--name'),
    (('--directive', '#PBS -q long'), 'without its #PBS'), (('--processes', '2'), 'a training'),
    (('--stage', 'opticalFlow', '--then-pack'), 'nothing is packed')])
def test_what_no_job_can_be_made_of_is_refused_before_anything_is_written(
        small_set, tmp_path, monkeypatch, capsys, flags, words):
    root = copy_set(small_set, tmp_path / 'r')
    with pytest.raises((UserError, SystemExit)) as error:
        text_of(monkeypatch, root, *flags)
    assert words in str(error.value) + capsys.readouterr().err
    assert not (root / 'jobs').exists()
