"""Writes the batch jobs of stage 2, one a part, or of a training; tells how far they are.

Needs   what saveFeatures_1024.py needs, and ROOT/cluster.toml or flags for this cluster
Writes  ROOT/jobs/part01.pbs ... part12.pbs, pack.pbs; their logs stand beside them

    ./saveFeatures.sh --root DIR --account ABC     # runs this script, submits what it names
    ./saveFeatures.sh --root DIR --status          # a line a part
    ./saveFeatures.sh --root DIR --resubmit        # sends the parts that died, same flags
    ./saveFeatures.sh --root DIR --stage rnn --nodes 2 --processes 2 --communicator naive

Flags that are not named here are those of saveFeatures_1024.py. ROOT/cluster.toml holds any
of them without the dashes: account = "ABC", module = ["cuda", "ffmpeg"]; see docs/cluster.md.
One file a part, with the number in it, is what Torque, OpenPBS and Slurm all understand;
their arrays of jobs differ.
"""
import argparse
import importlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import median
from typing import NamedTuple

from engine import arguments, files, stage, variants
from engine.cluster import parts as clip_parts
from engine.errors import UserError
from engine.files import write_text

SETTINGS = 'cluster.toml'
RECORD, REMEMBERED = 'jobs.txt', 'flags.json'
PACK = 'pack'
# Scripts that work in parts: each offers get_parser, work_of, JOB, JOBS and THEN.
STAGES = ('saveFeatures_1024', 'opticalFlow')
# One job each, which several nodes may share.
TRAININGS = ('frameBasedTrain', 'rnn')
# What a one-letter state of qstat means; a job that is over or unknown is none of these.
ALIVE = {'Q': 'queued', 'R': 'running', 'H': 'held', 'E': 'ending', 'W': 'waiting',
         'S': 'suspended', 'T': 'moving', 'B': 'running'}


def get_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    group = parser.add_argument_group('what to do')
    group.add_argument('--root', type=Path, default=Path('.'), metavar='DIR',
                       help='folder under which all files stand (default: here)')
    group.add_argument('--stage', choices=STAGES + TRAININGS, default=STAGES[0],
                       help=f'whose parts, or a training as one job (default: {STAGES[0]})')
    group.add_argument('--settings', type=Path, metavar='FILE',
                       help='flags for this cluster (default: ROOT/cluster.toml if there)')
    group.add_argument('--then-pack', action='store_true',
                       help='one more job after saveFeatures_1024: save_hdf5.py and '
                            'normalizeData.py, once all parts are well')
    group.add_argument('--status', action='store_true', help='a line a part; submits nothing')
    group.add_argument('--resubmit', action='store_true',
                       help='as last time, with the same flags: the parts with clips left')
    group.add_argument('--dry-run', action='store_true', help='only shows what it would submit')
    group = parser.add_argument_group('job')
    group.add_argument('--scheduler', choices=('torque', 'openpbs', 'slurm'), default='torque',
                       help='default: torque, which every qsub understands')
    group.add_argument('--walltime', default='02:30:00', metavar='HH:MM:SS',
                       help='a job leaves by itself before (default: 02:30:00)')
    group.add_argument('--ppn', type=int, default=16, metavar='N',
                       help='cores of a node that a job gets (default: 16)')
    group.add_argument('--nodes', type=arguments.whole(1), default=1, metavar='N',
                       help='nodes of a training with --communicator (default: 1)')
    group.add_argument('--processes', type=arguments.whole(1), default=1, metavar='N',
                       help='its processes on each node, as many as --gpus (default: 1)')
    group.add_argument('--gpus', type=int, default=0, metavar='N',
                       help='GPUs of a node (default: 0); say --device 0 too')
    group.add_argument('--property', metavar='NAME', help='kind of node, such as xk')
    group.add_argument('--queue', metavar='NAME', help='queue or partition')
    group.add_argument('--account', metavar='NAME', help='who pays')
    group.add_argument('--mail', metavar='ADDRESS', help='mail at the end of each job')
    group.add_argument('--directive', action='append', default=[], metavar='TEXT',
                       help="any further line of the header, such as '-l mem=32gb'; again for "
                            'more')
    group.add_argument('--name', help='what the jobs are called, less the number (default: '
                                      'features, or flow); of rnn also its own --name')
    group = parser.add_argument_group('inside a job')
    group.add_argument('--module', action='append', default=[], metavar='NAME',
                       help='module to load; again for more')
    group.add_argument('--setup', action='append', default=[], metavar='COMMAND',
                       help='shell command to run first; again for more')
    group.add_argument('--launcher', metavar='COMMAND',
                       help="put before python: 'aprun -n 1 -N 1' on a Cray (default: nothing, or "
                            'mpiexec -n with as many workers as a training has)')
    group.add_argument('--python', default=sys.executable, metavar='FILE',
                       help='default: the one that runs this')
    group.add_argument('--pack-flags', default='', metavar='FLAGS',
                       help="for save_hdf5.py: '--dtype float16'")
    return parser


