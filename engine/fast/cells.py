"""The arithmetic of an LSTM's cell, forward and backward, in NumPy and for a GPU.

All arrays are feature-major: (H, B), the gates (4H, B) in the order i, f, o, g.
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


def cell_gpu(z, gates, c_previous, c, tanh_c, h, h_row):
    """As cell, and adds z (4H, B) to the gates before, writes h transposed after.

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


def cell_backward_gpu(gates, c_previous, tanh_c, gh, gc, g_gates):
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
