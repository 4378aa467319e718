"""Makes VGG.model from the weights of VGG-16 that another framework wrote.

    python convertWeights.py --download torchvision --root DIR     # fetches 553 MB first
    python convertWeights.py vgg16-397923af.pth --root DIR

SOURCE is one of these, told by its content; no code in it is ever run:
    .pth, .safetensors  a state dict named as in torchvision or timm, also vgg16_bn, alone or in a
                        checkpoint (two networks in one file: --prefix says which)
    .h5, .keras         Keras, with or without top, weights or a whole model
    .caffemodel         the authors' own
    .onnx               an export of PyTorch or Keras
    .npz                Chainer's (conv1_1/W; a model of this project's, whose card then says
                        what it takes, also as HDF5), or Keras's arrays as NAME__kernel and
                        NAME__bias (or NAME_W, NAME_b), NAME = block1_conv1 or conv1_1 ... fc8
                        (TensorFlow's vgg16_weights.npz was turned to RGB: --input rgb)

Batch normalisation and the source's own scaling of its input go into the weights. The
mean cannot: its place at the padded border would change. It goes into the model's card,
and every stage subtracts it. So the model computes what the source computes.

What the source lacks is an error that names it; with --random-rest those layers start
at random, and the card says so; with --pass-rest convolutions that it lacks hand on what
comes in, all made smaller by one factor (trained features through random ones are worth
less). --no-top takes the convolutions of a network that was made for another task, whatever
stands on them. Narrower blocks after those in the source make a quick network for trials:
--channels 64,128,256,128,128 --hidden 1024 --input-size 96.
"""
import json
from pathlib import Path
from typing import NamedTuple

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy

from engine import arguments, stage, variants
from VGGNet import CHANNELS, VGGNet
from VGGNet_1024 import CONVOLUTIONS
from engine.weights import initial
from engine.weights.download import download
from engine.errors import UserError
from engine.files import sha256
from engine.weights.fillnetwork import adapt_input, fill
from engine.weights.layernames import LINEARS, collect, listed
from engine.weights.modelfile import save_model
from engine.weights.onnxlayers import changed_input
from engine.video.preprocessing import MEAN, ORDERS, mean_of, preprocessing, told_by
from engine.weights.weightfiles import read_weights


class Download(NamedTuple):
    """Where the makers keep a file, its digest, and whether fc6 to fc8 are in it."""
    url: str
    digest: str
    whole: bool = True


KERAS = 'https://storage.googleapis.com/tensorflow/keras-applications/vgg16/'
# The digests are the makers' own where they give one (torchvision's file names carry the
# start of the SHA-256, Keras knows its files by MD5, Caffe's by SHA-1).
DOWNLOADS = {
    'torchvision': Download(
        'https://download.pytorch.org/models/vgg16-397923af.pth',
        'sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0'),
    'torchvision-bn': Download('https://download.pytorch.org/models/vgg16_bn-6c64b313.pth',
                               'sha256:6c64b313'),
    'keras': Download(KERAS + 'vgg16_weights_tf_dim_ordering_tf_kernels.h5',
                      'md5:64373286793e3c8b2b4e3219cbf3544b'),
    'keras-notop': Download(
        KERAS + 'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5',
        'sha256:bfe5187d0a272bed55ba430631598124cff8e880b98d38c9e56c8d66032abdc1', False),
    'caffe': Download('http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/'
                      'VGG_ILSVRC_16_layers.caffemodel',
                      'sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24'),
}

# What a source takes: order of its channels, then (x / 255 - mean) / deviation in that
# order, x from 0 to 255.
TORCHVISION_MEAN, TORCHVISION_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BGR_MEAN = tuple(value / 255 for value in MEAN)
INPUTS = {'torch': ('RGB', TORCHVISION_MEAN, TORCHVISION_DEVIATION),
          'bgr': ('BGR', BGR_MEAN, (1 / 255,) * 3),
          'rgb': ('RGB', BGR_MEAN[::-1], (1 / 255,) * 3)}

INPUT_SIZE = 224

