"""Small VGG-16s in every form of file, what their own frameworks would answer, and the stage."""
import sys
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
import pytest

import convertWeights
import weightWriters as ww
from VGGNet import load_vgg
from engine.errors import UserError
from engine.video.preprocessing import preprocess

PLAIN, NORMALISED = ww.make_network(), ww.make_network(normalised=True)
# As of Caffe and Keras: trained on 0-255, so their first weights are as much smaller.
WIDE = ww.make_network(deviation=60.)
FRAMES = numpy.random.default_rng(5).integers(0, 256, (2, ww.SIZE, ww.SIZE, 3), numpy.uint8)
TORCHVISION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torch_input(frames):
    """BGR frames as torchvision's networks take them: RGB, 0-1, mean and deviation."""
    x = frames[..., ::-1].astype(numpy.float64) / 255
    return ((x - TORCHVISION[0]) / TORCHVISION[1]).transpose(0, 3, 1, 2)


def bgr_input(frames):
    return (frames - numpy.array([103.939, 116.779, 123.68])).transpose(0, 3, 1, 2)


def rgb_input(frames):
    return bgr_input(frames)[:, ::-1]


def convolve(x, parts):
    """3x3 with a border of zeros and batch normalisation, by nine shifted products, float64."""
    height, width = x.shape[2:]
    around = numpy.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = parts['weight'].astype(numpy.float64)
    x = sum(numpy.einsum('oc,nchw->nohw', weight[:, :, i, j],
                         around[:, :, i:i + height, j:j + width])
            for i in range(3) for j in range(3))

    def side(kind):
        return parts[kind].astype(numpy.float64)[:, None, None]

    x = x + side('bias')
    if 'gamma' in parts:
        x = (x - side('mean')) / numpy.sqrt(side('var') + 1e-5) * side('gamma') + side('beta')
    return x


def reference(x, layers):
    """What the source's own framework would say of x, its own input."""
    for names in ww.BLOCKS:
        for name in names:
            x = numpy.maximum(convolve(x, layers[name]), 0)
        n, c, height, width = x.shape
        x = x.reshape(n, c, height // 2, 2, width // 2, 2).max((3, 5))
    x = x.reshape(len(x), -1)
    for name in ('fc6', 'fc7', 'fc8'):
        x = x @ layers[name]['weight'].T.astype(numpy.float64) + layers[name]['bias']
        x = numpy.maximum(x, 0) if name != 'fc8' else x
    return x


def convert(source, root, *flags):
    """Runs the stage in this process; returns (model, card)."""
    argv, sys.argv = sys.argv, ['convertWeights.py', *map(str, [
        *([source] if source else []), '--root', root, *ww.FLAGS, *flags])]
    try:
        convertWeights.main()
    finally:
        sys.argv = argv
    return load_vgg(Path(root) / 'VGG.model')


def scores(model, frames=FRAMES):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(preprocess(frames, model.mean)).array


def plain_keras(path, layers):
    names = {}
    for _, their, weight, bias in ww.keras_layers(layers):
        names |= {f'{their}__kernel': weight, f'{their}__bias': bias}
    numpy.savez(path, **names)


def short_keras(path, layers):
    names = {}
    for name, _, weight, bias in ww.keras_layers(layers):
        names |= {f'{name}_W': weight, f'{name}_b': bias}
    numpy.savez(path, **names)


def chainer_npz(path, layers):
    numpy.savez_compressed(path, **{f'{name}/{kind}': parts[part] for name, parts in layers.items()
                                    for kind, part in (('W', 'weight'), ('b', 'bias'))})


# name: file name, writer, network, what the source takes
SOURCES = {
    'torch': ('a.pth', lambda p, n: ww.write_torch(p, ww.state_dict(n)), PLAIN, torch_input),
    'torch bn': ('a.pth', lambda p, n: ww.write_torch(p, ww.state_dict(n)), NORMALISED,
                 torch_input),
    'legacy torch': ('a.pth', lambda p, n: ww.write_legacy_torch(p, ww.state_dict(n)), PLAIN,
                     torch_input),
    'legacy torch bn': ('a.pth', lambda p, n: ww.write_legacy_torch(p, ww.state_dict(n)),
                        NORMALISED, torch_input),
    'safetensors': ('a.safetensors', lambda p, n: ww.write_safetensors(p, ww.state_dict(n)),
                    NORMALISED, torch_input),
    'keras 1': ('a.h5', lambda p, n: ww.write_keras(p, n, 1), WIDE, bgr_input),
    'keras 2': ('a.h5', lambda p, n: ww.write_keras(p, n, 2), WIDE, bgr_input),
    'keras 3': ('a.weights.h5', lambda p, n: ww.write_keras(p, n, 3), WIDE, bgr_input),
    'keras whole': ('a.h5', lambda p, n: ww.write_keras(p, n, 'whole'), WIDE, bgr_input),
    'caffe': ('a.caffemodel', ww.write_caffe, WIDE, bgr_input),
    'caffe of today': ('a.caffemodel', lambda p, n: ww.write_caffe(p, n, old=False), WIDE,
                       bgr_input),
    'onnx': ('a.onnx', ww.write_onnx, PLAIN, torch_input),
    'onnx bn': ('a.onnx', ww.write_onnx, NORMALISED, torch_input),
    'onnx and data': ('a.onnx', lambda p, n: ww.write_onnx(p, n, 'a.data'), NORMALISED,
                      torch_input),
    'onnx in pieces': ('a.onnx', lambda p, n: ww.write_onnx(p, n, put=ww.put_layer_in_pieces),
                       PLAIN, torch_input),
    'keras archive': ('a.keras', ww.write_keras_archive, WIDE, bgr_input),
    'npz': ('a.npz', plain_keras, WIDE, bgr_input),
    'npz short': ('a.npz', short_keras, WIDE, bgr_input),
    'chainer npz': ('a.npz', chainer_npz, WIDE, bgr_input),
}


def write(folder, name, change=lambda layers: layers):
    file, writer, network, _ = SOURCES[name]
    writer(folder / file, change({layer: dict(parts) for layer, parts in network.items()}))
    return folder / file


def refused(source, tmp_path, *flags):
    """The error's text: one line that names the file, and no model is written."""
    with pytest.raises(UserError) as caught:
        convert(source, tmp_path, *flags)
    message = str(caught.value)
    assert source.name in message and '\n' not in message and message.isprintable()
    assert not (tmp_path / 'VGG.model').exists()
    return message
