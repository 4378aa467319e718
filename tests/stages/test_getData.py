"""getData.py against a server on this machine, with archives whole, damaged and missing."""
import hashlib
import http.server
import io
import os
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib

import pytest

import getData
import helperFunctions as hf
from engine import variants
from engine.weights.download import download
from engine.errors import UserError
from badClips import encode
from smallSet import REPOSITORY
from localServer import Handler, Server

LISTS = {'classInd.txt': '1 A\r\n2 B\r\n', **{
    f'{side}list{n:02d}.txt': ''.join(f'{c}/v_{c}_g{g:02d}_c01.avi{label * (side == "train")}\r\n'
                                      for c, label in (('A', ' 1'), ('B', ' 2'))
                                      for g in (1, 2, 3) if (g == n) == (side == 'test'))
    for n in (1, 2, 3) for side in ('train', 'test')}}
# For a test that kills: who unpacks slowly, and leaves half of the files when it is stopped.
SLOW = '''#!/bin/sh
mkdir -p "$3/UCF-101/A" && echo half > "$3/UCF-101/A/v_A_g01_c01.avi" && sleep 30
'''


def rar(files):
    """A RAR 4 archive of stored files, {path: bytes}, as the format's public description has it."""
    def block(kind, flags, body, data=b''):
        head = struct.pack('<BHH', kind, flags, 7 + len(body)) + body
        return struct.pack('<H', zlib.crc32(head) & 0xffff) + head + data
    out = b'Rar!\x1a\x07\x00' + block(0x73, 0, bytes(6))
    for path, data in files.items():
        name = path.replace('/', '\\').encode()
        out += block(0x74, 0x8000, struct.pack(
            '<IIBIIBBHI', len(data), len(data), 3, zlib.crc32(data), 0x5a210000, 20, 0x30,
            len(name), 0o100644) + name, data)
    return out + block(0x7b, 0x4000, b'')


def lists_zip(lists=LISTS, folder='ucfTrainTestlist/', extra=()):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as f:
        for name, text in lists.items():
            f.writestr(folder + name, text)
        for name in extra:
            f.writestr(name, 'evil')
    return data.getvalue()


class Paths(Handler):
    """Serves server.files by name; `faults` are for the name that is asked for."""
    def do_GET(self):
        name = self.path.rpartition('/')[2]
        if name not in self.server.files:
            return self.send_error(404)
        self.server.data = self.server.files[name]
        self.server.faults = self.server.by_name.get(name, [])
        super().do_GET()


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """{path in the archive: bytes} of six clips of two classes."""
    folder = tmp_path_factory.mktemp('drawn')
    return {f'UCF-101/{c}/v_{c}_g{g:02d}_c01.avi': encode(folder / f'{c}{g}.avi', 'mpeg4',
                                                          frames=g + 4 * (c == 'B'))
            for c in 'AB' for g in (1, 2, 3)}


@pytest.fixture
def server(clips):
    with Server(b"") as server:
        server.RequestHandlerClass = Paths
        server.files = {getData.RAR: rar(clips), getData.ZIP: lists_zip()}
        server.by_name = {}
        yield server


@pytest.fixture
def get(tmp_path, monkeypatch, capsys, server):
    """Runs the script in this process with the digests of LISTS; (exit code, what it printed)."""
    monkeypatch.setattr(getData, 'DIGESTS', {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in LISTS.items()})
    monkeypatch.setattr(getData, 'RAR_MB', 1)
    monkeypatch.setattr(getData, 'CLIPS_MB', 1)
    monkeypatch.setattr(getData, 'download', lambda url, path: download(
        url, path, tries=2, patience=0.01, timeout=1))

    def get(*flags):
        monkeypatch.setattr('sys.argv', ['getData.py', '--root', str(tmp_path / 'root'), '--url',
                                         server.url.rpartition('/')[0], *map(str, flags)])
        code = getData.main()
        return code, capsys.readouterr().out
    return get