def stage_of(args):
    """The module of --stage."""
    return importlib.import_module(args.stage)


def settings_flags(path):
    """The flags in a TOML file: {'ppn': 8, 'module': ['a', 'b']} -> --ppn=8 --module=a ..."""
    try:
        settings = tomllib.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: {getattr(error, "strerror", None) or error}') from None
    flags = []
    for key, value in settings.items():
        if isinstance(value, dict):
            raise UserError(f'{path}: [{key}]: expected lines such as ppn = 16, no sections')
        for item in value if isinstance(value, list) else [value]:
            if item is not False:
                flags.append(f'--{key}' if item is True else f'--{key}={item}')
    return flags


# ------------------------------------------------------------------ the job files

def header(args, name, log):
    """The lines that the scheduler reads; none may carry a comment."""
    if args.scheduler == 'slurm':
        lines = [f'--job-name={name}', f'--nodes={args.nodes}',
                 f'--ntasks={args.nodes * args.processes}',
                 f'--cpus-per-task={max(args.ppn // args.processes, 1)}',
                 f'--time={args.walltime}', f'--output={log}', '--open-mode=append']
        options = {'--gres=gpu:': args.gpus, '--constraint=': args.property,
                   '--partition=': args.queue, '--account=': args.account,
                   '--mail-type=END,FAIL --mail-user=': args.mail}
    else:
        if args.scheduler == 'openpbs':
            node = (f'select={args.nodes}:ncpus={args.ppn}'
                    + (f':mpiprocs={args.processes}' if args.processes > 1 else '')
                    + (f':ngpus={args.gpus}' if args.gpus else ''))
        else:
            node = f'nodes={args.nodes}:ppn={args.ppn}' + (f':gpus={args.gpus}' if args.gpus else '')
        node += f':{args.property}' if args.property else ''
        lines = [f'-N {name}', f'-l {node}', f'-l walltime={args.walltime}', '-j oe',
                 f'-o {log}']
        options = {'-q ': args.queue, '-A ': args.account, '-m ae -M ': args.mail}
    lines += [f'{option}{value}' for option, value in options.items() if value]
    mark = '#SBATCH' if args.scheduler == 'slurm' else '#PBS'
    return [f'{mark} {line}' for line in lines + args.directive]


