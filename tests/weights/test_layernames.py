"""engine/weights/layernames.py: what people wrap weights in, and how they count layers."""
import json
import pickle
import zipfile

import h5py
import numpy
import pytest

import weightWriters as ww
from engine.weights import kerasfile
from weightSources import PLAIN, WIDE, convert, refused

ARRAYS = ww.state_dict(PLAIN)


def assert_same(model, layers=PLAIN):
    """All layers but conv1_1, which takes its input's scale in, are those of the source."""
    for name, parts in layers.items():
        if name != 'conv1_1':
            numpy.testing.assert_array_equal(model[name].W.array, parts['weight'])
            numpy.testing.assert_array_equal(model[name].b.array, parts['bias'])


def renamed(change):
    return {change(name): array for name, array in ARRAYS.items()}


def prefixed(prefix):
    return renamed(lambda name: prefix + name)


def numbered(*numbers):
    """The fully connected layers under other numbers of `classifier`."""
    def change(name):
        for old, new in zip((0, 3, 6), numbers):
            if name.startswith(f'classifier.{old}.'):
                return name.replace(str(old), str(new), 1)
        return name
    return renamed(change)


@pytest.mark.parametrize('arrays', [
    prefixed('module.'), prefixed('_orig_mod.'), prefixed('model.'), prefixed('backbone.'),
    prefixed('module._orig_mod.net.encoder.'), prefixed('vgg16.'), numbered(1, 4, 6),
    numbered(1, 4, 7), numbered(0, 2, 4),
    # as torch.nn.DataParallel of the features alone, or these alone under any name
    renamed(lambda name: name.replace('features.', 'features.module.')),
    renamed(lambda name: name.replace('features.', 'backbone.')),
    renamed(lambda name: name.replace('features.', 'backbone.features.')),
    renamed(lambda name: name.replace('features.', '').replace('classifier', 'top')),
    {**prefixed('module.'), 'n_averaged': numpy.array(7)}],
    ids=lambda arrays: ' '.join(list(arrays)[::30]))
@pytest.mark.parametrize('form', ['pth', 'safetensors', 'npz'])
def test_what_stands_before_and_how_layers_are_counted(tmp_path, arrays, form):
    writer = {'pth': ww.write_torch, 'safetensors': ww.write_safetensors,
              'npz': lambda path, arrays: numpy.savez(path, **arrays)}[form]
    writer(tmp_path / f'a.{form}', arrays)
    assert_same(convert(tmp_path / f'a.{form}', tmp_path)[0])


def checkpoint(*entries):
    """The pickle of a dictionary; an entry is (key, pickle of the value)."""
    return b'\x80\x02}(' + b''.join(ww.text(key) + data[2:-1] for key, data in entries) + b'u.'


STATE = ww.torch_pickle(ARRAYS)
OPTIMIZER = checkpoint(('state', checkpoint(('exp_avg', ww.torch_pickle(
    {'a': ARRAYS['features.0.weight']})))), ('param_groups', pickle.dumps([], 2)))


@pytest.mark.parametrize('keys', [
    ['net'], ['model_state'], ['model_ema'], ['state_dict'], ['model', 'state_dict'],
    ['a', 'b', 'c', 'd'], ['params']])
@pytest.mark.parametrize('legacy', [False, True])
def test_a_checkpoint_around_the_state_dict(tmp_path, keys, legacy):
    data = STATE if not legacy else ww.torch_pickle(ARRAYS, legacy=True)
    for key in reversed(keys):
        data = checkpoint(('epoch', pickle.dumps(3, 2)), ('best', pickle.dumps(0.5, 2)),
                          ('of numpy', pickle.dumps(numpy.float64(0.5), 2)), (key, data),
                          ('optimizer', OPTIMIZER if not legacy else pickle.dumps(None, 2)))
    (ww.write_legacy_torch if legacy else ww.write_torch)(tmp_path / 'a.pth', ARRAYS, data)
    assert_same(convert(tmp_path / 'a.pth', tmp_path)[0])


def test_two_networks_in_one_file(tmp_path):
    other = ww.state_dict(ww.make_network(seed=1))
    ww.write_safetensors(tmp_path / 'a.safetensors', {
        **{f'model.{name}': array for name, array in ARRAYS.items()},
        **{f'ema.{name}': array for name, array in other.items()}})
    message = refused(tmp_path / 'a.safetensors', tmp_path)
    assert 'holds 2 networks' in message and '--prefix ema. or --prefix model.' in message
    assert_same(convert(tmp_path / 'a.safetensors', tmp_path, '--prefix', 'model.')[0])
    assert_same(convert(tmp_path / 'a.safetensors', tmp_path, '--prefix', 'ema.')[0],
                ww.make_network(seed=1))
    (tmp_path / 'VGG.model').unlink()
    assert 'begins with x; they are ema.' in refused(tmp_path / 'a.safetensors', tmp_path,
                                                     '--prefix', 'x')
    # two dictionaries of a checkpoint
    ww.write_torch(tmp_path / 'a.pth', ARRAYS, checkpoint(('model', STATE), ('ema', STATE)))
    assert '--prefix ema/ or --prefix model/' in refused(tmp_path / 'a.pth', tmp_path)
    assert_same(convert(tmp_path / 'a.pth', tmp_path, '--prefix', 'ema/')[0])


