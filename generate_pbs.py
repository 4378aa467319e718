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
import importlib
import os
import shlex
import sys
from pathlib import Path

from engine import arguments, stage, variants
from engine.cluster import jobfile, jobstates, partkernels, progresstable, record, submitting
from engine.cluster.dialects import DIALECTS
from engine.cluster.estimate import estimate
from engine.cluster.flags import SETTINGS, remember, remembered, replaced, settings_flags
from engine.cluster.stopintime import seconds
from engine.errors import UserError
from engine.files import write_text

# Scripts that work in parts: each offers get_parser, work_of, JOB, JOBS and THEN.
STAGES = ('saveFeatures_1024', 'opticalFlow')
# One job each, which several nodes may share.
TRAININGS = ('frameBasedTrain', 'rnn')
JOBS = 'jobs'  # the folder of their job files
# The compiled kernel that each uses on a CPU, and the variable that chooses another way.
KERNELS = {'saveFeatures_1024': ('winograd', 'ENGINE_CONV'),
           'frameBasedTrain': ('winograd', 'ENGINE_CONV'), 'rnn': ('recurrent', 'ENGINE_LSTM')}


def refuse_flags(*parsers):
    """Has what saveFeatures.sh was given wrongly end in one line that names its own help."""
    def refuse(message):
        print(f'error: {message}; see ./saveFeatures.sh --help, and python generate_pbs.py --help '
              'for the flags of batch jobs', file=sys.stderr)
        sys.exit(2)
    for parser in parsers:
        parser.error = refuse


def get_parser():
    parser = arguments.Parser(description=__doc__)
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
    group.add_argument('--again', metavar='JOB',
                       help='for job files with --requeue: sends JOB, which is about to end, again')


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
    group.add_argument('--memory', metavar='SIZE',
                       help='memory of a node that a job gets, such as 8gb (default: what the '
                            'scheduler gives)')
    group.add_argument('--requeue', type=arguments.whole(0), default=0, metavar='N',
                       help='a job that its walltime or a node has ended is sent again by itself, '
                            'so many times at most, and goes on (default: 0)')
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
                       help="put before python: 'aprun -n {workers} -N {processes} -d {cores}' on "
                            'a Cray; in braces all processes, those of a node, the cores of each '
                            '(default: nothing, or mpiexec -n for several)')
    group.add_argument('--python', default=sys.executable, metavar='FILE',
                       help='default: the one that runs this')
    group.add_argument('--pack-flags', default='', metavar='FLAGS',
                       help="for save_hdf5.py: '--dtype float16'")


def stage_of(args):
    """The module of --stage."""
    return importlib.import_module(args.stage)


def parser_of(args):
    """The parser of --stage."""
    parser = stage_of(args).get_parser()
    if args.submit:
        refuse_flags(parser)
    return parser


def command_of(args, root, script, *words):
    """The words of a stage's command; a login profile may set another PATH, so paths are whole."""
    return [args.python, str(stage.HERE / script), *words, '--root', str(root)]


def again_of(args, root, job, *flags):
    """The words by which a job sends itself again, from a node whose PATH may know no qsub."""
    return ['env', f'PATH={os.environ.get("PATH", os.defpath)}', *command_of(
        args, root, 'generate_pbs.py', '--stage', args.stage, *flags, '--again', job)]


def write_jobs(args, work_flags, root, folder, work):
    """Writes ROOT/jobs/partNN.pbs, and pack.pbs where the stage has a next one."""
    module, dialect = stage_of(args), DIALECTS[args.scheduler]
    variant = variants.names_of(work).flags().split()

    def write(job, commands, **more):
        name = dialect.job_name(args.name or module.JOB, job.removeprefix('part'))
        write_text(folder / f'{job}.pbs', jobfile.job_text(
            args, name, job, folder, commands, **more))
    if module.THEN:
        same = [f'--split={work.split}', *variant]
        write(progresstable.PACK, [
            command_of(args, root, module.THEN[0], *same, *shlex.split(args.pack_flags)),
            *(command_of(args, root, script, *same) for script in module.THEN[1:])])
    for part in range(1, work.parts + 1):
        job = f'part{part:02d}'
        write(job, [command_of(args, root, f'{args.stage}.py', str(part), *work_flags,
                               '--walltime', args.walltime)],
              kernel=kernel_of(args.stage, work),
              again=again_of(args, root, job, *variant))


