"""The recurrent network on frame features, any number of layers and a head.

    model = RNNNet(1024, 101)                 # the original: one LSTM of 1024 cells

    features -> normalise -> dropout -> LSTM -> dropout -> BN -> Linear, sigmoid
             -> dropout -> BN -> Linear -> scores of every step

Cell 'linear' (a linear classifier of each frame) and 'mean' (the same on the mean of
the frames so far) are the baselines that see no order.
"""
import math

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
import numpy

from FusionNet import load_frame_network
from PoolingNet import FAMILIES, PoolingNet
from engine import arguments, hdf5, variants
from engine.errors import UserError
from engine.fast import kernelnames, recurrent
from engine.fast.lstm import GRU, LSTM
from engine.learning import statistics
from engine.learning.featurenet import FeatureNet
from engine.weights.card import read_card, weights_digest
from engine.weights.modelfile import load_network

CELLS = ('lstm', 'gru', 'linear', 'mean')
MADE_BY = 'python rnn.py'


class RNNNet(FeatureNet):
    """Scores of every step from features of every step.

    Args:
        n_in (int): length D of a feature.
        n_classes (int): classes C.
        cell: 'lstm', 'gru', 'linear' or 'mean'.
        cells: units of each recurrent layer, from the bottom to the top.
        hidden (int): units of the sigmoid layer behind them; 0 leaves it out.
        batch_norm (bool): batch normalisation where the original has it.
        dropout: ratios (on the input, between layers, on the outputs).
        recurrent_dropout (float): ratio on the way from step to step.
    """

    def __init__(self, n_in, n_classes, cell='lstm', cells=(1024,), hidden=1024,
                 batch_norm=True, dropout=(0.5, 0.5, 0.5), recurrent_dropout=0.0):
        super().__init__(n_in)
        self.shape = dict(n_in=n_in, n_classes=n_classes, cell=cell, cells=list(cells),
                          hidden=hidden, batch_norm=batch_norm, dropout=list(dropout),
                          recurrent_dropout=recurrent_dropout)
        self.cell = cell
        self.drop_in, self.drop_between, self.drop_out = dropout
        with self.init_scope():
            width = n_in
            if cell in ('lstm', 'gru'):
                kind = LSTM if cell == 'lstm' else GRU
                self.recurrent = chainer.ChainList()
                for units in cells:
                    self.recurrent.append(
                        kind(width, units, recurrent_dropout=recurrent_dropout))
                    width = units
                if batch_norm:
                    self.norm1 = L.BatchNormalization(width)
                if hidden:
                    self.fc = L.Linear(width, hidden)
                    width = hidden
                    if batch_norm:
                        self.norm2 = L.BatchNormalization(width)
            self.out = L.Linear(width, n_classes)
        self.reset_state()

    def kernel(self):
        if self.cell != 'lstm':
            return super().kernel()
        name = recurrent.kernel_name() if self.xp is numpy else 'CuPy'
        return kernelnames.in_words(self.xp, LSTM=name)

    def reset_state(self):
        """Begins a new sequence."""
        self._sum, self._steps = None, 0
        if self.cell in ('lstm', 'gru'):
            for layer in self.recurrent:
                layer.reset_state()

    def __call__(self, xs):
        """Runs the next T steps; a gradient stays within one call.

        Args:
            xs: (T, B, D) float32 array of raw features.

        Returns:
            Variable (T, B, C), the scores of every step before the softmax.
        """
        return F.reshape(self.rows(xs), (*xs.shape[:2], -1))

    def rows(self, xs, mask=None):
        """As a call, but returns (R, C): a row for each real step, step 0 of all clips first.

        Args:
            xs: (T, B, D) float32 array of raw features.
            mask: None, or (T, B) bool NumPy array, False where a step is padding. Padding
                stands at the end of its sequence.
        """
        steps, batch, _ = xs.shape
        h = self.normalise(xs)
        if self.cell == 'mean':
            h = self._running_mean(h)
        if self.drop_in and chainer.config.train:
            h = F.dropout(h, self.drop_in).array
        if self.cell in ('lstm', 'gru'):
            for k, layer in enumerate(self.recurrent):
                if k and self.drop_between:
                    h = F.dropout(h, self.drop_between)
                # No mask is needed here: no real step comes after padding.
                h = layer(h)
        # From here on every step is treated alike: one row each.
        h = F.reshape(h, (steps * batch, -1))
        if mask is not None:
            # Batch normalisation must not count padding, so it goes before the head.
            real = mask.ravel()
            order = numpy.concatenate([numpy.flatnonzero(real), numpy.flatnonzero(~real)])
            h = F.permutate(h, self.xp.asarray(order.astype(numpy.int32)))[:int(real.sum())]
        if self.cell in ('lstm', 'gru'):
            h = self._head(h)
        return self.out(h)

    def _head(self, h):
        h = F.dropout(h, self.drop_out) if self.drop_out else h
        if self.shape['batch_norm']:
            h = self.norm1(h)
        if self.shape['hidden']:
            h = F.sigmoid(self.fc(h))
            h = F.dropout(h, self.drop_out) if self.drop_out else h
            if self.shape['batch_norm']:
                h = self.norm2(h)
        return h

    def _running_mean(self, h):
        total = self.xp.cumsum(h, axis=0)
        if self._sum is not None:
            total += self._sum
        counts = self.xp.arange(self._steps + 1, self._steps + 1 + len(h), dtype=h.dtype)
        self._sum, self._steps = total[-1], self._steps + len(h)
        return total / counts[:, None, None]


