"""The sweep: what a line means, what is done already, jobs."""
import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import featureSet
import sweep
from engine.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def read(tmp_path, text, **options):
    path = tmp_path / 'runs.txt'
    path.write_text(text)
    return sweep.read_runs(path, argparse.Namespace(**{
        **dict(seed=0, seeds=None, split=1, tiny=False, device='-1'), **options}))


def test_names_and_seeds(tmp_path):
    text = '# remark\n\n--layers 2 --dropout 0.5 0.2 0.5  # why\n--cell mean --name base\n\n'
    assert [run.name for run in read(tmp_path, text)] == ['layers2-dropout0.5,0.2,0.5', 'base']
    runs = read(tmp_path, text, seeds=[3, 4])
    assert [run.name for run in runs] == [
        'layers2-dropout0.5,0.2,0.5-seed3', 'layers2-dropout0.5,0.2,0.5-seed4',
        'base-seed3', 'base-seed4']
    assert len({run.key for run in runs}) == 4
    for run, seed in zip(runs, (3, 4, 3, 4)):
        assert run.flags[run.flags.index('--seed') + 1] == str(seed)


def test_the_same_settings_written_otherwise_are_the_same_run(tmp_path):
    a, b, c = read(tmp_path, '--layers 2 --cells 8\n--name x --cells 8 8 --lr 0.0005\n'
                             '--cells 8 8 --seed 1')
    assert a.key == b.key != c.key


@pytest.mark.parametrize('text,why', [
    ('--layers 1\n--layers x\n', 'runs.txt:2: .*not a whole number'),
    ('--nothing 1\n', 'runs.txt:1: .*--nothing'),
    ('--dropout 2\n', 'runs.txt:1: .*--dropout: 2, but below 1'),
    ('--name "a\n', 'runs.txt:1: No closing quotation'),
    ('--root x\n', 'runs.txt:1: --root'), ('--test-only\n', 'runs.txt:1'),
    ('--lr 1\n--lr 1\n', 'runs.txt:2: lr1 is also the name of line 1'),
    ('# nothing\n', 'names no run')])
def test_bad_files_are_refused_with_their_line(tmp_path, text, why):
    with pytest.raises(UserError, match=why):
        read(tmp_path, text)


def test_a_run_on_earlier_features_is_not_done(packed):
    for told, done in ((None, 1), ('made up', 1), ('earlier', 0)):
        (packed / 'results.jsonl').write_text(json.dumps(
            dict(settings={'lr': 1}, seed=0, split=1, features=told)))
        assert len(sweep.finished(packed)) == done


def test_a_model_only_tested_again_is_no_run_done(tmp_path):
    result = dict(settings={'lr': 1}, seed=0, split=1)
    for more, done in (({'test_only': True}, 0), ({}, 1)):
        (tmp_path / 'results.jsonl').write_text(
            f'[]\ncut o\n{"[" * 100000}\n{json.dumps({**result, **more})}\n')
        assert len(sweep.finished(tmp_path)) == done


def test_a_run_without_a_class_is_looked_for_as_its_line_tells_it(tmp_path):
    runs = read(tmp_path, '--cells 8\n--cells 8 --without other\n')
    of_all, part = (json.loads(run.key)[0] for run in runs)
    assert part == {**of_all, 'without': 'other'}


def test_the_root_is_made_where_it_is_not_there(tmp_path):
    assert sweep.run_here([], tmp_path / 'a' / 'b', 1) == []
    assert (tmp_path / 'a' / 'b' / 'sweep').is_dir()


def start(root, *flags):
    return [sys.executable, 'sweep.py', str(root / 'runs.txt'), '--root', str(root), '--tiny',
            *map(str, flags)]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs sweep.py in this process, its runs in others: (exit code, output)."""
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', start(root, *flags)[1:])
        code = sweep.main()
        return code, capsys.readouterr().out
    return run


def results(root):
    return [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]


def test_runs_what_is_not_in_the_results(tmp_path, run):
    featureSet.make_features(tmp_path)
    (tmp_path / 'runs.txt').write_text('--cells 4\n--cell linear\n')
    code, out = run(tmp_path, '--parallel', 2)
    assert code == 0, out
    assert {line['method'] for line in results(tmp_path)} == {'LSTM 1x4', 'linear'}
    assert (tmp_path / 'cells4.model').exists()
    assert 'by video' in (tmp_path / 'sweep' / 'cells4.log').read_text()
    # One run more, which fails.
    with open(tmp_path / 'runs.txt', 'a') as f:
        f.write('--lr 1e30 --clip 0\n')
    code, out = run(tmp_path)
    assert code == 3
    assert '3 runs, 2 done, 1 left' in out
    assert 'lr1e30-clip0: failed: error: the loss became' in out
    assert len(results(tmp_path)) == 2
    assert run(tmp_path, '--list')[1].splitlines()[1:] == [
        'done  cells4', 'done  celllinear', 'left  lr1e30-clip0']


def test_a_run_a_core_unless_the_features_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, 'usable_cores', lambda: 4)
    monkeypatch.setattr(sweep.os, 'sysconf', {'SC_PHYS_PAGES': 1000, 'SC_PAGE_SIZE': 4096}.get)
    features = tmp_path / 'train1024.hdf5'
    for size, runs, device, at_once in ((1000, 9, '-1', 4), (1000, 3, '-1', 3), (1000, 9, '0', 1),
                                        (500_000, 9, '-1', 2), (10 ** 7, 9, '-1', 1)):
        features.write_bytes(bytes(size))
        assert sweep.runs_at_once(range(runs), tmp_path, device) == at_once


def test_a_stopped_sweep_goes_on_from_the_last_epoch(tmp_path, run):
    featureSet.make_features(tmp_path)
    (tmp_path / 'runs.txt').write_text('--cells 4 --epochs 3000 --name long\n')
    process = subprocess.Popen(start(tmp_path), cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    snapshot = tmp_path / 'long.training' / 'snapshot.npz'
    for _ in range(600):
        if snapshot.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    log = tmp_path / 'sweep' / 'long.log'
    assert 'goes on from there' in log.read_text()
    # The number of epochs is the one setting that may change on the way.
    epochs = len(json.loads((tmp_path / 'long.training' / 'log').read_text())) + 1
    (tmp_path / 'runs.txt').write_text(f'--cells 4 --epochs {epochs} --name long\n')
    assert run(tmp_path)[0] == 0
    assert 'resumed after epoch' in log.read_text()


def test_jobs(tmp_path, run):
    featureSet.make_features(tmp_path)
    (tmp_path / 'runs.txt').write_text('--cells 4 --optimizer adam\n')
    (tmp_path / 'cluster.toml').write_text('ppn = 8\nparts = 3\n')
    code, out = run(tmp_path, '--jobs', '--scheduler', 'slurm', '--account', 'ABC')
    assert code == 0
    folder = tmp_path / 'sweep'
    assert out.splitlines() == [f'cd {folder} && sbatch --parsable cells4-optimizeradam.pbs']
    job = (folder / 'cells4-optimizeradam.pbs').read_text()
    assert '#SBATCH --account=ABC' in job and '--cpus-per-task=8' in job
    assert f'rnn.py --root {tmp_path} --cells 4 --optimizer adam --tiny' in job
    with pytest.raises(UserError, match='--accont'):
        run(tmp_path, '--jobs', '--accont', 'ABC')
    # Torque's names have at most 15 characters; the last ones may tell the seed.
    run(tmp_path, '--jobs')
    assert '#PBS -N rnn-timizeradam\n' in (folder / 'cells4-optimizeradam.pbs').read_text()
