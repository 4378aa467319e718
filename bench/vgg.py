"""Speed of a VGG-16 on frames: ours, Chainer, PyTorch, OpenVINO, ncnn.

Every contender takes the same frames, bytes as they come from a decoder, to the same features
and softmax: the mean is taken off, then come 13 convolutions, fc6, fc7 and fc8 (VGGNet_1024 with
random weights). They take turns, so that other load on the machine meets all alike; the
table shows medians, in frames a second, and the ratio to ours is the median of the ratios
within a turn. "error" is the largest difference of
a feature from float64, as a part of the largest feature. "products" is what the matrix
products of our convolutions alone would allow at the speed that a large SGEMM reaches here.
ncnn computes convolutions by Winograd, as ours does; PyTorch and OpenVINO directly. It goes
both ways, frame by frame in all threads and a frame a thread: the better one counts.

    python -m bench.vgg
    python -m bench.vgg --batch 1 --turns 9 --only compiled torch openvino
"""
import argparse
import statistics
import time

import bench

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from VGGNet_1024 import VGGNet_1024
from bench.ncnn_vgg import in_ncnn, ncnn
from engine import usable_cores
from engine.arguments import whole
from engine.fast.conv import ConvStack
from engine.video.preprocessing import preprocess

try:
    import torch
except ImportError:
    torch = None
try:
    import openvino
except ImportError:
    openvino = None

MEAN = numpy.array([103.939, 116.779, 123.68], 'f')


def ours(model, frames, compiled):
    stack = ConvStack([(model[name].W.array, model[name].b.array, model.pooled_after(name))
                       for name in model.conv_names], mean=MEAN, compiled=compiled)
    print(stack.kernel)

    def run():
        model.fast = compiled  # else fully connected layers are NumPy's, too
        with chainer.no_backprop_mode():
            feature = model.linear('fc7', F.relu(model.linear('fc6', stack(frames))))
            return feature.array, F.softmax(model.linear('fc8', F.relu(feature))).array
    return run


def stock(model, frames, step):
    """Unchanged Chainer, `step` frames at a time."""
    def run():
        model.fast = False
        x = preprocess(frames, MEAN)
        pairs = [model.feature_and_prediction(x[i:i + step]) for i in range(0, len(x), step)]
        return [numpy.concatenate(arrays) for arrays in zip(*pairs)]
    return run


def torch_module(model):
    """The network as a torch module, (N, 3, S, S) -> feature, softmax."""
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = []
            for name in model.conv_names:
                outs, ins = model[name].W.shape[:2]
                layers += [torch.nn.Conv2d(ins, outs, 3, padding=1), torch.nn.ReLU(inplace=True)]
                copy(layers[-2], model[name])
                if model.pooled_after(name):
                    layers.append(torch.nn.MaxPool2d(2, 2))
            self.convolutions = torch.nn.Sequential(*layers)
            for name in ('fc6', 'fc7', 'fc8'):
                setattr(self, name, torch.nn.Linear(*model[name].W.shape[::-1]))
                copy(getattr(self, name), model[name])

        def forward(self, x):
            h = torch.relu(self.fc6(torch.flatten(self.convolutions(x), 1)))
            feature = self.fc7(h)
            return feature, torch.softmax(self.fc8(torch.relu(feature)), 1)

    def copy(layer, link):
        layer.weight.data = torch.from_numpy(link.W.array)
        layer.bias.data = torch.from_numpy(link.b.array)

    return Network().eval()


def in_torch(model, frames, dtype):
    network = torch_module(model).to(dtype=dtype, memory_format=torch.channels_last)
    given, mean = torch.from_numpy(frames), torch.from_numpy(MEAN)

    def run():
        with torch.inference_mode():
            # Frames have their channels last: in this view they are where torch wants them.
            x = (given - mean).to(dtype).permute(0, 3, 1, 2)
            return [y.float().numpy() for y in network(x)]
    return run


def in_openvino(model, frames, precision):
    converted = openvino.convert_model(
        torch_module(model), example_input=torch.zeros(len(frames), 3, 224, 224),
        input=[(len(frames), 3, 224, 224)])
    prepare = openvino.preprocess.PrePostProcessor(converted)
    prepare.input().tensor().set_element_type(openvino.Type.u8).set_layout(
        openvino.Layout('NHWC'))
    prepare.input().preprocess().convert_element_type(openvino.Type.f32).mean(MEAN.tolist())
    prepare.input().model().set_layout(openvino.Layout('NCHW'))
    converted = prepare.build()
    compiled = openvino.Core().compile_model(converted, 'CPU', {
        'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': usable_cores(),
        'PERFORMANCE_HINT': 'LATENCY'})

    def run():
        result = compiled(frames)
        return [result[0], result[1]]
    return run


