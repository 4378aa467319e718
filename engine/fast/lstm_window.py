"""A whole window of an LSTM layer's steps as one function: `lstm_window`.

T steps cost few and large matrix products: the inputs of all steps go through one product, only
the product with the previous state is made step by step, and each weight gradient is one product
for the whole window (Appleyard, Kocisky and Blunsom, "Optimizing performance of recurrent neural
networks on GPUs", 2016). The backward pass is written by hand.

Inside a window everything is held *feature-major*, (features, batch): the blocks of the
gates are then contiguous, and BLAS multiplies a wide weight matrix with a thin state
faster than the other way round.

In float32 on the CPU the steps run in recurrent.c, built by the machine's C compiler on
first use (engine/fast/compiled.py). Without a compiler, in float64, for a very small batch, or
with ``ENGINE_LSTM=numpy`` in the environment they run in NumPy; on a GPU, batch-major, in
engine/fast/lstm_gpu.py.
"""
import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
from chainer import backend

from engine.fast import lstm_gpu, recurrent
from engine.fast.buffers import borrow, give_back
from engine.fast.cells import cell, cell_backward
from engine.fast.compiled import plain
from engine.fast.recurrent import whole_vectors


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
        self.retain_inputs((0, 1, 2))
        self.batch, n = h.shape
        self.compiled = recurrent.library_for(x, n)
        self._take_masks(x, h)
        x, h, c = (whole_vectors(a, a.ndim - 2, self.compiled) for a in (x, h, c))
        steps, batch, n_in = x.shape
        self.x = x
        z = borrow((4 * n, steps * batch), x.dtype)
        self.z = numpy.matmul(w_x, x.reshape(-1, n_in).T, out=z).reshape(4 * n, steps, batch)
        # What the backward pass needs is kept for every step, else for one step only.
        keep = steps if chainer.config.enable_backprop else 1
        self.gates = borrow((keep, 4 * n, batch), x.dtype)
        self.tanh_c = borrow((keep, n, batch), x.dtype)
        self.c = borrow((keep + 1, n, batch), x.dtype)
        self.c[0] = c.T
        self.h = numpy.empty((steps + 1, batch, n), x.dtype)
        self.h[0] = h
        if self.compiled:
            self._compiled_forward(w_h, b)
        else:
            self._forward(w_h, b)
        outputs = self.h[1:, :self.batch], self.c[-1].T[:self.batch].copy()
        if not chainer.config.enable_backprop:
            self._finish()
        return outputs

    def _take_masks(self, x, h):
        for mask, shape in ((self.mask, x.shape[:2]), (self.recurrent_mask, h.shape)):
            if mask is not None and mask.shape != shape:
                raise ValueError(f'need a mask of shape {shape}, got {mask.shape}')
        if self.mask is not None:
            mask = backend.get_array_module(x).ascontiguousarray(self.mask != 0)
            self.mask = whole_vectors(mask, 1, self.compiled)
        if self.recurrent_mask is not None:
            mask = self.recurrent_mask.astype(x.dtype)
            self.recurrent_mask = whole_vectors(mask, 0, self.compiled)

    def _finish(self):
        if self.gates is not None:
            give_back(self.z.reshape(len(self.z), -1), self.gates, self.c, self.tanh_c)
        self.x = self.z = self.gates = self.c = self.tanh_c = self.h = None

    def _forward(self, w_h, b):
        keep, steps = len(self.gates), self.z.shape[1]
        self.z += b[:, None, None]
        h = self.h[0].T.copy()
        for t in range(steps):
            k = t % keep
            gates, c_previous, c = self.gates[k], self.c[k], self.c[k + 1]
            if self.recurrent_mask is not None:
                h *= self.recurrent_mask.T
            numpy.matmul(w_h, h, out=gates)
            gates += self.z[:, t]
            cell(gates, c_previous, c, self.tanh_c[k], h)
            self.h[t + 1] = h.T
            if self.mask is not None:
                numpy.copyto(c, c_previous, where=~self.mask[t])
                numpy.copyto(h, self.h[t].T, where=~self.mask[t])
                self.h[t + 1] = h.T
            if keep < steps:
                self.c[0] = c

    def backward(self, indexes, grad_outputs):
        self._check_backward(self.gates)
        x, w_x, w_h = (v.array for v in self.get_retained_inputs())
        gy, gc = (None if g is None else g.array for g in grad_outputs)
        (n, batch), dtype = self.c.shape[1:], x.dtype
        x = self.x.reshape(-1, x.shape[2])
        gh = numpy.zeros((n, batch), dtype)
        if gc is None:
            gc = numpy.zeros((n, batch), dtype)
        else:
            gc = whole_vectors(gc, 0, self.compiled).T.copy()
        if self.compiled:
            if gy is not None:
                gy = plain(whole_vectors(gy, 1, self.compiled))
            self._compiled_backward(w_h, gy, gh, gc, 4 in indexes)
        else:
            self._backward(w_h, gy, gh, gc)
        gz = self.z.reshape(4 * n, -1)
        h = self.h[:-1]
        if self.recurrent_mask is not None:
            h = h * self.recurrent_mask
        gradients = {
            0: lambda: numpy.matmul(gz.T, w_x).reshape(-1, batch, x.shape[1])[:, :self.batch],
            1: lambda: numpy.matmul(gz, x),
            2: lambda: numpy.matmul(gz, h.reshape(-1, n)),
            3: lambda: gz.sum(axis=1),
            4: lambda: gh.T[:self.batch].copy(),
            5: lambda: gc.T[:self.batch].copy()}
        result = [chainer.Variable(gradients[i]()) for i in indexes]
        self._finish()
        return result

    @staticmethod
    def _check_backward(buffers):
        if chainer.config.enable_backprop:
            raise NotImplementedError(
                'lstm_window has no second derivative: call backward() or grad() '
                'without enable_double_backprop')
        if buffers is None:
            raise RuntimeError(
                'lstm_window can be differentiated once: its buffers were used up')

    def _backward(self, w_h, gy, gh, gc):
        """Makes z the gradient of the pre-activations, gh and gc those of the first state."""
        for t in reversed(range(self.z.shape[1])):
            gz = self.z[:, t]
            if gy is not None:
                gh += gy[t].T
            if self.mask is not None:
                # The gradient is linear in gh and gc: at masked places both pass by.
                zero = gh.dtype.type(0)
                gh_past, gc_past = (numpy.where(self.mask[t], zero, g) for g in (gh, gc))
                numpy.copyto(gh, zero, where=~self.mask[t])
                numpy.copyto(gc, zero, where=~self.mask[t])
            cell_backward(self.gates[t], self.c[t], self.tanh_c[t], gh, gc, gz)
            numpy.matmul(w_h.T, gz, out=gh)
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
            self.recurrent_rows = plain(self.recurrent_mask.T)
            exchange[0] *= self.recurrent_rows
        self._run(self.compiled.forward, w_h, b=plain(b), h=h,
                  exchange=exchange)

    def _compiled_backward(self, w_h, gy, gh, gc, want_gh):
        exchange = numpy.empty((2, *self.gates.shape[1:]), numpy.float32)
        self._run(self.compiled.backward, w_h, gy=gy, gh=gh if want_gh else None, gc=gc,
                  h=numpy.zeros_like(gh), exchange=exchange)
        # In what filled up the batch, nothing times an infinite weight is not nothing.
        self.z[:, :, self.batch:] = 0
        self.h[:, self.batch:] = 0

    def _run(self, call, w_h, **arrays):
        steps = self.z.shape[1]
        if self.mask is not None:
            arrays['mask'] = self.mask.astype(numpy.float32)
        if self.recurrent_mask is not None:
            arrays['recurrent_mask'] = self.recurrent_rows
        recurrent.run(call, self.gates[0].size if len(self.gates) == steps else 0,
                      w_h=plain(w_h), z=self.z, gates=self.gates, c=self.c,
                      tanh_c=self.tanh_c, hs=self.h, **arrays)


