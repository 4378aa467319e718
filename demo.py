"""Makes a small data set in the shape of UCF-101, and a small VGG for it: no download.

    python demo.py clips    --root demo     # 256 short .avi clips and their lists, half a minute
    python demo.py pretrain --root demo     # ROOT/VGG.model, about a minute
    python demo.py films    --root films    # films to find the actions in, for docs/films.md

The eight classes are four pairs. A pair shows the same things, in the same places, with
the same people: one class is the other played backwards (never the same clip). So every
single frame, and the average of all frames, looks alike in both classes of a pair; only
the order of the frames tells them apart. A network that sees one frame can name the pair
and then has to guess, which gives about 50 %. What an LSTM gains above that is what it
learnt from time.

`pretrain` stands in for ImageNet: it trains a narrow VGG on still pictures, drawn by the
same pens in other colours and places, to name what is in them and where, how big, how
turned. It is no ImageNet network and knows nothing outside of this demo.

`films` draws 40 films of 30 to 60 s, each of another person, in which the eight actions follow one
another with stretches of nothing between them: ROOT/films, and of eight people more ROOT/new. When
what is done is known and stands in ROOT/marks and ROOT/newMarks, a third of the films in each of
three forms: a plain table, a table of BORIS, files of ELAN.

All stages draw from --seed alone, so the same command makes the same files on the same
machine. A clip or list has its name only once it is whole; a second run makes what is
missing.
"""
import multiprocessing
import multiprocessing.resource_tracker
import signal
import sys
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy

from VGGNet import VGGNet
from engine import locks, usable_cores
from engine.arguments import Parser, at_once, whole
from engine.drawing.clips import RECIPE, clip_name, is_whole, make_clip, recipe_of
from engine.drawing.filmmarks import write_marks
from engine.drawing.films import film_recipe, make_film, plan
from engine.drawing.stills import make_stills, still_labels
from engine.drawing.shapes import CLASSES
from engine.errors import UserError
from engine.fast.optimizers import Adam
from engine.files import remove_leftovers
from engine.progress import Progress
from engine.stage import run as stage_main
from engine.variants import CLIPS, LISTS, VGG_MODEL
from engine.video.preprocessing import PREPROCESSING, preprocess
from engine.weights.card import read_card
from engine.weights.modelfile import save_model
from helperFunctions import write_list

TRAIN_STREAM = 3  # of random numbers; engine/drawing has those before
# The narrow VGG of the demo.
CHANNELS, HIDDEN, INPUT_SIZE = (6, 12, 24, 32, 32), 128, 64
INPUT_SCALE = 64  # pixels less their mean are divided by this while the network trains
FILMS = 'films'
OTHERS = 1000  # so many people never come in the films to learn from
STILLS_IN_PART = 100  # drawn by one task
TRAINING = 'demo 3'  # change it when the training changes: old models are remade
# flag: (default, default with --tiny, what it counts)
CLIPS_NUMBERS = {'--groups': (8, 4, 'places and people of each class'),
                 '--clips-per-group': (4, 2, 'clips of each'),
                 '--shortest': (48, 12, 'frames of the shortest clip'),
                 '--longest': (72, 16, 'frames of the longest clip')}
FILMS_NUMBERS = {'--people': (40, 6, 'people, one film of each, to learn from'),
                 '--new': (8, 3, 'films of other people'),
                 '--shortest': (30, 8, 'seconds of the shortest film'),
                 '--longest': (60, 12, 'seconds of the longest film')}
PRETRAIN_NUMBERS = {'--stills': (2500, 100, 'still pictures to draw'),
                    '--epochs': (10, 2, 'passes over them'),
                    '--batch': (32, 32, 'pictures a step')}


# ---------------------------------------------------------------- clips

