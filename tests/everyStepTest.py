"""Ends writers at every step they do, and looks at what is there and at what comes after.

    python tests/everyStepTest.py --saves          # each kind of file; seconds; pytest runs it
    python tests/everyStepTest.py                  # each stage as well: four hours of one core
    python tests/everyStepTest.py --stage rnn --sample 20 --seed 0      # of one stage, a few

A step is an open, write, fsync, rename, link, unlink, truncate or mkdir below the root, as the C
library is asked for it (everyStep.c). At each of them the writer is killed before it, killed in
the middle of it, and told that the disk is full from then on. Then

  - a file under its name is the old or the new one, whole;
  - a full disk is told in one line, and the exit code is not 0;
  - the same command, run again, ends with what it gives undisturbed;
  - what gets its name was on the disk before, and the name is right after.

Exit code 0: all held. Wants Linux and a C compiler (cc).
"""
import argparse
import ctypes
import errno
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import engine.chainer_today  # noqa: E402,F401  (before chainer)
import numpy  # noqa: E402

import featureSet  # noqa: E402
import helperFunctions  # noqa: E402
import killTest  # noqa: E402
from engine import files, hdf5, stage, variants  # noqa: E402
from engine.cluster import parts  # noqa: E402
from engine.errors import UserError  # noqa: E402
from engine.learning import statistics  # noqa: E402
from engine.reporting import predictionfile, resultsfile  # noqa: E402
from engine.weights.modelfile import save_model  # noqa: E402
from VGGNet import VGGNet  # noqa: E402

RESULTS = resultsfile.RESULTS

DIE, TEAR, FULL = 1, 2, 3
HOW = {DIE: 'killed before', TEAR: 'killed in', FULL: 'disk full at'}


def preload():
    """Starts this program again with everyStep.c between it and the C library."""
    folder = tempfile.mkdtemp(prefix='everyStepTest')
    try:
        library = Path(folder, 'everyStep.so')
        subprocess.run(['cc', '-O1', '-shared', '-fPIC', '-o', library, HERE / 'everyStep.c',
                        '-ldl'],
                       check=True)
        # One thread: a fork takes no others along.
        environment = dict(os.environ, LD_PRELOAD=str(library), STEPS=folder,
                           OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
    finally:
        shutil.rmtree(folder)


def forked(work, root, at=0, how=0):
    """Calls work(root) in a process of its own, which is ended at step `at`.

    Returns:
        (exit code or minus the signal, what it printed, [(step, path ...)] it did).
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as steps:
        child = os.fork()
        if not child:
            code = 70
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                ctypes.CDLL(None).steps_begin(os.fsencode(root), ctypes.c_long(at), how,
                                              errno.ENOSPC, steps.fileno())
                code = work(root) or 0
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for f in (said, steps):
            f.seek(0)
            texts.append(os.fsdecode(f.read()))
    return code, texts[0], [tuple(line.split('\t')) for line in texts[1].splitlines()]


def check_order(steps, root):
    """What is renamed was synced after its last write, and its folder is synced next."""
    for number, (step, *paths) in enumerate(steps):
        if step != 'rename':
            continue
        old, new = paths
        of_old = [what for what, path, *_ in steps[:number] if path == old and what in
                  ('write', 'truncate', 'fsync')]
        assert not of_old or of_old[-1] == 'fsync', f'{new}: renamed before it was synced'
        rest = [(what, path) for what, path, *_ in steps[number + 1:]]
        if old.endswith('.part'):  # else an older file, which makes room for a new one
            rest = rest[:1]
        assert ('fsync', os.path.dirname(new)) in rest, f'{new}: its folder is not synced'


def every_step(name, work, before, folder, contents, chosen=lambda steps: range(1, steps + 1)):
    """Ends work(root) at its steps, each time beginning with a copy of `before`.

    Args:
        contents: function of a root, {name: bytes} of its results.
        chosen: function of the number of steps, those to be tried.

    Returns:
        How often it was ended.
    """
    victim = folder / 'victim'

    def fresh():
        shutil.rmtree(victim, ignore_errors=True)
        shutil.copytree(before, victim, symlinks=True)

    def undisturbed():
        code, said, steps = forked(work, victim)
        assert code == 0, said
        return steps
    fresh()
    old = contents(victim)
    steps = undisturbed()
    check_order(steps, victim)
    new = contents(victim)
    assert undisturbed() is not None and contents(victim) == new, f'{name}: not the same twice'
    tried = 0
    for at in chosen(len(steps)):
        for how in HOW:
            fresh()
            code, said, _ = forked(work, victim, at, how)
            where = f'{name}, {HOW[how]} step {at} of {len(steps)}, {" ".join(steps[at - 1])}'
            between = contents(victim)
            for key in between:
                assert between[key] in (old.get(key), new.get(key)), f'{where}: {key} is neither'
            if how == FULL:
                assert code in (0, 1, 3, 4) and 'Traceback' not in said, f'{where}: {said}'
                assert code or between == new, f'{where}: 0, but not all is there'
                assert code != 1 or said.splitlines()[-1].startswith('error: '), f'{where}: {said}'
            else:
                assert code == -signal.SIGKILL, f'{where}: {code} {said}'
            undisturbed()
            assert contents(victim) == new, f'{where}: the same command ends otherwise'
            tried += 1
    return tried


# ------------------------------------------------------------------ what is tried

def raw(root):
    """{name: bytes} of all files that are not hidden."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*'))
            if path.is_file() and not path.name.startswith('.')}


