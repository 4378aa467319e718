"""What each kind of scheduler wants to be told, and answers: headers, names of jobs, commands.

Torque's form is what every qsub understands, Slurm's own too. One file a part, with the number
in it, and `afterok:id1:id2` are the same for all; arrays of jobs are not.
"""
import re

from engine.errors import UserError
from engine.files import UMASK

# PBS takes so many characters of a job's name, and a letter first.
SHORT = 15
ID = re.compile(r'(?:Submitted batch job )?(\d+(?:\[\d*\])?(?:\.[\w.-]+)?)'
                r'(?: on cluster \S+)?')


def megabytes(text):
    """'8gb' -> 8192, as schedulers count: 1024 of each.

    Raises:
        UserError: not a number above 0 and one of kb, mb, gb, tb (or k, m, g, t).
    """
    found = re.fullmatch(r'([0-9]+)([kmgt])b?', text.strip().lower())
    bytes_ = int(found[1]) * 1024 ** ('kmgt'.index(found[2]) + 1) if found else 0
    if bytes_ < 2 ** 20:
        raise UserError(f'--memory {text}: expected a whole number with mb, gb or tb, such as 8gb')
    return bytes_ // 2 ** 20


class Torque:
    """Torque, and whatever else has a qsub."""

    mark, cancel, release = '#PBS', 'qdel', 'qrls'

    def job_name(self, base, rest):
        """A name for a job that the scheduler takes: `rest` tells it from the others of `base`."""
        base, rest = (re.sub(r'[^A-Za-z0-9_.-]', '-', text) for text in (base, rest))
        if not base[:1].isalpha():
            base = 'j' + base
        return self._shortened(base, rest)

    def _shortened(self, base, rest):
        if len(rest) > 12:
            rest = rest[0] + rest[-11:]  # '-' and the end, where numbers and seeds stand
        return base[:SHORT - len(rest)] + rest

    def header(self, args, name, log):
        """The lines that the scheduler reads; none may carry a comment."""
        lines = ['-S /bin/bash', f'-N {name}', *self._resources(args),
                 f'-l walltime={args.walltime}', '-j oe', f'-o {log}', f'-W umask=0{UMASK:o}',
                 f'-m ae -M {args.mail}' if args.mail else '-m n']
        options = {'-q ': args.queue, '-A ': args.account, '-r ': 'y' if args.requeue else ''}
        return self._marked(args, lines, options)

    def _resources(self, args):
        nodes = (f'-l nodes={args.nodes}:ppn={args.ppn}'
                 + (f':gpus={args.gpus}' if args.gpus else '')
                 + (f':{args.property}' if args.property else ''))
        if not args.memory:
            return [nodes]
        # of all nodes together
        return [nodes, f'-l mem={megabytes(args.memory) * args.nodes}mb']

    def lines_a_node(self, args):
        """How often $PBS_NODEFILE names a node."""
        return args.ppn

    def _marked(self, args, lines, options):
        lines += [f'{option}{value}' for option, value in options.items() if value]
        return [f'{self.mark} {line}' for line in lines + args.directive]

    def submit(self, job, after=(), hold=False):
        """The words that submit JOB.pbs.

        Args:
            after: ids of the jobs that must have ended well before it begins.
            hold: it waits until it is released.
        """
        # -o and -j stand in the file too, but not every qsub reads them there.
        wait = ['-W', f'depend=afterok:{":".join(after)}'] if after else []
        return ['qsub', *['-h'] * hold, '-j', 'oe', '-o', f'{job}.out', *wait, f'{job}.pbs']

    def id_in(self, printed):
        """The job's id in what the command printed, banners and all; None if none is clear."""
        matches = [ID.fullmatch(line.strip()) for line in printed.splitlines()]
        found = {match[1] for match in matches if match}
        return found.pop() if len(found) == 1 else None


class OpenPBS(Torque):
    """OpenPBS and PBS Professional."""

    def _resources(self, args):
        node = (f'-l select={args.nodes}:ncpus={args.ppn}'
                + (f':mpiprocs={args.processes}' if args.nodes * args.processes > 1 else '')
                + (f':ngpus={args.gpus}' if args.gpus else '')
                + (f':mem={megabytes(args.memory)}mb' if args.memory else '')
                + (f':{args.property}' if args.property else ''))
        return [node] + ['-l place=scatter'] * (args.nodes > 1)

    def lines_a_node(self, args):
        return args.processes


class Slurm(Torque):
    """Slurm by its own commands."""

    mark, cancel, release = '#SBATCH', 'scancel', 'scontrol release'

    def _shortened(self, base, rest):
        return base + rest

    def header(self, args, name, log):
        lines = [f'--job-name={name}', f'--nodes={args.nodes}',
                 f'--ntasks={args.nodes * args.processes}',
                 f'--ntasks-per-node={args.processes}',
                 f'--cpus-per-task={max(args.ppn // args.processes, 1)}',
                 f'--time={args.walltime}', f'--output={log}', '--open-mode=append']
        options = {'--gres=gpu:': args.gpus, '--constraint=': args.property,
                   '--mem=': args.memory and f'{megabytes(args.memory)}M',
                   '--partition=': args.queue, '--account=': args.account,
                   '--mail-type=END,FAIL --mail-user=': args.mail}
        return self._marked(args, lines, options)

    def submit(self, job, after=(), hold=False):
        wait = [f'--dependency=afterok:{":".join(after)}'] if after else []
        return ['sbatch', '--parsable', *['--hold'] * hold, *wait, f'{job}.pbs']

    def id_in(self, printed):
        # --parsable: "12;cluster"
        return super().id_in(re.sub(r'(?m)^(\s*\d+);\S+', r'\1', printed))


DIALECTS = {'torque': Torque(), 'openpbs': OpenPBS(), 'slurm': Slurm()}
