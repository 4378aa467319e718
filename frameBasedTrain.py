"""Stage 1: finetunes VGG-16 (by default its top, fc7 and fc8) on frames of the training clips.

Needs   ROOT/UCF-101/, ROOT/ucfTrainTestlist/, ROOT/VGG.model (python convertWeights.py)
Writes  ROOT/VGG_1024.model, and log, plots and snapshot in ROOT/frameTraining/

    python frameBasedTrain.py                        # the original's settings, GPU: --device 0
    python frameBasedTrain.py --root demo --epochs 5
    python frameBasedTrain.py --train-layers 3       # fc6 as well: Karpathy's best
    python frameBasedTrain.py --fusion slow          # sees 10 frames at once (FusionNet.py)

Every epoch reads one random frame of each clip. Whole groups of the training list are
held out to validate, and the weights of the epoch with the lowest loss on them are kept
(--keep); no test clip is read. Run it again to resume. On a CPU convolutions
that learn take some six times as long as those that stay as they are.

Augmentation changes training frames alone: all later stages see whole frames as they are. Does
it help? Train with and without it in two roots, then compare on the same test clips:

    for root in plain augmented; do
        mkdir $root && ln -s ../UCF-101 ../ucfTrainTestlist ../VGG.model $root/
    done
    python frameBasedTrain.py --root plain --no-flip
    python frameBasedTrain.py --root augmented --crop 0.875 --rotate 5 --rescale 0.1 \\
        --brightness 0.2
    for root in plain augmented; do
        ./saveFeatures.sh --local --root $root && python save_hdf5.py --root $root &&
        python normalizeData.py --root $root && python singleFrameAccuracy.py --root $root
    done
    python results.py --root plain --root augmented --unit video --compare 1 2
"""
from typing import NamedTuple

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
from chainer.optimizer_hooks import GradientClipping

import helperFunctions as hf
from engine import arguments, files, locks, stage, usable_cores, variants
from engine.learning import examples
from engine.learning.principal import fit_fc6, frames_per_clip
from engine.video import flowfiles
from VGGNet import load_vgg
from FusionNet import APART, NETWORKS
from VGGNet_1024 import TRAIN_LAYERS, from_vgg, start_from_pictures
from engine.learning.frozenanswers import in_memory
from engine.video.augmentation import Augmentation
from engine.cluster.parts import failed_clips
from engine.errors import UserError
from engine.progress import followed, number_of
from engine.learning.frames import FrameIterator
from engine.video.framecounts import COUNTS, frame_counts
from engine.weights.card import weights_digest
from engine.weights.modelfile import save_model
from engine.fast.optimizers import MomentumSGD
from engine.learning.rates import add_rate, get_rate
from engine.learning.snapshots import RULES, Best, add_keep, kept_line, told_of
from engine.learning.trainer import Training, Updater, reseed, say_if_few
from engine.video.preprocessing import preprocess, preprocessing
from engine.learning.workers import add_communicator, get_workers

FOLDER = 'frameTraining'
# The fewest layers that let those learn that join frames; of flow all.
DEFAULT_LAYERS = {'single': '2', 'late': '3', 'early': 'all', 'slow': 'all'}

# For a few hundred clips and a VGG.model without a top; docs/real-clips.md tells of the others.
SMALL = {'fc6': 'principal', 'train_layers': '3', 'lr': 0.0005, 'schedule': 'cosine', 'epochs': 8,
         'frames_per_clip': 2}
# For few clips and a whole VGG.model: docs/own-videos.md.
FEW_CLIPS = {'frames_per_clip': 16, 'lr': 0.002}


class Clips(NamedTuple):
    """The clips of the training list: those to learn from, those that validate (lists of Clip),
    {clip name: frames} of both, and [(clip name, reason)] of those that cannot be read."""
    training: list
    held_out: list
    counts: dict
    failures: list


# ---- flags -----------------------------------------------------------------------

def get_parser():
    parser = stage.new_parser(__doc__)
    stage.add_variant(parser, 'stream', 'fusion', 'fold')
    add_model(parser)
    add_optimisation(parser)
    examples.add_examples(parser)
    add_augmentation(parser)
    add_bookkeeping(parser)
    stage.add_device(parser)
    add_communicator(parser)
    return parser


