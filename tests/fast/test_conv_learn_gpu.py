"""engine/fast/conv_learn_gpu.py without a GPU: NumPy in CuPy's place, a stand-in for cuDNN."""
import types

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from engine.fast import conv_learn_gpu
from gpuKernels import elementwise, needs_compiler

pytestmark = needs_compiler


class Tensor(types.SimpleNamespace):
    __hash__ = object.__hash__

    def _set(self, **values):
        self.__dict__.update(values)
        return self

    def set_output(self, yes):
        return self

    def set_data_type(self, kind):
        return self._set(kind=kind)

    def set_dim(self, dim):
        return self._set(dim=dim)

    def set_stride(self, stride):
        return self._set(stride=stride)


class Graph:
    """A graph of cudnn-frontend, computed by Chainer from the memory its tensors describe."""

    def __init__(self, **how):
        assert how['io_data_type'] == 'single' and how['handle'] == 'handle'
        self.bias_of = None

    def tensor(self, name, dim, stride, data_type):
        return Tensor(dim=dim, stride=stride)

    def conv_fprop(self, image, weight, padding, stride, dilation):
        self.kind, self.given = 'forward', (image, weight)
        return Tensor()

    def conv_wgrad(self, image, loss, padding, stride, dilation):
        self.kind, self.given, self.result = 'weights', (image, loss), Tensor()
        return self.result

    def conv_dgrad(self, loss, filter, padding, stride, dilation):
        self.kind, self.given, self.result = 'input', (loss, filter), Tensor()
        return self.result

    def bias(self, input, bias):
        self.bias_of = bias
        return input

    def relu(self, input):
        self.result = input
        return input

    def _step(self, *_):
        pass
    validate = build_operation_graph = create_execution_plans = check_support = _step
    build_plans = _step

    def get_workspace_size(self):
        return 0

    def execute(self, arrays, workspace, handle):
        def seen(tensor):
            array = arrays[tensor]
            assert array.dtype == numpy.float32 and array.flags.c_contiguous
            assert array.size == numpy.prod(tensor.dim)
            return numpy.lib.stride_tricks.as_strided(
                array, tensor.dim, [4 * s for s in tensor.stride])
        a, b = map(seen, self.given)
        if self.kind == 'forward':
            made = F.relu(F.convolution_2d(a, b, seen(self.bias_of).ravel(), pad=1)).array
        elif self.kind == 'input':
            made = F.deconvolution_2d(a, b, pad=1).array
        else:
            made = F.convolution_2d(a.swapaxes(0, 1), b.swapaxes(0, 1), pad=1).array.swapaxes(0, 1)
        seen(self.result)[...] = made


@pytest.fixture
def stack(monkeypatch):
    cudnn = types.SimpleNamespace(
        pygraph=Graph, create_handle=lambda: 'handle',
        data_type=types.SimpleNamespace(FLOAT='single'),
        heur_mode=types.SimpleNamespace(A='A', FALLBACK='FALLBACK'))
    monkeypatch.setattr(conv_learn_gpu, 'find_cudnn', lambda: (cudnn, 'stand-in'))
    monkeypatch.setattr(conv_learn_gpu, '_refusals', [])
    monkeypatch.setattr(conv_learn_gpu._CuDNN, 'on_device', {})
    monkeypatch.setattr(conv_learn_gpu, 'cuda', types.SimpleNamespace(elementwise=elementwise))
    return conv_learn_gpu.conv_stack


def chainers(x, layers):
    for W, b, pool in layers:
        x = F.relu(F.convolution_2d(x, W, b, pad=1))
        x = F.max_pooling_2d(x, 2, stride=2) if pool else x
    return x


def noise(*shape, seed=0):
    return numpy.random.default_rng(seed).normal(0, 1, shape).astype('f')


def gradients(function, x, layers, weight):
    x = chainer.Variable(x)
    layers = [(chainer.Variable(W), chainer.Variable(b), pool) for W, b, pool in layers]
    y = function(x, layers)
    F.sum(y * weight).backward()
    return [y.array, x.grad, *(p.grad for W, b, _ in layers for p in (W, b))]


def test_it_computes_what_chainers_layers_do(stack):
    widths = 3, 5, 8, 6
    layers = [(noise(n, m, 3, 3, seed=n), noise(n, seed=m), pool)
              for m, n, pool in zip(widths, widths[1:], (False, True, True))]
    x = noise(2, 3, 8, 12)
    x[0, :, :4, :4] = 0  # equal numbers in a pooling window
    weight = noise(2, 6, 2, 3, seed=9)
    assert conv_learn_gpu.serves(x, layers)
    for ours, theirs in zip(gradients(stack, x, layers, weight),
                            gradients(chainers, x, layers, weight), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * abs(theirs).max())
    assert not conv_learn_gpu._refusals


def test_sizes_that_a_pooling_does_not_halve_are_chainers(stack):
    layers = [(noise(4, 3, 3, 3), noise(4), True)] * 2
    assert not conv_learn_gpu.serves(noise(1, 3, 8, 10), layers)


@pytest.mark.parametrize('kind', ['forward', 'weights', 'input'])
def test_where_cudnn_refuses_a_graph_of_either_way_it_is_chainers(stack, monkeypatch, kind):
    def refuse(self):
        if self.kind == kind:
            raise RuntimeError('NOT_SUPPORTED_ARCH_MISMATCH')
    monkeypatch.setattr(Graph, 'check_support', refuse)
    layers, x = [(noise(4, 3, 3, 3), noise(4), True)], noise(1, 3, 8, 8)
    assert conv_learn_gpu.serves(x, layers)
    with pytest.warns(UserWarning, match='ARCH_MISMATCH'):
        y = stack(x, layers)
    assert numpy.array_equal(y.array, chainers(x, layers).array)
    assert not conv_learn_gpu.serves(x, layers)


def test_a_full_gpu_is_no_refusal(stack, monkeypatch):
    def full(self, *_, **__):
        raise MemoryError
    monkeypatch.setattr(Graph, 'execute', full)
    layers, x = [(noise(4, 3, 3, 3), noise(4), True)], noise(1, 3, 8, 8)
    with pytest.raises(MemoryError):
        stack(x, layers)
    assert conv_learn_gpu.serves(x, layers)


def test_it_can_be_differentiated_once(stack):
    layers, x = [(noise(4, 3, 3, 3), noise(4), True)], noise(1, 3, 8, 8)
    y = F.sum(stack(x, [(chainer.Variable(W), b, pool) for W, b, pool in layers]))
    y.backward(retain_grad=True)
    with pytest.raises(RuntimeError, match='once'):
        y.backward()
