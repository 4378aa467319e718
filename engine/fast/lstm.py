"""Recurrent layers that work on a whole window of steps at once.

`LSTM` and `GRU` compute the same numbers as Chainer's own step-by-step links. In `LSTM`
a window of T steps costs few and large matrix products: the inputs of all steps go
through one product, only the product with the previous state is made step by step, and
each weight gradient is one product for the whole window (Appleyard, Kocisky and
Blunsom, "Optimizing performance of recurrent neural networks on GPUs", 2016). Its
backward pass is written by hand.

Inside a window everything is held *feature-major*, (features, batch): the blocks of the
gates are then contiguous, and BLAS multiplies a wide weight matrix with a thin state
faster than the other way round.

In float32 on the CPU the steps run in recurrent.c, built by the machine's C compiler on
first use (see `engine.fast.compiled`). Without a compiler, in float64, for a very small batch, or
with ``ENGINE_LSTM=numpy`` in the environment they run in NumPy; on a GPU in CuPy, which
shares all code with NumPy but the gate arithmetic.
"""
import ctypes
import os
import threading

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
from chainer import backend
from chainer import initializers
from chainer.backends import cuda

from engine import usable_cores
from engine.fast import compiled
from engine.fast.buffers import borrow, give_back

__all__ = ['GRU', 'LSTM', 'copy_gru', 'copy_lstm', 'lstm_window']


def _sigmoid_in_place(x):
    # By tanh: one vectorised function, and nothing overflows.
    x *= 0.5
    numpy.tanh(x, out=x)
    x *= 0.5
    x += 0.5


def _blocks(gates):
    n = len(gates) // 4
    return [gates[k * n:(k + 1) * n] for k in range(4)]


def _cell(gates, c_previous, c, tanh_c, h):
    """gates (4H, B): pre-activations i, f, o, g become activations; writes c, tanh_c, h."""
    i, f, o, g = _blocks(gates)
    _sigmoid_in_place(gates[:3 * len(c)])
    numpy.tanh(g, out=g)
    numpy.multiply(i, g, out=tanh_c)
    numpy.multiply(f, c_previous, out=c)
    c += tanh_c
    numpy.tanh(c, out=tanh_c)
    numpy.multiply(o, tanh_c, out=h)


def _cell_gpu(z, gates, c_previous, c, tanh_c, h, h_row):
    """As _cell, and adds z (4H, B) to the gates before, writes h transposed after.

    One kernel a step: starting kernels, not computing, is what a step costs on a GPU.
    """
    # i_, as CuPy has an i of its own.
    cuda.elementwise(
        'T z_i, T z_f, T z_o, T z_g, T c_previous',
        'T i_, T f, T o, T g, T c, T tanh_c, T h, T h_row',
        '''const T half = 0.5;
           i_ = tanh((i_ + z_i) * half) * half + half;
           f = tanh((f + z_f) * half) * half + half;
           o = tanh((o + z_o) * half) * half + half;
           g = tanh(g + z_g);
           c = f * c_previous + i_ * g;
           tanh_c = tanh(c);
           h = o * tanh_c;
           h_row = h;''',
        'lstm_window_forward')(
            *_blocks(z), c_previous, *_blocks(gates), c, tanh_c, h, h_row.T)


def _cell_backward(gates, c_previous, tanh_c, gh, gc, g_gates):
    """From the gradients gh of h and gc of c writes g_gates, that of the pre-activations.

    gc becomes the gradient of c_previous. gates, tanh_c and gh are used up.
    """
    i, f, o, g = _blocks(gates)
    gi, gf, go, gg = _blocks(g_gates)
    gh *= o
    gc += gh
    numpy.multiply(gh, tanh_c, out=gh)
    tanh_c *= gh
    gc -= tanh_c                        # gc + gh o (1 - tanh_c^2)
    numpy.subtract(1, o, out=o)
    numpy.multiply(gh, o, out=go)       # gh tanh_c o (1 - o)
    numpy.multiply(gc, i, out=tanh_c)
    numpy.multiply(tanh_c, g, out=gh)
    g *= gh
    numpy.subtract(tanh_c, g, out=gg)   # gc i (1 - g^2)
    numpy.subtract(1, i, out=i)
    numpy.multiply(gh, i, out=gi)       # gc g i (1 - i)
    gc *= f
    numpy.multiply(gc, c_previous, out=gh)
    numpy.subtract(1, f, out=f)
    numpy.multiply(gh, f, out=gf)       # gc c_previous f (1 - f)


