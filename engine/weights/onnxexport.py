"""Writes trained networks as ONNX, for programs that have neither Chainer nor this project.

The package onnx puts the graphs together and checks them. What an array is called in a model here
is its name in the file.
"""
import json

import numpy

from engine.errors import UserError
from engine.files import replacing

# Read by onnxruntime 1.15 (2023) and all later ones.
OPSET, IR_VERSION = 17, 8
BATCH, STEPS = 'batch', 'steps'
# ONNX's op, how many gates it has, and these as (place among ours, sign). Ours are i, f, o, g and
# r, z, new; ONNX's are i, o, f, g and z, r, new, its z being what is kept of the step before.
CELLS = {'lstm': ('LSTM', 4, ((0, 1), (2, 1), (1, 1), (3, 1))),
         'gru': ('GRU', 3, ((1, -1), (0, 1), (2, 1)))}


class Exporter:
    """A graph in the making. A step's method gives the name of what it gives."""

    def __init__(self):
        try:
            import onnx
        except ImportError:
            raise UserError('the package onnx is not installed; '
                            'pip install -r requirements-onnx.txt') from None
        self.onnx, self.nodes, self.constants = onnx, [], {}
        self.inputs, self.outputs = [], []

    def put(self, name, array):
        """Adds a constant; returns its name."""
        array = numpy.ascontiguousarray(array)
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def step(self, op, *inputs, name='', **attributes):
        """Adds a node; returns the name of its output."""
        name = name or f'{op}_{len(self.nodes)}'
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], **attributes))
        return name

    def input(self, name, dtype, shape):
        self.inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name, shape):
        self.outputs.append(self._value(name, numpy.float32, shape))

    def _value(self, name, dtype, shape):
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(numpy.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def linear(self, x, link, of, name=''):
        """A chainer.links.Linear, called `of`, on (rows, n)."""
        return self.step('Gemm', x, self.put(f'{of}/W', link.W.array),
                         self.put(f'{of}/b', link.b.array), transB=1, name=name)

    def write(self, path, notes):
        """Checks the graph and writes it; the file appears whole or not at all.

        Args:
            notes: {key: JSON value}, hung on the file as texts.
        """
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, 'network', self.inputs, self.outputs,
                                  list(self.constants.values()))
        model = helper.make_model(graph, producer_name='exportOnnx.py', ir_version=IR_VERSION,
                                  opset_imports=[helper.make_opsetid('', OPSET)])
        helper.set_model_props(model, {key: json.dumps(value) for key, value in notes.items()})
        self.onnx.checker.check_model(model, full_check=True)
        with replacing(path) as temporary, open(temporary, 'wb') as f:
            f.write(model.SerializeToString())


def export_frames(model, floats=False):
    """The Exporter of a VGGNet or VGGNet_1024.

    Input: 'frames', (batch, S, S, 3) BGR, 0 to 255, bytes or float32; the mean is subtracted
    inside. Outputs: 'feature' (batch, D), fc7's linear output, and 'probability' (batch, C).

    Args:
        model: a VGGNet of single frames.
        floats (bool): whether the input is float32.
    """
    graph, side = Exporter(), model.shape['input_size']
    x = graph.input('frames', numpy.float32 if floats else numpy.uint8, [BATCH, side, side, 3])
    if not floats:
        x = graph.step('Cast', x, to=graph.onnx.TensorProto.FLOAT)
    x = graph.step('Sub', x, graph.put('mean', numpy.array(model.mean, numpy.float32)))
    x = graph.step('Transpose', x, perm=[0, 3, 1, 2])
    for name in model.conv_names:
        x = graph.step('Conv', x, graph.put(f'{name}/W', model[name].W.array),
                       graph.put(f'{name}/b', model[name].b.array), kernel_shape=[3, 3],
                       pads=[1, 1, 1, 1])
        x = graph.step('Relu', x)
        if model.pooled_after(name):
            x = graph.step('MaxPool', x, kernel_shape=[2, 2], strides=[2, 2])
    x = graph.step('Relu', graph.linear(graph.step('Flatten', x), model.fc6, 'fc6'))
    feature = graph.linear(x, model.fc7, 'fc7', name='feature')
    scores = graph.linear(graph.step('Relu', feature), model.fc8, 'fc8')
    graph.step('Softmax', scores, axis=-1, name='probability')
    graph.output('feature', [BATCH, len(model.fc7.W)])
    graph.output('probability', [BATCH, len(model.fc8.W)])
    return graph


