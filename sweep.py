"""Runs many settings of rnn.py: one run a line of a text file, those not yet in the results.

    python sweep.py runs.txt --root ROOT
    python sweep.py runs.txt --root ROOT --seeds 0 1 2       # each line with three seeds
    python sweep.py runs.txt --root ROOT --jobs --submit --scheduler slurm --account ABC
    python results.py --root ROOT --mean --markdown sweep.md

A line holds flags of rnn.py; what stands behind a # is a remark:

    # 1 and 2 layers, with and without dropout
    --layers 1 --dropout 0
    --layers 1 --dropout 0.5
    --layers 2 --dropout 0.5 --name deep

A line with --start-from waits for the run of an earlier line that it names (with --seeds, for
that of the same seed).

A run without --name is named by its flags (layers1-dropout0.5). Needs what rnn.py needs;
writes what rnn.py writes, and its output to ROOT/sweep/NAME.log. A run is done when
ROOT/results.jsonl has a line with its settings, seed and split, whoever made it. Start the same
command again after a stop: a run goes on from its last epoch.

--jobs runs nothing here: it writes a batch job for each run that is left and, with --submit,
submits those that no job is at yet; their ids stand in ROOT/sweep/jobs.txt. Without --submit it
prints the commands to submit them by yourself; what you submit so it does not know. Flags it does
not know, and ROOT/cluster.toml, are those of generate_pbs.py.
"""
import functools
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import generate_pbs
import rnn
from engine import arguments, hdf5, locks, stage, usable_cores, variants
from engine.cluster import record, submitting
from engine.cluster.jobstates import Jobs
from engine.errors import UserError
from engine.progress import number_of
from engine.files import json_of, write_text
from engine.reporting import counted
from engine.weights import cardchecks

FOLDER = 'sweep'
UNNAMED = '+unnamed+'
THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')


class Run(NamedTuple):
    """One run: its name, the flags for rnn.py, what makes it the same as a result, and the
    run of an earlier line that it starts from."""

    name: str
    flags: tuple
    key: str
    after: str = ''


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('runs', type=Path, metavar='FILE', help='text file, one run a line')
    group = parser.add_argument_group('which runs')
    group.add_argument('--seeds', type=arguments.whole(0), nargs='+', metavar='N',
                       help='each line once with each of these seeds (default: --seed)')
    group.add_argument('--list', action='store_true', help='only say which are done and left')
    group = parser.add_argument_group('how')
    group.add_argument('--parallel', type=arguments.at_once, default=None, metavar='N',
                       help='runs at once; they share the cores (default: one a core, as far as '
                            'their features fit a quarter of the memory; one on a GPU)')
    group.add_argument('--device', default='-1', metavar='N',
                       help='GPU number, or -1 for the CPU (default: -1)')
    group.add_argument('--jobs', action='store_true',
                       help='write batch jobs, and submit them (--submit) or print how')
    return parser


def key_of(settings, seed, split, fold):
    """Equal for two runs with the same settings, seed, split and fold."""
    return json.dumps([settings, seed, split, fold], sort_keys=True)


