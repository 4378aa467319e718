"""engine/fast/conv_gpu.py without a GPU: NumPy in CuPy's place, stand-ins for cuDNN and streams."""
import types

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from VGGNet_1024 import VGGNet_1024
from engine.errors import UserError
from engine.fast import conv_gpu, upload
from engine.video.preprocessing import preprocess
from convStacks import error, float64_stack, make_layers

MEAN = numpy.array([103.939, 116.779, 123.68], 'f')


# ---- the products, in float32 ---------------------------------------------------------------

@pytest.mark.parametrize('size', [(32, 32), (37, 51), (5, 2), (1, 1), (4, 65)])
@pytest.mark.parametrize('relu', [True, False])
def test_products_agree_with_float64(size, relu, monkeypatch):
    monkeypatch.setattr(conv_gpu, 'BLOCK_FLOATS', 40000)  # several blocks
    layers = make_layers([8, '20', 40, '33', 65])
    x = numpy.random.default_rng(1).normal(0, 50, (3, *size, 3)).astype('f')
    y = conv_gpu.GPUStack(layers, relu=relu, xp=numpy)(x)
    assert y.flags.c_contiguous
    assert error(y, float64_stack(x, layers, relu)) < 1e-5


# ---- cuDNN, in float16 ----------------------------------------------------------------------

