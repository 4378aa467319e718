"""Stage 6: trains a recurrent or pooling network on sequences of frame features, then tests it.

Needs   ROOT/train1024.hdf5 with statistics (python normalizeData.py), ROOT/test1024.hdf5
Writes  ROOT/RNN.model, ROOT/RNN_testPredictions.hdf5, ROOT/RNN_validationPredictions.hdf5,
        log, loss curve and snapshot in ROOT/RNN.training/, a line in ROOT/results.jsonl

    python rnn.py                                    # the original: one LSTM of 1024 cells
    python rnn.py --name deep --layers 5 --cells 512 --optimizer adam --lr 0.0005
    python rnn.py --name deeper --start-from deep --layers 5 --cells 512 --steps 240
    python rnn.py --name linear --cell linear        # a baseline that sees no order
    python rnn.py --name conv --cell conv-pool --layer pool5 --fc-from-frames --batch 32
    python rnn.py --name deep --test-only --inference segments:4 --test-steps 60

The groups that the frame network did not see validate; the weights of the epoch with the
lowest validation loss are kept (--keep). The test list is read once, after that. Run again to
resume. --test-only looks at the clips in another way with a model that is there; its predictions
get a name of their own, such as deep-segments4x60-linear_testPredictions.hdf5.
Beside a network that sees order one that sees none is trained with the same flags, once, and
the difference is told (--no-baseline). Exit code 3: all is done but for that.
"""
import argparse
import re
import sys

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

import helperFunctions as hf
from engine import arguments, hdf5, locks, stage, variants
from engine.weights import cardchecks
from engine.reporting import baselines, calibration, counted, predictionfile, resultsfile, scoring
from RNNNet import add_network, check_network, load_rnn, method_of, new_network, unused_flags
from engine.learning import examples, workers
from engine.errors import Stopped, UserError
from engine.progress import followed
from engine.learning.inference import add_inference, check_technique, predict
from engine.weights.card import read_card
from engine.weights.modelfile import go_on_from, save_model
from engine.learning.sequences import SequenceBatches, add_sequences, say_if_short
from engine.learning.optimisation import add_optimizer, make_optimizer
from engine.learning.rates import get_rate
from engine.learning.snapshots import Best, add_keep, kept_line, told_of
from engine.learning.trainingset import check_test_features, read_tested, read_training
from engine.learning.trainer import Training, Updater, reseed, say_if_few
from engine.learning.steploss import LOSSES, sequence_loss, step_weights

FEW_CLIPS_EPOCHS = 50  # with a few hundred of them: docs/own-videos.md


# ---- flags -----------------------------------------------------------------------

def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('--name', help='names the model and its files (default: RNN, RNN_flow ...)')
    stage.add_variant(parser, 'stream', 'fusion', 'layer', 'fold')
    add_network(parser)
    add_sequences(parser)
    examples.add_examples(parser)
    add_optimisation(parser)
    add_test(parser)
    add_bookkeeping(parser)
    stage.add_device(parser, convolutions=False)
    workers.add_communicator(parser)
    return parser


def add_optimisation(parser):
    group = parser.add_argument_group('optimisation')
    group.add_argument('--epochs', type=arguments.whole(1), default=25,
                       help='at most (default: 25)')
    group.add_argument('--batch', type=arguments.whole(1), default=384, metavar='N',
                       help='sequences an update; smaller is noisier, with more updates an epoch '
                            '(default: 384)')
    add_optimizer(group)
    group.add_argument('--window', type=arguments.whole(1), default=30, metavar='N',
                       help='steps between two updates, and that a gradient reaches back; longer '
                            'links events further apart, with fewer updates and more memory '
                            '(default: 30)')
    group.add_argument('--loss', choices=LOSSES, default='linear', dest='loss_weights',
                       help='what step j of T counts: (j+1)/T, as much is unknown early on; '
                            'uniform, so that early guesses matter as much; or the last alone '
                            '(default: linear)')
    group.add_argument('--patience', type=arguments.whole(0), default=0, metavar='EPOCHS',
                       help='stop after so many without a better one (default: 0, never)')
    add_keep(group)


