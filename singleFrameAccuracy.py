"""Stage 5: how well single frames alone tell the action: top-1/5/10 by video and by frame.

Needs   ROOT/testPredictions1024.hdf5 (python save_hdf5.py)
Writes  two lines in ROOT/results.jsonl (unit frame, unit video)

    python singleFrameAccuracy.py

By frame: every frame of every test clip counts once. By video: one vote a clip, the
argmax of the mean over its frames of log softmax.
"""
import json

import numpy

import helperFunctions as hf
from engine import hdf5, stage, variants
from engine.weights import cards
from engine.reporting import predictionfile, resultsfile, scoring
from engine.errors import UserError


def get_parser():
    parser = stage.new_parser(__doc__)
    stage.add_variant(parser, 'stream', 'fusion', 'layer')
    return parser


def main():
    args = stage.parse(get_parser())
    names = variants.names_of(args)
    lists = hf.read_lists(args.root, args.split)
    path = args.root / names.test_predictions
    made_by = f'python save_hdf5.py{variants.flags_of(args)}'
    with hdf5.open_hdf5(path, made_by) as f:
        attrs = hdf5.attributes(f)
        cards.check_split(path, attrs, args.split, names)
        readout = attrs.get('readout', 'mean')
        videos, labels, frames = [], [], []
        # Clip by clip: all frames at once would be some 700,000 times 101 numbers.
        for clip, softmax in predictionfile.each_prediction(f, lists.test, lists.classes, made_by):
            videos.append(scoring.video_log_probability(softmax, readout))
            labels.append(clip.label)
            frames.append(scoring.ranks(numpy.log(numpy.maximum(softmax, 1e-30)),
                                        numpy.full(len(softmax), clip.label)))
    if not videos:
        raise UserError(f'{path}: holds none of the {len(lists.test)} test clips; '
                        f'made by: {made_by}')
    if len(videos) < len(lists.test):
        print(f'{len(lists.test) - len(videos)} test clips have no predictions and are not '
              'counted')
    by_video = scoring.score(videos, labels)
    by_frame = scoring.figures(*map(numpy.concatenate, zip(*frames)), len(lists.classes))
    # The seed and settings that made these figures are those of the network's training.
    seed = int(attrs.get('seed', args.seed))
    settings = json.loads(attrs.get('settings', '{}'))
    for key in ('step', 'views'):
        if attrs.get(key, 1) != 1:
            settings[key] = int(attrs[key])
    for unit, figures in (('frame', by_frame), ('video', by_video)):
        resultsfile.append_result(
            args.root, names.method('frames'), args.split, unit, seed, settings,
            predictions=names.test_predictions, **figures)
        print(f'by {unit}:  {scoring.in_words(figures)}')


if __name__ == '__main__':
    stage.run(main)