SAID = {'torch': 'RGB, 0-1, less mean, by deviation, as PyTorch\'s VGG-16',
        'bgr': 'BGR, 0-255 less the mean, as Keras\'s and Caffe\'s',
        'rgb': 'RGB, 0-255 less the mean', 'told': 'BGR, 0-255 less a mean, as the file says'}


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('source', type=Path, nargs='?', help='file with the weights')
    group = parser.add_argument_group('source')
    group.add_argument('--download', choices=DOWNLOADS, metavar='NAME',
                       help=f'fetch it into ROOT first: {", ".join(DOWNLOADS)}')
    group.add_argument('--input', choices=INPUTS, default=None,
                       help='what the first convolution of the source takes: torch: RGB, 0-1, '
                            'mean and deviation; bgr or rgb: 0-255 minus the mean (default: '
                            'torch for .pth, .safetensors and ONNX of PyTorch with channels '
                            'first, bgr for the others; asked for where it cannot be told)')
    group.add_argument('--prefix', default='', metavar='TEXT',
                       help='of several networks in the source, take the one whose names of '
                            'arrays begin so: model_ema/')
    group.add_argument('--no-top', dest='top', action='store_false',
                       help='take the convolutions alone, whatever stands on them; fc6 to fc8 '
                            'start at random')
    group.add_argument('--random-rest', action='store_true',
                       help='layers that the source lacks start at random')
    group.add_argument('--pass-rest', action='store_true',
                       help='as --random-rest, but convolutions that the source lacks, of as '
                            'many outputs as inputs, hand on their input')
    group = parser.add_argument_group('model')
    group.add_argument('--channels', default=','.join(map(str, CHANNELS)), metavar='A,B,C,D,E',
                       help='output channels of the five blocks (default: %(default)s)')
    group.add_argument('--hidden', type=arguments.whole(1), default=4096,
                       help='units of fc6 and fc7 (default: 4096)')
    group.add_argument('--input-size', type=arguments.whole(32), default=None,
                       help='side of the input in pixels, a multiple of 32 (default: 224)')
    return parser


def main():
    args = stage.parse(get_parser())
    if (args.source is None) == (args.download is None):
        raise UserError('name either a SOURCE or --download; see python convertWeights.py --help')
    if args.download:
        args.source = fetch(args)
    weights = read_weights(args.source, args.top)
    layers, left_out = collect(args.source, weights, CONVOLUTIONS, args.prefix, args.top)
    weights.arrays.clear()  # `layers` has what is wanted of them, and lets go what is filled in
    args.input_size = input_size_of(args, weights.notes)
    takes, what_it_takes = input_of(args, weights.notes, layers, weights.form)
    model = new_model(args, layers, weights.form)
    missing = fill(model, args.source, weights.form, layers,
                   [*CONVOLUTIONS, *LINEARS] if args.random_rest or args.pass_rest
                   else [] if args.top else LINEARS)
    if CONVOLUTIONS[0] not in missing:
        adapt_input(model, *what_it_takes)
    passing = pass_on(model, missing) if args.pass_rest else []
    missing = [name for name in missing if name not in passing]
    if missing or passing:
        pictures = smooth_pictures(model)
        scale_random(model, [name for name in missing if name in CONVOLUTIONS], pictures)
        scale_passing(model, passing, pictures)
        scale_random(model, [name for name in missing if name in LINEARS], pictures)
    taken = [name for name in [*CONVOLUTIONS, *LINEARS] if name in layers]
    origin = f'{args.source.name}: {", ".join(taken)}'
    if passing:
        origin += f'; handing on their input: {", ".join(passing)}'
    if missing:
        origin += f'; random (seed {args.seed}): {", ".join(missing)}'
    if left_out:
        origin += f'; left out: {listed(left_out, 4)}'
    out = args.root / variants.VGG_MODEL
    save_model(out, model, {
        'kind': 'vgg', 'shape': model.shape, 'source': origin, 'source_sha256': sha256(args.source),
        'source_input': takes, 'preprocessing': preprocessing(model.mean),
        **stage.provenance(args)})
    print(f'wrote {out} from {origin}; its first convolution takes {SAID[takes]} (--input); next: '
          'python frameBasedTrain.py' + variants.place(args.root, args.split)
          + ' (with few clips --small)' * ('fc6' in missing))


def input_of(args, notes, layers, form):
    """What the first convolution of the source takes: (key of SAID, (order, mean, deviation)).

    Raises:
        UserError: it cannot be told, and --input does not say it.
    """
    unsure = ''
    if told := told_of(args, notes):
        return 'told', told
    if notes.get('other_layers'):
        unsure = f'its layers {listed(notes["other_layers"], 4)} may change its input'
    elif notes.get('unread_layers'):
        unsure = 'its description of its layers is not JSON, and some may change its input'
    elif 'producer' in notes and notes['producer'] != 'pytorch':
        unsure = f'an ONNX file of {notes["producer"] or "an unnamed program"} does not tell it'
    elif notes.get('channels_last'):
        # Keras runs on PyTorch, too, and keeps its own preprocessing there
        unsure = 'an ONNX file of pytorch with channels last does not tell it'
    if unsure and not args.input and CONVOLUTIONS[0] in layers:
        raise UserError(f'{args.source}: what does its first convolution take? ({unsure}) Say it: '
                        + ', '.join(f'--input {name} for {SAID[name]}' for name in INPUTS))
    name = args.input or ('torch' if form == 'torch' else 'bgr')
    return name, INPUTS[name]


def input_size_of(args, notes):
    """Side of the new model's input: --input-size, else that of every source, 224.

    Raises:
        UserError: the source's card tells of another, and nobody has said which it is to be.
    """
    told = notes.get('card', {}).get('shape', {}).get('input_size', INPUT_SIZE)
    if args.input_size is None and told != INPUT_SIZE:
        raise UserError(f'{args.source}: its card tells of input_size {json.dumps(told)[:20]}; '
                        'say --input-size')
    return args.input_size or INPUT_SIZE


