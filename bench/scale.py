"""The stages after the features at the size of UCF-101, without its videos: memory, time, disk.

Makes random features in the number and lengths of UCF-101's (bench/scaleSet.py), or of a share
of them, and runs save_hdf5.py, normalizeData.py, singleFrameAccuracy.py, one epoch's loading and
one epoch of a small RNN on them, each as a process of its own. Then times random segments out of
HDF5 beside the .npy files.

    python -m bench.scale --root scale --share 0.01
    python -m bench.scale --root scale --share 0.01 0.1 1      # needs 30 GB of disk, see --plain

"peak" is the process's own (ru_maxrss). Before each stage its files are dropped from the page
cache (POSIX_FADV_DONTNEED); "off disk" is what then really came from the disk, once or twice.
Seconds include the fsync of what was written. "disk" is the time of a plain program for as many
bytes: one file written in 8 MB pieces with fsync, or dropped from the cache and read. The set is
removed at the end, unless --keep.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from engine import usable_cores
from engine.arguments import not_negative, real, whole

# Nothing large is imported here: a process inherits the peak of the one that starts it.
HERE = Path(__file__).resolve().parent.parent
STAGES = ('pack', 'normalise', 'accuracy', 'loading', 'rnn', 'segments')
BATCH, STEPS, PIECE = 64, 120, 8 << 20
FEATURES, PREDICTIONS = 'UCF-101_features', 'UCF-101_framePrediction'
TRAIN, TEST = 'train1024.hdf5', 'test1024.hdf5'
FRAMES = 'testPredictions1024.hdf5'


class Run(NamedTuple):
    """What a process took, from its start to the fsync of the files it wrote."""
    seconds: float
    peak: int       # bytes
    from_disk: int  # bytes
    answer: str     # last line of its output


def files(*paths):
    """All files among and below the paths."""
    for path in paths:
        if path.is_dir():
            yield from (Path(folder, name) for folder, _, names in os.walk(path)
                        for name in names)
        elif path.exists():
            yield path


def in_bytes(*paths):
    return sum(path.stat().st_size for path in files(*paths))


def forget(*paths):
    """Drops files from the page cache, once they are safe on the disk."""
    for path in files(*paths):
        with open(path, 'rb') as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(command, log, writes=()):
    """Runs a command of Python's to its end; its output goes into the log."""
    with open(log, 'a+', encoding='utf-8') as f:
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, *map(str, command)], cwd=HERE, stdout=f,
                                 stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        for path in files(*writes):
            with open(path, 'rb') as written:
                os.fsync(written.fileno())
        seconds = time.perf_counter() - start
        f.seek(0)
        lines = f.read().splitlines() or ['']
    if child.returncode:
        sys.exit(f'error: {" ".join(map(str, command))}: {lines[-1]}; see {log}')
    return Run(seconds, used.ru_maxrss * 1024, used.ru_inblock * 512, lines[-1])


# ------------------------------------------------- what runs as a process of its own

def task_make(args):
    from bench.scaleSet import make
    make(args.root, args.share[0], args.seed)
    return {}


def task_disk(args):
    """Writes so many bytes into one file, or reads what is left of it: {seconds}."""
    path, pieces = args.root / 'plain', range(0, args.bytes, PIECE)
    data = os.urandom(PIECE)
    start = time.perf_counter()
    with open(path, 'wb') as f:
        for place in pieces:
            f.write(data[:min(PIECE, args.bytes - place)])
        f.flush()
        os.fsync(f.fileno())
    written = time.perf_counter() - start
    forget(path)
    start = time.perf_counter()
    with open(path, 'rb', buffering=0) as f:
        while f.readinto(data := bytearray(PIECE)):
            pass
    read = time.perf_counter() - start
    path.unlink()
    return {'written': written, 'read': read}


def open_store(root, f):
    import helperFunctions as hf
    from engine.learning.sequences import FeatureStore
    return FeatureStore(f, hf.read_lists(root).train, memory=0)