def read_runs(path, args):
    """Reads the file; returns a list of Run, each line once for each seed.

    Raises:
        UserError: naming file and line: flags that rnn.py does not take, two runs of one name.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: {getattr(error, "strerror", None) or "not a text"}') from None
    runs, lines_of, names = [], {}, set()
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f'{path}:{number}: {error}') from None
        for seed in (args.seeds or [args.seed]) if words else []:
            base, run = _run(words, seed, args, names, f'{path}:{number}')
            if run.name in lines_of:
                raise UserError(f'{path}:{number}: {run.name} is also the name of line '
                                f'{lines_of[run.name]}; give one of them a --name of its own')
            lines_of[run.name] = number
            runs.append(run)
        if words:
            names.add(base)
    if not runs:
        raise UserError(f'{path}: names no run')
    return runs


def _run(words, seed, args, earlier, where):
    """One line of the file, split into words: (its name without the seed, its Run)."""
    def refuse(message):
        raise UserError(f'{where}: {message}')
    parser = rnn.get_parser()
    parser.error = lambda message: refuse(f'{message}; see python rnn.py --help')
    parser.set_defaults(name=UNNAMED, seed=None)
    try:
        given = rnn.parse(parser, words)
    except UserError as error:
        refuse(str(error).removeprefix(f'{where}: '))
    if given.root != Path('.') or given.split != 1 or given.restart or given.test_only:
        refuse('--root, --split, --restart and --test-only are not for a line')
    if given.seed is not None and args.seeds:
        refuse('--seed stands here and --seeds in the command')
    name, fold = variants.split_fold(given.name)
    if name == UNNAMED:
        # --cells 64 32 --dropout 0.5 -> cells64,32-dropout0.5
        text = re.sub(r'(?<=\d) (?=[\d.])', ',', ' '.join(words).replace(' --', '-'))
        name = re.sub(r'[^\w.,-]', '', text).lstrip('-')[:100]
    base, start, start_flags = variants.name_in_fold(name, fold), given.start_from, ()
    if args.seeds:
        name += f'-seed{seed}'
        if start in earlier:
            start_flags = ('--start-from', f'{variants.split_fold(start)[0]}-seed{seed}')
    elif given.seed is not None:
        seed = given.seed
    flags = (*words, *start_flags, *['--tiny'] * args.tiny, '--split', str(args.split),
             '--seed', str(seed), '--name', name, '--device', args.device, '--no-baseline')
    parsed = rnn.parse(rnn.get_parser(), flags)
    return base, Run(parsed.name, flags,
                     key_of({**rnn.settings_of(parsed), **counted.settings(parsed.without)},
                            parsed.seed, parsed.split, parsed.fold),
                     parsed.start_from if start in earlier else '')


def features_now(path):
    """The digest of the features in a file; None where it cannot be read."""
    try:
        with hdf5.open_file(path) as f:
            return cardchecks.packed_in(hdf5.attributes(f))
    except (OSError, UserError):  # rnn.py says what is wrong
        return None


def finished(root):
    """The keys of the runs in ROOT/results.jsonl on the features that are there now; --test-only
    trains nothing and is none."""
    try:
        lines = (root / 'results.jsonl').read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return set()
    keys, now = set(), functools.cache(lambda names: features_now(root / names.train))
    for line in lines:
        try:
            result = json_of(line)
            names = variants.Names(fold=result.get('fold') or '', **{
                key: result['settings'][key] for key in ('stream', 'fusion', 'layer')
                if key in result['settings']})
            key = key_of(result['settings'], result['seed'], result['split'], result.get('fold'))
            if not result.get('test_only') and (
                    result.get('features') is None or now(names) in (None, result['features'])):
                keys.add(key)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a line cut off by a full disk is no result
    return keys


def command(run, root, python=sys.executable):
    return [python, str(stage.HERE / 'rnn.py'), '--root', str(root), *run.flags]


def last_line(path):
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
    except OSError:
        return ''
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def runs_at_once(runs, root, device):
    """How many runs go at once where --parallel does not say it: a small network cannot fill
    several cores (docs/performance.md). The same for all starts of one sweep, as a run's bits
    depend on its threads.
    """
    try:
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, OSError, ValueError):  # not on Windows
        memory = 0
    # Each run may hold all features in memory.
    size = max((path.stat().st_size for path in root.glob('train*.hdf5')), default=0)
    fit = memory // 4 // max(size, 1)
    return 1 if device != '-1' else max(1, min(len(runs), usable_cores(), fit))


def run_here(runs, root, parallel):
    """Runs them, `parallel` at once; returns those that failed.

    A stop (Ctrl-C, SIGTERM) is passed on, so that each run keeps what it has.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if parallel > 1:
        # Several runs that each take all cores would stand in one another's way.
        threads = max(1, usable_cores() // parallel)
        environment.update({name: str(threads) for name in THREADS})
    waiting, running, failed = list(runs), {}, []

    try:
        while waiting or running:
            while len(running) < parallel:
                unfinished = {run.name for run in (*waiting, *running)}
                run = next((run for run in waiting if run.after not in unfinished), None)
                if run is None:
                    break
                waiting.remove(run)
                if run.after in {other.name for other in failed}:
                    failed.append(run)
                    print(f'{run.name}: not started, as it goes on from {run.after}', flush=True)
                    continue
                log = folder / f'{run.name}.log'
                # or nobody would know of it
                with open(log, 'ab') as output, stage.uncut():
                    running[run] = subprocess.Popen(
                        command(run, root), stdin=subprocess.DEVNULL, stdout=output,
                        stderr=subprocess.STDOUT, env=environment, start_new_session=True)
                print(f'{run.name}: started, {len(waiting)} waiting; see {log}', flush=True)
            time.sleep(0.1)
            for run, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                words = last_line(folder / f'{run.name}.log')
                if process.returncode:
                    failed.append(run)
                    print(f'{run.name}: failed: {words}', flush=True)
                else:
                    print(f'{run.name}: done', flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failed


def write_jobs(runs, root, words):
    """Writes ROOT/sweep/NAME.pbs for each run that no job is at; submits them with --submit, else
    prints the commands that do."""
    root = root.resolve()
    folder = root / FOLDER
    parser = generate_pbs.get_parser()
    first, unknown = parser.parse_known_args(words)
    if unknown:
        raise UserError(f'{" ".join(unknown)}: neither a flag of sweep.py nor of generate_pbs.py')
    for flag in ('status', 'resubmit', 'again', 'name'):
        if getattr(first, flag):
            raise UserError(f'--{flag}: not with sweep.py --jobs')
    # The file may hold flags for the parts of stage 2, too; the command line may not.
    args, _ = parser.parse_known_args([*generate_pbs.settings_of(first, root), *words,
                                       '--stage', 'rnn'])
    unfinished, names = {run.name for run in runs}, []
    with submitting.only_one(folder, generate_pbs.submits(args)):
        jobs = Jobs(folder, args.scheduler)
        if not jobs.known:
            raise UserError(f'some may still run, and {jobs.complaint}; nothing is submitted')
        for run in runs:
            if run.after in unfinished:
                print(f'{run.name}: later; the same command once {run.after} has ended',
                      file=sys.stderr)
            elif run.name in jobs.alive or run.name in jobs.unclear:
                print(f'{run.name}: job {jobs.shown(run.name)}', file=sys.stderr)
            else:
                work = rnn.parse(rnn.get_parser(), run.flags)
                generate_pbs.check_training(args, work)
                write_text(folder / f'{run.name}.pbs', generate_pbs.training_text(
                    args, work, command(run, root, args.python), root, folder / run.name,
                    f'-{run.name}'))
                names.append(run.name)
        submission = submitting.Submission(args.scheduler, folder, 'the same command')
        if generate_pbs.submits(args):
            record.check_rights([root, *record.files_of(folder, names)])
            submission.submit(names)
        else:
            for name in names:
                print(f'cd {shlex.quote(str(folder))} && '
                      f'{shlex.join(submission.dialect.submit(name))}')


def main():
    parser = get_parser()
    args, words = parser.parse_known_args()
    if words and not args.jobs:
        parser.error(f'unrecognized arguments: {" ".join(words)}')
    stage.check_root(args.root)
    runs = read_runs(args.runs, args)
    done = finished(args.root)
    left = [run for run in runs if run.key not in done]
    print(f'{number_of(len(runs), "run")}, {len(runs) - len(left)} done, {len(left)} left',
          file=sys.stderr if args.jobs else sys.stdout, flush=True)
    if args.list:
        for run in runs:
            print(f'{"left" if run in left else "done"}  {run.name}')
        return 0
    if args.jobs:
        write_jobs(left, args.root, words)
        return 0
    with locks.only_one(args.root / FOLDER):
        parallel = args.parallel or runs_at_once(runs, args.root, args.device)
        print(f'{parallel} at once (--parallel)', flush=True)
        failed = run_here(left, args.root, parallel)
    if failed:
        print(f'{number_of(len(failed), "run")} failed, named above; the same command tries again')
        return 3
    print(f'next: python results.py{variants.place(args.root)} --mean')
    return 0


if __name__ == '__main__':
    # The trainings that it ends are given theirs.
    stage.run(main, stage.PATIENCE + 0.4)
