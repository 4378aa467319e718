"""engine/weights/onnxlayers.py: what onnxruntime makes of a graph is what the model made of it
makes, or the graph is refused for what it has.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
import pytest

import weightWriters as ww
from engine.video.preprocessing import preprocess
from onnxChains import (ENDS, FALLING, assert_agrees, assert_refused, conv, norm, normed, pool,
                        trunk, whole)
from weightSources import FRAMES, NORMALISED, PLAIN, convert, torch_input

# -------------------------------------------------------- normalisation, biases and poolings

def late(norm_behind):
    """A pooling that puts normalisation and ReLU behind it; the hooks relu and pool."""
    def pool_(chain, name):
        pool(chain, name)
        norm(chain, norm_behind[name])
        chain.step('Relu')
    return {'layers': norm_behind, 'pool': pool_,
            'conv': lambda chain, parts: conv(chain, parts),
            'relu': lambda chain, name: None if name in ENDS else (
                norm(chain, norm_behind[name]) if name.startswith('conv') else None,
                chain.step('Relu'))}


def test_normalisation_behind_the_pooling(tmp_path):
    """The largest of four is theirs behind a rising line alone."""
    assert_agrees(whole(**late(NORMALISED)), tmp_path)
    (tmp_path / 'VGG.model').unlink()
    only_last = {**NORMALISED, 'conv5_3': FALLING['conv5_3']}
    for layers, name in ((FALLING, 'conv1_2'), (only_last, 'conv5_3')):
        for flags in ([], ['--no-top']):
            assert_refused(whole(**late(layers)), tmp_path, name, 'below zero', flags=flags)
    assert_agrees(whole(FALLING, conv=normed), tmp_path)


def no_bias(chain, parts):
    chain.step('Conv', parts['weight'], kernel_shape=[3, 3], pads=[1] * 4)


def column(array):
    return array.reshape(-1, 1, 1)


def with_sums(first, *sums):
    """A convolution and what is added behind it, by itself or with normalisation between."""
    def conv_(chain, parts):
        first(chain, parts)
        for kind in sums:
            if kind == 'norm':
                norm(chain, parts)
            else:
                chain.step('Add', column(parts[kind]))
    return conv_


@pytest.mark.parametrize('conv_', [
    with_sums(no_bias, 'norm', 'bias'), with_sums(conv, 'norm', 'bias'),
    with_sums(conv, 'mean'), with_sums(no_bias, 'bias', 'norm', 'beta', 'mean')])
def test_what_is_added_behind_a_convolution(tmp_path, conv_):
    assert_agrees(whole(FALLING, conv=conv_), tmp_path)


@pytest.mark.parametrize('shape', [(ww.SIZE,), (ww.SIZE, 1), (2, 1, 1, 1),
                                   (5, ww.SIZE, ww.SIZE)])
def test_what_is_added_along_rows_or_columns_is_no_bias(tmp_path, shape):
    def conv_(chain, parts):
        conv(chain, parts)
        chain.step('Add', numpy.ones(shape, 'f4'))
    assert_refused(whole(conv=conv_), tmp_path, 'is no bias')


def test_one_number_added_to_all_channels_and_a_bias_before_pooling(tmp_path):
    def conv_(chain, parts):
        conv(chain, parts)
        chain.step('Add', numpy.array(.25, 'f4'))
    assert_agrees(whole(conv=conv_), tmp_path)

    def pool_(chain, name):
        pool(chain, name)
        chain.step('Add', column(PLAIN[name]['bias'])).step('Relu')
    assert_agrees(whole(pool=pool_, relu=lambda chain, name: name in ENDS or chain.step('Relu')),
                  tmp_path)


def twice(chain, parts):
    normed(chain, parts)
    norm(chain, parts)


def six_poolings(chain, name):
    pool(chain, name)
    if name == 'conv5_3':
        pool(chain, name)


def averaged(**attributes):
    def pool_(chain, name):
        if name != 'conv5_3':
            pool(chain, name)
        else:
            chain.step('AveragePool', kernel_shape=[1, 1], **attributes)
    return pool_


def whole_numbers(chain, name):
    chain.x = chain.node('Cast', [chain.node('Cast', [chain.node('Relu', [chain.x])], to=7)], to=1)


@pytest.mark.parametrize('make, words', [
    (lambda: whole(NORMALISED, conv=twice), 'two batch normalisations behind conv1_1'),
    (lambda: whole(pool=averaged(strides=[2, 2])), 'strides [2, 2]'),
    (lambda: whole(pool=averaged(pads=[0, 0, 1, 1])), 'pads [0, 0, 1, 1]'),
    (lambda: whole(pool=six_poolings), 'two poolings in a row'),
    (lambda: whole(relu=whole_numbers), 'makes whole numbers'),
    (lambda: whole().step('Relu'), 'has Relu'),
    (lambda: whole().step('Softmax').step('Add', PLAIN['fc8']['bias']), 'Add behind Softmax'),
    (lambda: whole(relu=lambda chain, name: chain.step('Relu').step('Softmax')
                   if name == 'fc6' else chain.step('Relu')), 'Gemm behind Softmax'),
    (lambda: whole(flatten=lambda chain: chain.step('Transpose', perm=[0, 3, 2, 1])
                   .step('Flatten')), 'turns what the convolutions give')])
def test_what_would_give_other_numbers_is_refused_by_name(tmp_path, make, words):
    assert_refused(make(), tmp_path, words)


# ------------------------------------------------------------- other names of the same things

ZERO = numpy.float32(0)


@pytest.mark.parametrize('step', [
    lambda chain: chain.step('Clip', ZERO), lambda chain: chain.step('Max', ZERO),
    lambda chain: chain.step('Clip', ZERO, numpy.float32(numpy.finfo('f4').max)),
    lambda chain: chain.step('Max', numpy.zeros(1, 'f4'), ZERO),
    lambda chain: setattr(chain, 'x', chain.node('Max', [chain.put(ZERO), chain.x]))])
def test_relu_under_other_names(tmp_path, step):
    assert_agrees(whole(relu=lambda chain, name: step(chain)), tmp_path)


@pytest.mark.parametrize('op, limits', [
    ('Clip', (ZERO, numpy.float32(6))), ('Clip', (numpy.float32(-1),)), ('Clip', ()),
    ('Clip', ('', ZERO)), ('Max', (numpy.float32(.1),)), ('Max', ()),
    ('Clip', (ZERO, numpy.float32(65504)))])
def test_what_cuts_elsewhere_is_no_relu(tmp_path, op, limits):
    assert_refused(whole(relu=lambda chain, name: chain.step(op, *limits)), tmp_path, f'has {op}')


def test_an_input_that_nothing_takes(tmp_path):
    assert_agrees(whole(), tmp_path, unused=['training'])


# ------------------------------------------------------------------ convolutions without pool5

def features(model):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model.convolutions(preprocess(FRAMES, model.mean)).array


def not_last(chain, name):
    if name != 'conv5_3':
        pool(chain, name)


@pytest.mark.parametrize('layers, conv_', [(PLAIN, conv), (FALLING, normed)])
@pytest.mark.parametrize('head', [
    lambda chain: chain,
    lambda chain: chain.step('GlobalAveragePool').step('Flatten')
    .step('Gemm', numpy.ones((4, 9), 'f4'), transB=1),
    lambda chain: chain.step('AveragePool', kernel_shape=[2, 2], strides=[2, 2]),
    lambda chain: chain.step('MaxPool', kernel_shape=[3, 3], strides=[1, 1]),
    lambda chain: chain.step('Conv', numpy.ones((4, 9, 1, 1), 'f4')),
    lambda chain: chain.step('Flatten'),
    lambda chain: setattr(chain, 'x', chain.node('Add', [chain.node('Sigmoid', [chain.x]),
                                                         chain.x]))])
def test_a_top_without_pool5(tmp_path, layers, conv_, head):
    chain = trunk(layers, conv=conv_, pool=not_last)
    before = chain.write(tmp_path / 'a.onnx')(torch_input(FRAMES))
    n, channels, height, width = before.shape
    expected = before.reshape(n, channels, height // 2, 2, width // 2, 2).max((3, 5))
    head(chain)
    chain.write(tmp_path / 'a.onnx')
    model, card = convert(tmp_path / 'a.onnx', tmp_path, '--no-top')
    numpy.testing.assert_allclose(features(model), expected, rtol=0, atol=1e-5 * expected.max())
    assert 'random (seed 0): fc6, fc7, fc8' in card['source']


def test_a_top_without_pool5_is_told_of_no_top_and_vgg19_is_not(tmp_path):
    chain = trunk(pool=not_last).step('GlobalAveragePool')
    assert_refused(chain, tmp_path, 'GlobalAveragePool', '--no-top')
    chain = trunk(pool=not_last)
    chain.step('Conv', numpy.ones((9, 9, 3, 3), 'f4'), kernel_shape=[3, 3], pads=[1] * 4)
    assert_refused(chain.step('Relu'), tmp_path, 'conv5_4', flags=['--no-top'])
    chain = trunk(pool=not_last, relu=lambda chain, name: name == 'conv5_3' or chain.step('Relu'))
    assert_refused(chain.step('GlobalAveragePool'), tmp_path, 'GlobalAveragePool',
                   flags=['--no-top'])
