"""Makes VGG.model from weights in another form.

    python convertWeights.py SOURCE.npz --root DIR [--random-rest] [--channels ...]

SOURCE.npz holds Keras-style arrays, NAME__kernel (height, width, in, out) and NAME__bias
(or NAME_W, NAME_b) for NAME = block1_conv1 or conv1_1 ... fc8, BGR 0-255 minus the ImageNet mean. What it
lacks is an error that names it; with --random-rest those layers start at random (He),
and the model's card says so. Narrower blocks after those in the source make a quick
network for trials: --channels 64,128,256,128,128 --hidden 1024 --input-size 96.
"""
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy

import helperFunctions as hf
from VGGNet import CHANNELS, VGGNet
from engine.errors import UserError
from engine.modelfile import save_model
from engine.video import PREPROCESSING


def get_parser():
    parser = hf.stage_parser(__doc__)
    parser.add_argument('source', type=Path, help='.npz with the weights')
    group = parser.add_argument_group('model')
    group.add_argument('--random-rest', action='store_true',
                       help='layers that the source lacks start at random')
    group.add_argument('--channels', default=','.join(map(str, CHANNELS)), metavar='A,B,C,D,E',
                       help='output channels of the five blocks (default: %(default)s)')
    group.add_argument('--hidden', type=int, default=4096, help='units of fc6 (default: 4096)')
    group.add_argument('--input-size', type=int, default=224,
                       help='side of the input in pixels, a multiple of 32 (default: 224)')
    return parser


def main():
    args = hf.parse_stage(get_parser())
    numpy.random.seed(args.seed)
    model = VGGNet([int(c) for c in args.channels.split(',')], args.hidden,
                   input_size=args.input_size)
    try:
        with numpy.load(args.source, allow_pickle=False) as f:
            arrays = {name: f[name] for name in f}
    except (OSError, ValueError) as error:
        raise UserError(f'{args.source}: not a readable npz file ({error})') from None
    taken, missing = [], []
    for layer in model.conv_names + ['fc6', 'fc7', 'fc8']:
        found = find(arrays, layer)
        if found is None:
            missing.append(layer)
            continue
        weight, bias = found
        weight = weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight.T
        link = model[layer]
        if weight.shape != link.W.shape or bias.shape != link.b.shape:
            raise UserError(f'{args.source}: {layer} is {weight.shape}, expected '
                            f'{link.W.shape}; other --channels, --hidden or --input-size?')
        link.W.array[...], link.b.array[...] = weight, bias
        taken.append(layer)
    if not taken:
        raise UserError(f'{args.source}: holds no layer of VGG-16; its arrays are '
                        f'{", ".join(sorted(arrays)[:6])} ...')
    if missing and not args.random_rest:
        raise UserError(f'{args.source}: lacks {", ".join(missing)}; --random-rest starts '
                        'them at random')
    source = f'{args.source.name}: {taken[0]}..{taken[-1]}'
    if missing:
        source += f'; random (seed {args.seed}): {missing[0]}..{missing[-1]}'
    out = args.root / hf.VGG_MODEL
    save_model(out, model, {'kind': 'vgg', 'shape': model.shape, 'source': source,
                            'preprocessing': PREPROCESSING})
    print(f'wrote {out} from {source}')


def find(arrays, layer):
    """Returns (weight, bias) of a layer under any of the names in use, or None."""
    names = [layer]
    if layer.startswith('conv'):
        block, number = layer[4:].split('_')
        names.append(f'block{block}_conv{number}')
    for name in names:
        for weight, bias in (('__kernel', '__bias'), ('_W', '_b'), ('/W', '/b')):
            if name + weight in arrays and name + bias in arrays:
                return arrays[name + weight], arrays[name + bias]
    return None


if __name__ == '__main__':
    hf.stage_main(main)
