"""What a GPU would compute: the source of its kernels, compiled for the CPU."""
import ctypes
import functools
import pathlib
import shutil
import subprocess
import tempfile

import numpy
import pytest

needs_compiler = pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')


def elementwise(in_params, out_params, operation, name):
    """As cupy.ElementwiseKernel of parameters of one type T, `raw` ones and numbers of int32 among
    them, for arrays of NumPy."""
    params = [param.split() for param in f'{in_params}, {out_params}'.split(',')]
    n_ins = len(in_params.split(','))

    def kernel(*given):
        shape = numpy.broadcast_shapes(*(array.shape for array, param in zip(given, params)
                                         if len(param) == 2 and param[0] == 'T'))
        kind, there = given[-1].dtype, []
        for array, param in zip(given, params, strict=True):
            whole = array if 'T' != param[0] else numpy.broadcast_to(array, shape)
            there.append(numpy.array(whole, 'i4' if param[0] == 'int32' else kind, order='C'))
        _compiled(tuple(map(tuple, params)), operation, kind.char)(
            ctypes.c_long(int(numpy.prod(shape))),
            *(ctypes.c_void_p(a.ctypes.data) for a in there))
        for array, filled in zip(given[n_ins:], there[n_ins:], strict=True):
            array[...] = filled
    return kernel


@functools.cache
def _compiled(params, operation, kind):
    begin, end, given = [], [], []
    for *how, name in params:
        if how == ['T']:
            begin.append(f'T {name} = {name}_at[i];')
            end.append(f'{name}_at[i] = {name};')
            given.append(f'T *{name}_at')
        elif how == ['int32']:
            begin.append(f'const int {name} = *{name}_at;')
            given.append(f'const int *{name}_at')
        else:
            given.append(f'T *{name}')
    source = '\n'.join([
        '#include <tgmath.h>', f'typedef {dict(f="float", d="double")[kind]} T;',
        f'void run(long n, {", ".join(given)})',
        '{ for (long i = 0; i < n; i++) {', *begin, operation, *end, '} }'])
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, 'kernel.c').write_text(source)
        library = str(pathlib.Path(folder, 'kernel.so'))
        subprocess.run(['cc', '-O1', '-shared', '-fPIC', '-o', library,
                        str(pathlib.Path(folder, 'kernel.c')), '-lm'], check=True)
        return ctypes.CDLL(library).run
