"""What other frameworks' names of arrays mean: which layer of VGG-16, and which part of it.

A name is a way through dictionaries, groups and modules. Its end says the layer; what stands before
(module., backbone., state_dict/) is whatever people wrap a network in, and tells two networks in
one file apart.
"""
import re
from typing import NamedTuple

from engine.errors import UserError

LINEARS = ['fc6', 'fc7', 'fc8']
OTHER_NAMES = {'fc1': 'fc6', 'fc2': 'fc7', 'predictions': 'fc8', 'pre_logits.fc1': 'fc6',
               'pre_logits.fc2': 'fc7', 'head.fc': 'fc8', 'classifier.0': 'fc6',
               'classifier.3': 'fc7', 'classifier.6': 'fc8'}
# What PyTorch's wrappers put into the names, at any place.
WRAPPERS = {'module', '_orig_mod'}


class Place(NamedTuple):
    """Where an array belongs: `owner` is what stands before the name that tells `layer`."""
    layer: str
    owner: str = ''
    of_norm: bool = False


def collect(path, weights, convs, prefix='', top=True):
    """Sorts a file's arrays by layer.

    Args:
        weights (Weights): its form and arrays.
        convs: names of the network's convolutions, in order: conv1_1, conv1_2 ...
        prefix: take those arrays alone whose names begin so.
        top (bool): False leaves out all but the convolutions.

    Returns:
        (layers, left out): layers is {layer: {'weight', 'bias', and of batch normalisation
        'norm_weight', 'norm_bias', 'norm_running_mean', 'norm_running_var', 'norm_epsilon'}};
        the names left out are those that `top` does not want.

    Raises:
        UserError: an array belongs to no layer of VGG-16, or there is more than one network.
    """
    arrays = {name: array for name, array in weights.arrays.items()
              # without counters of batches and steps
              if name.startswith(prefix) and array.size
              and (array.ndim or name.endswith('epsilon'))}
    if prefix and not arrays:
        raise UserError(f'{path}: no name of an array begins with {prefix}; they are '
                        f'{listed(sorted(weights.arrays), 6)}')
    places = (_places_in_groups if weights.form != 'torch' else _places_in_modules)(arrays, convs)
    owner = _only_owner(path, places)
    layers, left_out, unknown = {}, [], []
    for name, array in arrays.items():
        place = places.get(name)
        if place is None and '/' in owner and not name.startswith(owner.rpartition('/')[0] + '/'):
            continue  # of another dictionary, such as the optimizer's
        if place is not None and place.layer.startswith('conv') and place.layer not in convs:
            unknown.append(name)
        elif not top and (place is None or place.layer in LINEARS):
            left_out.append(name)
        elif place is None or not owner.startswith(place.owner):
            unknown.append(name)
        else:
            kind = 'weight' if array.ndim > 1 else 'bias'
            if place.of_norm:
                kind = 'norm_' + name.rsplit('.', 1)[1]
            if kind in layers.setdefault(place.layer, {}):
                raise UserError(f'{path}: has two arrays for the {kind} of {place.layer}, one is '
                                f'{name}; --prefix takes those alone whose names begin so')
            layers[place.layer][kind] = array
    if not layers:
        raise UserError(f'{path}: holds no layer of VGG-16; its arrays are '
                        f'{listed(sorted(arrays), 6) or "none"}')
    if unknown:
        raise UserError(f'{path}: not VGG-16: {listed(unknown, 4)} have no place in it '
                        '(VGG-19?)' + '; if they are another top, --no-top takes the '
                        'convolutions alone' * top)
    return layers, left_out


def listed(names, most):
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _only_owner(path, places):
    """What stands before the names of the convolutions; UserError where it is not one thing."""
    owners = sorted({place.owner for place in places.values() if place.layer.startswith('conv')})
    if len(owners) > 1:
        raise UserError(f'{path}: holds {len(owners)} networks; choose one: '
                        + ' or '.join(f'--prefix {owner or "conv"}' for owner in owners[:6]))
    return owners[0] if owners else ''


# ----------------------------------------------------------- Keras, Chainer and Caffe