def load_rnn(path, made_by=MADE_BY):
    """Returns (RNNNet or PoolingNet, card) from RNN.model."""
    pools = read_card(path, made_by).get('kind') == 'pooling'
    return load_network(PoolingNet if pools else RNNNet, path, made_by)


# ---- as the flags of rnn.py ask for it ------------------------------------------------

# What only one kind of network takes.
NOT_POOLING = {'layers': '--layers', 'cells': '--cells', 'hidden': '--hidden',
               'batch_norm': '--no-batch-norm', 'recurrent_dropout': '--recurrent-dropout',
               'window': '--window', 'loss_weights': '--loss'}
POOLING = {'fc': '--fc', 'fc_from_frames': '--fc-from-frames'}


def unused_flags(cell):
    """{key: flag} of those of the network's flags that this --cell has no use for."""
    return NOT_POOLING if cell in FAMILIES else POOLING


def add_network(parser):
    """Adds the flags of the network to a parser."""
    group = parser.add_argument_group('model')
    group.add_argument('--cell', choices=(*CELLS, *FAMILIES), default='lstm', metavar='KIND',
                       help='what joins the frames. Recurrent: lstm; gru, with a quarter fewer '
                            'weights. Baselines that see no order: linear, a classifier of each '
                            'frame; mean, one of the mean so far. Pooling, one answer a sequence '
                            '(Ng et al. 2015; PoolingNet.py tells more): conv-pool and late-pool, '
                            'the maximum over time before or behind the layers of --fc, which '
                            'see no order; slow-pool and local-pool, maxima of 10 frames first; '
                            'time-conv, 256 kernels over 10 frames first (default: lstm)')
    group.add_argument('--start-from', metavar='NAME',
                       help='begin with the weights of NAME.model: one that was trained on short '
                            'sequences goes on with long ones')
    group.add_argument('--layers', type=arguments.whole(1, 1000), metavar='N',
                       help='recurrent layers; more learn the training clips by heart sooner and '
                            'want more data or dropout (default: one for each of --cells)')
    group.add_argument('--cells', type=arguments.whole(1), nargs='+', default=[1024], metavar='N',
                       help='units of a layer, one number or one a layer; time and weights grow '
                            'with the square (default: 1024)')
    group.add_argument('--hidden', type=arguments.whole(0), default=1024, metavar='N',
                       help='units of the sigmoid layer behind them, 0 for none; fewer weights '
                            'overfit less (default: 1024)')
    group.add_argument('--no-batch-norm', dest='batch_norm', action='store_false',
                       help='leave out batch normalisation, which allows higher rates but is '
                            'rough with small batches')
    group.add_argument('--dropout', type=arguments.share, nargs='+', default=[0.5], metavar='RATIO',
                       help='share of numbers set to 0 in training, one ratio or three: input, '
                            'between layers, output; more overfits less and learns slower '
                            '(default: 0.5)')
    group.add_argument('--recurrent-dropout', type=arguments.share, default=0.0, metavar='RATIO',
                       help='the same on the way from step to step, one choice a sequence: '
                            'weakens what is remembered by heart (default: 0)')
    group = parser.add_argument_group('pooling')
    group.add_argument('--fc', type=arguments.whole(0), nargs='+', default=[1024, 1024],
                       metavar='N', help='units of each fully connected layer (default: 1024 1024)')
    group.add_argument('--fc-from-frames', action='store_true',
                       help='start with fc6, fc7 and fc8 of the frame network, as many and as '
                            'large as they are (wants --layer pool5)')


