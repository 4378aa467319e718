"""The steps of a window of an LSTM (engine/fast/lstm_window.py) on a GPU.

What a step costs there is starting its kernels, not their work. It is two of them, forward and
back: a product, and one for all else. Those of a whole window are recorded as a CUDA graph,
which one call starts. A graph computes where it was recorded, so the memory of a window's
steps belongs to it, and both serve again.

Arrays are batch-major, (B, H), the gates (B, 4H) in the order i, f, o, g.
"""
import collections
import ctypes
import os
import warnings

import numpy

from engine.fast.cells import cell_backward_gpu, cell_gpu
from engine.fast.cudagraphs import can_record, recorded

MOST_SPARE = 12       # windows whose memory waits to serve again
WORKSPACE = 32 << 20  # bytes that cuBLAS may use of its own; what NVIDIA advises for Hopper
_spare = collections.deque(maxlen=MOST_SPARE)
_products = {}        # by device: _Products, or None where nothing can be recorded


def borrow(xp, w_h, steps, batch, keep):
    """A Steps of this shape, one given back before if there is one.

    Args:
        w_h (4H, H): C-contiguous; float32 or float64.
        keep (bool): whether a backward pass follows.
    """
    device = xp.cuda.Device().id if hasattr(xp, 'cuda') else None
    pointer = getattr(w_h.data, 'ptr', None)
    key = device, pointer, w_h.shape, w_h.dtype, steps, batch, keep
    for made in _spare:
        if made.key == key and pointer is not None:
            _spare.remove(made)
            return made
    return Steps(xp, w_h, steps, batch, keep, key)


class Steps:
    """Memory of a window's steps, and how they run.

    z (T, B, 4H) are the gates' pre-activations of the inputs, biases included, and after
    `run('backward')` the gradients of the whole ones; h (T + 1, B, H) begins with the state before
    the window; c (T + 1, B, H) too, or without `keep` (1, B, H), each step's in place of the last
    one's. gy (T, B, H), gc and gh (B, H) are the gradients given; gc and `gradient_of_h()`
    those of the first state.
    """

    def __init__(self, xp, w_h, steps, batch, keep, key=None):
        self.xp, self.w_h, self.key, self.keep = xp, w_h, key, keep
        n, dtype = w_h.shape[1], w_h.dtype

        def empty(*shape):
            return xp.empty(shape, dtype)
        kept = steps if keep else 1
        self.z = empty(steps, batch, 4 * n)
        self.gates, self.tanh_c = empty(kept, batch, 4 * n), empty(kept, batch, n)
        self.c, self.h = empty(kept + keep, batch, n), empty(steps + 1, batch, n)
        self.dropped = empty(batch, n)              # h on its way into the gates
        self.going = xp.ones((steps, batch, 1), dtype)  # the mask
        self.kept = xp.ones((batch, n), dtype)          # the recurrent mask
        if keep:
            self.gy, self.gh, self.gc, self.past = (
                empty(steps, batch, n), empty(batch, n), empty(batch, n), empty(batch, n))
        self.runs, self.graphs = collections.Counter(), {}

    def begin(self, h, c, mask, recurrent_mask):
        self.h[0], self.c[0] = h, c
        self.going[...] = 1 if mask is None else mask[:, :, None]
        self.kept[...] = 1 if recurrent_mask is None else recurrent_mask
        self.xp.multiply(self.h[0], self.kept, out=self.dropped)

    def begin_backward(self, gy, gc):
        for mine, given in ((self.gy, gy), (self.gc, gc)):
            mine[...] = 0 if given is None else given
        self.gh[...] = self.past[...] = 0

    def gradient_of_h(self):
        return self.gh * self.kept + self.past

    def run(self, name):
        """All steps, 'forward' or 'backward'."""
        way = getattr(self, '_' + name)
        self.runs[name] += 1
        # The first run makes all that the kernels need; what comes again is worth recording.
        if self.runs[name] == 2 and (products := _products_for(self.xp)):
            self.graphs[name] = recorded(self.xp, lambda: way(products.by(self.w_h)))
        graph = self.graphs.get(name)
        if graph is None:
            way(self._product)
        else:
            graph.launch()

    def give_back(self):
        _spare.append(self)

    def _product(self, x, out, transposed):
        self.xp.matmul(x, self.w_h.T if transposed else self.w_h, out=out)

    def _forward(self, product):
        for t in range(len(self.z)):
            k = t if self.keep else 0
            product(self.dropped, self.gates[k], True)
            cell_gpu(self.z[t], self.c[k], self.h[t], self.going[t], self.kept,
                     self.gates[k], self.c[k + self.keep], self.tanh_c[k], self.h[t + 1],
                     self.dropped)

    def _backward(self, product):
        for t in reversed(range(len(self.z))):
            cell_backward_gpu(self.gates[t], self.c[t], self.tanh_c[t], self.gy[t], self.gh,
                              self.going[t], self.kept, self.past, self.gc, self.z[t])
            product(self.z[t], self.gh, False)


# ---- products in a recording ------------------------------------------------------------------

def _products_for(xp):
    """The _Products of the current device, or None."""
    if not can_record(xp):
        return None
    device = xp.cuda.Device().id
    if device not in _products:
        try:
            _products[device] = _Products(xp)
        except Exception as error:
            _products[device] = None
            warnings.warn(f'no CUDA graphs, the LSTM starts each kernel by itself: {error}')
    return _products[device]


class _Products:
    """Matrix products by cuBLAS itself, as CuPy refuses to call it while a graph is recorded."""

    def __init__(self, xp):
        self.xp = xp
        with open('/proc/self/maps') as f:  # CuPy's, which has multiplied before
            path = next((line.split()[-1] for line in f if 'libcublas.so' in line), None)
        if path is None:
            raise RuntimeError('libcublas.so is not there')
        self.library = ctypes.CDLL(path)
        self.handle = ctypes.c_void_p()
        self._call('cublasCreate_v2', ctypes.byref(self.handle))
        self.workspace = xp.empty(WORKSPACE, numpy.uint8)
        if os.environ.get('CUPY_TF32') == '1':  # as CuPy takes it for its own products
            self._call('cublasSetMathMode', self.handle, 3)

    def by(self, w_h):
        """A function as Steps._product, on the stream that is current now."""
        self._call('cublasSetStream_v2', self.handle,
                   ctypes.c_void_p(self.xp.cuda.get_current_stream().ptr))
        # A new stream makes it forget its workspace.
        self._call('cublasSetWorkspace_v2', self.handle,
                   ctypes.c_void_p(self.workspace.data.ptr), ctypes.c_size_t(WORKSPACE))

        def product(x, out, transposed):
            """x (B, k) @ w_h, or w_h.T if transposed, into out: all C-contiguous.

            To cuBLAS, column by column, each of them is its own transpose.
            """
            name, number = (('cublasSgemm_v2', ctypes.c_float) if x.dtype == numpy.float32
                            else ('cublasDgemm_v2', ctypes.c_double))
            (batch, k), m = x.shape, out.shape[1]
            self._call(name, self.handle, int(transposed), 0, m, batch, k,
                       ctypes.byref(number(1)), ctypes.c_void_p(w_h.data.ptr), w_h.shape[1],
                       ctypes.c_void_p(x.data.ptr), k, ctypes.byref(number(0)),
                       ctypes.c_void_p(out.data.ptr), m)
        return product

    def _call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f'{name}: status {status}')
