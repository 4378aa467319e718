"""The text of a job file."""
import shlex

from engine.cluster.dialects import DIALECTS


def job_text(args, name, job, folder, commands):
    """The .pbs file of a job.

    Args:
        args: of generate_pbs.py.
        name: what the scheduler calls the job.
        job: the job's files are JOB.pbs, JOB.log, JOB.out.
        folder (Path): where they stand.
        commands: what it runs, each a list of words, in order.
    """
    # A scheduler shows what it caught only when the job is over, hence a log of our own.
    workers = args.nodes * args.processes
    launcher = args.launcher or (f'mpiexec -n {workers}' if workers > 1 else '')
    run = [f'{launcher} {shlex.join(command)} >>{job}.log 2>&1'.strip()
           for command in commands]
    # exec: SIGTERM must reach the last command itself, not a shell before it.
    return '\n'.join([
        # -l: `module` comes from the login profile
        '#!/bin/bash -l' if args.module else '#!/bin/bash',
        *DIALECTS[args.scheduler].header(args, name, f'{job}.out'),
        *(f'module load {module}' for module in args.module), *args.setup,
        f'cd {shlex.quote(str(folder))} || exit 1',
        # 3: done, but for the clips it names
        *(f'{line} || [ $? = 3 ] || exit 1' for line in run[:-1]), f'exec {run[-1]}', ''])