def add_model(parser):
    group = parser.add_argument_group('model')
    group.add_argument('--features', type=arguments.whole(1), default=1024, metavar='N',
                       help='units of fc7: length of a feature (default: 1024)')
    group.add_argument('--train-layers', choices=TRAIN_LAYERS, metavar='WHICH',
                       help='what learns (Karpathy et al. 2014, section 4.2): the top 1 (fc8; '
                            'fc7 is that of VGG.model), 2 (the original), or 3 layers, or all; '
                            'or scratch: all, and nothing but shape and mean from VGG.model. '
                            'The layers that join frames must learn to tell their order, hence '
                            'the default: 2 for single frames, 3 for late fusion, all for early '
                            'and slow; and all for flow, whose x and y the first layer must '
                            'learn to tell apart')
    group.add_argument('--fc6', choices=('vgg', 'principal'), default='vgg',
                       help="what fc6 begins with: vgg, VGG.model's; principal, the directions in "
                            "which the training frames' pool5 differs most, for a VGG.model "
                            'without a top, whose fc6 is random (default: vgg)')
    group.add_argument('--small', action='store_true',
                       help='defaults for a set of a few hundred clips and a VGG.model without a '
                            'top, with a narrow fc6 (convertWeights.py --hidden 128): '
                            + ' '.join(f'--{key.replace("_", "-")} {value}'
                                       for key, value in SMALL.items())
                            + '; flags given beside it still count')
    group.add_argument('--apart', type=arguments.whole(1), default=None, metavar='N',
                       help=f'frames between the two towers of late fusion (default: {APART})')


def add_optimisation(parser):
    group = parser.add_argument_group('optimisation')
    group.add_argument('--epochs', type=arguments.whole(1), default=20, help='default: 20')
    group.add_argument('--batch', type=arguments.whole(1), default=36, metavar='N',
                       help='frames a batch (default: 36)')
    add_rate(group)
    group.add_argument('--momentum', type=arguments.share, default=0.9, help='default: 0.9')
    group.add_argument('--weight-decay', type=arguments.not_negative, default=0.0005,
                       help='default: 0.0005')
    group.add_argument('--clip', type=arguments.not_negative, default=0.0, metavar='NORM',
                       help='scale the gradient of all that learns down to this length; with '
                            'convolutions that learn, the first steps of the new layers would '
                            'else undo what VGG.model knows (default: 0, never)')
    group.add_argument('--dropout', type=arguments.share, default=0.5, metavar='RATIO',
                       help='behind fc6 and fc7, in training; more overfits less (default: 0.5)')
    group.add_argument('--frames-per-clip', type=arguments.whole(1, 100000), default=1, metavar='N',
                       help='random frames of each clip an epoch (default: 1)')
    group.add_argument('--validation-every', type=arguments.whole(2), default=5, metavar='N',
                       help='hold out one group in N of each class, others with each --seed '
                            '(default: 5)')


def add_augmentation(parser):
    group = parser.add_argument_group('augmentation of training frames')
    group.add_argument('--no-flip', dest='flip', action='store_false',
                       help='never mirror a frame; mirrored ones are new examples, harmful where '
                            'left and right are different classes')
    group.add_argument('--crop', type=arguments.real(above=0, most=1), default=1.0,
                       metavar='SHARE',
                       help='cut out a window with this share of the side, at a random place, and '
                            'scale it up: the action is not always in the middle, and a little '
                            'larger than in testing (default: 1, the whole frame)')
    group.add_argument('--rotate', type=arguments.real(least=0, most=180), default=0.0,
                       metavar='DEGREES',
                       help='turn by up to this, either way, as a tilted camera would; 5 is '
                            'plenty (default: 0)')
    group.add_argument('--rescale', type=arguments.share, default=0.0, metavar='SHARE',
                       help='larger or smaller by up to this share, as from nearer or farther '
                            '(default: 0)')
    group.add_argument('--brightness', type=arguments.share, default=0.0, metavar='SHARE',
                       help='brighter or darker by up to this share, as under another light '
                            '(default: 0)')


