"""engine/weights/onnxlayers.py: attributes that say by another name, or that old versions of ONNX
had, what a layer computes; and outputs besides the network's.
"""
import json

import numpy
import pytest

import weightWriters as ww
from engine.video.preprocessing import preprocessing
from onnxChains import Chain, assert_agrees, assert_refused, conv, trunk, whole
from weightSources import FRAMES, PLAIN, convert, scores, torch_input

SAME = 'SAME_UPPER', 'SAME_LOWER'


def as_convolutions(other=(), **attributes):
    """All layers as convolutions; attributes of fc6, and `other` of those behind it."""
    chain = trunk()
    for name in ('fc6', 'fc7', 'fc8'):
        weight, side = PLAIN[name]['weight'], ww.SIZE // 32 if name == 'fc6' else 1
        chain.step('Conv', weight.reshape(len(weight), -1, side, side), PLAIN[name]['bias'],
                   **attributes if name == 'fc6' else dict(other))
        if name != 'fc8':
            chain.step('Relu')
    return chain


# ------------------------------------------------------------------------------- borders

def conv_with(**attributes):
    return lambda chain, parts: chain.step('Conv', parts['weight'], parts['bias'],
                                           kernel_shape=[3, 3], **attributes)


def pool_with(**attributes):
    return lambda chain, name: chain.step('MaxPool', kernel_shape=[2, 2], strides=[2, 2],
                                          **attributes)


@pytest.mark.parametrize('make', [
    *[lambda auto=auto: whole(conv=conv_with(auto_pad=auto)) for auto in SAME],
    *[lambda auto=auto: whole(pool=pool_with(auto_pad=auto)) for auto in (*SAME, 'VALID')],
    lambda: whole(conv=conv_with(auto_pad='NOTSET', pads=[1] * 4)),
    *[lambda auto=auto: as_convolutions({'auto_pad': auto}, auto_pad='VALID').step('Flatten')
      for auto in (*SAME, 'VALID', 'NOTSET')]])
def test_a_border_that_is_told_by_name(tmp_path, make):
    assert_agrees(make(), tmp_path)


@pytest.mark.parametrize('make, words', [
    *[(lambda auto=auto: as_convolutions(auto_pad=auto).step('Flatten'), f'auto_pad {auto}')
      for auto in SAME],
    (lambda: whole(conv=conv_with(auto_pad='VALID')), 'auto_pad VALID'),
    (lambda: whole(conv=conv_with(auto_pad='VALID', pads=[1] * 4)), 'auto_pad VALID'),
    (lambda: whole(conv=conv_with()), 'pads [0, 0, 0, 0]'),
    (lambda: whole(pool=pool_with(auto_pad='SAME')), 'auto_pad SAME')])
def test_another_border_is_refused_by_its_name(tmp_path, make, words):
    assert_refused(make(), tmp_path, words)


# ------------------------------------------------------------------------------- softmax

def in_rows(*shape):
    return whole().step('Reshape', numpy.array(shape))


def squeezed(*axes):
    return as_convolutions().step('Squeeze', numpy.array(axes))


@pytest.mark.parametrize('make, attributes, opset', [
    (whole, {}, 13), (whole, {'axis': 1}, 13), (whole, {'axis': -1}, 13), (whole, {}, 11),
    (whole, {'axis': 1}, 11), (as_convolutions, {'axis': 1}, 13),
    (as_convolutions, {'axis': -3}, 13), (as_convolutions, {}, 11),
    (lambda: squeezed(2, 3), {'axis': -1}, 13), (lambda: squeezed(-1), {'axis': 1}, 13),
    (lambda: squeezed(3).step('Flatten'), {}, 13),
    (lambda: in_rows(-1, 1, ww.CLASSES), {'axis': 2}, 13), (lambda: in_rows(0, -1), {}, 13),
    (lambda: in_rows(0, 0, 1), {'axis': 1}, 13),
    (lambda: in_rows(0, 1, -1).step('Flatten'), {'axis': 1}, 13)])
def test_a_softmax_over_the_classes(tmp_path, make, attributes, opset):
    answer = make().step('Softmax', **attributes).write(tmp_path / 'a.onnx', opset=opset)
    model, _ = convert(tmp_path / 'a.onnx', tmp_path)
    ours = numpy.exp(scores(model))
    ours /= ours.sum(1, keepdims=True)
    numpy.testing.assert_allclose(answer(torch_input(FRAMES)).reshape(ours.shape), ours,
                                  rtol=0, atol=1e-5)


@pytest.mark.parametrize('make, attributes, opset', [
    (whole, {'axis': 0}, 13), (whole, {'axis': -2}, 13), (whole, {'axis': 0}, 11),
    (as_convolutions, {}, 13), (as_convolutions, {'axis': 2}, 13),
    (as_convolutions, {'axis': 2}, 11), (lambda: squeezed(3), {'axis': 2}, 13),
    (lambda: in_rows(-1, 1, ww.CLASSES), {'axis': 1}, 13)])