def add_test(parser):
    group = parser.add_argument_group('test (and validation)')
    group.add_argument('--test-only', action='store_true',
                       help='test NAME.model, as in its training but for these flags; nothing is '
                            'trained')
    add_inference(group)
    group.add_argument('--readout', choices=scoring.READOUTS, default='linear',
                       help='how the steps make one prediction: mean of log probability, the '
                            'same weighted (j+1)/T, last step, or maximum; the mean names the '
                            'class that the sum does (default: linear)')
    counted.add_without(group)


def add_bookkeeping(parser):
    group = parser.add_argument_group('bookkeeping')
    group.add_argument('--memory', type=arguments.not_negative, default=4.0, metavar='GIB',
                       help='features up to this size are held in memory (default: 4)')
    group.add_argument('--restart', action='store_true',
                       help='begin anew even if there is a snapshot')
    group.add_argument('--baseline', action=argparse.BooleanOptionalAction, default=True,
                       help='after the test of a network that sees order train one that sees '
                            'none, --cell mean --name baseline, if these features have none yet, '
                            'to tell what order adds')


def parse(parser, argv=None, **usual):
    """Parses flags and checks what argparse cannot.

    Args:
        usual: other defaults than the parser's, with --tiny too.
    """
    parser.set_defaults(**usual)
    args = stage.parse(parser, argv, **{**dict(
        epochs=2, batch=8, steps=16, window=8, cells=[16], hidden=16, fc=[16], test_steps=16,
        baseline=False),
        **usual})
    check_network(parser, args)
    get_rate(args)  # refuses what does not go together
    check_technique(args.inference, args.test_steps)
    if args.stream == 'flow':
        if args.reverse_too:
            raise UserError('--reverse-too: not of --stream flow; what moves back has other flow')
        args.reverse = False
    args.name = (variants.name_in_fold(args.name, args.fold) if args.name else
                 variants.names_of(args).of('RNN'))
    args.start_from = args.start_from and variants.name_in_fold(args.start_from, args.fold)
    if not re.fullmatch(r'[\w.,+-]+', args.name):
        raise UserError(f'--name {args.name}: a name of letters, digits and _ . , + - alone, '
                        'not a path')
    if args.start_from == args.name:
        raise UserError(f'--start-from {args.name}: a run cannot start from itself; give it '
                        'another --name')
    return args


def made_by(args):
    """The command that makes what this stage reads."""
    return f'python save_hdf5.py{variants.flags_of(args)}'


def trained_by(args, name):
    """The command that trains NAME.model."""
    return f'python rnn.py{variants.flags_of(args)} --name {name}'


def settings_of(args):
    """What decides a result, as JSON values."""
    return {key: value for key, value in examples.without_usual(stage.settings_of(args)).items()
            if key not in ('test_only', *unused_flags(args.cell))
            and (key, value) not in (('start_from', None), ('keep', 'lowest'))}


# ---- the training ----------------------------------------------------------------

