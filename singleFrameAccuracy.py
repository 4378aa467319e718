"""Stage 5: how well single frames alone tell the action: top-1/5/10 by video and by frame.

Needs   ROOT/testPredictions1024.hdf5 (python save_hdf5.py)
Writes  two lines in ROOT/results.jsonl (unit frame, unit video)

    python singleFrameAccuracy.py

By frame: every frame of every test clip counts once. By video: one vote a clip, the
argmax of the mean over its frames of log softmax.
"""
import numpy

import helperFunctions as hf
from engine.errors import UserError


def main():
    args = hf.parse_stage(hf.stage_parser(__doc__))
    lists = hf.read_lists(args.root, args.split)
    path = args.root / hf.TEST_PREDICTIONS
    predictions, attrs = hf.read_predictions(path, lists.test, lists.classes,
                                             'python save_hdf5.py')
    clips = [clip for clip in lists.test if clip.name in predictions]
    if not clips:
        raise UserError(f'{path}: holds none of the {len(lists.test)} test clips of split '
                        f'{args.split}; made by: python save_hdf5.py --split {args.split}')
    if len(clips) < len(lists.test):
        print(f'{len(lists.test) - len(clips)} test clips have no predictions and are not '
              'counted')
    by_video = hf.score([hf.video_log_probability(predictions[clip.name], attrs['readout'])
                         for clip in clips], [clip.label for clip in clips])
    frames = numpy.concatenate([predictions[clip.name] for clip in clips])
    by_frame = hf.score(numpy.log(numpy.maximum(frames, 1e-30)),
                        numpy.repeat([clip.label for clip in clips],
                                     [len(predictions[clip.name]) for clip in clips]))
    for unit, figures in (('frame', by_frame), ('video', by_video)):
        hf.append_result(args.root, 'frames', args.split, unit, args.seed, {},
                         predictions=hf.TEST_PREDICTIONS, **figures)
        print(f'by {unit}:  {hf.in_words(figures)}')


if __name__ == '__main__':
    hf.stage_main(main)
