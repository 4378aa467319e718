"""All that a GPU must show, in one call: right numbers, then speed and memory beside PyTorch.

    python -m bench.gpu [--device 0] [--batch 64]

1. Features and predictions of VGG-16 on the card against float32 on the CPU, for each way that
   engine/fast/conv_gpu.py has; a window of the LSTM against the CPU. A line says "ok" or "WRONG",
   and the exit code is 1 if anything is wrong.
2. Frames a second, bytes to features and softmax: ours, and PyTorch in float16, channels last.
3. Sequences a second of LSTM training: ours, and PyTorch's nn.LSTM, which is cuDNN's.

Memory is the most that each has held, weights included. Without a GPU it says so and ends.
"""
import argparse
import os
import sys

import bench

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from VGGNet_1024 import VGGNet_1024
from bench.lstm import Ours, chainer_epoch, torch, torch_epoch
from bench.vgg import MEAN, torch_module
from engine.fast.optimizers import Adam
from engine.fast.conv_gpu import find_cudnn, sending

# Largest difference as a part of the largest number: float16 keeps 11 bits, 13 layers add up.
TOLERANCE = {'cudnn': 1e-2, 'products': 1e-4, 'LSTM': 1e-4}


class Checks:
    """Prints what agrees, and counts what does not."""

    def __init__(self):
        self.wrong = 0

    def __call__(self, what, ours, expected, tolerance):
        difference = abs(ours - expected).max() / abs(expected).max()
        right = bool(difference < tolerance)  # not a number is wrong, too
        self.wrong += not right
        print(f'{"ok" if right else "WRONG":6} {what:40} {difference:.1e} (below {tolerance:.0e})',
              flush=True)


def memory(cupy):
    """Bytes that CuPy holds, after what nobody uses has gone back."""
    cupy.get_default_memory_pool().free_all_blocks()
    return cupy.get_default_memory_pool().total_bytes()


def check_network(check, device, frames):
    model = VGGNet_1024()
    expected = model.feature_and_prediction(frames)
    ways = ['cudnn'] * (find_cudnn()[0] is not None) + ['products']
    for way in ways:
        os.environ['ENGINE_CONV_GPU'] = way
        try:
            model.forget_copies()
            model.to_device(device)
            ours = model.feature_and_prediction(device.send(frames))
            for name, a, b in zip(('features', 'softmax'), ours, expected):
                check(f'{name}, {way}', chainer.backends.cuda.to_cpu(a), b, TOLERANCE[way])
        finally:
            del os.environ['ENGINE_CONV_GPU']
            model.to_device('@numpy')
    if 'cudnn' not in ways:
        print(f'       {find_cudnn()[1]}')


def check_lstm(check, device):
    shape = argparse.Namespace(features=256, classes=11)
    x = numpy.random.randn(30, 16, 256).astype('f')
    t = numpy.random.randint(0, 11, (30, 16)).astype('i').ravel()
    results = []
    model = Ours(shape, 2, 128)
    for place in (chainer.get_device('@numpy'), device):
        model.to_device(place)
        model.reset_state()
        with chainer.using_device(place):
            loss = F.softmax_cross_entropy(model(place.send(x)), place.send(t))
            model.cleargrads()
            loss.backward()
        results.append({name: chainer.backends.cuda.to_cpu(p.grad)
                        for name, p in model.namedparams()})
    for name in sorted(results[0]):
        check(f'gradient of {name}', results[1][name], results[0][name], TOLERANCE['LSTM'])


