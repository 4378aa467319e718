"""engine/weights/onnxlayers.py: graphs of VGG-16 from several programs, and graphs of others."""
import json

import numpy
import pytest

import weightWriters as ww
from VGGNet import load_vgg
from weightSources import (FRAMES, PLAIN, WIDE, bgr_input, convert, reference, refused, rgb_input,
                           scores, torch_input)
from engine.video.preprocessing import preprocessing


def test_keras_says_what_its_network_takes_only_when_asked(tmp_path):
    """Channels last, so fc6 runs by row, column and channel."""
    source = tmp_path / 'a.onnx'
    ww.write_keras_onnx(source, WIDE)
    message = refused(source, tmp_path)
    assert 'tf2onnx' in message and '--input bgr for BGR, 0-255' in message
    for name, takes in (('bgr', bgr_input), ('rgb', rgb_input), ('torch', torch_input)):
        model, card = convert(source, tmp_path, '--input', name)
        assert card['source_input'] == name
        numpy.testing.assert_allclose(scores(model), reference(takes(FRAMES), WIDE), atol=2e-3,
                                      rtol=1e-5)


def test_the_convolutions_under_another_top(tmp_path, capsys):
    source = tmp_path / 'a.onnx'
    ww.write_keras_onnx(source, WIDE, other_top=True)
    message = refused(source, tmp_path, '--input', 'bgr')
    assert 'Mul' in message and '--no-top' in message
    assert '--input bgr' in refused(source, tmp_path, '--no-top')
    model, card = convert(source, tmp_path, '--no-top', '--input', 'bgr')
    assert card['source'].endswith('conv5_3; random (seed 0): fc6, fc7, fc8')
    assert 'random (seed 0): fc6, fc7, fc8' in capsys.readouterr().out
    for name in model.conv_names:
        numpy.testing.assert_array_equal(model[name].W.array, WIDE[name]['weight'])
        numpy.testing.assert_array_equal(model[name].b.array, WIDE[name]['bias'])
    assert model.fc6.W.array.std() > 0


def graph(change=lambda steps: steps, before=lambda writer: None):
    """The steps of a VGG-16, [op, layer's name or '', attributes], put together after `change`."""
    steps, ends = [], [names[-1] for names in ww.BLOCKS]
    for name in PLAIN:
        if name.startswith('conv'):
            steps.append(['Conv', name, {'kernel_shape': [3, 3], 'pads': [1, 1, 1, 1]}])
        else:
            steps += [['Flatten', '', {}]] * (name == 'fc6') + [['Gemm', name, {'transB': 1}]]
        steps += [['Relu', '', {}]] * (name != 'fc8')
        if name in ends:
            steps.append(['MaxPool', '', {'kernel_shape': [2, 2], 'strides': [2, 2]}])
    writer = ww.OnnxWriter()
    before(writer)
    for op, name, attributes in change(steps):
        writer.step(op, [writer.put(f'{name}.{kind}', PLAIN[name][kind])
                         for kind in ('weight', 'bias')] if name else [], **attributes)
    return writer


def without(number):
    return lambda steps: steps[:number] + steps[number + 1:]


def exchanged(number):
    return lambda steps: [*steps[:number], steps[number + 1], steps[number], *steps[number + 2:]]


def put_in(number, *step):
    return lambda steps: [*steps[:number], [*step, '', {}][:3], *steps[number:]]


def with_attribute(number, **attributes):
    return lambda steps: [*steps[:number], [*steps[number][:2], {**steps[number][2], **attributes}],
                          *steps[number + 1:]]


def with_clips(**limits):
    return lambda steps: [['Clip', '', limits] if step[0] == 'Relu' else step for step in steps]


