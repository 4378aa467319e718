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
lowest validation loss are kept. The test list is read once, after that. Run again to resume.
--test-only looks at the clips in another way with a model that is there; its predictions get
a name of their own, such as deep-segments4x60-linear_testPredictions.hdf5.
"""
import json
import re

import engine.chainer_today  # noqa: F401  (before chainer)
from chainer.optimizer_hooks import GradientClipping, GradientHardClipping

import helperFunctions as hf
from engine import arguments, hdf5, stage, variants
from engine.weights import cards
from engine.reporting import predictionfile, resultsfile, scoring
from PoolingNet import FAMILIES, PoolingNet
from RNNNet import CELLS, RNNNet, load_rnn
from FusionNet import load_frame_network
from engine.learning import statistics, workers
from engine.errors import UserError
from engine.learning.inference import check_technique, predict
from engine.weights.modelfile import (go_on_from, load_weights, read_card, save_model,
                              weights_digest)
from engine.fast.optimizers import Adam, MomentumSGD, WeightDecay
from engine.learning.sequences import FeatureStore, SequenceBatches
from engine.learning.training import Best, Training, Updater, add_rate, get_rate, reseed
from engine.learning.truncated import LOSSES, WindowUpdater


# What only one kind of network takes.
NOT_POOLING = {'layers': '--layers', 'cells': '--cells', 'hidden': '--hidden',
               'batch_norm': '--no-batch-norm', 'recurrent_dropout': '--recurrent-dropout',
               'window': '--window', 'loss_weights': '--loss'}
POOLING = {'fc': '--fc', 'fc_from_frames': '--fc-from-frames'}


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('--name',
                        help='names the model and all its files (default: RNN, or RNN_flow ...)')
    stage.add_variant(parser, 'stream', 'fusion', 'layer')
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
    group.add_argument('--layers', type=arguments.whole(1), metavar='N',
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
    group.add_argument('--dropout', type=float, nargs='+', default=[0.5], metavar='RATIO',
                       help='share of numbers set to 0 in training, one ratio or three: input, '
                            'between layers, output; more overfits less and learns slower '
                            '(default: 0.5)')
    group.add_argument('--recurrent-dropout', type=float, default=0.0, metavar='RATIO',
                       help='the same on the way from step to step, one choice a sequence: '
                            'weakens what is remembered by heart (default: 0)')
    group = parser.add_argument_group('pooling')
    group.add_argument('--fc', type=arguments.whole(0), nargs='+', default=[1024, 1024], metavar='N',
                       help='units of each fully connected layer (default: 1024 1024)')
    group.add_argument('--fc-from-frames', action='store_true',
                       help='start with fc6, fc7 and fc8 of the frame network, as many and as '
                            'large as they are (wants --layer pool5)')
    group = parser.add_argument_group('sequences')
    group.add_argument('--steps', type=arguments.whole(1), default=120, metavar='N',
                       help='frames of a training sequence: a random segment of a long clip, a '
                            'short clip with its reverse appended (default: 120)')
    group.add_argument('--variable-length', action='store_true',
                       help='take clips shorter than --steps as they are; padding is masked')
    group.add_argument('--window', type=arguments.whole(1), default=30, metavar='N',
                       help='steps between two updates, and that a gradient reaches back; longer '
                            'links events further apart, with fewer updates and more memory '
                            '(default: 30)')
    group.add_argument('--no-reverse', dest='reverse', action='store_false',
                       help='never run a sequence backward; backward runs are new examples, '
                            'harmful where direction tells the class; of flow never done, as '
                            'what moves back has other flow')
    group.add_argument('--stride', type=arguments.whole(1), default=1, metavar='K',
                       help='every k-th frame, k random up to this: other speeds, and more of '
                            'the clip in as many steps (default: 1)')
    group.add_argument('--noise', type=float, default=0.0, metavar='SHARE',
                       help="noise on the features, in each one's deviations, so that none is "
                            'learned to the last digit (default: 0)')
    group.add_argument('--drop-frames', type=float, default=0.0, metavar='SHARE',
                       help='steps that repeat the one before: an uneven pace (default: 0)')
    group = parser.add_argument_group('optimisation')
    group.add_argument('--epochs', type=arguments.whole(1), default=25, help='at most (default: 25)')
    group.add_argument('--batch', type=arguments.whole(1), default=384, metavar='N',
                       help='sequences an update; smaller is noisier, with more updates an epoch '
                            '(default: 384)')
    group.add_argument('--optimizer', choices=('momentum', 'adam'), default='momentum',
                       help='adam fits the rate to each weight: quicker, with less care about '
                            '--lr (default: momentum, of 0.9)')
    add_rate(group)
    group.add_argument('--weight-decay', type=float, default=0.0, metavar='RATE',
                       help='pulls all weights to 0: smoother, overfits less (default: 0)')
    group.add_argument('--clip', type=float, default=5.0, metavar='NORM',
                       help='a longer gradient is shortened to this, so that one odd batch cannot '
                            'undo the rest; 0 for no limit (default: 5)')
    group.add_argument('--clip-value', type=float, default=0.0, metavar='LIMIT',
                       help='the same for each number in the gradient, which bends its direction '
                            '(default: 0, no limit)')
    group.add_argument('--loss', choices=LOSSES, default='linear', dest='loss_weights',
                       help='what step j of T counts: (j+1)/T, as much is unknown early on; '
                            'uniform, so that early guesses matter as much; or the last alone '
                            '(default: linear)')
    group.add_argument('--patience', type=arguments.whole(0), default=0, metavar='EPOCHS',
                       help='stop when the validation loss has not fallen for so many epochs '
                            '(default: 0, never)')
    group = parser.add_argument_group('test (and validation)')
    group.add_argument('--test-only', action='store_true',
                       help='test NAME.model, as in its training but for these flags; nothing is '
                            'trained')
    group.add_argument('--inference', default='first', metavar='HOW',
                       help='full: each clip as it is; first, middle, random: one segment; '
                            'segments:N: N of them from end to end, averaged (default: first)')
    group.add_argument('--test-steps', type=arguments.whole(0), default=180, metavar='N',
                       help='frames of a segment, short clips with their reverse appended; 0 '
                            'takes each clip as it is (default: 180)')
    group.add_argument('--reverse-too', action='store_true',
                       help='average in each sequence run backward')
    group.add_argument('--readout', choices=scoring.READOUTS, default='linear',
                       help='how the steps make one prediction: mean of log probability, the '
                            'same weighted (j+1)/T, last step, or maximum; the mean names the '
                            'class that the sum does (default: linear)')
    group = parser.add_argument_group('bookkeeping')
    group.add_argument('--memory', type=float, default=4.0, metavar='GIB',
                       help='features up to this size are held in memory (default: 4)')
    group.add_argument('--restart', action='store_true',
                       help='begin anew even if there is a snapshot')
    stage.add_device(parser, convolutions=False)
    workers.add_communicator(parser)
    return parser


def parse(parser, argv=None, **usual):
    """Parses flags and checks what argparse cannot; --layers and --cells come out as one.

    Args:
        usual: other defaults than the parser's, with --tiny too.
    """
    parser.set_defaults(**usual)
    args = stage.parse(parser, argv, **{**dict(
        epochs=2, batch=8, steps=16, window=8, cells=[16], hidden=16, fc=[16], test_steps=16),
        **usual})
    if not args.test_only:
        _check_kind(parser, args)
    args.layers = len(args.cells) if args.layers is None else args.layers
    if len(args.cells) not in (1, args.layers):
        raise UserError(f'--layers {args.layers} --cells {" ".join(map(str, args.cells))}: one '
                        'number of cells, or one for each of the layers')
    args.cells = args.cells * (args.layers // len(args.cells))
    if len(args.dropout) not in (1, 3) or not all(
            0 <= ratio < 1 for ratio in [*args.dropout, args.recurrent_dropout,
                                         args.drop_frames]):
        raise UserError('--dropout takes one ratio or three; all such ratios are from 0 to '
                        'below 1')
    get_rate(args)  # refuses what does not go together
    check_technique(args.inference, args.test_steps)
    if args.stream == 'flow':
        if args.reverse_too:
            raise UserError('--reverse-too: not of --stream flow; what moves back has other flow')
        args.reverse = False
    args.name = args.name or variants.names_of(args).of('RNN')
    if not re.fullmatch(r'[\w.,+-]+', args.name):
        raise UserError(f'--name {args.name}: a name of letters, digits and _ . , + - alone, '
                        'not a path')
    if args.start_from == args.name:
        raise UserError(f'--start-from {args.name}: a run cannot start from itself; give it '
                        'another --name')
    return args


def _check_kind(parser, args):
    """Refuses flags that the network of --cell has no use for."""
    pools = args.cell in FAMILIES
    for key, flag in (NOT_POOLING if pools else POOLING).items():
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


def made_by(args):
    """The command that makes what this stage reads."""
    return f'python save_hdf5.py{variants.flags_of(args)}'


def trained_by(args, name):
    """The command that trains NAME.model."""
    return f'python rnn.py{variants.flags_of(args)} --name {name}'


def settings_of(args):
    """What decides a result, as JSON values."""
    unused = NOT_POOLING if args.cell in FAMILIES else POOLING
    return {key: value for key, value in stage.settings_of(args).items()
            if key not in ('test_only', *unused)
            and (key, value) != ('start_from', None)}


def make_optimizer(args, model, team):
    optimizer = (Adam(args.lr) if args.optimizer == 'adam'
                 else MomentumSGD(args.lr, 0.9))
    optimizer.setup(model)
    team.agree(optimizer)
    if args.weight_decay:
        optimizer.add_hook(WeightDecay(args.weight_decay))
    if args.clip:
        optimizer.add_hook(GradientClipping(args.clip))
    if args.clip_value:
        optimizer.add_hook(GradientHardClipping(-args.clip_value, args.clip_value))
    return optimizer


def new_model(args, n_in, n_classes, f):
    """The network that the flags ask for, on features of length n_in of an open HDF5 file."""
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
            path, f'python frameBasedTrain.py{variants.flags_of(args, "stream", "fusion")}', args.stream)
        if weights_digest(path) != f.attrs['model_sha256']:
            raise UserError(f'{path}: another network than made the features; make them again: '
                            + variants.features_maker(args))
        fc = [vgg.shape['hidden'], vgg.n_features]
    model = PoolingNet(n_in, n_classes, args.cell, fc, f.attrs.get('maps'), args.steps, dropout)
    if vgg is None:
        model.set_statistics(*statistics.read(f))
    else:
        print(f'{", ".join(model.start_from_frames(vgg)) or "no layer"} from {path}')
    return model


def train(args, device, lists, team):
    """Trains, and saves the model of the best epoch with its figures; returns the seconds.

    Args:
        team (Workers): the processes that share the work; all but the first return None.
    """
    names = variants.names_of(args)
    with hdf5.open_hdf5(args.root / names.train, made_by(args)) as f:
        cards.check_classes(f.filename, f.attrs, lists.classes)
        cards.check_split(f.filename, f.attrs, args.split, names)
        std = statistics.read(f, f'python normalizeData.py{variants.flags_of(args)}')[1]
        held_out = set(statistics.read_names(f, '_held_out'))
        training = FeatureStore(f, [c for c in lists.train if c.name not in held_out],
                                args.memory, made_by(args))
        validation = FeatureStore(f, [c for c in lists.train if c.name in held_out],
                                  args.memory, made_by(args))
        features = str(f.attrs.get('model_sha256'))
        print(f'{len(training)} clips to train, {len(validation)} to validate, '
              f'{len(lists.classes)} classes, features '
              f'{"in memory" if training.in_memory else "read from the file"}', flush=True)
        reseed(device, args.seed)
        model = new_model(args, training.n_features, len(lists.classes), f)
        card = {'kind': 'pooling' if model.once else 'rnn', 'shape': model.shape,
                'classes': lists.classes, 'split': args.split, 'features': features}
        started = {}
        if args.start_from:
            path = args.root / f'{args.start_from}.model'
            started['start_from_sha256'] = go_on_from(
                path, model, card, trained_by(args, args.start_from))
        team.join_batch_statistics(model)
        model.to_device(device)
        folder = args.root / f'{args.name}.training'
        best = Best(folder / 'best.npz', model, args.patience)

        def validate():
            figures = score(look_at(args, model, validation, device, args.seed),
                            validation.clips, args.readout)
            best.add(figures['loss'])
            return {'loss': figures['loss'], 'accuracy': figures['top1']}

        batches = SequenceBatches(training, args.batch * team.size, args.steps, args.seed,
                                  args.reverse, args.stride, args.noise, args.drop_frames, std,
                                  args.variable_length, team.share_of)
        rate, schedule = get_rate(args)
        settings = dict(settings_of(args), schedule=schedule, seed=args.seed, split=args.split,
                        features=features, workers=team.size, **started)
        common = dict(
            seed=args.seed, device=device, workers=team, rate=rate,
            converter=lambda batch, device: (device.send(batch[0]), *batch[1:]))
        optimizer = make_optimizer(args, model, team)
        updater = (Updater(batches, optimizer, model.loss, **common) if model.once else
                   WindowUpdater(model, args.window, args.loss_weights, batches, optimizer,
                                 **common))
        run = Training(updater, args.epochs, folder, settings,
                       validate if len(validation) else None, best.should_stop, best,
                       restart=args.restart)
        run.run()
        if not team.first:
            return None
        log, kept = run.log(), run.log()[-1]
        if len(validation):
            load_weights(best.path, model)
            kept = min(log, key=lambda line: line['validation/main/loss'])
        model.reset_state()
    model.to_device('@numpy')
    figures = {name: kept[key] for name, key in (
        ('train_loss', 'main/loss'), ('train_accuracy', 'main/accuracy'),
        ('epoch', 'epoch')) if key in kept}
    figures['epochs'] = log[-1]['epoch']
    save_model(args.root / f'{args.name}.model', model, {
        **card, 'method': method_of(args), **names._asdict(), **started, 'training': figures,
        **stage.provenance(args, {**settings_of(args), **team.settings()})})
    return round(log[-1]['elapsed_time'], 1)


def method_of(args):
    """'LSTM 2x1024', 'GRU 512-256', 'linear', 'conv pooling', 'flow LSTM 2x1024'."""
    names = variants.names_of(args)
    if args.cell in FAMILIES:
        return names.method(FAMILIES[args.cell].method)
    if args.cell not in ('lstm', 'gru'):
        return names.method(args.cell)
    units = (f'{args.layers}x{args.cells[0]}' if len(set(args.cells)) == 1
             else '-'.join(map(str, args.cells)))
    return names.method(f'{args.cell.upper()} {units}')


def look_at(args, model, store, device, seed):
    """Returns what `predict` gives: all clips of a store as these flags show them."""
    return predict(model, store, device, args.batch, technique=args.inference,
                   steps=args.test_steps, reverse_too=args.reverse_too, seed=seed)


def score(predictions, clips, readout):
    """Scores (clip name, (T, C)) pairs, as helperFunctions.score; `clips` give the labels."""
    labels = {clip.name: clip.label for clip in clips}
    pairs = [(scoring.video_log_probability(steps, readout), labels[name])
             for name, steps in predictions]
    return scoring.score(*zip(*pairs))


def test(args, device, lists, **figures):
    """Predicts the validation and the test clips with NAME.model, and appends the result.

    Args:
        figures: what else goes into the result's line.
    """
    path = args.root / f'{args.name}.model'
    names = variants.names_of(args)
    model, card = load_rnn(path, trained_by(args, args.name))
    cards.check_classes(path, {'classes': json.dumps(card.get('classes'))}, lists.classes)
    if card['split'] != args.split:
        raise UserError(f'{path}: trained on split {card["split"]}; add --split {card["split"]}')
    model.to_device(device)
    name = args.name
    if args.test_only:
        length = f'x{args.test_steps}' if ':' in args.inference else str(args.test_steps or '')
        name += ('-' + args.inference.replace(':', '') + length * (args.inference != 'full')
                 + '-reversed' * args.reverse_too + f'-{args.readout}')
    found = {}
    for kind, source in (('validation', names.train), ('test', names.test)):
        out = args.root / f'{name}_{kind}Predictions.hdf5'
        with hdf5.open_hdf5(args.root / source, made_by(args)) as f:
            cards.check_classes(f.filename, f.attrs, lists.classes)
            held_out = set(statistics.read_names(f, '_held_out'))
            clips = (lists.test if kind == 'test' else
                     [clip for clip in lists.train if clip.name in held_out])
            store = FeatureStore(f, clips, args.memory, made_by(args))
            if store.n_features != model.shape['n_in']:
                raise UserError(f'{f.filename}: features of length {store.n_features}, but {path} '
                                f'takes {model.shape["n_in"]}; make it again: '
                                f'{made_by(args)}')
            if str(f.attrs.get('model_sha256')) != card['features']:
                raise UserError(f'{f.filename}: features of another {names.model} than {path} '
                                f'was trained on; train it again: {trained_by(args, args.name)} '
                                '--restart')
            if len(store) < len(clips):
                print(f'{len(clips) - len(store)} {kind} clips have no features and are not '
                      'counted')
            if not len(store):
                continue
            predictionfile.write_predictions(out, look_at(args, model, store, device, card['seed']),
                                 lists.classes, card['method'], args.split, args.readout)
        # From the file, so that the figures are what anyone finds in it.
        with hdf5.open_hdf5(out, trained_by(args, args.name)) as f:
            found[kind] = score(((clip.name, steps) for clip, steps in predictionfile.each_prediction(f, clips)),
                                clips, args.readout)
    if 'test' not in found:
        raise UserError(f'{args.root / names.test}: holds no test clip; '
                        f'made by: {made_by(args)}')
    settings = {**card['settings'],
                **{key: value for key, value in settings_of(args).items()
                   if key in stage.TEST_FLAGS}}
    if 'validation' in found:
        figures.update(validation_loss=found['validation']['loss'],
                       validation_accuracy=found['validation']['top1'])
    resultsfile.append_result(args.root, card['method'], args.split, 'video', card['seed'], settings,
                     predictions=out.name, **card['training'], **figures, **found['test'])
    print(f'{card["method"]} by video:  {scoring.in_words(found["test"])}')
    # Where they are not those that confusion.py takes by itself.
    compared = ('' if (names, name) == (variants.Names(), 'RNN') else
                f' {names.test_predictions} {out.name}')
    print(f'wrote {out}; next: python results.py{variants.place(args.root)}, '
          f'python confusion.py{variants.place(args.root, args.split)}{compared}')


def main():
    parser = get_parser()
    args = parse(parser)
    older = args.name if args.test_only else args.start_from
    if older:
        # Else its features would seem to be the wrong ones.
        path = args.root / f'{older}.model'
        card = read_card(path, trained_by(args, older))
        cards.check_trained_on(path, card, variants.names_of(args))
        if args.test_only:  # as it was tested in training, but for what is asked for
            was = card.get('settings', {})
            args = parse(parser, **{key: was[key] for key in stage.TEST_FLAGS if key in was})
    team = workers.get_workers(args.communicator)
    stage.print_settings(args)
    device = stage.get_device(team.device(args.device))
    lists = hf.read_lists(args.root, args.split)
    with hdf5.open_hdf5(args.root / variants.names_of(args).test, made_by(args)) as f:
        # before hours of training
        cards.check_split(f.filename, f.attrs, args.split, variants.names_of(args))
        model = args.root / variants.names_of(args).model
        if model.exists() and f.attrs.get('model_sha256') != weights_digest(model):
            print(f'{f.filename}: features of an earlier {model.name} than the one there now; '
                  f'save them anew: {variants.features_maker(args)}', flush=True)
    figures = ({'test_only': True} if args.test_only
               else {'seconds': train(args, device, lists, team)})
    if not team.first:
        return
    # The only place that reads the test clips, after all choices are made.
    test(args, device, lists, **figures)


if __name__ == '__main__':
    stage.run(main)
