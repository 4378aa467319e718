"""What the tests of several stages share; `split` and `put` are of makeSplit.py's."""
import os
import sys

import pytest

import makeSplit


@pytest.fixture
def call_in(monkeypatch):
    """Runs a stage with --root in this process; returns its exit code."""
    def run(root, stage, *flags):
        monkeypatch.setattr(sys, 'argv', [stage.__name__ + '.py', *map(str, flags), '--root',
                                          str(root)])
        return stage.main() or 0
    return run


@pytest.fixture
def split(tmp_path, monkeypatch, capsys):
    """Runs the script in this process on tmp_path/clips; returns (root, what it printed)."""
    def split(*flags, root='root'):
        monkeypatch.setattr('sys.argv', ['makeSplit.py', '--root', str(tmp_path / root), '--clips',
                                         str(tmp_path / 'clips'), *map(str, flags)])
        sys.stdout.reconfigure(errors='backslashreplace')  # as stage.run does
        assert makeSplit.main() == split.code
        return tmp_path / root, capsys.readouterr().out
    split.code = None
    return split


@pytest.fixture
def put(tmp_path):
    """Writes files below tmp_path/clips, no two with the same bytes unless told."""
    def put(*names, data=None):
        for name in names:
            path = tmp_path / 'clips' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name) if data is None else data)
        return tmp_path / 'clips'
    return put