def job_text(args, job, folder, commands):
    """The .pbs file of a job that runs the commands, each a list of words, in order."""
    name = job
    if args.stage in STAGES:
        name = (args.name or stage_of(args).JOB) + job.removeprefix('part')
    elif args.scheduler != 'slurm':
        # Torque takes 15 characters, and the last ones tell one training from another.
        rest = job.removeprefix(args.stage)[-12:]
        name = args.stage[:15 - len(rest)] + rest
    # A scheduler shows what it caught only when the job is over, hence a log of our own.
    workers = args.nodes * args.processes
    launcher = args.launcher or (f'mpiexec -n {workers}' if workers > 1 else '')
    run = [f'{launcher} {shlex.join(command)} >>{job}.log 2>&1'.strip()
           for command in commands]
    # exec: SIGTERM must reach the last command itself, not a shell before it.
    return '\n'.join([
        # -l: `module` comes from the login profile
        '#!/bin/bash -l' if args.module else '#!/bin/bash',
        *header(args, name, f'{job}.out'),
        *(f'module load {module}' for module in args.module), *args.setup,
        f'cd {shlex.quote(str(folder))} || exit 1',
        # 3: done, but for the clips it names
        *(f'{line} || [ $? = 3 ] || exit 1' for line in run[:-1]), f'exec {run[-1]}', ''])


def command_of(args, root, script, *words):
    """The words of a stage's command; a login profile may set another PATH, so paths are whole."""
    return [args.python, str(stage.HERE / script), *words, '--root', str(root)]


def write_jobs(args, flags, root, folder, parts):
    """Writes ROOT/jobs/partNN.pbs, and pack.pbs where the stage has a next one."""
    def python(*words):
        return command_of(args, root, *words)
    texts, then = {}, stage_of(args).THEN
    if then:
        same = [f'--split={parts.split}', *variants.names_of(parts).flags().split()]
        texts[PACK] = job_text(args, PACK, folder, [
            python(then[0], *same, *shlex.split(args.pack_flags)),
            *(python(script, *same) for script in then[1:])])
    for part in range(1, parts.parts + 1):
        texts[f'part{part:02d}'] = job_text(args, f'part{part:02d}', folder, [
            python(f'{args.stage}.py', str(part), *flags, '--walltime', args.walltime)])
    for name, text in texts.items():
        write_text(folder / f'{name}.pbs', text)


# ------------------------------------------------------------------- how far it is

class Part(NamedTuple):
    """How far one part is; `left` are the clips that a job would still try."""
    name: str
    clips: int
    megabytes: float
    done: int
    left: int
    failed: list
    frames: int
    rate: float


def inspect(work, parts):
    """Returns a Part for each part, from the lists and what stands in the folders."""
    return [_inspect_part(work, number, clips)
            for number, clips in enumerate(clip_parts.deal(work.clips, parts), 1)]


def _inspect_part(work, number, clips):
    frames = {clip: work.finished(clip) for clip in clips}
    report = clip_parts.Report(work.folder, number)
    names = {clip.name: clip for clip in clips if not frames[clip]}
    # A clip that failed is tried again only once somebody has replaced it.
    failed = [reason for name, reason in report.of_kind('failed')
              if name in names
              and _changed(work.seen(names[name]).path) <= _changed(report.path)]
    done = [clip for clip in clips if frames[clip]]
    return Part(f'part{number:02d}', len(clips), sum(map(clip_parts.size, clips)) / 1e6,
                len(done), len(clips) - len(done) - len(failed), failed, sum(frames.values()),
                _rate([(_changed(work.results(clip)[-1]), frames[clip]) for clip in done]))


def _changed(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _rate(times):
    """Frames/s of the last clips, from (time finished, frames); 0 where it cannot be told."""
    times = sorted(times)[-50:]
    # The median does not see the pause between two jobs.
    rates = [n / (after - before) for (before, _), (after, n) in zip(times, times[1:])
             if after > before]
    return median(rates) if rates else 0.0


def alive_jobs(scheduler):
    """{job number: state} of the jobs that are queued or running.

    Raises:
        UserError: the scheduler does not answer.
    """
    command = (['squeue', '-h', '-o', '%A x x x %T x'] if scheduler == 'slurm' else ['qstat'])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f'{command[0]}: {error}') from None
    if done.returncode:
        raise UserError(f'{command[0]}: {(done.stderr or done.stdout).strip()}')
    found = {}
    for line in done.stdout.splitlines():
        # Torque, OpenPBS and Slurm's qstat: Job id, Name, User, Time Use, S, Queue
        words = line.split()
        if len(words) >= 6 and words[0][0].isdigit():
            state = words[-2].lower() if scheduler == 'slurm' else ALIVE.get(words[-2])
            if state:
                found[words[0].split('.')[0]] = state
    return found


