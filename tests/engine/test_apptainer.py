"""apptainer.def: its steps, run in a bare Debian root as Apptainer would run them."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from smallSet import REPOSITORY

RECIPE = (REPOSITORY / 'apptainer.def').read_text()
BUNDLE = Path('/etc/ssl/certs/ca-certificates.crt')


def section(name):
    return re.search(rf'^%{name}\n(.*?)(?=^%|\Z)', RECIPE, re.M | re.S)[1]


def files():
    return [line.split() for line in section('files').splitlines() if line.strip()]


def test_the_image_is_made_from_the_lock_files_alone():
    assert RECIPE.startswith('Bootstrap: ')
    for source, folder in files():
        assert (REPOSITORY / source).is_file()
        assert f'-r {folder}{source}' in section('post')
    for line in section('post').splitlines():
        if not line.strip().startswith('#') and 'pip install' in line:
            assert '--require-hashes' in line


@pytest.mark.skipif(not os.environ.get('LONG'), reason='installs a Debian: LONG=1 make test '
                    'TESTS=tests/engine/test_apptainer.py')
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('debootstrap'),
                    reason='wants root and debootstrap')
def test_the_steps_of_the_recipe_make_an_environment_that_runs_stages(tmp_path):
    suite = re.search(r'^From: debian:(\w+)', RECIPE, re.M)[1]
    root = tmp_path / 'root'

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run('debootstrap', '--variant=minbase', '--include=ca-certificates', suite, root)
    for path in (Path('/etc/resolv.conf'), Path('/etc/hosts'), BUNDLE):
        if path.exists():  # of this machine, which may reach the network in a way of its own
            shutil.copyfile(path, root / path.relative_to('/'))
    for source, folder in files():
        (root / folder.lstrip('/')).mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / source, root / folder.lstrip('/'))
    shutil.copytree(REPOSITORY / 'engine', root / 'home/code/engine')
    for path in REPOSITORY.glob('*.py'):
        shutil.copy(path, root / 'home/code')
    for name in ('post', 'test'):
        run('chroot', root, '/bin/sh', '-e', '-c', section(name))
    for stage in ('demo.py clips', 'demo.py pretrain', 'frameBasedTrain.py'):
        run('chroot', root, '/bin/sh', '-e', '-c', f'cd /home/code; set -- {stage} --tiny --root '
            f'/tmp/demo; {section("environment")} {section("runscript")}')
