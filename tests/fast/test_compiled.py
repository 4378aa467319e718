"""The cache of compiled kernels: what is built, found, mistrusted, and what stands in."""
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy
import pytest

from engine.errors import UserError
from engine.fast import compiled, conv

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPILER = compiled.load('recurrent')[1]
pytestmark = pytest.mark.skipif(compiled.load('recurrent')[0] is None,
                                reason=f'no compiled kernel: {COMPILER}')
load = compiled.load.__wrapped__  # which remembers nothing


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A cache with one library in it, as it was built."""
    cache = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(cache))
        patch.delenv('CC', raising=False)
        assert load('recurrent')[0]
    return cache


@pytest.fixture
def cache(whole, tmp_path, monkeypatch):
    """A copy of it to spoil, and nowhere else to put anything."""
    there = tmp_path / 'cache'
    shutil.copytree(whole, there)
    monkeypatch.setenv('XDG_CACHE_HOME', str(there))
    monkeypatch.delenv('CC', raising=False)
    folders = list(compiled._folders())
    (tmp_path / 'private').mkdir(mode=0o700)
    monkeypatch.setattr(compiled, '_folders', lambda: [folders[0], tmp_path / 'private'])
    return there / compiled.CACHE


def library_in(folder):
    found, = folder.glob('*.so')
    return found


@pytest.fixture
def builds(monkeypatch, whole):
    """The folders that something was built for; a copy of the whole library does for a build."""
    seen = []
    real = compiled._build

    def build(source, stem, folder=None):
        seen.append(folder)
        return real(source, stem, folder)

    def copy(command, source, target):
        shutil.copy(library_in(whole / compiled.CACHE), target)
    monkeypatch.setattr(compiled, '_build', build)
    monkeypatch.setattr(compiled, '_compile_by', copy)
    return seen


def test_what_is_there_is_taken_without_a_compiler(cache, builds, monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert load('recurrent')[1] == COMPILER and builds == []
    # nor must it be the one of CC
    monkeypatch.setenv('CC', '/opt/no/such/cc')
    assert load('recurrent')[1] == COMPILER
    library_in(cache).unlink()
    assert load('recurrent') == (
        None, "no C compiler (CC is '/opt/no/such/cc', which is not there)")
    monkeypatch.delenv('CC')
    assert load('recurrent') == (None, 'no C compiler (cc, gcc, clang)')


def empty(path):
    path.write_bytes(b'')


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def zeros(path):
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:half] + bytes(half))


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def for_all(path):
    path.chmod(0o666)


def elsewhere(path):
    path.rename(path.parent.parent / 'moved')
    path.symlink_to(path.parent.parent / 'moved')


def anothers(path):
    os.chown(path, 12345, 12345)


AS_ROOT = pytest.param(anothers, marks=pytest.mark.skipif(os.geteuid() != 0, reason='not root'))


@pytest.mark.parametrize('spoil', [empty, cut, zeros, one_bit, for_all, elsewhere, AS_ROOT])
def test_a_damaged_or_foreign_library_is_built_again(cache, builds, spoil):
    content = library_in(cache).read_bytes()
    spoil(library_in(cache))
    assert load('recurrent')[1] == COMPILER and builds == [cache]
    assert library_in(cache).read_bytes() == content
    assert load('recurrent')[1] == COMPILER and builds == [cache]  # healed


@pytest.mark.parametrize('spoil', [lambda folder: folder.chmod(0o777), AS_ROOT, elsewhere])
def test_a_folder_that_others_may_write_to_is_left_alone(cache, builds, tmp_path, spoil):
    before = library_in(cache)
    spoil(cache)
    assert load('recurrent')[1] == COMPILER and builds == [tmp_path / 'private']
    assert load('recurrent')[1] == COMPILER and len(builds) == 1
    assert library_in(cache).name == before.name


def test_each_kind_of_cpu_has_its_own(cache, builds, monkeypatch):
    monkeypatch.setattr(compiled, '_cpu', lambda: 'another')
    assert load('recurrent')[1] == COMPILER and builds == [cache]
    monkeypatch.undo()
    assert len(list(cache.glob('*.so'))) == 2


def test_what_this_cpu_cannot_run_is_not_taken(cache, builds, tmp_path):
    """Though a system's word about its CPU is the same."""
    source = tmp_path / 'other.c'
    source.write_text('int supported(void) { return 0; }\nchar *kernel(void) { return "bad"; }\n')
    found = library_in(cache)
    stem = found.stem.rpartition('-')[0]
    found.unlink()
    subprocess.run(['cc', '-shared', '-fPIC', '-o', tmp_path / 'other.so', source], check=True)
    digest = compiled.hashlib.sha256((tmp_path / 'other.so').read_bytes()).hexdigest()[:24]
    shutil.copy(tmp_path / 'other.so', cache / f'{stem}-{digest}.so')
    assert load('recurrent')[1] == COMPILER and builds == [cache]


@pytest.mark.parametrize('trouble', ['none', 'noexec', 'full', 'file'])
def test_a_cache_of_no_use_gives_way_to_a_private_folder(cache, builds, tmp_path, monkeypatch,
                                                         trouble):
    library_in(cache).unlink()
    private, limits = tmp_path / 'private', resource.getrlimit(resource.RLIMIT_FSIZE)
    if trouble == 'noexec':
        monkeypatch.setattr(compiled, '_runs_programs', lambda folder: folder != cache)
    elif trouble == 'file':
        shutil.rmtree(cache.parent)
        cache.parent.write_text('')
    elif trouble == 'full':  # of which a file that may not grow so large is the nearest thing
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        assert load('recurrent')[1] == COMPILER
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert builds == [{'none': cache, 'full': None}.get(trouble, private)]
    assert [path for path in cache.glob('.*')] == []


