"""Several workers compute what one worker computes with a batch as large as all of theirs."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
from engine import variants
from engine.errors import UserError
from engine.learning import workers
from engine.learning.workers import Workers
from featureSet import make_features
from smallSet import REPOSITORY, vgg_set

pytest.importorskip('mpi4py', reason='pip install -r requirements-mpi.txt')
MPIEXEC = shutil.which('mpiexec')
needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason='no mpiexec here (openmpi-bin)')
# Open MPI wants to be asked twice before it runs for root; both ignore what is not theirs.
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT='1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1',
                   OMPI_MCA_rmaps_base_oversubscribe='1', OMPI_MCA_mpi_yield_when_idle='1',
                   OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
RNN = ('rnn.py', '--cells', '5', '--hidden', '4', '--steps', '12', '--window', '6',
       '--test-steps', '0', '--dropout', '0', '--lr', '0.05', '--weight-decay', '0.01',
       '--noise', '0.1', '--no-baseline')


def train(n, root, *flags, **options):
    """Starts a stage in n processes; returns the Popen."""
    command = [sys.executable, *map(str, flags), '--root', str(root)]
    if n > 1:
        command = [MPIEXEC, '-n', str(n), *command, '--communicator', 'naive']
    return subprocess.Popen(command, cwd=REPOSITORY, env=ENVIRONMENT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finish(process):
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, out + errors
    return out


def same(one, several, model, log):
    """Compares the weights and the log's figures of two roots."""
    with numpy.load(one / model) as a, numpy.load(several / model) as b:
        assert set(a.files) == set(b.files)
        for name in set(a.files) - {'card'}:
            # of n rows a running variance counts n/(n-1), which ChainerMN takes by worker
            rtol = 1e-3 if name.endswith('avg_var') else 2e-4
            numpy.testing.assert_allclose(b[name], a[name], rtol, atol=2e-6, err_msg=name)
    for a, b in zip(*(json.loads((root / log).read_text()) for root in (one, several))):
        for key in a.keys() - {'elapsed_time'}:
            assert b[key] == pytest.approx(a[key], rel=1e-4), key


def test_shares_of_a_batch():
    """The weighted mean over workers is the mean over the batch, whoever has how many."""
    values = numpy.random.RandomState(0).rand(7)
    for size in (1, 2, 3, 7, 9):
        workers = [Workers(SimpleNamespace(rank=rank, size=size)) for rank in range(size)]
        shares = [worker.share_of(values) for worker in workers]
        assert numpy.mean([mine.mean() * weight for mine, weight in shares]) == pytest.approx(
            values.mean())
        assert sum(len(mine) for mine, weight in shares if weight) == len(values)


@needs_mpi
@pytest.mark.parametrize('n, batch, flags', [
    (2, 4, ('--no-batch-norm',)),
    (3, 3, ('--no-batch-norm', '--optimizer', 'adam', '--clip', '0.5', '--class-weights',
            'balanced', '--balanced-sampling')),
    # of the last batch, 4 clips, the fifth worker has none
    pytest.param(5, 2, ('--no-batch-norm', '--variable-length', '--loss', 'last'),
                 marks=pytest.mark.skipif(not os.environ.get('LONG'), reason='LONG=1: five')),
    # 24 clips, evenly shared: batch normalisation over all workers is exact
    (2, 12, ())], ids=['momentum', 'adam, clipping, a rare class', 'uneven', 'batch normalisation'])
def test_workers_equal_one_with_the_whole_batch(tmp_path, n, batch, flags):
    one, several = tmp_path / 'one', tmp_path / 'several'
    for root in (one, several):
        make_features(root)
        if '--class-weights' in flags:
            path = root / variants.LISTS / 'trainlist01.txt'
            path.write_text(''.join(line for line in path.open() if '_c02.avi 3' not in line))
    finish(train(1, one, *RNN, *flags, '--epochs', 2, '--batch', n * batch))
    out = finish(train(n, several, *RNN, *flags, '--epochs', 2, '--batch', batch))
    same(one, several, 'RNN.model', 'RNN.training/log')
    assert sum(line.split()[:1] == ['epoch'] for line in out.splitlines()) == 1  # one talks
    lines = [json.loads(line) for line in (several / 'results.jsonl').read_text().splitlines()]
    assert len(lines) == 1 and lines[0]['n'] == 12
    assert lines[0]['settings']['workers'] == n  # as --batch is that of one


