"""C sources beside this module, compiled on first use by the machine's own compiler.

A library is kept in ``$XDG_CACHE_HOME`` (or ``~/.cache``), a file for each source, kind of CPU and
``CC``, so that machines that share a home do not share what only some of them can run. Its name
ends in its own SHA-256: what is damaged is built again. So is what belongs to somebody else, or
what others may write to. Where nothing can be kept or run there (no home, a full disk, noexec) a
private folder in the place for temporary files serves.

A library that is there needs no compiler. To build one, the first serves of ``CC``, cc, gcc and
clang that can; before the library gets its name it has computed in a process of its own
(engine/fast/selftest.py), where an instruction that the CPU lacks does no harm. Whoever loads a
library must have a slower way in NumPy, for machines without a compiler.
"""
import ctypes
import functools
import hashlib
import itertools
import os
import pathlib
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import numpy

from engine.errors import UserError
from engine.files import put

CACHE = 'ucf101-chainer'
COMPILERS = ('cc', 'gcc', 'clang')
FLAGS = ['-std=gnu11', '-O3', '-ffp-contract=fast', '-fPIC', '-shared', '-pthread']
# What is fused must not hang on how many frames there are: gcc from 13 on leaves some products and
# sums apart where it tunes for newer CPUs. Clang on some machines knows only the third of these;
# the last always builds, for the plainest CPU.
FUSED = '--param=avoid-fma-max-bits=0'
CPU_FLAGS = [['-march=native', FUSED], ['-march=native'], ['-mcpu=native'], []]
BUILD_BYTES, BUILD_SECONDS = 2 << 20, 180  # that a build may take
SELFTEST = '''import sys
sys.path.insert(0, sys.argv[1])
from engine.fast import selftest
selftest.main(*sys.argv[2:])'''


class BuildError(Exception):
    """Why there is no library, in a few words."""


# ---- which library ---------------------------------------------------------------------------

def _digest(*parts):
    return hashlib.sha256('\0'.join(parts).encode('utf-8', 'surrogateescape')).hexdigest()


def _cpu():
    """What decides the instructions that ``native`` means: one text for each kind of CPU."""
    about = [platform.system(), platform.machine()]
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return ' '.join(about + [platform.processor(), platform.node()])
    for key in ('model name', 'CPU part', 'flags', 'Features'):
        about += sorted({line for line in lines if line.split(':')[0].strip() == key})
    return ' '.join(about)


def _folders():
    """Where libraries may be kept, the best first."""
    caches = os.environ.get('XDG_CACHE_HOME', ''), os.path.expanduser('~/.cache')
    for cache in caches:
        if os.path.isabs(cache):  # there may be no home
            yield pathlib.Path(cache, CACHE)
            break
    for temporary in dict.fromkeys((tempfile.gettempdir(), '/tmp', '/var/tmp')):
        yield pathlib.Path(temporary, f'{CACHE}-{os.geteuid()}')


def _ours(path):
    """Whether nobody else can have put there, or changed, what is under this name."""
    try:
        about = os.lstat(path)
    except OSError:
        return False
    kind = stat.S_IFMT(about.st_mode)
    return (kind in (stat.S_IFDIR, stat.S_IFREG) and about.st_uid in (0, os.geteuid())
            and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _find(folder, stem):
    """The first library of such a name that may be run, as `load` gives it, or None."""
    for path in sorted(folder.glob(f'{stem}-*.so')) if _ours(folder) else ():
        try:
            whole = _ours(path) and path.stem.endswith(
                hashlib.sha256(path.read_bytes()).hexdigest()[:24])
            if whole and (found := open_library(path)):
                return found
        except OSError:  # not to be read, or a file system that runs nothing
            continue
    return None


def open_library(path):
    """(ctypes.CDLL, its kernel's name), or None if this CPU lacks an instruction."""
    library = ctypes.CDLL(str(path))
    library.kernel.restype = ctypes.c_char_p
    return (library, library.kernel().decode()) if library.supported() else None


# ---- building --------------------------------------------------------------------------------

def _call(command):
    """Runs a program; returns None, or why it failed in a few words."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=BUILD_SECONDS)
    except OSError as error:
        return error.strerror
    if done.returncode < 0:
        return f'ended by {signal.Signals(-done.returncode).name}'
    if done.returncode:
        lines = done.stderr.decode('utf-8', 'replace').strip().splitlines()
        return lines[0 if command[0] != sys.executable else -1] if lines else 'no message'
    return None


def _compilers():
    """Commands, as lists, of those that are there; and why CC is not, or None."""
    wish, amiss = os.environ.get('CC', ''), None
    try:
        first = shlex.split(wish)
        if first and not shutil.which(first[0]):
            amiss = f'CC is {wish!r}, which is not there'
    except ValueError as error:
        first, amiss = [], f'CC is {wish!r} ({error})'
    commands = [first] * (amiss is None and bool(first))
    commands += [[name] for name in COMPILERS if shutil.which(name) and [name] != first]
    return commands, amiss


def _compile(source, target):
    """Makes target of source with the first compiler whose library passes its test."""
    commands, reason = _compilers()
    if not commands:
        raise BuildError(f'no C compiler ({reason or ", ".join(COMPILERS)})')
    for command in commands:
        try:
            for cpu_flags in CPU_FLAGS:
                amiss = _compile_by(command + cpu_flags, source, target)
                if amiss is None:
                    if reason:
                        print(f'{source.name}: {reason}; built by '
                              f'{shlex.join(command + cpu_flags)}', file=sys.stderr)
                    return
                reason = reason or f'{command[0]} {amiss}'
        except subprocess.TimeoutExpired:
            reason = reason or f'{command[0]} was not done after {BUILD_SECONDS} s'
    raise BuildError(reason)


def _compile_by(command, source, target):
    """None, or why there is no library that computes."""
    if amiss := _call([*command, *FLAGS, '-o', str(target), str(source)]):
        return f'failed: {amiss}'
    amiss = _call([sys.executable, '-c', SELFTEST, str(source.parents[2]), source.stem,
                   str(target)])
    return amiss and f'built a {source.stem} that fails: {amiss}'


def _takes_libraries(folder):
    """Makes a folder; whether there is room to build in, and whether what is there may run."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True, mode=0o700)
        if not _ours(folder) or not _runs_programs(folder):
            return False
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(BUILD_BYTES))
        return True
    except OSError:
        return False


