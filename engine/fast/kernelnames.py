"""What computes on this machine, in words: another kernel's numbers differ in their last digits."""
import numpy
from threadpoolctl import threadpool_info

from engine import usable_cores
from engine.progress import number_of


def in_words(xp, **special):
    """'convolutions: compiled, AVX-512, gcc 12.2; products: OpenBLAS 0.3.31, SkylakeX; 2 threads'.

    Args:
        xp: numpy, or cupy where a network is on a GPU.
        special: {'convolutions' or such: name of the kernel that has them}.
    """
    words = [f'{what}: {name}' for what, name in special.items()]
    if xp is numpy:
        words += [f'products: {_blas()}', number_of(usable_cores(), 'thread')]
    else:
        words += [f'products: CuPy {xp.__version__}', _gpu(xp)]
    return '; '.join(words)


def _blas():
    """NumPy's, and for which CPU it has chosen its way."""
    found = [library for library in threadpool_info() if library['user_api'] == 'blas']
    # SciPy and others bring one of their own.
    found.sort(key=lambda library: 'numpy' not in library['filepath'])
    if not found:
        return "NumPy's BLAS"
    name = {'openblas': 'OpenBLAS', 'mkl': 'MKL'}.get(found[0]['internal_api'], 'BLAS')
    return f'{name} {found[0].get("version")}, {found[0].get("architecture", "any CPU")}'


def _gpu(xp):
    name = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)['name']
    return name.decode() if isinstance(name, bytes) else str(name)