def _cell_backward_gpu(gates, c_previous, tanh_c, gh, gc, g_gates):
    cuda.elementwise(
        'T i_, T f, T o, T g, T c_previous, T tanh_c, T gh',
        'T gc, T gi, T gf, T go, T gg',
        '''const T one = 1;
           const T total = gc + gh * o * (one - tanh_c * tanh_c);
           gi = total * g * i_ * (one - i_);
           gf = total * c_previous * f * (one - f);
           go = gh * tanh_c * o * (one - o);
           gg = total * i_ * (one - g * g);
           gc = total * f;''',
        'lstm_window_backward')(
            *_blocks(gates), c_previous, tanh_c, gh, gc, *_blocks(g_gates))


# ---- the compiled steps ---------------------------------------------------------------------

LEAST_UNITS = 64  # of a thread: with fewer the threads wait for one another


class _Window(ctypes.Structure):
    # struct window of recurrent.c
    arrays = ('w_h', 'packed', 'b', 'z', 'gates', 'c', 'tanh_c', 'hs', 'h', 'exchange',
              'gy', 'gh', 'gc', 'mask', 'recurrent_mask')
    _fields_ = ([(name, ctypes.c_int64) for name in ('steps', 'batch', 'units', 'stride')]
                + [(name, ctypes.c_void_p) for name in arrays] + [('met', ctypes.c_long)])


def _library(x, n_units):
    """The compiled steps where there are any that serve this input, or None."""
    wish = os.environ.get('ENGINE_LSTM', '')
    if wish not in ('', 'compiled', 'numpy'):
        raise ValueError(f'ENGINE_LSTM is {wish!r}: give compiled or numpy')
    if (wish == 'numpy' or not isinstance(x, numpy.ndarray) or x.dtype != numpy.float32
            or n_units % 8):
        return None
    library, reason = compiled.load('recurrent')
    if library is None:
        if wish:
            raise RuntimeError(f'the compiled LSTM is not to be had: {reason}')
        return None
    for call in (library.forward, library.backward):
        call.argtypes = [ctypes.POINTER(_Window), ctypes.c_int64, ctypes.c_int64]
        call.restype = None
    # A batch is filled up to whole vectors: not worth while for less than half of one.
    return library if wish or 2 * x.shape[1] >= library.lanes() else None


def _whole_vectors(array, axis, library):
    """Adds zeros along an axis, the batch, to a multiple of the compiled steps' vectors."""
    rest = -array.shape[axis] % library.lanes() if library else 0
    if rest == 0:
        return array
    return numpy.pad(array, [(0, rest if k == axis else 0) for k in range(array.ndim)])


# ---- one window -----------------------------------------------------------------------------