def export_rnn(model):
    """The Exporter of an RNNNet.

    Inputs: 'features' (batch, steps, D) float32, as saved, and 'mask' (batch, steps) bool, False
    where a step is padding behind a shorter sequence. Output: 'probability' (batch, steps, C) of
    every step, 0 at padding.
    """
    graph, shape = Exporter(), model.shape
    features = graph.input('features', numpy.float32, [BATCH, STEPS, shape['n_in']])
    mask = graph.input('mask', numpy.bool_, [BATCH, STEPS])
    x = graph.step('Sub', features, graph.put('mean', model.mean))
    x = graph.step('Mul', x, graph.put('scale', model.scale))
    if shape['cell'] == 'mean':
        x = _running_mean(graph, x)
    elif shape['cell'] in CELLS:
        x = _recurrent(graph, model, x)
        if shape['batch_norm']:
            x = _normalise(graph, x, model.norm1, 'norm1')
        if shape['hidden']:
            x = graph.step('Sigmoid', _per_step(graph, x, model.fc, 'fc'))
            if shape['batch_norm']:
                x = _normalise(graph, x, model.norm2, 'norm2')
    x = graph.step('Softmax', _per_step(graph, x, model.out, 'out'), axis=-1)
    real = graph.step('Cast', mask, to=graph.onnx.TensorProto.FLOAT)
    real = graph.step('Unsqueeze', real, graph.put('last', numpy.array([2])))
    graph.step('Mul', x, real, name='probability')
    graph.output('probability', [BATCH, STEPS, shape['n_classes']])
    return graph


def _per_step(graph, x, link, name):
    """A Linear on the last axis of (batch, steps, n)."""
    x = graph.step('MatMul', x, graph.put(f'{name}/W', link.W.array.T))
    return graph.step('Add', x, graph.put(f'{name}/b', link.b.array))


def _normalise(graph, x, norm, name):
    """Batch normalisation of the last axis by the averages of training."""
    scale = norm.gamma.array / numpy.sqrt(norm.avg_var + norm.eps)
    x = graph.step('Mul', x, graph.put(f'{name}/scale', scale.astype(numpy.float32)))
    shift = norm.beta.array - norm.avg_mean * scale
    return graph.step('Add', x, graph.put(f'{name}/shift', shift.astype(numpy.float32)))


def _running_mean(graph, x):
    """The mean of the steps so far, of (batch, steps, n)."""
    axis = graph.put('axis', numpy.array(1))
    total = graph.step('CumSum', x, axis)
    ones = graph.step('Add', graph.step('Mul', x, graph.put('zero', numpy.float32(0))),
                      graph.put('one', numpy.float32(1)))
    return graph.step('Div', total, graph.step('CumSum', ones, axis))


def _recurrent(graph, model, x):
    """The stack of LSTM or GRU layers: (batch, steps, D) -> (batch, steps, H)."""
    op, parts, order = CELLS[model.shape['cell']]

    def gates(array):
        """(1, gates of ONNX, ...) from the gates of ours, one below the other."""
        blocks = numpy.split(array, parts)
        return numpy.concatenate([sign * blocks[place] for place, sign in order])[None]

    x = graph.step('Transpose', x, perm=[1, 0, 2])
    for k, stack in enumerate(model.recurrent):
        layer, name = stack.layer0, f'recurrent/{k}/layer0'
        bias = gates(layer.b.array)
        x = graph.step(op, x, graph.put(f'{name}/w_x', gates(layer.w_x.array)),
                       graph.put(f'{name}/w_h', gates(layer.w_h.array)),
                       graph.put(f'{name}/b', numpy.concatenate([bias, 0 * bias], axis=1)),
                       hidden_size=layer.w_h.array.shape[1])
        x = graph.step('Squeeze', x, graph.put('direction', numpy.array([1])))
    return graph.step('Transpose', x, perm=[1, 0, 2])
