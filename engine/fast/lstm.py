"""Recurrent layers that work on a whole window of steps at once.

`LSTM` and `GRU` compute the same numbers as Chainer's own step-by-step links; how `LSTM` does it
faster stands in engine/fast/lstm_window.py.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
from chainer import initializers

from engine.fast.lstm_window import lstm_window

__all__ = ['GRU', 'LSTM', 'copy_gru', 'copy_lstm', 'lstm_window']


class _LSTMLayer(chainer.Link):
    """Weights of one LSTM layer, as `lstm_window` wants them."""

    def __init__(self, n_in, n_units):
        super().__init__()
        with self.init_scope():
            normal = initializers.LeCunNormal()
            self.w_x = chainer.Parameter(normal, (4 * n_units, n_in))
            self.w_h = chainer.Parameter(normal, (4 * n_units, n_units))
            self.b = chainer.Parameter(0, 4 * n_units)
        self.b.array[n_units:2 * n_units] = 1  # remember at first

    def forward(self, x, state, mask, recurrent_mask):
        h, c = lstm_window(x, self.w_x, self.w_h, self.b, *state, mask, recurrent_mask)
        return h, (h.array[-1], c.array)


class _GRULayer(chainer.Link):
    """Weights of one GRU layer; rows in the order r, z, candidate."""

    def __init__(self, n_in, n_units):
        super().__init__()
        with self.init_scope():
            normal = initializers.LeCunNormal()
            self.w_x = chainer.Parameter(normal, (3 * n_units, n_in))
            self.w_h = chainer.Parameter(normal, (3 * n_units, n_units))
            self.b = chainer.Parameter(0, 3 * n_units)

    def forward(self, x, state, mask, recurrent_mask):
        n = self.w_h.shape[1]
        h = chainer.as_variable(state[0])
        z = F.linear(x, self.w_x, self.b, n_batch_axes=2)
        w_rz, w_candidate = F.split_axis(self.w_h, [2 * n], axis=0)
        outputs = []
        for t in range(len(x)):
            dropped = h if recurrent_mask is None else h * recurrent_mask
            z_rz, z_candidate = F.split_axis(z[t], [2 * n], axis=1)
            r, update = F.split_axis(
                F.sigmoid(z_rz + F.linear(dropped, w_rz)), 2, axis=1)
            candidate = F.tanh(z_candidate + F.linear(r * dropped, w_candidate))
            new = F.linear_interpolate(update, candidate, h)
            if mask is not None:
                new = F.where(self.xp.broadcast_to(mask[t][:, None], h.shape), new, h)
            h = new
            outputs.append(h)
        return F.stack(outputs), (h.array,)


class _Stack(chainer.Chain):
    """Layers of one kind on top of one another, with the state between windows."""

    layer_class = None
    n_states = None  # arrays (B, H) that a layer hands from step to step

    def __init__(self, n_in, n_units, layers=1, dropout=0.0, recurrent_dropout=0.0):
        super().__init__()
        self.n_units = n_units
        self.layers = layers
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        with self.init_scope():
            for k in range(layers):
                setattr(self, f'layer{k}', self.layer_class(n_units if k else n_in, n_units))
        self.reset_state()

    def reset_state(self):
        """Forgets the state, and the masks of the recurrent dropout: a new sequence."""
        self.state = None
        self._recurrent_masks = {}

    def forward(self, xs, mask=None, need_x_grad=True):
        """Runs T more steps.

        The state goes on from the last call as a constant: a gradient never crosses from
        one call into the one before, so one call is one window of truncated
        back-propagation.

        Args:
            xs: (T, B, D), Variable or array, of the dtype of the weights.
            mask: None, or (T, B) numbers or bools. Where it is 0 the step is padding: the
                state, and so the output, stays as it was.
            need_x_grad: False leaves out the gradient to a Variable xs. A plain array, or
                what dropout makes of one, gets none anyway.

        Returns:
            Variable (T, B, H), the output of the top layer at every step.

        Raises:
            ValueError: xs has no three axes or no step, or its batch is another than that
                of the state (call `reset_state` first).
        """
        if xs.ndim != 3 or len(xs) == 0:
            raise ValueError(f'need xs of shape (steps, batch, features), got {xs.shape}')
        if not need_x_grad and isinstance(xs, chainer.Variable):
            xs = xs.array
        if mask is not None:
            mask = self.device.send(mask) != 0
            if mask.shape != xs.shape[:2]:
                raise ValueError(f'need a mask of shape {xs.shape[:2]}, got {mask.shape}')
        self._begin(xs.shape[1], xs.dtype)
        dropping = chainer.config.train and self.recurrent_dropout
        h = xs
        for k in range(self.layers):
            if k and self.dropout:
                h = F.dropout(h, self.dropout)
            h, self.state[k] = self[f'layer{k}'](
                h, self.state[k], mask, self._recurrent_mask(k, h) if dropping else None)
        return h

    def _begin(self, batch, dtype):
        shape = batch, self.n_units
        if self.state is None:
            self.state = [[self.xp.zeros(shape, dtype)] * self.n_states
                          for _ in range(self.layers)]
        elif self.state[0][0].shape != shape:
            raise ValueError(f'the state is of {len(self.state[0][0])} sequences, xs of '
                             f'{batch}: call reset_state() before a new batch')
        else:
            self.state = [[self.device.send(s) for s in layer] for layer in self.state]

    def _recurrent_mask(self, k, h):
        # One mask for a whole sequence: Gal and Ghahramani, "A theoretically grounded
        # application of dropout in recurrent neural networks", 2016.
        if k not in self._recurrent_masks:
            shape = h.shape[1], self.n_units
            kept = self.xp.random.rand(*shape) >= self.recurrent_dropout
            self._recurrent_masks[k] = kept.astype(h.dtype) / (1 - self.recurrent_dropout)
        return self._recurrent_masks[k]


class LSTM(_Stack):
    """Stacked LSTM layers, a window of steps at a time.

    Args:
        n_in (int): features D of a step of the input.
        n_units (int): units H of every layer.
        layers (int): number of layers.
        dropout (float): ratio dropped between layers (not before the first, nor after the
            last), anew for every step.
        recurrent_dropout (float): ratio of the last step's h dropped on its way into the
            gates, the same units from one `reset_state` to the next.

    Both kinds of dropout draw from the global generator of NumPy (CuPy on a GPU) and are
    off unless ``chainer.config.train``. Weights start as in ``chainer.links.LSTM``:
    LeCunNormal, biases 0, those of the forget gate 1. Call it with (T, B, D), see
    `forward`. The state, one (h, c) of (B, H) arrays a layer, is in `state` (None after
    `reset_state`) and is not saved by serializers.
    """

    layer_class = _LSTMLayer
    n_states = 2


class GRU(_Stack):
    """Stacked GRU layers: arguments, call and state as `LSTM`, with h alone as the state.

    The equations are those of ``chainer.links.StatefulGRU``::

        r, z = sigmoid(w x_t + u h_{t-1} + b)
        h_t = z tanh(w' x_t + u' (r h_{t-1}) + b') + (1 - z) h_{t-1}
    """

    layer_class = _GRULayer
    n_states = 1


def copy_lstm(links, lstm):
    """Copies the weights of Chainer's step-by-step links.

    Args:
        links: sequence of ``chainer.links.LSTM``, from the bottom to the top.
        lstm (LSTM): where they go; sizes must agree.
    """
    def rows(w):  # Chainer keeps a, i, f, o of one unit together
        return w.reshape(-1, 4, *w.shape[1:])[:, [1, 2, 3, 0]].swapaxes(0, 1).reshape(w.shape)
    for k, link in enumerate(links):
        layer = lstm[f'layer{k}']
        layer.w_x.array[...] = rows(link.upward.W.array)
        layer.w_h.array[...] = rows(link.lateral.W.array)
        layer.b.array[...] = rows(link.upward.b.array)


def copy_gru(links, gru):
    """As `copy_lstm`, from ``chainer.links.StatefulGRU`` links."""
    for k, link in enumerate(links):
        layer, xp = gru[f'layer{k}'], link.xp
        layer.w_x.array[...] = xp.concatenate([g.W.array for g in (link.W_r, link.W_z, link.W)])
        layer.w_h.array[...] = xp.concatenate([g.W.array for g in (link.U_r, link.U_z, link.U)])
        layer.b.array[...] = xp.concatenate(
            [w.b.array + u.b.array for w, u in (
                (link.W_r, link.U_r), (link.W_z, link.U_z), (link.W, link.U))])
