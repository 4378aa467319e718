"""engine/files.py: names that are no text, names as long as a file system allows, full disks."""
import errno
import os
import subprocess

import numpy
import pytest

from engine import files
from engine.cluster.parts import Report
from engine.errors import UserError


def test_names_that_are_no_utf8_are_written_as_their_bytes(tmp_path):
    name = os.fsdecode(b'caf\xe9')
    files.write_text(tmp_path / 'job', f'cd {name}')
    files.append_line(tmp_path / 'jobs.txt', name)
    assert (tmp_path / 'job').read_bytes() == b'cd caf\xe9'
    assert (tmp_path / 'jobs.txt').read_bytes() == b'caf\xe9\n'
    Report(tmp_path, 1).add('failed', 'clip', f'{name}/clip.avi: no frame')
    assert Report(tmp_path, 1).of_kind('failed') == [('clip', f'{name}/clip.avi: no frame')]


@pytest.mark.parametrize('name', ['x' * 255, 'é' * 127, 'x' * 251 + '.npy'])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    path = tmp_path / name
    files.save_npy(path, numpy.arange(3))
    assert list(files.load_npy(path)) == [0, 1, 2] and len(os.listdir(tmp_path)) == 1
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        os.link(temporary, tmp_path / 'killed')  # as a killed writer leaves it
        left = os.path.basename(temporary)
        raise KeyboardInterrupt
    os.rename(tmp_path / 'killed', tmp_path / left)
    files.remove_leftovers([path], older_than=-1)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize('error', [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_what_the_disk_says_when_a_file_is_finished_is_one_line(tmp_path, monkeypatch, error, call):
    path = tmp_path / 'list.txt'
    files.write_text(path, 'old')

    def refuse(*_):
        raise OSError(error, os.strerror(error))
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError) as refused:
        files.write_text(path, 'new')
    assert str(refused.value).startswith(f'{path}: cannot be written: {os.strerror(error)}; ')
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['list.txt']


@pytest.mark.parametrize('error', [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_knows_no_sync_is_written_all_the_same(tmp_path, monkeypatch, error):
    def refuse(_):
        raise OSError(error, os.strerror(error))
    monkeypatch.setattr(os, 'fsync', refuse)
    files.write_text(tmp_path / 'a/list.txt', 'new')
    files.append_line(tmp_path / 'results', 'line')
    assert (tmp_path / 'a/list.txt').read_text() == 'new'


def test_half_a_line_is_none(tmp_path, monkeypatch):
    path, write = tmp_path / 'results.jsonl', os.write
    files.append_line(path, 'first')
    monkeypatch.setattr(os, 'write', lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(UserError, match='No space left'):
        files.append_line(path, 'second')
    assert path.read_text() == 'first\n'


@pytest.mark.parametrize('platform', ['linux', 'darwin'])
def test_a_program_writes_into_an_open_file(tmp_path, monkeypatch, platform):
    with open(tmp_path / 'x', 'w+b') as f:
        monkeypatch.setattr(files.sys, 'platform', platform)
        word = files.as_output(f).removeprefix('file:')
        subprocess.run(['sh', '-c', 'printf new > "$0"', word], pass_fds=[f.fileno()], check=True)
        assert f.read() == b'new' and (word == str(f.name)) == (platform == 'darwin')


def test_json_that_is_nested_too_deep_is_named(tmp_path):
    for text in ('[' * 100000, '{"a": ' * 100000, '9' * 5000):
        (tmp_path / 'log').write_text(text)
        with pytest.raises(UserError, match='log: not readable .*; delete it and run again'):
            files.read_json(tmp_path / 'log')
