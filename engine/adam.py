"""Chainer's Adam with fewer trips to memory."""
import concurrent.futures

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
from chainer.optimizers.adam import AdamRule

from engine.compiled import threads

BLOCK = 1 << 15   # elements whose parameter, gradient and moments stay in the cache
LEAST = 1 << 18   # elements of a thread


class _BlockwiseRule(AdamRule):

    def update_core_cpu(self, param):
        hp, grad = self.hyperparam, param.grad
        if (grad is None or hp.amsgrad or hp.adabound
                or param.dtype not in (numpy.float32, numpy.float64)
                or not all(a.flags.c_contiguous for a in (grad, param.array))):
            super().update_core_cpu(param)
            return
        arrays = [a.reshape(-1) for a in (
            param.array, grad.astype(param.dtype, copy=False), self.state['m'], self.state['v'])]
        parts = max(1, min(threads(), param.size // LEAST))
        cuts = [param.size * k // parts for k in range(parts + 1)]
        pieces = [[a[start:end] for a in arrays] for start, end in zip(cuts, cuts[1:])]
        if parts == 1:
            self._update(*pieces[0])
            return
        with concurrent.futures.ThreadPoolExecutor(parts) as pool:
            for done in [pool.submit(self._update, *piece) for piece in pieces]:
                done.result()

    def _update(self, *arrays):
        hp, alpha_t = self.hyperparam, self.alpha_t
        decay = 1 - hp.eta * hp.weight_decay_rate
        spare = numpy.empty(BLOCK, arrays[0].dtype)
        for start in range(0, len(arrays[0]), BLOCK):
            x, g, m, v = (a[start:start + BLOCK] for a in arrays)
            s = spare[:len(x)]
            numpy.subtract(g, m, out=s)    # m += (1 - beta1) (g - m)
            s *= 1 - hp.beta1
            m += s
            numpy.multiply(g, g, out=s)    # v += (1 - beta2) (g g - v)
            s -= v
            s *= 1 - hp.beta2
            v += s
            numpy.sqrt(v, out=s)           # x = decay x - eta alpha_t m / (sqrt(v) + eps)
            s += hp.eps
            numpy.divide(alpha_t, s, out=s)
            s *= m
            s *= -hp.eta
            if decay != 1:
                x *= decay
            x += s


class Adam(chainer.optimizers.Adam):
    """``chainer.optimizers.Adam``: the same arguments, state files and, bit for bit, numbers.

    On the CPU it goes through each parameter in blocks that stay in the cache, on all cores.
    With AMSGrad or AdaBound, in float16 and on a GPU it is Chainer's own.
    """

    def create_update_rule(self):
        return _BlockwiseRule(self.hyperparam)
