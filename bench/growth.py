"""How cost grows: with frames, their size, clips, workers, layers, steps, and runs at once.

Small tables of medians, one cost at a time, the rest as it stands in a table's title. Each says
what doubling it should cost: twice the work, twice the time.

    python -m bench.growth
    python -m bench.growth --only network runs
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from VGGNet_1024 import VGGNet_1024
from bench import clips as bench_clips
from bench.lstm import Ours, chainer_epoch
from engine import usable_cores
from engine.arguments import whole
from engine.fast.optimizers import Adam
from engine.video.preprocessing import preprocess
import helperFunctions as hf


def grown(title, unit, cases, turns):
    """Prints a line a case: its median seconds, and the work of it a second.

    Args:
        cases: {value: (work, function)}; all take turns.
    """
    seconds = bench.take_turns({value: run for value, (_, run) in cases.items()}, turns)
    print(f'\n{title}\n{"":>10} {"seconds":>9} {unit + "/s":>14}')
    for value, (work, _) in cases.items():
        median = statistics.median(seconds[value])
        print(f'{value!s:>10} {median:9.3f} {work / median:14.1f}', flush=True)


def network(args):
    """VGG-16's convolutions by frames a batch and by the side of a frame."""
    def extract(model, n, side):
        frames = numpy.random.randint(0, 256, (n, side, side, 3)).astype('u1')
        return lambda: model.feature_and_prediction(preprocess(frames, model.mean))
    model = VGGNet_1024(hidden=512, input_size=224)
    grown('network, 224x224: frames of a batch', 'frames',
          {n: (n, extract(model, n, 224)) for n in (1, 2, 4, 8, 16)}, args.turns)
    grown('network, batch 8: side of a frame', 'frames',
          {side: (8, extract(VGGNet_1024(hidden=512, input_size=side), 8, side))
           for side in (64, 96, 160, 224)}, args.turns)


def stage(args):
    """Stage 2 by clips and by workers."""
    with tempfile.TemporaryDirectory() as folder:
        paths = bench.drawn_clips(folder, 8, 60)
        clips = [hf.Clip(Path(path).stem, 'Class', 0, 'g01', Path(path)) for path in paths]
        model = VGGNet_1024((8, 16, 32, 32, 32), 128, 101, 64, 128)
        how = argparse.Namespace(batch=16)

        def run(n, workers=2):
            return n * 60, bench_clips.stage_2(clips[:n], Path(folder), model, how, workers)
        grown('stage 2, narrow network, 60 frames a clip: clips', 'frames',
              {n: run(n) for n in (1, 2, 4, 8)}, args.turns)
        grown('the same, 8 clips: --workers', 'frames',
              {n: run(8, n) for n in (1, 2, 4)}, args.turns)


def recurrent(args):
    """The LSTM by layers, units, sequences a batch and steps."""
    def run(layers=1, units=256, batch=32, steps=60):
        shape = argparse.Namespace(features=1024, classes=101)
        train = chainer_epoch(Ours(shape, layers, units), Adam)
        xs = numpy.random.randn(steps, batch, 1024).astype('f')
        ts = numpy.random.randint(0, 101, (steps, batch)).astype('i')
        return batch * steps, lambda: train(xs, ts, 30)
    for name, values in (('layers', (1, 2, 4)), ('units', (128, 256, 512)),
                         ('batch', (8, 16, 32, 64)), ('steps', (30, 60, 120, 240))):
        grown(f'LSTM 1x256, batch 32, 60 steps: {name}', 'steps',
              {value: run(**{name: value}) for value in values}, args.turns)


RUN = '''
import argparse, bench, numpy
from bench.lstm import Ours, chainer_epoch
from engine.fast.optimizers import Adam
train = chainer_epoch(Ours(argparse.Namespace(features=1024, classes=101), 1, 128), Adam)
xs = numpy.random.randn(60, 16, 1024).astype('f')
ts = numpy.random.randint(0, 101, (60, 16)).astype('i')
print('ready', flush=True)
input()
for _ in range(8):
    train(xs, ts, 30)
'''


def runs(args):
    """Four small RNNs one after the other on all cores, or as sweep.py --parallel N runs them."""
    def start(threads):
        names = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
        process = subprocess.Popen(
            [sys.executable, '-c', RUN], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=dict(os.environ, **dict.fromkeys(names, str(threads))))
        process.stdout.readline()
        return process

    seconds = {n: [] for n in (1, 2, 4)}
    for _ in range(args.turns):
        for parallel in seconds:
            waiting = [start(max(1, usable_cores() // parallel)) for _ in range(4)]
            begin = time.perf_counter()
            running = []
            while waiting or running:
                while waiting and len(running) < parallel:
                    running.append(waiting.pop())
                    running[-1].stdin.write('\n')
                    running[-1].stdin.close()
                time.sleep(0.01)
                running = [process for process in running if process.poll() is None]
            seconds[parallel].append(time.perf_counter() - begin)
    print('\nfour LSTMs 1x128, batch 16, 8 epochs of 60 steps: runs at once\n'
          f'{"":>10} {"seconds":>9} {"sequences/s":>14}')
    for parallel, times in seconds.items():
        median = statistics.median(times)
        print(f'{parallel:>10} {median:9.3f} {4 * 8 * 16 / median:14.1f}', flush=True)


TABLES = {'network': network, 'stage': stage, 'recurrent': recurrent, 'runs': runs}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--turns', type=whole(1), default=3, help='turns of each (default: 3)')
    parser.add_argument('--only', nargs='+', choices=TABLES, default=list(TABLES),
                        help='these tables alone')
    args = parser.parse_args()
    chainer.global_config.train = False
    numpy.random.seed(0)
    print(f'{usable_cores()} threads, {args.turns} turns')
    for name in args.only:
        TABLES[name](args)


if __name__ == '__main__':
    main()
