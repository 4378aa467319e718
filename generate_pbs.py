"""Writes one batch job a part of stage 2: ROOT/jobs/part01.pbs ... part12.pbs.

    python generate_pbs.py --root DIR --parts 12 --account ABC     # ./saveFeatures.sh submits

Prints the files it wrote. Flags that are not named here are those of saveFeatures_1024.py.
One file a part, with the number in it, is what Torque, OpenPBS and Slurm all understand;
their arrays of jobs differ.
"""
import argparse
import shlex
import sys

import helperFunctions as hf
import saveFeatures_1024 as stage
from engine.files import replacing

JOBS = 'jobs'


def get_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    job = parser.add_argument_group('job')
    job.add_argument('--walltime', default='02:30:00', metavar='HH:MM:SS',
                     help='default: 02:30:00')
    job.add_argument('--ppn', type=int, default=16, metavar='N',
                     help='cores of the node (default: 16)')
    job.add_argument('--name', default='features', help='job name (default: features)')
    return parser


def job_text(args, part, command, folder):
    """The .pbs file of one part."""
    # No comment may stand behind a #PBS line. exec: SIGTERM must reach python itself.
    return f"""#!/bin/bash
#PBS -N {args.name}{part:02d}
#PBS -l nodes=1:ppn={args.ppn}
#PBS -l walltime={args.walltime}
#PBS -j oe
#PBS -o part{part:02d}.out
cd {shlex.quote(str(folder))}
exec {shlex.join(command)} >>part{part:02d}.log 2>&1
"""


def main():
    args, flags = get_parser().parse_known_args()
    # The stage's own parser checks the rest now, not in a job in the night.
    work = stage.get_parser().parse_args(['1', *flags])
    folder = work.root.resolve() / JOBS
    for part in range(1, work.parts + 1):
        # The login profile of a node may set another PATH: nothing is left to it.
        command = [sys.executable, str(hf.HERE / 'saveFeatures_1024.py'), str(part), *flags,
                   '--root', str(work.root.resolve()), '--walltime', args.walltime]
        path = folder / f'part{part:02d}.pbs'
        with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as f:
            f.write(job_text(args, part, command, folder))
        print(path)


if __name__ == '__main__':
    hf.stage_main(main)
