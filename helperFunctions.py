"""What the stages share: their arguments, the lists, the score of a video, the results.

Frame, segment and video accuracy are three different things; every figure that a
stage prints or writes says which one it is.
"""
import argparse
import itertools
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy

from engine.errors import UserError
from engine.files import append_line, load_npy, replacing, write_text
from engine.parts import failed_clips

HERE = Path(__file__).resolve().parent
TOP_K = (1, 5, 10)
# What decides how a trained model is tested; all other settings belong to its training.
TEST_FLAGS = ('inference', 'test_steps', 'reverse_too', 'readout')
# What says where or how a run was made, not what it computed.
NOT_SETTINGS = ('root', 'name', 'split', 'seed', 'tiny', 'restart', 'device', 'fast', 'workers',
                'communicator', 'memory', 'function')

CLIPS, LISTS = 'UCF-101', 'ucfTrainTestlist'
# Beside the lists where clips' names do not tell their group: "CLASS/CLIP.ext<tab>GROUP".
GROUPS = 'groups.txt'
# Its first line where official lists have a group on both: named each time, not refused.
MAY_LEAK = '# official lists: a group may be on both'
FEATURES, FRAME_PREDICTIONS = 'UCF-101_features', 'UCF-101_framePrediction'
VGG_MODEL, FRAME_MODEL, RNN_MODEL = 'VGG.model', 'VGG_1024.model', 'RNN.model'
TRAIN_HDF5, TEST_HDF5 = 'train1024.hdf5', 'test1024.hdf5'
TEST_PREDICTIONS = 'testPredictions1024.hdf5'
VALIDATION_PREDICTIONS = 'validationPredictions1024.hdf5'

# Behind the name of a run of rnn.py or combine.py.
TEST_SUFFIX, VALIDATION_SUFFIX = '_testPredictions.hdf5', '_validationPredictions.hdf5'
# What the frame network sees, how it joins frames in time, and which of its layers is saved;
# the first of each is the original's, whose files have the plain names above.
STREAMS = ('rgb', 'flow')
FUSIONS = ('single', 'early', 'late', 'slow')
LAYERS = ('fc7', 'pool5')
# Flow is kept as a video a clip, whose channels are no colours.
FLOW_EXTENSION, FLOW_SETTINGS = '.mkv', 'flow.json'
# What makes flow another flow, and opticalFlow.py's defaults; the rest of flow.json only tells.
FLOW_DECIDES = {'method': 'dis-fast', 'bound': 20.0, 'step': 1, 'size': [320, 240]}


class Names(NamedTuple):
    """The files of one variant: train1024.hdf5, or train1024_flow_late.hdf5 ..."""
    stream: str = 'rgb'
    fusion: str = 'single'
    layer: str = 'fc7'

    def of(self, name):
        """A plain name, made this variant's: VGG_1024.model -> VGG_1024_flow.model."""
        stem, dot, extension = name.partition('.')
        return stem + self.suffix() + dot + extension

    def suffix(self):
        return ''.join(f'_{value}' for value, usual in zip(self, Names()) if value != usual)

    @property
    def model(self):
        # One network gives all layers.
        return self._replace(layer=LAYERS[0]).of(FRAME_MODEL)

    @property
    def features(self):
        return self.of(FEATURES)

    @property
    def dtype(self):
        """In which features are saved. Of maps, 12 times as large, half as many bits are kept:
        three digits."""
        return 'float16' if self.layer == 'pool5' else 'float32'

    @property
    def frame_predictions(self):
        return self.of(FRAME_PREDICTIONS)

    @property
    def train(self):
        return self.of(TRAIN_HDF5)

    @property
    def test(self):
        return self.of(TEST_HDF5)

    @property
    def test_predictions(self):
        return self.of(TEST_PREDICTIONS)

    @property
    def validation_predictions(self):
        return self.of(VALIDATION_PREDICTIONS)

    def method(self, what):
        """What results call it: 'frames', 'flow late fusion frames', 'flow LSTM 1x1024'."""
        words = [self.stream, f'{self.fusion} fusion', self.layer]
        return ' '.join([word for word, value, usual in zip(words, self, Names())
                         if value != usual] + [what])

    def flags(self, *fields):
        """' --stream flow', for the commands that messages name; of all fields by default."""
        return ''.join(f' --{field} {getattr(self, field)}' for field in fields or self._fields
                       if getattr(self, field) != getattr(Names(), field))


