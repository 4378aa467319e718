"""The lock files: what they pin is what people are told to install, for every Python we name."""
import os
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from smallSet import REPOSITORY

PYTHONS = ('3.11', '3.12', '3.13', '3.14')
LOCKS = ('requirements-lock-build.txt', 'requirements-lock.txt')
LONG = pytest.mark.skipif(not os.environ.get('LONG'), reason='installs all packages: LONG=1 make '
                          'test TESTS=tests/engine/test_lock.py')


def asked(*names):
    """The requirements in files for people, those that they include too."""
    for name in names:
        for line in (REPOSITORY / name).read_text().splitlines():
            line = line.partition('#')[0].strip()
            if line.startswith('-r '):
                yield from asked(line[3:])
            elif line:
                yield Requirement(line)


def locked(name):
    """[(requirement, its digests)] of a lock file."""
    text = (REPOSITORY / name).read_text().replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line and line.lstrip()[0] != '#']
    return [(Requirement(line.partition('--hash')[0]),
             re.findall(r'--hash=sha256:([0-9a-f]{64})', line)) for line in lines]


@pytest.mark.parametrize('python', PYTHONS)
def test_each_python_gets_one_version_of_all_that_is_asked_for(python):
    environment = {'python_version': python, 'python_full_version': python + '.0'}
    for name, sources in zip(LOCKS, (
            ['requirements-build.txt'],
            ['requirements-build.txt', 'requirements.txt', 'requirements-test.txt'])):
        pins = {}
        for pin, digests in locked(name):
            assert digests, f'{pin} has no digest'
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in pins
                [version] = pin.specifier
                assert version.operator == '=='
                pins[pin.name] = version.version
        for wanted in asked(*sources):
            assert wanted.specifier.contains(pins[wanted.name]), f'{wanted}; run: make lock'


def test_chainer_is_built_with_what_the_other_file_pins_too():
    pins = [str(pin) for pin, _ in locked('requirements-lock.txt')]
    assert {str(pin) for pin, _ in locked('requirements-lock-build.txt')} <= set(pins)


@LONG
@pytest.mark.parametrize('tool', ['pip', 'uv'])
def test_a_new_environment_runs_a_stage(tool, tmp_path):
    python = tmp_path / 'venv/bin/python'
    if tool == 'uv':
        uv = shutil.which('uv') or REPOSITORY / '.venv-uv/bin/uv'
        if not os.path.exists(uv):
            pytest.skip('no uv: make lock fetches it')
        lines = [[uv, 'venv', '--python', sys.executable, tmp_path / 'venv'],
                 [uv, 'pip', 'install', '--python', python, '--build-constraints', LOCKS[0],
                  '-r', LOCKS[1]]]
    else:
        install = [python, '-m', 'pip', 'install', '--require-hashes']
        lines = [[sys.executable, '-m', 'venv', tmp_path / 'venv'], [*install, '-r', LOCKS[0]],
                 [*install, '--no-build-isolation', '-r', LOCKS[1]]]
    for line in (*lines, [python, 'demo.py', 'clips', '--tiny', '--root', tmp_path / 'demo'],
                 [python, 'demo.py', 'pretrain', '--tiny', '--root', tmp_path / 'demo'],
                 [python, 'frameBasedTrain.py', '--tiny', '--root', tmp_path / 'demo']):
        done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
