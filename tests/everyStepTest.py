"""Ends writers at every step they do, and looks at what is there and at what comes after.

    python tests/everyStepTest.py --saves          # each kind of file; seconds; pytest runs it
    python tests/everyStepTest.py                  # each stage as well: half an hour of one core
    python tests/everyStepTest.py --stage rnn --sample 20 --seed 0      # of one stage, a few

A step is an open, write, fsync, rename, link, unlink, truncate or mkdir below the root, as the C
library is asked for it (everyStep.c). Each writer is ended before each of them, in the middle of
each write, and told at each that the disk is full from then on. Then

  - a file under its name is the old one or one that got the name whole;
  - a full disk is told in one line, and the exit code is not 0;
  - the same command, run again, ends with what it gives undisturbed;
  - what gets its name was on the disk before, and the name is right after.

A kill leaves the files as they are: so one run is halted at every step, and its root copied.
What follows is decided by the names and bytes of the files there, so a root like one from which
the command went on already is not tried again. Of locks and .part files the names count alone
(without what is random in them): a lock's process is dead, and no .part file of another process is
ever read or renamed, which is looked at, too. Each stage is also ended as it goes on after an end
in the middle; there the disk gets full at the steps of the second half.

Exit code 0: all held. Wants Linux and a C compiler (cc).
"""
import argparse
import ctypes
import errno
import hashlib
import importlib
import os
import random
import re
import shutil
import socket
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
from chainer.training import trainer  # noqa: E402

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
NO_STEPS = 'torn', 'read'
NEEDS_NO_ROOM = 'rename', 'link', 'unlink'


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


def forked(work, root, full=0, halted=lambda what, steps: None):
    """Calls work(root) in a process of its own.

    Args:
        full: the step from which on the disk is full; 0 for none.
        halted: called with what the process is about to do, or in the middle of ('torn'), and the
            steps up to that one.

    Returns:
        (its exit code, what it printed, [(step, path ...)] it did).
    """
    left = {str(path) for path in root.rglob('*.part')}
    with tempfile.TemporaryFile() as said:
        ours, theirs = socket.socketpair()
        child = os.fork()
        if not child:
            code = 70
            try:
                ours.close()
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                stop_clocks()
                ctypes.CDLL(None).steps_begin(os.fsencode(root), ctypes.c_long(full),
                                              errno.ENOSPC, theirs.fileno())
                code = work(root) or 0
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        theirs.close()
        steps = []
        with ours, ours.makefile('rb') as lines:
            for line in lines:
                what, *paths = os.fsdecode(line.rstrip(b'\n')).split('\t')
                assert what not in ('read', 'rename') or paths[0] not in left, f'{what} {paths[0]}'
                if what not in NO_STEPS:
                    steps.append((what, *paths))
                halted(what, steps)
                ours.send(b'.')
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return code, os.fsdecode(said.read()), steps


def stop_clocks(now=time.time(), strftime=time.strftime):
    """Lets the same work write the same bytes, and as often."""
    time.time = time.monotonic = time.perf_counter = trainer._get_time = lambda: now
    time.time_ns = lambda: int(now * 1e9)
    time.strftime = lambda form, *_: strftime(form, time.localtime(now))


def state(root):
    """A digest of all that a restart goes by; see above."""
    found = []
    for path in root.rglob('*'):
        name = re.sub(r'\.(\w{8}|\w{12})\.part$', '.part', str(path.relative_to(root)))
        passing = path.suffix in ('.part', '.lock') or path.is_dir()
        found.append((name, b'' if passing else hashlib.sha256(path.read_bytes()).digest()))
    return hashlib.sha256(repr(sorted(set(found))).encode()).digest()


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


