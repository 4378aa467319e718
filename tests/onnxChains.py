"""Graphs of VGG-16 put together by the package onnx, and what onnxruntime answers."""
import numpy
import pytest

import weightWriters as ww
from weightSources import FRAMES, NORMALISED, PLAIN, convert, refused, scores, torch_input

onnxruntime = pytest.importorskip('onnxruntime', reason='pip install -r requirements-onnx.txt')
onnx = pytest.importorskip('onnx', reason='pip install -r requirements-onnx.txt')

ENDS = [names[-1] for names in ww.BLOCKS]
NORM = 'gamma', 'beta', 'mean', 'var'
# Half of the factors turn what is large into what is small.
FALLING = {name: {kind: array * (numpy.arange(len(array)) % 2 * 2 - 1).astype('f4')
                  if kind == 'gamma' else array for kind, array in parts.items()}
           for name, parts in NORMALISED.items()}


class Chain:
    """A graph of onnx.helper in the making: `x` is the name of what the last step gave."""

    def __init__(self):
        self.nodes, self.constants, self.x = [], [], 'input'

    def put(self, array):
        """Adds a constant; returns its name."""
        name = f'c{len(self.constants)}'
        self.constants.append(onnx.numpy_helper.from_array(numpy.asarray(array), name))
        return name

    def node(self, op, inputs=(), **attributes):
        name = f'x{len(self.nodes)}'
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def step(self, op, *arrays, **attributes):
        """A node on what came last and constants; returns itself."""
        inputs = [a if isinstance(a, str) else self.put(a) for a in arrays]
        self.x = self.node(op, [self.x, *inputs], **attributes)
        return self

    def write(self, path, last=False, producer='pytorch', notes=(), unused=(),
              opset=13, sides=()):
        """Returns what onnxruntime answers, a function of an array with channels first.

        Args:
            last (bool): whether the graph takes channels last.
            unused: names of inputs before that of pictures.
            sides: names of outputs besides the network's.
        """
        shape = [None, ww.SIZE, ww.SIZE, 3] if last else [None, 3, ww.SIZE, ww.SIZE]
        value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                self.nodes, 'g', [*(value(name, kind.BOOL, []) for name in unused),
                                  value('input', kind.FLOAT, shape)],
                [value(name, kind.FLOAT, None) for name in (self.x, *sides)], self.constants),
            opset_imports=[onnx.helper.make_opsetid('', opset)], producer_name=producer,
            ir_version=8)
        onnx.helper.set_model_props(model, dict(notes))
        path.write_bytes(model.SerializeToString())

        def answer(x):
            session = onnxruntime.InferenceSession(path)
            x = x.transpose(0, 2, 3, 1) if last else x
            given = {name: numpy.zeros((), bool) for name in unused}
            return session.run(None, {'input': x.astype('f4'), **given})[0]
        return answer


def conv(chain, parts):
    chain.step('Conv', parts['weight'], parts['bias'], kernel_shape=[3, 3], pads=[1] * 4)


def norm(chain, parts):
    chain.step('BatchNormalization', *(parts[kind] for kind in NORM))


def relu(chain, name):
    chain.step('Relu')


def pool(chain, name):
    chain.step('MaxPool', kernel_shape=[2, 2], strides=[2, 2])


def normed(chain, parts):
    conv(chain, parts)
    norm(chain, parts)


def trunk(layers=PLAIN, conv=conv, relu=relu, pool=pool, turns=()):
    """The convolutions; `turns` are the orders of axes that come before them."""
    chain = Chain()
    for perm in turns:
        chain.step('Transpose', perm=perm)
    for name, parts in layers.items():
        if name.startswith('conv'):
            conv(chain, parts)
            relu(chain, name)
            if name in ENDS:
                pool(chain, name)
    return chain


def whole(layers=PLAIN, flatten=lambda chain: chain.step('Flatten'), by_row=False, relu=relu,
          **more):
    chain = trunk(layers, relu=relu, **more)
    flatten(chain)
    for name in ('fc6', 'fc7', 'fc8'):
        weight, side = layers[name]['weight'], ww.SIZE // 32
        if name == 'fc6' and by_row:
            weight = weight.reshape(ww.HIDDEN, -1, side, side).transpose(0, 2, 3, 1)
            weight = weight.reshape(ww.HIDDEN, -1)
        chain.step('Gemm', numpy.ascontiguousarray(weight), layers[name]['bias'], transB=1)
        if name != 'fc8':
            relu(chain, name)
    return chain


def assert_agrees(chain, tmp_path, *flags, takes=torch_input, **more):
    answer = chain.write(tmp_path / 'a.onnx', **more)
    model, card = convert(tmp_path / 'a.onnx', tmp_path, *flags)
    expected = answer(takes(FRAMES))
    numpy.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-5 * abs(expected).max())
    return card


def assert_refused(chain, tmp_path, *words, flags=(), **more):
    chain.write(tmp_path / 'a.onnx', **more)
    message = refused(tmp_path / 'a.onnx', tmp_path, *flags)
    for word in words:
        assert word in message
    assert 'damaged' not in message