def test_a_softmax_along_another_axis_is_refused(tmp_path, make, attributes, opset):
    for op in ('Softmax', 'LogSoftmax'):
        assert_refused(make().step(op, **attributes), tmp_path, f'{op} along axis', opset=opset)


def test_one_softmax_is_enough(tmp_path):
    for op in ('Softmax', 'LogSoftmax'):
        assert_refused(whole().step('Softmax').step('Identity').step(op), tmp_path,
                       f'{op} behind Softmax')


# ------------------------------------------------------- biases, and what opset 6 said of them

def added(shape, **attributes):
    def conv_(chain, parts):
        chain.step('Conv', parts['weight'], kernel_shape=[3, 3], pads=[1] * 4)
        chain.step('Add', parts['bias'].reshape(shape), broadcast=1, **attributes)
    return conv_


def scaled(chain, parts):
    """Weights that a constant product makes, a number for each unit."""
    half = chain.put(numpy.full(len(parts['weight']), .5, 'f4'))
    weight = chain.node('Mul', [chain.put(2 * parts['weight']), half], broadcast=1, axis=0)
    chain.step('Conv', weight, parts['bias'], kernel_shape=[3, 3], pads=[1] * 4)


@pytest.mark.parametrize('conv_', [added(-1, axis=1), added((-1, 1), axis=1),
                                   added((1, -1), axis=0), added((-1, 1, 1)), scaled])
def test_what_opset_6_spreads_from_an_axis_on(tmp_path, conv_):
    """onnxruntime has no such; the numbers are those that were put in."""
    whole(conv=conv_).write(tmp_path / 'a.onnx', opset=6)
    model, _ = convert(tmp_path / 'a.onnx', tmp_path, '--input', 'bgr')
    for name in model.conv_names:
        numpy.testing.assert_array_equal(model[name].W.array, PLAIN[name]['weight'])
        numpy.testing.assert_array_equal(model[name].b.array, PLAIN[name]['bias'])


@pytest.mark.parametrize('shape, axis, words', [
    ((-1, 1, 1), 0, 'is no bias'), (-1, 2, 'is no bias'), ((-1, 1, 1), 2, 'axis 2'),
    (-1, -3, 'axis -3')])
def test_what_opset_6_spreads_along_another_axis_is_refused(tmp_path, shape, axis, words):
    assert_refused(whole(conv=added(shape, axis=axis)), tmp_path, 'added behind conv1_1', words,
                   opset=6)


def test_a_mean_that_opset_6_spreads_along_another_axis(tmp_path):
    mean = numpy.array([100., 110., 120.], 'f4')
    chain = Chain().step('Sub', mean, broadcast=1, axis=1).step('Transpose', perm=[0, 3, 1, 2])
    conv(chain, PLAIN['conv1_1'])
    assert_refused(chain, tmp_path, 'changes its input (Sub)', opset=6, last=True,
                   notes={'preprocessing': json.dumps(preprocessing(mean))})


def with_bias(name, bias):
    return whole({**PLAIN, name: {**PLAIN[name], 'bias': bias}})


@pytest.mark.parametrize('name', ['fc6', 'fc8'])
@pytest.mark.parametrize('shape', [(), (1,), (1, 1), (1, -1)])
def test_one_number_as_the_bias_of_all_units(tmp_path, name, shape):
    bias = PLAIN[name]['bias'] if -1 in shape else numpy.array(.25, 'f4')
    assert_agrees(with_bias(name, bias.reshape(shape)), tmp_path)


def test_a_number_for_each_row_is_no_bias(tmp_path):
    assert_refused(with_bias('fc6', PLAIN['fc6']['bias'].reshape(-1, 1)), tmp_path,
                   'bias of fc6', 'is no bias')


# ------------------------------------------------------------------- outputs besides the network's

def beside(*ops):
    """(chain, names of outputs): the network, with ops behind what each layer gives."""
    names = []

    def relu_(chain, name):
        inner = [chain.x]
        chain.step('Relu')
        for x in (*inner, chain.x):
            for op in ops:
                x = chain.node(op, [x])
            names.append(x)
    return whole(relu=relu_), names


@pytest.mark.parametrize('ops', [['Identity'], ['Sigmoid', 'Flatten']])
def test_outputs_besides_the_networks(tmp_path, ops):
    chain, names = beside(*ops)
    names += [chain.node('Identity', [name]) for name in ('x1', 'input', chain.x)]
    assert_agrees(chain, tmp_path, sides=names)
    (tmp_path / 'VGG.model').unlink()
    # what matters is refused as ever
    assert_refused(chain.step('Softmax', axis=0), tmp_path, 'Softmax along axis 0', sides=names)


def test_an_output_with_a_layer_of_its_own_is_a_branch(tmp_path):
    chain = whole()
    inner = chain.nodes[-1].input[0]
    name = chain.node('Gemm', [inner, chain.put(PLAIN['fc8']['weight'])], transB=1)
    assert_refused(chain, tmp_path, 'branch (Gemm)', sides=[name])
    # two that come together again are one network
    chain = trunk()
    chain.x = chain.node('Add', [chain.x, chain.node('Identity', [chain.x])])
    assert_refused(chain, tmp_path, 'branch')