class Ends:
    """Ends a writer at each step, and looks.

    Args:
        work: function of a root, which writes there.
        contents: function of a root, {name: bytes} of its results.
        folder: a folder for roots.
        chosen: function of the number of steps, those at which the disk gets full.
    """

    def __init__(self, name, work, contents, folder, chosen):
        self.name, self.work, self.contents, self.chosen = name, work, contents, chosen
        self.victim, self.copies = folder / 'victim', folder / 'copies'
        self.seen = set()  # states that were looked at
        self.whole = {}  # {key of contents: the values it may have}
        self.number = 0

    def run(self, before):
        """Ends it at its steps from the root `before` on, and then at those by which it goes on
        from the middle; returns how often."""
        self.begin(before)
        self.know(self.victim)
        check_order(self.undisturbed(), self.victim)
        self.new = self.know(self.victim)
        self.undisturbed()
        assert self.contents(self.victim) == self.new, f'{self.name}: not the same twice'
        steps, copies = self.kill(before, self.name)
        if not copies:
            self.fill_at_each(before, steps, self.name)
            return self.number
        copy, _, at = copies[len(copies) // 2]
        self.fill_at_each(before, steps[:at], self.name)
        middle = shutil.move(copy, self.copies.with_name('middle'))
        name = f'{self.name} after an end'
        self.fill_at_each(middle, self.kill(middle, name)[0], name)
        shutil.rmtree(middle)
        return self.number

    def begin(self, root):
        shutil.rmtree(self.victim, ignore_errors=True)
        shutil.copytree(root, self.victim, symlinks=True)

    def undisturbed(self, where='', **options):
        code, said, steps = forked(self.work, self.victim, **options)
        assert code == 0, f'{where}: {said}'
        return steps

    def kill(self, before, name):
        """Ends it by kills; returns (steps, [(root, where, number of the step)]), the latter of
        those that left what was not seen yet."""
        shutil.rmtree(self.copies, ignore_errors=True)
        copies, last = [], ''

        def halted(what, steps):
            nonlocal last
            if last == 'rename':
                self.know(self.victim)
            last = what
            if what != 'read' and self.is_new(self.victim):
                copy = self.copies / str(len(copies))
                killed = (f'{name}, killed {"in" if what == "torn" else "before"} step '
                          f'{len(steps)}, {" ".join(steps[-1])}')
                shutil.copytree(self.victim, copy, symlinks=True)
                copies.append((copy, killed, len(steps)))
                self.check(copy, killed)
        self.begin(before)
        steps = self.undisturbed(halted=halted)
        for copy, killed, _ in copies:
            self.begin(copy)
            self.go_on(killed)
        return steps, copies

    def fill_at_each(self, before, steps, name):
        """Ends it by a full disk."""
        for at in self.chosen(len(steps)):
            if steps[at - 1][0] not in NEEDS_NO_ROOM:
                self.fill(before, at, f'{name}, disk full at step {at}, {" ".join(steps[at - 1])}')

    def fill(self, before, at, where):
        self.begin(before)
        code, said, _ = forked(self.work, self.victim, full=at)
        assert code in (0, 1, 3, 4) and 'Traceback' not in said, f'{where}: {said}'
        assert code != 1 or said.splitlines()[-1].startswith('error: '), f'{where}: {said}'
        assert code or self.contents(self.victim) == self.new, f'{where}: 0, but not all is there'
        if self.is_new(self.victim):
            self.check(self.victim, where)
            self.go_on(where)

    def is_new(self, root):
        self.number += 1
        seen, number = state(root), len(self.seen)
        self.seen.add(seen)
        return len(self.seen) > number

    def know(self, root):
        """Takes what there is in a root for whole; returns it."""
        found = self.contents(root)
        for key, value in found.items():
            self.whole.setdefault(key, []).append(value)
        return found

    def check(self, root, where):
        for key, value in self.contents(root).items():
            assert value in self.whole.get(key, ()), f'{where}: {key} is none that was whole'

    def go_on(self, where):
        self.undisturbed(where)
        assert self.contents(self.victim) == self.new, f'{where}: the same command ends otherwise'


# ------------------------------------------------------------------ what is tried

def raw(root):
    """{name: bytes} of all files that are not hidden."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*'))
            if path.is_file() and not path.name.startswith('.')}


def whole_lines(root):
    """What raw gives, of results.jsonl the lines that are whole."""
    found = raw(root)
    if RESULTS in found:
        found[RESULTS] = killTest.whole_results(root / RESULTS)
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


def module_of(command):
    return command[0].removesuffix('.py')


def of_stage(command):
    """The work of a stage: runs it on a root as `python command --root ROOT` does."""
    def work(root):
        sys.argv = [*command, '--root', str(root)]
        try:
            stage.run(importlib.import_module(module_of(command)).main)
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
    for name in (*map(module_of, killTest.STAGES), 'sklearn.metrics', 'matplotlib.figure',
                 'matplotlib.backends.backend_agg'):
        importlib.import_module(name)  # once, not in every process
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
    parser.add_argument('--sample', type=int,
                        help='a full disk at so many steps of each alone (default: at all)')
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
            begin = time.monotonic()
            ends = Ends(name, work, contents, folder, chosen)
            total += ends.run(before)
            print(f'{name}: {ends.number} ends, {len(ends.seen)} of them left something else, all '
                  f'went on; {time.monotonic() - begin:.0f} s', flush=True)
    print(f'{total} ends; every one left whole files, and the same command went on')


if __name__ == '__main__':
    if 'STEPS' not in os.environ:
        sys.exit(preload())
    main()