def told_of(args, notes):
    """(order, mean, deviation) where the file itself tells it in our own words, else None.

    Raises:
        UserError: --input or the graph says something else.
    """
    # of a card, unlike a stranger's note, nothing that is not understood may pass for no word
    told = (notes.get('card', {}).get('preprocessing')
            or told_by(notes.get('preprocessing', '')))
    if told and told.get('order') == ORDERS['flow']:
        raise UserError(f'{args.source}: a network for optical flow, but {variants.VGG_MODEL} is '
                        'one for pictures, from which --stream flow begins too; give one of those')
    subtracted = notes.get('subtracted')
    mean = mean_of({'preprocessing': told}, args.source) if told else None
    if subtracted is not None and not (mean and subtracted.size == len(mean) and numpy.allclose(
            subtracted.reshape(-1), mean, rtol=0, atol=1e-4)):
        raise changed_input(args.source, 'Sub')
    if not told:
        return None
    takes = 'BGR', tuple(value / 255 for value in mean), (1 / 255,) * 3
    if args.input and INPUTS[args.input] != takes:
        raise UserError(f'{args.source}: says itself that its first convolution takes BGR, 0-255 '
                        f'less {", ".join(f"{value:g}" for value in mean)}; leave out --input '
                        f'{args.input}')
    return takes


def new_model(args, layers, form):
    """The VGGNet that the flags describe, for as many classes as the source has."""
    shape = {'channels': numbers(args.channels), 'hidden': args.hidden,
             'input_size': args.input_size}
    if 'weight' in layers.get('fc8', {}):
        # a network for other classes than ImageNet's 1000 is as good
        shape['n_classes'] = layers['fc8']['weight'].shape[-1 if form == 'keras' else 0]
    numpy.random.seed(args.seed)
    whole = all(name in layers for name in [*CONVOLUTIONS, *LINEARS])
    try:
        with initial.chosen(initial.nothing if whole else initial.the_same):
            return VGGNet(**shape)
    except ValueError as error:
        raise UserError(f'--channels, --hidden, --input-size: {error}') from None


def smooth_pictures(model):
    """(4, 3, S, S) preprocessed random ones, as no real one is at hand."""
    coarse = numpy.random.uniform(0, 255, (4, 3, 8, 8)).astype(numpy.float32)
    size = model.shape['input_size']
    with chainer.no_backprop_mode():
        return F.resize_images(coarse, (size, size)).array - numpy.array(
            model.mean, numpy.float32)[:, None, None]


def pass_on(model, names):
    """Makes the square convolutions among `names` hand on what comes in; returns their names."""
    square = [name for name in names
              if name in CONVOLUTIONS and model[name].W.shape[0] == model[name].W.shape[1]]
    for name in square:
        weight = model[name].W.array
        weight[...] = 0
        # the middle of the 3x3 kernel, each channel to itself; the ReLU changes nothing then
        numpy.einsum('iiyx->iyx', weight)[:, 1, 1] = 1
    return square


def scale_passing(model, names, pictures):
    """Shares out among layers that hand on what brings pool5 to deviation 1.

    fc6's gradient grows with what comes into it, and with the thousands that trained layers
    give it could not learn at any usual rate.
    """
    if names:
        with chainer.no_backprop_mode():
            scale = float(model.convolutions(pictures).array.std()) or 1.0
        for name in names:
            model[name].W.array *= scale ** (-1 / len(names))


def scale_random(model, names, pictures):
    """Scales layers that start at random so that what they give has deviation 1.

    The trained layers before them give hundreds, which would throw any usual learning
    rate off. Mishkin & Matas 2016, "All you need is a good init".
    """
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        h = pictures
        for name in [*CONVOLUTIONS, *LINEARS]:
            out = model[name](h)
            if name in names:
                scale = float(out.array.std()) or 1.0
                model[name].W.array /= scale
                out /= scale  # the bias is still 0
            h = F.relu(out)
            if name in CONVOLUTIONS and VGGNet.pooled_after(name):
                h = F.max_pooling_2d(h, 2, stride=2)


def numbers(text):
    try:
        channels = [int(part) for part in text.split(',')]
    except ValueError:
        channels = []
    if len(channels) != len(CHANNELS) or min(channels) < 1:
        raise UserError(f'--channels {text}: expected five numbers, such as 64,128,256,512,512')
    return channels


def fetch(args):
    """Downloads the source that --download names; returns its path."""
    url, digest, whole = DOWNLOADS[args.download]
    if not whole and not (args.random_rest or args.pass_rest):
        raise UserError(f'--download {args.download} lacks {", ".join(LINEARS)}; '
                        '--random-rest starts them at random')
    path = args.root / url.rsplit('/', 1)[1]
    print(f'{path} from {url}', flush=True)
    return download(url, path, digest)


if __name__ == '__main__':
    stage.run(main)
