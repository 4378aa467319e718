"""engine/weights/onnxlayers.py: what an ONNX file's first convolution takes, and in which order its
fc6 does; onnxruntime says what the model made of it must answer.
"""
import json

import numpy
import pytest

import weightWriters as ww
from engine.video.preprocessing import preprocessing
from onnxChains import Chain, assert_agrees, assert_refused, conv, trunk, whole
from weightSources import PLAIN, bgr_input

# ---------------------------------------------------------------- what the first one takes

def turned(*reshapes):
    """Flattening of channels last, in one step or more."""
    def flatten(chain):
        chain.step('Transpose', perm=[0, 2, 3, 1])
        for shape in reshapes:
            chain.step('Reshape', numpy.array(shape)) if shape else chain.step('Flatten')
    return flatten


def test_pytorch_with_channels_last_does_not_tell_the_preprocessing(tmp_path):
    """Keras on PyTorch writes such; a network of PyTorch's own has channels first."""
    chain = whole(turns=[[0, 3, 1, 2]], flatten=turned(None), by_row=True)
    assert_refused(chain, tmp_path, 'pytorch with channels last', '--input bgr for BGR, 0-255',
                   last=True)
    assert_refused(chain, tmp_path, '--input bgr', flags=['--no-top'], last=True)
    card = assert_agrees(chain, tmp_path, '--input', 'bgr', takes=bgr_input, last=True)
    assert card['source_input'] == 'bgr'
    (tmp_path / 'VGG.model').unlink()
    # there and back again are channels first
    chain = whole(turns=[[0, 2, 3, 1], [0, 3, 1, 2]])
    assert assert_agrees(chain, tmp_path)['source_input'] == 'torch'


@pytest.mark.parametrize('perm', [[0, 3, 2, 1], [0, 2, 3, 1], [3, 2, 0, 1]])
def test_pictures_on_their_side_are_refused(tmp_path, perm):
    assert_refused(trunk(turns=[perm]), tmp_path, 'turns its input',
                   flags=['--no-top', '--input', 'bgr'])


# --------------------------------------------------------------- fc6 by row, column, channel

@pytest.mark.parametrize('reshapes', [
    [None], [None, None], [[0, -1, ww.CHANNELS[-1]], None], [[-1, 4, ww.CHANNELS[-1]], [0, -1]],
    [[0, -1], [0, -1]]], ids=str)
def test_what_is_flattened_twice_keeps_the_order_of_the_first(tmp_path, reshapes):
    """Keras; permute(0, 2, 3, 1).flatten(1, 2).flatten(1); .reshape(N, -1, C).flatten(1)."""
    assert_agrees(whole(flatten=turned(*reshapes), by_row=True), tmp_path)


def test_channels_first_flattened_twice(tmp_path):
    assert_agrees(whole(flatten=lambda chain: chain.step('Flatten').step('Flatten')), tmp_path)


# ------------------------------------------------------------------- what is hung on the file

STRANGE = ['{}', 'null', '1', 'imagenet', '"imagenet"', '[1, 2]', '', '[' * 5000,
           '{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}',
           '{"mean": [123.68, 116.779, 103.939]}', '{"mean": null}', '{"resize": 256}',
           '{"order": "BGR", "scale": "0-255", "mean": [1, 2, 3]}',
           json.dumps({**preprocessing(), 'mean': [True, True, True]}),
           json.dumps({**preprocessing(), 'mean': [1, 2, float('nan')]}),
           json.dumps({**preprocessing(), 'mean': [1, 2, 300]}),
           json.dumps({**preprocessing(), 'order': 'RGB'}),
           json.dumps({**preprocessing(), 'resize': 'short side to 256, middle'}),
           json.dumps({**preprocessing(), 'std': [58, 57, 57]})]


@pytest.mark.parametrize('text', STRANGE, ids=range(len(STRANGE)))
def test_a_note_of_another_program_is_as_good_as_none(tmp_path, text):
    notes = {'preprocessing': text}
    assert assert_agrees(whole(), tmp_path, notes=notes)['source_input'] == 'torch'
    card = assert_agrees(whole(), tmp_path, '--input', 'bgr', takes=bgr_input, notes=notes)
    assert card['source_input'] == 'bgr'
    (tmp_path / 'VGG.model').unlink()
    assert_refused(whole(), tmp_path, '--input rgb', notes=notes, producer='somebody')


def test_our_own_note_is_believed_and_what_contradicts_it_refused(tmp_path):
    def own(frames):
        return (frames - numpy.array([100, 110, 120])).transpose(0, 3, 1, 2)

    told = {'producer': 'somebody',
            'notes': {'preprocessing': json.dumps(preprocessing([100, 110, 120]))}}
    assert assert_agrees(whole(), tmp_path, takes=own, **told)['source_input'] == 'told'
    (tmp_path / 'VGG.model').unlink()
    for name in ('torch', 'rgb', 'bgr'):
        assert_refused(whole(), tmp_path, 'less 100, 110, 120', f'leave out --input {name}',
                       flags=['--input', name], **told)
    told['notes'] = {'preprocessing': json.dumps(preprocessing())}
    assert_agrees(whole(), tmp_path, '--input', 'bgr', takes=bgr_input, **told)


def test_a_mean_that_the_graph_subtracts_must_be_told(tmp_path):
    mean = numpy.array([100., 110., 120.], 'f4')
    for array, note in ((mean, '{"mean": [100, 110, 120]}'), (mean[:1], '{}'),
                        (mean, json.dumps(preprocessing([1, 2, 3]))),
                        (numpy.zeros((ww.SIZE, ww.SIZE, 3), 'f4'), json.dumps(preprocessing()))):
        chain = Chain().step('Sub', array).step('Transpose', perm=[0, 3, 1, 2])
        conv(chain, PLAIN['conv1_1'])
        assert_refused(chain, tmp_path, 'changes its input (Sub)', flags=['--input', 'torch'],
                       notes={'preprocessing': note}, last=True)
    chain = Chain()
    chain.x = chain.node('Sub', [chain.put(mean), 'input'])
    assert_refused(chain, tmp_path, 'changes its input (Sub)', last=True,
                   notes={'preprocessing': json.dumps(preprocessing(mean))})
