"""Chainer's Adam, MomentumSGD and WeightDecay with fewer trips to memory.

On the CPU they go through each parameter in blocks that stay in the cache, on all cores; the
numbers are Chainer's, bit for bit. Arguments and state files are Chainer's, too. With AMSGrad or
AdaBound, in float16 and on a GPU all is Chainer's own. MomentumSGD takes weight decay itself, too,
in place of a last hook (no gradient holds it): most of its time goes into reading parameters and
gradients.
"""
import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
from chainer import optimizer_hooks, optimizers
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.momentum_sgd import MomentumSGDRule

from engine import usable_cores
from engine.fast.threads import in_threads

BLOCK = 1 << 17   # elements at a time: more stay in no cache, fewer cost more in calls
LEAST = 1 << 18   # elements of a thread


def _fits(*arrays):
    return all(isinstance(a, numpy.ndarray) and a.flags.c_contiguous
               and a.dtype == arrays[0].dtype and a.dtype in (numpy.float32, numpy.float64)
               for a in arrays)


def _in_blocks(update, *arrays):
    """update(spare, *blocks) for all blocks of contiguous arrays of one size."""
    size = arrays[0].size
    arrays = [a.reshape(-1) for a in arrays]
    parts = max(1, min(usable_cores(), size // LEAST))
    errors = numpy.geterr()  # a thread begins with its own

    @numpy.errstate(**errors)
    def one(part):
        spare = numpy.empty(BLOCK, arrays[0].dtype)
        end = size * (part + 1) // parts
        for start in range(size * part // parts, end, BLOCK):
            blocks = [a[start:min(start + BLOCK, end)] for a in arrays]
            update(spare[:len(blocks[0])], *blocks)
    in_threads(one, range(parts), parts)


class _AdamRule(AdamRule):

    def update_core_cpu(self, param):
        hp, grad = self.hyperparam, param.grad
        if grad is None or hp.amsgrad or hp.adabound or not _fits(
                param.array, grad, self.state['m'], self.state['v']):
            super().update_core_cpu(param)
            return
        alpha_t, decay = self.alpha_t, 1 - hp.eta * hp.weight_decay_rate

        def update(s, x, g, m, v):
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
        _in_blocks(update, param.array, grad, self.state['m'], self.state['v'])


class Adam(optimizers.Adam):
    """``chainer.optimizers.Adam``."""

    def create_update_rule(self):
        return _AdamRule(self.hyperparam)


class _MomentumSGDRule(MomentumSGDRule):

    def __init__(self, parent_hyperparam, weight_decay):
        super().__init__(parent_hyperparam)
        self.weight_decay = weight_decay

    def update_core(self, param):
        if param.grad is None or not _fits(param.array, param.grad, self.state['v']):
            if self.weight_decay:
                WeightDecay(self.weight_decay)(self, param)
            super().update_core(param)
            return
        lr, momentum, decay = self.hyperparam.lr, self.hyperparam.momentum, self.weight_decay

        def update(s, x, g, v):
            if decay:                      # s = lr (g + decay x)
                numpy.multiply(x, decay, out=s)
                s += g
                s *= lr
            else:
                numpy.multiply(g, lr, out=s)
            v *= momentum
            v -= s
            x += v
        _in_blocks(update, param.array, param.grad, self.state['v'])


class MomentumSGD(optimizers.MomentumSGD):
    """``chainer.optimizers.MomentumSGD``; `weight_decay` as by a WeightDecay behind all hooks."""

    def __init__(self, lr=0.01, momentum=0.9, weight_decay=0.0):
        super().__init__(lr, momentum)
        self.weight_decay = weight_decay

    def create_update_rule(self):
        return _MomentumSGDRule(self.hyperparam, self.weight_decay)


class WeightDecay(optimizer_hooks.WeightDecay):
    """``chainer.optimizer_hooks.WeightDecay``; knows of no loss scale."""

    def __call__(self, rule, param):
        if not _fits(param.array, param.grad):
            super().__call__(rule, param)
            return

        def update(s, x, g):
            numpy.multiply(x, self.rate, out=s)
            g += s
        _in_blocks(update, param.array, param.grad)