def submitted_jobs(folder):
    """{part: job id}, as saveFeatures.sh recorded them; the last one of each part."""
    try:
        lines = (folder / RECORD).read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split('\t')[:2] for line in lines if '\t' in line)


def table(parts, states):
    """The lines of the table that --status and a submission print."""
    form = '{:<6} {:>6} {:>9} {:>6} {:>6} {:>6} {:>9} {:>8}  {}'
    lines = [form.format('part', 'clips', 'MB', 'done', 'left', 'failed', 'frames', 'frames/s',
                         'job')]
    for part in parts:
        lines.append(form.format(
            part.name, part.clips, f'{part.megabytes:.1f}', part.done, part.left,
            len(part.failed), part.frames, f'{part.rate:.1f}' if part.rate else '-',
            states.get(part.name, '-')))
    lines.append(form.format(
        'all', sum(p.clips for p in parts), f'{sum(p.megabytes for p in parts):.1f}',
        sum(p.done for p in parts), sum(p.left for p in parts),
        sum(len(p.failed) for p in parts), sum(p.frames for p in parts), '',
        states.get(PACK, '')).rstrip())
    return lines


def last_words(folder, name):
    """The last line of each of a part's two logs, ours and the scheduler's: why it died."""
    found = []
    for path in (folder / f'{name}.log', folder / f'{name}.out'):
        try:
            with open(path, 'rb') as f:
                f.seek(max(os.path.getsize(path) - 2000, 0))
                text = f.read().decode(errors='replace')
        except OSError:
            continue
        found += text.strip().splitlines()[-1:]
    return found


def job_states(args, folder):
    """Returns ({part: 'job 12 running'}, {part: id} of those alive, whether it is known)."""
    jobs = submitted_jobs(folder)
    if not jobs:
        return {}, {}, True
    try:
        alive = alive_jobs(args.scheduler)
    except UserError as error:
        print(f'no word of the jobs: {error}', file=sys.stderr)
        return {part: f'{job} ?' for part, job in jobs.items()}, {}, False
    states = {part: alive.get(job.split('.')[0]) for part, job in jobs.items()}
    return ({part: f'{job} {states[part] or "ended"}' for part, job in jobs.items()},
            {part: job for part, job in jobs.items() if states[part]}, True)


# ----------------------------------------------------------------------------- main

def training(args, flags, root):
    """Writes the one job of a training, or tells how it is; returns the exit code."""
    if args.resubmit:
        raise UserError(f'--resubmit is for stages in parts; {args.stage} goes on where it stopped '
                        'if you submit it again with the same flags')
    if args.name and args.stage == 'rnn':
        flags = [*flags, '--name', args.name]
    # A flag that the stage would refuse is refused now, not in a job in the night.
    work = stage_of(args).get_parser().parse_args([*flags, '--root', str(root)])
    if args.nodes * args.processes > 1 and not work.communicator:
        raise UserError(f'{args.nodes * args.processes} workers want to know of one another: add '
                        '--communicator pure_nccl (GPUs) or naive (CPUs)')
    clip_parts.seconds(args.walltime)
    folder = root / 'jobs'
    # A named run of rnn.py writes under its name, whatever it sees: never two of them at once.
    kind = args.stage if args.stage == 'rnn' and args.name else variants.names_of(work).of(args.stage)
    job = '-'.join(filter(None, (kind, args.name)))
    states, alive, known = job_states(args, folder)
    stream = sys.stdout if args.status else sys.stderr
    print(f'{job}: {states.get(job, "never submitted")}',
          *(f'  {line}' for line in last_words(folder, job)), sep='\n', file=stream)
    if args.status:
        return 0
    if not known or job in alive:
        raise UserError(f'{job}: may still run; nothing is submitted')
    write_text(folder / f'{job}.pbs',
               job_text(args, job, folder, [command_of(args, root, f'{args.stage}.py', *flags)]))
    print(args.scheduler, folder, '', '', job, sep='\n')
    return 0