@needs_mpi
def test_frame_training_equals_one_worker_with_the_whole_batch(small_set, tmp_path):
    one, several = tmp_path / 'one', tmp_path / 'several'
    for root in (one, several):
        vgg_set(small_set, root)
    flags = ('frameBasedTrain.py', '--epochs', 2, '--features', 16, '--dropout', 0, '--crop', 0.8,
             '--weight-decay', 0.1, '--workers', 1)
    finish(train(1, one, *flags, '--batch', 6))
    finish(train(3, several, *flags, '--batch', 2))
    same(one, several, variants.FRAME_MODEL, 'frameTraining/log')


@needs_mpi
def test_resume_repeats_the_uninterrupted_run(tmp_path):
    straight, stopped = tmp_path / 'straight', tmp_path / 'stopped'
    for root in (straight, stopped):
        make_features(root)
    flags = (*RNN, '--batch', 4, '--dropout', '0.5')
    finish(train(2, straight, *flags, '--epochs', 4))
    finish(train(2, stopped, *flags, '--epochs', 2))
    assert 'resumed after epoch 2' in finish(train(2, stopped, *flags, '--epochs', 4))
    with numpy.load(straight / 'RNN.model') as a, numpy.load(stopped / 'RNN.model') as b:
        for name in set(a.files) - {'card'}:
            assert numpy.array_equal(a[name], b[name]), name
    # as many workers as before, or the batches would be others
    process = train(1, stopped, *flags, '--epochs', 5)
    assert 'workers 2 -> 1' in process.communicate(timeout=120)[1]


@needs_mpi
def test_sigterm_stops_all_and_keeps_the_snapshot(tmp_path):
    make_features(tmp_path)
    flags = (*RNN, '--batch', 4)
    process = train(2, tmp_path, *flags, '--epochs', 100000, start_new_session=True)
    for _ in range(600):
        if (tmp_path / 'RNN.training' / 'snapshot.npz').exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0
    epochs = len(json.loads((tmp_path / 'RNN.training' / 'log').read_text()))
    assert f'resumed after epoch {epochs}' in finish(
        train(2, tmp_path, *flags, '--epochs', epochs + 1))


@needs_mpi
def test_an_error_ends_all_workers_with_one_line(tmp_path):
    make_features(tmp_path)
    (tmp_path / variants.TRAIN_HDF5).unlink()
    process = train(3, tmp_path, *RNN)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert errors.count('error: ') == 1 and 'python save_hdf5.py' in errors


@needs_mpi
def test_mpiexec_without_a_communicator_is_refused(tmp_path):
    make_features(tmp_path)
    done = subprocess.run([MPIEXEC, '-n', '2', sys.executable, *RNN, '--root', str(tmp_path)],
                          cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode != 0 and 'add --communicator' in done.stderr
    assert not (tmp_path / 'RNN.model').exists()


@pytest.mark.parametrize('environment, started', [
    # a batch script on Slurm, one task of those that it asked for, and srun in it
    ({'SLURM_NTASKS': '2', 'SLURM_PROCID': '0'}, ''),
    ({'SLURM_NTASKS': '2', 'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '1'}, ''),
    ({'SLURM_NTASKS': '2', 'SLURM_PROCID': '1', 'SLURM_STEP_NUM_TASKS': '2'}, 'srun has started 2'),
    ({'PMI_SIZE': '3', 'PMI_RANK': '0'}, 'mpiexec has started 3'),
    ({'OMPI_COMM_WORLD_SIZE': '4'}, 'mpiexec has started 4'),
    ({'OMPI_COMM_WORLD_SIZE': '1'}, ''),
    ({'ALPS_APP_PE': '1'}, 'aprun has started several'), ({'ALPS_APP_PE': '0'}, '')])
def test_copies_that_know_nothing_of_one_another_are_refused(environment, started, monkeypatch):
    for name in sum((*workers.SIZES.values(), *workers.RANKS.values()), ()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if started:
        with pytest.raises(UserError, match=started):
            workers.get_workers(None)
    else:
        assert workers.get_workers(None).size == 1


def test_what_pure_nccl_wants_is_named():
    with pytest.raises(UserError, match=r'requirements-(gpu|mpi)\.txt'):
        workers.get_workers('pure_nccl')
