"""engine.stage.run: what a stage ends with when its output, or what it prints, is odd."""
import os
import signal
import subprocess
import sys
import types

import imageio_ffmpeg
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from engine import stage
from engine.errors import UserError
from engine.video.decode import count_frames
from smallSet import REPOSITORY, run_stage

# A stage that prints, then works; what it does is told by its flag.
STAGE = '''
import argparse, signal, sys, threading
from engine import stage
from engine.errors import DecoderKilled, UserError
from engine.files import replacing

def main():
    parser = argparse.ArgumentParser(description='words ' * 20000)
    parser.add_argument('how')
    how = parser.parse_args().how
    if how == 'at the end':
        print('result')
    elif how == 'while it works':
        for step in range(100000):
            print('step', step, flush=True)
    elif how == 'in a thread':
        thread = threading.Thread(target=lambda: [print('x' * 100000) for _ in range(9)])
        thread.start()
        thread.join()
    elif how == 'while a file is open':
        with replacing(sys.argv[0] + 'made'):
            for step in range(100000):
                print('step', step, flush=True)
    elif how == 'but for some clips':
        print('1 clip failed', flush=True)
        return 3
    elif how.startswith('SIG'):
        threading.Timer(0.2, signal.raise_signal, (getattr(signal, how),)).start()
        raise DecoderKilled('a.avi: ffmpeg was stopped from outside')
    elif how == 'no folder':
        open(sys.argv[0] + '/no/folder', 'w')
    elif how == 'and an error':
        raise UserError('clips: not there')
stage.run(main)
'''
NOWHERE = {'closed': 141, '/dev/full': 1}


def run_into(where, *command, **options):
    """Runs a command with its output into a pipe that nobody reads, or into a file."""
    if where == 'closed':
        reading, output = os.pipe()
        os.close(reading)
    else:
        output = os.open(where, os.O_WRONLY)
    try:
        return subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, stdout=output,
                              stderr=subprocess.PIPE, text=True, timeout=60, **options)
    finally:
        os.close(output)


@pytest.mark.parametrize('where', NOWHERE)
@pytest.mark.parametrize('how', ['at the end', 'while it works', 'in a thread', '--help',
                                 'while a file is open', 'but for some clips'])
def test_output_that_fails_never_ends_a_stage_with_0(where, how):
    done = run_into(where, '-c', STAGE, how)
    assert done.returncode == NOWHERE[where]
    if how != 'in a thread':  # Python's own words about it
        assert done.stderr.count('\n') == 1 and 'the same command goes on' in done.stderr


def test_a_link_to_itself_is_one_line(tmp_path):
    (tmp_path / 'loop').symlink_to('loop')
    done = run_stage('makeSplit.py', '--clips', tmp_path / 'loop', '--root', tmp_path)
    assert done.returncode == 1 and done.stderr.startswith('error: ')
    assert done.stderr.count('\n') == 1 and f'{tmp_path}/loop' in done.stderr


def test_what_the_system_refuses_is_one_line(tmp_path):
    (tmp_path / 'script.py').write_text(STAGE)
    done = subprocess.run([sys.executable, tmp_path / 'script.py', 'no folder'], cwd=REPOSITORY,
                          env={**os.environ, 'PYTHONPATH': str(REPOSITORY)}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (f'error: {tmp_path}/script.py/no/folder: Not a directory; see to that, '
                           'then run the command again\n')


OF_CUPY = 'cupy_backends.cuda.api.runtime', 'CUDARuntimeError', RuntimeError


@pytest.mark.parametrize('module, name, base, text, says', [
    ('cupy.cuda.memory', 'OutOfMemoryError', MemoryError, 'Out of memory allocating 512 bytes',
     'lower --batch'),
    (*OF_CUPY, 'cudaErrorMemoryAllocation: out of memory', 'lower --batch'),
    (*OF_CUPY, 'cudaErrorIllegalAddress: an illegal memory access', 'bench.gpu --check'),
])
def test_an_error_of_a_gpu_is_one_line(module, name, base, text, says):
    script = f"""
from engine import stage
def main():
    raise type({name!r}, ({base.__name__},), {{'__module__': {module!r}}})({text!r})
stage.run(main)"""
    done = subprocess.run([sys.executable, '-c', script], cwd=REPOSITORY, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: ') and text in done.stderr and says in done.stderr


def test_a_card_that_others_have_filled_is_one_line(monkeypatch):
    class Busy:
        def use(self):
            raise RuntimeError('cudaErrorMemoryAllocation: out of memory')
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    monkeypatch.setitem(sys.modules, 'cupy', types.SimpleNamespace(
        cuda=types.SimpleNamespace(runtime=runtime)))
    monkeypatch.setattr(chainer.backends.cuda, 'check_cuda_available', lambda: None)
    monkeypatch.setattr(chainer, 'get_device', lambda name: Busy())
    with pytest.raises(UserError, match='--device 0: .*out of memory.*nvidia-smi'):
        stage.get_device('0')


def test_without_ffmpeg_a_video_is_not_read_and_one_line_says_why(monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, 'get_ffmpeg_exe', raiser(RuntimeError('No ffmpeg exe.')))
    with pytest.raises(UserError, match='No ffmpeg exe.*requirements.txt'):
        count_frames('a.avi')


def raiser(error):
    def fails(*args):
        raise error
    return fails


@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 143), ('SIGHUP', 129),
                                        ('SIGCONT', 1)])