def add_bookkeeping(parser):
    group = parser.add_argument_group('bookkeeping')
    group.add_argument('--workers', type=arguments.at_once, default=usable_cores(),
                       help='clips decoded at once (default: one a core)')
    group.add_argument('--memory', type=arguments.not_negative, default=2.0, metavar='GIB',
                       help="frozen fc6's answers up to this size are held in memory, 16 KB a "
                            'frame: one that comes again is neither decoded nor computed again. '
                            'The held-out frames come first; training frames only if nothing '
                            'changes them (--no-flip). 0 for none; each worker of '
                            '--communicator has its own (default: 2)')
    add_keep(group, 'last', text='; last: as the original did')
    group.add_argument('--restart', action='store_true',
                       help='begin anew even if there is a snapshot or a finished model')


def parse(parser):
    """Parses the command line; refuses flags that make no sense together."""
    args = stage.parse(parser, small=SMALL, epochs=2, batch=8)
    get_rate(args)  # refuses what does not go together
    if args.stream == 'flow' and (args.rotate or args.brightness):
        raise UserError('--rotate, --brightness: not of flow, which has directions and no light')
    if args.fold and args.validation_every != parser.get_default('validation_every'):
        raise UserError('--validation-every: not beside --fold, which says what is held out')
    if args.apart and args.fusion != 'late':
        raise UserError(f'--apart: of --fusion late alone, not of {args.fusion}')
    if args.small and (args.fusion != 'single' or args.stream == 'flow'):
        raise UserError('--small: for single pictures; what looks at several, or at flow, has more '
                        'to learn: give --epochs, --frames-per-clip and --lr in its place')
    args.train_layers = args.train_layers or (
        'all' if args.stream == 'flow' else DEFAULT_LAYERS[args.fusion])
    if args.fc6 == 'principal' and (args.fusion != 'single' or args.train_layers not in '23'):
        raise UserError('--fc6 principal: for single frames whose convolutions stay as they are, '
                        'and a new fc7; --train-layers 2 or 3, or --fc6 vgg')
    return args


def settings_of(args):
    """What decides a result, as JSON values; to keep the last epoch is no setting, as it was the
    only way once, and so was VGG.model's fc6."""
    return {key: value for key, value in examples.without_usual(stage.settings_of(args)).items()
            if (key, value) not in (('keep', 'last'), ('fc6', 'vgg'))}


def held_out_by(args):
    """What snapshots tell of the groups held out; of seed 0 nothing, as all seeds once had its."""
    return {'fold': args.fold} if args.fold else {'held_out_seed': args.seed} if args.seed else {}


# ---- what learns, and from what ----------------------------------------------------

def start_network(args, lists):
    """Returns (the VGGNet to start from, its card, what the card of the new model is to tell
    of the flow)."""
    vgg, card = load_vgg(args.root / variants.VGG_MODEL)
    hidden = vgg.shape['hidden']
    if args.train_layers == '1' and args.features != hidden:
        raise UserError(f'--train-layers 1 takes fc7 from VGG.model, where it has {hidden} units: '
                        f'add --features {hidden}, or train fc7 too: --train-layers 2')
    if args.stream != 'flow':
        return vgg, card, {}
    flow = flowfiles.flow_made_with(args.root, args.split)
    flowfiles.check_flow(args.root, lists.train, args.split,
                         failed_clips(args.root / variants.clips_folder('flow')))
    start_from_pictures(vgg)
    return vgg, card, {'flow': flow}


def new_model(args, vgg, n_classes, device):
    """The network that the flags ask for, on its device."""
    # The weights of the new layers are drawn before anything else draws.
    reseed(device, args.seed)
    model = from_vgg(vgg, n_classes, args.features, NETWORKS[args.fusion],
                     args.train_layers, **({'apart': args.apart} if args.apart else {}))
    if set(model.taps) - set(model.trained):
        print(f'{", ".join(model.taps)}: not trained, so the order of frames is not seen')
    if args.stream == 'flow' and 'conv1_1' not in model.trained:
        print('conv1_1: not trained, so right and down are one; --train-layers all tells them '
              'apart')
    model.fast, model.dropout = args.fast, args.dropout
    model.to_device(device)
    return model


