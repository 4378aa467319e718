"""Interrupts every stage at random moments, by Ctrl-C, SIGTERM or SIGHUP, and looks how it leaves.

    python tests/interruptTest.py --tries 200 --seed 1     # some minutes; pytest runs a short one

Each stage runs as a command on 24 small clips, first in peace. Then it gets a signal at a random
moment between its start and its end, alone (as from a scheduler) or with its children (as from a
terminal). It must be gone within --within seconds, none of its children may stay, no half-written
file and no lock; what it prints is one line (while Python itself starts apart). After
that the same command runs to its end and gives what it gave in peace. Exit code 0: all did.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import killTest  # noqa: E402
import smallSet  # noqa: E402
from engine import variants  # noqa: E402

FILES = (variants.TEST_PREDICTIONS, f'RNN{variants.TEST_SUFFIX}')
STAGES = (
    *killTest.STAGES,
    ('singleFrameAccuracy.py',), ('confusion.py',), ('combine.py', *FILES, '--choose'),
    ('sweep.py', 'ROOT/runs.txt', '--tiny'), ('results.py',), ('report.py',),
    ('predict.py', 'ROOT/new.avi', '--out', 'ROOT/seen'), ('opticalFlow.py', '1', '--parts', '1'),
    ('checkData.py',), ('demo.py', 'clips', '--tiny', '--root', 'ROOT/demo'))
# A signal before `stage.run` has begun ends Python as it always does, with the signal's own code.
LEAVES = {number: (128 + number, 4, -number)
          for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
DONE = (0, 3)


def start(command, root):
    words = [*command[1:], *(() if '--root' in command else ('--root', 'ROOT'))]
    return subprocess.Popen(
        [sys.executable, smallSet.REPOSITORY / command[0],
         *(word.replace('ROOT', str(root)) for word in words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(command, root):
    """Runs a stage to its end; returns the seconds that took."""
    begin = time.monotonic()
    process = start(command, root)
    out, errors = process.communicate()
    if process.returncode not in DONE:
        sys.exit(f'{command[0]}: exit code {process.returncode} without a signal:\n{out}{errors}')
    return time.monotonic() - begin


def interrupted(command, root, after, number, alone, within):
    """Signals a stage `after` seconds past its start; returns (seconds until it was gone or None
    if it had ended before, list of what was wrong)."""
    process = start(command, root)
    try:
        out, errors = process.communicate(timeout=after)
        return None, wrong_end(process.returncode, DONE, out, errors)
    except subprocess.TimeoutExpired:
        pass
    begin = time.monotonic()
    (os.kill if alone else os.killpg)(process.pid, number)
    try:
        process.wait(timeout=max(10 * within, 20))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    spent = time.monotonic() - begin
    while is_there(process.pid) and time.monotonic() < begin + spent + within:
        time.sleep(0.05)
    wrong = [f'gone after {spent:.1f} s'] * (spent > within)
    if is_there(process.pid):
        wrong.append('its children stay')
        os.killpg(process.pid, signal.SIGKILL)
    out, errors = process.communicate()
    wrong += wrong_end(process.returncode, (*LEAVES[number], *DONE), out, errors)
    if process.returncode > 0:
        wrong += [f'left {path}' for path in root.rglob('.*') if path.suffix in ('.part', '.lock')]
    return spent, wrong


def is_there(group):
    """Whether a process of this group is alive."""
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, of_group = path.read_text().rpartition(')')[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state not in 'ZX':
            return True
    return False


def wrong_end(code, codes, out, errors):
    if 'Fatal Python error: init_import_site' in errors:  # Python's own start
        return []
    wrong = [f'exit code {code}:\n{out[-300:]}\n{errors[-2000:]}'] * (code not in codes)
    if code >= 0 and ('Traceback' in errors or 'Exception' in errors):
        wrong.append(f'a traceback:\n{errors[-2000:]}')
    return wrong


def make_root(root):
    killTest.make_root(root)
    (root / 'runs.txt').write_text('--cells 4 --epochs 2\n--cell linear\n')
    shutil.copy(next((root / variants.CLIPS).rglob('*.avi')), root / 'new.avi')


def interrupt_test(folder, tries, seed, within, stages=STAGES, say=print):
    """Runs the whole test in an empty folder; returns the number of signals and what was wrong."""
    folder, rng = Path(folder), random.Random(seed)
    root, victim = folder / 'undisturbed', folder / 'victim'
    make_root(root)
    signals, faults = 0, []
    for number, command in enumerate(STAGES[:max(map(STAGES.index, stages)) + 1]):
        before = folder / f'before{number}'
        shutil.copytree(root, before, symlinks=True)
        length = finish(command, root)
        mine = tries // len(stages) + (number < tries % len(stages))
        if command not in stages or not mine:
            continue
        shutil.copytree(before, victim, symlinks=True)
        times = []
        for _ in range(mine):
            spent, wrong = interrupted(command, victim, rng.uniform(0, length),
                                       rng.choice(list(LEAVES)), rng.random() < 0.5, within)
            faults += [f'{command[0]}: {what}' for what in wrong]
            if spent is None:  # it was quicker than the moment drawn: begun anew
                shutil.rmtree(victim)
                shutil.copytree(before, victim, symlinks=True)
            else:
                times.append(spent)
        finish(command, victim)
        killTest.compare(command, victim, killTest.contents(root))
        shutil.rmtree(victim)
        signals += len(times)
        say(f'{command[0]}: {len(times)} signals within {length:.1f} s, gone after '
            f'{max(times, default=0):.2f} s at most, then went on', flush=True)
    return signals, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tries', type=int, default=200, help='default: 200')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    parser.add_argument('--within', type=float, default=2.0, metavar='SECONDS',
                        help='default: 2; more on a machine that is busy')
    parser.add_argument('--stage', help='of one stage only (rnn.py)')
    args = parser.parse_args()
    for number in LEAVES:  # what a shell or nohup had ignored would be so in every stage, too
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    stages = [command for command in STAGES if args.stage in (None, command[0])]
    folder = tempfile.mkdtemp(prefix='interruptTest')
    signals, faults = interrupt_test(folder, args.tries, args.seed, args.within, stages)
    print('\n'.join(faults))
    if faults:
        sys.exit(f'{len(faults)} faults; see {folder}')
    shutil.rmtree(folder)
    print(f'{signals} signals; every stage left in time and went on')


if __name__ == '__main__':
    main()
