"""Stage 3: packs the .npy files of all clips into HDF5, one data set a clip (key = its name).

Needs   ROOT/UCF-101_features/, ROOT/UCF-101_framePrediction/ (./saveFeatures.sh)
Writes  ROOT/train1024.hdf5, ROOT/test1024.hdf5           features (frames, 1024)
        ROOT/testPredictions1024.hdf5, ROOT/validationPredictions1024.hdf5
                                                          softmax (frames, classes)
        of imported features (importFeatures.py) the first two alone

    python save_hdf5.py                      # float32: 10.2 GB for the whole of UCF-101
    python save_hdf5.py --dtype float16      # half of that
    python save_hdf5.py --layer pool5        # maps, float16 as they were saved

Each file appears whole or not at all. A run that is killed between two of them leaves a set that
the later stages refuse, until this is run again: each file holds the digest of all that was packed.
While clips are missing nothing is written, unless --allow-missing; then `.about/missing` in the
file names them. One clip at a time is held in memory.
"""
import hashlib
import json
import os
import shlex
import shutil
from collections import defaultdict

import engine  # noqa: F401  (before NumPy)
import numpy

import helperFunctions as hf
from engine import hdf5, locks, stage, variants
from engine.weights import cardchecks
from engine.learning import featurefile, statistics
from engine.video import flowfiles
from VGGNet_1024 import layer_shape, layer_width
from engine.cluster import partkernels
from engine.cluster.parts import failed_clips
from engine.errors import UserError
from engine.files import load_npy, remove_leftovers
from engine.weights.card import read_card, weights_digest
from engine.progress import Progress, number_of

FEATURES, PREDICTIONS = 0, 1


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parser.add_argument_group('packing')
    group.add_argument('--dtype', choices=('float32', 'float16'),
                       help='of the features; predictions stay float32 (default: as saved, '
                            'float32, or float16 of pool5)')
    group.add_argument('--allow-missing', action='store_true',
                       help='go on without the clips that have no features')
    stage.add_variant(parser, 'stream', 'fusion', 'layer', 'fold')
    return parser


def find_clips(root, clips, n_features, n_classes, names=variants.Names(), values=True):
    """Splits the clips into those whose two .npy files are well and {name: what is wrong}.

    With values=False their headers alone are read.
    """
    well, wrong = [], {}
    sources = featurefile.read_sources(root / names.features)
    for clip in clips:
        try:
            featurefile.check_results(root, clip, n_features, n_classes, values, names)
            path = variants.in_stream(root, clip, names.stream).path
            if featurefile.is_replaced(path, sources.get(clip.name)):
                raise UserError(f'{path}: replaced after its features were saved')
            well.append(clip)
        except UserError as error:
            wrong[clip.name] = str(error)
    return well, wrong


def read_results(root, clip, names, kinds):
    """Returns (features, predictions) of a clip, or those `kinds` of them.

    Raises:
        UserError: one holds what no network gives.
    """
    results = []
    for kind in kinds:
        path = variants.output_path(
            root, (names.features, names.frame_predictions)[kind], clip)
        results.append(load_npy(path))
        if reason := (featurefile.why_no_predictions(results[kind]) if kind else
                      featurefile.why_no_features(results[kind], names.layer)):
            raise UserError(f'{path}: {reason}')
    return results


def narrowed(features, dtype, clip):
    """The features in the dtype that is asked for."""
    if numpy.abs(features).max() > numpy.finfo(dtype).max:
        raise UserError(f'{clip.name}: a feature is too large for {dtype}; use --dtype float32')
    return features.astype(dtype, copy=False)


def pack(args, names, clips, kinds, places, digest):
    """Writes the clips, each read once; returns {name: reason} of those that were not.

    Args:
        kinds: those that there are of features (0) and predictions (1).
        places: {clip's name: [(hdf5.NewFile, 0 for its features or 1 for its predictions)]}.
        digest: hashlib object that takes in all that is written.
    """
    wrong = {}
    with Progress(len(clips), 'packed') as progress:
        for clip in clips:
            try:
                features, *softmax = read_results(args.root, clip, names, kinds)
            except UserError as error:
                wrong[clip.name] = str(error)
            if wrong and (clip.name in wrong or not args.allow_missing):
                continue  # nothing will be kept, but all that is wrong is found
            arrays = narrowed(features, args.dtype or names.dtype, clip), *softmax
            for f, kind in places[clip.name]:
                f.add(clip.name, arrays[kind])
                digest.update(clip.name.encode() + numpy.ascontiguousarray(arrays[kind]).data)
            progress.update(frames=len(features))
    return wrong


