"""Writes trained models as ONNX, for programs that have neither Chainer nor this project.

    python exportOnnx.py --root DIR                      # VGG_1024.model and RNN.model
    python exportOnnx.py --root DIR LSTM-3x512.model     # any model of rnn.py or of stage 1

Needs   ROOT/VGG_1024.model (python frameBasedTrain.py) and ROOT/RNN.model (python rnn.py), or those
        named; pip install -r requirements-onnx.txt
Writes  ROOT/VGG_1024.onnx: frames (N, S, S, 3), BGR bytes of side S -> feature (N, 1024) and
        probability (N, classes); the mean is subtracted inside
        ROOT/RNN.onnx: features (N, T, 1024) and mask (N, T), False where a step is padding ->
        probability (N, T, classes) of every step, 0 at padding

The classes, the preprocessing and which weights these are stand in each file's metadata.
docs/label_with_onnx.py labels a video with both, by onnxruntime and OpenCV alone. convertWeights.py
reads the convolutions of VGG_1024.onnx back (--no-top), and all of a VGG.model's.
"""
from pathlib import Path

from engine import stage, variants
from engine.errors import UserError
from engine.files import find_file
from engine.video.preprocessing import preprocessing
from engine.weights.card import read_card, weights_digest
from engine.weights.onnxexport import export_frames, export_rnn
from FusionNet import load_frame_network
from RNNNet import load_rnn
from VGGNet import load_vgg


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('models', nargs='*', metavar='MODEL',
                        help=f'model files (default: {variants.FRAME_MODEL} and, where it is '
                             f'there, {variants.RNN_MODEL})')
    group = parser.add_argument_group('output')
    group.add_argument('--floats', action='store_true',
                       help='frames come as float32, 0 to 255, in place of bytes')
    group.add_argument('--out', type=Path, metavar='DIR', help='folder to write to (default: ROOT)')
    return parser


def check_together(paths):
    """Refuses an RNN beside frame networks of which none made the features that it knows."""
    cards = [(path, read_card(path)) for path in paths]
    frames = [path for path, card in cards if card.get('kind') == 'frames']
    made_by = {None, *map(weights_digest, frames)}
    for path, card in cards:
        if frames and card.get('kind') == 'rnn' and card.get('features') not in made_by:
            raise UserError(f'{path}: trained on other features than those of {frames[0]}; save '
                            'these (stages 2 to 4) and train it again, or name one model alone')


def export(path, floats):
    """Returns (Exporter, notes) of a model file."""
    card = read_card(path)
    stream = card.get('stream', 'rgb')
    notes = {'kind': card.get('kind'), 'classes': card.get('classes'), 'weights':
             weights_digest(path), 'commit': stage.commit()}
    if card.get('kind') == 'rnn':
        notes['features'] = card.get('features')
        return export_rnn(load_rnn(path)[0]), notes
    if card.get('kind') == 'pooling' or card.get('fusion', 'single') != 'single':
        what = card.get('fusion', 'single')
        raise UserError(f'{path}: a network of '
                        + (f'--fusion {what}' if what != 'single' else 'pooling')
                        + ', which is not exported; frame networks without fusion and the cells '
                        'lstm, gru, linear and mean are')
    load = load_frame_network if card.get('kind') == 'frames' else load_vgg
    model, _ = load(path, stream=stream)
    notes['preprocessing'] = preprocessing(model.mean, stream)
    return export_frames(model, floats), notes


def main():
    args = stage.parse(get_parser())
    stage.check_root(args.root)
    paths = [find_file(name, args.root) for name in args.models]
    if not paths:
        # Imported features come without their network.
        paths = [] if variants.is_imported(args.root) else [args.root / variants.FRAME_MODEL]
        rnn = args.root / variants.RNN_MODEL
        paths += [rnn] if rnn.exists() or not paths else []
    check_together(paths)
    for path in paths:
        graph, notes = export(path, args.floats)
        out = (args.out or args.root) / f'{path.name.removesuffix(".model")}.onnx'
        graph.write(out, notes)
        print(f'wrote {out}', flush=True)


if __name__ == '__main__':
    stage.run(main)