def _runs_programs(folder):
    return not os.statvfs(folder).f_flag & getattr(os, 'ST_NOEXEC', 0)


def _build(source, stem, folder=None):
    """Builds a library under a name that begins so; returns it as `load` does.

    Where there is no folder to keep it in, it lasts as long as this process.
    """
    if folder is None and not _runs_programs(tempfile.gettempdir()):
        raise BuildError('no folder where a library could be kept and run')
    with tempfile.TemporaryDirectory(prefix='.build-', dir=folder) as there:
        built = pathlib.Path(there, source.stem)
        _compile(source, built)
        os.chmod(built, 0o700)
        name = f'{stem}-{hashlib.sha256(built.read_bytes()).hexdigest()[:24]}.so'
        target = pathlib.Path(folder or there, name)
        put(built, target)
        return open_library(target)


@functools.lru_cache(maxsize=None)
def load(name):
    """Loads the library made of ``engine/fast/<name>.c``, building it where there is none yet.

    Returns:
        (ctypes.CDLL, for what and by what it was compiled), or (None, why there is no library).
    """
    source = pathlib.Path(__file__).with_name(f'{name}.c')
    headers = sorted(source.parent.glob('*.h'))
    key = _digest(*(path.read_text() for path in (source, *headers)), _cpu(), *FLAGS,
                  *itertools.chain(*CPU_FLAGS))
    stem = f'{name}-{key[:24]}'
    wished = f'{stem}-{_digest(os.environ.get("CC", ""))[:8]}'
    try:
        for folder in _folders():
            if found := _find(folder, wished):
                return found
            if _takes_libraries(folder):
                return _build(source, wished, folder)
        return _build(source, wished)
    except (OSError, BuildError) as error:
        # One by another compiler is better than none.
        found = next(filter(None, (_find(folder, stem) for folder in _folders())), None)
        return found or (None, str(error))


def chosen(name, variable, wanted=None):
    """The library of ``engine/fast/<name>.c`` to use, or None for NumPy.

    Args:
        variable: of the environment, that asks for 'compiled' or 'numpy'.
        wanted: True or False ask for one of them whatever the environment says.

    Raises:
        UserError: the environment asks for something else, or for a library that there is none of.
        RuntimeError: `wanted` does.
    """
    wish = os.environ.get(variable, '')
    if wish not in ('', 'compiled', 'numpy'):
        raise UserError(f'{variable} is {wish!r}: give compiled or numpy')
    if wanted is False or wanted is None and wish == 'numpy':
        return None
    library, name_or_reason = load(name)
    reason = f'{name}.c is not to be had: {name_or_reason}'
    if library is None and wanted:
        raise RuntimeError(reason)
    if library is None and wish:
        raise UserError(f'{variable} is {wish!r}, but {reason}; unset it to compute by NumPy')
    return library


def kernel_name(name, variable, wanted=None):
    """What `chosen` gives, for logs: 'compiled, AVX-512, gcc 12.2', 'numpy', or
    'numpy (why there is no compiled kernel)'."""
    if chosen(name, variable, wanted) is not None:
        return f'compiled, {load(name)[1]}'
    asked_for = wanted is False or os.environ.get(variable)
    return 'numpy' if asked_for else f'numpy ({load(name)[1]})'


def plain(array, dtype=numpy.float32):
    """The same numbers of this type (None: of its own) one after the other, as C wants them; the
    array itself where it is so already."""
    return numpy.require(array, dtype, ('C_CONTIGUOUS', 'ALIGNED'))


def address(array, dtype=numpy.float32):
    """Where an array's numbers lie, for a C function that takes them one after the other.

    None is null. Raises ValueError for another type, for strides, and for what is not aligned.
    """
    if array is None:
        return None
    if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.aligned:
        raise ValueError(f'C cannot take {array.dtype} with strides {array.strides} of shape '
                         f'{array.shape}: it wants {numpy.dtype(dtype)}, contiguous')
    return array.ctypes.data
