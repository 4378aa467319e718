"""Reads the blobs of a Caffe NetParameter, with layers of the first form or the second."""
import mmap

from engine.errors import UserError
from engine.weights.dtypes import numbers
from engine.weights.protobuf import Messages, text


def read_caffe(path, budget):
    """Returns {layer/W: (out, in, h, w) or (out, in), layer/b: (out,)}.

    Raises:
        UserError: a layer is neither a convolution nor an inner product.
        limits.DAMAGE: it is cut off or damaged.
    """
    messages = Messages(budget)
    with open(path, 'rb') as f:
        net = messages.grouped(memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))
    arrays = {}
    # numbers of the fields `layers` and `layer`, and of `name` and `blobs` in them
    for of_net, of_name, of_blobs in ((2, 4, 6), (100, 1, 7)):
        for layer in map(messages.grouped, net.get(of_net, ())):
            name, blobs = text(layer[of_name][0]), layer.get(of_blobs, ())
            if len(blobs) > 2:
                raise UserError(f'{path}: layer {name} has {len(blobs)} blobs; only '
                                'convolutions and inner products can be read')
            for kind, blob in zip(('W', 'b'), map(messages.grouped, blobs)):
                arrays[f'{name}/{kind}'] = _blob(kind, blob, messages)
    if not arrays:
        raise ValueError('no layer with weights')
    return arrays


def _blob(kind, blob, messages):
    if 7 in blob:
        shape = messages.packed(messages.grouped(blob[7][0]).get(1, ()))
    else:  # num, channels, height, width, each 0 where it is not written
        shape = [blob.get(field, [0])[0] for field in (1, 2, 3, 4)]
    field, dtype = (5, 'f4') if 5 in blob else (8, 'f8')
    values = blob[field][0] if len(blob[field]) == 1 else b''.join(blob[field])
    values = numbers(values, dtype)
    if kind == 'b':
        return values
    # Caffe of 2014 gives a matrix four sides, the first two of length 1.
    return values.reshape(shape[2:] if shape[:2] == [1, 1] else shape)