def made_by(args, clips):
    """The command that makes the clips' features; before it, where it is missing, of the flow."""
    if variants.is_imported(args.root, variants.names_of(args)):
        return featurefile.made_with(
            args.root, variants.stored_as(args.root, variants.names_of(args)))['command']
    command = variants.features_maker(args)
    missing = (flowfiles.waiting_for_flow(
        args.root, clips, failed_clips(args.root / variants.clips_folder('flow')))
               if args.stream == 'flow' else [])
    if not missing:
        return command
    return (f'{flowfiles.flow_maker(args.root, args.split)}, as {len(missing)} have no flow, '
            f'{missing[0].name} first; then {command}')


def refuse(args, wrong, clips):
    """Names those of the clips that are wrong; a UserError unless they are allowed to be."""
    if not wrong:
        return
    for reason in list(wrong.values())[:10]:
        print(reason)
    if len(wrong) > 10:
        print(f'... and {len(wrong) - 10} more')
    if not args.allow_missing or len(wrong) == len(clips):
        bad = [clip for clip in clips if clip.name in wrong]
        text, make = f'{len(wrong)} of {len(clips)} clips have no good features', made_by(args, bad)
        given_up = failed_clips(args.root / variants.names_of(args).features)
        if len(wrong) < len(clips) and given_up.issuperset(wrong):
            raise UserError(f'{text}, since stage 2 failed on them; go on without: '
                            f'--allow-missing, or mend them, then {make}')
        raise UserError(f'{text}; make them: {make}, or go on without: --allow-missing')


def check_space(args, names, clips):
    """Refuses to begin what the disk cannot hold: HDF5 does not always survive a full one."""
    dtypes = [numpy.dtype(dtype) for dtype in (args.dtype or names.dtype, names.dtype)]
    needed = sum(os.path.getsize(variants.output_path(args.root, names.features, clip))
                 for clip in clips) * dtypes[0].itemsize / dtypes[1].itemsize
    free = shutil.disk_usage(args.root).free
    if needed > free:
        raise UserError(f'{args.root}: the packed features take {needed / 1e6:.0f} MB, but '
                        f'{free / 1e6:.0f} MB are free; make room'
                        + ', or use --dtype float16' * (dtypes[0].itemsize > 2))


def check_features(args, names, lists):
    """Returns the frame network's card, {} of imported features, and what extraction.json or
    imported.json says of them.

    Raises:
        UserError: there are none, or they are of another network.
    """
    if variants.is_imported(args.root, names):
        for path in (args.root / name for name in names.packed[2:]):
            if path.exists():
                raise UserError(f'{path}: of features that were here before; the imported ones '
                                f'have no predictions; remove it: rm {shlex.quote(str(path))}')
        return {}, featurefile.made_with(args.root, variants.stored_as(args.root, names))
    model_path, folder = args.root / names.model, args.root / names.features
    card = read_card(model_path,
                     f'python frameBasedTrain.py{variants.flags_of(args, *variants.OF_FRAMES)}')
    cardchecks.check_frame_model(model_path, card, lists.test, args.split, names)
    made_with = featurefile.made_with(args.root, names)
    if made_with is None:
        raise UserError(f'{folder}: no features yet; made by: '
                        f'{made_by(args, lists.train + lists.test)}')
    if made_with.get('model_sha256') != weights_digest(model_path):
        raise UserError(f'{folder}: features of another model than {model_path}; '
                        f'remove them: {featurefile.remover(args.root, names)}, then make them '
                        f'again: {variants.features_maker(args)}')
    return card, made_with


