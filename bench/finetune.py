"""Speed of a training step of stage 1: ours, Chainer, PyTorch, with the same layers frozen.

A step takes bytes, runs VGG-16's frozen layers without a graph, then those that learn forward
and backward with dropout, and updates these by MomentumSGD with weight decay. "products" is what
the convolutions' products alone would allow (bench/vgg.py), three times as many where they learn.

    python -m bench.finetune
    python -m bench.finetune --train-layers 2 all --turns 5 --chainer
"""
import argparse
import statistics

import bench

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from VGGNet_1024 import TRAIN_LAYERS, VGGNet_1024
from bench.vgg import MEAN, products, torch, torch_module
from engine import usable_cores
from engine.arguments import whole
from engine.fast import optimizers
from engine.video.preprocessing import preprocess

ALL_BATCH = 12  # what all layers keep for the backward pass would fill the memory
RATE = 1e-9      # the labels are random: a usual one would end in numbers that are none


def in_chainer(model, frames, labels, fast, device=chainer.get_device('@numpy')):
    trained = model.trained_part()
    if fast:
        optimizer = optimizers.MomentumSGD(RATE, 0.9, 0.0005).setup(trained)
    else:
        optimizer = chainer.optimizers.MomentumSGD(RATE, 0.9).setup(trained)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.0005))

    def run():
        model.fast = fast
        x, wanted = preprocess(device.send(frames), model.mean), device.send(labels)
        loss = F.softmax_cross_entropy(model(x), wanted)
        trained.cleargrads()
        loss.backward()
        optimizer.update()
    return run


def in_torch(model, frames, labels, device='cpu'):
    torch.set_num_threads(usable_cores())
    network = torch_module(model).to(device, memory_format=torch.channels_last)
    network.requires_grad_(False)
    layers = dict(network.named_children(), **dict(zip(model.conv_names, (
        layer for layer in network.convolutions if isinstance(layer, torch.nn.Conv2d)))))
    trained = [p for name in model.trained for p in layers[name].parameters()]
    for parameter in trained:
        # A copy of its own: torch_module shares the arrays of our network.
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(trained, RATE, momentum=0.9, weight_decay=0.0005)
    mean, frames = torch.from_numpy(MEAN).to(device), torch.from_numpy(frames)
    labels = torch.from_numpy(labels).long()

    def run():
        # channels last in memory
        x = (frames.to(device) - mean).permute(0, 3, 1, 2)
        h = torch.relu(network.fc6(torch.flatten(network.convolutions(x), 1)))
        h = network.fc7(torch.nn.functional.dropout(h))
        scores = network.fc8(torch.nn.functional.dropout(torch.relu(h)))
        loss = torch.nn.functional.cross_entropy(scores, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return run


def compare(args, train_layers):
    random = numpy.random.RandomState(0)
    numpy.random.seed(0)
    model = VGGNet_1024()
    model.trained = TRAIN_LAYERS[train_layers]
    convolutions_learn = 'conv1_1' in model.trained
    batch = min(args.batch, ALL_BATCH) if convolutions_learn else args.batch
    frames = random.randint(0, 256, (batch, 224, 224, 3)).astype('u1')
    labels = random.randint(0, 101, batch).astype('i')
    contenders = {'ours': in_chainer(model, frames, labels, True)}
    amount = {'ours': batch, 'PyTorch': batch, 'Chainer': min(6, batch)}
    if args.chainer:
        contenders['Chainer'] = in_chainer(model, frames[:6], labels[:6], False)
    if torch is not None:
        contenders['PyTorch'] = in_torch(model, frames, labels)
    limit = products(model, 224)
    seconds = bench.take_turns(contenders, args.turns)
    limit = statistics.median([limit, products(model, 224)]) / (3 if convolutions_learn else 1)
    print(f'\nstep of stage 1, --train-layers {train_layers}, batch {batch}, '
          f'{usable_cores()} threads, {args.turns} turns')
    bench.table(seconds, amount, 'frames')
    print(f'{"products":30} {limit:12.2f}')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=whole(1), default=36,
                        help=f'frames (default: 36; at most {ALL_BATCH} where convolutions learn)')
    parser.add_argument('--turns', type=whole(1), default=3, help='turns of each (default: 3)')
    parser.add_argument('--train-layers', nargs='+', choices=('2', '3', 'all'),
                        default=['2', '3', 'all'],
                        help='what learns: a table each (default: fc7 and fc8; fc6 too; all)')
    parser.add_argument('--chainer', action='store_true',
                        help="Chainer's own convolutions, too: slow, so of six frames only")
    args = parser.parse_args()
    for train_layers in args.train_layers:
        compare(args, train_layers)


if __name__ == '__main__':
    main()
