"""What each kind of scheduler wants to be told: headers, names of jobs, commands.

Torque's form is what every qsub understands, Slurm's own too. One file a part, with the number
in it, and `afterok:id1:id2` are the same for all; arrays of jobs are not.
"""
# Torque takes so many characters of a job's name.
SHORT = 15


class Torque:
    """Torque, and whatever else has a qsub."""

    mark, cancel = '#PBS', 'qdel'

    def job_name(self, base, rest):
        """A name for a job: `rest` tells it from the others, so `base` gives way."""
        if len(rest) > 12:
            rest = rest[0] + rest[-11:]  # '-' and the end, where numbers and seeds stand
        return base[:SHORT - len(rest)] + rest

    def header(self, args, name, log):
        """The lines that the scheduler reads; none may carry a comment."""
        lines = [f'-N {name}', f'-l {self.nodes(args)}', f'-l walltime={args.walltime}',
                 '-j oe', f'-o {log}']
        options = {'-q ': args.queue, '-A ': args.account, '-m ae -M ': args.mail}
        return self._marked(args, lines, options)

    def nodes(self, args):
        return (f'nodes={args.nodes}:ppn={args.ppn}' + (f':gpus={args.gpus}' if args.gpus else '')
                + (f':{args.property}' if args.property else ''))

    def _marked(self, args, lines, options):
        lines += [f'{option}{value}' for option, value in options.items() if value]
        return [f'{self.mark} {line}' for line in lines + args.directive]

    def submit(self, job, after=()):
        """The words that submit JOB.pbs, to begin when the jobs `after` have ended well."""
        # -o and -j stand in the file too, but not every qsub reads them there.
        wait = ['-W', f'depend=afterok:{":".join(after)}'] if after else []
        return ['qsub', '-j', 'oe', '-o', f'{job}.out', *wait, f'{job}.pbs']


class OpenPBS(Torque):
    """OpenPBS and PBS Professional."""

    def nodes(self, args):
        return (f'select={args.nodes}:ncpus={args.ppn}'
                + (f':mpiprocs={args.processes}' if args.processes > 1 else '')
                + (f':ngpus={args.gpus}' if args.gpus else '')
                + (f':{args.property}' if args.property else ''))


class Slurm(Torque):
    """Slurm by its own commands."""

    mark, cancel = '#SBATCH', 'scancel'

    def job_name(self, base, rest):
        return base + rest

    def header(self, args, name, log):
        lines = [f'--job-name={name}', f'--nodes={args.nodes}',
                 f'--ntasks={args.nodes * args.processes}',
                 f'--cpus-per-task={max(args.ppn // args.processes, 1)}',
                 f'--time={args.walltime}', f'--output={log}', '--open-mode=append']
        options = {'--gres=gpu:': args.gpus, '--constraint=': args.property,
                   '--partition=': args.queue, '--account=': args.account,
                   '--mail-type=END,FAIL --mail-user=': args.mail}
        return self._marked(args, lines, options)

    def submit(self, job, after=()):
        wait = [f'--dependency=afterok:{":".join(after)}'] if after else []
        return ['sbatch', '--parsable', *wait, f'{job}.pbs']


DIALECTS = {'torque': Torque(), 'openpbs': OpenPBS(), 'slurm': Slurm()}
