"""The sources of all GPU kernels go through NVIDIA's compiler, which needs no GPU."""
import shutil
import subprocess
import types

import numpy
import pytest

from engine.fast import cells, conv_gpu, conv_learn_gpu

TYPES = {'float32': 'float', 'int32': 'int', 'float16': '__half'}


class Sources(dict):
    """In place of chainer.backends.cuda: what the kernels would be made of."""

    def elementwise(self, ins, outs, operation, name):
        self[name] = ins.split(','), outs.split(','), operation
        return lambda *_: None

    def raw(self, source, name):
        self[name] = source
        return lambda *_: None


@pytest.fixture(scope='module')
def sources():
    found = Sources()
    with pytest.MonkeyPatch.context() as patch:
        for module in cells, conv_gpu, conv_learn_gpu:
            patch.setattr(module, 'cuda', found)
        h, gates, one = (numpy.zeros(shape, 'f') for shape in ((2, 8), (2, 32), (2, 1)))
        cells.cell_gpu(gates, h, h, one, h, gates, h, h, h, h)
        cells.cell_backward_gpu(gates, h, h, h, h, one, h, h, h, gates)
        gpu = types.SimpleNamespace(**{name: getattr(numpy, name) for name in (
            'empty', 'empty_like', 'ascontiguousarray', 'pad')})
        for kind in numpy.float32, numpy.float16:
            conv_gpu.pooled(gpu, numpy.zeros((1, 4, 4, 8), kind), numpy.zeros((1, 2, 2, 8), kind))
        conv_gpu.halves(gpu, numpy.zeros((1, 4, 4, 3), 'u1'), numpy.zeros(3, 'f'), 8)
        for pool in False, True:
            conv_learn_gpu.through_output(gpu, *numpy.zeros((2, 1, 4, 4, 4), 'f'), pool)
    return found


def whole(name, ins, outs, operation, kind):
    """What CuPy makes of an elementwise kernel, without its arrays of any strides."""
    raw, lines, parameters = 'raw ', [], []
    for param in ins + outs:
        is_raw = param.strip().startswith(raw)
        word, variable = param.strip().removeprefix(raw).split()
        word = dict(T=kind, S='unsigned char').get(word, TYPES.get(word))
        parameters.append(f'{word} *{variable}_at')
        lines.append(f'{word} *{variable} = {variable}_at;' if is_raw
                     else f'{word} &{variable} = {variable}_at[i];')
    return (f'__global__ void {name}_{kind}({", ".join(parameters)}) {{\n'
            f'typedef {kind} T; const long i = threadIdx.x; {" ".join(lines)}\n{operation};\n}}\n')


@pytest.mark.skipif(shutil.which('nvcc') is None, reason="no nvcc, NVIDIA's compiler")
def test_they_compile_for_ampere_and_hopper(sources, tmp_path):
    assert set(sources) == {'lstm_window_forward', 'lstm_window_backward', 'pool_2x2',
                            'pool_halves', 'halves', 'through_pool_2x2', 'through_relu'}
    source = '#include <cuda_fp16.h>\n' + ''.join(
        kernel if isinstance(kernel, str)
        else ''.join(whole(name, *kernel, kind) for kind in ('float', 'double'))
        for name, kernel in sources.items())
    (tmp_path / 'kernels.cu').write_text(source)
    done = subprocess.run(
        ['nvcc', '-fatbin', '-Werror', 'all-warnings', '-o', str(tmp_path / 'kernels'),
         *(f'-gencode=arch=compute_{n},code=sm_{n}' for n in (80, 90)),
         str(tmp_path / 'kernels.cu')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
