"""engine/weights/onnxconstants.py: constants that nodes compute, as onnxruntime does."""
import numpy
import pytest

from onnxChains import Chain, assert_agrees, assert_refused, whole
from weightSources import PLAIN, refused


def column(array):
    return array.reshape(-1, 1, 1)


def computed(change_weight=None, change_bias=None, add=False):
    """A convolution whose constants come out of nodes: functions of (chain, array)."""
    def conv_(chain, parts):
        weight, bias = parts['weight'], parts['bias']
        weight = change_weight(chain, weight) if change_weight else chain.put(weight)
        if add:
            bias = column(bias)
        bias = change_bias(chain, bias) if change_bias else chain.put(bias)
        chain.step('Conv', weight, *[bias] * (not add), kernel_shape=[3, 3], pads=[1] * 4)
        if add:
            chain.x = chain.node('Add', [bias, chain.x])
    return conv_


def cast(chain, array, *kinds):
    name = chain.put(array)
    for kind in kinds:
        name = chain.node('Cast', [name], to=kind)
    return name


def calculated(op, *others):
    return lambda chain, array: chain.node(op, [chain.put(array), *map(chain.put, others)])


@pytest.mark.parametrize('conv_', [
    computed(lambda chain, w: cast(chain, 4 * w, 7, 1)),
    computed(lambda chain, w: cast(chain, 4 * w, 6, 1)),
    computed(lambda chain, w: cast(chain, w, 10, 1)),
    computed(lambda chain, w: cast(chain, w, 16, 1)),
    computed(lambda chain, w: cast(chain, w.astype('f8'), 1),
             lambda chain, b: cast(chain, b.astype('f2'), 11, 1)),
    computed(calculated('Mul', numpy.float32(.5)), calculated('Mul', numpy.float32(2))),
    computed(None, calculated('Neg')), computed(None, calculated('Neg'), add=True),
    computed(calculated('Div', numpy.float32(2)), calculated('Sub', numpy.float32(.1)), add=True),
    computed(None, lambda chain, b: chain.node('Constant', value_floats=list(map(float, b)))),
    computed(None, lambda chain, b: chain.node('Unsqueeze', [
        chain.node('Constant', value_floats=list(map(float, b.ravel()))),
        chain.node('Constant', value_ints=[-1, -2])]), add=True),
    computed(None, lambda chain, b: chain.node('Squeeze', [
        chain.put(b.reshape(1, -1, 1)), chain.node('Constant', value_ints=[0, -1])])),
    computed(lambda chain, w: chain.node('Transpose', [chain.node('Reshape', [
        chain.put(numpy.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(9, *w.shape[1::-1])),
        chain.put(numpy.array([3, -1, *w.shape[1::-1]]))])], perm=[3, 2, 0, 1])),
    computed(None, lambda chain, b: chain.node('Add', [
        chain.put(b), chain.node('Constant', value_float=.5)]))])
def test_constants_computed_from_constants(tmp_path, conv_):
    assert_agrees(whole(conv=conv_), tmp_path)


def test_a_constant_of_an_op_that_is_not_read_is_named(tmp_path):
    scale = numpy.float32(.1), numpy.int32(0)
    whole_number = computed(lambda chain, w: chain.node('DequantizeLinear', [
        chain.put((w * 10).astype('i4')), *map(chain.put, scale)]))
    assert_refused(whole(conv=whole_number), tmp_path, 'weights', 'computed', 'DequantizeLinear')
    bias = computed(None, calculated('Sign'), add=True)
    assert_refused(whole(conv=bias), tmp_path, 'added behind conv1_1', 'computed', 'Sign')
    bias = computed(None, lambda chain, b: chain.node('Neg', [calculated('Sign')(chain, b)]))
    assert_refused(whole(conv=bias), tmp_path, 'bias of conv1_1', 'computed', 'Sign')


def test_constants_that_double_do_not_take_an_hour(tmp_path):
    def doubled(chain, bias):
        name = chain.put(bias)
        for _ in range(60):
            name = chain.node('Add', [name, name])
        return name
    chain = Chain()
    computed(None, doubled)(chain, PLAIN['conv1_1'])
    chain.write(tmp_path / 'a.onnx')
    assert 'parts' in refused(tmp_path / 'a.onnx', tmp_path)
