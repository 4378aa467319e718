"""engine/weights/download.py against a server on this machine that has the faults of real ones."""
import hashlib
import os
import threading
import time

import pytest

from engine.weights.download import download
from engine.errors import UserError
from localServer import Server

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()


def fetch(server, path, digest='sha256:' + SHA256, **settings):
    settings = {'patience': 0.01, 'timeout': 0.5, **settings}
    return download(server.url, path, digest, **settings)


def assert_only(path):
    """The file is whole, and nothing else stands in its folder."""
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('digest', [
    'sha256:' + SHA256, 'sha256:' + SHA256[:8], 'SHA256:' + SHA256.upper(), None,
    'md5:' + hashlib.md5(DATA).hexdigest(), 'sha1:' + hashlib.sha1(DATA).hexdigest()])
def test_whole(tmp_path, digest):
    path = tmp_path / 'weights.pth'
    with Server(DATA) as server:
        assert fetch(server, path, digest) == path
        assert_only(path)
        # there already: checked, not fetched again
        assert fetch(server, path, digest) == path
        assert len(server.asked) == 1


@pytest.mark.parametrize('faults', [
    ['cut off'], ['reset'], ['stalls'], ['slow'], [503], [429, 500], ['cut off'] * 12,
    ['cut off', 503, 'stalls', 'reset', 'cut off'], ['cut off', 'another part']], ids=str)
def test_faults_are_mended(tmp_path, faults):
    path = tmp_path / 'weights.pth'
    with Server(DATA, faults=faults) as server:
        fetch(server, path)
        assert_only(path)
        if faults[0] == 'cut off' and 'another part' not in faults:
            # what had come was not asked for again
            assert server.asked[1] == f'bytes={len(DATA) // 2}-'


def test_a_server_without_ranges_starts_again(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(DATA, faults=['cut off', None], ranges=False) as server:
        fetch(server, path)
        assert_only(path)


def test_goes_on_in_another_run(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(DATA, faults=['cut off', 500, 500]) as server:
        with pytest.raises(UserError, match='500.*0.5 MB are kept.*same command goes on'):
            fetch(server, path, tries=3)
        assert not path.exists()
        server.asked.clear()
        fetch(server, path)
        assert server.asked == [f'bytes={len(DATA) // 2}-']
        assert_only(path)


def test_a_file_that_changed_meanwhile_comes_whole(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(data=b'old' * 100_000, faults=['cut off', 500, 500]) as server:
        with pytest.raises(UserError):
            fetch(server, path, None, tries=3)
        server.data, server.tag = DATA, '"two"'
        fetch(server, path, None)
        assert_only(path)


@pytest.mark.parametrize('kept', [b'x' * 1000, b'x' * len(DATA), b'x' * (len(DATA) + 5), DATA])
def test_what_was_kept_is_not_believed(tmp_path, kept):
    path = tmp_path / 'weights.pth'
    (tmp_path / '.weights.pth.part').write_bytes(kept)
    with Server(DATA) as server:
        fetch(server, path)
        assert_only(path)


def test_wrong_digest_leaves_nothing(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(data=DATA[:-1] + b'!') as server:
        with pytest.raises(UserError, match='not the file that was expected.*sha256'):
            fetch(server, path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_under_the_name_is_not_overwritten(tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_bytes(b'mine')
    with Server(DATA) as server, pytest.raises(UserError, match='remove it'):
        fetch(server, path)
    assert path.read_bytes() == b'mine'


def test_not_there_is_said_at_once(tmp_path):
    with Server(DATA, faults=[404]) as server:
        with pytest.raises(UserError, match='404'):
            fetch(server, tmp_path / 'weights.pth')
        assert len(server.asked) == 1


def test_no_server_and_other_schemes(tmp_path):
    with Server(DATA) as server:
        url = server.url
    with pytest.raises(UserError, match='no answer'):
        download(url, tmp_path / 'a', tries=2, patience=0.01)
    with pytest.raises(UserError, match='only http'):
        download('file:///etc/passwd', tmp_path / 'a')
    assert not (tmp_path / 'a').exists()


def test_two_at_once(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(DATA, faults=['slow']) as server:
        first = threading.Thread(target=fetch, args=(server, path))
        first.start()
        while not (tmp_path / '.weights.pth.part').exists():
            time.sleep(0.005)
        time.sleep(0.05)
        with pytest.raises(UserError,
                           match=f'weights.pth: is being written by process {os.getpid()}'):
            fetch(server, path)
        first.join()
        assert path.read_bytes() == DATA


def test_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr('engine.weights.download.shutil.disk_usage',
                        lambda _: type('Usage', (), {'free': 1000}))
    with Server(DATA) as server, pytest.raises(UserError, match='make room'):
        fetch(server, tmp_path / 'weights.pth')
