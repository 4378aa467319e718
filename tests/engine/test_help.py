"""--help of every script comes without the packages that take long to import."""
import importlib.util
import os
import subprocess
import sys

import pytest

from smallSet import REPOSITORY

SCRIPTS = sorted(path.name for path in REPOSITORY.glob('*.py')
                 if '__main__' in path.read_text(encoding='utf-8'))
# These have no network, nor read a model.
WITHOUT_CHAINER = ['confusion.py', 'eventAccuracy.py', 'generate_pbs.py', 'importFeatures.py',
                   'normalizeData.py', 'opticalFlow.py']
ASK = '''
import contextlib, io, runpy, sys
for script in sys.argv[1:]:
    sys.argv[:] = [script, '--help']
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name='__main__')
    assert text.getvalue().startswith(f'usage: {script}'), script
print(*{name.partition('.')[0] for name in sys.modules})
'''


@pytest.mark.parametrize('scripts, others', [(WITHOUT_CHAINER, {'chainer'}), (SCRIPTS, set())])
def test_help_imports_little(scripts, others):
    if not others and importlib.util.find_spec('cupy'):
        pytest.skip('Chainer imports CuPy where it is, and that SciPy')
    done = subprocess.run([sys.executable, '-c', ASK, *scripts], cwd=REPOSITORY, text=True,
                          capture_output=True, timeout=120, env=dict(os.environ, COLUMNS='80'))
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert 'argparse' in found and len(scripts) > 5
    assert not found & {'scipy', 'sklearn', 'matplotlib', 'cupy', 'onnx', *others}
