"""Kills the stages at random moments, runs them again, and compares what they end with.

    python tests/killTest.py --kills 100 --seed 0       # some minutes; pytest runs a short one

Frame training, extraction, packing, normalising and RNN training run on 24 small clips,
once in peace and then with SIGKILLs to all their processes, each at a random moment
between the stage's first line and its end. After a kill the same command runs again. A
stage that comes to its end is compared with the undisturbed one (arrays, HDF5 data sets,
cards and results, byte for byte) and begins anew. Exit code 0: all alike.
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import h5py  # noqa: E402
import numpy  # noqa: E402

import smallSet  # noqa: E402
from VGGNet import VGGNet  # noqa: E402
from engine import variants  # noqa: E402
from engine.reporting.resultsfile import RESULTS, read_results  # noqa: E402
from engine.weights.modelfile import save_model  # noqa: E402

STAGES = (
    ('frameBasedTrain.py', '--tiny', '--epochs', '3', '--features', str(smallSet.N_FEATURES)),
    ('saveFeatures_1024.py', '1', '--parts', '1'),
    ('save_hdf5.py',),
    ('normalizeData.py',),
    ('rnn.py', '--tiny', '--epochs', '3', '--cells', '8', '--hidden', '8'))
# Says when and by which state of the code a thing was made, not what it is.
PASSING = ('commit', 'time', 'command', 'seconds', 'root')


def start(command, root):
    return subprocess.Popen([sys.executable, str(smallSet.REPOSITORY / command[0]), *command[1:],
                             '--root', str(root)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def first_line(process):
    """Waits for the first line, then reads on in a thread; returns the list it fills."""
    lines = [process.stdout.readline()]
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    return lines, reader


def undisturbed(command, root):
    """Runs a stage to its end; returns the seconds from its first line to its end."""
    process = start(command, root)
    lines, reader = first_line(process)
    begin = time.monotonic()
    process.wait()
    reader.join()
    if process.returncode:
        sys.exit(f'{command[0]} failed without being killed:\n' + ''.join(lines))
    return time.monotonic() - begin


def killed(command, root, after):
    """Runs a stage and kills it `after` seconds past its first line; returns whether it was hit."""
    process = start(command, root)
    lines, reader = first_line(process)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        pass
    hit = process.poll() is None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    reader.join()
    if not hit and process.returncode:
        sys.exit(f'{command[0]} fails after a kill:\n' + ''.join(lines))
    return hit


def contents(root):
    """{name: bytes} of every result under a root, less what says when it was made."""
    found = {}
    for path in sorted(root.rglob('*')):
        name = str(path.relative_to(root))
        if path.suffix == '.npy':
            found[name] = path.read_bytes()
        elif path.suffix == '.hdf5':
            with h5py.File(path) as f:
                found.update({f'{name}@{key}': str(value).encode()
                              for key, value in f.attrs.items()})
                f.visititems(lambda key, item: found.__setitem__(
                    f'{name}/{key}', _hdf5_bytes(item)))
        elif path.suffix == '.model':
            with numpy.load(path) as f:
                for key in f:
                    found[f'{name}/{key}'] = (_lasting(json.loads(str(f[key]))) if key == 'card'
                                              else f[key].tobytes())
        elif path.name == RESULTS and (results := whole_results(path)):
            found[name] = results
    return found


def whole_results(path):
    """The lines of a results.jsonl that are whole, less what says when they were made.

    Sorted: which of two runs of a sweep ends first is chance.
    """
    return b'\n'.join(sorted(map(_lasting, read_results(path)[0])))


def _hdf5_bytes(item):
    if not isinstance(item, h5py.Dataset):
        return b''
    value = item[()]
    return repr(value.tolist()).encode() if value.dtype == object else value.tobytes()


def _lasting(told):
    return json.dumps({key: value for key, value in told.items() if key not in PASSING},
                      sort_keys=True).encode()


def compare(command, root, expected):
    """Exits, naming what differs, unless a root holds the same results."""
    actual = contents(root)
    wrong = sorted(name for name in actual.keys() | expected.keys()
                   if actual.get(name) != expected.get(name))
    if wrong:
        sys.exit(f'{command[0]}: differs after kills: {", ".join(wrong[:5])}; see {root}')


def make_root(root):
    """Makes the root that the first stage begins with: clips, lists and a random VGG.model."""
    smallSet.make_set(root)
    (root / variants.FRAME_MODEL).unlink()
    numpy.random.seed(0)
    vgg = VGGNet((8, 8, 8, 8, 8), 32, 10, 32)
    save_model(root / variants.VGG_MODEL, vgg, {'shape': vgg.shape})


def kill_test(folder, kills, seed, say=print):
    """Runs the whole test in an empty folder; returns the number of kills that hit."""
    folder, rng = Path(folder), random.Random(seed)
    root = folder / 'undisturbed'
    make_root(root)
    total = 0
    for number, command in enumerate(STAGES):
        before = folder / f'before{number}'
        shutil.copytree(root, before)
        length = undisturbed(command, root)
        expected = contents(root)
        victim = folder / 'victim'
        wanted = kills // len(STAGES) + (number < kills % len(STAGES))
        hits = ends = tries = 0
        shutil.copytree(before, victim)
        while hits < wanted:
            tries += 1
            if killed(command, victim, rng.uniform(0, length)):
                hits += 1
            else:
                # It was quicker than the moment drawn: compared, and begun anew.
                ends += 1
                compare(command, victim, expected)
                shutil.rmtree(victim)
                shutil.copytree(before, victim)
        undisturbed(command, victim)
        compare(command, victim, expected)
        shutil.rmtree(victim)
        say(f'{command[0]}: {hits} kills within {length:.2f} s, {ends + 1} ends compared, '
            'all alike', flush=True)
        total += hits
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100, help='default: 100')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix='killTest')
    total = kill_test(folder, args.kills, args.seed)
    shutil.rmtree(folder)
    print(f'{total} kills; every stage ended with what it gives undisturbed')


if __name__ == '__main__':
    main()