def kernel_of(stage_name, work):
    """(name, variable) of the compiled kernel that a stage uses with these flags, or None."""
    on_cpu = getattr(work, 'device', None) == '-1' and getattr(work, 'fast', True)
    return KERNELS.get(stage_name) if on_cpu else None


def check_training(args, work):
    """Refuses flags of generate_pbs.py and of a training, parsed, that no job can be made of."""
    if args.nodes * args.processes > 1 and not work.communicator:
        raise UserError(f'{args.nodes * args.processes} workers want to know of one another: add '
                        '--communicator pure_nccl (GPUs) or naive (CPUs)')
    jobfile.check(args)


def training_text(args, work, command, root, path, called):
    """The job file of a training.

    Args:
        args: of generate_pbs.py.
        work: of the training.
        command: its words.
        path (Path): of the job file, less its suffix.
        called: what tells the job's name from that of another one of this stage.
    """
    again = again_of(args, root, os.path.relpath(path, root / JOBS), '--scheduler',
                     args.scheduler)
    return jobfile.job_text(args, DIALECTS[args.scheduler].job_name(args.stage, called), path.name,
                            path.parent, [command], kernel_of(args.stage, work), again)


def training(args, flags, root):
    """Submits the one job of a training, or tells how it is; returns the exit code."""
    folder = root / JOBS
    if args.again:
        job = Path(os.path.normpath(folder / args.again))  # of a sweep: ../sweep/NAME
        submitting.send_again(args, job.parent, job.name)
        return 0
    if args.resubmit:
        raise UserError(f'--resubmit is for stages in parts; {args.stage} goes on where it stopped '
                        'if you submit it again with the same flags')
    if args.name and args.stage == 'rnn':
        flags = [*flags, '--name', args.name]
    # A flag that the stage would refuse is refused now, not in a job in the night.
    work = parser_of(args).parse_args([*flags, '--root', str(root)])
    check_training(args, work)
    # A named run of rnn.py writes under its name, whatever it sees: never two of them at once.
    named = args.stage == 'rnn' and args.name
    job = '-'.join(filter(None, (
        args.stage if named else variants.names_of(work).of(args.stage),
        args.name and variants.name_in_fold(args.name, work.fold))))
    text = training_text(args, work, command_of(args, root, f'{args.stage}.py', *flags), root,
                         folder / job, job.removeprefix(args.stage))
    with submitting.only_one(folder, submits(args)):
        jobs = jobstates.Jobs(folder, args.scheduler)
        print(*progresstable.of_training(job, jobs), sep='\n',
              file=sys.stdout if args.status else sys.stderr)
        if args.status:
            return 0
        if not jobs.known or job in jobs.alive or job in jobs.unclear:
            raise UserError(f'{job}: may still run{jobs.complaint and f" ({jobs.complaint})"}; '
                            'nothing is submitted')
        if submits(args):
            record.check_rights([root, *record.files_of(folder, [job])])
        write_text(folder / f'{job}.pbs', text)
        submission = submitting.Submission(args.scheduler, folder, 'the same command', here=(
            f'python {args.stage}.py {shlex.join(flags)}'.rstrip() + variants.place(args.root)))
        submission.submit([job]) if submits(args) else submission.show([job])
    return 0


def submits(args):
    return args.submit and not args.dry_run and not args.status


def names_in(flags):
    """The variant that the flags ask for; each has its own jobs."""
    parser = arguments.Parser(add_help=False)
    stage.add_variant(parser, 'stream', 'fusion', 'layer', 'fold')
    return variants.names_of(parser.parse_known_args(flags)[0])


def flags_of_parts(first, given, settings, folder, command):
    """The flags that count: those given, above those of the last time or of cluster.toml."""
    before = remembered(folder)
    if (first.resubmit or first.again) and before is None:
        raise UserError(f'{folder}: nothing was submitted from here; run {command}')
    if before and (first.resubmit or first.again or first.status):
        return replaced(before, given)
    return settings + given


