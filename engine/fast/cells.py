"""The arithmetic of an LSTM's cell, forward and backward, in NumPy and for a GPU.

The gates stand in the order i, f, o, g. In NumPy all arrays are feature-major: (H, B), the gates
(4H, B); on a GPU batch-major.
"""
import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
from chainer.backends import cuda


def _sigmoid_in_place(x):
    # By tanh: one vectorised function, and nothing overflows.
    x *= 0.5
    numpy.tanh(x, out=x)
    x *= 0.5
    x += 0.5


def _blocks(gates):
    n = len(gates) // 4
    return [gates[k * n:(k + 1) * n] for k in range(4)]


def cell(gates, c_previous, c, tanh_c, h):
    """gates (4H, B): pre-activations i, f, o, g become activations; writes c, tanh_c, h."""
    i, f, o, g = _blocks(gates)
    _sigmoid_in_place(gates[:3 * len(c)])
    numpy.tanh(g, out=g)
    numpy.multiply(i, g, out=tanh_c)
    numpy.multiply(f, c_previous, out=c)
    c += tanh_c
    numpy.tanh(c, out=tanh_c)
    numpy.multiply(o, tanh_c, out=h)


def cell_gpu(z, c_previous, h_previous, going, kept, gates, c, tanh_c, h, dropped):
    """As cell, adding z (B, 4H) to the gates before, on (B, H); c may be c_previous.

    Where going (B, 1) is 0 the state stays as it was. dropped becomes h times kept (B, H).
    One kernel a step: starting kernels, not computing, is what a step costs on a GPU.
    """
    # i_, as CuPy has an i of its own.
    cuda.elementwise(
        'T z_i, T z_f, T z_o, T z_g, T c_previous, T h_previous, T going, T kept',
        'T i_, T f, T o, T g, T c, T tanh_c, T h, T dropped',
        '''const T half = 0.5;
           i_ = tanh((i_ + z_i) * half) * half + half;
           f = tanh((f + z_f) * half) * half + half;
           o = tanh((o + z_o) * half) * half + half;
           g = tanh(g + z_g);
           const T next = f * c_previous + i_ * g;
           tanh_c = tanh(next);
           c = going != 0 ? next : c_previous;
           h = going != 0 ? o * tanh_c : h_previous;
           dropped = h * kept;''',
        'lstm_window_forward')(
            *_columns(z), c_previous, h_previous, going, kept,
            *_columns(gates), c, tanh_c, h, dropped)


def _columns(gates):
    n = gates.shape[1] // 4
    return [gates[:, k * n:(k + 1) * n] for k in range(4)]


def cell_backward(gates, c_previous, tanh_c, gh, gc, g_gates):
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


def cell_backward_gpu(gates, c_previous, tanh_c, gy, gh, going, kept, past, gc, g_gates):
    """As cell_backward, on (B, H), where the gradient of h is gh times kept + past + gy.

    gh comes from the gates of the step behind, past by it where it is masked; past becomes
    what passes by this step.
    """
    cuda.elementwise(
        'T i_, T f, T o, T g, T c_previous, T tanh_c, T gy, T gh, T going, T kept',
        'T past, T gc, T gi, T gf, T go, T gg',
        '''const T one = 1, zero = 0;
           const T all = gh * kept + past + gy;
           if (going != 0) {
               const T total = gc + all * o * (one - tanh_c * tanh_c);
               gi = total * g * i_ * (one - i_);
               gf = total * c_previous * f * (one - f);
               go = all * tanh_c * o * (one - o);
               gg = total * i_ * (one - g * g);
               gc = total * f;
               past = zero;
           } else {
               gi = gf = go = gg = zero;
               past = all;
           }''',
        'lstm_window_backward')(
            *_columns(gates), c_previous, tanh_c, gy, gh, going, kept,
            past, gc, *_columns(g_gates))
