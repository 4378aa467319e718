"""engine/download.py against a server on this machine that has the faults of real ones."""
import hashlib
import http.server
import socket
import threading
import time

import pytest

from engine.download import download
from engine.errors import UserError

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; `faults` are taken one a request: None or a name below."""
    daemon_threads = True

    def __init__(self, data=DATA, faults=(), ranges=True):
        super().__init__(('127.0.0.1', 0), Handler)
        self.data, self.faults, self.ranges = data, list(faults), ranges
        self.tag, self.asked = '"one"', []
        self.url = f'http://127.0.0.1:{self.server_port}/weights.pth'
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that goes away is part of the tests

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, start = self.server, 0
        fault = server.faults.pop(0) if server.faults else None
        asked = self.headers.get('Range')
        server.asked.append(asked)
        if isinstance(fault, int):
            return self.send_error(fault)
        fits = self.headers.get('If-Range') in (None, server.tag)
        if asked and server.ranges and fits:
            start = int(asked.removeprefix('bytes=').rstrip('-'))
            if start >= len(server.data):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(server.data)}')
                return self.end_headers()
            self.send_response(206)
            given = start + 7 if fault == 'another part' else start
            self.send_header('Content-Range',
                             f'bytes {given}-{len(server.data) - 1}/{len(server.data)}')
        else:
            self.send_response(200)
        body = server.data[start:]
        self.send_header('ETag', server.tag)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if fault == 'cut off':
            self.wfile.write(body[:len(body) // 2])
        elif fault == 'reset':
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
            self.connection.close()
        elif fault == 'stalls':
            self.wfile.write(body[:300_000])
            self.wfile.flush()
            time.sleep(1.5)
        elif fault == 'slow':
            for i in range(0, len(body), 100_000):
                self.wfile.write(body[i:i + 100_000])
                self.wfile.flush()
                time.sleep(0.03)
        else:
            self.wfile.write(body)


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
    with Server() as server:
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
    with Server(faults=faults) as server:
        fetch(server, path)
        assert_only(path)
        if faults[0] == 'cut off' and 'another part' not in faults:
            # what had come was not asked for again
            assert server.asked[1] == f'bytes={len(DATA) // 2}-'


def test_a_server_without_ranges_starts_again(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(faults=['cut off', None], ranges=False) as server:
        fetch(server, path)
        assert_only(path)


def test_goes_on_in_another_run(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(faults=['cut off', 500, 500]) as server:
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
    with Server() as server:
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
    with Server() as server, pytest.raises(UserError, match='remove it'):
        fetch(server, path)
    assert path.read_bytes() == b'mine'


def test_not_there_is_said_at_once(tmp_path):
    with Server(faults=[404]) as server:
        with pytest.raises(UserError, match='404'):
            fetch(server, tmp_path / 'weights.pth')
        assert len(server.asked) == 1


def test_no_server_and_other_schemes(tmp_path):
    with Server() as server:
        url = server.url
    with pytest.raises(UserError, match='no answer'):
        download(url, tmp_path / 'a', tries=2, patience=0.01)
    with pytest.raises(UserError, match='only http'):
        download('file:///etc/passwd', tmp_path / 'a')
    assert not (tmp_path / 'a').exists()


def test_two_at_once(tmp_path):
    path = tmp_path / 'weights.pth'
    with Server(faults=['slow']) as server:
        first = threading.Thread(target=fetch, args=(server, path))
        first.start()
        while not (tmp_path / '.weights.pth.part').exists():
            time.sleep(0.005)
        time.sleep(0.05)
        with pytest.raises(UserError, match='another process'):
            fetch(server, path)
        first.join()
        assert path.read_bytes() == DATA


def test_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr('engine.download.shutil.disk_usage',
                        lambda _: type('Usage', (), {'free': 1000}))
    with Server() as server, pytest.raises(UserError, match='make room'):
        fetch(server, tmp_path / 'weights.pth')
