"""Puts the layers of another framework's file into a network."""
import numpy

from engine.errors import UserError
from engine.weights.layernames import LINEARS

# PyTorch's BatchNorm2d has it, and a state dict does not say it.
EPSILON = 1e-5


def fill(model, path, form, layers, may_miss=()):
    """Puts the weights of every layer into the model, out of `layers`; returns the layers left
    random.

    Args:
        form: of Weights.
        layers: from layernames.collect.
        may_miss: names of the layers that need not be there.

    Raises:
        UserError: naming the layers that are missing, or the one of another shape.
    """
    missing = [name for name in [*model.conv_names, *LINEARS] if name not in layers]
    if not set(missing) <= set(may_miss):
        raise UserError(f'{path}: lacks {", ".join(missing)}; --random-rest starts them at random')
    for name, parts in layers.items():
        link = model[name]
        if 'weight' not in parts or not {'bias', 'norm_bias'} & set(parts):
            raise UserError(f'{path}: {name} has no {"bias" if "weight" in parts else "weight"}; '
                            'fetch it again')
        weight = parts['weight']
        if form == 'keras':
            weight = weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight.T
        if name in LINEARS:
            # some write a fully connected layer as a convolution over all of its input
            weight = weight.reshape(len(weight), -1)
        bias = parts.get('bias', numpy.zeros(len(weight)))
        check(path, name, 'weight', weight, link.W.shape)
        check(path, name, 'bias', bias, link.b.shape)
        if name == 'fc6' and form == 'keras' and parts['weight'].ndim == 2:
            # Keras runs through pool5 by row, column, channel; Chainer by channel first.
            channels, side = model.shape['channels'][-1], model.shape['input_size'] // 32
            weight = weight.reshape(-1, side, side, channels).transpose(0, 3, 1, 2)
            weight = weight.reshape(link.W.shape)
        if any(kind.startswith('norm_') for kind in parts):
            weight, bias = without_normalisation(path, name, weight, bias, parts)
        # A large array is taken as it is: there is no room for two of fc6's.
        with numpy.errstate(over='ignore'):  # of float64; told below
            if weight.dtype == link.W.dtype and weight.flags.carray:
                link.W.array = weight
            else:
                link.W.array[...] = weight
            link.b.array[...] = bias
        if not (finite(link.W.array) and finite(link.b.array)):
            raise UserError(f'{path}: {name} holds numbers that are not finite')
        parts.clear()
    return missing


def finite(array):
    """Whether all of an array's numbers are finite; looked at row by row."""
    return all(numpy.isfinite(row).all() for row in array)


def check(path, layer, kind, array, expected):
    if array.shape != expected:
        raise UserError(f'{path}: the {kind} of {layer} is {array.shape}, expected {expected}; '
                        'other --channels, --hidden or --input-size?'
                        + ' Another top: --no-top takes the convolutions alone'
                        * (layer in LINEARS))


def without_normalisation(path, name, weight, bias, parts):
    """Weight and bias of a convolution that does its batch normalisation too (at test time).

    It comes behind the convolution, so the padded border is the same.
    """
    kinds = ('norm_weight', 'norm_bias', 'norm_running_mean', 'norm_running_var')
    lacking = [kind for kind in kinds if kind not in parts]
    if lacking:
        raise UserError(f'{path}: {name} lacks {", ".join(lacking)}')
    gamma, beta, mean, variance = (parts[kind].astype('f8') for kind in kinds)
    for kind in kinds:
        check(path, name, kind, parts[kind], bias.shape)
    if (variance < 0).any():
        raise UserError(f'{path}: {name} has a variance below zero')
    scale = gamma / numpy.sqrt(variance + float(parts.get('norm_epsilon', EPSILON)))
    return weight * scale[:, None, None, None], (bias - mean) * scale + beta


def adapt_input(model, order, mean, deviation):
    """Makes conv1_1 take BGR, 0-255, less a mean, in place of what the source takes.

    (x / 255 - m) / s = (x - 255 m) / (255 s): the factor goes into the weights. The mean
    goes to model.mean, as a zero beyond the border must stay the mean colour.

    Args:
        order: 'RGB' or 'BGR'; mean and deviation are in this order, for x from 0 to 1.
    """
    weight = model.conv1_1.W.array / (255 * numpy.array(deviation)[:, None, None])
    step = -1 if order == 'RGB' else 1
    model.conv1_1.W.array = weight[:, ::step].astype(model.conv1_1.W.dtype)
    model.mean = tuple(255 * value for value in mean[::step])