class Tensor(types.SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class FakeGraph:
    """A graph of cudnn-frontend that computes from the memory its tensors describe."""

    def __init__(self, handle=None, **types_):
        assert handle == 'handle' and types_['io_data_type'] == 'half'
        self.calls = []

    def tensor(self, name, dim, stride, data_type):
        assert data_type == 'half'
        return Tensor(name=name, dim=dim, stride=stride)

    def conv_fprop(self, image, weight, padding, stride, dilation):
        assert (padding, stride, dilation) == ([1, 1], [1, 1], [1, 1])
        self.conv = image, weight
        return 'convolution'

    def bias(self, input, bias):
        assert input == 'convolution'
        self.added, self.cut = bias, False
        self.out = FakeOutput()
        return self.out

    def relu(self, input):
        assert input is self.out
        self.cut = True
        return self.out

    def create_execution_plans(self, modes):
        assert modes == ['A', 'FALLBACK']

    def _step(self):
        self.calls.append('step')
    validate = build_operation_graph = check_support = build_plans = _step

    def get_workspace_size(self):
        return 16

    def execute(self, arrays, workspace, handle):
        assert len(self.calls) == 4 and workspace.nbytes >= 16 and handle == 'handle'
        arrays = {id(tensor): array for tensor, array in arrays.items()}

        def seen(tensor):  # (n, c, h, w) in single precision
            array = arrays[id(tensor)]
            assert array.dtype == numpy.float16 and array.flags.c_contiguous
            assert array.size == numpy.prod(tensor.dim)
            return numpy.lib.stride_tricks.as_strided(
                array.reshape(-1), tensor.dim, [2 * s for s in tensor.stride]).astype('f')
        x, w = map(seen, self.conv)
        with chainer.using_config('dtype', numpy.float32):
            y = chainer.functions.convolution_2d(x, w, seen(self.added).ravel(), pad=1).array
        y = numpy.maximum(y, 0) if self.cut else y
        arrays[id(self.out)][...] = y.transpose(0, 2, 3, 1)


class FakeOutput(Tensor):
    def set_output(self, yes):
        assert yes
        return self

    def set_data_type(self, dtype):
        assert dtype == 'half'
        return self


@pytest.fixture
def cudnn():
    made = []

    def pygraph(**how):
        made.append(FakeGraph(**how))
        return made[-1]
    return types.SimpleNamespace(
        pygraph=pygraph, made=made, create_handle=lambda: 'handle',
        set_stream=lambda handle, stream: None,
        data_type=types.SimpleNamespace(HALF='half', FLOAT='single'),
        heur_mode=types.SimpleNamespace(A='A', FALLBACK='FALLBACK'))


@pytest.mark.parametrize('relu', [True, False])
@pytest.mark.parametrize('size', [(32, 32), (13, 10)])
def test_halves_agree_with_float64(size, relu, cudnn, monkeypatch):
    monkeypatch.setattr(conv_gpu, 'GROUP_BYTES', 60000)  # groups of frames
    layers = make_layers([8, '20', 40, '33'])
    frames = numpy.random.default_rng(1).integers(0, 256, (5, *size, 3)).astype('u1')
    y = conv_gpu.GPUStack(layers, relu, MEAN, numpy, cudnn)(frames)
    assert error(y, float64_stack(frames - MEAN, layers, relu)) < 3e-3


def test_large_numbers_fit_into_halves(cudnn):
    """Caffe's VGG on 0-255 gives more than a half holds in the middle of the network."""
    layers = make_layers(['16', '16'])
    layers[0] = (layers[0][0] * 600, layers[0][1], True)
    layers[1] = (layers[1][0] / 600, layers[1][1], True)
    x = numpy.random.default_rng(2).normal(0, 100, (2, 16, 16, 3)).astype('f')
    middle, expected = float64_stack(x, layers[:1]), float64_stack(x, layers)
    assert middle.max() > numpy.finfo('e').max
    assert error(conv_gpu.GPUStack(layers, xp=numpy, cudnn=cudnn)(x), expected) < 3e-3


def test_a_weight_beyond_halves_is_refused(cudnn):
    w = numpy.full((1, 1, 3, 3), 1e6, 'f')
    with pytest.raises(conv_gpu.HalfError), numpy.errstate(over='ignore'):
        conv_gpu.GPUStack([(w, None, False)], xp=numpy, cudnn=cudnn)


def test_clips_of_any_length_need_few_plans(cudnn):
    layers = make_layers([8, '8'])
    stack = conv_gpu.GPUStack(layers, xp=numpy, cudnn=cudnn)
    x = numpy.random.default_rng(3).normal(0, 50, (16, 8, 8, 3)).astype('f')
    whole = stack(x)
    for n in range(16):
        assert numpy.array_equal(stack(x[:n]), whole[:n])
    assert len(cudnn.made) <= 4 * len(layers)


def test_linear_in_halves():
    random = numpy.random.default_rng(4)
    w, b = random.normal(0, 0.02, (40, 300)).astype('f'), random.normal(0, 1, 40).astype('f')
    x = numpy.maximum(random.normal(0, 100, (5, 300)), 0).astype('f')
    y = conv_gpu.HalfLinear(w, b, numpy)(x)
    expected = x.astype('d') @ w.T + b
    assert y.dtype == numpy.float32 and abs(y - expected).max() < 3e-3 * abs(expected).max()


# ---- which way ------------------------------------------------------------------------------

def test_without_cudnn_the_products(monkeypatch):
    def gone(name):
        raise ImportError(f'No module named {name!r}')
    monkeypatch.setattr(conv_gpu.importlib, 'import_module', gone)
    assert "products, float32 (no cuDNN: No module named 'cudnn')" in conv_gpu.make_stack(
        make_layers([8]), numpy).kernel
    monkeypatch.setenv('ENGINE_CONV_GPU', 'cudnn')
    with pytest.raises(UserError, match='not to be had'):
        conv_gpu.find_cudnn()
    monkeypatch.setenv('ENGINE_CONV_GPU', 'fast')
    with pytest.raises(UserError, match='give cudnn or products'):
        conv_gpu.find_cudnn()


def test_a_card_that_cudnn_does_not_serve_gets_the_products(cudnn, monkeypatch):
    def refuse(self, *_):
        raise RuntimeError('NOT_SUPPORTED_ARCH_MISMATCH')
    monkeypatch.setattr(FakeGraph, 'check_support', refuse)
    layers = make_layers([8, '20'])
    x = numpy.random.default_rng(6).normal(0, 50, (2, 8, 8, 3)).astype('f')
    stack = conv_gpu.GPUStack(layers, xp=numpy, cudnn=cudnn)
    with pytest.warns(UserWarning, match='ARCH_MISMATCH'):
        y = stack(x)
    assert error(y, float64_stack(x, layers)) < 1e-5 and 'products' in stack.kernel
    monkeypatch.setenv('ENGINE_CONV_GPU', 'cudnn')
    with pytest.raises(RuntimeError, match='ARCH_MISMATCH'):
        conv_gpu.GPUStack(layers, xp=numpy, cudnn=cudnn)(x)


# ---- the network ----------------------------------------------------------------------------

@pytest.fixture
def on_gpu(monkeypatch, cudnn):
    """A narrow network that takes NumPy for a GPU's module."""
    gpu = types.ModuleType('cupy')
    gpu.__dict__.update(numpy.__dict__, cuda=FakeCuda(), get_default_memory_pool=lambda: (
        types.SimpleNamespace(free_all_blocks=lambda: None)))
    monkeypatch.setattr(VGGNet_1024, 'xp', gpu)
    pool, halves = conv_gpu.pooled, conv_gpu.halves
    monkeypatch.setattr(conv_gpu, 'pooled', lambda xp, x, out: pool(numpy, x, out))
    monkeypatch.setattr(conv_gpu, 'halves', lambda xp, *how: halves(numpy, *how))
    monkeypatch.setattr(conv_gpu, 'find_cudnn', lambda: (cudnn, 'stand-in'))
    monkeypatch.setattr(conv_gpu, '_stream', lambda xp: 0)
    numpy.random.seed(0)
    return VGGNet_1024((8, 8, 16, 16, 16), 32, 5, 32, 12)


def test_network_on_a_gpu_gives_the_same(on_gpu, cudnn):
    model = on_gpu
    frames = numpy.random.default_rng(7).integers(0, 256, (4, 32, 32, 3)).astype('u1')
    feature, softmax = model.feature_and_prediction(frames)
    assert len(cudnn.made) == 13  # it went that way
    model.fast = False
    expected, softmax_expected = model.feature_and_prediction(preprocess(frames, model.mean))
    assert 0 < abs(feature - expected).max() < 5e-3 * abs(expected).max()
    numpy.testing.assert_allclose(softmax, softmax_expected, rtol=0, atol=1e-2)


def test_halves_follow_layers_that_learn(on_gpu, cudnn):
    model = on_gpu
    x = numpy.random.default_rng(8).normal(0, 50, (2, 3, 32, 32)).astype('f')
    model.trained = ('conv5_3', 'fc6', 'fc7', 'fc8')
    with chainer.no_backprop_mode():
        before = model.bottom(x).array
        model.fc6.W.array *= 2
        model.fc6.b.array *= 2
        numpy.testing.assert_allclose(model.bottom(x).array, 2 * before, rtol=2e-3)


# ---- the way to the card --------------------------------------------------------------------

class FakeCuda:
    """Streams that keep their work until somebody must wait for it: the latest moment allowed."""

    def __init__(self):
        fake = self
        fake.current = None

        class Event:
            work = None  # (stream, how much of its work lies before this)

            def record(self, stream):
                self.work = stream, stream.given

            def synchronize(self):
                if self.work:
                    self.work[0].run(self.work[1])

        class Stream:
            def __init__(self, non_blocking=True):
                self.waiting, self.given, self.done = [], 0, 0

            def enqueue(self, job):
                self.waiting.append(job)
                self.given += 1

            def wait_event(self, event):
                # As CUDA does: waits for what was recorded when this was called.
                work = event.work
                self.enqueue(lambda: work and work[0].run(work[1]))

            def run(self, until):
                while self.done < until:
                    self.done += 1
                    self.waiting.pop(0)()

            def synchronize(self):
                self.run(self.given)
        self.Event, self.Stream = Event, Stream
        fake.current = Stream()

    def get_current_stream(self):
        return self.current

    def alloc_pinned_memory(self, size):
        return bytearray(size)


class FakeArray(numpy.ndarray):
    def set(self, host, stream):
        stream.enqueue(lambda: numpy.copyto(self.view(numpy.ndarray), host))


def test_frames_arrive_whole_however_late_the_copies_are():
    """What is computed of each batch sees that batch, though all runs as late as it may."""
    fake = FakeCuda()
    xp = types.SimpleNamespace(
        cuda=fake, empty=lambda n, dtype: numpy.empty(n, dtype).view(FakeArray))
    device = types.SimpleNamespace(xp=xp)
    random = numpy.random.default_rng(5)
    batches = [random.integers(0, 256, (n, 4, 4, 3)).astype('u1')
               for n in (2, 2, 2, 2, 2, 2, 1, 5, 2, 2)]
    seen = []

    def decoded():
        for batch in batches:
            copy = batch.copy()
            yield copy
            copy[...] = 0  # the decoder may use its memory again
    with upload.sending(device) as send:
        for batch in decoded():
            frames = send(batch)
            fake.current.enqueue(lambda frames=frames: seen.append(numpy.array(frames)))
    fake.current.synchronize()
    assert len(seen) == len(batches)
    for ours, batch in zip(seen, batches):
        assert numpy.array_equal(ours, batch)


def test_memory_that_earlier_work_still_reads_is_not_written():
    fake, seen = FakeCuda(), []
    memory = numpy.full(8, 7, 'u1').view(FakeArray)
    xp = types.SimpleNamespace(cuda=fake, empty=lambda n, dtype: memory[:n])
    fake.current.enqueue(lambda: seen.append(memory.tolist()))
    with upload.sending(types.SimpleNamespace(xp=xp)) as send:
        send(numpy.zeros(8, 'u1'))
    fake.current.synchronize()
    assert seen == [[7] * 8] and not memory.any()


def test_on_the_cpu_batches_stay_what_they_are():
    batch = numpy.zeros((2, 4, 4, 3), 'u1')
    with upload.sending(chainer.get_device('@numpy')) as send:
        assert send(batch) is batch
