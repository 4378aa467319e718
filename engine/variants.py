"""Names of the files that stages read and write, and the commands that make them.

A variant is what the frame network sees (stream), how it joins frames in time (fusion), which of
its layers is saved, and which fold of the groups it has not seen (fold); the files of the
original's have plain names, those of others a suffix.
"""
import itertools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.files import read_json

CLIPS, LISTS, RESULTS = 'UCF-101', 'ucfTrainTestlist', 'results.jsonl'
# Beside the lists where clips' names do not tell their group: "CLASS/CLIP.ext<tab>GROUP".
GROUPS = 'groups.txt'
# Its first line where official lists have a group on both: named each time, not refused.
MAY_LEAK = '# official lists: a group may be on both'
# Of a clip's name, in UTF-8: file systems take 255 with the extension of a result.
MOST_BYTES = 250
FEATURES, FRAME_PREDICTIONS = 'UCF-101_features', 'UCF-101_framePrediction'
VGG_MODEL, FRAME_MODEL, RNN_MODEL = 'VGG.model', 'VGG_1024.model', 'RNN.model'
TRAIN_HDF5, TEST_HDF5 = 'train1024.hdf5', 'test1024.hdf5'
TEST_PREDICTIONS = 'testPredictions1024.hdf5'
VALIDATION_PREDICTIONS = 'validationPredictions1024.hdf5'
# Beside features that another program computed (importFeatures.py): where they come from.
IMPORTED = 'imported.json'
# Beside those of stage 2: which model made them, and with which of these flags.
CLAIM, CLAIMED = 'extraction.json', ('step', 'views')
# They have no predictions of their network: this run of rnn.py, on each feature alone, stands in.
STAND_IN = 'linear'
# Behind the name of a run of rnn.py or combine.py.
TEST_SUFFIX, VALIDATION_SUFFIX = '_testPredictions.hdf5', '_validationPredictions.hdf5'
# What the frame network sees, how it joins frames in time, and which of its layers is saved;
# the first of each is the original's, whose files have the plain names above.
STREAMS = ('rgb', 'flow')
FUSIONS = ('single', 'early', 'late', 'slow')
LAYERS = ('fc7', 'pool5')
# What a frame network depends on; a layer is only saved of it.
OF_FRAMES = ('stream', 'fusion', 'fold')
# Flow is kept as a video a clip, whose channels are no colours.
FLOW_EXTENSION, FLOW_SETTINGS = '.mkv', 'flow.json'
# What makes flow another flow, and opticalFlow.py's defaults; the rest of flow.json only tells.
FLOW_DECIDES = {'method': 'dis-fast', 'bound': 20.0, 'step': 1, 'size': [320, 240]}


def fold_suffix(fold):
    """'2/5' -> '_fold2of5', the last part of a name; '' -> ''."""
    return f'_fold{fold.replace("/", "of")}' if fold else ''


class Names(NamedTuple):
    """The files of one variant: train1024.hdf5, or train1024_flow_late.hdf5 ..."""
    stream: str = 'rgb'
    fusion: str = 'single'
    layer: str = 'fc7'
    fold: str = ''  # 'K/N', or all groups but those that frameBasedTrain.py holds out by itself

    def of(self, name):
        """A plain name, made this variant's: VGG_1024.model -> VGG_1024_flow.model."""
        stem, dot, extension = name.partition('.')
        return stem + self.suffix() + dot + extension

    def suffix(self):
        return ''.join(f'_{value}' for value, usual in zip(self[:3], Names())
                       if value != usual) + fold_suffix(self.fold)

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
    def packed(self):
        """What save_hdf5.py writes together."""
        return self.train, self.test, self.test_predictions, self.validation_predictions

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

    def said(self):
        """What files say of their variant, as a dict; nothing of a fold where there is none."""
        return {field: value for field, value in self._asdict().items() if value}

    def flags(self, *fields):
        """' --stream flow', for the commands that messages name; of all fields by default."""
        return ''.join(f' --{field} {getattr(self, field)}' for field in fields or self._fields
                       if getattr(self, field) != getattr(Names(), field))


# All variants without folds, by what results and reports call their frame network's run.
VARIANTS = {f'frames{names.suffix()}': names
            for names in itertools.starmap(Names, itertools.product(STREAMS, FUSIONS, LAYERS))}


def packed_together(name):
    """The files of save_hdf5.py that a file called so is one of; () if it is none."""
    stem, dot, extension = name.partition('.')
    plain, fold = split_fold(stem)
    return next((names._replace(fold=fold).packed for names in VARIANTS.values()
                 if plain + dot + extension in names.packed), ())


def split_fold(name):
    """'deep_fold2of5' -> ('deep', '2/5'); ('deep', '') of a name that tells no fold."""
    found = re.fullmatch(r'(.*)_fold(\d+)of(\d+)', name)
    return (found[1], f'{found[2]}/{found[3]}') if found else (name, '')


def fold_of(path):
    """The fold that the name of a prediction file tells, or ''."""
    name = Path(path).name.removesuffix(TEST_SUFFIX).removesuffix(VALIDATION_SUFFIX)
    return split_fold(name.removesuffix('.hdf5'))[1]


