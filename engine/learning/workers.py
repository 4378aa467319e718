"""One training on several processes, on one machine or many, by ChainerMN over MPI.

    mpiexec -n 4 python rnn.py --communicator naive          # CPUs
    mpiexec -n 4 python frameBasedTrain.py --communicator pure_nccl --device 0     # GPUs

Every worker takes its share of each batch, which --batch makes as many times as large as
there are workers; gradients are averaged before each update, so all hold the same weights.
The first worker validates, logs and writes files; all must see the same --root.
"""
import os
import sys
import time
import warnings

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

from engine.errors import UserError

COMMUNICATORS = ('naive', 'flat', 'pure_nccl')
# What launchers tell a copy: how many there are, or its rank. srun sets the first in a step only; a
# batch script, one task whatever it asked for, has SLURM_NTASKS and SLURM_PROCID too.
SIZES = {'srun': ('SLURM_STEP_NUM_TASKS',),
         'mpiexec': ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MPI_LOCALNRANKS', 'MV2_COMM_WORLD_SIZE')}
RANKS = {'aprun': ('ALPS_APP_PE',), 'mpiexec': ('PMI_RANK', 'PMIX_RANK', 'PALS_RANKID')}


class Workers:
    """The processes of a training; one process alone if there is no communicator.

    Args:
        comm: chainermn communicator, or None.
    """

    def __init__(self, comm=None):
        self.comm = comm
        self.rank, self.size = (comm.rank, comm.size) if comm else (0, 1)
        self.first = self.rank == 0

    def share_of(self, members):
        """This worker's members of a batch, and what they count in the mean over workers.

        Args:
            members: of the whole batch, a sequence that can be sliced.

        Returns:
            (members, weight): the mean over workers of (weight x mean over a worker's
            members) is the mean over all members. A worker for whom none is left gets
            one that counts 0.
        """
        mine = members[self.rank::self.size]
        if not len(mine):
            return members[:1], 0.0
        return mine, len(mine) * self.size / len(members)

    def settings(self):
        """What several workers add to a result's settings: a batch is so many times as large."""
        return {'workers': self.size} if self.size > 1 else {}

    def device(self, name):
        """The GPU for --device: the workers of one node take those from it on, in turn."""
        several = self.size > 1 and str(name).isdigit()
        return str(int(name) + self.comm.intra_rank) if several else name

    def mean(self, *values):
        """Mean over the workers of each number."""
        if self.size == 1:
            return values
        return tuple(self.comm.allreduce_obj(numpy.array(values, float)) / self.size)

    def any(self, *flags):
        """Whether each flag is set at any worker."""
        return tuple(value > 0 for value in self.mean(*flags))

    def from_first(self, function):
        """Calls the function at the first worker alone; all get what it returns."""
        value = function() if self.first else None
        return value if self.size == 1 else self.comm.mpi_comm.bcast(value)

    def join_batch_statistics(self, model):
        """Lets the batch normalisations directly in a model use all workers' batches.

        Their shares count alike, also in a last batch that cannot be shared evenly.
        """
        if self.size > 1:
            from chainermn.links import create_mnbn_model
            for link in list(model.children()):
                if isinstance(link, chainer.links.BatchNormalization):
                    name = link.name
                    with warnings.catch_warnings(), model.init_scope():
                        warnings.simplefilter('ignore', FutureWarning)  # "is experimental"
                        joined = create_mnbn_model(link, self.comm)
                        delattr(model, name)
                        setattr(model, name, joined)

    def agree(self, optimizer):
        """Lets an optimizer that is set up average gradients; all begin with the first's weights.

        Call it before other hooks are added: they must see the mean.
        """
        if self.size > 1:
            self.comm.bcast_data(optimizer.target)
            optimizer.add_hook(MeanGradient(self.comm))


class MeanGradient:
    """Optimizer hook that replaces each gradient by its mean over all workers."""

    name = 'MeanGradient'
    call_for_each_param = False
    timing = 'pre'

    def __init__(self, comm):
        self.comm = comm

    def __call__(self, optimizer):
        self.comm.multi_node_mean_grad(optimizer.target)


def add_communicator(parser):
    """Adds --communicator to a stage that trains."""
    group = parser.add_argument_group('several processes')
    group.add_argument('--communicator', choices=COMMUNICATORS, metavar='NAME',
                       help='train with all processes that mpiexec starts: naive for CPUs, '
                            'pure_nccl or flat for GPUs, of which the workers of a node take one '
                            'each, from --device on; --batch is that of one worker (default: '
                            'this process alone)')


def copies():
    """(what has started this process, how many copies of it): 0 of an unknown number."""
    for launcher, names in SIZES.items():
        for name in names:
            number = os.environ.get(name, '')
            if number.isdigit() and int(number) > 1:
                return launcher, int(number)
    for launcher, names in RANKS.items():
        if any(os.environ.get(name, '0') not in ('', '0') for name in names):
            return launcher, 0
    return '', 1


def get_workers(name):
    """Returns the Workers for --communicator; all but the first fall silent.

    Raises:
        UserError: mpi4py or MPI is missing, or no such communicator can be had.
    """
    if not name:
        launcher, started = copies()
        if started != 1:
            raise UserError(f'{launcher} has started {started or "several"} processes that know '
                            'nothing of one another; add --communicator naive (or pure_nccl), or '
                            f'leave out {launcher}')
        return Workers()
    try:
        import chainermn
        from chainermn import global_except_hook
        comm = chainermn.create_communicator(name)
    except Exception as error:  # MPI, NCCL and CuPy each have their own
        missing = 'NCCL' if name == 'pure_nccl' and 'mpi' not in str(error).lower() else 'MPI'
        raise UserError(f'--communicator {name}: {" ".join(str(error).split())}; {missing}: see '
                        f'requirements-{"gpu" if missing == "NCCL" else "mpi"}.txt') from None
    if comm.size == 1:
        print('one process only: start it by mpiexec -n N python ...', file=sys.stderr)
    global_except_hook.add_hook()
    if comm.rank:
        sys.stdout = open(os.devnull, 'w')  # as long as the process lives
    return Workers(comm)


def abort(message):
    """Ends all workers with a message if this is one of several: the others wait for it."""
    if 'mpi4py.MPI' not in sys.modules:
        return
    world = sys.modules['mpi4py.MPI'].COMM_WORLD
    if world.size > 1:
        # What all have met is told by the first alone, which ends the others meanwhile.
        time.sleep(2 if world.rank else 0)
        print(message, file=sys.stderr, flush=True)
        world.Abort(1)
