"""The network of bench.vgg in ncnn, float32: the other that computes convolutions by Winograd."""
import concurrent.futures
import pathlib
import struct
import tempfile

import numpy

from engine import usable_cores

try:
    import ncnn
except ImportError:
    ncnn = None


def in_ncnn(model, frames, mean, together):
    """A function of no arguments -> features and softmax of the frames.

    Args:
        together (bool): a frame for each core at once, each in one thread; else one frame after
            the other, each in all threads.
    """
    network = network_of(model, 1 if together else usable_cores())

    def one(frame):
        # channels last, bytes -> planes less their mean
        given = numpy.ascontiguousarray((frame - mean).transpose(2, 0, 1), numpy.float32)
        extractor = network.create_extractor()
        extractor.input('data', ncnn.Mat(given))
        return [numpy.array(extractor.extract(name)[1]).ravel() for name in ('feature', 'prob')]

    def run():
        if together:
            with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
                found = list(pool.map(one, frames))
        else:
            found = [one(frame) for frame in frames]
        return [numpy.stack(arrays) for arrays in zip(*found)]
    return run


def network_of(model, threads):
    """The ncnn.Net of a VGGNet_1024."""
    network = ncnn.Net()
    network.opt.num_threads = threads
    for name in ('fp16_packed', 'fp16_storage', 'fp16_arithmetic', 'bf16_packed', 'bf16_storage'):
        setattr(network.opt, f'use_{name}', False)  # float32 as the others
    layers, arrays = layers_of(model)
    blobs = 2 + len(layers)
    with tempfile.TemporaryDirectory() as folder:
        parameters, weights = pathlib.Path(folder, 'net.param'), pathlib.Path(folder, 'net.bin')
        parameters.write_text('\n'.join(['7767517', f'{len(layers) + 1} {blobs}',
                                         'Input data 0 1 data', *layers, '']))
        with open(weights, 'wb') as f:
            for W, b in arrays:  # a flag of plain float32 before the weights
                f.write(struct.pack('<I', 0) + W.tobytes() + b.tobytes())
        if network.load_param(str(parameters)) or network.load_model(str(weights)):
            raise RuntimeError('ncnn does not load the network')
    return network


def layers_of(model):
    """Lines of ncnn's text of a network, and (W, b) of those that have weights, in order."""
    layers, arrays, at = [], [], 'data'
    for name in model.conv_names:
        W = model[name].W.array
        layers.append(f'Convolution {name} 1 1 {at} {name} 0={len(W)} 1=3 4=1 5=1 6={W.size} 9=1')
        arrays.append((W, model[name].b.array))
        at = name
        if model.pooled_after(name):
            layers.append(f'Pooling pool_{name} 1 1 {at} pool_{name} 0=0 1=2 2=2')
            at = f'pool_{name}'
    for name in ('fc6', 'fc7', 'fc8'):
        W = model[name].W.array
        layers.append(f'InnerProduct {name} 1 1 {at} {name} 0={len(W)} 1=1 2={W.size}'
                      + ' 9=1' * (name == 'fc6'))
        arrays.append((W, model[name].b.array))
        at = name
        if name == 'fc7':
            layers += ['Split split 1 2 fc7 feature before', 'ReLU relu 1 1 before after']
            at = 'after'
    return [*layers, 'Softmax softmax 1 1 fc8 prob 0=0'], arrays
