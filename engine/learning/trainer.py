"""What both trainings need around Chainer's Trainer: resume, a loud stop, a log.

Randomness is drawn anew from (seed, iteration) before every update, so a snapshot
need not hold any random state and a resumed run repeats the uninterrupted one bit
for bit (on the CPU).
"""
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
from chainer import training
from chainer.training import extensions

from engine import stage
from engine.drawing import plotstyle
from engine.errors import DecoderKilled, Stopped, UserError
from engine.files import make_folder, write_text
from engine.learning.snapshots import Snapshots
from engine.learning.workers import Workers
from engine.progress import Progress, listed, number_of

FEW_UPDATES = 50  # an epoch


def say_if_few(updates, advice, more):
    """Says that an epoch has few updates of the weights, and what would help.

    Args:
        advice: {what helps with few clips: whether it is still to be had}.
        more: the file that tells more.
    """
    if updates < FEW_UPDATES:
        helps = [what for what, is_open in advice.items() if is_open]
        print(f'{number_of(updates, "update")} an epoch {"is" if updates == 1 else "are"} few to '
              'learn from' + (f': with few clips {listed(helps)} may help' if helps else '')
              + f'; see {more}', flush=True)


def reseed(device, *numbers):
    """Seeds the global generators that Chainer draws from (dropout) by whole numbers."""
    seed = numpy.random.RandomState(list(numbers)).randint(2 ** 31)
    numpy.random.seed(seed)
    if device.xp is not numpy:
        device.xp.random.seed(int(seed))


class Updater(training.updaters.StandardUpdater):
    """StandardUpdater that seeds each iteration and refuses a loss that is not finite.

    What a batch teaches is said by the stage, in a subclass with the method `learn`.

    Args:
        seed (int): start of all random choices of the run.
        rate: function of the epochs done (a fraction, too) that returns the learning rate;
            None leaves the optimizer's.
        workers (Workers): the processes that share the work.
        The others as StandardUpdater.
    """

    def __init__(self, iterator, optimizer, seed, rate=None, workers=None, **kwargs):
        super().__init__(iterator, optimizer, **kwargs)
        self.seed, self.rate = seed, rate
        self.workers = workers or Workers()
        self.failure = None

    def update_core(self):
        # Each worker drops out other units.
        rank = [] if self.workers.first else [self.workers.rank]
        reseed(self.device, self.seed, self.iteration, *rank)
        optimizer = self.get_optimizer('main')
        if self.rate is not None:
            # Set anew each time, so that a resumed run needs no record of it.
            done = self.iteration / self.get_iterator('main').batches_per_epoch
            setattr(optimizer, 'alpha' if hasattr(optimizer, 'alpha') else 'lr', self.rate(done))
        self.learn(self.converter(self.get_iterator('main').next(), self.device), optimizer)
        if self.workers.size > 1:
            # What was reported, as the mean over all workers.
            figures = chainer.get_current_reporter().observation
            names = sorted(figures)
            means = self.workers.mean(*(float(chainer.as_array(figures[name])) * self.weight
                                        for name in names))
            figures.update(zip(names, means))

    def learn(self, batch, optimizer):
        """One or more updates of the weights, from one batch; reports 'loss' and 'accuracy'."""
        raise NotImplementedError

    @property
    def weight(self):
        """What this worker's batch counts in the mean over workers."""
        return getattr(self.get_iterator('main'), 'weight', 1.0)

    def is_finite(self, loss):
        """Whether the loss is a number; if not, the run ends with the weights as they were."""
        value, = self.workers.mean(float(loss.array))
        if not numpy.isfinite(value):
            self.failure = f'the loss became {value} at iteration {self.iteration + 1}'
        return self.failure is None

    def check_weights(self):
        """Ends the run where an update has made a weight that is not a number."""
        for name, param in self.get_optimizer('main').target.namedparams():
            if self.failure is None and not bool(self.device.xp.isfinite(param.array).all()):
                self.failure = (f'the weights {name} are no longer finite at iteration '
                                f'{self.iteration}')


# Title, key in the log, format: 80 columns of a terminal hold them.
COLUMNS = (('epoch', 'epoch', 'd'), ('updates', 'iteration', 'd'), ('loss', 'main/loss', '.4f'),
           ('accuracy', 'main/accuracy', '.4f'), ('held-out loss', 'validation/main/loss', '.4f'),
           ('held-out accuracy', 'validation/main/accuracy', '.4f'),
           ('seconds', 'elapsed_time', '.1f'))


def _is_new_epoch(trainer):
    return trainer.updater.is_new_epoch