# The steps: 0 conv1_1, 1 Relu, 2 conv1_2, 3 Relu, 4 MaxPool, 5 conv2_1 ... 30 MaxPool, 31 Flatten,
# 32 fc6, 33 Relu, 34 fc7, 35 Relu, 36 fc8.
@pytest.mark.parametrize('change, words', [
    (without(1), 'conv1_1 has no ReLU'), (without(33), 'fc6 has no ReLU'),
    (without(4), 'conv1_3'), (exchanged(4), 'conv1_3'),
    (put_in(2, 'Relu'), None), (put_in(37, 'Softmax'), None), (put_in(33, 'Dropout'), None),
    (put_in(2, 'LeakyRelu'), 'LeakyRelu'), (put_in(2, 'Transpose'), 'not channels by rows'),
    (put_in(31, 'Transpose'), 'turns what the convolutions give'),
    (put_in(31, 'GlobalAveragePool'), '--no-top'), (without(31), 'not made one row'),
    (with_attribute(0, pads=[0, 0, 0, 0]), 'pads [0, 0, 0, 0]'),
    (with_attribute(0, strides=[2, 2]), 'strides'), (with_attribute(2, group=2), 'groups'),
    (with_attribute(2, dilations=[2, 2]), 'dilations'),
    (with_attribute(4, kernel_shape=[3, 3]), 'pooling with kernel_shape'),
    (with_attribute(4, strides=[1, 1]), 'pooling with strides'),
    (with_attribute(4, pads=[0, 0, 1, 1]), 'pooling with pads'),
    (with_attribute(32, alpha=2.0), 'alpha'), (with_attribute(32, transA=1), 'transA'),
    (put_in(0, 'Mul'), 'changes its input'), (put_in(0, 'Cast'), None),
    # limits as attributes, up to opset 10
    (with_clips(min=0.0), None), (with_clips(min=0.0, max=3.4028234663852886e38), None),
    (with_clips(min=0.0, max=6.0), 'Clip'), (with_clips(max=0.0), 'Clip')])
def test_a_graph_in_another_order(tmp_path, change, words):
    graph(change).write(tmp_path / 'a.onnx')
    if words is None:
        convert(tmp_path / 'a.onnx', tmp_path)
        assert load_vgg(tmp_path / 'VGG.model')
    else:
        message = refused(tmp_path / 'a.onnx', tmp_path)
        assert words in message


def test_a_branch(tmp_path):
    writer = ww.OnnxWriter()
    writer.step('Conv', [writer.put('w', PLAIN['conv1_1']['weight'])], pads=[1, 1, 1, 1])
    writer.nodes.append(ww.onnx_node('Add', [writer.x, 'input'], 'sum'))
    writer.write(tmp_path / 'a.onnx')
    assert 'branch' in refused(tmp_path / 'a.onnx', tmp_path)
    writer = ww.OnnxWriter()
    writer.step('Conv', [writer.node('DequantizeLinear', [writer.put('q', numpy.zeros(4, 'f4'))])],
                pads=[1, 1, 1, 1])
    writer.write(tmp_path / 'a.onnx')
    assert 'computed, not stored' in refused(tmp_path / 'a.onnx', tmp_path)


def test_numbers_in_every_kind_of_field(tmp_path):
    """Floats one by one, float64, and the bits of float16 in integers."""
    layers = {name: {kind: array.astype('f2').astype('f4') for kind, array in parts.items()}
              for name, parts in PLAIN.items()}
    kinds = {
        'float': lambda a: ww.field(2, 1) + ww.field(4, a.tobytes()),
        'double': lambda a: ww.field(2, 11) + ww.field(10, a.astype('f8').tobytes()),
        'half': lambda a: ww.field(2, 10) + b''.join(
            ww.field(5, int(bits)) for bits in a.astype('f2').view('u2').ravel()),
        'raw half': lambda a: ww.field(2, 10) + ww.field(9, a.astype('f2').tobytes()),
        'bfloat16': lambda a: ww.field(2, 16) + ww.field(
            9, (a.view('u4') >> 16).astype('u2').tobytes())}
    for kind, numbers in kinds.items():
        writer = graph()
        writer.tensors = [b''.join(ww.field(1, side) for side in layers[name][part].shape)
                          + ww.field(8, f'{name}.{part}') + numbers(layers[name][part])
                          for name in layers for part in ('weight', 'bias')]
        writer.write(tmp_path / 'a.onnx')
        model, _ = convert(tmp_path / 'a.onnx', tmp_path, '--input', 'bgr')
        for name, parts in layers.items():
            numpy.testing.assert_allclose(model[name].W.array, parts['weight'],
                                          rtol=1 / 128 if kind == 'bfloat16' else 1e-6,
                                          err_msg=kind)


def test_the_file_may_tell_what_it_takes(tmp_path):
    mean = numpy.array([100., 110., 120.], 'f4')
    notes = {'preprocessing': json.dumps(preprocessing(mean))}

    def write(subtracted):
        def before(writer):
            writer.step('Sub', [writer.put('mean', subtracted)])
            writer.step('Transpose', perm=[0, 3, 1, 2])
        graph(before=before).write(tmp_path / 'a.onnx', 'somebody', notes)

    write(mean)
    model, card = convert(tmp_path / 'a.onnx', tmp_path)
    assert card['preprocessing']['mean'] == [100, 110, 120] == list(model.mean)
    numpy.testing.assert_array_equal(model.conv1_1.W.array, PLAIN['conv1_1']['weight'])
    (tmp_path / 'VGG.model').unlink()
    write(mean + 1)
    assert 'changes its input' in refused(tmp_path / 'a.onnx', tmp_path)
