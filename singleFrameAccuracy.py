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
from engine.errors import UserError


def get_parser():
    parser = hf.stage_parser(__doc__)
    hf.add_variant(parser, 'stream', 'fusion', 'layer')
    return parser


def main():
    args = hf.parse_stage(get_parser())
    names = hf.names_of(args)
    lists = hf.read_lists(args.root, args.split)
    path = args.root / names.test_predictions
    made_by = f'python save_hdf5.py{names.flags()}'
    predictions, attrs = hf.read_predictions(path, lists.test, lists.classes,
                                             made_by)
    hf.check_split(path, attrs, args.split)
    clips = [clip for clip in lists.test if clip.name in predictions]
    if not clips:
        raise UserError(f'{path}: holds none of the {len(lists.test)} test clips; '
                        f'made by: {made_by}')
    if len(clips) < len(lists.test):
        print(f'{len(lists.test) - len(clips)} test clips have no predictions and are not '
              'counted')
    readout = attrs.get('readout', 'mean')
    by_video = hf.score([hf.video_log_probability(predictions[clip.name], readout)
                         for clip in clips], [clip.label for clip in clips])
    frames = numpy.concatenate([predictions[clip.name] for clip in clips])
    by_frame = hf.score(numpy.log(numpy.maximum(frames, 1e-30)),
                        numpy.repeat([clip.label for clip in clips],
                                     [len(predictions[clip.name]) for clip in clips]))
    # The seed and settings that made these figures are those of the network's training.
    seed = int(attrs.get('seed', args.seed))
    settings = json.loads(attrs.get('settings', '{}'))
    for key in ('step', 'views'):
        if attrs.get(key, 1) != 1:
            settings[key] = int(attrs[key])
    for unit, figures in (('frame', by_frame), ('video', by_video)):
        hf.append_result(args.root, names.method('frames'), args.split, unit, seed, settings,
                         predictions=names.test_predictions, **figures)
        print(f'by {unit}:  {hf.in_words(figures)}')


if __name__ == '__main__':
    hf.stage_main(main)
