"""Stage 6: trains a recurrent network on sequences of frame features, then tests it.

Needs   ROOT/train1024.hdf5 with statistics (python normalizeData.py), ROOT/test1024.hdf5
Writes  ROOT/RNN.model, ROOT/RNN_testPredictions.hdf5, ROOT/RNN_validationPredictions.hdf5,
        log, loss curve and snapshot in ROOT/RNN.training/, a line in ROOT/results.jsonl

    python rnn.py                                    # the original: one LSTM of 1024 cells
    python rnn.py --name deep --layers 5 --cells 512 --optimizer adam --lr 0.0005
    python rnn.py --name linear --cell linear        # a baseline that sees no order

The groups that the frame network did not see validate; the weights of the epoch with the
lowest validation loss are kept. The test list is read once, after that. Run again to resume.
"""
import os
import platform
import time

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
from chainer.optimizer_hooks import GradientClipping, GradientHardClipping, WeightDecay

import helperFunctions as hf
from RNNNet import CELLS, RNNNet
from engine import statistics
from engine.errors import UserError
from engine.modelfile import load_weights, save_model
from engine.sequences import FeatureStore, SequenceBatches, by_length, reverse_append
from engine.training import Training, Updater, reseed

LOSS_WEIGHTS = ('linear', 'uniform', 'last')


def get_parser():
    parser = hf.stage_parser(__doc__)
    parser.add_argument('--name', default='RNN',
                        help='names the model and all its files (default: RNN)')
    group = parser.add_argument_group('model')
    group.add_argument('--cell', choices=CELLS, default='lstm',
                       help='lstm, gru, or a baseline without order: linear, mean of frames')
    group.add_argument('--layers', type=int, default=1, help='recurrent layers (default: 1)')
    group.add_argument('--cells', type=int, default=1024, help='units a layer (default: 1024)')
    group.add_argument('--hidden', type=int, default=1024,
                       help='sigmoid layer behind them, 0 for none (default: 1024)')
    group.add_argument('--no-batch-norm', dest='batch_norm', action='store_false',
                       help='leave out batch normalisation')
    group.add_argument('--dropout', type=float, nargs='+', default=[0.5], metavar='RATIO',
                       help='one ratio, or three: input, between layers, output (default: 0.5)')
    group.add_argument('--recurrent-dropout', type=float, default=0.0, metavar='RATIO',
                       help='on the way from step to step (default: 0)')
    group = parser.add_argument_group('sequences')
    group.add_argument('--steps', type=int, default=120,
                       help='frames of a training sequence (default: 120)')
    group.add_argument('--window', type=int, default=30,
                       help='steps that a gradient reaches back (default: 30)')
    group.add_argument('--no-reverse', dest='reverse', action='store_false',
                       help='never run a sequence backward (where direction tells the class)')
    group.add_argument('--stride', type=int, default=1,
                       help='every k-th frame, k random up to this (default: 1)')
    group.add_argument('--noise', type=float, default=0.0,
                       help="noise on the features, in each one's deviations (default: 0)")
    group.add_argument('--drop-frames', type=float, default=0.0, metavar='SHARE',
                       help='steps that repeat the one before (default: 0)')
    group = parser.add_argument_group('optimisation')
    group.add_argument('--epochs', type=int, default=25, help='default: 25')
    group.add_argument('--batch', type=int, default=384, help='sequences a batch (default: 384)')
    group.add_argument('--optimizer', choices=('momentum', 'adam'), default='momentum')
    group.add_argument('--lr', type=float, default=0.0005, help='learning rate (default: 0.0005)')
    group.add_argument('--lr-drop', type=int, default=0, metavar='EPOCHS',
                       help='divide the rate by 10 every so many epochs (default: never)')
    group.add_argument('--weight-decay', type=float, default=0.0, help='default: 0')
    group.add_argument('--clip', type=float, default=5.0,
                       help='largest norm of the gradient, 0 for no limit (default: 5)')
    group.add_argument('--clip-value', type=float, default=0.0,
                       help='largest single number in the gradient, 0 for no limit (default: 0)')
    group.add_argument('--loss', choices=LOSS_WEIGHTS, default='linear', dest='loss_weights',
                       help='weight of step j: (j+1)/T as in the original, uniform, or the last '
                            'step alone (default: linear)')
    group.add_argument('--patience', type=int, default=0, metavar='EPOCHS',
                       help='stop when the validation loss has not fallen for so many epochs '
                            '(default: 0, never)')
    group = parser.add_argument_group('test')
    group.add_argument('--test-steps', type=int, default=180, metavar='N',
                       help='frames of a test sequence, from the start, short clips '
                            'reverse-appended; 0 takes each clip as it is (default: 180)')
    group.add_argument('--readout', choices=hf.READOUTS, default='linear',
                       help='how the steps make one prediction (default: linear)')
    group = parser.add_argument_group('bookkeeping')
    group.add_argument('--memory', type=float, default=4.0, metavar='GIB',
                       help='features up to this size are held in memory (default: 4)')
    group.add_argument('--restart', action='store_true',
                       help='begin anew even if there is a snapshot')
    hf.add_device(parser)
    return parser