def test_nowhere_to_run_programs(cache, monkeypatch):
    library_in(cache).unlink()
    monkeypatch.setattr(compiled, '_runs_programs', lambda folder: False)
    assert load('recurrent') == (None, 'no folder where a library could be kept and run')


def test_no_home_and_a_relative_cache(monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', 'here')
    monkeypatch.setenv('HOME', '/home/me')
    assert next(compiled._folders()) == pathlib.Path('/home/me/.cache', compiled.CACHE)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # for a user without a name
    assert all(folder.is_absolute() and f'-{os.geteuid()}' in folder.name
               for folder in compiled._folders())


def script(folder, name, text):
    path = folder / name
    path.write_bytes(b'#!/bin/sh\n' + text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize('text', [
    b'printf "gcc: Fehler: \\344\\377\\n" >&2; exit 1', b'exit 0', b'kill -SEGV $$'])
def test_a_broken_compiler_beside_a_good_one(cache, tmp_path, monkeypatch, capfd, text):
    broken = script(tmp_path, 'broken', text)
    monkeypatch.setenv('CC', str(broken))
    real = compiled._compile_by

    def by(command, source, target):
        if command[0] != str(broken):
            shutil.copy(library_in(cache), target)
            return None
        return real(command, source, target)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, '_compile_by', by)
        assert load('recurrent')[1] == COMPILER
    line, = capfd.readouterr().err.splitlines()
    assert line.startswith(f'recurrent.c: {broken} ') and 'built by cc' in line
    # It is remembered what serves in place of this CC.
    monkeypatch.setenv('PATH', '')
    assert load('recurrent')[1] == COMPILER and capfd.readouterr().err == ''


def test_a_compiler_that_hangs(cache, tmp_path, monkeypatch):
    library_in(cache).unlink()
    monkeypatch.setenv('PATH', '')
    monkeypatch.setenv('CC', str(script(tmp_path, 'slow', b'exec /bin/sleep 100')))
    monkeypatch.setattr(compiled, 'BUILD_SECONDS', 0.2)
    assert load('recurrent') == (None, f'{tmp_path}/slow was not done after 0.2 s')


def test_an_instruction_that_the_cpu_lacks_is_met_in_another_process(cache, tmp_path, monkeypatch,
                                                                     capfd):
    """Here a trap, in what is built for the CPU as its compiler sees it."""
    library_in(cache).unlink()
    trap = tmp_path / 'trap.h'
    trap.write_text('__attribute__((constructor)) static void trap(void) { __builtin_trap(); }\n')
    monkeypatch.setenv('CC', str(script(
        tmp_path, 'eager', b'case "$*" in *=native*) set -- "$@" -include %s;; esac\nexec cc "$@"'
        % str(trap).encode())))
    library, name = load('recurrent')
    assert library and name and name != COMPILER
    line, = capfd.readouterr().err.splitlines()
    assert 'SIGILL' in line or 'SIGTRAP' in line


SCRIPT = '''
from engine.fast import conv
import numpy
w = numpy.arange(8 * 3 * 9).reshape(8, 3, 3, 3).astype('f') % 7 - 3
x = numpy.arange(5 * 6 * 3).reshape(1, 5, 6, 3).astype('f')
stack = conv.ConvStack([(w, None, True)])
print(stack.kernel)
print(float(stack(x).sum()))
'''


def start(cache, **environment):
    environment = {**os.environ, 'XDG_CACHE_HOME': str(cache), 'ENGINE_CONV': '', **environment}
    return subprocess.Popen([sys.executable, '-c', SCRIPT], cwd=ROOT, env=environment,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    out, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    kernel, total = out.splitlines()
    return kernel, float(total)


def test_two_processes_may_build_at_once(tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    (kernel, total), second = finish(both[0]), finish(both[1])
    assert kernel == f'compiled, {COMPILER}' and second == (kernel, total)

    built = library_in(tmp_path / compiled.CACHE)
    before = built.stat().st_mtime_ns
    assert finish(start(tmp_path, PATH='')) == (kernel, total)
    assert built.stat().st_mtime_ns == before
    assert total == pytest.approx(finish(start(tmp_path, ENGINE_CONV='numpy'))[1])


def test_without_a_compiler_numpy_steps_in_and_says_so(monkeypatch):
    layers = [(numpy.ones((8, 3, 3, 3), 'f'), None, True)]
    x = numpy.random.default_rng(0).normal(0, 1, (1, 5, 6, 3)).astype('f')
    expected = conv.ConvStack(layers, compiled=False)(x)
    monkeypatch.setattr(compiled, 'load', lambda name: (None, 'no C compiler (cc)'))
    stack = conv.ConvStack(layers)
    assert stack.kernel == 'numpy (no C compiler (cc))'
    assert numpy.array_equal(stack(x), expected)
    monkeypatch.setenv('ENGINE_CONV', 'numpy')
    assert conv.ConvStack(layers).kernel == 'numpy'
    monkeypatch.setenv('ENGINE_CONV', 'compiled')
    with pytest.raises(UserError, match='winograd.c is not to be had: no C compiler'):
        conv.ConvStack(layers)
    with pytest.raises(RuntimeError, match='winograd.c is not to be had: no C compiler'):
        conv.ConvStack(layers, compiled=True)
