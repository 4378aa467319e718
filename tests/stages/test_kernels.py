"""Which kernel computed: told by stages, in extraction.json and cards, and where parts differ."""
import json
import sys

import pytest

import generate_pbs
import predict
import rnn
import save_hdf5
import saveFeatures_1024
import smallSet
from engine import variants
from engine.cluster import partkernels
from engine.fast import recurrent, winograd
from engine.weights.card import read_card
from RNNNet import RNNNet
from VGGNet import VGGNet


@pytest.fixture
def root(small_set, tmp_path):
    return smallSet.copy_set(small_set, tmp_path / 'root')


@pytest.fixture
def run(monkeypatch, capsys, root):
    def call(module, *words):
        monkeypatch.setattr(sys, 'argv', [f'{module.__name__}.py', *map(str, words),
                                          '--root', str(root)])
        module.main()
        return capsys.readouterr().out
    return call


def test_a_network_names_what_it_computes_by(monkeypatch):
    vgg = VGGNet((4, 6, 8, 8, 8), 8, 7, 32)
    assert f'convolutions: {winograd.kernel_name()}; products: ' in vgg.kernel()
    monkeypatch.setenv('ENGINE_CONV', 'numpy')
    assert vgg.kernel().startswith('convolutions: numpy; ')
    vgg.trained = ('conv5_3', 'fc6')
    assert vgg.kernel().startswith('convolutions: numpy, learning by Chainer; ')
    vgg.fast = False
    assert vgg.kernel().startswith('convolutions: Chainer; ')
    assert f'LSTM: {recurrent.kernel_name()}; ' in RNNNet(5, 3, cells=(8,)).kernel()
    monkeypatch.setenv('ENGINE_LSTM', 'numpy')
    assert RNNNet(5, 3, cells=(8,)).kernel().startswith('LSTM: numpy; ')
    assert RNNNet(5, 3, cell='linear').kernel().startswith('products: ')
    monkeypatch.setattr('engine.fast.kernelnames.usable_cores', lambda: 7)
    assert vgg.kernel().endswith('; 7 threads')


def test_parts_by_several_kernels_are_named_from_the_first_to_the_packing(root, run, monkeypatch):
    smallSet.save_random_model(root)
    flags = ('--parts', 2)
    monkeypatch.setenv('ENGINE_CONV', 'numpy')
    out = run(saveFeatures_1024, 1, *flags)
    assert 'computed by convolutions: numpy; products: ' in out and 'several kernels' not in out
    first = json.loads((root / variants.FEATURES / 'extraction.json').read_text())['kernel']
    assert first.startswith('convolutions: numpy; ')
    monkeypatch.delenv('ENGINE_CONV')
    if not winograd.kernel_name().startswith('compiled'):
        pytest.skip('no second kernel')
    words = ['computed by several kernels, whose numbers differ in their last digits:',
             f'  part 1: {first}', f'  part 2: {first.replace("numpy", winograd.kernel_name(), 1)}']
    for out in (run(saveFeatures_1024, 2, *flags), run(saveFeatures_1024, 2, *flags),
                run(generate_pbs, *flags, '--status'), run(save_hdf5)):
        assert '\n'.join(words) in out
    # What there was nothing left to compute for is not entered.
    run(saveFeatures_1024, 1, *flags)
    assert (root / variants.FEATURES / partkernels.FILE).read_text().count('\n') == 2


def test_training_and_prediction_tell_it(root, run, small_set):
    smallSet.save_random_model(root)
    run(saveFeatures_1024, 1, '--parts', 1)
    run(save_hdf5)
    smallSet.run_stage('normalizeData.py', '--root', root)
    out = run(rnn, '--tiny', '--epochs', 1)
    card = read_card(root / 'RNN.model')
    assert f'computed by {card["kernel"]}\n' in out
    assert card['kernel'].startswith(f'LSTM: {recurrent.kernel_name()}; products: ')
    assert out.count('computed by') == 1
    out = run(rnn, '--tiny', '--test-only', '--test-steps', 6)
    assert f'computed by {card["kernel"]}\n' in out
    clip = next((root / variants.CLIPS).rglob('*.avi'))
    out = run(predict, clip)
    assert f'computed by convolutions: {winograd.kernel_name()}; ' in out
    assert f'computed by {card["kernel"]}\n' in out
