"""Reads the layers of a VGG-16 in an ONNX file without running it.

The graph is followed along its one chain from the input on and held against VGG-16 step by step:
the same weights in another order would compute something else. Exports of PyTorch (weights as
initializers, constants, transposed, or in a file beside) and of Keras (channels last, Transpose
nodes between, fc6 by row, column and channel) come to the same layers.
"""
import json

import numpy

from engine.errors import UserError
from engine.weights.onnxfile import Graph

BLOCKS = 5
NCHW, NHWC = tuple('NCHW'), tuple('NHWC')
# What changes no number.
PASSING = {'Identity', 'Dropout', 'Cast'}
WEIGHTED = {'Conv', 'Gemm', 'MatMul'}
# What may follow the last layer.
ENDING = {'Softmax', 'LogSoftmax', 'Squeeze'}


def read_onnx(path, budget, top=True):
    """Returns (arrays, notes) of an ONNX file.

    Args:
        top (bool): whether the fully connected layers are read; else the reading ends behind
            the convolutions, whatever follows.

    Returns:
        arrays: {'conv1_1.weight': (out, in, 3, 3), 'conv1_1.bias': (out,), ..., 'fc6.weight':
            (out, in), channel by row by column, ...}, and 'norm1_1.weight' ... of the batch
            normalisation behind conv1_1.
        notes (dict): 'producer', the program that wrote it, and where the file tells it
            'preprocessing', as a model's card does.

    Raises:
        UserError: its graph is not VGG-16's.
        limits.DAMAGE: it is cut off or damaged.
    """
    graph = Graph(path, budget)
    walk = _Walk(path, graph, top)
    for node in graph.nodes:
        if not walk.step(node):
            break
    if not walk.arrays:
        raise UserError(f'{path}: no convolution with stored weights in its graph')
    return walk.arrays, walk.notes


