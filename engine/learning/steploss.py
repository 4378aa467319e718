"""The loss of a window of steps, for truncated back-propagation (the updates stand in rnn.py)."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer.functions as F
import numpy

LOSSES = ('linear', 'uniform', 'last')


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
