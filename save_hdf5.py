"""Stage 3: packs the .npy files of all clips into HDF5, one data set a clip (key = its name).

Needs   ROOT/UCF-101_features/, ROOT/UCF-101_framePrediction/ (./saveFeatures.sh)
Writes  ROOT/train1024.hdf5, ROOT/test1024.hdf5           features (frames, 1024)
        ROOT/testPredictions1024.hdf5, ROOT/validationPredictions1024.hdf5
                                                          softmax (frames, classes)

    python save_hdf5.py                      # float32: 10.2 GB for the whole of UCF-101
    python save_hdf5.py --dtype float16      # half of that
    python save_hdf5.py --layer pool5        # maps, float16 as they were saved

Each file appears whole or not at all. While clips are missing nothing is written, unless
--allow-missing; then the data set `_missing` in the file names them.
"""
import json

import h5py
import numpy

import helperFunctions as hf
from VGGNet_1024 import layer_shape, layer_width
from engine import statistics
from engine.errors import UserError
from engine.files import load_npy, remove_leftovers, replacing
from engine.modelfile import read_card, weights_digest
from engine.progress import Progress

# Frames a chunk: a segment of 120 frames touches five, a whole clip has no waste to speak of.
CHUNK = 32


def get_parser():
    parser = hf.stage_parser(__doc__)
    group = parser.add_argument_group('packing')
    group.add_argument('--dtype', choices=('float32', 'float16'),
                       help='of the features; predictions stay float32 (default: as saved, '
                            'float32, or float16 of pool5)')
    group.add_argument('--allow-missing', action='store_true',
                       help='go on without the clips that have no features')
    hf.add_variant(parser, 'stream', 'fusion', 'layer')
    return parser


def find_clips(root, clips, n_features, n_classes, names=hf.Names()):
    """Splits the clips into those whose two .npy files are well and {name: what is wrong}."""
    well, wrong = [], {}
    for clip in clips:
        try:
            hf.check_results(root, clip, n_features, n_classes, names=names)
            well.append(clip)
        except UserError as error:
            wrong[clip.name] = str(error)
    return well, wrong


def pack(root, path, folder, clips, dtype, attrs, lists, n_features=None):
    """Writes one HDF5 file; with n_features, room for statistics is made in it.

    `attrs` become the file's attributes, `lists` ({key: clip names}) data sets of names.
    """
    with replacing(path) as temporary, h5py.File(temporary, 'w') as f, \
            Progress(len(clips), path.name) as progress:
        if n_features:
            statistics.reserve(f, n_features)
        for clip in clips:
            array = load_npy(hf.output_path(root, folder, clip)).astype(dtype)
            if not numpy.isfinite(array).all():
                raise UserError(f'{clip.name}: a feature is too large for {dtype}; '
                                'use --dtype float32')
            f.create_dataset(clip.name, data=array, track_times=False,
                             chunks=(min(CHUNK, len(array)), array.shape[1]))
            progress.update(frames=len(array))
        f.attrs.update(attrs)
        for key, names in lists.items():
            statistics.write_names(f, key, names)


def main():
    args = hf.parse_stage(get_parser())
    hf.print_settings(args)
    root, names = args.root, hf.names_of(args)
    remove_leftovers(root / name for name in (
        names.train, names.test, names.test_predictions, names.validation_predictions))
    lists = hf.read_lists(root, args.split)
    model_path = root / names.model
    card = read_card(model_path, f'python frameBasedTrain.py{names.flags("stream", "fusion")}')
    hf.check_frame_model(model_path, card, args.split, names)
    n_features, n_classes = layer_width(card['shape'], args.layer), len(lists.classes)
    made_with = hf.read_json(root / names.features / 'extraction.json')
    if made_with is None:
        raise UserError(f'{root / names.features}: no features yet; made by: '
                        f'./saveFeatures.sh{names.flags()}')
    if made_with.get('model_sha256') != weights_digest(model_path):
        raise UserError(f'{root / names.features}: features of another model than {model_path}; '
                        f'remove them: rm -r {root / names.features} '
                        f'{root / names.frame_predictions}, then make them again: '
                        f'./saveFeatures.sh{names.flags()}')

    well, wrong = find_clips(root, lists.train + lists.test, n_features, n_classes, names)
    if wrong:
        for reason in list(wrong.values())[:10]:
            print(reason)
        if len(wrong) > 10:
            print(f'... and {len(wrong) - 10} more')
        if not args.allow_missing or not well:
            raise UserError(f'{len(wrong)} of {len(lists.train) + len(lists.test)} clips have '
                            f'no good features; make them: ./saveFeatures.sh{names.flags()} '
                            '(or --local), '
                            'or go on without: --allow-missing')
    there = {clip.name for clip in well}
    held_out = set(card.get('held_out', ()))
    attrs = {'classes': json.dumps(lists.classes), 'split': args.split,
             'model_sha256': made_with['model_sha256'], 'step': made_with['step'],
             **names._asdict()}
    if args.layer == 'pool5':
        attrs['maps'] = layer_shape(card['shape'], args.layer)  # (C, h, w), for PoolingNet
    if 'views' in made_with:
        attrs['views'] = made_with['views']
    # What trained the network, for the lines in results.jsonl.
    training = {'settings': json.dumps(card.get('settings', {}))}
    if 'seed' in card:
        training['seed'] = card['seed']
    for name, folder, clips, dtype in (
            (names.train, names.features, lists.train, args.dtype or names.dtype),
            (names.test, names.features, lists.test, args.dtype or names.dtype),
            (names.test_predictions, names.frame_predictions, lists.test, 'float32'),
            (names.validation_predictions, names.frame_predictions,
             [clip for clip in lists.train if clip.name in held_out], 'float32')):
        more = ({'n_features': n_features} if folder == names.features
                else {'method': names.method('frames'), 'readout': 'mean', **training})
        about = {'_missing': [clip.name for clip in clips if clip.name not in there]}
        if name == names.train:
            # The RNN must hold out the groups that the frame network has not seen either.
            about['_held_out'] = sorted(held_out & there)
        pack(root, root / name, folder, [clip for clip in clips if clip.name in there], dtype,
             {**attrs, **more}, about, n_features if name == names.train else None)
    print(f'{len(well)} clips packed, {len(wrong)} missing; next: '
          f'python normalizeData.py{names.flags()}')
    return 3 if wrong else 0


if __name__ == '__main__':
    hf.stage_main(main)
