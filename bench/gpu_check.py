"""What a GPU computes, against the CPU's float32 (`python -m bench.gpu --check`).

A line says "ok" or "WRONG", with the largest difference as a part of the largest number.
"""
import contextlib
import os

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
from chainer.backends.cuda import to_cpu

from VGGNet_1024 import TRAIN_LAYERS, VGGNet_1024
from bench.vgg import torch, torch_module
from engine.fast import conv_gpu, conv_learn_gpu, optimizers, upload
from engine.fast.lstm import GRU, LSTM
from engine.video.preprocessing import preprocess

# float16 keeps 11 bits, and 13 layers add up; float32 in another order.
HALF, SINGLE = 2e-3, 1e-4


class Checks:
    """Prints what agrees, and counts what does not."""

    def __init__(self):
        self.wrong = 0

    def __call__(self, what, ours, expected, tolerance):
        ours, expected = (numpy.asarray(a if isinstance(a, list) else to_cpu(a), 'd')
                          for a in (ours, expected))
        known = numpy.isfinite(expected)
        same = ((ours == expected) | numpy.isnan(ours) & numpy.isnan(expected))[~known].all()
        most = abs(expected[known]).max() or 1
        difference = abs(ours[known] - expected[known]).max() / most
        right = bool(difference <= tolerance and same)  # not a number is wrong, too
        self.wrong += not right
        print(f'{"ok" if right else "WRONG":6} {what:50} {difference:.1e} (at most '
              f'{tolerance:.0e})', flush=True)

    @contextlib.contextmanager
    def named(self, what):
        """A check that ends by an error is wrong; the others go on."""
        try:
            yield
        except Exception as error:
            self.wrong += 1
            print(f'WRONG  {what}: {type(error).__name__}: {error}', flush=True)