def _places_in_groups(arrays, convs):
    """{name: Place} of names like block1_conv1/kernel:0 or conv1_1/W; none for the unknown."""
    places, numbered = {}, {'conv2d': {}, 'dense': {}}
    for name in arrays:
        # Keras puts a layer's group into another; the innermost name that says something counts
        for part in reversed(re.split(r'[/\\]', name)):
            part = re.sub(r'(__kernel|__bias|_[Wb](_\d+:0)?)$', '', part)
            if found := re.fullmatch(r'(conv2d|dense)(?:_(\d+))?', part):
                numbered[found[1]].setdefault(int(found[2] or 0), []).append(name)
                break
            if layer := _named(part):
                places[name] = Place(layer)
                break
    # Keras counts the layers of a program, not of a network: the first may have any number
    for kind, layers in (('conv2d', convs), ('dense', LINEARS)):
        for at, (_, names) in enumerate(sorted(numbered[kind].items())):
            layer = layers[at] if at < len(layers) else f'{kind[:4]} {at + 1}'
            places |= {name: Place(layer) for name in names}
    return places


def _named(part):
    """The layer that one name says, also one that VGG-16 lacks; None where it says none."""
    if found := re.fullmatch(r'(?:conv|block)(\d)_(?:conv)?(\d)', part):
        return f'conv{found[1]}_{found[2]}'
    return part if part in LINEARS else OTHER_NAMES.get(part)


# -------------------------------------------------------------------------- PyTorch

def _places_in_modules(arrays, convs):
    """{name: Place} of names like features.0.weight; none for the unknown."""
    numbers, places, ways = {}, {}, {}
    for name, array in arrays.items():
        dictionary, slash, module = name.rpartition('/')
        *way, kind = [part for part in module.split('.') if part not in WRAPPERS]
        ways[name] = dictionary + slash, tuple(way), kind
        if way and way[-1].isdigit() and kind in ('weight', 'running_mean'):
            ends = numbers.setdefault((dictionary + slash, tuple(way[:-1])), {})
            ends.setdefault(array.ndim if kind == 'weight' else kind, set()).add(int(way[-1]))
    lists = {owner: _meaning(owner[1], ends, convs) for owner, ends in numbers.items()}
    for name, (dictionary, way, _) in ways.items():
        meaning = lists.get((dictionary, way[:-1])) if way and way[-1].isdigit() else None
        if meaning:
            layer, of_norm = meaning.get(int(way[-1]), (f'conv {way[-1]}', False))
            # what a list of convolutions stands in may be the whole network's own name
            named = 2 if way[-2:-1] == ('features',) or layer in LINEARS else 1
            places[name] = Place(layer, _owner(dictionary, way[:-named]), of_norm)
            continue
        for n in (2, 1):
            end = '.'.join(way[-n:])
            norm = re.fullmatch(r'norm(\d_\d)', end)
            if layer := f'conv{norm[1]}' if norm else _named(end):
                places[name] = Place(layer, _owner(dictionary, way[:-n]), bool(norm))
                break
    return places


def _owner(dictionary, way):
    return dictionary + ''.join(f'{part}.' for part in way)


def _meaning(way, ends, convs):
    """{number: (layer, whether of its batch normalisation)} of a list of modules, or None.

    Args:
        way: names of the modules that the list stands in.
        ends: {2: numbers of fully connected layers, 4: of convolutions, 1: of normalisations,
            'running_mean': the same}.
    """
    found = sorted(ends.get(4, ()))
    normalised = 'running_mean' in ends
    apart, at, trunk = 3 if normalised else 2, 0, {}
    for conv, after in zip(convs, [*convs[1:], 'conv_']):
        trunk[at] = conv, False
        if normalised:
            trunk[at + 1] = conv, True
        # a pooling stands between two blocks
        at += apart + (conv.split('_')[0] != after.split('_')[0])
    places = [number for number, (_, of_norm) in trunk.items() if not of_norm]
    if way[-1:] == ('features',) or len(found) > 3 and found == places[:len(found)]:
        return trunk
    linears = sorted(ends.get(2, ()))
    if len(linears) == len(LINEARS) and not found:
        # with or without dropout between, and Flatten before
        return {number: (layer, False) for number, layer in zip(linears, LINEARS)}
    return None
