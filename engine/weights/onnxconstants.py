"""Constants of an ONNX graph that are computed from constants: exporters leave some of that to
the reader. A bias is turned round, put into the shape of what it is added to, or scaled.
"""
import functools
import math

import numpy

from engine.weights.dtypes import BFLOAT16, itemsize
from engine.weights.onnxfile import DTYPES

# Number by number, as many as there are; the dtype stays the first one's.
ELEMENTWISE = {'Add': numpy.add, 'Sub': numpy.subtract, 'Mul': numpy.multiply, 'Div': numpy.divide,
               'Neg': numpy.negative, 'Abs': numpy.abs, 'Sqrt': numpy.sqrt, 'Exp': numpy.exp,
               'Reciprocal': numpy.reciprocal, 'Pow': numpy.power, 'Max': numpy.maximum,
               'Min': numpy.minimum}
# Kinds of Cast that hold what a weight may be; DTYPES has the whole numbers, too.
REAL = {1, 10, 11, 16}


def fold(graph, node):
    """Puts what a node of constants computes among the graph's constants, by a function that
    computes it when asked.

    Returns:
        bool: whether it is understood; if not, nothing is put.
    """
    compute = _constant(graph, node) if node.op == 'Constant' else _computed(graph, node)
    if compute:
        graph.put(node.outputs[0], compute)
    return bool(compute)


def _constant(graph, node):
    """The function for a Constant, or None."""
    if 'value' in node:
        return graph.tensor(node.tensor('value'))
    if 'value_floats' in node:
        return lambda: node.reals('value_floats')
    if 'value_float' in node:
        return lambda: numpy.array(node.number('value_float', 0), 'f4')
    if 'value_ints' in node:
        return lambda: numpy.array(node.integers('value_ints', []), 'i8')
    if 'value_int' in node:
        return lambda: numpy.array(node.integer('value_int', 0), 'i8')
    return None


def _computed(graph, node):
    """The function for any other op, or None."""
    if node.op in ELEMENTWISE:
        function = _elementwise
    elif node.op == 'Cast' and node.integer('to', 0) not in DTYPES:
        return None
    else:
        function = {'Identity': _identity, 'Cast': _cast, 'Transpose': _transpose,
                    'Reshape': _reshape, 'Squeeze': _squeeze, 'Unsqueeze': _unsqueeze}.get(node.op)
    if not function or not all(name in graph for name in node.inputs):
        return None

    def compute():
        # a short chain of nodes can ask for a constant thousands of times
        graph.budget.take(objects=1)
        with numpy.errstate(all='ignore'):  # what is not finite is told where it is used
            return function(graph.budget, node, [graph[name] for name in node.inputs])
    return compute


def aligned(node, array, rank):
    """The second array of a sum or product, as it lies along so many axes of the first: up to
    opset 6 from `axis` on, where that is told.

    Raises:
        ValueError: it does not fit there.
    """
    if 'axis' not in node:
        return array
    axis = node.integer('axis', 0)
    behind = rank - axis - array.ndim
    if axis < 0 or behind < 0:
        raise ValueError(f'{node.op} of shape {array.shape} with axis {axis}')
    return array.reshape(array.shape + (1,) * behind)


def _elementwise(budget, node, arrays):
    if len(arrays) == 2:
        arrays = [arrays[0], aligned(node, arrays[1], arrays[0].ndim)]
    count = math.prod(numpy.broadcast_shapes(*(array.shape for array in arrays)))
    budget.take(size=count * max(4, arrays[0].itemsize))
    operation = ELEMENTWISE[node.op]
    result = functools.reduce(operation, arrays) if operation.nin == 2 else operation(*arrays)
    return result.astype(arrays[0].dtype, copy=False)


def _identity(budget, node, arrays):
    return arrays[0]


def _cast(budget, node, arrays):
    dtype = DTYPES[node.integer('to', 0)]
    budget.take(size=arrays[0].size * max(4, itemsize(dtype)))
    return to_bfloat16(arrays[0]) if dtype == BFLOAT16 else arrays[0].astype(dtype)


def to_bfloat16(array):
    """The float32 that are nearest in bfloat16, of two as near the even."""
    bits = array.astype('f4').view('u4')
    near = (bits + (0x7fff + (bits >> 16 & 1)).astype('u4') & 0xffff0000).view('f4')
    return numpy.where(numpy.isfinite(array), near, array).astype('f4')


def _transpose(budget, node, arrays):
    return arrays[0].transpose(node.integers('perm', None))


def _reshape(budget, node, arrays):
    shape = _places(node, 'shape', arrays)
    budget.take(size=arrays[0].nbytes)  # of a transposed one it is a copy
    if not node.integer('allowzero', 0):
        shape = [side or arrays[0].shape[at] for at, side in enumerate(shape)]
    return arrays[0].reshape(shape)


def _squeeze(budget, node, arrays):
    axes = _places(node, 'axes', arrays)
    return arrays[0].squeeze(None if axes is None else tuple(axes))


def _unsqueeze(budget, node, arrays):
    return numpy.expand_dims(arrays[0], tuple(_places(node, 'axes', arrays)))


def _places(node, name, arrays):
    """Whole numbers that old files have as an attribute and newer ones as a second input."""
    if len(arrays) > 1:
        return [int(value) for value in arrays[1].reshape(-1)]
    return node.integers(name, None)
