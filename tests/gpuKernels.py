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
    """As cupy.ElementwiseKernel of parameters of one type T, for arrays of NumPy."""
    ins, outs = ([word.split()[1] for word in params.split(',')]
                 for params in (in_params, out_params))

    def kernel(*arrays):
        shape = numpy.broadcast_shapes(*(array.shape for array in arrays))
        there = [numpy.array(numpy.broadcast_to(array, shape), arrays[-1].dtype, order='C')
                 for array in arrays]
        _compiled(tuple(ins), tuple(outs), operation, arrays[-1].dtype.char)(
            ctypes.c_long(there[0].size), *(ctypes.c_void_p(a.ctypes.data) for a in there))
        for array, filled in zip(arrays[len(ins):], there[len(ins):], strict=True):
            array[...] = filled
    return kernel


@functools.cache
def _compiled(ins, outs, operation, kind):
    names = ins + outs
    source = '\n'.join([
        '#include <tgmath.h>', f'typedef {dict(f="float", d="double")[kind]} T;',
        f'void run(long n, {", ".join(f"T *{name}_at" for name in names)})',
        '{ for (long k = 0; k < n; k++) {', *(f'T {name} = {name}_at[k];' for name in names),
        operation, *(f'{name}_at[k] = {name};' for name in outs), '} }'])
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, 'kernel.c').write_text(source)
        library = str(pathlib.Path(folder, 'kernel.so'))
        subprocess.run(['cc', '-O1', '-shared', '-fPIC', '-o', library,
                        str(pathlib.Path(folder, 'kernel.c')), '-lm'], check=True)
        return ctypes.CDLL(library).run