def check_network(parser, args):
    """Refuses what does not go together of add_network's flags; joins --layers and --cells."""
    if not args.test_only:  # or the model has its network
        _check_kind(parser, args)
    args.layers = len(args.cells) if args.layers is None else args.layers
    if len(args.cells) not in (1, args.layers):
        raise UserError(f'--layers {args.layers} --cells {" ".join(map(str, args.cells))}: one '
                        'number of cells, or one for each of the layers')
    args.cells = args.cells * (args.layers // len(args.cells))
    if len(args.dropout) not in (1, 3):
        raise UserError('--dropout takes one ratio or three')


def _check_kind(parser, args):
    """Refuses flags that the network of --cell has no use for."""
    pools = args.cell in FAMILIES
    for key, flag in (unused_flags(args.cell)).items():
        if getattr(args, key) != parser.get_default(key):
            raise UserError(f'{flag} is not for --cell {args.cell}'
                            + ', which takes a sequence as a whole' * pools)
    if args.fc_from_frames and (args.layer != 'pool5' or args.fc != parser.get_default('fc')):
        raise UserError('--fc-from-frames wants --layer pool5, and no --fc')
    if FAMILIES.get(args.cell, FAMILIES['conv-pool']).join == 'concatenate':
        if (args.variable_length or args.inference == 'full'
                or args.test_steps not in (args.steps, parser.get_default('test_steps'))):
            raise UserError(f'--cell {args.cell} is made for sequences of one length: no '
                            '--variable-length, no --inference full, --test-steps as --steps')
        args.test_steps = args.steps


def method_of(args, imported=None):
    """'LSTM 2x1024', 'GRU 512-256', 'linear', 'conv pooling', 'flow LSTM 2x1024'; with the name
    of the network of `imported` features 'LSTM 2x1024 on resnet50'."""
    if args.cell in FAMILIES:
        method = FAMILIES[args.cell].method
    elif args.cell in ('lstm', 'gru'):
        units = (f'{args.layers}x{args.cells[0]}' if len(set(args.cells)) == 1
                 else '-'.join(map(str, args.cells)))
        method = f'{args.cell.upper()} {units}'
    else:
        method = args.cell
    return variants.names_of(args).method(method + (f' on {imported}' if imported else ''))


def new_network(args, n_in, n_classes, f):
    """Returns the RNNNet or PoolingNet that the flags ask for.

    Args:
        args: what a parser with the flags of add_network, --root and the variant gives.
        f: open HDF5 file of features, of length n_in, with their statistics.
    """
    dropout = args.dropout * 3 if len(args.dropout) == 1 else args.dropout
    if args.cell not in FAMILIES:
        model = RNNNet(n_in, n_classes, args.cell, args.cells, args.hidden, args.batch_norm,
                       dropout, args.recurrent_dropout)
        model.set_statistics(*statistics.read(f))
        return model
    fc, vgg = [units for units in args.fc if units], None
    if args.fc_from_frames:
        path = args.root / variants.names_of(args).model
        vgg, _ = load_frame_network(
            path, f'python frameBasedTrain.py{variants.flags_of(args, *variants.OF_FRAMES)}',
            args.stream)
        if weights_digest(path) != hdf5.attribute(f, 'model_sha256'):
            raise UserError(f'{path}: another network than made the features; make them again: '
                            + variants.features_maker(args))
        fc = [vgg.shape['hidden'], vgg.n_features]
    maps = hdf5.attribute(f, 'maps')
    if maps is not None and math.prod(maps.tolist()) != n_in:
        raise UserError(f'{f.filename}: its maps are {maps}, but a feature has {n_in} numbers; '
                        'make it again')
    model = PoolingNet(n_in, n_classes, args.cell, fc, maps, args.steps, dropout)
    if vgg is None:
        model.set_statistics(*statistics.read(f))
    else:
        print(f'{", ".join(model.start_from_frames(vgg)) or "no layer"} from {path}')
    return model
