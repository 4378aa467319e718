"""Writes the batch jobs of stage 2, one a part, or of a training; tells how far they are.

Needs   what saveFeatures_1024.py needs, and ROOT/cluster.toml or flags for this cluster
Writes  ROOT/jobs/part01.pbs ... part12.pbs, pack.pbs; their logs stand beside them

    python generate_pbs.py --root DIR              # writes them, shows how to submit them
    ./saveFeatures.sh --root DIR --account ABC     # this script with --submit
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
import shlex
import sys
from pathlib import Path

from engine import arguments, stage, variants
from engine.cluster import leaving, states, status, submitting
from engine.cluster.dialects import DIALECTS
from engine.cluster.flags import SETTINGS, remember, remembered, settings_flags
from engine.cluster.jobfile import job_text
from engine.errors import UserError
from engine.files import write_text

# Scripts that work in parts: each offers get_parser, work_of, JOB, JOBS and THEN.
STAGES = ('saveFeatures_1024', 'opticalFlow')
# One job each, which several nodes may share.
TRAININGS = ('frameBasedTrain', 'rnn')


def get_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    add_what_to_do(parser)
    add_job(parser)
    add_inside(parser)
    return parser


def add_what_to_do(parser):
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
    group.add_argument('--submit', action='store_true',
                       help='submit, as saveFeatures.sh does, in place of showing how')
    group.add_argument('--dry-run', action='store_true', help='only shows what it would submit')


def add_job(parser):
    group = parser.add_argument_group('job')
    group.add_argument('--scheduler', choices=tuple(DIALECTS), default='torque',
                       help='default: torque, which every qsub understands')
    group.add_argument('--walltime', default='02:30:00', metavar='HH:MM:SS',
                       help='a job leaves by itself before (default: 02:30:00)')
    group.add_argument('--ppn', type=arguments.whole(1), default=16, metavar='N',
                       help='cores of a node that a job gets (default: 16)')
    group.add_argument('--nodes', type=arguments.whole(1), default=1, metavar='N',
                       help='nodes of a training with --communicator (default: 1)')
    group.add_argument('--processes', type=arguments.whole(1), default=1, metavar='N',
                       help='its processes on each node, as many as --gpus (default: 1)')
    group.add_argument('--gpus', type=arguments.whole(0), default=0, metavar='N',
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


def add_inside(parser):
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


def stage_of(args):
    """The module of --stage."""
    return importlib.import_module(args.stage)


def command_of(args, root, script, *words):
    """The words of a stage's command; a login profile may set another PATH, so paths are whole."""
    return [args.python, str(stage.HERE / script), *words, '--root', str(root)]


def write_jobs(args, work_flags, root, folder, work):
    """Writes ROOT/jobs/partNN.pbs, and pack.pbs where the stage has a next one."""
    module, dialect = stage_of(args), DIALECTS[args.scheduler]

    def write(job, commands):
        name = dialect.job_name(args.name or module.JOB, job.removeprefix('part'))
        write_text(folder / f'{job}.pbs', job_text(args, name, job, folder, commands))
    if module.THEN:
        same = [f'--split={work.split}', *variants.names_of(work).flags().split()]
        write(status.PACK, [
            command_of(args, root, module.THEN[0], *same, *shlex.split(args.pack_flags)),
            *(command_of(args, root, script, *same) for script in module.THEN[1:])])
    for part in range(1, work.parts + 1):
        write(f'part{part:02d}', [command_of(args, root, f'{args.stage}.py', str(part),
                                             *work_flags, '--walltime', args.walltime)])