def step_weights(kind, steps):
    """(steps,) float32: how much each step's loss counts."""
    if kind == 'linear':
        return (numpy.arange(1, steps + 1) / steps).astype(numpy.float32)
    if kind == 'uniform':
        return numpy.ones(steps, numpy.float32)
    weights = numpy.zeros(steps, numpy.float32)
    weights[-1] = 1
    return weights


def weighted_loss(scores, labels, weights):
    """Sum over steps of weight times mean cross entropy over the batch.

    Args:
        scores: Variable (T, B, C); labels: (B,) int32; weights: (T,) float32.
    """
    steps, batch, n_classes = scores.shape
    losses = F.softmax_cross_entropy(F.reshape(scores, (steps * batch, n_classes)),
                                     chainer.backend.get_array_module(labels).tile(labels, steps),
                                     reduce='no')
    return F.sum(F.reshape(losses, (steps, batch)) * weights[:, None]) / batch


class WindowUpdater(Updater):
    """Truncated back-propagation: one update of the weights a window of steps."""

    def __init__(self, model, window, loss_weights, *args, **kwargs):
        super().__init__(*args, compute_loss=None, **kwargs)
        self.model, self.window, self.loss_weights = model, window, loss_weights

    def step(self, batch, optimizer):
        xs, labels = batch
        weights = self.device.send(step_weights(self.loss_weights, len(xs)))
        total = right = 0.0
        self.model.reset_state()
        for start in range(0, len(xs), self.window):
            window = slice(start, start + self.window)
            scores = self.model(xs[window])
            loss = weighted_loss(scores, labels, weights[window])
            if not self.finite(loss):
                return
            total += float(loss.array)
            right += float((scores.array.argmax(axis=2) == labels).sum())
            if not float(weights[window].sum()):
                continue  # nothing of this window counts; only the state goes on
            optimizer.target.cleargrads()
            loss.backward()
            del loss, scores
            optimizer.update()
        chainer.report({'loss': total / float(weights.sum()),
                        'accuracy': right / xs.shape[0] / xs.shape[1]}, optimizer.target)


def predict(model, store, device, steps, batch_size):
    """Yields (clip name, (T, C) softmax of every step), in the order of the clips' lengths."""
    wanted = [reverse_append(n, steps)[:steps or n] for n in store.lengths]
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for members in by_length(wanted, batch_size):
            xs = device.send(numpy.stack([store.rows(i, wanted[i]) for i in members], axis=1))
            model.reset_state()
            probabilities = F.softmax(model(xs), axis=2).array
            for column, i in enumerate(members):
                yield store.clips[i].name, chainer.get_device('@numpy').send(probabilities[:, column])


class Best:
    """Keeps the weights of the epoch with the lowest validation loss; says when to stop."""

    def __init__(self, path, model, patience):
        self.path, self.model, self.patience = path, model, patience
        self.loss, self.age = float('inf'), 0

    def add(self, loss):
        """Takes in one epoch's validation loss."""
        self.age += 1
        if loss < self.loss:
            self.loss, self.age = loss, 0
            save_model(self.path, self.model, {}, form='npz')

    def should_stop(self):
        return bool(self.patience) and self.age >= self.patience

    def __call__(self, trainer):
        """Nothing to do: an extension only so that the snapshot holds it."""

    def serialize(self, serializer):
        self.loss = float(serializer('loss', self.loss))
        self.age = int(serializer('age', self.age))


def make_optimizer(args, model):
    optimizer = (chainer.optimizers.Adam(args.lr) if args.optimizer == 'adam'
                 else chainer.optimizers.MomentumSGD(args.lr, 0.9))
    optimizer.setup(model)
    if args.weight_decay:
        optimizer.add_hook(WeightDecay(args.weight_decay))
    if args.clip:
        optimizer.add_hook(GradientClipping(args.clip))
    if args.clip_value:
        optimizer.add_hook(GradientHardClipping(-args.clip_value, args.clip_value))
    return optimizer