def describe(args, names, lists, card, made_with):
    """The attributes of the files of features, and of those of predictions if there are."""
    both = {'classes': json.dumps(lists.classes), 'split': args.split,
            'model_sha256': made_with['model_sha256'], 'step': made_with['step'],
            **names.said()}
    if not card:
        return [{**both, 'n_features': made_with['n_features'], 'imported': made_with['imported'],
                 'rate': made_with['rate'] or 0.0}]
    if args.layer == 'pool5':
        both['maps'] = layer_shape(card['shape'], args.layer)  # (C, h, w), for PoolingNet
    if 'views' in made_with:
        both['views'] = made_with['views']
    # What trained the network, for the lines in results.jsonl.
    training = {'settings': json.dumps(card.get('settings', {}))}
    if 'seed' in card:
        training['seed'] = card['seed']
    return [{**both, 'n_features': layer_width(card['shape'], args.layer)},
            {**both, 'method': names.method('frames'), 'readout': 'mean', **training}]


def held_out_of(args, card, lists):
    """Names of the clips that the RNN must hold out: of the groups that the frame network has not
    seen either, or of imported features of some that are drawn here."""
    if card:
        return set(card.get('held_out', ()))
    held_out = (hf.hold_out_fold(lists.train, args.fold) if args.fold else
                hf.hold_out_groups(lists.train, seed=args.seed))[1]
    return {clip.name for clip in held_out}


def main():
    args = stage.parse(get_parser())
    stage.print_settings(args)
    names = variants.names_of(args)
    paths = [args.root / name for name in names.packed]
    lists = hf.read_lists(args.root, args.split)
    with locks.only_one(args.root / names.train):
        return write_set(args, names, paths, lists)


def write_set(args, names, paths, lists):
    """Packs all clips; returns the exit code."""
    remove_leftovers(paths)
    clips = lists.train + lists.test
    card, made_with = check_features(args, names, lists)
    stored = variants.stored_as(args.root, names)
    for line in partkernels.several(args.root / stored.features):
        print(line)
    attributes = describe(args, names, lists, card, made_with)
    n_features = attributes[FEATURES]['n_features']

    # First what is quickly seen, then the numbers as they pass: each file is read once.
    kinds = (FEATURES, PREDICTIONS)[:len(attributes)]
    well, wrong = find_clips(args.root, clips, n_features,
                             len(lists.classes) if PREDICTIONS in kinds else None, stored,
                             values=False)
    refuse(args, wrong, clips)
    check_space(args, stored, well)
    held_out = held_out_of(args, card, lists)
    with hdf5.writing(*paths[:2 * len(kinds)]) as files:
        contents = list(zip(files, (FEATURES, FEATURES, PREDICTIONS, PREDICTIONS), (
            lists.train, lists.test, lists.test,
            [clip for clip in lists.train if clip.name in held_out])))
        statistics.reserve(files[0], n_features)
        places = defaultdict(list)
        for f, kind, its in contents:
            for clip in its:
                places[clip.name].append((f, kind))
        # Who is held out counts as well: on other sides the same numbers are another set.
        digest = hashlib.sha256(repr((attributes, [
            sorted(clip.name for clip in its) for *_, its in contents], sorted(held_out))).encode())
        spoilt = pack(args, stored, well, kinds, places, digest)
        refuse(args, spoilt, well)
        wrong.update(spoilt)
        for f, kind, its in contents:
            # The digest, common to the four, tells them from those of another run.
            f.tell(**attributes[kind], set=digest.hexdigest(), made_with=json.dumps(
                cardchecks.recipe_of_features(card, made_with, args.dtype or names.dtype)))
            f.add_names('missing', [clip.name for clip in its if clip.name in wrong])
        files[0].add_names('held_out', sorted(
            held_out & {clip.name for clip in clips} - set(wrong)))
    print(f'{number_of(len(clips) - len(wrong), "clip")} packed, {len(wrong)} missing; next: '
          f'python normalizeData.py{variants.flags_of(args)}')
    if not card:
        print('then, in place of frame predictions: '
              + variants.maker_of(args.root / variants.frames_file(args.root, names), args.split))
    return 3 if wrong else 0


if __name__ == '__main__':
    stage.run(main)