def test_a_signal_that_reaches_ffmpeg_first_is_told_as_what_it_is(name, code):
    done = subprocess.run([sys.executable, '-c', STAGE, name], cwd=REPOSITORY, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == code and done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: a.avi' if code == 1 else 'stopped by ')


SIGNALLED = '''
import os, signal, sys, time, weakref
from engine import files, stage

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

def cut_as_it_opens(*args):
    handle = real(*args)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    return handle

def main():
    global real
    if sys.argv[1] == 'in a finalizer':
        Finalized()
        time.sleep(9)
    elif sys.argv[1] == 'as a file is made':
        real, os.open = os.open, cut_as_it_opens
        with files.replacing(sys.argv[2] + '/x'):
            pass
    else:
        with stage.uncut():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            print('whole', flush=True)
        print('not reached')
stage.run(main)
'''


@pytest.mark.parametrize('when, output, says', [
    ('in a finalizer', '', 'stopped in the middle of work'),
    ('as a file is made', '', 'stopped by SIGTERM'),
    ('where it must wait', 'whole\n', 'stopped by SIGTERM')])
def test_a_signal_at_an_odd_moment_leaves_nothing_and_says_one_line(tmp_path, when, output, says):
    done = subprocess.run([sys.executable, '-c', SIGNALLED, when, tmp_path], cwd=REPOSITORY,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and done.stdout == output
    assert done.stderr.startswith(says) and done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_what_nohup_lets_a_stage_ignore_stays_ignored():
    done = subprocess.run(['nohup', sys.executable, '-c', STAGE, 'SIGHUP'], cwd=REPOSITORY,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith('error: a.avi')


def test_a_stages_own_error_comes_before_that_of_its_output():
    done = run_into('/dev/full', '-c', STAGE, 'and an error')
    assert (done.returncode, done.stderr) == (1, 'error: clips: not there\n')


@pytest.mark.parametrize('flags', [(), ('-u',)])
def test_closed_streams_are_no_reason_to_fail(flags):
    code = STAGE.replace("print('result')", "open('/dev/null').read(); print('result', "
                         "sys.stdout.isatty()); print('said', file=sys.stderr)")
    done = subprocess.run(['sh', '-c', '"$@" <&- >&- 2>&-', 'sh', sys.executable, *flags, '-c',
                           code, 'at the end'], cwd=REPOSITORY, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize('environment', [
    {'PYTHONIOENCODING': 'ascii'}, {'PYTHONIOENCODING': 'latin-1'}, {'PYTHONIOENCODING': 'utf-8'},
    {'LC_ALL': 'POSIX', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}])
def test_every_character_can_be_printed(environment):
    code = STAGE.replace("'clips: not there'", r"'clips \u4e2d \xe9 \udce9'").replace(
        "if how == 'at the end':", r"print('\u4e2d \xe9 \udce9')" '\n    if 0:')
    done = subprocess.run([sys.executable, '-c', code, 'and an error'], cwd=REPOSITORY,
                          env={**os.environ, **environment}, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout.startswith(rb'\u4e2d') or done.stdout.startswith('\u4e2d'.encode())
    assert done.stderr.startswith(b'error: clips ') and done.stderr.count(b'\n') == 1
    assert done.stdout.endswith(b' \xe9\n')  # the name's own byte


def test_what_utf_16_cannot_hold_can_be_printed():
    code = STAGE.replace("print('result')", r"print('\u4e2d \udce9')")
    done = subprocess.run([sys.executable, '-c', code, 'at the end'], cwd=REPOSITORY, timeout=60,
                          env={**os.environ, 'PYTHONIOENCODING': 'utf-16'}, capture_output=True)
    assert done.returncode == 0 and done.stdout.decode('utf-16') == '\u4e2d \\udce9\n'


def test_names_are_utf_8_whatever_the_locale(tmp_path):
    lists = tmp_path / 'ucfTrainTestlist'
    lists.mkdir()
    (lists / 'classInd.txt').write_text('1 \xe9\n2 b\n', encoding='utf-8')
    for name, clip in (('train', '\xe9/v_\xe9_g01_c01.avi'), ('test', 'b/v_\u4e2d_g02_c01.avi')):
        (lists / f'{name}list01.txt').write_text(f'{clip}\n', encoding='utf-8')
        (tmp_path / 'UCF-101' / clip).parent.mkdir(parents=True)
        (tmp_path / 'UCF-101' / clip).write_text('no video')
    done = subprocess.run([sys.executable, REPOSITORY / 'opticalFlow.py', '1', '--parts', '1',
                           '--root', tmp_path], capture_output=True, timeout=60, env={
        **os.environ, 'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'})
    assert (done.returncode, done.stderr) == (3, b'')
    assert b'2 failed' in done.stdout and b'_\\xe9_g01_c01.avi: ' in done.stdout


def test_a_training_whose_reader_has_gone_has_made_no_model(undisturbed, tmp_path):
    for name in ('train1024.hdf5', 'test1024.hdf5', 'ucfTrainTestlist'):
        (tmp_path / name).symlink_to(undisturbed / name)
    done = run_into('closed', REPOSITORY / 'rnn.py', '--tiny', '--root', tmp_path)
    assert done.returncode == 141 and 'the same command goes on' in done.stderr
    assert not (tmp_path / 'RNN.model').exists()
    assert run_stage('rnn.py', '--tiny', '--root', tmp_path).returncode == 0


def test_ctrl_c_while_a_script_imports_shows_no_traceback(tmp_path):
    """It comes with NumPy's first line, which a stand-in for NumPy is."""
    (tmp_path / 'numpy.py').write_text(
        'import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)')
    scripts = {path.name: subprocess.Popen(
        [sys.executable, path], env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        stderr=subprocess.PIPE, text=True)
        for path in sorted(REPOSITORY.glob('*.py'))}
    told = {name: process.communicate(timeout=60)[1] for name, process in scripts.items()}
    assert not {name: text for name, text in told.items() if text}
    assert {process.returncode for process in scripts.values()} == {-signal.SIGINT}


@pytest.mark.parametrize('writes', ['', ': >'])
def test_make_marks_nothing_as_done_that_is_not_there(writes, tmp_path):
    """A stage that claims success without its file, or with an empty one, ends make."""
    python, root = tmp_path / 'venv/bin/python', tmp_path / 'demo'
    python.parent.mkdir(parents=True)
    made = f'{writes} {root}/ucfTrainTestlist/testlist01.txt' if writes else ':'
    python.write_text(f'#!/bin/sh\nmkdir -p {root}/ucfTrainTestlist\n{made}\n')
    python.chmod(0o755)
    (tmp_path / 'venv/ready').write_text('')
    done = subprocess.run(['make', 'demo', f'VENV={tmp_path}/venv', f'DEMO={root}'],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode and 'testlist01.txt was not written' in done.stderr
    assert not (root / 'VGG.model').exists()


@pytest.mark.parametrize('fails, step, reason', [
    ('-m venv', 'python -m venv', 'Error: no ensurepip; apt install python3-venv'),
    ('lock-build', 'pip install -r requirements-lock-build.txt', 'ERROR: no network'),
    ('lock.txt', 'pip install -r requirements-lock.txt', 'ERROR: THESE PACKAGES DO NOT MATCH')])
def test_make_names_the_step_of_the_set_up_that_failed_and_keeps_its_log(tmp_path, fails, step,
                                                                         reason):
    """A stand-in for Python makes the environment and fails at one step."""
    venv = tmp_path / 'venv'
    python = tmp_path / 'python3.12'
    python.write_text(f'''#!/bin/sh
case "$*" in
    "-m venv"*) mkdir -p {venv}/bin; cp "$0" {venv}/bin/python ;;
    "-m pip --version") exit 1 ;;
    -c*print*) echo 3.12.0 ;;
    -c*) exit 0 ;;
esac
case "$*" in *"{fails}"*) echo "working on it"; echo "{reason}" >&2; echo "more"; exit 2 ;; esac
''')
    python.chmod(0o755)
    done = subprocess.run(['make', 'test', f'PYTHON={python}', f'VENV={venv}'], cwd=REPOSITORY,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert (f'error: setting up {venv} failed at "{step}": {reason}; all that was said: '
            f'{venv}/setup.log\n') in done.stderr
    assert 'working on it' in (venv / 'setup.log').read_text()
    assert not (venv / 'ready').exists()


def test_settings_are_printed_within_80_columns(capsys):
    settings = {f'setting_{i}': i for i in range(40)}
    stage.print_settings(types.SimpleNamespace(**settings, function=print))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert max(map(len, lines)) <= 80 and len(lines) > 1
    assert dict(word.split('=') for word in ' '.join(lines).split()) == {
        key: str(value) for key, value in settings.items()}