def test_another_top(tmp_path):
    top = {'classifier.weight': numpy.zeros((4, 9), 'f4'), 'classifier.bias': numpy.zeros(4, 'f4')}
    trunk = {name: array for name, array in ARRAYS.items() if name.startswith('features')}
    ww.write_torch(tmp_path / 'a.pth', {**trunk, **top})
    message = refused(tmp_path / 'a.pth', tmp_path)
    assert 'classifier.weight' in message and '--no-top' in message
    model, card = convert(tmp_path / 'a.pth', tmp_path, '--no-top')
    assert_same(model, {name: PLAIN[name] for name in model.conv_names})
    assert 'random (seed 0): fc6, fc7, fc8; left out: classifier.weight' in card['source']
    # of another size, under the right names
    other = {**ARRAYS, 'classifier.6.weight': numpy.zeros((4, 12), 'f4')}
    ww.write_torch(tmp_path / 'b.pth', other)
    (tmp_path / 'VGG.model').unlink()
    assert '--no-top' in refused(tmp_path / 'b.pth', tmp_path)
    convert(tmp_path / 'b.pth', tmp_path, '--no-top')
    # which excuses neither another trunk nor a part of one
    (tmp_path / 'VGG.model').unlink()
    more = {'features.30.weight': ARRAYS['features.28.weight']}
    ww.write_torch(tmp_path / 'vgg19.pth', {**ARRAYS, **more})
    assert 'features.30.weight' in refused(tmp_path / 'vgg19.pth', tmp_path, '--no-top')
    trunk.pop('features.28.weight')
    trunk.pop('features.28.bias')
    ww.write_torch(tmp_path / 'part.pth', trunk)
    assert 'lacks conv5_3' in refused(tmp_path / 'part.pth', tmp_path, '--no-top')
    convert(tmp_path / 'part.pth', tmp_path, '--no-top', '--random-rest')


@pytest.mark.parametrize('first', [0, 1, 14])
def test_keras_counts_from_any_number(tmp_path, first):
    counts = {4: first, 2: 2 * first}
    with h5py.File(tmp_path / 'a.h5', 'w') as f:
        for _, _, kernel, bias in ww.keras_layers(WIDE):
            kind, number = ('conv2d', 'dense')[kernel.ndim == 2], counts[kernel.ndim]
            counts[kernel.ndim] += 1
            name = f'{kind}_{number}' if number else kind
            f[f'{name}/{name}/kernel:0'], f[f'{name}/{name}/bias:0'] = kernel, bias
    model, _ = convert(tmp_path / 'a.h5', tmp_path)
    assert_same(model, {name: parts for name, parts in WIDE.items() if name != 'fc6'})


def test_layers_of_a_keras_model_that_may_change_its_input(tmp_path):
    ww.write_keras_archive(tmp_path / 'a.keras', WIDE, ('InputLayer', 'Rescaling', 'Conv2D'))
    message = refused(tmp_path / 'a.keras', tmp_path)
    assert 'Rescaling' in message and '--input rgb' in message
    assert convert(tmp_path / 'a.keras', tmp_path, '--input', 'rgb')[1]['source_input'] == 'rgb'
    (tmp_path / 'VGG.model').unlink()
    ww.write_keras(tmp_path / 'a.h5', WIDE, 'whole')
    with h5py.File(tmp_path / 'a.h5', 'r+') as f:
        f.attrs['model_config'] = json.dumps({'config': {'layers': [
            {'class_name': 'Conv2D', 'config': {}}, {'class_name': 'Lambda', 'config': {}}]}})
    assert 'Lambda' in refused(tmp_path / 'a.h5', tmp_path)


@pytest.mark.parametrize('form, config', [
    *((form, config) for form in ('h5', 'keras') for config in (b'', b'{"config"', b'\xff',
                                                                b'[' * 50000)), ('h5', 7)],
    ids=lambda value: str(value)[:12])
def test_a_description_that_cannot_be_read_leaves_the_weights_good(tmp_path, form, config):
    """It may have told of layers that change the input: nobody guesses what that is."""
    path = tmp_path / f'a.{form}'
    if form == 'h5':
        ww.write_keras(path, WIDE, 'whole')
        with h5py.File(path, 'r+') as f:
            f.attrs['model_config'] = config.decode(errors='replace') if isinstance(
                config, bytes) else config
    else:
        ww.write_keras(tmp_path / 'w.h5', WIDE, 3)
        with zipfile.ZipFile(path, 'w') as f:
            f.writestr('config.json', config)
            f.write(tmp_path / 'w.h5', 'model.weights.h5')
    message = refused(path, tmp_path)
    assert 'damaged' not in message and 'is not JSON' in message and '--input rgb' in message
    model, card = convert(path, tmp_path, '--input', 'rgb')
    assert card['source_input'] == 'rgb'
    assert_same(model, {name: WIDE[name] for name in model.conv_names})


def test_a_description_too_long_to_be_read_is_not_taken_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr(kerasfile, 'MOST_OF_TEXT', 50)
    ww.write_keras_archive(tmp_path / 'a.keras', WIDE)
    assert '--input rgb' in refused(tmp_path / 'a.keras', tmp_path)