@pytest.fixture
def unpacker(tmp_path, monkeypatch):
    """unpacker(name, script) puts a program on a PATH that has only such ones; for lack of a
    real one in a test's surroundings, 'unrar' here reads the .rar of rar()."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))

    def unpacker(name='unrar', script=None):
        (folder / name).write_text(script or f'#!{sys.executable}\n' + '''
import os, struct, sys, zlib
archive, folder = sys.argv[4:] if sys.argv[1] == 'x' else sys.argv[:0:-1][:2]
data = open(archive, 'rb').read()
at = 20
while data[at + 2] == 0x74:
    head, size = struct.unpack_from('<HI', data, at + 5)
    crc, name = *struct.unpack_from('<I', data, at + 16), data[at + 32:at + head].decode()
    body = data[at + head:at + head + size]
    path = os.path.join(folder, *name.split('\\\\'))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'wb').write(body)
    if zlib.crc32(body) != crc:
        sys.exit('checksum error in ' + name)
    at += head + size
''')
        (folder / name).chmod(0o755)
    return unpacker


def under(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*'))


def test_everything(get, tmp_path, unpacker, clips, server):
    unpacker()
    code, said = get()
    root = tmp_path / 'root'
    assert code == 0 and '6 of 6 clips found; all is well' in said
    assert '1 MB to fetch; 1 MB when unpacked, by unrar' in said
    for name, data in clips.items():
        assert (root / name).read_bytes() == data
    assert [len(side) for side in hf.read_lists(root)] == [2, 4, 2]
    assert all(clip.path.exists() for clip in hf.read_lists(root, 3).test)
    assert (root / variants.LISTS / 'classInd.txt').read_bytes() == LISTS['classInd.txt'].encode()
    assert {path.split('/')[0] for path in under(root)} == {
        'UCF-101', 'ucfTrainTestlist', getData.RAR, getData.ZIP}
    # again: nothing is fetched, nothing written, nothing needed to unpack
    os.unlink(root / getData.RAR)
    os.unlink(tmp_path / 'bin' / 'unrar')
    asked, before = len(server.asked), {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    assert get()[0] == 0 and len(server.asked) == asked
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob('*')}


@pytest.mark.parametrize('name', getData.UNPACKERS)
def test_real_unpackers(get, tmp_path, name, clips, monkeypatch):
    if not shutil.which(name):
        pytest.skip(f'no {name} on PATH')
    monkeypatch.setattr(getData, 'UNPACKERS', {name: getData.UNPACKERS[name]})
    if name in ('7z', '7zz') and b'Rar' not in subprocess.run(
            [name, 'i'], capture_output=True).stdout:
        with pytest.raises(UserError, match=f'{name} cannot unpack it; .* install another'):
            get()
        assert not (tmp_path / 'root' / variants.CLIPS).exists()
        return
    assert get()[0] == 0
    for path, data in clips.items():
        assert (tmp_path / 'root' / path).read_bytes() == data


def test_lists_only_and_archives_at_hand(get, tmp_path, unpacker, server):
    assert get('--lists-only')[0] == 0  # needs no unpacker
    root = tmp_path / 'root'
    assert not (root / variants.CLIPS).exists() and len(hf.read_lists(root).train) == 4
    unpacker()
    archive = tmp_path / 'mine.rar'
    archive.write_bytes(server.files[getData.RAR])
    asked = len(server.asked)
    code, said = get('--archive', archive)
    assert code == 0 and len(server.asked) == asked and f'{archive}, 0 MB to fetch' in said
    lists = tmp_path / 'mine.zip'
    lists.write_bytes(lists_zip(folder=''))
    shutil.rmtree(root / variants.LISTS)
    assert get('--lists-archive', lists)[0] == 0 and len(server.asked) == asked
    with pytest.raises(UserError, match='no.rar: not there; leave out --archive'):
        shutil.rmtree(root / variants.CLIPS)
        get('--archive', tmp_path / 'no.rar')


def test_a_broken_connection_goes_on_in_the_next_run(get, tmp_path, unpacker, server):
    unpacker()
    server.by_name[getData.RAR] = ['cut off', 500, 500]
    with pytest.raises(UserError, match='the same command goes on from there.*--archive FILE'):
        get()
    root = tmp_path / 'root'
    assert not (root / getData.RAR).exists() and not (root / variants.CLIPS).exists()
    assert get()[0] == 0
    assert server.asked[-1] == f'bytes={len(server.files[getData.RAR]) // 2}-'


def test_what_is_missing_is_said_before_anything_is_fetched(get, tmp_path, unpacker, monkeypatch,
                                                           server):
    with pytest.raises(UserError, match='nothing on PATH unpacks .* apt install unar'):
        get()
    unpacker()
    monkeypatch.setattr(getData, 'CLIPS_MB', 10 ** 12)
    with pytest.raises(UserError, match='needs 1000000000001 MB, but .* are free; make room'):
        get()
    assert not server.asked and under(tmp_path / 'root') == []


def test_pages_in_place_of_files(get, tmp_path, unpacker, server):
    unpacker()
    server.files[getData.ZIP] = b'<html>we have moved</html>'
    with pytest.raises(UserError, match='no archive .*removed'):
        get()
    assert under(tmp_path / 'root') == []
    del server.files[getData.ZIP]
    with pytest.raises(UserError, match='404.*--lists-archive FILE'):
        get()


@pytest.mark.parametrize('data, says', [
    (lists_zip({**LISTS, 'testlist02.txt': 'B/v_B_g01_c01.avi\r\n'}),
     'its testlist02.txt is not the official list'),
    (lists_zip({**LISTS, 'classInd.txt': LISTS['classInd.txt'].replace('\r', '')}),
     'its classInd.txt is not the official list'),
    (lists_zip(dict(list(LISTS.items())[:-1])), 'holds no testlist03.txt'),
    (lists_zip()[:-60], 'not a whole .zip'), (b'PK\3\4' + bytes(100), 'not a whole .zip')])
def test_lists_that_are_not_the_official_ones(get, tmp_path, data, says, server):
    server.files[getData.ZIP] = data
    with pytest.raises(UserError, match=says):
        get('--lists-only')
    assert under(tmp_path / 'root') == []
    server.files[getData.ZIP] = lists_zip()
    assert get('--lists-only')[0] == 0


def test_a_zip_that_would_write_elsewhere(get, tmp_path, server):
    server.files[getData.ZIP] = lists_zip(extra=['../../evil.txt', '/tmp/evil.txt', 'x/../../evil'])
    assert get('--lists-only')[0] == 0
    assert under(tmp_path / 'root' / variants.LISTS) == sorted(LISTS)
    assert not [path for path in tmp_path.rglob('*evil*')]


def test_other_lists_are_not_written_over(get, tmp_path):
    lists = tmp_path / 'root' / variants.LISTS
    lists.mkdir(parents=True)
    (lists / 'classInd.txt').write_text('1 Mine\n')
    with pytest.raises(UserError, match='classInd.txt: is not the official list.*another'):
        get('--lists-only')
    (lists / 'classInd.txt').write_bytes(LISTS['classInd.txt'].encode())
    with pytest.raises(UserError, match='trainlist01.txt: is not there, but its folder is'):
        get('--lists-only')


def test_a_damaged_archive_leaves_no_clips(get, tmp_path, unpacker, server):
    unpacker()
    archive = bytearray(server.files[getData.RAR])
    archive[len(archive) // 2] ^= 1
    server.files[getData.RAR] = bytes(archive)
    with pytest.raises(UserError, match='unrar could not unpack it whole .checksum error'):
        get()
    root = tmp_path / 'root'
    assert {path.split('/')[0] for path in under(root)} == {
        'ucfTrainTestlist', getData.RAR, getData.ZIP}


@pytest.mark.parametrize('files, says', [
    ({'other/a.avi': b'a'}, 'holds no folder UCF-101; this is no UCF101.rar')])
def test_another_archive(get, tmp_path, unpacker, files, says, server):
    unpacker()
    server.files[getData.RAR] = rar(files)
    with pytest.raises(UserError, match=says):
        get()
    assert not (tmp_path / 'root' / variants.CLIPS).exists()


def test_the_next_unpacker_is_tried(get, tmp_path, unpacker, clips):
    """7zip as Debian has it knows no .rar; unar is asked before unrar."""
    unpacker('unar', '#!/bin/sh\necho "Cannot open the file as archive"; exit 2\n')
    with pytest.raises(UserError, match='unar cannot unpack it; .*install another program'):
        get()
    unpacker('unrar')
    code, said = get()
    assert code == 0 and 'unar cannot unpack' in said and 'Cannot open the file' in said


def test_clips_that_are_missing_are_named(get, unpacker, clips, server):
    unpacker()
    server.files[getData.RAR] = rar(dict(list(clips.items())[1:]))
    code, said = get()
    assert code == 3 and '5 of 6 clips found; 1 missing' in said


@pytest.mark.parametrize('stop, code', [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_while_it_unpacks(get, tmp_path, unpacker, server, clips, stop, code):
    """Half-unpacked clips never stand under the final name; the next run does it again."""
    assert get('--lists-only')[0] == 0
    root, archive = tmp_path / 'root', tmp_path / 'mine.rar'
    archive.write_bytes(server.files[getData.RAR])
    unpacker('7z', SLOW.replace('$3', '${3#-o}'))
    os.environ['PATH'] += ':/usr/bin:/bin'
    script = ('import getData; from engine import stage\n'
              f'getData.DIGESTS, getData.CLIPS_MB = {getData.DIGESTS!r}, 1\n'
              'getData.UNPACKERS = {"7z": getData.UNPACKERS["7z"]}\n'
              'stage.run(getData.main)')
    process = subprocess.Popen([sys.executable, '-c', script, '--root', root, '--archive', archive],
                               cwd=REPOSITORY, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(root.glob('.UCF-101.*.part/*/A/*.avi')) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(UserError, match=f'is being written by process {process.pid}'):
        get()
    process.send_signal(stop)
    assert process.wait(timeout=30) == code
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what an unpacker does alone is its own affair
    except ProcessLookupError:
        pass
    assert not (root / variants.CLIPS).exists()
    assert bool(list(root.glob('.UCF-101.*.part'))) == (stop == signal.SIGKILL)
    unpacker('unrar')
    os.environ['PATH'] = str(tmp_path / 'bin')
    os.unlink(tmp_path / 'bin' / '7z')
    assert get('--archive', archive)[0] == 0
    assert (root / 'UCF-101/A/v_A_g01_c01.avi').read_bytes() == clips['UCF-101/A/v_A_g01_c01.avi']
    assert not list(root.glob('.*'))


def test_the_official_lists(real_data):
    """The digests written down are those of the lists as they were published."""
    assert getData.lists_are_there(real_data / variants.LISTS)


def test_a_certificate_that_is_not_to_be_trusted(tmp_path):
    """One asks for it once, and says what to do."""
    if not shutil.which('openssl'):
        pytest.skip('no openssl to make a certificate')
    subprocess.run('openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 '
                   '-keyout key -out certificate -subj /CN=127.0.0.1 -addext '
                   'subjectAltName=IP:127.0.0.1'.split(), cwd=tmp_path, check=True,
                   capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / 'certificate', tmp_path / 'key')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with pytest.raises(UserError, match='certificate there is not to be trusted .*self'):
        download(f'https://127.0.0.1:{server.server_port}/x', tmp_path / 'x', patience=1000)
    server.shutdown()
    assert not (tmp_path / 'x').exists() and not (tmp_path / '.x.part').exists()
