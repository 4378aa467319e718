"""The text of a job file: what stands between the scheduler and a stage's command."""
import re
import shlex
import subprocess

from engine import stage
from engine.cluster import stopintime
from engine.cluster.dialects import DIALECTS, megabytes
from engine.errors import UserError
from engine.files import UMASK

# Seconds before the end of its walltime at which a job that is to be sent again is told.
WARNING = 120
# For several workers. Open MPI binds each to a core, and kills it a second after SIGTERM; MPICH
# does neither.
WORKERS = ('export OMPI_MCA_hwloc_base_binding_policy=none '
           'PRTE_MCA_hwloc_default_binding_policy=none',
           'export OMPI_MCA_odls_base_sigkill_timeout=20 '
           'PRTE_MCA_odls_base_sigkill_timeout=20')


def check(args, margin=0.0):
    """Refuses flags of generate_pbs.py that no job can be made of.

    Args:
        margin: seconds before the end of its walltime at which the stage leaves.

    Raises:
        UserError: names the flag.
    """
    seconds = stopintime.seconds(args.walltime)
    if seconds <= margin:
        raise UserError(f'--walltime {args.walltime}: a part leaves {margin:g} s before its end '
                        '(--margin), so it would do nothing')
    if args.memory:
        megabytes(args.memory)
    if args.processes > args.ppn:
        raise UserError(f'--processes {args.processes}: a node gives --ppn {args.ppn} cores')
    if args.name is not None and not re.fullmatch(r'[A-Za-z0-9_.,=+-]{1,100}', args.name):
        raise UserError(f'--name {args.name!r}: a job can be called by letters without accents, '
                        'digits and _ . , = + -')
    for flag in ('queue', 'account', 'mail', 'property'):
        value = getattr(args, flag)
        if value and re.search(r'[\s\0-\x1f]', value):
            raise UserError(f'--{flag} {value!r}: no scheduler takes a space there')
    for text in args.directive:
        if text.lstrip().startswith('#'):
            raise UserError(f'--directive {text!r}: without its #PBS or #SBATCH')
    for flag, text, line in (*(('--setup', text, f'{{ {text}\n}}') for text in args.setup),
                             ('--launcher', args.launcher, f'{args.launcher or ""} true')):
        done = subprocess.run(['bash', '-n', '-c', line], capture_output=True, text=True,
                              errors='replace')
        if done.returncode:
            raise UserError(f'{flag} {text!r}: bash says: '
                            f'{done.stderr.splitlines()[0].removeprefix("bash: -c: ")}')
    try:
        shlex.split(args.pack_flags)
    except ValueError as error:
        raise UserError(f'--pack-flags {args.pack_flags!r}: {error}') from None
    if any('\n' in text for text in (*args.directive, *args.module)):
        raise UserError('--directive, --module: one line each')


def job_text(args, name, job, folder, commands, kernel=None, again=()):
    """The .pbs file of a job.

    Args:
        args: of generate_pbs.py.
        name: what the scheduler calls the job.
        job: the job's files are JOB.pbs, JOB.log, JOB.out.
        folder (Path): where they stand.
        commands: what it runs, each a list of words, in order.
        kernel: (name of the compiled kernel, its variable) that the first needs, or None.
        again: with --requeue, the words that send the job again where the scheduler cannot.
    """
    header = DIALECTS[args.scheduler].header(args, name, f'{job}.out')
    warning = int(min(WARNING, stopintime.seconds(args.walltime) / 4))
    if args.requeue and args.scheduler == 'slurm':
        header += ['#SBATCH --requeue', f'#SBATCH --signal=B:USR1@{warning}']
    launcher = launcher_of(args)
    one = args.launcher and launcher if args.nodes * args.processes == 1 else ''
    run = [f'{launcher} {shlex.join(command)}'.strip() for command in commands]
    lines = [
        # -l: `module` comes from the login profile
        '#!/bin/bash -l' if args.module else '#!/bin/bash', *header, f'umask 0{UMASK:o}',
        # A scheduler shows what it caught only when the job is over, hence a log of our own.
        f'exec >>{shlex.quote(str(folder / f"{job}.log"))} 2>&1',
        f'here={shlex.quote(str(stage.HERE))}', '. "$here/engine/cluster/job.sh" || exit 1',
        *_workers(args, job, folder),
        *(f'load {shlex.quote(module)}' for module in args.module),
        *(f'{{ {line}\n}} </dev/null || not_started {shlex.quote(f"--setup {line}")}'
          for line in args.setup),
        ' '.join(filter(None, ('needs', *(kernel or ('-', '-')), one, shlex.quote(args.python)))),
        f'cd {shlex.quote(str(folder))} || exit 1',
        # 3: done, but for the clips it names. No command reads the job file's own lines.
        *(f'{line} </dev/null || [ $? = 3 ] || exit 1' for line in run[:-1])]
    if args.requeue and len(run) == 1:
        seconds = ('' if args.scheduler == 'slurm' else
                   int(stopintime.seconds(args.walltime)) - warning)
        lines += [f'most={args.requeue} seconds={seconds} starts={shlex.quote(f"{job}.starts")} '
                  f'again=({shlex.join(again)})', f'run {run[-1]}']
    else:
        # exec: SIGTERM must reach the last command itself, not a shell before it.
        lines.append(f'exec {run[-1]} </dev/null')
    return '\n'.join([*lines, ''])


def launcher_of(args):
    """What stands before python: --launcher, or an mpiexec for several workers."""
    workers = args.nodes * args.processes
    if args.launcher is None:
        machines = '"${machines[@]}" ' if args.nodes > 1 else ''
        # Not every mpiexec hands variables on to other nodes.
        return (f'mpiexec {machines}-n {workers} env OMP_NUM_THREADS="$OMP_NUM_THREADS"'
                if workers > 1 else '')
    text = args.launcher
    for key, value in (('workers', workers), ('processes', args.processes),
                       ('cores', max(args.ppn // args.processes, 1))):
        text = text.replace(f'{{{key}}}', str(value))
    return text


def _workers(args, job, folder):
    """The lines that place several workers: as many cores each, so many on each node."""
    if args.nodes * args.processes == 1:
        return []
    lines = [*WORKERS, f'export OMP_NUM_THREADS={args.ppn // args.processes}']
    if args.nodes > 1 and args.launcher is None:
        lines.append(f'nodes_file {shlex.quote(str(folder / f"{job}.nodes"))} '
                     f'{DIALECTS[args.scheduler].lines_a_node(args)} {args.processes}')
    return lines