def readable_clips(args, lists):
    """Returns the Clips of the training list, whole groups held out; prints each that cannot be
    read with its reason."""
    names = variants.Names(stream=args.stream)
    counts, failures, remarks = frame_counts(args.root, lists.train, args.workers,
                                             names.of(COUNTS))
    for clip in lists.train:
        if clip.name in remarks:
            print(f'{remarks[clip.name].kind}: {clip.path}: {remarks[clip.name].reason}')
    for _, reason in failures:
        print(f'left out: {reason}')
    if not counts:
        raise UserError(f'{args.root / variants.clips_folder(args.stream)}: none of the '
                        f'{len(lists.train)} clips on the list can be read')
    if args.fold:  # of all clips, so that every stream and machine has the same folds
        sides = hf.hold_out_fold(lists.train, args.fold)
    else:
        sides = hf.hold_out_groups([clip for clip in lists.train if clip.name in counts],
                                   args.validation_every, args.seed)
    training, held_out = ([clip for clip in side if clip.name in counts] for side in sides)
    training = examples.share_of_groups(training, args.train_share, args.seed)
    return Clips(training, held_out, counts, failures)


# ---- the training --------------------------------------------------------------------

def loss_and_accuracy(model, answers, frames, labels, *keys, class_weights=None):
    """Variables of the mean cross entropy of a batch, and of how many are right.

    Args:
        frames: (n, S, S, 3) uint8, BGR, or windows (n, W, S, S, 3); labels: (n,) int32.
        keys: of the frames, with `answers` (Answers), which then computes or remembers what
            the frozen layers say of them.
        class_weights: (C,) float32, what the loss of a frame of each class counts.
    """
    send = model.device.send
    h = (answers(frames, *keys) if keys else
         model.bottom(preprocess(send(frames), model.mean)))
    scores, labels = model.top(h), send(labels)
    weights = None if class_weights is None else send(class_weights)
    return (F.softmax_cross_entropy(scores, labels, class_weight=weights),
            F.accuracy(scores, labels))


class FrameUpdater(Updater):
    """One update of the weights a batch of frames."""

    def __init__(self, model, answers, class_weights, *args, **kwargs):
        super().__init__(*args, converter=lambda batch, _: batch, **kwargs)
        self.model, self.answers, self.class_weights = model, answers, class_weights

    def learn(self, batch, optimizer):
        loss, accuracy = loss_and_accuracy(self.model, self.answers, *batch,
                                           class_weights=self.class_weights)
        if self.is_finite(loss):
            optimizer.target.cleargrads()
            (loss * self.weight).backward()
            optimizer.update()
        chainer.report({'loss': loss, 'accuracy': accuracy}, optimizer.target)


def validate(model, answers, batches, n):
    """Returns loss and accuracy of the n held-out frames."""
    sums = numpy.zeros(2)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for batch in followed(batches, batches.batches_per_epoch, 'validation', 'batches'):
            figures = loss_and_accuracy(model, answers, *batch)
            # by frames, so that a smaller last batch counts as what it is
            sums += [float(v.array) * len(batch[1]) for v in figures]
    return dict(zip(('loss', 'accuracy'), sums / n))


def make_optimizer(args, model, team):
    """Momentum SGD of the layers that learn; it never sees the frozen ones."""
    optimizer = MomentumSGD(args.lr, args.momentum, args.weight_decay)
    optimizer.setup(model.trained_part())
    team.agree(optimizer)
    if args.clip:
        optimizer.add_hook(GradientClipping(args.clip))
    return optimizer


def train(args, model, clips, team, class_weights, settings):
    """Trains `model` for --epochs, from the snapshot if there is one, and gives it the weights of
    the epoch to keep; returns the log, the line in it of that epoch, and what computed it all."""
    kernel = stage.tell_kernel(model)
    augmentation = Augmentation(args.flip, args.crop, args.rotate, args.rescale, args.brightness,
                                args.stream)
    kept, drawn = in_memory(args.memory, model, len(clips.held_out), augmentation.changes)
    common = dict(workers=args.workers, offsets=model.offsets, stream=args.stream)
    size = model.shape['input_size']
    batches = FrameIterator(clips.training, clips.counts, args.batch * team.size, size, args.seed,
                            args.frames_per_clip, augmentation, share_of=team.share_of,
                            known=drawn, balanced=args.balanced_sampling, **common)
    # --small is for few clips as it is.
    say_if_few(batches.batches_per_epoch, {
        'more frames of each clip (--frames-per-clip)':
            args.frames_per_clip < FEW_CLIPS['frames_per_clip'] and not args.small,
        'a smaller --batch': args.batch > 1,
        'a higher --lr': args.lr < FEW_CLIPS['lr'] and not args.small}, 'docs/own-videos.md')
    optimizer = make_optimizer(args, model, team)
    folder = args.root / variants.names_of(args).of(FOLDER)
    best = (Best(folder / 'best.npz', optimizer.target, rule=args.keep)
            if clips.held_out and args.keep in RULES else None)

    def validate_now():
        figures = validate(model, kept, FrameIterator(
            clips.held_out, clips.counts, args.batch, size, repeat=False, known=kept, **common),
            len(clips.held_out))
        if best:
            best.add(figures['loss'], figures['accuracy'])
        return figures

    rate, schedule = get_rate(args)
    updater = FrameUpdater(model, drawn, class_weights, batches, optimizer, args.seed, rate,
                           device=model.device, workers=team)
    run = Training(updater, args.epochs, folder, dict(settings, schedule=schedule),
                   validate_now if clips.held_out else None, best, restart=args.restart,
                   kernel=kernel)
    run.run()
    if drawn:
        print(f'{drawn.found} of {drawn.asked} training frames were answered from memory')
    log, line = run.log(), run.log()[-1]
    if team.first:
        line = kept_line(log, args.keep, args.epochs)
    if best and team.first:
        best.load()
    return log, line, run.kernel() or kernel