def float64_feature(model, x):
    """(N, 3, S, S) -> fc7's output in float64, from nine shifted products a layer."""
    h = x.transpose(0, 2, 3, 1).astype('d')
    for name in model.conv_names:
        w = model[name].W.array.astype('d')
        n, height, width = h.shape[:3]
        around = numpy.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h = numpy.maximum(model[name].b.array + sum(
            around[:, i:i + height, j:j + width] @ w[:, :, i, j].T
            for i in range(3) for j in range(3)), 0)
        if model.pooled_after(name):
            h = h.reshape(n, height // 2, 2, width // 2, 2, -1).max((2, 4))
    h = h.transpose(0, 3, 1, 2).reshape(len(h), -1)
    h = numpy.maximum(h @ model.fc6.W.array.T.astype('d') + model.fc6.b.array, 0)
    return h @ model.fc7.W.array.T.astype('d') + model.fc7.b.array


def products(model, size):
    """Frames a second that SGEMM would allow for the products of F(4x4,3x3) and the top."""
    flops = 0
    for name in model.conv_names:
        outs, ins = model[name].W.shape[:2]
        flops += 2 * 36 * (-(-size // 4)) ** 2 * outs * ins
        size //= 2 if model.pooled_after(name) else 1
    return bench.sgemm_speed() / (
        flops + sum(2 * model[name].W.size for name in ('fc6', 'fc7', 'fc8')))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=whole(1), default=16, help='frames (default: 16)')
    parser.add_argument('--turns', type=whole(1), default=5, help='turns of each (default: 5)')
    parser.add_argument('--only', nargs='+', metavar='WORD',
                        help='contenders whose name holds one of these words')
    args = parser.parse_args()

    numpy.random.seed(0)
    chainer.global_config.train = False
    model = VGGNet_1024()
    frames = numpy.random.randint(0, 256, (args.batch, 224, 224, 3)).astype('u1')
    few = frames[:8]  # a batch's im2col takes 120 MB a frame

    makers = {
        'ours, compiled': lambda: ours(model, frames, True),
        'ours, numpy': lambda: ours(model, frames, False),
        'Chainer': lambda: stock(model, few, len(few)),
        'Chainer, frame by frame': lambda: stock(model, few[:2], 1),
    }
    if torch is not None:
        torch.set_num_threads(usable_cores())
        makers['torch float32'] = lambda: in_torch(model, frames, torch.float32)
        makers['torch bfloat16'] = lambda: in_torch(model, frames, torch.bfloat16)
    if torch is not None and openvino is not None:
        makers['OpenVINO f32'] = lambda: in_openvino(model, frames, 'f32')
        makers['OpenVINO bf16'] = lambda: in_openvino(model, frames, 'bf16')
    if ncnn is not None:
        makers['ncnn, frame by frame'] = lambda: in_ncnn(model, frames, MEAN, False)
        makers['ncnn, a frame a thread'] = lambda: in_ncnn(model, frames, MEAN, True)
    makers = {name: make for name, make in makers.items()
              if not args.only or any(word in name for word in args.only)}

    expected = float64_feature(model, preprocess(frames[:1], MEAN))
    contenders, errors, seconds = {}, {}, {}
    for name, make in makers.items():
        contenders[name] = run = make()
        feature = run()[0]
        errors[name] = abs(feature[:1] - expected).max() / abs(expected).max()
        seconds[name] = []
    limits = []
    for _ in range(args.turns):
        for name, run in contenders.items():
            start = time.perf_counter()
            n = len(run()[0])
            seconds[name].append((time.perf_counter() - start) / n)
        limits.append(products(model, 224))

    first = next(iter(contenders))
    print(f'\nbatch {args.batch}, {usable_cores()} threads, {args.turns} turns')
    print(f'{"":23} {"frames/s":>8} {"best":>7}  {first!r} is   error')
    for name, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds[first], times))
        print(f'{name:23} {1 / statistics.median(times):8.2f} {1 / min(times):7.2f}  '
              f'{ratio:8.2f} times  {errors[name]:10.1e}')
    of_limit = statistics.median(a * limit for a, limit in zip(seconds[first], limits))
    print(f'{"products":23} {statistics.median(limits):8.2f} {max(limits):7.2f}  '
          f'{1 / of_limit:8.2f} of it')


if __name__ == '__main__':
    main()