class _Walk:
    """Where the chain has come to, and the arrays of the layers passed.

    `x` is the name of what the last step gave and `order` its axes, None of them when they have
    become one. `bare` is the layer, if any, whose ReLU has not come yet.
    """

    def __init__(self, path, graph, top):
        self.path, self.graph, self.top = path, graph, top
        self.arrays, self.notes = {}, {'producer': graph.producer}
        if 'preprocessing' in graph.notes:
            self.notes['preprocessing'] = json.loads(graph.notes['preprocessing'])
        self.x, self.order, self.layer, self.bare = graph.input, None, None, None
        self.pools, self.in_block, self.linears = 0, 0, 0
        self.by_row = False  # whether channels come last in what fc6 takes
        self.sizes = set()   # names of shapes and what is computed from them

    def refuse(self, what):
        if self.pools == BLOCKS:
            raise UserError(f'{self.path}: {what}; if its top is another network\'s, --no-top '
                            'takes its convolutions alone')
        raise UserError(f'{self.path}: {what}; convert the weights from the framework that made it')

    def step(self, node):
        """Follows one node; False when what is wanted has been read."""
        graph = self.graph
        varying = [name for name in node.inputs if name and name not in graph]
        if not varying:
            self.fold(node)
        elif node.op == 'Shape' or set(varying) <= self.sizes:
            self.sizes.update(node.outputs)
        elif not self.top and self.pools == BLOCKS and node.op not in PASSING | {'Transpose'}:
            return False
        elif not (node.inputs[0] == self.x and node.op in WEIGHTED
                  or self.x in varying and set(varying) <= self.sizes | {self.x}):
            self.refuse(f'its graph has a branch ({node.op}), which VGG-16 lacks')
        else:
            self.take(node)
            self.x = node.outputs[0]
        return True

    def fold(self, node):
        """Constants made of constants: exporters leave some of that to the reader."""
        graph, output = self.graph, node.outputs[0]
        if node.op == 'Constant' and 'value' in node:
            graph.put(output, graph.tensor(node.tensor('value')))
        elif node.op in ('Identity', 'Cast'):
            graph.put(output, lambda: graph[node.inputs[0]])
        elif node.op == 'Transpose':
            graph.put(output, lambda: graph[node.inputs[0]].transpose(
                node.integers('perm', None)))
        elif node.op in ('Reshape', 'Squeeze', 'Unsqueeze'):
            # a bias in the shape of what it is added to
            graph.put(output, lambda: graph[node.inputs[0]].reshape(-1))
        else:
            self.sizes.add(output)

    def take(self, node):
        """One step of the chain."""
        if node.op in PASSING or node.op in ENDING and self.linears:
            return
        if node.op == 'Relu' and self.layer:
            self.bare = None
        elif node.op == 'Transpose':
            perm = node.integers('perm', [3, 2, 1, 0])
            if self.layer and self.order and sorted(perm) == [0, 1, 2, 3]:
                self.order = tuple(self.order[axis] for axis in perm)
            elif self.layer:
                self.refuse('its graph turns what a layer gives')
        elif node.op == 'Conv':
            self.convolution(node)
        elif node.op == 'BatchNormalization' and self.bare and self.bare.startswith('conv'):
            kinds = ('weight', 'bias', 'running_mean', 'running_var')
            name = self.bare.replace('conv', 'norm')
            for kind, constant in zip(kinds, node.inputs[1:], strict=True):
                self.arrays[f'{name}.{kind}'] = self.graph[constant]
            self.arrays[f'{name}.epsilon'] = numpy.array(node.number('epsilon', 1e-5))
        elif node.op == 'MaxPool' and self.order == NCHW:
            self.pool(node)
        elif node.op == 'AveragePool' and node.integers('kernel_shape', None) == [1, 1]:
            pass  # PyTorch's adaptive one, of maps that have the wanted size
        elif node.op in ('Flatten', 'Reshape') and self.layer:
            self.flatten()
        elif node.op in ('Gemm', 'MatMul') and node.inputs[0] == self.x:
            self.linear(node)
        elif node.op == 'Add' and self.bare and f'{self.bare}.bias' not in self.arrays:
            constant = node.inputs[node.inputs[0] == self.x]
            self.arrays[f'{self.bare}.bias'] = self.graph[constant].reshape(-1)
        elif not self.layer:
            self.before(node)
        else:
            self.refuse(f'its graph has {node.op}, which VGG-16 lacks there')

    def before(self, node):
        """What is done to the input: only our own export says what that is."""
        told = self.notes.get('preprocessing', {})
        if node.op == 'Sub' and 'mean' in told and numpy.allclose(
                self.graph[node.inputs[1]].reshape(-1), told['mean'], rtol=0, atol=1e-4):
            return
        raise UserError(f'{self.path}: its graph changes its input ({node.op}) before the first '
                        'convolution; export the network without that, and say by --input what '
                        'it takes')

    def begin(self, name, weight):
        """A layer of the chain begins: the one before must have had its ReLU."""
        if self.bare:
            self.refuse(f'{self.bare} has no ReLU behind it')
        if weight not in self.graph:
            self.refuse(f'the weights of {name} are computed, not stored (a quantised network?)')
        self.layer = self.bare = name
        self.arrays[f'{name}.weight'] = self.graph[weight]

    def convolution(self, node):
        if self.layer and self.order != NCHW:
            self.refuse('a convolution of what is not channels by rows by columns')
        sides = self.graph[node.inputs[1]].shape[2:] if node.inputs[1] in self.graph else ()
        if self.pools == BLOCKS and sides != (3, 3):
            # a fully connected layer may be written as a convolution over all of its input
            self.check(node, sides, [0] * 4)
            self.begin(f'fc{6 + self.linears}', node.inputs[1])
            self.linears += 1
        else:
            self.check(node, (3, 3), [1] * 4)
            self.in_block += 1
            self.begin(f'conv{self.pools + 1}_{self.in_block}', node.inputs[1])
        self.order = NCHW
        if len(node.inputs) > 2:
            self.arrays[f'{self.layer}.bias'] = self.graph[node.inputs[2]]

    def check(self, node, sides, pads):
        """Refuses a convolution of other sides, border or step."""
        expected = {'kernel_shape': list(sides), 'strides': [1, 1], 'dilations': [1, 1],
                    'pads': pads}
        auto = node.word('auto_pad', 'NOTSET')
        if auto.startswith('SAME') and sides == (3, 3) or auto == 'VALID' and not any(pads):
            del expected['pads']
        elif 'pads' not in node and any(pads):
            self.refuse('a convolution without a border, which VGG-16 lacks')
        for name, ours in expected.items():
            theirs = node.integers(name, ours)
            if theirs != ours:
                self.refuse(f'a convolution with {name} {theirs}, expected {ours}')
        if node.integer('group', 1) != 1:
            self.refuse('a convolution in groups, which VGG-16 lacks')

    def pool(self, node):
        for name, ours in (('kernel_shape', [2, 2]), ('strides', [2, 2]), ('pads', [0] * 4),
                           ('dilations', [1, 1])):
            theirs = node.integers(name, [1, 1] if name == 'strides' else ours)
            if theirs != ours:
                self.refuse(f'a pooling with {name} {theirs}, expected {ours}')
        self.pools, self.in_block = self.pools + 1, 0

    def flatten(self):
        if self.order not in (NCHW, NHWC, None):
            self.refuse('its graph turns what the convolutions give')
        if self.order is not None:  # a second one leaves the first one's order as it is
            self.by_row = self.order == NHWC and not self.linears
        self.order = None

    def linear(self, node):
        for name, ours in (('alpha', 1.0), ('beta', 1.0), ('transA', 0)):
            if name in node and (node.integer if ours == 0 else node.number)(name, ours) != ours:
                self.refuse(f'a Gemm with {name}; only plain layers are read')
        if self.order:
            self.refuse('a fully connected layer on maps that were not made one row')
        channels = len(self.arrays[f'{self.layer}.weight'])
        self.begin(f'fc{6 + self.linears}', node.inputs[1])
        self.linears += 1
        weight = self.arrays[f'{self.layer}.weight']
        if not (node.op == 'Gemm' and node.integer('transB', 0)):
            weight = weight.T
        if self.by_row:
            side = int((weight.shape[1] // channels) ** 0.5)
            weight = weight.reshape(len(weight), side, side, channels).transpose(0, 3, 1, 2)
            weight = weight.reshape(len(weight), -1)
            self.by_row = False
        self.arrays[f'{self.layer}.weight'] = weight
        if len(node.inputs) > 2:
            self.arrays[f'{self.layer}.bias'] = self.graph[node.inputs[2]]
