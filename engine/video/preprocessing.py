"""The one preprocessing of every stage: the order and mean of what networks see."""
import json

import numpy

from engine.errors import UserError

# Mean of ImageNet in BGR, 0-255, as VGG-16 was trained (Simonyan & Zisserman 2014).
MEAN = (103.939, 116.779, 123.68)
# Flow (engine/video/flow.py) has no mean that is anybody's: no motion becomes 0.
FLOW_MEAN = (128.0, 128.0, 128.0)
ORDERS = {'rgb': 'BGR', 'flow': 'flow x, flow y, 128'}


def preprocessing(mean=MEAN, stream='rgb'):
    """Returns what a model's card says of its input (dict of JSON values)."""
    return {'order': ORDERS[stream], 'scale': '0-255', 'mean': [float(value) for value in mean],
            'resize': 'whole frame to input_size x input_size, bilinear'}


PREPROCESSING = preprocessing()


def mean_of(card, path, stream='rgb'):
    """Returns the mean, (B, G, R), that a model's card asks to be subtracted.

    A model without a card takes ImageNet's mean.

    Args:
        card (dict): from engine.weights.card.read_card.
        path: the model file, for the error's text.
        stream: what it will be given, 'rgb' or 'flow'.

    Raises:
        UserError: the model takes its input in a way that no stage here gives it.
    """
    asked = card.get('preprocessing', PREPROCESSING)
    theirs = next((name for name, order in ORDERS.items() if order == asked.get('order')), 'rgb')
    if theirs != stream:
        raise UserError(f'{path}: a network for the stream {theirs}, but it would be given '
                        f'{stream}; say --stream {theirs}, or give another model')
    for key, ours in preprocessing(stream=stream).items():
        theirs = asked.get(key, ours)
        if key != 'mean' and theirs != ours:
            raise UserError(f'{path}: made for frames with {key} {_quoted(theirs)}, but the '
                            f'stages give "{ours}"; make it again from the weights it came from: '
                            'python convertWeights.py --help')
    mean = asked.get('mean', MEAN)
    if not is_mean(mean):
        raise UserError(f'{path}: its card asks for the mean {_quoted(mean)}, which is not three '
                        'numbers from 0 to 255 (B, G, R)')
    return tuple(float(value) for value in mean)


def _quoted(value):
    """A card's value for a terminal: a stranger may have written it."""
    return json.dumps(value)[:100]


def is_mean(value):
    """Whether it is three numbers from 0 to 255."""
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 255 for v in value)


def told_by(text):
    """What a text hung on a file tells of the network's input, as preprocessing() returns it.

    Returns:
        dict, or None for any other text: what programs of others call preprocessing may be of
        any kind, and half of it is not enough.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(told, dict) and is_mean(told.get('mean'))):
        return None
    complete = any(told == {**preprocessing(stream=stream), 'mean': told['mean']}
                   for stream in ORDERS)
    return told if complete else None


def preprocess(frames, mean=MEAN):
    """What every network here takes, in training and in extraction alike.

    Args:
        frames: (N, H, W, 3) uint8, BGR, NumPy or CuPy; or windows of frames (N, T, H, W, 3).
        mean: (B, G, R), 0-255, that the network was trained with: `model.mean`.

    Returns:
        (N, 3, H, W) or (N, T, 3, H, W) float32, mean subtracted; in memory the channels stay
        last, which is what the fast convolutions take.
    """
    channels_last = frames.astype(numpy.float32)
    for channel, value in enumerate(mean):
        channels_last[..., channel] -= float(value)
    n = frames.ndim - 3
    return channels_last.transpose(*range(n), n + 2, n, n + 1)