# All variants, by what results and reports call their frame network's run.
VARIANTS = {f'frames{names.suffix()}': names
            for names in itertools.starmap(Names, itertools.product(STREAMS, FUSIONS, LAYERS))}


def place(root, split=1):
    """' --root demo --split 2', for the commands that messages name; nothing of the defaults."""
    return (f' --root {shlex.quote(str(root))}' * (Path(root) != Path('.'))
            + f' --split {split}' * (split != 1))


def flags_of(args, *fields):
    """What a command that a message names takes over from a stage's own: variant and place."""
    return names_of(args).flags(*fields) + place(args.root, args.split)


def features_maker(args):
    """The command that makes the features of a variant."""
    return f'./saveFeatures.sh --local{flags_of(args)} (or without --local, as batch jobs)'


def maker_of(path, split=1):
    """The command that makes a prediction file, as its name tells."""
    path = Path(path)
    run = path.name.removesuffix(TEST_SUFFIX).removesuffix(VALIDATION_SUFFIX)
    command = f'python rnn.py --name {shlex.quote(run)}' if run != path.name else None
    for names in VARIANTS.values():
        if path.name in (names.test_predictions, names.validation_predictions):
            command = f'python save_hdf5.py{names.flags()}'
        elif command and run == names.of('RNN'):
            command = f'python rnn.py{names.flags()}'
    return command + place(path.parent, split) if command else 'the stage that writes it'


# ---------------------------------------------------------------- running a stage