class _LSTMWindow(chainer.FunctionNode):
    """T steps of one LSTM layer; see `lstm_window`."""

    def __init__(self, mask=None, recurrent_mask=None):
        super().__init__()
        self.mask = mask
        self.recurrent_mask = recurrent_mask

    def check_type_forward(self, in_types):
        x, w_x, w_h, b, h, c = in_types
        chainer.utils.type_check.expect(
            x.dtype.kind == 'f', x.ndim == 3, x.shape[0] > 0,
            w_x.dtype == x.dtype, w_x.ndim == 2, w_x.shape[1] == x.shape[2],
            w_h.dtype == x.dtype, w_h.ndim == 2, w_h.shape[0] == w_x.shape[0],
            w_h.shape[0] == 4 * w_h.shape[1],
            b.dtype == x.dtype, b.ndim == 1, b.shape[0] == w_x.shape[0],
            h.dtype == x.dtype, h.ndim == 2,
            h.shape[0] == x.shape[1], h.shape[1] == w_h.shape[1],
            c.dtype == x.dtype, c.ndim == 2,
            c.shape[0] == x.shape[1], c.shape[1] == w_h.shape[1])

    def forward(self, inputs):
        x, w_x, w_h, b, h, c = inputs
        xp = backend.get_array_module(x)
        self.retain_inputs((0, 1, 2))
        self.batch, n = h.shape
        self.compiled = _library(x, n)
        if self.compiled:
            x, h, c = (_whole_vectors(a, a.ndim - 2, self.compiled) for a in (x, h, c))
            if self.mask is not None:
                self.mask = _whole_vectors(self.mask, 1, self.compiled)
            if self.recurrent_mask is not None:
                self.recurrent_mask = _whole_vectors(self.recurrent_mask, 0, self.compiled)
        steps, batch, n_in = x.shape
        self.x = x
        z = borrow(xp, (4 * n, steps * batch), x.dtype)
        self.z = xp.matmul(w_x, x.reshape(-1, n_in).T, out=z).reshape(4 * n, steps, batch)
        # What the backward pass needs is kept for every step, else for one step only.
        keep = steps if chainer.config.enable_backprop else 1
        self.gates = borrow(xp, (keep, 4 * n, batch), x.dtype)
        self.tanh_c = borrow(xp, (keep, n, batch), x.dtype)
        self.c = borrow(xp, (keep + 1, n, batch), x.dtype)
        self.c[0] = c.T
        self.h = xp.empty((steps + 1, batch, n), x.dtype)
        self.h[0] = h
        if self.compiled:
            self._compiled_forward(w_h, b)
        else:
            self._forward(xp, w_h, b)
        outputs = self.h[1:, :self.batch], self.c[-1].T[:self.batch].copy()
        if not chainer.config.enable_backprop:
            self._finish()
        return outputs

    def _finish(self):
        if self.gates is not None:
            give_back(self.z.reshape(len(self.z), -1), self.gates, self.c, self.tanh_c)
        self.x = self.z = self.gates = self.c = self.tanh_c = self.h = None

    def _forward(self, xp, w_h, b):
        keep, steps = len(self.gates), self.z.shape[1]
        self.z += b[:, None, None]
        h = self.h[0].T.copy()
        for t in range(steps):
            k = t % keep
            gates, c_previous, c = self.gates[k], self.c[k], self.c[k + 1]
            if self.recurrent_mask is not None:
                h *= self.recurrent_mask.T
            xp.matmul(w_h, h, out=gates)
            if xp is numpy:
                gates += self.z[:, t]
                _cell(gates, c_previous, c, self.tanh_c[k], h)
                self.h[t + 1] = h.T
            else:
                _cell_gpu(self.z[:, t], gates, c_previous, c, self.tanh_c[k], h, self.h[t + 1])
            if self.mask is not None:
                xp.copyto(c, c_previous, where=~self.mask[t])
                xp.copyto(h, self.h[t].T, where=~self.mask[t])
                self.h[t + 1] = h.T
            if keep < steps:
                self.c[0] = c

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise NotImplementedError(
                'lstm_window has no second derivative: call backward() or grad() '
                'without enable_double_backprop')
        if self.gates is None:
            raise RuntimeError(
                'lstm_window can be differentiated once: its buffers were used up')
        x, w_x, w_h = (v.array for v in self.get_retained_inputs())
        gy, gc = (None if g is None else g.array for g in grad_outputs)
        xp = backend.get_array_module(x)
        (n, batch), dtype = self.c.shape[1:], x.dtype
        x = self.x.reshape(-1, x.shape[2])
        gh = xp.zeros((n, batch), dtype)
        if gc is None:
            gc = xp.zeros((n, batch), dtype)
        else:
            gc = _whole_vectors(gc, 0, self.compiled).T.copy()
        if self.compiled:
            if gy is not None:
                gy = numpy.ascontiguousarray(_whole_vectors(gy, 1, self.compiled))
            self._compiled_backward(w_h, gy, gh, gc, 4 in indexes)
        else:
            self._backward(xp, w_h, gy, gh, gc)
        gz = self.z.reshape(4 * n, -1)
        h = self.h[:-1]
        if self.recurrent_mask is not None:
            h = h * self.recurrent_mask
        gradients = {
            0: lambda: xp.matmul(gz.T, w_x).reshape(-1, batch, x.shape[1])[:, :self.batch],
            1: lambda: xp.matmul(gz, x),
            2: lambda: xp.matmul(gz, h.reshape(-1, n)),
            3: lambda: gz.sum(axis=1),
            4: lambda: gh.T[:self.batch].copy(),
            5: lambda: gc.T[:self.batch].copy()}
        result = [chainer.Variable(gradients[i]()) for i in indexes]
        self._finish()
        return result

    def _backward(self, xp, w_h, gy, gh, gc):
        """Makes z the gradient of the pre-activations, gh and gc those of the first state."""
        cell_backward = _cell_backward if xp is numpy else _cell_backward_gpu
        for t in reversed(range(self.z.shape[1])):
            gz = self.z[:, t]
            if gy is not None:
                gh += gy[t].T
            if self.mask is not None:
                # The gradient is linear in gh and gc: at masked places both pass by.
                past = (~self.mask[t]).astype(gh.dtype)
                gh_past, gc_past = gh * past, gc * past
                gh -= gh_past
                gc -= gc_past
            cell_backward(self.gates[t], self.c[t], self.tanh_c[t], gh, gc, gz)
            xp.matmul(w_h.T, gz, out=gh)
            if self.recurrent_mask is not None:
                gh *= self.recurrent_mask.T
            if self.mask is not None:
                gh += gh_past
                gc += gc_past

    def _compiled_forward(self, w_h, b):
        h = self.h[0].T.copy()
        if len(self.gates) < self.z.shape[1]:
            self.c = self.c[:1]  # each step's in place of the last one's
        exchange = numpy.empty((2, *h.shape), numpy.float32)
        exchange[0] = h
        if self.recurrent_mask is not None:
            self.recurrent_rows = numpy.ascontiguousarray(self.recurrent_mask.T)
            exchange[0] *= self.recurrent_rows
        self._run('forward', w_h, b=b, h=h, exchange=exchange)

    def _compiled_backward(self, w_h, gy, gh, gc, want_gh):
        exchange = numpy.empty((2, *self.gates.shape[1:]), numpy.float32)
        self._run('backward', w_h, gy=gy, gh=gh if want_gh else None, gc=gc,
                  h=numpy.zeros_like(gh), exchange=exchange)

    def _run(self, name, w_h, **arrays):
        steps, batch = self.z.shape[1:]
        n = w_h.shape[1]
        arrays.update(
            w_h=w_h, packed=numpy.empty(w_h.shape, numpy.float32), z=self.z, gates=self.gates,
            c=self.c, tanh_c=self.tanh_c, hs=self.h)
        if self.mask is not None:
            arrays['mask'] = self.mask.astype(numpy.float32)
        if self.recurrent_mask is not None:
            arrays['recurrent_mask'] = self.recurrent_rows
        window = _Window(
            steps, batch, n, 4 * n * batch if len(self.gates) == steps else 0,
            *(arrays.get(key) if arrays.get(key) is None else arrays[key].ctypes.data
              for key in _Window.arrays))
        call = getattr(self.compiled, name)
        threads = max(1, min(usable_cores(), n // LEAST_UNITS))
        others = [threading.Thread(target=call, args=(ctypes.byref(window), rank, threads))
                  for rank in range(1, threads)]
        for other in others:
            other.start()
        call(ctypes.byref(window), 0, threads)
        for other in others:
            other.join()


def lstm_window(x, w_x, w_h, b, h, c, mask=None, recurrent_mask=None):
    """Runs one LSTM layer over a window of T steps.

        i, f, o = sigmoid(w x_t + u h_{t-1} + b),   g = tanh(w x_t + u h_{t-1} + b)
        c_t = f c_{t-1} + i g,                      h_t = o tanh(c_t)

    The gates lie one after the other in the rows of the weights, in the order i, f, o, g.

    Args:
        x: (T, B, D) float32 or float64, Variable or array, as all that follow.
        w_x, w_h: (4H, D) and (4H, H), weights of the input and of the last state.
        b: (4H,), the biases.
        h, c: (B, H), the state before the first step.
        mask: None, or a bool array (T, B). Where it is False the state stays as it was,
            and the input must still be a finite number.
        recurrent_mask: None, or an array (B, H) that multiplies every h_{t-1} on its way
            into the gates.

    Returns:
        h of all steps (T, B, H), and the last c (B, H). All but the two masks can be
        differentiated, once.
    """
    return _LSTMWindow(mask, recurrent_mask).apply((x, w_x, w_h, b, h, c))


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
