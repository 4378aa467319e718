"""What other frameworks' names of arrays mean: which layer of VGG-16, and which part of it."""
import re

from engine.errors import UserError

LINEARS = ['fc6', 'fc7', 'fc8']
OTHER_NAMES = {'fc1': 'fc6', 'fc2': 'fc7', 'predictions': 'fc8', 'classifier.0': 'fc6',
               'classifier.3': 'fc7', 'classifier.6': 'fc8', 'pre_logits.fc1': 'fc6',
               'pre_logits.fc2': 'fc7', 'head.fc': 'fc8'}


def layer_of(name, convs, normalised):
    """The layer that an array's name speaks of, and whether of its batch normalisation.

    Args:
        convs: names of the network's convolutions, in order: conv1_1, conv1_2 ...
        normalised (bool): whether the source has batch normalisation, which moves the
            numbers in torchvision's names.

    Returns:
        ('conv3_2', False), or None.
    """
    if found := re.match(r'features\.(\d+)\.', name):
        place, apart = int(found[1]), 3 if normalised else 2
        at = 0
        for conv, after in zip(convs, [*convs[1:], 'conv_']):
            if place in (at, at + 1) and (normalised or place == at):
                return conv, place > at
            # a pooling stands between two blocks
            at += apart + (conv.split('_')[0] != after.split('_')[0])
        return None
    if found := re.match(r'(conv|norm|linear)\.(\d+)\.', name):
        return nth(LINEARS if found[1] == 'linear' else convs, found[2], found[1] == 'norm')
    # Keras puts a layer's group into another; the innermost name that says something counts
    for part in reversed(re.sub(r'\.(weight|bias)$', '', name).split('/')):
        part = re.sub(r'(__kernel|__bias|_[Wb](_\d+:0)?)$', '', part)
        if found := re.fullmatch(r'(?:conv|block)(\d)_(?:conv)?(\d)', part):
            conv = f'conv{found[1]}_{found[2]}'
            return (conv, False) if conv in convs else None
        if found := re.fullmatch(r'(conv2d|dense)(?:_(\d+))?', part):
            return nth(convs if found[1] == 'conv2d' else LINEARS, found[2] or 0, False)
        if part in LINEARS or part in OTHER_NAMES:
            return OTHER_NAMES.get(part, part), False
    return None


def nth(names, number, normalisation):
    return (names[int(number)], normalisation) if int(number) < len(names) else None


def collect(path, arrays, convs):
    """Sorts a file's arrays by layer.

    Returns:
        dict: layer -> {'weight', 'bias', and of batch normalisation 'norm_weight',
        'norm_bias', 'norm_running_mean', 'norm_running_var', 'norm_epsilon'}.

    Raises:
        UserError: an array belongs to no layer of VGG-16.
    """
    layers, unknown = {}, []
    normalised = any(name.endswith('running_mean') for name in arrays)
    for name, array in arrays.items():
        if not array.ndim and not name.endswith('epsilon'):
            continue  # counters of batches and steps
        found = layer_of(name, convs, normalised)
        if found is None:
            unknown.append(name)
            continue
        layer, of_normalisation = found
        kind = 'weight' if array.ndim > 1 else 'bias'
        if of_normalisation:
            kind = 'norm_' + name.rsplit('.', 1)[1]
        if kind in layers.setdefault(layer, {}):
            raise UserError(f'{path}: has two arrays for the {kind} of {layer}, one is {name}')
        layers[layer][kind] = array
    if not layers:
        raise UserError(f'{path}: holds no layer of VGG-16; its arrays are '
                        f'{listed(sorted(arrays), 6) or "none"}')
    if unknown:
        raise UserError(f'{path}: not VGG-16: {listed(unknown, 4)} have no place in it '
                        '(VGG-19, or another top?)')
    return layers


def listed(names, most):
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