def stage_parser(doc):
    """Returns an ArgumentParser with what every stage takes; `doc` is the script's docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group('data')
    data.add_argument('--root', type=Path, default=Path('.'), metavar='DIR',
                      help='folder under which all files stand (default: here)')
    data.add_argument('--split', type=int, default=1, choices=(1, 2, 3),
                      help='which of the official train/test lists (default: 1)')
    data.add_argument('--seed', type=whole(0), default=0,
                      help='start of every random choice (default: 0)')
    data.add_argument('--tiny', action='store_true',
                      help='settings that end in seconds, to see the stage work; '
                           'flags given beside it still count')
    return parser


def add_variant(parser, *fields):
    """Adds those of --stream, --fusion and --layer that a stage tells apart."""
    group = parser.add_argument_group('variant')
    for field, values, text in (
            ('stream', STREAMS, 'what the network sees: the frames, or the optical flow that '
                                'opticalFlow.py makes of them'),
            ('fusion', FUSIONS, 'how it joins frames in time (Karpathy et al. 2014)'),
            ('layer', LAYERS, 'what is saved of a frame: fc7, 10 GB of the whole of UCF-101, or the '
                              'maps of the last convolution after pooling (pool5), 125 GB, or '
                              '5 GB of one frame a second (saveFeatures --step 25)')):
        if field in fields:
            group.add_argument(f'--{field}', choices=values, default=values[0],
                               help=f'{text} (default: {values[0]})')


def add_parts(parser, needed=True):
    """Adds the number of the part and --parts, --walltime, --margin; returns their group."""
    parser.add_argument('part', type=whole(1), nargs=None if needed else '?',
                        help='which part, from 1')
    group = parser.add_argument_group('work')
    group.add_argument('--parts', type=whole(1), default=12,
                       help='into how many parts the clips are dealt (default: 12)')
    group.add_argument('--walltime', default=None, metavar='HH:MM:SS',
                       help='leave in good order before this much time has passed')
    group.add_argument('--margin', type=float, default=120, metavar='SECONDS',
                       help='how long before --walltime to leave (default: 120)')
    return group


def names_of(args):
    """The Names that --stream, --fusion and --layer ask for."""
    names = Names(**{field: getattr(args, field) for field in Names._fields
                     if hasattr(args, field)})
    if names.layer == 'pool5' and names.fusion == 'late':
        raise UserError('--layer pool5 --fusion late: two towers give two sets of maps; take fc7')
    return names


def whole(least):
    """Returns an argparse type: whole numbers from `least` up (to 2**32-1, for NumPy's seeds)."""
    def number(text):
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number') from None
        if value < least:
            raise argparse.ArgumentTypeError(f'{text}, but at least {least}, please')
        if value >= 2 ** 32:
            raise argparse.ArgumentTypeError(f'{text} is too large')
        return value
    return number


def parse_stage(parser, argv=None, **tiny):
    """Parses; with --tiny the defaults given by name here take the place of the usual ones."""
    argv = sys.argv[1:] if argv is None else argv
    if '--tiny' in argv:
        parser.set_defaults(**tiny)
    return parser.parse_args(argv)


def add_device(parser, convolutions=True):
    """Adds --device, and --no-fast where there are convolutions, to a stage that computes."""
    group = parser.add_argument_group('device')
    group.add_argument('--device', default='-1', metavar='N',
                       help='GPU number, or -1 for the CPU (default: -1)')
    if convolutions:
        group.add_argument('--no-fast', dest='fast', action='store_false',
                           help="Chainer's own convolutions in place of engine/conv.py")


def get_device(name):
    """Returns the chainer.Device for --device, made current.

    Raises:
        UserError: a GPU is asked for and none answers.
    """
    import engine.chainer_today  # noqa: F401  (before chainer)
    import chainer
    name = str(name)
    if name in ('-1', '@numpy', 'cpu'):
        device = chainer.get_device('@numpy')
    else:
        name = name.replace('@cupy:', '')
        try:
            # chainer.backends.cuda.available is true without any GPU: ask the driver.
            import cupy
            found = cupy.cuda.runtime.getDeviceCount()
        except Exception as error:
            raise UserError(f'--device {name}: no GPU to use ({error}); '
                            'pip install -r requirements-gpu.txt, or --device -1') from None
        if not name.isdigit() or int(name) >= found:
            raise UserError(f'--device {name}: this machine has GPUs 0 to {found - 1}')
        device = chainer.get_device(f'@cupy:{name}')
    device.use()
    return device


def stage_main(main):
    """Runs a stage: a UserError becomes one line and exit code 1, Ctrl-C exit code 130.

    `main` returns the exit code: None or 0 done, 3 done but for the failures it named.
    SIGTERM ends it with code 143, after temporary files are removed, unless `main`
    handles that signal in its own way.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except UserError as error:
        if 'engine.workers' in sys.modules:
            sys.modules['engine.workers'].abort(f'error: {error}')
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        print('stopped by hand; what is finished is kept, and the same command'
              + ' without --restart' * ('--restart' in sys.argv) + ' goes on from there',
              file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def settings_of(args):
    """The arguments that decide a result, as JSON values."""
    return {key: [str(v) for v in value] if isinstance(value, (list, tuple))
            else str(value) if isinstance(value, Path) else value
            for key, value in sorted(vars(args).items()) if key not in NOT_SETTINGS}


def print_settings(args):
    """Opens a run's log: the command, the code's commit, the settings."""
    print(command_line(), f'(commit {commit()})')
    print(' '.join(f'{key}={value}' for key, value in sorted(vars(args).items())
                   if key != 'function'), flush=True)


def command_line():
    return shlex.join(['python', os.path.basename(sys.argv[0])] + sys.argv[1:])


def commit():
    """Short commit of this code, with -dirty if files differ from it; 'unknown' outside git."""
    try:
        return subprocess.run(['git', '-C', str(HERE), 'describe', '--always', '--dirty'],
                              capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def provenance(args, settings=None):
    """What every model's card tells of its making; `settings` default to those of args."""
    import engine.chainer_today  # noqa: F401  (before chainer)
    import chainer
    return {'seed': args.seed, 'settings': settings_of(args) if settings is None else settings,
            'commit': commit(),
            'versions': {'python': platform.python_version(), 'numpy': numpy.__version__,
                         'chainer': chainer.__version__}}


def check_root(root):
    """Refuses a root that is not there, before anything in it is missed or made."""
    if not Path(root).is_dir():
        raise UserError(f'{root}: no such folder')


def find_file(name, root):
    """The file as given, or else in ROOT."""
    return Path(name) if os.path.exists(name) else Path(root) / name


def read_json(path):
    """The JSON value in a file, or None where there is no file."""
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: not readable ({error}); delete it and run again') from None


# ---------------------------------------------------------------------- the lists

class Clip(NamedTuple):
    """One video: where it is, what it shows (label from 0), who is in it (group)."""
    name: str
    class_name: str
    label: int
    group: str
    path: Path


class Lists(NamedTuple):
    """Classes in order of their number, and the clips of one official split."""
    classes: list
    train: list
    test: list


def read_lists(root, split=1, folder=None, leaks=False, stream='rgb'):
    """Reads classInd.txt, trainlist0N.txt and testlist0N.txt.

    CRLF, blank lines and spaces around are taken as they come. The label is that
    of the folder's class; a number in the list that says otherwise is an error.
    A clip's group is what groups.txt beside the lists says, or else its name (group_of).
    The lists stand in ROOT/ucfTrainTestlist, or in `folder`. With `leaks` a clip or a
    group may be on both lists: checkData.py names them all. With the stream 'flow' a clip's
    path is that of its flow.

    Raises:
        UserError: naming file and line: unknown class, wrong label, a clip named twice
            or without a group in groups.txt, a group on both lists.
    """
    check_root(root)
    folder = Path(folder or Path(root) / LISTS)
    classes = _read_classes(folder / 'classInd.txt')
    groups, may_leak = _read_groups(folder / GROUPS)
    train = _read_list(root, folder / f'trainlist{split:02d}.txt', classes, groups)
    test = _read_list(root, folder / f'testlist{split:02d}.txt', classes, groups)
    train, test = ([in_stream(root, clip, stream) for clip in clips] for clips in (train, test))
    if leaks:
        return Lists(classes, train, test)
    both = {clip.name for clip in train} & {clip.name for clip in test}
    if both:
        raise UserError(f'{folder}: {len(both)} clips are on both lists of split {split}, '
                        f'{sorted(both)[0]} first')
    # The same person before the same background on both sides would be learned by heart.
    leaking = ({(c.class_name, c.group) for c in train}
               & {(c.class_name, c.group) for c in test})
    if leaking:
        text = (f'{folder}: {len(leaking)} groups are on both lists of split {split}, '
                f'{"/".join(sorted(leaking)[0])} first')
        if not may_leak:
            raise UserError(text)
        print(f'warning: {text}; so are the official lists', file=sys.stderr)
    return Lists(classes, train, test)


def _lines(path):
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'not a text'
        where = place(path.parent.parent)
        raise UserError(f'{path}: {reason}; the official lists '
                        '(UCF101TrainTestSplits-RecognitionTask.zip) come by python getData.py '
                        f'--lists-only{where}, those of own videos by python makeSplit.py{where} '
                        '--clips VIDEOS') from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _read_classes(path):
    numbers = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 2 or not fields[0].isdigit():
            raise UserError(f'{path}:{number}: expected "NUMBER CLASS", found "{line}"')
        if int(fields[0]) in numbers or fields[1] in numbers.values():
            raise UserError(f'{path}:{number}: "{line}" is there twice')
        numbers[int(fields[0])] = fields[1]
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise UserError(f'{path}: class numbers must run from 1 without a gap')
    return [numbers[i] for i in sorted(numbers)]


def _read_groups(path):
    """({clip name: group} or None where there is no such file, whether a group may leak)."""
    if not path.exists():
        return None, False
    groups, may_leak = {}, False
    for number, line in _lines(path):
        if line.startswith('#') and '\t' not in line:
            may_leak = may_leak or line == MAY_LEAK
            continue
        clip, _, group = line.partition('\t')
        name = os.path.splitext(clip.rpartition('/')[2])[0]
        if not group or name in groups:
            raise UserError(f'{path}:{number}: '
                            + ('is there twice' if group else 'expected "CLASS/CLIP.ext", a tab '
                               f'and the group, found "{line}"'))
        groups[name] = group
    return groups, may_leak


def _read_list(root, path, classes, groups):
    labels = {name.lower(): label for label, name in enumerate(classes)}
    clips, seen, folders = [], set(), {}
    for number, line in _lines(path):
        # "Class/clip.avi 12" (train) or "Class/clip.avi" (test); clips' names may hold spaces
        found = re.fullmatch(r'([^/]+)/(.+?\.\w+)(?:\s+(\d+))?', line)
        if not found:
            raise UserError(f'{path}:{number}: expected "CLASS/CLIP.avi [NUMBER]", '
                            f'found "{line}"')
        class_name, file_name, given = found.groups()
        # The official lists spell HandstandPushups two ways.
        label = labels.get(class_name.lower())
        if label is None:
            raise UserError(f'{path}:{number}: class "{class_name}" is not in classInd.txt')
        if given is not None and int(given) != label + 1:
            raise UserError(f'{path}:{number}: label {given}, but {classes[label]} is '
                            f'number {label + 1} in classInd.txt')
        name = os.path.splitext(file_name)[0]
        if name in seen:
            raise UserError(f'{path}:{number}: {name} is there twice')
        seen.add(name)
        if groups is not None and name not in groups:
            raise UserError(f'{path}:{number}: {path.with_name(GROUPS)} names no group of {name}')
        if class_name not in folders:
            # As the list spells it, unless only the class's own spelling is there.
            spelled = [Path(root) / CLIPS / spelling for spelling in (class_name, classes[label])]
            folders[class_name] = next((f for f in spelled if f.is_dir()), spelled[0])
        clips.append(Clip(name, classes[label], label,
                          group_of(name) if groups is None else groups[name],
                          folders[class_name] / file_name))
    if not clips:
        raise UserError(f'{path}: names no clip')
    return clips


def write_list(path, lines):
    """Writes a class or split list with the line ends of the official ones."""
    write_text(path, ''.join(line + '\r\n' for line in lines))


def group_of(name):
    """'v_PushUps_g07_c02' -> 'g07'; a clip of no group is a group of its own."""
    found = re.search(r'_(g\d+)(?:_c\d+)?$', name)
    return found.group(1) if found else name


def hold_out_groups(clips, every=5, seed=0):
    """Splits clips into (training, validation) by whole groups, class by class.

    One group in `every` of each class (at least one where the class has two) is
    held out: clips of a group share a person and a background, so that any other
    split would measure memory.
    """
    held = set()
    by_class = {}
    for clip in clips:
        by_class.setdefault(clip.class_name, set()).add(clip.group)
    for class_name, groups in sorted(by_class.items()):
        groups = sorted(groups)
        n = max(1, len(groups) // every) if len(groups) > 1 else 0
        # The same groups in classes of equally many: where a group of one class stands before
        # the background of another's, both are held out, or neither.
        order = numpy.random.RandomState([seed, len(groups)]).permutation(len(groups))
        held.update((class_name, groups[i]) for i in order[:n])
    training = [c for c in clips if (c.class_name, c.group) not in held]
    validation = [c for c in clips if (c.class_name, c.group) in held]
    return training, validation


def clips_folder(stream):
    """Where the clips of a stream stand under a root."""
    return CLIPS if stream == 'rgb' else f'{CLIPS}_{stream}'


def flow_path(root, clip):
    """Where the flow of a clip stands: ROOT/UCF-101_flow/Class/clip.mkv."""
    return Path(root) / clips_folder('flow') / clip.class_name / (clip.name + FLOW_EXTENSION)


def in_stream(root, clip, stream):
    """The clip with the path of what the stream shows of it."""
    return clip if stream == 'rgb' else clip._replace(path=flow_path(root, clip))


def flow_made_with(root, split=1):
    """What decided the flow under a root (dict of FLOW_DECIDES), from its flow.json."""
    path = Path(root) / clips_folder('flow') / FLOW_SETTINGS
    made_with = read_json(path)
    if made_with is None:
        raise UserError(f'{path}: not there; made by: {flow_maker(root, split)}')
    return {key: made_with.get(key) for key in FLOW_DECIDES}


def flow_maker(root, split=1):
    """The command that makes the flow under a root, or goes on with what is there."""
    made_with = read_json(Path(root) / clips_folder('flow') / FLOW_SETTINGS) or {}
    flags = {key: made_with.get(key, usual) for key, usual in FLOW_DECIDES.items()}
    words = [f' --{key} {"x".join(map(str, value)) if key == "size" else value}'
             for key, value in flags.items() if value != FLOW_DECIDES[key]]
    return f'./saveFeatures.sh --stage opticalFlow --local{"".join(words)}{place(root, split)}'


def waiting_for_flow(root, clips):
    """Those of the clips whose flow is not there, and that opticalFlow.py has not given up."""
    failed = failed_clips(Path(root) / clips_folder('flow'))
    return [clip for clip in clips
            if clip.name not in failed and not flow_path(root, clip).exists()]


def check_flow(root, clips, split, finished=lambda clip: False):
    """Refuses to begin while clips wait for their flow: a stage would leave out each of them.

    Those that opticalFlow.py could not do are not waited for, nor those that are `finished`.
    """
    missing = [clip for clip in waiting_for_flow(root, clips) if not finished(clip)]
    if missing:
        raise UserError(f'{Path(root) / clips_folder("flow")}: {len(missing)} of {len(clips)} clips have no flow, '
                        f'{missing[0].name} first; made by: {flow_maker(root, split)} (or without '
                        '--local, as batch jobs)')


def output_path(root, folder, clip):
    """Where the .npy of a clip stands: ROOT/folder/Class/clip.npy."""
    return Path(root) / folder / clip.class_name / (clip.name + '.npy')


def check_results(root, clip, n_features, n_classes, values=True, names=Names()):
    """Returns the number of frames of a clip whose two .npy files of stage 2 are well.

    With values=False their headers and lengths are read, not the numbers themselves.

    Raises:
        UserError: one is missing or damaged, holds what it should not, or they disagree.
    """
    lengths = []
    for folder, width, dtype in ((names.features, n_features, names.dtype),
                                 (names.frame_predictions, n_classes, 'float32')):
        path = output_path(root, folder, clip)
        array = load_npy(path, mmap=True)
        if array.dtype != dtype:
            raise UserError(f'{path}: holds {array.dtype}, expected {dtype}')
        if array.shape[1:] != (width,):
            raise UserError(f'{path}: shape {array.shape}, expected (frames, {width})')
        if not len(array):
            raise UserError(f'{path}: no frame')
        if values and not numpy.isfinite(array).all():
            raise UserError(f'{path}: holds a number that is not finite')
        lengths.append(len(array))
    if lengths[0] != lengths[1]:
        raise UserError(f'{clip.name}: {lengths[0]} features, {lengths[1]} predictions')
    return lengths[0]


# ------------------------------------------------------------------------ scoring

READOUTS = ('mean', 'linear', 'last', 'max')


def video_log_probability(frame_probabilities, readout='mean'):
    """Log probability of each class for one video.

    Args:
        frame_probabilities: (T, C) softmax of each frame or step.
        readout: how frames are joined: the mean of log softmax, the mean weighted
            (j+1)/T ('linear', as the original weights its steps), the last
            frame alone, or the maximum over time (Ng et al. 2015, section 3.2).

    Returns:
        (C,) float64, normalised: the exponentials sum to 1, so that losses of different
        read-outs can be compared. The video's prediction is its argmax.
    """
    probabilities = numpy.asarray(frame_probabilities, numpy.float64)
    # A probability that float32 rounds to 0 must not veto a class for ever.
    logs = numpy.log(numpy.maximum(probabilities, 1e-30))
    if readout == 'mean':
        joined = logs.mean(axis=0)
    elif readout == 'linear':
        joined = numpy.average(logs, axis=0, weights=numpy.arange(1, len(logs) + 1))
    elif readout == 'last':
        joined = logs[-1]
    elif readout == 'max':
        joined = logs.max(axis=0)
    else:
        raise ValueError(f'readout {readout!r} is none of {READOUTS}')
    return joined - numpy.logaddexp.reduce(joined)


def score(log_probabilities, labels):
    """Accuracy of n predictions.

    Args:
        log_probabilities: (n, C) any scores that rise with the probability.
        labels: (n,) int.

    Returns:
        dict: n, top1, top5, top10 (shares of 1; None where k >= C says nothing)
        and loss (mean of -log probability of the true class).
    """
    scores = numpy.asarray(log_probabilities)
    return figures(*ranks(scores, numpy.asarray(labels)), scores.shape[1])


def ranks(scores, labels):
    """Where the true class comes, (n,) int from 0, and its score, (n,); all that figures need."""
    if not numpy.isfinite(scores).all():
        raise UserError('predictions hold a number that is not finite; make them again')
    true = scores[numpy.arange(len(labels)), labels]
    # Ties count against us: a constant prediction must not look right.
    return (scores >= true[:, None]).sum(axis=1) - 1, true


def figures(rank, true, n_classes):
    """The dict of `score` from what `ranks` gave."""
    result = {'n': len(rank)}
    for k in TOP_K:
        result[f'top{k}'] = float((rank < k).mean()) if k < n_classes or k == 1 else None
    result['loss'] = float(-true.mean())
    return result


def write_predictions(path, predictions, classes, method, split, readout='mean'):
    """Writes a prediction file: one (T, C) float32 data set a clip, key = clip name.

    Args:
        predictions: iterable of (clip name, (T, C) softmax).
    """
    with replacing(path) as temporary, h5py.File(temporary, 'w') as f:
        for name, probabilities in predictions:
            f.create_dataset(name, track_times=False,
                             data=numpy.asarray(probabilities, numpy.float32))
        f.attrs.update(classes=json.dumps(list(classes)), method=method, split=split,
                       readout=readout)


def open_hdf5(path, made_by):
    """Opens an HDF5 file to read; says which command makes it where it is missing."""
    try:
        return h5py.File(path, 'r')
    except FileNotFoundError:
        raise UserError(f'{path}: not there; made by: {made_by}') from None
    except OSError as error:
        raise UserError(f'{path}: not a readable HDF5 file ({" ".join(str(error).split())}); '
                        f'make it again: {made_by}') from None


def check_classes(path, attrs, classes):
    """Refuses a file made for another class list, naming both."""
    try:
        theirs = list(json.loads(attrs.get('classes', 'null')) or [])
    except (TypeError, ValueError):
        theirs = []
    if theirs != list(classes):
        where = next((i for i, pair in enumerate(zip(theirs, classes)) if pair[0] != pair[1]),
                     min(len(theirs), len(classes)))
        name = [names[where] if where < len(names) else 'nothing' for names in (theirs, classes)]
        raise UserError(f'{path}: made for {len(theirs)} classes, the lists name {len(classes)}; '
                        f'class {where + 1} is {name[0]} there, {name[1]} here; make it again '
                        'with these lists')


def check_frame_model(path, card, split, names=Names()):
    """Refuses a frame network trained on clips which `split` tests with, or of another variant."""
    for field in ('stream', 'fusion'):
        theirs, ours = card.get(field, getattr(Names(), field)), getattr(names, field)
        if theirs != ours:
            raise UserError(f'{path}: a network of {field} {theirs}, not {ours}; make it again: '
                            f'python frameBasedTrain.py{names.flags("stream", "fusion")}'
                            + place(Path(path).parent, split))
    theirs = card.get('split', split)
    if theirs != split:
        raise UserError(f'{path}: trained on split {theirs}, so it has seen test clips of split '
                        f'{split}; train it again under another --root: '
                        f'python frameBasedTrain.py --split {split}'
                        + names.flags('stream', 'fusion') + ' --root ANOTHER')


def check_split(path, attrs, split, names):
    """Refuses a file of another split, whose network has seen test clips of this one, or of
    another variant than its name says."""
    for field, ours in names._asdict().items():
        theirs = attrs.get(field, ours)
        if theirs != ours:
            raise UserError(f'{path}: made with --{field} {theirs}, not {ours}; make it again: '
                            f'python save_hdf5.py{names.flags()}{place(Path(path).parent, split)}')
    theirs = int(attrs.get('split', split))
    if theirs != split:
        raise UserError(f'{path}: made for split {theirs}; add --split {theirs}, or begin under '
                        f'another --root: python frameBasedTrain.py --split {split}'
                        + names.flags('stream', 'fusion') + ' --root ANOTHER')


def check_trained_on(path, card, names):
    """Refuses a model trained on another variant's features than the flags (`names`) ask for."""
    differ = [(f' --{field} {theirs}', f' --{field} {ours}')
              for field, ours in names._asdict().items()
              if (theirs := card.get(field, getattr(Names(), field))) != ours]
    if differ:
        theirs, ours = map(''.join, zip(*differ))
        raise UserError(f'{path}: was trained with{theirs}, not{ours}')


def read_predictions(path, clips, classes=None, made_by='the stage that writes it'):
    """Returns ({clip name: (T, C) float32}, attrs) of the given clips from a prediction file.

    Clips that the file lacks are simply not in the dict; the caller names them.
    """
    with open_hdf5(path, made_by) as f:
        found = {clip.name: data for clip, data in each_prediction(f, clips, classes, made_by)}
        return found, dict(f.attrs)


def each_prediction(f, clips, classes=None, made_by='the stage that writes it'):
    """Yields (clip, (T, C) float32) from an open prediction file, one after the other."""
    path = f.filename
    if classes is not None:
        check_classes(path, f.attrs, classes)
    for clip in clips:
        if clip.name in f:
            try:
                data = f[clip.name][()]
                reason = _problem(data, classes)
            except (OSError, TypeError) as error:
                reason = f'cannot be read ({" ".join(str(error).split())})'
            if reason:
                raise UserError(f'{path}: {clip.name} {reason}; make it again: {made_by}')
            yield clip, data


def _problem(data, classes):
    if getattr(data, 'dtype', numpy.dtype(object)).kind != 'f':
        return 'does not hold floating-point numbers'
    if data.ndim != 2 or classes is not None and data.shape[1] != len(classes):
        return f'has shape {data.shape}, expected (frames, {len(classes or ()) or "classes"})'
    if not len(data):
        return 'has no frame'
    return None if numpy.isfinite(data).all() else 'holds what is no probability (not finite)'


# ------------------------------------------------------------------------ results

def append_result(root, method, split, unit, seed, settings, **figures):
    """Appends one result to ROOT/results.jsonl and returns it.

    Args:
        method: short name ('frames', 'LSTM 1x1024').
        unit: 'frame', 'segment' or 'video'.
        figures: n, top1, top5, top10, loss and whatever else was measured.
    """
    if unit not in ('frame', 'segment', 'video'):
        raise ValueError(f'unit {unit!r}')
    line = dict(method=method, split=split, unit=unit, **figures, seed=seed,
                settings=settings, command=command_line(), commit=commit(),
                time=time.strftime('%Y-%m-%dT%H:%M:%S%z'))
    append_line(Path(root) / 'results.jsonl', json.dumps(line))
    return line


def in_words(figures):
    """'top-1 0.626  top-5 0.853  top-10 0.915 (n 3783)' without what is None."""
    parts = [f'top-{k} {figures[f"top{k}"]:.3f}' for k in TOP_K
             if figures.get(f'top{k}') is not None]
    return '  '.join(parts) + f'  (n {figures["n"]})'
