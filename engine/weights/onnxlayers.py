"""Reads the layers of a VGG-16 in an ONNX file without running it.

The graph is followed along its one chain from the input on and held against VGG-16 step by step:
the same weights in another order would compute something else. Exports of PyTorch (weights as
initializers, constants, transposed, or in a file beside) and of Keras (channels last, Transpose
nodes between, fc6 by row, column and channel) come to the same layers.
"""
import numpy

from engine.errors import UserError
from engine.weights.onnxconstants import REAL, aligned, fold
from engine.weights.onnxfile import Graph

BLOCKS = 5
# Blocks closed and convolutions behind them, where the last one has come.
LAST = 4, 3
LINEARS = 3
NCHW, NHWC, NC = tuple('NCHW'), tuple('NHWC'), tuple('NC')
# What changes no number.
PASSING = {'Identity', 'Dropout', 'Cast'}
WEIGHTED = {'Conv', 'Gemm', 'MatMul'}
# What may follow the last layer.
ENDING = {'Softmax', 'LogSoftmax'}
SHAPING = {'Flatten', 'Reshape', 'Squeeze'}


def read_onnx(path, budget, top=True):
    """Returns (arrays, notes) of an ONNX file.

    Args:
        top (bool): whether the fully connected layers are read; else the reading ends behind
            the convolutions, whatever follows.

    Returns:
        arrays: {'conv1_1.weight': (out, in, 3, 3), 'conv1_1.bias': (out,), ..., 'fc6.weight':
            (out, in), channel by row by column, ...}, and 'norm1_1.weight' ... of the batch
            normalisation behind conv1_1.
        notes (dict): 'producer', the program that wrote it; 'channels_last', whether its input
            has them so; 'preprocessing', the text hung on it under that name, and 'subtracted',
            the array that it takes from its input, where there are such.

    Raises:
        UserError: its graph is not VGG-16's.
        limits.DAMAGE: it is cut off or damaged.
    """
    graph = Graph(path, budget)
    walk = _Walk(path, graph, top)
    for node in without_sides(graph.nodes):
        if not walk.step(node):
            break
    if not walk.arrays:
        raise UserError(f'{path}: no convolution with stored weights in its graph')
    return walk.arrays, walk.notes


def without_sides(nodes):
    """The nodes that lead to the network's output, of several that of most layers.

    All nodes where one of the others is a layer: which of them are the network is not known.
    """
    # most layers, and nodes that change something, on a way to each name
    depth, used = {}, {name for node in nodes for name in node.inputs if name}
    last, deepest = (), (0, 0)
    for node in nodes:
        layers, steps = max((depth.get(name, (0, 0)) for name in node.inputs), default=(0, 0))
        here = layers + (node.op in WEIGHTED), steps + (node.op not in PASSING)
        depth |= dict.fromkeys(filter(None, node.outputs), here)
        if here > deepest and used.isdisjoint(node.outputs):
            last, deepest = node.outputs, here
    kept, wanted = [], set(filter(None, last))
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(filter(None, node.inputs))
            kept.append(node)
        elif node.op in WEIGHTED:
            return nodes
    return kept[::-1]


