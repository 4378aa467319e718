"""saveFeatures.sh as a person runs it: flags, dry runs, all parts here."""
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import generate_pbs
from engine import variants
from engine.errors import UserError
from engine.progress import number_of
from smallSet import REPOSITORY, copy_set, features, run

SCRIPT = REPOSITORY / 'saveFeatures.sh'


def submit(root, *flags, **options):
    return run(SCRIPT, '--root', root, *flags, **options)


@pytest.mark.parametrize('flags, words', [
    (('--walltime', 'soon'), 'expected HH:MM:SS'),
    (('--no-such-flag',), '--no-such-flag'),
    (('--settings', 'nowhere.toml'), 'nowhere.toml'),
    (('--settings', 'stage.toml'), 'stage.toml: stage: belongs on the command line'),
    (('--resubmit',), 'nothing was submitted')])
def test_wrong_flags_are_named_before_anything_is_written(small_set, tmp_path, monkeypatch,
                                                          capsys, flags, words):
    root = copy_set(small_set, tmp_path / 'r')
    monkeypatch.chdir(tmp_path)
    Path('stage.toml').write_text('ppn = 4\nstage = "rnn"\n')
    monkeypatch.setattr(sys, 'argv', ['generate_pbs.py', '--root', str(root), *flags])
    with pytest.raises((UserError, SystemExit)) as error:
        generate_pbs.main()
    printed = capsys.readouterr()
    assert words in str(error.value) + printed.err
    assert not printed.out and not (root / 'jobs').exists()


def test_saveFeatures_names_its_own_help_where_a_flag_is_wrong(small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    for flags in (('--at-onec', '2'), ('--stag=rnn',), ('--ppn', '0'),
                  ('--stage', 'rnn', '--cels', '3')):
        done = submit(root, *flags)
        assert (done.returncode, done.stderr.count('\n'), done.stdout) == (2, 1, '')
        assert done.stderr.startswith('error: ') and 'see ./saveFeatures.sh --help' in done.stderr
    done = submit(root, '--local', '--at-onec', '2')
    assert done.returncode == 2 and 'unrecognized arguments: --at-onec 2' in done.stderr
    assert done.stderr.splitlines()[-1].startswith('all flags: ./saveFeatures.sh --help')


def test_without_a_scheduler_the_way_to_do_it_here_is_named(small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    done = submit(root, '--step', '4', '--parts', '2',
                  env={'PATH': '/usr/bin:/bin', 'PYTHON': sys.executable})
    assert done.returncode == 1 and '; sent: nothing; not sent: part01 part02' in done.stderr
    assert done.stderr.endswith(f'; without a scheduler, here: ./saveFeatures.sh --local --step 4 '
                                f'--parts=2 --root {root}\n')


def test_job_file_runs_whatever_the_folder_is_called(small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'a b \' "c" $d `e` \\ ;& * {x} ü')
    done = submit(root, '--dry-run', '--step', '4')
    assert done.stdout.splitlines()[0] == 'qsub -j oe -o part01.out part01.pbs'
    assert len(done.stdout.splitlines()) == 12
    # A .pbs file is a shell script: every # line is a comment to bash.
    job = subprocess.run(['bash', root / 'jobs' / 'part01.pbs'], cwd='/', timeout=100)
    assert job.returncode == 0
    log = (root / 'jobs' / 'part01.log').read_text()
    assert f'part 1: {number_of(len(features(root)) // 2, "clip")} finished, 0 failed' in log
    assert features(root)


def test_dry_run_submits_nothing_and_names_what_packing_waits_for(small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    done = submit(root, '--dry-run', '--parts', '2', '--then-pack', env={'PATH': '/usr/bin:/bin'})
    assert done.stdout.splitlines() == [
        'qsub -h -j oe -o part01.out part01.pbs', 'qsub -h -j oe -o part02.out part02.pbs',
        'qsub -j oe -o pack.out -W depend=afterok:ID_OF_part01:ID_OF_part02 pack.pbs',
        'qrls ID_OF_part01', 'qrls ID_OF_part02']
    assert not (root / 'jobs' / 'jobs.txt').exists()
    done = submit(root, '--dry-run', '--parts', '2', '--then-pack', '--scheduler', 'slurm')
    assert done.stdout.splitlines()[2] == ('sbatch --parsable --dependency=afterok:'
                                           'ID_OF_part01:ID_OF_part02 pack.pbs')


def test_status_without_any_scheduler(undisturbed):
    done = submit(undisturbed, '--status', '--parts', '2', env={'PATH': '/usr/bin:/bin'})
    assert done.returncode == 0, done.stderr
    total = done.stdout.splitlines()[-1].split()
    assert total[0] == 'all' and total[1] == '24' and total[3:6] == ['24', '0', '0']
    frames = [numpy.load(p).shape[0] for p in (undisturbed / variants.FEATURES).rglob('*.npy')]
    assert int(total[6]) == sum(frames)


# ----------------------------------------------------------------------------- here

def test_local_runs_all_parts_and_passes_flags_on(undisturbed, small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'r')
    done = submit(root, '--local', '--at-once', '2', '--parts', '3')
    assert done.returncode == 0, done.stderr
    assert features(root) == features(undisturbed)
    assert done.stdout.endswith(f'next: python save_hdf5.py --root {root}\n')
    again = submit(root, '--local', '--parts=1', '--fold', '1/3')  # of a network that is not there
    assert again.returncode == 1 and 'next: python save' not in again.stdout
    again = submit(root, '--local', '--parts=1')
    assert '24 clips in this part, 24 finished before' in again.stdout


@pytest.mark.parametrize('flags', [('--parts', 'foo'), ('--parts', '0'), ('--parts=1.5',),
                                   ('--at-once', '0'), ('--at-once=x',), ('--parts',)])
def test_local_refuses_what_is_no_number_of_parts(tmp_path, flags):
    done = submit(tmp_path, '--local', *flags)
    assert done.returncode == 2 and done.stderr.startswith(f'error: {flags[0].split("=")[0]}')


def test_local_tells_of_failures_by_its_exit_code(small_set, tmp_path):
    root = tmp_path / 'r'
    shutil.copytree(small_set, root)
    next((root / variants.CLIPS).rglob('*.avi')).write_text('no video')
    done = submit(root, '--local', '--parts', '2', '--step', '4')
    assert done.returncode == 3 and done.stdout.count('failed: ') == 1
    assert done.stdout.splitlines()[-1] == (
        f'next: python save_hdf5.py --root {root} --allow-missing, or mend the clips named above '
        'and run this again')
    assert len(features(root)) == 46
    (root / variants.FRAME_MODEL).unlink()
    done = submit(root, '--local', '--parts', '2', '--step', '4')
    assert done.returncode == 1 and done.stderr.count('error: ') == 1