def parts_of(parser, first, given, settings, root):
    """Submits the parts of a stage that want it, or tells how they are; returns the exit code."""
    module, names = stage_of(first), names_in(settings + given)
    folder = root / names.of(module.JOBS)
    stage_flag = '' if first.stage == STAGES[0] else f' --stage {first.stage}'
    command = f'./saveFeatures.sh{stage_flag}{names.flags()}{variants.place(first.root)}'
    flags = flags_of_parts(first, given, settings, folder, command)
    args, work_flags = parser.parse_known_args(flags)
    here = shlex.join(['./saveFeatures.sh', '--local', *stage_flag.split(), *work_flags]
                      ) + variants.place(first.root)
    if args.again:
        submitting.send_again(args, folder, args.again, args.then_pack)
        return 0
    # The stage's own parser checks the rest now, not in a job in the night.
    work_args = parser_of(args).parse_args(['1', *work_flags, '--root', str(root)])
    jobfile.check(args, work_args.margin)
    if args.nodes * args.processes > 1:
        raise UserError(f'--nodes, --processes: for a training; a part of {args.stage} is one '
                        'process, and more --parts are more of them')
    if first.then_pack and not module.THEN:
        raise UserError(f'--then-pack: nothing is packed after {args.stage}')
    args.then_pack &= bool(module.THEN)  # cluster.toml may be for several stages
    work = module.work_of(work_args)
    with submitting.only_one(folder, submits(args)):
        parts = progresstable.inspect(work, work_args.parts)
        jobs = jobstates.Jobs(folder, args.scheduler)
        if not args.status:
            check_same_parts(parser, module, folder, work_args.parts, jobs)
        unpacked, pack = packing_of(args, work, parts, jobs, names.flags() + variants.place(
            first.root, work_args.split))
        lines = [*progresstable.report(parts, jobs), *partkernels.several(work.folder),
                 *filter(None, [unpacked])]
        if args.status:
            print(*lines, sep='\n')
            return 4 if unpacked or any(part.left for part in parts) else 0
        print(*estimate(work, parts, seconds(args.walltime), root, bool(module.THEN)), *lines,
              sep='\n', file=sys.stderr)
        if not jobs.known:
            raise UserError('some parts may still run; nothing is submitted until the scheduler '
                            f'answers; without one, here: {here}')
        todo = [part.name for part in parts
                if part.left and part.name not in (*jobs.alive, *jobs.unclear)]
        if submits(args):
            record.check_rights([*record.files_of(folder, todo), *results_of(work), root])
            remember(folder, flags)
        write_jobs(args, work_flags, root, folder, work_args)
        submitting.Submission(args.scheduler, folder, f'{command} --resubmit', here=here).parts(
            todo, jobs, pack, submits(args))
    return 0


def check_same_parts(parser, module, folder, parts, jobs):
    """Refuses to deal the clips anew while jobs are at parts of the last time."""
    before = remembered(folder)
    at_work = sorted({*jobs.alive, *jobs.unclear} - {progresstable.PACK})
    if before is None or not at_work:
        return
    flags = parser.parse_known_args(before)[1]
    dealt = module.get_parser().parse_known_args(['1', *flags])[0].parts
    if dealt != parts:
        raise UserError(f'--parts {parts}: {" ".join(at_work)} may be at work, of {dealt} parts; '
                        'let them end, or cancel them first')


def packing_of(args, work, parts, jobs, place):
    """status.packing where packing was asked for, now or when the jobs were sent."""
    if not args.then_pack and progresstable.PACK not in jobs.sent:
        return '', False
    unpacked, pack = progresstable.packing(
        parts, jobs, work.packed, f'python save_hdf5.py --allow-missing{place}, then python '
                                  f'normalizeData.py{place}')
    return unpacked, pack and args.then_pack


def results_of(work):
    """Folders into which a stage writes."""
    return {work.folder, *(path.parent for clip in work.clips for path in work.results(clip))}


def settings_of(first, root):
    """The flags of --settings, or of ROOT/cluster.toml where there is one."""
    path = first.settings or root / SETTINGS
    return settings_flags(path) if first.settings or path.exists() else []


def main():
    parser = get_parser()
    given = sys.argv[1:]
    if '--submit' in given:
        refuse_flags(parser)
    first, _ = parser.parse_known_args(given)
    root = first.root.resolve()
    if '\n' in str(root):
        raise UserError(f'{root!r}: a job file cannot name a folder with a line break')
    stage.check_root(root)
    settings = settings_of(first, root)
    if first.stage in TRAININGS:
        return training(*parser.parse_known_args(settings + given), root)
    return parts_of(parser, first, given, settings, root)


if __name__ == '__main__':
    stage.run(main)