def train(args, device, lists):
    """Trains and saves the model; returns (model, last line of the log, seconds)."""
    started = time.time()
    with hf.open_hdf5(args.root / hf.TRAIN_HDF5, 'python save_hdf5.py') as f:
        hf.check_classes(f.filename, f.attrs, lists.classes)
        mean, std = statistics.read(f)
        held_out = set(statistics.read_names(f, '_held_out'))
        training = FeatureStore(f, [c for c in lists.train if c.name not in held_out],
                                args.memory)
        validation = FeatureStore(f, [c for c in lists.train if c.name in held_out],
                                  args.memory)
        print(f'{len(training)} clips to train, {len(validation)} to validate, '
              f'{len(lists.classes)} classes, features '
              f'{"in memory" if training.in_memory else "read from the file"}', flush=True)
        reseed(device, args.seed)
        dropout = args.dropout * 3 if len(args.dropout) == 1 else args.dropout
        model = RNNNet(training.n_features, len(lists.classes), args.cell, args.layers,
                       args.cells, args.hidden, args.batch_norm, dropout,
                       args.recurrent_dropout)
        model.set_statistics(mean, std)
        model.to_device(device)
        folder = args.root / f'{args.name}.training'
        best = Best(folder / 'best.npz', model, args.patience)

        def validate():
            log_probabilities, labels = [], []
            label_of = {clip.name: clip.label for clip in validation.clips}
            for name, steps in predict(model, validation, device, args.steps, args.batch):
                log_probabilities.append(hf.video_log_probability(steps, args.readout))
                labels.append(label_of[name])
            figures = hf.score(log_probabilities, labels)
            best.add(figures['loss'])
            return {'loss': figures['loss'], 'accuracy': figures['top1']}

        batches = SequenceBatches(training, args.batch, args.steps, args.seed, args.reverse,
                                  args.stride, args.noise, args.drop_frames, std)
        run = Training(
            WindowUpdater(model, args.window, args.loss_weights, batches,
                          make_optimizer(args, model), seed=args.seed, device=device,
                          converter=lambda batch, device: tuple(map(device.send, batch))),
            args.epochs, folder,
            dict(hf.settings_of(args), seed=args.seed, split=args.split,
                 features=str(f.attrs['model_sha256'])),
            validate if len(validation) else None, best.should_stop, best,
            restart=args.restart)
        if args.lr_drop:
            run.trainer.extend(chainer.training.extensions.ExponentialShift(
                'alpha' if args.optimizer == 'adam' else 'lr', 0.1),
                trigger=(args.lr_drop, 'epoch'))
        run.run()
        if len(validation):
            load_weights(best.path, model)
        model.reset_state()
        log = run.log()[-1]
        hf.write_predictions(args.root / f'{args.name}_validationPredictions.hdf5',
                             predict(model, validation, device, args.test_steps, args.batch),
                             lists.classes, method_of(args), args.split, args.readout)
    model.to_device('@numpy')
    save_model(args.root / f'{args.name}.model', model, {
        'kind': 'rnn', 'shape': model.shape, 'classes': lists.classes, 'split': args.split,
        'seed': args.seed, 'settings': hf.settings_of(args), 'commit': hf.commit(),
        'validation_loss': best.loss if len(validation) else None,
        'versions': {'python': platform.python_version(), 'numpy': numpy.__version__,
                     'chainer': chainer.__version__}})
    model.to_device(device)
    return model, log, time.time() - started


def method_of(args):
    """'LSTM 2x1024', 'linear'."""
    if args.cell in ('lstm', 'gru'):
        return f'{args.cell.upper()} {args.layers}x{args.cells}'
    return args.cell


def main():
    args = hf.parse_stage(get_parser(), epochs=2, batch=8, steps=16, window=8, cells=16,
                          hidden=16, test_steps=16)
    if len(args.dropout) not in (1, 3):
        raise UserError('--dropout: one ratio, or three')
    if not args.layers >= 1:
        raise UserError('--layers: at least 1')
    if os.path.basename(args.name) != args.name:
        raise UserError(f'--name {args.name}: a name, not a path')
    hf.print_settings(args)
    device = hf.get_device(args.device)
    lists = hf.read_lists(args.root, args.split)
    model, log, seconds = train(args, device, lists)

    # The only place that reads the test clips, after all choices are made.
    out = args.root / f'{args.name}_testPredictions.hdf5'
    with hf.open_hdf5(args.root / hf.TEST_HDF5, 'python save_hdf5.py') as f:
        hf.check_classes(f.filename, f.attrs, lists.classes)
        test = FeatureStore(f, lists.test, args.memory)
        if len(test) < len(lists.test):
            print(f'{len(lists.test) - len(test)} test clips have no features and are not '
                  'counted')
        hf.write_predictions(out, predict(model, test, device, args.test_steps, args.batch),
                             lists.classes, method_of(args), args.split, args.readout)
    predictions, attrs = hf.read_predictions(out, lists.test, lists.classes)
    clips = [clip for clip in lists.test if clip.name in predictions]
    figures = hf.score([hf.video_log_probability(predictions[clip.name], attrs['readout'])
                        for clip in clips], [clip.label for clip in clips])
    hf.append_result(args.root, method_of(args), args.split, 'video', args.seed,
                     hf.settings_of(args), predictions=out.name, seconds=round(seconds, 1),
                     train_loss=log.get('main/loss'), train_accuracy=log.get('main/accuracy'),
                     **figures)
    print(f'{method_of(args)} by video:  {hf.in_words(figures)}')
    print(f'wrote {args.root / args.name}.model, {out}; next: python confusion.py')


if __name__ == '__main__':
    hf.stage_main(main)