def name_in_fold(name, fold):
    """The name of a run of rnn.py with --fold: 'deep', '2/5' -> 'deep_fold2of5'.

    Raises:
        UserError: the name is that of another fold, or of one where none is asked for.
    """
    plain, told = split_fold(name)
    if told not in ('', fold):
        raise UserError(f'{name}: the name of a run of fold {told}; add --fold {told}, or give '
                        'another name')
    return plain + fold_suffix(fold)


def tested_name(name, inference, steps, reverse_too, readout):
    """What prediction files of rnn.py --test-only begin with: NAME and how the clips were shown."""
    name, fold = split_fold(name)
    length = f'x{steps}' if ':' in inference else str(steps or '')
    return name_in_fold(name + '-' + inference.replace(':', '') + length * (inference != 'full')
                        + '-reversed' * reverse_too + f'-{readout}', fold)


def names_of(args):
    """The Names that --stream, --fusion, --layer and --fold ask for."""
    names = Names(**{field: getattr(args, field) for field in Names._fields
                     if getattr(args, field, None)})
    if names.layer == 'pool5' and names.fusion == 'late':
        raise UserError('--layer pool5 --fusion late: two towers give two sets of maps; take fc7')
    return names


def place(root, split=1):
    """' --root demo --split 2', for the commands that messages name; nothing of the defaults."""
    return (f' --root {shlex.quote(str(root))}' * (Path(root) != Path('.'))
            + f' --split {split}' * (split != 1))


def flags_of(args, *fields):
    """What a command that a message names takes over from a stage's own: variant and place."""
    return names_of(args).flags(*fields) + place(args.root, args.split)


def features_maker(args):
    """The command that makes the features of a variant; goes on as those there were made."""
    return (f'./saveFeatures.sh --local{flags_of(args)}{claimed(args.root, names_of(args))} '
            '(or without --local, as batch jobs)')


def claimed(root, names):
    """' --step 4', the flags that features there were made with; '' of none and the usual ones."""
    try:
        told = read_json(Path(root) / names.features / CLAIM)
    except UserError:
        return ''
    return ''.join(f' --{flag} {told[flag]}' for flag in CLAIMED if isinstance(told, dict)
                   and isinstance(told.get(flag), int) and told[flag] != 1)


def is_imported(root, names=Names()):
    """Whether another program computed the features of a variant (importFeatures.py)."""
    return (Path(root) / names._replace(fold='').features / IMPORTED).exists()


def stored_as(root, names):
    """The Names under which a variant's features stand: imported ones serve all folds."""
    return names._replace(fold='') if is_imported(root, names) else names


def frames_file(root, names=Names()):
    """Name of the predictions of single frames: of stage 3, or of what stands in for them."""
    return (names.of(STAND_IN) + TEST_SUFFIX if is_imported(root, names)
            else names.test_predictions)


def maker_of(path, split=1):
    """The command that makes a prediction file, as its name tells."""
    path = Path(path)
    run = path.name.removesuffix(TEST_SUFFIX).removesuffix(VALIDATION_SUFFIX)
    fold = fold_of(path)
    command = (f'python rnn.py{Names(fold=fold).flags()} --name '
               f'{shlex.quote(split_fold(run)[0])}' if run != path.name else None)
    for names in (names._replace(fold=fold) for names in VARIANTS.values()):
        stand_in = (f'python rnn.py{names.flags()} --cell {STAND_IN} '
                    f'--name {names._replace(fold="").of(STAND_IN)}')
        if path.name in (names.test_predictions, names.validation_predictions):
            command = (f'nothing, as imported features come without; in its place: {stand_in}'
                       if is_imported(path.parent, names) else
                       f'python save_hdf5.py{names.flags()}')
        elif command and run == names.of('RNN'):
            command = f'python rnn.py{names.flags()}'
        elif command and run == names.of(STAND_IN):
            command = stand_in
    return command + place(path.parent, split) if command else 'the stage that writes it'


def clips_folder(stream):
    """Where the clips of a stream stand under a root."""
    return CLIPS if stream == 'rgb' else f'{CLIPS}_{stream}'


def flow_path(root, clip):
    """Where the flow of a clip stands: ROOT/UCF-101_flow/Class/clip.mkv."""
    return Path(root) / clips_folder('flow') / clip.class_name / (clip.name + FLOW_EXTENSION)


def in_stream(root, clip, stream):
    """The clip with the path of what the stream shows of it."""
    return clip if stream == 'rgb' else clip._replace(path=flow_path(root, clip))


def why_no_name(name):
    """Why no class or clip may be called so; '' where it may.

    Names are those of files, keys in HDF5 files and columns of tables; a dot begins what is
    hidden from all of these.
    """
    if name.startswith('.'):
        return 'begins with a dot, as hidden files do'
    if '/' in name:
        return 'is a path, not a name'
    if re.search(r'[\x00-\x1f\x7f-\x9f]', name):
        return 'holds a control character'
    if len(name.encode()) > MOST_BYTES:
        return f'has {len(name.encode())} bytes; {MOST_BYTES} leave room for file names of results'
    return ''


def output_path(root, folder, clip):
    """Where the .npy of a clip stands: ROOT/folder/Class/clip.npy."""
    return Path(root) / folder / clip.class_name / (clip.name + '.npy')