def padding(node, sides, strides):
    """What a convolution or pooling puts around maps that its strides go into, as `pads` has it,
    and the name of the attribute that says so: auto_pad goes before pads.
    """
    auto = node.word('auto_pad') or 'NOTSET'
    if auto == 'NOTSET':
        return node.integers('pads', [0] * 4), 'pads'
    more = [max(0, side - stride) for side, stride in zip(sides, strides)]
    half, rest = [count // 2 for count in more], [count - count // 2 for count in more]
    pads = {'VALID': [0] * 4, 'SAME_UPPER': half + rest, 'SAME_LOWER': rest + half}
    return pads.get(auto), f'auto_pad {auto}: pads'


def changed_input(path, op):
    """The UserError of a graph that does more to its input than is told of it."""
    return UserError(f'{path}: its graph changes its input ({op}) before the first convolution; '
                     'export the network without that, and say by --input what it takes')


class _Walk:
    """Where the chain has come to, and the arrays of the layers passed.

    `x` is the name of what the last step gave and `order` its axes ('1' is one of a single
    place), None when they have become rows. `bare` is the layer, if any, whose ReLU has not come
    yet.
    """

    def __init__(self, path, graph, top):
        self.path, self.graph, self.top = path, graph, top
        self.arrays, self.notes = {}, {'producer': graph.producer}
        if 'preprocessing' in graph.notes:
            self.notes['preprocessing'] = graph.notes['preprocessing']
        self.x, self.order, self.layer, self.bare = graph.input, None, None, None
        self.turned = [0, 1, 2, 3]  # the input's axes, as they lie before the first convolution
        self.pools, self.in_block, self.linears = 0, 0, 0
        self.pooled = False  # whether a pooling came since the last layer
        self.ended = None    # the softmax, once it has come
        self.by_row = False  # whether channels come last in what fc6 takes
        # what is not read, and the op that gave it: shapes, and constants of unusual making
        self.unread = {}

    def refuse(self, what):
        if self.top and self.has_convolutions():
            raise UserError(f'{self.path}: {what}; if its top is another network\'s, --no-top '
                            'takes its convolutions alone')
        raise UserError(f'{self.path}: {what}; convert the weights from the framework that made it')

    def refuse_op(self, node):
        self.refuse(f'its graph has {node.op}, which VGG-16 lacks there')

    def step(self, node):
        """Follows one node; False when what is wanted has been read."""
        graph = self.graph
        varying = {name for name in node.inputs if name and name not in graph}
        if not varying:
            if not fold(graph, node):
                self.unread |= dict.fromkeys(node.outputs, node.op)
        elif node.op == 'Shape' or varying <= self.unread.keys():
            # the op that began it says more than the last one
            op = next((self.unread[name] for name in varying if name in self.unread), node.op)
            self.unread |= dict.fromkeys(node.outputs, op)
        elif not self.top and self.is_top(node):
            return False
        elif not (node.inputs[0] == self.x and node.op in WEIGHTED
                  or self.x in varying and varying - {self.x} <= self.unread.keys()):
            self.refuse(f'its graph has a branch ({node.op}), which VGG-16 lacks')
        else:
            self.take(node)
            self.x = node.outputs[0]
        return True

    def has_convolutions(self):
        """Whether the last convolution is passed with what belongs to it, pool5 or not."""
        return self.linears > 0 or not self.bare and (
            self.pools == BLOCKS or (self.pools, self.in_block) == LAST)

    def is_top(self, node):
        """Whether a node is the first behind the convolutions."""
        if not self.has_convolutions():
            return False
        if node.inputs[0] != self.x:
            return True
        if node.op in PASSING | {'Transpose', 'Relu'}:
            return False
        # before pool5 a convolution too many is one of VGG-19
        return self.pools == BLOCKS or node.op != 'Conv' or (
            self.constant(node.inputs[1], 'the weights behind conv5_3 are').shape[2:] != (3, 3))

    def constant(self, name, what):
        """The array of a constant; `what` says in an error what it is."""
        if name not in self.graph:
            by = f' (by {self.unread[name]})' if name in self.unread else ''
            self.refuse(f'{what} computed, not stored{by}')
        return self.graph[name]

    def take(self, node):
        """One step of the chain."""
        if node.op == 'Cast' and node.integer('to', 1) not in REAL:
            self.refuse('its graph makes whole numbers of what goes through it')
        if self.ended and node.op not in PASSING | SHAPING:
            self.refuse(f'its graph has {node.op} behind {self.ended}, which VGG-16 lacks')
        if node.op in PASSING:
            return
        if node.op == 'Transpose':
            self.transpose(node)
        elif node.op == 'Conv':
            self.convolution(node)
        elif not self.layer:
            self.before(node)
        elif node.op in ENDING and self.linears:
            self.end(node)
        elif node.op == 'Squeeze' and self.linears:
            self.squeeze(node)
        elif self.is_relu(node) and self.linears < LINEARS:
            self.bare = None
        elif node.op == 'BatchNormalization' and self.bare and not self.linears:
            self.normalisation(node)
        elif node.op == 'MaxPool' and self.order == NCHW and not self.linears:
            self.pool(node)
        elif node.op == 'AveragePool' and node.integers('kernel_shape', None) == [1, 1]:
            # PyTorch's adaptive one, of maps that have the wanted size
            self.hold(node, 'a pooling', {'kernel_shape': [1, 1], 'strides': [1, 1],
                                          'pads': [0] * 4})
        elif node.op in ('Flatten', 'Reshape'):
            self.flatten(node)
        elif node.op in ('Gemm', 'MatMul') and node.inputs[0] == self.x:
            self.linear(node)
        elif node.op == 'Add' and self.bare:
            self.add(node)
        else:
            self.refuse_op(node)

    def before(self, node):
        """What is done to the input; a mean alone may be taken from it, if the file tells which."""
        if (node.op == 'Sub' and node.inputs[0] == self.x and 'axis' not in node
                and 'subtracted' not in self.notes):
            self.notes['subtracted'] = self.constant(node.inputs[1], 'what is subtracted is')
            return
        raise changed_input(self.path, node.op)

    def transpose(self, node):
        perm = node.integers('perm', [3, 2, 1, 0])
        if sorted(perm) != [0, 1, 2, 3] or self.layer and not self.order:
            self.refuse('its graph turns what a layer gives' if self.layer
                        else 'its graph turns its input')
        if self.layer:
            self.order = tuple(self.order[axis] for axis in perm)
        else:
            self.turned = [self.turned[axis] for axis in perm]

    def is_relu(self, node):
        """Whether a node is a ReLU, under any of the names that exporters have for it."""
        if node.op == 'Clip':
            lowest, highest = (self.limit(node, *place) for place in (('min', 1), ('max', 2)))
            return lowest == 0 and (highest is None or highest >= numpy.finfo('f4').max)
        if node.op == 'Max':
            others = [name for name in node.inputs if name != self.x]
            return bool(others) and not any(
                self.constant(name, f'what {self.layer} is held against is').any()
                for name in others)
        return node.op == 'Relu'

    def limit(self, node, name, at):
        """A limit of a Clip: an attribute in old files, an input in newer ones; None if absent."""
        if name in node:
            return node.number(name, 0)
        if len(node.inputs) <= at or not node.inputs[at]:
            return None
        value = self.constant(node.inputs[at], f'a limit behind {self.layer} is')
        # the largest number of float16 is no limit to what is float16
        return numpy.inf if value.dtype == 'f2' and value == numpy.finfo('f2').max else value.item()

    def begin(self, name, weight):
        """A layer of the chain begins: the one before must have had its ReLU."""
        if self.bare:
            self.refuse(f'{self.bare} has no ReLU behind it')
        self.arrays[f'{name}.weight'] = weight
        self.layer = self.bare = name
        self.pooled = False

    def convolution(self, node):
        if not self.layer:
            if self.turned not in ([0, 1, 2, 3], [0, 3, 1, 2]):
                self.refuse('its graph turns its input, so that rows are not what pictures have')
            self.notes['channels_last'] = self.turned[1] == 3
        elif self.order != NCHW:
            self.refuse('a convolution of what is not channels by rows by columns')
        weight = self.weight(node) if self.pools == BLOCKS else None
        if weight is not None and weight.shape[2:] != (3, 3):
            # a fully connected layer may be written as a convolution over all of its input
            self.check(node, weight.shape[2:], [0] * 4)
            self.begin(f'fc{6 + self.linears}', weight)
            self.linears += 1
        else:
            self.check(node, (3, 3), [1] * 4)
            self.in_block += 1
            self.begin(f'conv{self.pools + 1}_{self.in_block}', self.weight(node))
        self.order = NCHW
        self.bias(node)

    def weight(self, node):
        return self.constant(node.inputs[1], f'the weights behind {self.layer or "the input"} are')

    def bias(self, node):
        """That of a Conv or Gemm, its third input."""
        if len(node.inputs) > 2 and node.inputs[2]:
            what = f'the bias of {self.layer}'
            value = self.constant(node.inputs[2], f'{what} is')
            self.arrays[f'{self.layer}.bias'] = (
                self.per_unit(value, 'NC', what) if node.op == 'Gemm' else value.reshape(-1))

    def per_unit(self, value, axes, what):
        """A number for each unit of the last layer, from an array that is stretched along axes."""
        shape = (1,) * (len(axes) - value.ndim) + value.shape
        units = len(self.arrays[f'{self.layer}.weight'])
        if len(shape) > len(axes) or any(side not in ((1, units) if axis == 'C' else (1,))
                                         for axis, side in zip(axes, shape)):
            self.refuse(f'{what}, of shape {value.shape}, is no bias')
        return numpy.broadcast_to(value.reshape(-1), (units,))

    def check(self, node, sides, pads):
        """Refuses a convolution of other sides, border or step."""
        self.hold(node, 'a convolution', {'kernel_shape': list(sides), 'strides': [1, 1],
                                          'dilations': [1, 1], 'pads': pads})
        if node.integer('group', 1) != 1:
            self.refuse('a convolution in groups, which VGG-16 lacks')

    def hold(self, node, what, expected):
        """Refuses a node with other attributes than expected, {name: whole numbers}."""
        for name, ours in expected.items():
            if name == 'pads':
                theirs, name = padding(node, expected['kernel_shape'], expected['strides'])
            else:
                theirs = node.integers(name, [1, 1] if name == 'strides' else ours)
            if theirs != ours:
                self.refuse(f'{what} with {name} {theirs}, expected {ours}')

    def normalisation(self, node):
        name = self.bare.replace('conv', 'norm')
        if f'{name}.weight' in self.arrays:
            self.refuse(f'two batch normalisations behind {self.bare}')
        if self.order != NCHW:
            self.refuse('a batch normalisation of what is not channels by rows by columns')
        kinds = ('weight', 'bias', 'running_mean', 'running_var')
        for kind, constant in zip(kinds, node.inputs[1:], strict=True):
            self.arrays[f'{name}.{kind}'] = self.constant(
                constant, f'the normalisation of {self.bare} is')
        # the largest goes through a rising line as it is, through a falling one it is the smallest
        if self.pooled and (self.arrays[f'{name}.weight'] < 0).any():
            self.refuse(f'{self.bare} has a pooling before its batch normalisation, some of whose '
                        'factors are below zero')
        self.arrays[f'{name}.epsilon'] = numpy.array(node.number('epsilon', 1e-5))

    def pool(self, node):
        if not self.in_block:
            self.refuse('two poolings in a row')
        self.hold(node, 'a pooling', {'kernel_shape': [2, 2], 'strides': [2, 2], 'pads': [0] * 4,
                                      'dilations': [1, 1]})
        self.pools, self.in_block, self.pooled = self.pools + 1, 0, True

    def flatten(self, node):
        order = self.order or NC
        # behind a layer of one row there is one row and one column
        one = self.linears and [axis for axis in order if axis in NC] in (['N', 'C'], ['C'])
        if order not in (NCHW, NHWC, NC) and not one:
            self.refuse('its graph turns what the convolutions give')
        if self.order is not None:  # a second one leaves the first one's order as it is
            self.by_row = self.order == NHWC and not self.linears
        self.order = None
        if node.op == 'Reshape' and self.linears == LINEARS:
            self.reshape(node, order)

    def reshape(self, node, order):
        """Behind the last layer: where its shape is stored it says where the classes are."""
        if len(node.inputs) < 2:
            shape = node.integers('shape', [])  # up to opset 4
        elif node.inputs[1] in self.graph:
            shape = [int(side) for side in self.graph[node.inputs[1]].reshape(-1)]
        else:
            return
        # a 0 keeps a side; what is told by -1 are the classes if nothing else is
        kinds = {1: '1', -1: '', len(self.arrays[f'{self.layer}.weight']): 'C'}
        known = [order[at] if side == 0 and at < len(order) else kinds.get(side, 'N')
                 for at, side in enumerate(shape)]
        self.put_order(axis or ('N' if 'C' in known else 'C') for axis in known)

    def squeeze(self, node):
        axes = node.integers('axes', None)
        if len(node.inputs) > 1 and node.inputs[1]:
            axes = self.constant(node.inputs[1], 'the axes of a Squeeze are').reshape(-1).tolist()
        if axes is None:
            self.order = None
        elif self.order or self.linears == LINEARS:  # else there may be more than rows
            order = self.order or NC
            self.put_order(axis for at, axis in enumerate(order)
                           if at not in axes and at - len(order) not in axes)

    def put_order(self, axes):
        order = tuple(axes)
        self.order = None if order == NC else order

    def end(self, node):
        """A softmax, over the classes alone."""
        order, flat = self.order or NC, self.graph.opset < 13  # over all axes from one on
        axis = node.integer('axis', 1 if flat else -1)
        over = order[axis:] if flat else order[axis:][:1]
        if not -len(order) <= axis < len(order) or 'C' not in over or 'N' in over:
            self.refuse(f'its graph has {node.op} along axis {axis}, where the classes are not')
        self.ended = node.op

    def linear(self, node):
        for name, ours in (('alpha', 1.0), ('beta', 1.0), ('transA', 0)):
            if name in node and (node.integer if ours == 0 else node.number)(name, ours) != ours:
                self.refuse(f'a Gemm with {name}; only plain layers are read')
        if self.order:
            self.refuse('a fully connected layer on maps that were not made one row')
        channels = len(self.arrays[f'{self.layer}.weight'])
        weight = self.weight(node)
        if not (node.op == 'Gemm' and node.integer('transB', 0)):
            weight = weight.T
        side = int((weight.shape[1] // channels) ** 0.5)
        if self.by_row and weight.shape[1] == side * side * channels:
            weight = weight.reshape(len(weight), side, side, channels).transpose(0, 3, 1, 2)
            weight = weight.reshape(len(weight), -1)
        self.by_row = False
        self.begin(f'fc{6 + self.linears}', weight)
        self.linears += 1
        self.bias(node)

    def add(self, node):
        """What is added to a layer is its bias, or comes to the one that it has."""
        place = node.inputs[0] == self.x
        what = f'what is added behind {self.bare}'
        value, axes = self.constant(node.inputs[place], f'{what} is'), self.order or NC
        try:
            value = aligned(node, value, len(axes) if place else -1)
        except ValueError as error:
            self.refuse(f'{what} is not read: {error}')
        value = self.per_unit(value, axes, what)
        # behind its normalisation it is a part of that
        norm = self.bare.replace('conv', 'norm')
        name = f'{norm if f"{norm}.bias" in self.arrays else self.bare}.bias'
        self.arrays[name] = self.arrays[name] + value if name in self.arrays else value
