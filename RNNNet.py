"""The recurrent network on frame features, any number of layers and a head.

    model = RNNNet(1024, 101)                 # the original: one LSTM of 1024 cells

    features -> normalise -> dropout -> LSTM -> dropout -> BN -> Linear, sigmoid
             -> dropout -> BN -> Linear -> scores of every step

Cell 'linear' (a linear classifier of each frame) and 'mean' (the same on the mean of
the frames so far) are the baselines that see no order.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
import numpy

from PoolingNet import PoolingNet
from engine.learning.featurenet import FeatureNet
from engine.fast.lstm import GRU, LSTM
from engine.weights.modelfile import load_network, read_card

CELLS = ('lstm', 'gru', 'linear', 'mean')
MADE_BY = 'python rnn.py'


class RNNNet(FeatureNet):
    """Scores of every step from features of every step.

    Args:
        n_in (int): length D of a feature.
        n_classes (int): classes C.
        cell: 'lstm', 'gru', 'linear' or 'mean'.
        cells: units of each recurrent layer, from the bottom to the top.
        hidden (int): units of the sigmoid layer behind them; 0 leaves it out.
        batch_norm (bool): batch normalisation where the original has it.
        dropout: ratios (on the input, between layers, on the outputs).
        recurrent_dropout (float): ratio on the way from step to step.
    """

    def __init__(self, n_in, n_classes, cell='lstm', cells=(1024,), hidden=1024,
                 batch_norm=True, dropout=(0.5, 0.5, 0.5), recurrent_dropout=0.0):
        super().__init__(n_in)
        self.shape = dict(n_in=n_in, n_classes=n_classes, cell=cell, cells=list(cells),
                          hidden=hidden, batch_norm=batch_norm, dropout=list(dropout),
                          recurrent_dropout=recurrent_dropout)
        self.cell = cell
        self.drop_in, self.drop_between, self.drop_out = dropout
        with self.init_scope():
            width = n_in
            if cell in ('lstm', 'gru'):
                kind = LSTM if cell == 'lstm' else GRU
                self.recurrent = chainer.ChainList()
                for units in cells:
                    self.recurrent.append(
                        kind(width, units, recurrent_dropout=recurrent_dropout))
                    width = units
                if batch_norm:
                    self.norm1 = L.BatchNormalization(width)
                if hidden:
                    self.fc = L.Linear(width, hidden)
                    width = hidden
                    if batch_norm:
                        self.norm2 = L.BatchNormalization(width)
            self.out = L.Linear(width, n_classes)
        self.reset_state()

    def reset_state(self):
        """Begins a new sequence."""
        self._sum, self._steps = None, 0
        if self.cell in ('lstm', 'gru'):
            for layer in self.recurrent:
                layer.reset_state()

    def __call__(self, xs):
        """Runs the next T steps; a gradient stays within one call.

        Args:
            xs: (T, B, D) float32 array of raw features.

        Returns:
            Variable (T, B, C), the scores of every step before the softmax.
        """
        return F.reshape(self.rows(xs), (*xs.shape[:2], -1))

    def rows(self, xs, mask=None):
        """As a call, but returns (R, C): a row for each real step, step 0 of all clips first.

        Args:
            xs: (T, B, D) float32 array of raw features.
            mask: None, or (T, B) bool NumPy array, False where a step is padding. Padding
                stands at the end of its sequence.
        """
        steps, batch, _ = xs.shape
        h = self.normalise(xs)
        if self.cell == 'mean':
            h = self._running_mean(h)
        if self.drop_in and chainer.config.train:
            h = F.dropout(h, self.drop_in).array
        if self.cell in ('lstm', 'gru'):
            for k, layer in enumerate(self.recurrent):
                if k and self.drop_between:
                    h = F.dropout(h, self.drop_between)
                # No mask is needed here: no real step comes after padding.
                h = layer(h)
        # From here on every step is treated alike: one row each.
        h = F.reshape(h, (steps * batch, -1))
        if mask is not None:
            # Batch normalisation must not count padding, so it goes before the head.
            real = mask.ravel()
            order = numpy.concatenate([numpy.flatnonzero(real), numpy.flatnonzero(~real)])
            h = F.permutate(h, self.xp.asarray(order.astype(numpy.int32)))[:int(real.sum())]
        if self.cell in ('lstm', 'gru'):
            h = self._head(h)
        return self.out(h)

    def _head(self, h):
        h = F.dropout(h, self.drop_out) if self.drop_out else h
        if self.shape['batch_norm']:
            h = self.norm1(h)
        if self.shape['hidden']:
            h = F.sigmoid(self.fc(h))
            h = F.dropout(h, self.drop_out) if self.drop_out else h
            if self.shape['batch_norm']:
                h = self.norm2(h)
        return h

    def _running_mean(self, h):
        total = self.xp.cumsum(h, axis=0)
        if self._sum is not None:
            total += self._sum
        counts = self.xp.arange(self._steps + 1, self._steps + 1 + len(h), dtype=h.dtype)
        self._sum, self._steps = total[-1], self._steps + len(h)
        return total / counts[:, None, None]


def load_rnn(path, made_by=MADE_BY):
    """Returns (RNNNet or PoolingNet, card) from RNN.model."""
    pools = read_card(path, made_by).get('kind') == 'pooling'
    return load_network(PoolingNet if pools else RNNNet, path, made_by)