class _EpochTable(training.Extension):
    """Prints the last line of the log, under a row of titles; more narrow than PrintReport."""

    def __init__(self, terminal):
        # Clears what the progress bar has drawn below.
        self.begin, self.titled = '\033[J' * terminal, False

    def __call__(self, trainer):
        line = trainer.get_extension('LogReport').log[-1]
        columns = [(title, max(len(title), 7), format(line[key], form))
                   for title, key, form in COLUMNS if key in line]
        rows = [] if self.titled else ['  '.join(f'{title:>{n}}' for title, n, _ in columns)]
        rows.append('  '.join(f'{number:>{n}}' for _, n, number in columns))
        print(self.begin + '\n'.join(rows), flush=True)
        self.titled = True


def curve_figure(log, key):
    """Draws 'loss' or 'accuracy' of a log, training and validation, by epoch."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot(xlabel='epoch', ylabel=key)
    for name, label in ((f'main/{key}', 'training'), (f'validation/main/{key}', 'validation')):
        points = [(line['epoch'], line[name]) for line in log if name in line]
        if points:
            axes.plot(*zip(*points), marker='.', label=label)
    axes.legend()
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)  # whole epochs
    return figure


class _WithinEpoch(training.Extension):
    """Says in a log now and then how far an epoch has come."""

    progress = None

    def __call__(self, trainer):
        if trainer.updater.is_new_epoch:
            self.progress = None
            return
        if self.progress is None:
            left = trainer.updater.get_iterator('main').batches_left
            self.progress = Progress(left + 1, f'epoch {trainer.updater.epoch + 1}', 'batches')
        self.progress.update()


class Training:
    """A Trainer with log, plots, snapshots and resume in one folder.

    Args:
        updater (Updater): does the work.
        epochs (int): passes over the training clips.
        folder: where log, plots and snapshots stand.
        settings (dict): what the run depends on; a snapshot made with others is refused.
        validate: function that returns a dict of validation figures; called each epoch.
        best (Best): what `validate` tells of each epoch; says when to stop.
        restart (bool): throws away what an earlier run left.
        kernel: what computes it, of stage.tell_kernel.
    """

    def __init__(self, updater, epochs, folder, settings, validate=None, best=None,
                 restart=False, kernel=None):
        self.updater, self.folder, self.epochs = updater, os.fspath(folder), epochs
        self.best, self.workers = best, updater.workers
        self.stopped_by = 0  # the number of a signal
        self.plotted, self.unplotted = -math.inf, set()
        self.snapshots = Snapshots(folder, kernel)
        self.workers.from_first(lambda: self._prepare(settings, restart))
        self.trainer = training.Trainer(updater, self, out=self.folder)
        self._extend(validate)

    def _prepare(self, settings, restart):
        self.snapshots.check_outputs()
        make_folder(self.folder)
        # Of killed runs: nobody else writes here now (engine.locks).
        for left in Path(self.folder).glob('.*.part'):
            left.unlink(missing_ok=True)
        if restart:
            self.snapshots.remove()
        self.snapshots.check_settings(settings)

    def _extend(self, validate):
        trainer = self.trainer
        epoch = (1, 'epoch')
        trainer.extend(lambda _: self.updater.check_weights(), name='check_weights',
                       trigger=epoch, priority=training.PRIORITY_WRITER + 1)
        if validate is not None:
            trainer.extend(lambda _: self._validate(validate), name='validate', trigger=epoch,
                           priority=training.PRIORITY_WRITER)
        if self.best is not None:
            trainer.extend(self.best, name='state', trigger=epoch)
        trainer.extend(extensions.LogReport(trigger=epoch, log_name=None))  # written below
        if not self.workers.first:
            return
        # mpiexec shows a terminal to its workers also where it writes into a log.
        terminal = sys.stdout.isatty() and self.workers.size == 1
        trainer.extend(_EpochTable(terminal), name='table', trigger=epoch)
        # These have no state for a snapshot to hold, so it fits on a terminal and in a log.
        trainer.extend(lambda _: self._write_log(), name='write_log', trigger=_is_new_epoch)
        trainer.extend(lambda _: self._plot(), name='plot', trigger=epoch, priority=-50)
        trainer.extend(extensions.ProgressBar(update_interval=1) if terminal else _WithinEpoch(),
                       name='progress', trigger=lambda _: True)
        trainer.extend(lambda _: self._snapshot(), name='snapshot', priority=-100, trigger=lambda
                       trainer: _is_new_epoch(trainer) or self.snapshots.is_due())

    def _validate(self, validate):
        if self.updater.failure is not None:
            return
        figures = self.workers.from_first(validate)
        if not math.isfinite(figures['loss']):
            self.updater.failure = (f'the loss became {figures["loss"]} in the validation after '
                                    f'iteration {self.updater.iteration}')
        chainer.report({f'validation/main/{key}': value for key, value in figures.items()})

    def _write_log(self):
        write_text(os.path.join(self.folder, 'log'), json.dumps(self.log(), indent=4))

    def _plot(self, every=20.0):
        """Draws loss.png and accuracy.png from the log, unless it was done a moment ago."""
        if time.monotonic() < self.plotted + every:
            return
        self.plotted = time.monotonic()
        for key in ('loss', 'accuracy'):
            path = os.path.join(self.folder, f'{key}.png')
            try:
                plotstyle.save(path, curve_figure, self.log(), key, dpi=100)
            except UserError as error:  # a picture is no reason to end a training
                if str(error) not in self.unplotted:
                    print(f'{error}; the training goes on', file=sys.stderr, flush=True)
                self.unplotted.add(str(error))

    def get_training_length(self):
        """For Chainer's progress bar, which asks the trigger that ends the training."""
        return self.epochs, 'epoch'

    def __call__(self, trainer):
        """Whether the training is over."""
        # All leave together: a scheduler's signal reaches one worker before another.
        stopped, stop = self.workers.any(
            self.stopped_by, self.best is not None and self.best.should_stop())
        if stopped:
            self.stopped_by = self.stopped_by or signal.SIGTERM
        return (self.updater.failure is not None or stopped or stop
                or self.updater.epoch >= self.epochs)

    def _snapshot(self):
        self.updater.check_weights()
        if self.updater.failure is not None:
            return
        self.snapshots.save(self.trainer)

    def _resume(self):
        if not self.snapshots.resume(self.trainer):
            return
        # More was trained than is asked for; the results would tell of fewer epochs.
        if self.updater.epoch_detail > self.epochs:
            raise UserError(f'{self.snapshots.path}: has {self.updater.epoch_detail:.4g} epochs, '
                            f'but --epochs is {self.epochs}; ask for more, or --restart begins '
                            'anew')
        if self.workers.first:
            if self.best is not None:
                self.best.check()
            if self.log():
                self._write_log()  # as the snapshot has it
        print(f'resumed after epoch {self.updater.epoch}, iteration '
              f'{self.updater.iteration}', flush=True)
        if self.snapshots.kernels[-1:] not in ([], [self.snapshots.kernel]):
            print(f'computed so far by {self.kernel()}: the last digits will not be those of a run '
                  'that one kernel computes', flush=True)

    def run(self):
        """Trains to the end, from the snapshot if there is one.

        Raises:
            UserError: the loss was not finite; the snapshot is kept.
            Stopped: a signal to stop came, and there is a snapshot of this moment.
        """
        self._resume()
        with stage.handling(self._on_signal):
            # Nothing overflows unseen: the loss and the weights are looked at.
            with numpy.errstate(over='ignore', invalid='ignore', divide='ignore'):
                try:
                    self.trainer.run(show_loop_exception_msg=False)
                except DecoderKilled:  # by a signal that comes to one process after the other
                    self._wait_for_signal()
                    if not self.stopped_by:
                        raise
                    raise self._stopped('while frames were read') from None
            if self.log() and self.workers.first:
                self._plot(every=0)
            stopped, = self.workers.any(self.stopped_by)
            if stopped:
                # The others wait: the first of them to leave would end the one that writes.
                self.workers.from_first(self._snapshot)
        if self.updater.failure is not None:
            path = self.snapshots.path
            kept = (f'the last good snapshot is kept ({path})' if os.path.exists(path) else
                    'no epoch was finished')
            raise UserError(f'{self.updater.failure}; {kept}; lower --lr, then begin anew with '
                            '--restart')
        if stopped:
            raise self._stopped(f'after iteration {self.updater.iteration}')

    def _stopped(self, where):
        number = self.stopped_by or signal.SIGTERM  # another worker heard it
        return Stopped(f'{stage.stopped_how(number)} {where}; {stage.same_command()}', number)

    def _wait_for_signal(self, seconds=1.0):
        end = time.monotonic() + seconds
        while not self.stopped_by and time.monotonic() < end:
            time.sleep(0.05)

    def _on_signal(self, number, _):
        # The end of an update or a validation is near as a rule, and then there is something to
        # keep. Nobody waits longer than stage.PATIENCE: then the last snapshot is what there is.
        self.stopped_by = number

    def kernel(self):
        """By what it was computed: one text, of all kernels that took their turn."""
        return '; then '.join(self.snapshots.kernels)

    def log(self):
        """The log so far: a list of dicts, one an epoch."""
        return self.trainer.get_extension('LogReport').log