class _GPUWindow(_LSTMWindow):
    """The same on a GPU, (batch, features) as the arrays come."""

    def forward(self, inputs):
        x, w_x, w_h, b, h, c = inputs
        xp = backend.get_array_module(x)
        self.retain_inputs((0, 1, 2))
        self.compiled = None
        self._take_masks(x, h)
        steps, batch, n_in = x.shape
        w_h = xp.ascontiguousarray(w_h)
        self.run = lstm_gpu.borrow(xp, w_h, steps, batch, chainer.config.enable_backprop)
        self.run.begin(h, c, self.mask, self.recurrent_mask)
        xp.matmul(x.reshape(-1, n_in), w_x.T, out=self.run.z.reshape(-1, len(b)))
        self.run.z += b
        self.run.run('forward')
        outputs = self.run.h[1:].copy(), self.run.c[-1].copy()
        if not chainer.config.enable_backprop:
            self._finish()
        return outputs

    def _finish(self):
        if self.run is not None:
            self.run.give_back()
        self.run = None

    def backward(self, indexes, grad_outputs):
        self._check_backward(self.run)
        x, w_x, w_h = (v.array for v in self.get_retained_inputs())
        xp = backend.get_array_module(x)
        run, n = self.run, w_h.shape[1]
        run.begin_backward(*(None if g is None else g.array for g in grad_outputs))
        run.run('backward')
        gz = run.z.reshape(-1, 4 * n)
        h = run.h[:-1] if self.recurrent_mask is None else run.h[:-1] * run.kept
        gradients = {
            0: lambda: xp.matmul(gz, w_x).reshape(x.shape),
            1: lambda: xp.matmul(gz.T, x.reshape(len(gz), -1)),
            2: lambda: xp.matmul(gz.T, h.reshape(-1, n)),
            3: lambda: gz.sum(axis=0),
            4: run.gradient_of_h,
            5: run.gc.copy}
        result = [chainer.Variable(gradients[i]()) for i in indexes]
        self._finish()
        return result


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
        mask: None, or an array (T, B) of bools or numbers. Where it is False or 0 the state
            stays as it was, and the input must still be a finite number.
        recurrent_mask: None, or an array (B, H) that multiplies every h_{t-1} on its way
            into the gates.

    Returns:
        h of all steps (T, B, H), and the last c (B, H). All but the two masks can be
        differentiated, once.
    """
    on_cpu = backend.get_array_module(x) is numpy
    return (_LSTMWindow if on_cpu else _GPUWindow)(mask, recurrent_mask).apply(
        (x, w_x, w_h, b, h, c))