def task_loading(args):
    """One epoch's batches, as rnn.py --memory 0 asks for them: {bytes read}."""
    from engine import hdf5
    from engine.learning.sequences import SequenceBatches
    with hdf5.open_hdf5(args.root / TRAIN, 'python -m bench.scale') as f:
        store = open_store(args.root, f)
        batches = SequenceBatches(store, BATCH, STEPS, args.seed)
        for _ in range(batches.batches_per_epoch):
            next(batches)
        batches.finalize()
        rows = int(store.lengths.clip(max=STEPS).sum())
        return {'bytes': rows * store.n_features * store.stored(0).dtype.itemsize}


def task_segments(args):
    """Median milliseconds of a random segment, by method: [cold, warm]; and of opening."""
    import numpy

    from engine import hdf5, variants
    from engine.files import load_npy
    random = numpy.random.RandomState(args.seed)
    start = time.perf_counter()
    f = hdf5.open_hdf5(args.root / TRAIN, 'python -m bench.scale')
    store = open_store(args.root, f)
    opening = time.perf_counter() - start
    long = numpy.flatnonzero(store.lengths >= STEPS)
    chosen = random.permutation(long)[:args.segments]
    starts = random.randint(store.lengths[chosen] - STEPS + 1)
    steps = numpy.arange(STEPS)
    paths = [variants.output_path(args.root, FEATURES, store.clips[i]) for i in chosen]
    methods = {
        'HDF5': lambda i, at, path: store.stored(i)[at:at + STEPS],
        'HDF5, as rnn.py takes it': lambda i, at, path: store.rows(i, at + steps),
        '.npy, whole': lambda i, at, path: load_npy(path)[at:at + STEPS].copy(),
        '.npy, mapped': lambda i, at, path: load_npy(path, mmap=True)[at:at + STEPS].copy()}
    found = {}
    for name, read in methods.items():
        forget(args.root / TRAIN, *paths)
        for _ in ('cold', 'warm'):
            times = []
            for i, at, path in zip(chosen, starts, paths):
                start = time.perf_counter()
                read(i, at, path)
                times.append(1000 * (time.perf_counter() - start))
            found.setdefault(name, []).append(statistics.median(times))
    f.close()
    return {'n': len(chosen), 'opening': opening, 'clips': len(store), 'methods': found,
            'frames': float(store.lengths[chosen].mean())}


# ------------------------------------------------------------------------------ the table

def plan(root, args):
    """{stage: (command, what it reads, what it writes)}."""
    predictions = [root / 'validationPredictions1024.hdf5', root / FRAMES]
    return {
        'pack': (['save_hdf5.py', '--root', root, '--dtype', args.dtype],
                 [root / FEATURES, root / PREDICTIONS],
                 [root / TRAIN, root / TEST, *predictions]),
        'normalise': (['normalizeData.py', '--root', root], [root / TRAIN], []),
        'accuracy': (['singleFrameAccuracy.py', '--root', root], [root / FRAMES], []),
        'loading': (task('loading', root, args), [root / TRAIN], []),
        'rnn': (['rnn.py', '--root', root, '--memory', 0, '--batch', BATCH, '--epochs', 1,
                 '--cells', 16, '--hidden', 16, '--restart'], [root / TRAIN, root / TEST],
                [root / 'RNN_testPredictions.hdf5'])}


def task(name, root, args, **flags):
    return ['-m', 'bench.scale', '--task', name, '--root', root, '--seed', args.seed,
            *(word for key, value in flags.items() for word in (f'--{key}', value))]