def main():
    args = parse(get_parser())
    team = get_workers(args.communicator)
    stage.print_settings(args)
    device = stage.get_device(team.device(args.device))
    lists = hf.read_lists(args.root, args.split, stream=args.stream)
    path = args.root / variants.names_of(args).model
    with locks.only_one(path, when=team.first):
        team.from_first(lambda: files.check_outputs(path))
        return finetune(args, team, device, lists, path)


def finetune(args, team, device, lists, path):
    """Trains and saves the model; returns the exit code."""
    vgg, vgg_card, made_with = start_network(args, lists)
    clips = team.from_first(lambda: readable_clips(args, lists))
    print(f'{number_of(len(clips.training), "clip")} to train, {len(clips.held_out)} held out by '
          f'group, {number_of(len(lists.classes), "class", "classes")}', flush=True)
    if not clips.held_out:
        print('WARNING: no clip is held out, which takes a class with two groups of clips that '
              'can be read:\nno epoch can be validated or chosen, and the last is kept', flush=True)
    model = new_model(args, vgg, len(lists.classes), device)
    vgg_digest = weights_digest(args.root / variants.VGG_MODEL)
    if args.fc6 == 'principal':
        made_with['principal'] = fit_fc6(
            model, FrameIterator(
                clips.training, clips.counts, args.batch, model.shape['input_size'],
                frames_per_clip=frames_per_clip(model.shape['hidden'], len(clips.training)),
                workers=args.workers, repeat=False),
            args.root / variants.names_of(args).of(FOLDER) / 'fc6.npz', vgg_digest, team)
    class_weights = examples.class_weights(
        args.class_weights, [clip.label for clip in clips.training], len(lists.classes))
    log, kept, kernel = train(args, model, clips, team, class_weights, dict(
        settings_of(args), seed=args.seed, split=args.split, workers=team.size,
        vgg=vgg_digest, **made_with, **held_out_by(args),
        **examples.which(clips.training, clips.held_out)))
    if not team.first:
        return 0
    model.to_device('@numpy')
    save_model(path, model, {
        'kind': 'frames', 'stream': args.stream, 'fusion': args.fusion,
        **({'fold': args.fold} if args.fold else {}), 'shape': model.shape,
        'classes': lists.classes, 'preprocessing': preprocessing(model.mean, args.stream),
        'split': args.split,
        'trained_clips': sorted(clip.name for clip in clips.training),
        'held_out': sorted(clip.name for clip in clips.held_out),
        'validation': {key.split('/')[-1]: kept[key] for key in kept if 'validation' in key},
        'training': {**told_of(kept, log), **examples.told_of(clips.training)},
        **examples.told_of_weights(class_weights, lists.classes),
        'base': ('none, from scratch' if args.train_layers == 'scratch' else
                 vgg_card.get('source', 'VGG.model without a card')), **made_with,
        **stage.provenance(args, {**settings_of(args), **team.settings()}, kernel)})
    print(f'wrote {path}; next: {variants.features_maker(args)}')
    if clips.failures:
        print(f'left out, and named above: {number_of(len(clips.failures), "clip")}')
        return 3


if __name__ == '__main__':
    stage.run(main)
