"""All that a GPU must show: right numbers, then speed and memory beside PyTorch on the same card.

    python -m bench.gpu --check                 # numbers against the CPU's, about a minute
    python -m bench.gpu --measure [--only vgg lstm train stage2] [--compile]

vgg     frames a second of VGG-16 from bytes to features and softmax, and the share of what the
        card's own matrix product allows; PyTorch in float16 and bfloat16, channels last, and with
        --compile through torch.compile, too.
lstm    sequences a second of LSTM training beside nn.LSTM, which is cuDNN's; with CUPY_TF32=1 in
        the environment both in TF32, else both in float32.
train   frames a second of a training step of stage 1; PyTorch in its own float32 (TF32 inside
        its convolutions).
stage2  the loop of saveFeatures_1024.py on drawn clips, by the clips decoded at once, beside
        its decoders alone.

Memory is what each has taken of the card's and kept, weights included. --check ends with 1 if
anything is wrong. Without a GPU it says so and ends.
"""
import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import bench

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

import helperFunctions as hf
from VGGNet_1024 import TRAIN_LAYERS, VGGNet_1024
from bench import clips, finetune
from bench.gpu_check import check_all
from bench.lstm import Ours, chainer_epoch, torch, torch_epoch
from bench.vgg import MEAN, torch_module
from engine import arguments, usable_cores
from engine.fast import conv_gpu, upload
from engine.fast.optimizers import Adam

LIMIT = 8192   # side of the card's own matrix product
STEPS = 4      # of training in a turn
PARTS = 'vgg', 'lstm', 'train', 'stage2'


def on_card(args):
    """PyTorch's device, or None."""
    if torch is None or not torch.cuda.is_available():
        return None
    torch.cuda.init()
    return torch.device('cuda', int(args.device))


def take_turns(args, contenders, amount, unit):
    """Prints speeds, and how much of the card's memory each contender has taken; returns the
    speeds."""
    import cupy
    pool, held, runs = cupy.get_default_memory_pool(), {}, {}

    def used():
        free, whole = cupy.cuda.runtime.memGetInfo()
        return whole - free
    for name, make in reversed(contenders.items()):  # ours takes its weights along
        cupy.cuda.Device().synchronize()
        pool.free_all_blocks()
        if on_card(args):
            torch.cuda.empty_cache()
        before = used()
        runs[name] = make()
        for _ in range(3):
            runs[name]()
        held[name] = used() - before
    seconds = bench.take_turns({name: runs[name] for name in contenders}, args.turns)
    bench.table(seconds, amount, unit)
    for name, n in held.items():
        print(f'{name + ", memory":30} {n / 2 ** 20:9.0f} MiB', flush=True)
    return {name: amount / statistics.median(times) for name, times in seconds.items()}


def product_limit(xp):
    """Operations a second of a large product of float16 matrices on the card."""
    a, b = (xp.random.standard_normal((LIMIT, LIMIT), numpy.float32).astype('e')
            for _ in range(2))
    out = xp.matmul(a, b)
    begin, end = xp.cuda.Event(), xp.cuda.Event()
    begin.record()
    for _ in range(10):
        xp.matmul(a, b, out=out)
    end.record()
    end.synchronize()
    return 10 * 2 * LIMIT ** 3 / (xp.cuda.get_elapsed_time(begin, end) / 1000)


def operations(model, size=224):
    """Of a frame, as direct convolutions do it."""
    total = sum(2 * model[name].W.size for name in ('fc6', 'fc7', 'fc8'))
    for name in model.conv_names:
        total += 2 * model[name].W.size * size ** 2
        size //= 2 if model.pooled_after(name) else 1
    return total