def whole_lines(root):
    """What raw gives, of results.jsonl the lines that are whole, without when they were made."""
    found = raw(root)
    if RESULTS in found:
        found[RESULTS] = [{**line, 'root': '', 'time': '', 'commit': ''}
                          for line in resultsfile.read_results(root / RESULTS)[0]]
    return found


def filled(root):
    """The statistics in a file of features, where they are whole."""
    with hdf5.open_hdf5(root / variants.TRAIN_HDF5, 'x') as f:
        try:
            return {'statistics': str([array.tolist() for array in statistics.read(f)])}
        except UserError:
            return {}


def saves():
    """{kind: (work, contents)}: every way in which a file is written."""
    vgg = VGGNet((2, 2, 2, 2, 2), 4, 3, 32)
    random = numpy.random.RandomState(0).rand(40, 3)

    def result(root):
        return resultsfile.append_result(root, 'frames', 1, 'video', 0, {}, n=3, top1=0.5)

    def model(name):
        return lambda root: save_model(root / name, vgg, {'kind': 'vgg', 'shape': vgg.shape}) or 0
    return {
        'text': (lambda root: files.write_text(root / 'text', 'new\n' * 9999), raw),
        'new folders': (lambda root: files.write_text(root / 'a/b/c.txt', 'new'), raw),
        'list': (lambda root: helperFunctions.write_list(root / 'list', ['1 a', '2 b']), raw),
        'array': (lambda root: files.save_npy(root / 'clip.npy', random), raw),
        'model': (model('VGG.model'), raw),
        'model, HDF5': (model('VGG.h5'), raw),
        'predictions': (lambda root: predictionfile.write_predictions(
            root / 'p.hdf5', [('clip', random)], ['a', 'b', 'c'], 'frames', 1), raw),
        'report of a part': (lambda root: parts.Report(root, 3).add('failed', 'a', 'why'), raw),
        'statistics': (lambda root: statistics.store(
            root / variants.TRAIN_HDF5, numpy.arange(3.), numpy.ones(3), 7), filled),
        'result': (lambda root: result(root) and None, whole_lines)}


def make_old(root):
    """What `saves` write over: other contents, and results and features that are there."""
    root.mkdir()
    for name in ('text', 'list', 'clip.npy', 'VGG.model', 'VGG.h5', 'p.hdf5'):
        (root / name).write_bytes(b'old\n')
    resultsfile.append_result(root, 'LSTM', 1, 'video', 0, {}, n=3, top1=0.25)
    featureSet.make_features(root)
    return root


def of_stage(command):
    """The work of a stage: runs it on a root as `python command --root ROOT` does."""
    def work(root):
        sys.argv = [*command, '--root', str(root)]
        try:
            stage.run(importlib.import_module(command[0].removesuffix('.py')).main)
        except SystemExit as leaving:
            return leaving.code
    return work


def run_saves(folder):
    before = make_old(folder / 'old')
    for kind, (work, contents) in saves().items():
        def told(root, work=work):
            try:
                work(root)
            except UserError as error:
                print(f'error: {error}')
                return 1
        yield kind, told, before, contents


def run_stages(folder, only):
    root = folder / 'root'
    killTest.make_root(root)
    for number, command in enumerate(killTest.STAGES):
        before = folder / f'before{number}'
        shutil.copytree(root, before, symlinks=True)
        work = of_stage(command)
        if not only or command[0].startswith(only):
            # In place alone, where a digest tells whether the statistics are whole.
            yield (command[0], work, before,
                   filled if command[0] == 'normalizeData.py' else killTest.contents)
        code, said, _ = forked(work, root)
        assert code == 0, said


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--saves', action='store_true', help='the kinds of files alone')
    parser.add_argument('--stage', default='', help='one stage alone, such as rnn')
    parser.add_argument('--sample', type=int, help='so many steps of each (default: all)')
    parser.add_argument('--seed', type=int, default=0, help='which ones (default: 0)')
    args = parser.parse_args()
    rng = random.Random(args.seed)
    folder = Path(os.environ['STEPS'])

    def chosen(steps):
        every = range(1, steps + 1)
        return sorted(rng.sample(every, args.sample)) if (args.sample or steps) < steps else every
    total = 0
    for cases in (() if args.stage else run_saves(folder),
                  () if args.saves else run_stages(folder, args.stage)):
        for name, work, before, contents in cases:
            total += report(name, work, before, folder, contents, chosen)
    print(f'{total} ends; every one left whole files, and the same command went on')


def report(name, *case):
    begin = time.monotonic()
    ends = every_step(name, *case)
    print(f'{name}: {ends} ends, all went on; {time.monotonic() - begin:.0f} s', flush=True)
    return ends


if __name__ == '__main__':
    if 'STEPS' not in os.environ:
        sys.exit(preload())
    main()