def measure(root, share, args):
    """Prints the rows of one share."""
    log = root / 'scale.log'
    done = run(task('make', root, args, share=share), log)
    made = in_bytes(root / FEATURES, root / PREDICTIONS)
    n = sum(1 for path in files(root / FEATURES) if path.suffix == '.npy')
    print(f'| {share:g} | {n} | making the set | {made / 1e6:.0f} | {done.seconds:.1f} | '
          f'{made / 1e6 / done.seconds:.0f} | | | {done.peak / 1e6:.0f} |', flush=True)
    for stage, (command, reads, writes) in plan(root, args).items():
        if stage not in args.stages:
            continue
        forget(*reads)
        done = run(command, log, writes)
        moved = read = in_bytes(*reads)
        if stage == 'loading':
            moved = read = json.loads(done.answer)['bytes']
        written = in_bytes(*writes)
        moved += written
        disk = plain(root, read, 'read', args) + plain(root, written, 'written', args)
        print(f'| {share:g} | {n} | {stage} | {moved / 1e6:.0f} | {done.seconds:.1f} | '
              f'{moved / 1e6 / done.seconds:.0f} | {disk:.1f} | {done.from_disk / 1e6:.0f} | '
              f'{done.peak / 1e6:.0f} |', flush=True)
    if 'segments' in args.stages:
        return json.loads(run(task('segments', root, args, segments=args.segments), log).answer)


def plain(root, n_bytes, what, args):
    """Seconds of the disk alone for so many bytes; beyond --plain in proportion."""
    size = min(n_bytes, int(args.plain * 1e9))
    if not size:
        return 0.0
    done = run(task('disk', root, args, bytes=size), root / 'scale.log')
    return json.loads(done.answer)[what] * n_bytes / size


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, required=True, metavar='DIR',
                        help='the set is made in folders here')
    parser.add_argument('--share', type=real(above=0, most=1), nargs='+', default=[0.01],
                        metavar='S',
                        help='shares of the full set (default: 0.01)')
    parser.add_argument('--dtype', choices=('float16', 'float32'), default='float16',
                        help='of the packed features (default: float16)')
    parser.add_argument('--stages', nargs='+', choices=STAGES, default=STAGES, metavar='NAME',
                        help=f'some of: {" ".join(STAGES)} (default: all)')
    parser.add_argument('--segments', type=whole(1), default=500, metavar='N',
                        help='random segments, each of another clip (default: 500)')
    parser.add_argument('--plain', type=not_negative, default=2.0, metavar='GB',
                        help='the disk alone is timed with at most so much, and beyond it in '
                             'proportion (default: 2)')
    parser.add_argument('--seed', type=whole(0), default=0)
    parser.add_argument('--keep', action='store_true', help='leave the set there')
    parser.add_argument('--task', choices=('make', 'disk', 'loading', 'segments'),
                        help=argparse.SUPPRESS)
    parser.add_argument('--bytes', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.root = args.root.resolve()
    if args.task:
        print(json.dumps(globals()[f'task_{args.task}'](args)))
        return
    print(f'{time.strftime("%Y-%m-%d %H:%M")}, load {os.getloadavg()[0]:.1f} on '
          f'{usable_cores()} cores, features packed as {args.dtype}\n')
    print('| share | clips | stage | MB | s | MB/s | disk, s | off disk, MB | peak, MB |')
    print('| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |', flush=True)
    segments = {}
    for share in args.share:
        root = args.root / f'share{share:g}'
        if root.exists():
            sys.exit(f'error: {root} is there; remove it: rm -r {root}')
        root.mkdir(parents=True)
        segments[share] = measure(root, share, args)
        if not args.keep:
            shutil.rmtree(root)
    if 'segments' in args.stages:
        print(f'\n| share | segments of {STEPS} | from | cold, ms | warm, ms | '
              'HDF5 is faster, cold | warm |')
        print('| ---: | ---: | --- | ---: | ---: | ---: | ---: |')
        for share, found in segments.items():
            ours = found['methods']['HDF5']
            for name, (cold, warm) in found['methods'].items():
                print(f'| {share:g} | {found["n"]} | {name} | {cold:.2f} | {warm:.2f} | '
                      f'{cold / ours[0]:.1f} | {warm / ours[1]:.1f} |')
        print()
        for share, found in segments.items():
            print(f'{share:g}: the {found["clips"]} data sets were looked through in '
                  f'{found["opening"]:.1f} s; clips of {found["frames"]:.0f} frames on average')
    print(f'\nload at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()