def network_speed(cupy, device, args):
    frames = numpy.random.randint(0, 256, (args.batch, 224, 224, 3)).astype('u1')
    model = VGGNet_1024()
    given = torch_module(model) if torch is not None else None  # before the arrays leave
    before = memory(cupy)
    model.to_device(device)

    def ours():
        with sending(device) as send:
            for _ in range(args.batches):
                result = model.feature_and_prediction(send(frames))
        return [chainer.backends.cuda.to_cpu(a) for a in result]
    ours()
    memory(cupy)  # float32 weights that have gone to the CPU
    ours()
    held = {'ours': cupy.get_default_memory_pool().total_bytes() - before}
    contenders = {'ours': ours}
    if given is not None and torch.cuda.is_available():
        where = torch.device('cuda', int(args.device))
        network = given.to(where, torch.float16, memory_format=torch.channels_last)
        mean = torch.from_numpy(MEAN).to(where)
        pinned = torch.from_numpy(frames).pin_memory()

        def theirs():
            with torch.inference_mode():
                for _ in range(args.batches):
                    x = pinned.to(where, non_blocking=True)
                    result = network((x - mean).to(torch.float16).permute(0, 3, 1, 2))
                return [y.float().cpu().numpy() for y in result]
        theirs()
        contenders['PyTorch float16'] = theirs
        held['PyTorch float16'] = torch.cuda.max_memory_reserved(where)
    seconds = bench.take_turns(contenders, args.turns)
    print(f'\nVGG-16, bytes to features and softmax, batch {args.batch}')
    bench.table(seconds, args.batch * args.batches, 'frames')
    for name, n in held.items():
        print(f'{name + ", memory":30} {n / 2 ** 20:9.0f} MiB')


def lstm_speed(cupy, device, args):
    shape = argparse.Namespace(features=1024, classes=101)
    xs = numpy.random.randn(120, 64, 1024).astype('f')
    ts = numpy.random.randint(0, 101, (120, 64)).astype('i')
    for layers in (1, 3, 5):
        start = Ours(shape, layers, 512)
        theirs = None
        if torch is not None and torch.cuda.is_available():
            theirs = torch_epoch(shape, layers, 512, start,
                                 torch.device('cuda', int(args.device)))
        before = memory(cupy)
        start.to_device(device)
        train = chainer_epoch(start, Adam)
        x, t = device.send(xs), device.send(ts)
        contenders = {'ours': lambda: train(x, t, 30)}
        if theirs is not None:
            torch.cuda.reset_peak_memory_stats()
            contenders['PyTorch (cuDNN)'] = lambda: theirs(xs, ts, 30)
        seconds = bench.take_turns(contenders, args.turns)
        print(f'\nLSTM {layers}x512 + output, batch 64, 120 steps, windows of 30, Adam')
        bench.table(seconds, 64, 'sequences')
        held = {'ours': cupy.get_default_memory_pool().total_bytes() - before}
        if theirs is not None:
            held['PyTorch (cuDNN)'] = torch.cuda.max_memory_allocated()
        for name, n in held.items():
            print(f'{name + ", memory":30} {n / 2 ** 20:9.0f} MiB')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='0', metavar='N', help='GPU number (default: 0)')
    parser.add_argument('--batch', type=int, default=64, help='frames (default: 64)')
    parser.add_argument('--batches', type=int, default=20, help='of a turn (default: 20)')
    parser.add_argument('--turns', type=int, default=5, help='turns of each (default: 5)')
    args = parser.parse_args()
    try:
        import cupy
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        print(f'no GPU to measure ({" ".join(str(error).split())[:60]}); '
              'see requirements-gpu.txt')
        return 0
    from engine import stage
    device = stage.get_device(args.device)
    chainer.global_config.train = False
    numpy.random.seed(0)
    card = cupy.cuda.runtime.getDeviceProperties(int(args.device))['name'].decode()
    print(f'{card}; CuPy {cupy.__version__}, cuDNN {find_cudnn()[1]}, PyTorch '
          f'{torch.__version__ if torch is not None else "not installed"}')
    check = Checks()
    check_network(check, device, numpy.random.randint(0, 256, (5, 224, 224, 3)).astype('u1'))
    check_lstm(check, device)
    network_speed(cupy, device, args)
    chainer.global_config.train = True
    lstm_speed(cupy, device, args)
    if check.wrong:
        print(f'{check.wrong} checks are WRONG, named above')
    return int(check.wrong > 0)


if __name__ == '__main__':
    sys.exit(main())