def training(args, flags, root):
    """Submits the one job of a training, or tells how it is; returns the exit code."""
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
    leaving.seconds(args.walltime)
    folder = root / 'jobs'
    # A named run of rnn.py writes under its name, whatever it sees: never two of them at once.
    kind = args.stage if args.stage == 'rnn' and args.name else variants.names_of(work).of(args.stage)
    job = '-'.join(filter(None, (kind, args.name)))
    jobs = states.Jobs(folder, args.scheduler)
    stream = sys.stdout if args.status else sys.stderr
    print(f'{job}: {jobs.shown.get(job, "never submitted")}',
          *(f'  {line}' for line in status.last_words(folder, job)), sep='\n', file=stream)
    if args.status:
        return 0
    if not jobs.known or job in jobs.alive:
        raise UserError(f'{job}: may still run{jobs.complaint and f" ({jobs.complaint})"}; '
                        'nothing is submitted')
    name = DIALECTS[args.scheduler].job_name(args.stage, job.removeprefix(args.stage))
    write_text(folder / f'{job}.pbs', job_text(
        args, name, job, folder, [command_of(args, root, f'{args.stage}.py', *flags)]))
    submitting.submit(args.scheduler, folder, [job], dry=args.dry_run or not args.submit)
    return 0


def names_in(flags):
    """The variant that the flags ask for; each has its own jobs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    stage.add_variant(parser, 'stream', 'fusion', 'layer')
    return variants.names_of(parser.parse_known_args(flags)[0])


def parts_of(parser, first, given, settings, root):
    """Submits the parts of a stage that want it, or tells how they are; returns the exit code."""
    module, names = stage_of(first), names_in(settings + given)
    folder = root / names.of(module.JOBS)
    before = remembered(folder)
    if first.resubmit and before is None:
        stage_flag = '' if first.stage == STAGES[0] else f' --stage {first.stage}'
        raise UserError(f'{folder}: nothing was submitted from here; run ./saveFeatures.sh'
                        f'{stage_flag}{names.flags()}{variants.place(first.root)}')
    again = before and (first.resubmit or first.status)
    flags = (before if again else settings) + given
    args, work_flags = parser.parse_known_args(flags)
    # The stage's own parser checks the rest now, not in a job in the night.
    work = module.get_parser().parse_args(['1', *work_flags, '--root', str(root)])
    leaving.seconds(args.walltime)
    if args.then_pack and not module.THEN:
        raise UserError(f'--then-pack: nothing is packed after {args.stage}')

    parts = status.inspect(module.work_of(work), work.parts)
    jobs = states.Jobs(folder, args.scheduler)
    if not jobs.known:
        print(f'no word of the jobs: {jobs.complaint}', file=sys.stderr)
    print(*status.report(parts, jobs, folder), sep='\n',
          file=sys.stdout if first.status else sys.stderr)
    if first.status:
        return 0 if not any(part.left for part in parts) else 4
    if not jobs.known:
        raise UserError('some parts may still run; nothing is submitted until the scheduler '
                        'answers')
    write_jobs(args, work_flags, root, folder, work)
    dry = args.dry_run or not args.submit
    if not dry:
        remember(folder, flags)
    todo = to_submit(args, parts, jobs, names.flags() + variants.place(first.root, work.split))
    # A job that waits for parts that died would wait for ever, and packs nothing new.
    old_pack = jobs.alive.pop(status.PACK, None)
    submitting.submit(args.scheduler, folder, todo, jobs.alive.values(), old_pack, dry)
    return 0


def to_submit(args, parts, jobs, place):
    """Names of the jobs to submit; says why there are none, or why nothing is packed."""
    todo = [part.name for part in parts if part.left and part.name not in jobs.alive]
    if not todo:
        print('no part has clips left that no job is at', file=sys.stderr)
    failed = sum(len(part.failed) for part in parts)
    if args.then_pack and failed and not any(part.left for part in parts):
        print(f'not packed: {failed} clips failed; mend them, or go on without: python '
              f'save_hdf5.py --allow-missing{place}, then python normalizeData.py{place}',
              file=sys.stderr)
    elif args.then_pack and 'running' not in jobs.shown.get(status.PACK, ''):
        todo.append(status.PACK)
    return todo


def main():
    parser = get_parser()
    given = sys.argv[1:]
    first, _ = parser.parse_known_args(given)
    root = first.root.resolve()
    if '\n' in str(root):
        raise UserError(f'{root!r}: a job file cannot name a folder with a line break')
    stage.check_root(root)
    path = first.settings or root / SETTINGS
    settings = settings_flags(path) if first.settings or path.exists() else []
    if first.stage in TRAININGS:
        return training(*parser.parse_known_args(settings + given), root)
    return parts_of(parser, first, given, settings, root)


if __name__ == '__main__':
    stage.run(main)