class WindowUpdater(Updater):
    """Truncated back-propagation: one update of the weights a window of steps."""

    def __init__(self, model, window, loss_weights, *args, class_weights=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model, self.window, self.loss_weights = model, window, loss_weights
        self.class_weights = class_weights

    def learn(self, batch, optimizer):
        xs, labels, lengths = batch  # (T, B, D), (B,), (B,)
        weights = step_weights(self.loss_weights, lengths, len(xs))
        counts = weights if self.class_weights is None else weights * self.class_weights[labels]
        mask = numpy.arange(len(xs))[:, None] < lengths
        padded = not mask.all()
        total = right = 0.0
        self.model.reset_state()
        for start in range(0, len(xs), self.window):
            now = slice(start, start + self.window)
            loss, hits = sequence_loss(self.model, xs[now], labels, counts[now],
                                       mask[now] if padded else None)
            total += float(loss.array) * len(labels)
            right += hits
            if not self.is_finite(loss):
                return
            if not self.workers.any(weights[now].any())[0]:
                continue  # nothing of this window counts; only the state goes on
            optimizer.target.cleargrads()
            (loss * self.weight).backward()
            loss.unchain_backward()  # only the state goes on into the next window
            optimizer.update()
        # A share that counts nothing repeats a clip of another worker's.
        is_real = self.weight > 0
        total, weights, right, real = self.workers.mean(
            *(is_real * float(value) for value in (total, weights.sum(), right, mask.sum())))
        chainer.report({'loss': total / weights, 'accuracy': right / real}, optimizer.target)


class SequenceUpdater(Updater):
    """One update a batch of whole sequences, of a network that answers once for each."""

    def __init__(self, model, *args, class_weights=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model = model
        self.given = {} if class_weights is None else {'class_weights': class_weights}

    def learn(self, batch, optimizer):
        loss = self.model.loss(*batch, **self.given)
        if self.is_finite(loss):
            optimizer.target.cleargrads()
            (loss * self.weight).backward()
            optimizer.update()


def make_updater(args, model, data, device, team, class_weights):
    """What learns from random segments of the training clips."""
    batches = SequenceBatches(data.training, args.batch * team.size, args.steps, args.seed,
                              args.reverse, args.stride, args.noise, args.drop_frames, data.std,
                              args.variable_length, team.share_of, args.balanced_sampling)
    say_if_few(batches.batches_per_epoch * (1 if model.once else -(-args.steps // args.window)),
               {'a smaller --batch': args.batch > 1,
                '--optimizer adam': args.optimizer != 'adam',
                'more --epochs': args.epochs < FEW_CLIPS_EPOCHS}, 'docs/own-videos.md')
    say_if_short(data.training.lengths, args.steps)
    common = dict(seed=args.seed, device=device, workers=team, rate=get_rate(args)[0],
                  class_weights=class_weights,
                  converter=lambda batch, device: (device.send(batch[0]), *batch[1:]))
    optimizer = make_optimizer(args, model, team)
    if model.once:
        return SequenceUpdater(model, batches, optimizer, **common)
    return WindowUpdater(model, args.window, args.loss_weights, batches, optimizer, **common)


def start_network(args, f, data, lists):
    """Returns (the network to train on the Data of an open train1024.hdf5, what its card tells of
    the two, what is told of the model that it starts from)."""
    model = new_network(args, data.training.n_features, len(lists.classes), f)
    card = {'kind': 'pooling' if model.once else 'rnn', 'shape': model.shape,
            'method': method_of(args, hdf5.attribute(f, 'imported')),
            'classes': lists.classes, 'split': args.split, 'features': data.made_by,
            'trained_clips': sorted(clip.name for clip in data.training.clips),
            **data.told(),
            **({'beside': args.beside} if 'beside' in args else {})}
    if not args.start_from:
        return model, card, {}
    path, maker = args.root / f'{args.start_from}.model', trained_by(args, args.start_from)
    earlier = read_card(path, maker)
    cardchecks.check_unseen(path, earlier, data.validation.clips, 'validation',
                            f'train it anew before: {maker} --restart')
    # What it has learned from counts as learned from here, too.
    card['trained_clips'] = sorted({*card['trained_clips'], *earlier.get('trained_clips', ())})
    return model, card, {'start_from_sha256': go_on_from(path, model, card, maker)}


def train(args, device, lists, team):
    """Trains, and saves the model of the best epoch with its figures; returns the seconds.

    Args:
        team (Workers): the processes that share the work; all but the first return None.
    """
    names = variants.names_of(args)
    with hdf5.open_hdf5(args.root / names.train, made_by(args)) as f:
        data = read_training(args, f, lists, made_by(args))
        reseed(device, args.seed)
        model, card, started = start_network(args, f, data, lists)
        team.join_batch_statistics(model)
        model.to_device(device)
        kernel = stage.tell_kernel(model)
        folder = args.root / f'{args.name}.training'
        best = Best(folder / 'best.npz', model, args.patience, args.keep)

        def validate():
            figures = scoring.score_videos(
                look_at(args, model, data.validation, device, args.seed),
                data.validation.clips, args.readout)
            best.add(figures['loss'], figures['top1'])
            return {'loss': figures['loss'], 'accuracy': figures['top1']}

        class_weights = examples.class_weights(args.class_weights, data.training.labels,
                                               len(lists.classes))
        settings = dict(settings_of(args), schedule=get_rate(args)[1], seed=args.seed,
                        split=args.split, features=data.made_by, packed=data.packed,
                        workers=team.size, **started,
                        **examples.which(data.training.clips, data.validation.clips))
        run = Training(make_updater(args, model, data, device, team, class_weights), args.epochs,
                       folder, settings, validate if len(data.validation) else None, best,
                       restart=args.restart, kernel=kernel)
        run.run()
        if not team.first:
            return None
        if len(data.validation):
            best.load()
        kernel, log = run.kernel() or kernel, run.log()
        kept = kept_line(log, args.keep, args.epochs, args.patience)
        model.reset_state()
    model.to_device('@numpy')
    save_model(args.root / f'{args.name}.model', model, {
        **card, **names.said(), **started,
        'training': {**told_of(kept, log), **examples.told_of(data.training.clips)},
        **examples.told_of_weights(class_weights, lists.classes),
        **stage.provenance(args, {**settings_of(args), **team.settings()}, kernel)})
    return round(log[-1]['elapsed_time'], 1)


# ---- the test --------------------------------------------------------------------

def look_at(args, model, store, device, seed, kind='validation'):
    """Yields what `predict` gives: all clips of a store as these flags show them."""
    return followed(predict(model, store, device, args.batch, technique=args.inference,
                            steps=args.test_steps, reverse_too=args.reverse_too, seed=seed),
                    len(store), kind)


def predictions_name(args):
    """What prediction files begin with: NAME, or with --test-only how the clips were shown too."""
    return args.name if not args.test_only else variants.tested_name(
        args.name, args.inference, args.test_steps, args.reverse_too, args.readout)


def write_predictions(args, model, card, device, f, kind, lists, out):
    """Predicts the 'validation' or 'test' clips of an open file of features; returns those of them
    that have features."""
    store = read_tested(args, f, kind, lists, model, card, made_by(args),
                        trained_by(args, args.name))
    if len(store):
        predictionfile.write_predictions(
            out, look_at(args, model, store, device, card['seed'], kind), lists.classes,
            card['method'], args.split, args.readout)
    return store.clips


def test(args, device, lists, **figures):
    """Predicts the validation and the test clips with NAME.model, and appends the result.

    Args:
        figures: what else goes into the result's line.
    """
    names, name = variants.names_of(args), predictions_name(args)
    path = args.root / f'{args.name}.model'
    model, card = load_rnn(path, trained_by(args, args.name))
    cardchecks.check_rnn(path, card, lists.classes, args.split, trained_by(args, args.name))
    model.to_device(device)
    if args.test_only:
        stage.tell_kernel(model)
    found = {}
    for kind, source in (('validation', names.train), ('test', names.test)):
        out = args.root / f'{name}_{kind}Predictions.hdf5'
        with hdf5.open_hdf5(args.root / source, made_by(args)) as f:
            clips = write_predictions(args, model, card, device, f, kind, lists, out)
            made = cardchecks.made_in(f.filename, hdf5.attributes(f))
        if clips:
            found[kind] = calibration.read_logs(out, clips, trained_by(args, args.name))
    if 'test' not in found:
        raise UserError(f'{args.root / names.test}: holds no test clip; made by: {made_by(args)}')
    settings = {**card['settings'], **{key: vars(args)[key] for key in stage.TEST_FLAGS},
                **counted.settings(args.without)}
    without = counted.label_of(args.without, lists.classes)
    if 'validation' in found:
        figures.update(calibration.figures(**found, model=None if args.test_only else path,
                                           without=without))
    tested = scoring.score(*counted.counted(*found['test'], without))
    resultsfile.append_result(args.root, card['method'], args.split, 'video', card['seed'],
                              settings, predictions=out.name, **resultsfile.fold_of(names),
                              **resultsfile.tested_on(*made, clips), **card['training'],
                              **figures, **tested)
    print(f'{card["method"]} by video:  {scoring.in_words(tested)}{calibration.in_words(figures)}')
    # Where they are not those that confusion.py takes by itself.
    compared = ('' if (names, name) == (variants.Names(), 'RNN') else ' ' + ' '.join(
        dict.fromkeys((variants.frames_file(args.root, names), out.name))))
    print(f'wrote {out}; next: python results.py{variants.place(args.root)}, '
          f'python confusion.py{variants.place(args.root, args.split)}{compared}')


# ---- beside it, a network that sees no order --------------------------------------

def tell_baseline(args, device, lists, alone):
    """Holds the result against one without order on the same features, trained first where there
    is none: with --baseline, by one process (`alone`), of all groups; returns the exit code."""
    run = args.root, args.name, args.split, args.without
    mine, earlier = baselines.beside(*run, earlier=True)
    if not (mine and baselines.sees_order(mine)):
        return 0
    name = variants.names_of(args).of('baseline')
    try:
        other = baselines.beside(*run)[1]
        if not other and args.baseline and alone and name != args.name and args.train_share == 1:
            print(f'now {name}, which sees no order (--no-baseline leaves it out):', flush=True)
            usual = get_parser().get_default
            given = argparse.Namespace(**{
                **vars(args), 'cell': 'mean', 'name': name, 'beside': args.name,
                'restart': baselines.may_be_replaced(args.root, name, mine) and (
                    args.restart or earlier is not None),
                **{key: usual(key) for key in ('start_from', 'fc', 'fc_from_frames')}})
            with locks.only_one(args.root / f'{name}.model'):
                test(given, device, lists, seconds=train(given, device, lists, workers.Workers()))
            other = baselines.beside(*run)[1]
    except Stopped:
        raise
    except UserError as error:
        print(f'no baseline beside {args.name}: {error}', file=sys.stderr)
        return 3
    if other:
        print(baselines.what_order_adds(mine, other))
    elif args.baseline:
        print(f'no run without order to hold against: {baselines.what_makes_one(mine)}')
    return 0


# ---- all of it -------------------------------------------------------------------

def parse_as_trained(parser):
    """Parses the command line; with --test-only the model's own way of testing is the default."""
    args = parse(parser)
    older = args.name if args.test_only else args.start_from
    if older:
        # Else its features would seem to be the wrong ones.
        path = args.root / f'{older}.model'
        card = read_card(path, trained_by(args, older))
        cardchecks.check_trained_on(path, card, variants.names_of(args))
        if args.test_only:
            was = card.get('settings', {})
            args = parse(parser, **{key: was[key] for key in stage.TEST_FLAGS if key in was})
    return args


def main():
    args = parse_as_trained(get_parser())
    team = workers.get_workers(args.communicator)
    stage.print_settings(args)
    device = stage.get_device(team.device(args.device))
    lists = hf.read_lists(args.root, args.split)
    counted.label_of(args.without, lists.classes)  # refuses what is none, before hours of work
    check_test_features(args, made_by(args))
    written = [f'{args.name}.model'] * (not args.test_only) + [
        predictions_name(args) + of_clips
        for of_clips in (variants.TEST_SUFFIX, variants.VALIDATION_SUFFIX)]
    with locks.only_one(args.root / written[0], when=team.first):
        team.from_first(lambda: resultsfile.check_outputs(args.root, *written))
        figures = ({'test_only': True} if args.test_only
                   else {'seconds': train(args, device, lists, team)})
        if team.first:
            # The only place that reads the test clips, after all choices are made.
            test(args, device, lists, **figures)
    if team.first and not args.test_only:
        return tell_baseline(args, device, lists, team.size == 1)


if __name__ == '__main__':
    stage.run(main)