def measure_vgg(device, args):
    chainer.global_config.train = False
    limit = product_limit(device.xp)
    print(f'\nproducts of {LIMIT}x{LIMIT} in float16: {limit / 1e12:.0f} TFLOP/s')
    for batch in args.batch:
        frames = numpy.random.randint(0, 256, (batch, 224, 224, 3)).astype('u1')
        times = max(1, args.frames // batch)
        model = VGGNet_1024()
        count = operations(model)
        given = torch_module(model) if torch is not None else None  # before the arrays leave

        def ours(batch=frames, model=model, times=times):
            model.to_device(device)

            def run():
                with upload.sending(device) as send:
                    for _ in range(times):
                        result = model.feature_and_prediction(send(batch))
                return [chainer.backends.cuda.to_cpu(a) for a in result]
            return run
        contenders = {'ours': ours}
        if on_card(args):
            for dtype in torch.float16, torch.bfloat16:
                for compiled in (False, True)[:1 + args.compile]:
                    name = (f'PyTorch {str(dtype).partition(".")[2]}'
                            + ', torch.compile' * compiled)
                    contenders[name] = lambda dtype=dtype, compiled=compiled: in_torch(
                        given, frames, times, on_card(args), dtype, compiled)
        print(f'\nVGG-16, bytes to features and softmax, batch {batch}')
        speeds = take_turns(args, contenders, batch * times, 'frames')
        for name, speed in speeds.items():
            print(f'{name + ", of the products":40} {speed * count / limit:8.2f}')


def in_torch(given, frames, times, place, dtype, compiled):
    import copy
    network = copy.deepcopy(given).to(place, dtype, memory_format=torch.channels_last)
    mean = torch.from_numpy(MEAN).to(place)
    pinned = torch.from_numpy(frames).pin_memory()

    def whole(x):
        return network((x - mean).to(dtype).permute(0, 3, 1, 2))
    if compiled:
        whole = torch.compile(whole)

    def run():
        with torch.inference_mode():
            for _ in range(times):
                result = whole(pinned.to(place, non_blocking=True))
            return [y.float().cpu().numpy() for y in result]
    return run


def measure_lstm(device, args):
    chainer.global_config.train = True
    tf32 = os.environ.get('CUPY_TF32') == '1'
    if on_card(args):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    shape = argparse.Namespace(features=1024, classes=101)
    xs = numpy.random.randn(120, 64, 1024).astype('f')
    ts = numpy.random.randint(0, 101, (120, 64)).astype('i')
    for layers, units in (1, 512), (3, 512), (3, 1024):
        start = Ours(shape, layers, units)
        contenders = {}
        if on_card(args):
            def theirs(start=start, layers=layers, units=units):
                train = torch_epoch(shape, layers, units, start, on_card(args))
                there = [torch.from_numpy(a).to(on_card(args)) for a in (xs, ts)]
                return lambda: train(*there, 30)
            contenders['PyTorch (cuDNN)'] = theirs

        def ours(start=start):
            start.to_device(device)
            train, here = chainer_epoch(start, Adam), [device.send(a) for a in (xs, ts)]
            return lambda: train(*here, 30)
        print(f'\nLSTM {layers}x{units} + output, batch 64, 120 steps, windows of 30, Adam, '
              f'{"TF32" if tf32 else "float32"}')
        take_turns(args, {'ours': ours, **contenders}, 64, 'sequences')


def measure_train(device, args):
    chainer.global_config.train = True
    if on_card(args):  # PyTorch's own settings
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
    for train_layers in '2', '3', 'all':
        model = VGGNet_1024()
        model.trained = TRAIN_LAYERS[train_layers]
        batch = args.train_batch
        frames = numpy.random.randint(0, 256, (batch, 224, 224, 3)).astype('u1')
        labels = numpy.random.randint(0, 101, batch).astype('i')
        contenders = {}
        if on_card(args):
            contenders['PyTorch'] = lambda model=model: synchronized(finetune.in_torch(
                model, frames, labels, on_card(args)), torch.cuda.synchronize)

        def ours(model=model):
            model.to_device(device)
            return synchronized(finetune.in_chainer(model, frames, labels, True, device),
                                device.xp.cuda.Device().synchronize)
        print(f'\nstep of stage 1, --train-layers {train_layers}, batch {batch}')
        take_turns(args, {'ours': ours, **contenders}, STEPS * batch, 'frames')


def synchronized(step, wait):
    def run():
        for _ in range(STEPS):
            step()
        wait()
    return run


def measure_stage2(device, args):
    chainer.global_config.train = False
    model = VGGNet_1024()
    model.to_device(device)
    args.batch = 64
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for path in map(Path, bench.drawn_clips(folder, 8, 250)):
            for k in range(usable_cores() // 2):  # drawing takes longer than all else
                paths.append(path.with_stem(f'{path.stem}{k}'))
                os.link(path, paths[-1])
        n = 250 * len(paths)
        items = [hf.Clip(path.stem, 'Class', 0, 'g01', path) for path in paths]
        print(f'\nstage 2 as a whole, {len(paths)} drawn clips of 250 frames, '
              f'{usable_cores()} cores')
        readers = sorted({2, 4, 8, usable_cores()})
        contenders = {
            f'stage 2, --workers {k}': clips.stage_2(items, Path(folder), model, args, k, device)
            for k in readers}
        contenders[f'its {usable_cores()} decoders alone'] = (
            lambda: clips.decode_at_once(paths, usable_cores()))
        bench.table(bench.take_turns(contenders, 1), n, 'frames')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--check', action='store_true', help='numbers')
    what.add_argument('--measure', action='store_true', help='speed and memory')
    parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS, metavar='PART',
                        help=f'of --measure: {" ".join(PARTS)} (default: all)')
    parser.add_argument('--compile', action='store_true',
                        help='torch.compile, too; compiling takes half a minute each')
    parser.add_argument('--device', default='0', metavar='N', help='GPU number (default: 0)')
    parser.add_argument('--batch', type=arguments.whole(1), nargs='+', default=[64, 256],
                        help='frames, a table each (default: 64 256)')
    parser.add_argument('--train-batch', type=arguments.whole(1), default=36,
                        help='frames of a training step (default: 36)')
    parser.add_argument('--frames', type=arguments.whole(1), default=4096,
                        help='of a turn (default: 4096)')
    parser.add_argument('--turns', type=arguments.whole(1), default=5,
                        help='turns of each (default: 5)')
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
    card = cupy.cuda.runtime.getDeviceProperties(int(args.device))['name'].decode()
    print(f'{card}; {usable_cores()} cores; CuPy {cupy.__version__}, '
          f'{conv_gpu.kernel_name()}, PyTorch '
          f'{torch.__version__ if torch is not None else "not installed"}')
    if args.check:
        wrong = check_all(device)
        print(f'{wrong} checks are WRONG, named above' if wrong else 'all is right')
        return int(wrong > 0)
    numpy.random.seed(0)
    for part in args.only:
        globals()[f'measure_{part}'](device, args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
