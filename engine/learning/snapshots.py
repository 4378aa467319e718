"""What a training goes on from when its command runs again: its state, the state before that, and
the weights of its best epoch."""
import contextlib
import json
import os
import statistics
import time

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

from engine.errors import UserError
from engine.files import check_outputs, json_of, put, replacing, write_text
from engine.weights.limits import DAMAGE
from engine.progress import kernel_now, number_of
from engine.weights.card import weights_digest
from engine.weights.modelfile import load_weights, save_model

# For messages that name the command that makes a file again.
ANEW = 'the same command with --restart'
SETTINGS, KERNELS = 'settings', 'kernels'
CLIPS = {'trained_clips', 'held_out_clips'}  # of examples.which
UNTOLD = {'packed', *CLIPS}  # by snapshots that were made before


def _brief(value):
    """A setting as an error's one line shows it."""
    text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


class Snapshots:
    """snapshot.npz in a training's folder, and snapshot.before.npz, taken where that is damaged.

    Both also hold what the run depends on, and by what it was computed so far; settings.json is
    for people (and tells it of snapshots that were made before they did).

    Args:
        kernel: what computes from now on, of stage.tell_kernel.
    """

    def __init__(self, folder, kernel=None):
        self.kernel, self.kernels = kernel, []
        self.folder = os.fspath(folder)
        self.path, self.before, self.settings_path = (
            os.path.join(self.folder, name)
            for name in ('snapshot.npz', 'snapshot.before.npz', 'settings.json'))
        self.cost, self.last = 0.0, time.monotonic()  # seconds, and when it was written

    def check_outputs(self):
        """Refuses a folder in which a training's files could not be written.

        Raises:
            UserError: the reason.
        """
        if os.path.lexists(self.folder) and not os.path.isdir(self.folder):
            raise UserError(f'{self.folder}: is to be the folder of the training, but is no '
                            'folder; move it away, then run the command again')
        check_outputs(self.path, self.before, self.settings_path, *(
            os.path.join(self.folder, name) for name in ('best.npz', 'best.before.npz', 'log')))

    def remove(self):
        for path in (self.path, self.before, self.settings_path, os.path.join(self.folder, 'log')):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise UserError(f'{path}: cannot be removed: {error.strerror}; remove it, then run '
                                'the command again') from error

    def check_settings(self, settings):
        """Refuses settings (dict) other than those of what is there, but for 'epochs'; keeps them.

        Raises:
            UserError: naming each that differs.
        """
        # numbers through JSON, so that both sides have been there
        self.settings = json.loads(json.dumps(settings))
        if self._there():
            old = self._old_settings()
            unsaid = {'epochs', *UNTOLD - old.keys()}
            differ = [key for key in sorted(old.keys() | self.settings.keys())
                      if key not in unsaid and old.get(key) != self.settings.get(key)]
            if differ:
                # A clip that it has learned from must never validate it.
                clips = ('; the clips that it learned from, or those held out, were others than '
                         'now: put back what is missing or changed' if CLIPS.intersection(differ)
                         else '')
                changed = ', '.join(f'{key} {_brief(old.get(key))} -> '
                                    f'{_brief(self.settings.get(key))}' for key in differ)
                raise UserError(f'{self.folder}: holds a run with other settings ({changed}'
                                f'{clips}); give the old ones to continue it, or --restart to '
                                'begin anew')
            if CLIPS & self.settings.keys() - old.keys():
                print(f'{self.folder}: the snapshot is an older one, which does not tell from '
                      'which clips it learned; they are taken to be those of now', flush=True)
        write_text(self.settings_path, json.dumps(self.settings, indent=1, sort_keys=True))

    def _there(self):
        return [path for path in (self.path, self.before) if os.path.lexists(path)]

    def _old_settings(self):
        for path in self._there():
            try:
                with numpy.load(path, allow_pickle=False) as f:
                    if SETTINGS in f:
                        return dict(json.loads(str(f[SETTINGS])))
            except DAMAGE:
                continue  # told of when it is to be resumed
        try:
            with open(self.settings_path, encoding='utf-8') as f:
                return dict(json_of(f.read()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f'{self.settings_path}: not readable ({error}), so nobody knows with '
                            f'which settings {self._there()[0]} was made; --restart begins '
                            'anew') from None

    def save(self, trainer):
        begin = time.monotonic()
        if self.kernel and self.kernels[-1:] != [self.kernel]:
            self.kernels.append(self.kernel)
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(trainer)
        for key, value in ((SETTINGS, self.settings), (KERNELS, self.kernels)):
            serializer.target[key] = numpy.array(json.dumps(value))
        with replacing(self.path) as temporary:
            with open(temporary, 'wb') as f:
                numpy.savez(f, **serializer.target)
            if os.path.isfile(self.path):
                os.replace(self.path, self.before)
        self.last = time.monotonic()
        self.cost = self.last - begin

    def is_due(self):
        """Whether so much would be lost now that a snapshot in the middle of an epoch pays."""
        return time.monotonic() - self.last > max(60.0, 50 * self.cost)

    def resume(self, trainer):
        """Brings a Trainer to the last state that is whole; returns whether there is one.

        Raises:
            UserError: none of those that are there can be read.
        """
        damaged = []
        for path in self._there():
            try:
                # Chainer's own load_npz unpickles what a file says; this does not.
                with numpy.load(path, allow_pickle=False) as f:
                    arrays = {name: f[name] for name in f.files}
                chainer.serializers.NpzDeserializer(arrays).load(trainer)
                self.kernels = [kernel_now(str(kernel))
                                for kernel in json_of(str(arrays.get(KERNELS, '[]')))]
            except DAMAGE as error:
                reason = ' '.join(str(error).split())[:200] or type(error).__name__
                damaged.append(f'{path}: cannot be resumed ({reason})')
                continue
            if path == self.before:
                print('; '.join(damaged or [f'{self.path}: not there']) + f'; taking {path}, which '
                      'was made before it', flush=True)
            return True
        if damaged:
            raise UserError('; '.join(damaged) + '; --restart begins anew')
        return False


# What makes an epoch the best so far, in words.
RULES = {'lowest': 'the lowest held-out loss', 'accuracy': 'the highest held-out accuracy',
         'window': 'the lowest held-out loss, mean of three epochs'}
WINDOW = 3


def add_keep(group, *others, text=''):
    """Adds --keep to a group of a parser; `others` are choices besides RULES, told by `text`."""
    group.add_argument('--keep', choices=(*RULES, *others), default='lowest', metavar='EPOCH',
                       help='whose weights are kept, by the clips held out. lowest: of the epoch '
                            'of lowest loss; accuracy: of highest accuracy, of equal ones the '
                            f'lowest loss; window: of lowest mean loss of it and the {WINDOW - 1} '
                            f'before, which chance rules less; of equal ones the first{text} '
                            '(default: lowest)')


def badness(rule, history):
    """How bad the last epoch of [(held-out loss, accuracy)] is, a tuple to be compared."""
    loss, accuracy = history[-1]
    if rule == 'accuracy':
        return -accuracy, loss
    return (statistics.fmean(loss for loss, _ in history[-WINDOW:]) if rule == 'window' else loss,)


class Best:
    """Keeps the weights of the best epoch by the clips held out; says when to stop.

    Of epochs equally good the first counts. A snapshot tells which weights these were by their
    digest. Those before are kept beside them, as until the next snapshot they are the ones.

    Args:
        path: file of the weights, NAME.npz; those before are NAME.before.npz.
        model: chainer.Link whose weights they are.
        patience (int): epochs without a better one after which to stop; 0 for never.
        rule: one of RULES.
    """

    def __init__(self, path, model, patience=0, rule='lowest'):
        self.path, self.model, self.patience, self.rule = path, model, patience, rule
        self.before = os.path.splitext(path)[0] + '.before.npz'
        self.digest = ''
        self.history, self.best, self.age = [], (float('inf'),), 0

    def add(self, loss, accuracy=0.0):
        """Takes in one epoch's figures of the clips held out."""
        self.age += 1
        self.history.append((loss, accuracy))
        now = badness(self.rule, self.history)
        if now < self.best:
            self.best, self.age = now, 0
            if os.path.isfile(self.path):
                os.replace(self.path, self.before)
            save_model(self.path, self.model, {}, form='npz')
            self.digest = weights_digest(self.path)

    def should_stop(self):
        return bool(self.patience) and self.age >= self.patience

    def check(self):
        """Refuses to go on where the weights to be kept so far are gone, damaged or others."""
        if self.best[0] == float('inf'):
            return
        try:
            if weights_digest(self.path, ANEW) == self.digest or not self.digest:
                return
            fault = UserError(f'{self.path}: not the weights that the snapshot beside it tells of, '
                              'but of another epoch or run; put those back, or begin anew: '
                              + ANEW)
        except UserError as error:
            fault = error
        if not (self.digest and self._are_before()):
            raise fault
        put(self.before, self.path)  # stopped between a better epoch and its snapshot

    def _are_before(self):
        """Whether those before are the weights that the snapshot tells of."""
        try:
            return weights_digest(self.before) == self.digest
        except UserError:
            return False

    def load(self):
        """Gives the model the weights that are kept."""
        load_weights(self.path, self.model, made_by=ANEW)

    def __call__(self, trainer):
        """Nothing to do: an extension only so that the snapshot holds it."""

    def serialize(self, serializer):
        self.best = (float(serializer('loss', self.best[0])), *self.best[1:])
        self.age = int(serializer('age', self.age))
        reading = isinstance(serializer, chainer.Deserializer)
        with contextlib.suppress(KeyError):  # older snapshots do not tell it
            self.digest = str(serializer('digest', None if reading else numpy.array(self.digest)))
        if self.rule != 'lowest':  # which asks for no epoch but the best
            history = serializer('history', None if reading else
                                 numpy.array(self.history, float).reshape(-1, 2))
            self.history = list(map(tuple, history.tolist()))
            self.best = min((badness(self.rule, self.history[:n + 1])
                             for n in range(len(self.history))), default=self.best)


def best_line(log, rule='lowest'):
    """The epoch of a log (list of dicts) that Best keeps; the last where none validates."""
    lines = [line for line in log if 'validation/main/loss' in line]
    history = [(line['validation/main/loss'], line['validation/main/accuracy']) for line in lines]
    return lines[min(range(len(lines)), key=lambda n: badness(rule, history[:n + 1]))] \
        if lines else log[-1]


def kept_line(log, rule, epochs, patience=0):
    """The epoch of a log that is kept, and prints which one that is, and what ended the training.

    Args:
        rule: --keep: one of RULES, or 'last'.
        epochs, patience: --epochs and --patience of the training.
    """
    line, n = best_line(log, rule) if rule in RULES else log[-1], log[-1]['epoch']
    why = (f'of {RULES[rule]}' if rule in RULES and 'validation/main/loss' in line else
           'the last' + ', as no clip is held out' * (rule in RULES))
    print(f'kept: epoch {line["epoch"]} of {n}, {why}', flush=True)
    if n < epochs and patience:
        print(f'ended before --epochs {epochs}: {number_of(patience, "epoch")} without a better '
              f'one (--patience {patience})', flush=True)
    return line


def told_of(line, log):
    """What a model's card tells of its training: figures of the epoch that is kept."""
    return {**{name: line[key] for name, key in (
        ('train_loss', 'main/loss'), ('train_accuracy', 'main/accuracy'), ('epoch', 'epoch'))
        if key in line}, 'epochs': log[-1]['epoch']}
