"""Stage 5: how well single frames alone tell the action: top-1/5/10 by video and by frame.

Needs   ROOT/testPredictions1024.hdf5 (python save_hdf5.py)
Writes  two lines in ROOT/results.jsonl (unit frame, unit video)

    python singleFrameAccuracy.py

By frame: every frame of every test clip counts once. By video: one vote a clip, the
argmax of the mean over its frames of log softmax. The same of the clips held out, from
ROOT/validationPredictions1024.hdf5, stands beside it, as with the lines of rnn.py. On these
the temperature is found that makes probabilities mean what they say (docs/accuracy.md); it is
kept in the card of VGG_1024.model.
"""
import engine  # noqa: F401  (before NumPy)
import numpy

import helperFunctions as hf
from engine import hdf5, stage, variants
from engine.weights import cardchecks
from engine.reporting import calibration, predictionfile, resultsfile, scoring
from engine.reporting.counted import add_without, counted, label_of, settings as settings_without
from engine.errors import UserError
from engine.weights.card import weights_digest


def get_parser():
    parser = stage.new_parser(__doc__)
    stage.add_variant(parser, 'stream', 'fusion', 'layer', 'fold')
    add_without(parser)
    return parser


def accuracy(path, args, clips, classes, made_by):
    """Scores the clips of a prediction file.

    Returns:
        ({'frame': figures, 'video': figures} as of scoring.score, or {} where the file holds
        none of the clips; log probabilities by video and labels, of all; its attributes).
    """
    videos, labels, frames = [], [], []
    without = label_of(args.without, classes)
    with hdf5.open_hdf5(path, made_by) as f:
        attrs = predictionfile.said(f)
        cardchecks.check_split(path, attrs, args.split, variants.names_of(args))
        # Clip by clip: all frames at once would be some 700,000 times 101 numbers.
        for clip, softmax in predictionfile.each_prediction(f, clips, classes, made_by):
            videos.append(scoring.video_log_probability(softmax, attrs['readout']))
            labels.append(clip.label)
            if clip.label != without:
                frames.append(scoring.ranks(numpy.log(numpy.maximum(softmax, 1e-30)),
                                            numpy.full(len(softmax), clip.label)))
    if not videos:
        return {}, None, attrs
    video = scoring.score(*counted(videos, labels, without))
    return {'frame': scoring.figures(*map(numpy.concatenate, zip(*frames)), len(classes)),
            'video': video}, (numpy.array(videos), labels), attrs


def main():
    args = stage.parse(get_parser())
    names = variants.names_of(args)
    lists = hf.read_lists(args.root, args.split)
    path = args.root / names.test_predictions
    made_by = variants.maker_of(path, args.split)
    tested, test, attrs = accuracy(path, args, lists.test, lists.classes, made_by)
    if not tested:
        raise UserError(f'{path}: holds none of the {len(lists.test)} test clips; '
                        f'made by: {made_by}')
    if len(test[1]) < len(lists.test):
        print(f'{len(lists.test) - len(test[1])} test clips have no predictions and are '
              'not counted')
    held_out = args.root / names.validation_predictions
    validated, validation, _ = (accuracy(held_out, args, lists.train, lists.classes, made_by)
                                if held_out.exists() else ({}, None, {}))
    model = args.root / names.model
    if not (model.exists() and weights_digest(model) == attrs.get('model_sha256')):
        model = None  # the network that made the predictions is not there any more
    # The seed and settings that made these figures are those of the network's training.
    seed = attrs.get('seed', args.seed)
    settings = {**cardchecks.settings_in(path, attrs), **settings_without(args.without)}
    for key in ('step', 'views'):
        if attrs.get(key, 1) != 1:
            settings[key] = attrs[key]
    for unit, figures in tested.items():
        more = ({} if not validated else
                calibration.figures(validation, test, model, label_of(args.without, lists.classes))
                if unit == 'video' else
                {'validation_loss': validated[unit]['loss'],
                 'validation_accuracy': validated[unit]['top1']})
        resultsfile.append_result(
            args.root, names.method('frames'), args.split, unit, seed, settings,
            predictions=names.test_predictions, features=cardchecks.packed_in(attrs),
            made_with=cardchecks.made_with_in(path, attrs), **resultsfile.fold_of(names), **more,
            **figures)
        print(f'by {unit}:  {scoring.in_words(figures)}'
              + (f'  (validation: top-1 {validated[unit]["top1"]:.3f})' if validated else '')
              + calibration.in_words(more))


if __name__ == '__main__':
    stage.run(main)