def check_kernels(check, xp, random):
    """The kernels of conv_gpu.py alone, on odd sizes and what is no number."""
    for shape in (2, 7, 5, 16), (1, 8, 6, 8):
        x = random.normal(0, 9, shape).astype('e')
        x[0, 1, 2, 3], x[0, 0, 0, 0] = numpy.nan, numpy.inf
        n, height, width, channels = shape
        made = [module.empty((n, -(-height // 2), -(-width // 2), channels), 'e')
                for module in (numpy, xp)]
        for module, out in zip((numpy, xp), made):
            conv_gpu.pooled(module, module.asarray(x), out)
        check(f'pooling of halves, {shape}', made[1], made[0], 0)
    for x in (random.integers(0, 256, (2, 5, 3, 3)).astype('u1'),
              random.normal(0, 99, (2, 5, 3, 10)).astype('f')):
        mean = numpy.arange(x.shape[3], dtype='f')
        expected, ours = (conv_gpu.halves(module, module.asarray(x), module.asarray(mean), 16)
                          for module in (numpy, xp))
        check(f'frames as halves, from {x.dtype}', ours, expected, 1e-3)


def check_upload(check, device, random):
    batches = [random.integers(0, 256, (n, 64, 64, 3)).astype('u1')
               for n in (9, 9, 9, 3, 9, 40, 9, 1)]
    with upload.sending(device) as send:
        sums = [send(batch.copy()).astype('i8').sum(axis=(1, 2, 3)) for batch in batches]
    for batch, total in zip(batches, sums):
        check('frames through pinned memory', total, batch.sum(axis=(1, 2, 3)), 0)


def check_network(check, device, frames):
    model = VGGNet_1024()
    expected = model.feature_and_prediction(frames)
    # fc6 is in halves behind the products, too
    ways = {'cudnn': HALF, 'products': HALF / 2, "Chainer's own": SINGLE}
    if conv_gpu.find_cudnn()[0] is None:
        print(f'       no cudnn: {conv_gpu.find_cudnn()[1]}')
        del ways['cudnn']
    for way, tolerance in ways.items():
        with check.named(way):
            model.forget_copies()
            model.to_device(device)
            model.fast = way in ('cudnn', 'products')
            if model.fast:
                os.environ['ENGINE_CONV_GPU'] = way
            x = device.send(frames if model.fast else preprocess(frames, model.mean))
            for _ in range(3):  # the third time it is a CUDA graph's
                ours = model.feature_and_prediction(x)
            check(f'features, {way}', ours[0], expected[0], tolerance)
            check(f'softmax, {way}', ours[1], expected[1], 10 * HALF)
        os.environ.pop('ENGINE_CONV_GPU', None)
        model.to_device('@numpy')


def stack_gradients(function, x, layers, gy):
    """A stack's output, and the gradients of its input, weights and biases where gy is its
    output's."""
    x = chainer.Variable(x)
    layers = [(chainer.Variable(W), chainer.Variable(b), pool) for W, b, pool in layers]
    y = function(x, layers)
    y.grad = gy
    y.backward()
    return [y.array, x.grad, *(p.grad for W, b, _ in layers for p in (W, b))]


def whole_stack(random):
    """(frames, layers, the output's gradient) of whole numbers below 2048.

    TF32 holds all of these exactly, and float32 their sums, ReLUs and equal numbers in pooling
    windows among them: what differs is wrong.
    """
    layers, ins = [], 3
    for outs, pool in (16, True), (24, False), (20, True):
        few = random.random((outs, ins, 3, 3)) < 4 / (9 * ins)
        layers.append(((random.integers(-1, 2, few.shape) * few).astype('f'),
                       random.integers(-3, 4, outs).astype('f'), pool))
        ins = outs
    x = random.integers(-4, 5, (4, 3, 16, 24)).astype('f')
    return x, layers, random.integers(-2, 3, (4, ins, 4, 6)).astype('f')


def check_learning_stack(check, device, random):
    """Convolutions that learn against Chainer's on the CPU: of whole numbers all must be right;
    of others, where every ReLU lets all through, TF32 keeps 11 bits."""
    if conv_gpu.find_cudnn()[0] is None:
        return
    whole = whole_stack(random)
    any_x = random.random((4, 20, 14, 14)).astype('f')
    weights = [random.normal(0, 0.1, (64, n, 3, 3)).astype('f') for n in (20, 64)]
    active = any_x, [(W, numpy.full(64, b, 'f'), False) for W, b in zip(weights, (9, 200))], (
        random.normal(0, 1, (4, 64, 14, 14)).astype('f'))
    for what, tolerance, (x, layers, gy) in ('whole', 0, whole), ('other', 1e-3, active):
        expected = stack_gradients(conv_learn_gpu.by_chainer, x, layers, gy)
        with chainer.using_device(device):
            there = [tuple(device.send(a) if k < 2 else a for k, a in enumerate(layer))
                     for layer in layers]
            ours = stack_gradients(conv_learn_gpu.conv_stack, device.send(x), there,
                                   device.send(gy))
        names = 'output', 'input', *(f'{kind} of layer {level}' for level in range(len(layers))
                                     for kind in ('weights', 'biases'))
        for name, a, b in zip(names, ours, expected, strict=True):
            check(f'convolutions that learn, {what} numbers, {name}', a, b, tolerance)


def loss_gradients(model, frames, labels, place):
    """{name: the gradient of the loss by its weights} of all layers, without dropout."""
    with chainer.using_device(place):
        model.to_device(place)
        model.cleargrads()
        F.softmax_cross_entropy(model(preprocess(place.send(frames), model.mean)),
                                place.send(labels)).backward()
    return {name: to_cpu(p.grad) for name, p in model.namedparams() if name.endswith('/W')}


def torch_gradients(model, frames, labels):
    """As loss_gradients, by PyTorch on the card with its own settings: TF32 in convolutions."""
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
    network = torch_module(model).to('cuda', memory_format=torch.channels_last)
    x = torch.from_numpy(preprocess(frames, model.mean)).to('cuda')
    h = torch.relu(network.fc6(torch.flatten(network.convolutions(x), 1)))
    scores = network.fc8(torch.relu(network.fc7(h)))
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels).long().to('cuda')).backward()
    convolutions = [m for m in network.convolutions if isinstance(m, torch.nn.Conv2d)]
    return {f'/{name}/W': layer.weight.grad.cpu().numpy() for name, layer in (
        *zip(model.conv_names, convolutions), *network.named_children())
        if name != 'convolutions'}


def check_gradients(check, device, frames, labels):
    """Gradients of VGG-16's layers against float32's. TF32 turns some ReLUs on or off, so these
    differ by far more than its rounding; they must by no more than PyTorch's in TF32 do."""
    numpy.random.seed(1)
    model = VGGNet_1024(input_size=64)
    model.dropout, model.trained = 0, TRAIN_LAYERS['all']
    expected = loss_gradients(model, frames, labels, chainer.get_device('@numpy'))

    def away(found):
        return {name: float(numpy.linalg.norm(found[name] - g) / numpy.linalg.norm(g))
                for name, g in expected.items()}
    theirs = None
    if torch is not None and torch.cuda.is_available():
        theirs = away(torch_gradients(model, frames, labels))
    for name, ours in away(loss_gradients(model, frames, labels, device)).items():
        most = 1.5 * theirs[name] + 0.01 if theirs else 0.3
        check.wrong += ours > most
        print(f'{"ok" if ours <= most else "WRONG":6} gradient of {name:12} is {ours:.1e} of its '
              f'length away' + (f' (PyTorch, TF32: {theirs[name]:.1e})' if theirs else ''))


def check_step(check, device, frames, labels, train_layers):
    """Three updates of stage 1 from the same weights, without dropout."""
    results = []
    for place in chainer.get_device('@numpy'), device:
        numpy.random.seed(1)
        model = VGGNet_1024((8, 16, 16, 24, 32), 64, 11, 64, 24)
        model.dropout, model.trained = 0, TRAIN_LAYERS[train_layers]
        with chainer.using_device(place):
            model.to_device(place)
            trained = model.trained_part()
            optimizer = optimizers.MomentumSGD(0.001, 0.9).setup(trained)
            optimizer.add_hook(optimizers.WeightDecay(0.0005))
            losses = []
            for _ in range(3):
                x = place.send(preprocess(frames, model.mean))
                loss = F.softmax_cross_entropy(model(x), place.send(labels))
                trained.cleargrads()
                loss.backward()
                optimizer.update()
                losses.append(float(loss.array))
        results.append((losses, [(name, to_cpu(p.array)) for name, p in sorted(
            trained.namedparams())]))
    (expected, weights), (ours, theirs) = results
    tolerance = 0.02  # layers that stay as they are answer in halves
    check(f'losses of stage 1, --train-layers {train_layers}', ours, expected, tolerance)
    for (name, a), (_, b) in zip(theirs, weights):
        if name in ('/conv1_1/W', '/fc6/W', '/fc7/W', '/fc8/W'):
            check(f'{name} after three steps', a, b, 2 * tolerance)


def check_recurrent(check, device, random):
    """Windows of an LSTM, masked and with recurrent dropout; the third run is a CUDA graph's."""
    x = random.normal(0, 1, (30, 16, 40)).astype('f')
    mask = random.random((30, 16)) < 0.8
    weight = random.normal(0, 1, (30, 16, 48)).astype('f')
    for kind, masked in (LSTM, False), (LSTM, True), (GRU, True):
        numpy.random.seed(2)
        model = kind(40, 48, 2)
        dropped = [(random.random((16, 48)) < 0.7).astype('f') / 0.7 for _ in range(2)]
        results = []
        for place in (chainer.get_device('@numpy'), *[device] * 4):
            model.to_device(place)
            model.reset_state()
            model.recurrent_dropout = 0.3 * masked
            model._recurrent_masks = {k: place.send(d) for k, d in enumerate(dropped)}
            model.cleargrads()
            v = chainer.Variable(place.send(x))
            with chainer.using_device(place):
                y = model(v, place.send(mask) if masked else None)
                F.sum(y * place.send(weight)).backward()
            results.append({'y': y.array, 'gradient of x': v.grad, **{
                f'gradient of {name}': p.grad for name, p in sorted(model.namedparams())}})
            results[-1] = {name: to_cpu(a).copy() for name, a in results[-1].items()}
        for run, ours in enumerate(results[1:], 1):
            for name, expected in results[0].items():
                if run == 4 or abs(ours[name] - expected).max() > SINGLE * abs(expected).max():
                    check(f'{kind.__name__}{" masked" * masked}, {name}, run {run}',
                          ours[name], expected, SINGLE)


def check_all(device):
    """Prints all checks; returns how many are wrong."""
    check, random = Checks(), numpy.random.default_rng(0)
    chainer.global_config.train = False
    numpy.random.seed(0)
    with check.named('kernels'):
        check_kernels(check, device.xp, random)
    with check.named('upload'):
        check_upload(check, device, random)
    with check.named('network'):
        check_network(check, device, random.integers(0, 256, (5, 224, 224, 3)).astype('u1'))
    chainer.global_config.train = True
    frames, labels = random.integers(0, 256, (8, 64, 64, 3)).astype('u1'), random.integers(
        0, 11, 8).astype('i')
    with check.named('convolutions that learn'):
        check_learning_stack(check, device, random)
        check_gradients(check, device, frames, labels)
    for train_layers in '2', '3':
        with check.named(f'stage 1, --train-layers {train_layers}'):
            check_step(check, device, frames, labels, train_layers)
    with check.named('LSTM'):
        check_recurrent(check, device, random)
    return check.wrong