def main():
    parser = get_parser()
    given = sys.argv[1:]
    first, _ = parser.parse_known_args(given)
    root = first.root.resolve()
    if '\n' in str(root):
        raise UserError(f'{root!r}: a job file cannot name a folder with a line break')
    stage.check_root(root)
    settings = first.settings or root / SETTINGS
    flags = (settings_flags(settings) if first.settings or settings.exists() else []) + given
    if first.stage in TRAININGS:
        return training(*parser.parse_known_args(flags), root)
    module = stage_of(first)
    # Each variant has its own jobs.
    variant = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    stage.add_variant(variant, 'stream', 'fusion', 'layer')
    names = variants.names_of(variant.parse_known_args(flags)[0])
    folder = root / names.of(module.JOBS)
    remembered = files.read_json(folder / REMEMBERED)
    if first.resubmit and remembered is None:
        stage_flag = '' if first.stage == STAGES[0] else f' --stage {first.stage}'
        raise UserError(f'{folder}: nothing was submitted from here; run ./saveFeatures.sh'
                        f'{stage_flag}{names.flags()}{variants.place(first.root)}')
    if (first.resubmit or first.status) and remembered:
        flags = remembered + given
    args, work_flags = parser.parse_known_args(flags)
    # The stage's own parser checks the rest now, not in a job in the night.
    work = module.get_parser().parse_args(['1', *work_flags, '--root', str(root)])
    clip_parts.seconds(args.walltime)
    if args.then_pack and not module.THEN:
        raise UserError(f'--then-pack: nothing is packed after {args.stage}')

    parts = inspect(module.work_of(work), work.parts)
    states, alive, known = job_states(args, folder)
    stream = sys.stdout if first.status else sys.stderr
    print(*table(parts, states), sep='\n', file=stream)
    for part in parts:
        for reason in part.failed:
            print(f'{part.name}: failed: {reason}', file=stream)
        if part.left and part.name not in alive:
            for line in last_words(folder, part.name):
                print(f'{part.name}: {line}', file=stream)
    if first.status:
        return 0 if not any(part.left for part in parts) else 4

    if not known:
        raise UserError('some parts may still run; nothing is submitted until the scheduler '
                        'answers')
    write_jobs(args, work_flags, root, folder, work)
    if not first.dry_run:
        write_text(folder / REMEMBERED,
                   json.dumps([flag for flag in flags if flag != '--resubmit']))
    todo = [part.name for part in parts if part.left and part.name not in alive]
    if not todo:
        print('no part has clips left that no job is at', file=sys.stderr)
    failed = sum(len(part.failed) for part in parts)
    if args.then_pack and failed and not any(part.left for part in parts):
        same = names.flags() + variants.place(first.root, work.split)
        print(f'not packed: {failed} clips failed; mend them, or go on without: python '
              f'save_hdf5.py --allow-missing{same}, then python normalizeData.py{same}',
              file=sys.stderr)
    elif args.then_pack and 'running' not in states.get(PACK, ''):
        todo.append(PACK)
    # A job that waits for parts that died would wait for ever, and packs nothing new.
    waiting = alive.pop(PACK, '')
    # For saveFeatures.sh: the scheduler, the folder, the jobs that packing waits for,
    # the job to cancel if packing is submitted again, and the names of the jobs to submit.
    print(args.scheduler, folder, ':'.join(alive.values()), waiting, *todo, sep='\n')
    return 0


if __name__ == '__main__':
    stage.run(main)
