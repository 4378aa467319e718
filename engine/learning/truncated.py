"""Truncated back-propagation: the loss of a window of steps, and an update of the weights for each."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy

from engine.learning.training import Updater

LOSSES = ('linear', 'uniform', 'last')


class WindowUpdater(Updater):
    """Truncated back-propagation: one update of the weights a window of steps."""

    def __init__(self, model, window, loss_weights, *args, **kwargs):
        super().__init__(*args, compute_loss=None, **kwargs)
        self.model, self.window, self.loss_weights = model, window, loss_weights

    def step(self, batch, optimizer):
        xs, labels, lengths = batch
        steps = len(xs)
        weights = step_weights(self.loss_weights, lengths, steps)
        mask = numpy.arange(steps)[:, None] < lengths
        padded = not mask.all()
        total = right = 0.0
        self.model.reset_state()
        for start in range(0, steps, self.window):
            now = slice(start, start + self.window)
            loss, hits = sequence_loss(self.model, xs[now], labels, weights[now],
                                       mask[now] if padded else None)
            total += float(loss.array) * len(labels)
            right += hits
            loss = self.weighted(loss)
            if not self.finite(loss):
                return
            if not self.workers.any(weights[now].any())[0]:
                continue  # nothing of this window counts; only the state goes on
            optimizer.target.cleargrads()
            loss.backward()
            del loss  # the graph must not outlive the window
            optimizer.update()
        # A share that counts nothing repeats a clip of another worker's.
        counts = self.weight > 0
        total, weights, right, real = self.workers.mean(
            *(counts * float(value) for value in (total, weights.sum(), right, mask.sum())))
        chainer.report({'loss': total / weights, 'accuracy': right / real}, optimizer.target)


def step_weights(kind, lengths, steps):
    """How much the loss of each step counts.

    Args:
        kind: 'linear' (step j of T counts (j+1)/T, as in the original), 'uniform' or 'last'.
        lengths: (B,) int, the real steps of each sequence.
        steps (int): length T of the longest.

    Returns:
        (T, B) float32, 0 where a step is padding.
    """
    number = numpy.arange(1, steps + 1)[:, None]
    if kind == 'linear':
        weights = number / lengths
    elif kind == 'uniform':
        weights = numpy.ones((steps, len(lengths)))
    else:
        weights = number == lengths
    return numpy.where(number <= lengths, weights, 0).astype(numpy.float32)


def sequence_loss(model, xs, labels, weights, mask=None):
    """Runs the next steps: cross entropy of each real step times its weight, summed over
    steps and averaged over the batch.

    Args:
        model (RNNNet): its state goes on from the last call.
        xs: (T, B, D) float32; labels: (B,) int32; weights: (T, B) float32; mask: as in
            RNNNet.rows. All but xs are NumPy arrays.

    Returns:
        (Variable of the loss, number of real steps whose best class is the right one).
    """
    steps, batch, _ = xs.shape
    real = slice(None) if mask is None else mask.ravel()
    wanted = model.xp.asarray(numpy.tile(labels, steps)[real])
    scores = model.rows(xs, mask)
    losses = F.softmax_cross_entropy(scores, wanted, reduce='no')
    loss = F.sum(losses * model.xp.asarray(weights.ravel()[real])) / batch
    return loss, int((scores.array.argmax(axis=1) == wanted).sum())