def write_lists(folder, groups, clips_per_group):
    """Writes classInd.txt and three train/test splits in the official format.

    As officially, a split tests on whole groups; 1 on the first ones, 2 on the next.
    """
    write_list(folder / 'classInd.txt', [f'{i} {name}' for i, name in enumerate(CLASSES, 1)])
    n_test = max(1, groups * 3 // 8)
    for split in (1, 2, 3):
        tested = {((split - 1) * n_test + i) % groups + 1 for i in range(n_test)}
        train, test = [], []
        for label, name in enumerate(CLASSES, 1):
            for group in range(1, groups + 1):
                for clip in range(1, clips_per_group + 1):
                    line = f'{name}/{clip_name(name, group, clip)}.avi'
                    if group in tested:
                        test.append(line)
                    else:
                        train.append(f'{line} {label}')
        write_list(folder / f'trainlist{split:02d}.txt', train)
        write_list(folder / f'testlist{split:02d}.txt', test)


def drawn(work, tasks, n, what):
    """What work(task) gives of each task, in order, drawn by n processes.

    They leave at Ctrl-C without a word and without a part file.
    """
    # A process of Python's own, that a terminal's end would take along while they need it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    multiprocessing.resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    pool = multiprocessing.get_context('spawn').Pool(max(n, 1), initializer=_quiet_worker)
    # `with pool` ends them if something goes wrong
    with pool, Progress(len(tasks), f'drawing {what}', what) as progress:
        for made in pool.imap(work, tasks):
            progress.update()
            yield made
        pool.close()
        pool.join()


def _quiet_worker():
    # The main process hears them and ends its workers; SystemExit runs their clean-up.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Where nobody can catch it, as a worker ends, it says nothing either.
    sys.unraisablehook = lambda lost: (lost.exc_type is SystemExit
                                       or sys.__unraisablehook__(lost))


def make_clips(args):
    """Makes the clips and their lists."""
    if args.groups < 2 or args.clips_per_group < 1:
        raise UserError('--groups must be 2 or more (one side of the split would be empty), '
                        '--clips-per-group 1 or more')
    if not 1 <= args.shortest <= args.longest:
        raise UserError('--shortest must be at least 1 and at most --longest')
    class_index = args.root / LISTS / 'classInd.txt'
    if class_index.exists() and class_index.read_text().split()[1::2] != CLASSES:
        raise UserError(f'{class_index}: another data set stands here; '
                        'give the demo a folder of its own, such as --root demo')
    bounds = args.shortest, args.longest
    tasks = [(str(args.root / CLIPS / name / f'{clip_name(name, group, clip)}.avi'),
              args.seed, group, name, clip, bounds)
             for name in CLASSES for group in range(1, args.groups + 1)
             for clip in range(1, args.clips_per_group + 1)]
    missing = [task for task in tasks if not is_whole(task[0], recipe_of(args.seed, *bounds))]
    if len(missing) < len(tasks):
        print(f'{len(tasks) - len(missing)} clips are there already')
    remove_leftovers(task[0] for task in tasks)
    if missing:
        for _ in drawn(make_clip, missing, args.workers, 'clips'):
            pass
    write_lists(args.root / LISTS, args.groups, args.clips_per_group)
    print(f'{args.root}: {len(tasks)} clips of {len(CLASSES)} classes, '
          f'{args.groups} groups, three splits')


# ---------------------------------------------------------------- films

def make_films(args):
    """Makes films of several actions each, and annotations of them."""
    if args.shortest > args.longest:
        raise UserError('--shortest must be at most --longest')
    bounds = args.shortest, args.longest
    missing, there = [], 0
    for folder, marks, name, first, people in ((FILMS, 'marks', 'person', 0, args.people),
                                               ('new', 'newMarks', 'other', OTHERS, args.new)):
        films = [(args.root / folder / f'{name}{i:02d}.avi', f'{name}{i:02d}',
                  plan(args.seed, first + i, *bounds)) for i in range(1, people + 1)]
        tasks = [(str(path), args.seed, first + i, bounds)
                 for i, (path, _, _) in enumerate(films, 1)]
        remove_leftovers(task[0] for task in tasks)
        missing += [task for task in tasks if not is_whole(task[0], film_recipe(
            args.seed, *bounds))]
        there += len(tasks)
        write_marks(args.root / marks, films)
    if len(missing) < there:
        print(f'{there - len(missing)} films are there already')
    if missing:
        for _ in drawn(make_film, missing, args.workers, 'films'):
            pass
    print(f'{args.root}: {args.people} films in {FILMS}, annotated in marks; {args.new} of other '
          'people in new, annotated in newMarks')


# ---------------------------------------------------------------- the stand-in for ImageNet

def train(model, stills, labels, epochs, batch, rng):
    """Trains the network, without dropout; yields each epoch's mean loss."""
    optimizer = Adam(alpha=1e-3).setup(model)
    steps = len(stills) // batch
    for epoch in range(epochs):
        total = 0.
        for step, picked in enumerate(rng.permutation(len(stills))[:steps * batch].reshape(
                steps, batch)):
            # Falls in a straight line from its first value to 0.
            optimizer.alpha = 1e-3 * (1 - (epoch + step / steps) / epochs)
            with chainer.using_config('train', False):
                scores = model(preprocess(stills[picked]) / INPUT_SCALE)
            loss = F.softmax_cross_entropy(scores, labels[picked])
            model.cleargrads()
            loss.backward()
            optimizer.update()
            total += float(loss.array)
        yield total / steps


def pretrain(args):
    """Trains the stand-in for ImageNet weights."""
    if args.stills < args.batch:
        raise UserError('--stills must be at least a --batch')
    path = args.root / VGG_MODEL
    remove_leftovers([path])
    what = {'made_by': 'demo.py pretrain', 'seed': args.seed, 'stills': args.stills,
            'epochs': args.epochs, 'batch': args.batch, 'recipe': RECIPE, 'training': TRAINING}
    if path.exists():
        card = read_card(path)
        if card.get('made_by') != what['made_by']:
            raise UserError(f'{path}: not made by this stage and not overwritten; '
                            'give the demo a folder of its own, such as --root demo')
        if all(card.get(key) == value for key, value in what.items()):
            print(f'{path} is there already')
            return
    print('A stand-in for ImageNet weights: a narrow VGG learns still pictures drawn by this '
          'script. It knows nothing outside of the demo.')
    firsts, n_classes = still_labels()
    shape = dict(channels=CHANNELS, hidden=HIDDEN, n_classes=n_classes, input_size=INPUT_SIZE)
    n_train = -(-args.stills // STILLS_IN_PART)
    n_held_out = -(-n_train // 10)
    tasks = [(args.seed, part, STILLS_IN_PART, INPUT_SIZE)
             for part in range(n_train + n_held_out)]
    stills, labels = map(numpy.concatenate, zip(*drawn(
        make_stills, tasks, args.workers, 'stills')))
    start = n_train * STILLS_IN_PART
    held_out, held_out_labels = stills[start:], labels[start:]
    stills, labels = stills[:args.stills], labels[:args.stills]

    # Chainer's initialisers draw from NumPy's global state.
    numpy.random.seed(args.seed)
    model = VGGNet(**shape)
    rng = numpy.random.default_rng([args.seed, TRAIN_STREAM])
    training = train(model, stills, labels, args.epochs, args.batch, rng)
    for epoch, loss in enumerate(training, 1):
        if not numpy.isfinite(loss):
            raise UserError(f'the loss is {loss} in epoch {epoch}; try another --seed')
        print(f'epoch {epoch} of {args.epochs}: loss {loss:.3f}', flush=True)
    # The network was trained on inputs of about unit size; from now on it takes them as
    # the other stages give them.
    model.expect_input(INPUT_SCALE)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        named = numpy.concatenate([model(held_out[i:i + 50]).array.argmax(axis=1)
                                   for i in range(0, len(held_out), 50)])
    accuracy = float((named == held_out_labels).mean())
    kinds = numpy.searchsorted(firsts, [named, held_out_labels], side='right')
    print(f'{len(held_out)} stills held out: {accuracy:.1%} right of {n_classes} labels, '
          f'{float((kinds[0] == kinds[1]).mean()):.1%} of the kinds')
    save_model(path, model, dict(
        what, shape=model.shape, preprocessing=PREPROCESSING, accuracy=accuracy,
        note='narrow stand-in trained on drawn stills; not an ImageNet network'))
    print(f'{path} written')


def build_parser(tiny=False):
    parser = Parser(description=__doc__)
    stages = parser.add_subparsers(required=True, metavar='STAGE')
    for name, stage, makes, numbers in (('clips', make_clips, CLIPS, CLIPS_NUMBERS),
                                        ('pretrain', pretrain, VGG_MODEL, PRETRAIN_NUMBERS),
                                        ('films', make_films, FILMS, FILMS_NUMBERS)):
        one = stages.add_parser(name, help=stage.__doc__, description=stage.__doc__)
        one.set_defaults(stage=stage, makes=makes)
        one.add_argument('--root', type=Path, default=Path('demo'), metavar='DIR',
                         help='folder to write into (default: demo)')
        one.add_argument('--seed', type=whole(0), default=0,
                         help='start of every random choice (default: 0)')
        one.add_argument('--tiny', action='store_true',
                         help='just enough to see every stage work; '
                              'flags given beside it still count')
        one.add_argument('--workers', type=at_once, default=usable_cores(), metavar='N',
                         help='processes that draw (default: one a core)')
        for flag, (usual, small, what) in numbers.items():
            one.add_argument(flag, type=whole(1), default=small if tiny else usual, metavar='N',
                             help=f'{what} (default: {usual}; tiny: {small})')
    return parser


def main():
    args = build_parser('--tiny' in sys.argv).parse_args()
    with locks.only_one(args.root / args.makes):
        return args.stage(args)


if __name__ == '__main__':
    stage_main(main)