"""Downloads that stand under their name only when they are whole and right.

    download('https://host/vgg16.pth', root / 'vgg16.pth', 'sha256:397923af...')

What has come so far is kept beside it as .NAME.part; the next call goes on from there.
"""
import hashlib
import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from engine import locks
from engine.errors import UserError
from engine.files import put
from engine.progress import Progress

BLOCK = 1 << 18
MEGABYTE = 1_000_000


class _Interrupted(Exception):
    """The connection failed in a way that another try may mend."""


def download(url, path, digest=None, tries=5, timeout=30.0, patience=1.0):
    """Fetches `url` into `path`.

    Args:
        url: http or https address.
        path: file to write. If it is there already it is only checked.
        digest: 'sha256:' and the hexadecimal digits, all of them or the first eight or
            more; also 'md5:' and 'sha1:', where a maker gives no other: they tell a file
            that came damaged, not one that was forged. None: the length is all that is
            checked.
        tries: attempts in a row that may bring nothing before it gives up.
        timeout: seconds without a byte after which an attempt has failed.
        patience: seconds before the second attempt, twice as long before each further one.

    Returns:
        Path of the file.

    Raises:
        UserError: naming the address and what to do. Nothing stands under `path` then.
    """
    path = Path(path)
    if not url.startswith(('http://', 'https://')):
        raise UserError(f'{url}: only http and https addresses are fetched')
    if not _is_there(url, path, digest):
        with locks.only_one(path):
            if not _is_there(url, path, digest):  # by another process, meanwhile
                _fetch(url, path, digest, tries, timeout, patience)
    return path


def _is_there(url, path, digest):
    if path.exists() and not _matches(path, digest):
        raise UserError(f'{path}: is there, but not what {url} should give (its '
                        f'{digest.split(":")[0]} differs); remove it and run this again')
    return path.exists()


def _fetch(url, path, digest, tries, timeout, patience):
    part = path.with_name(f'.{path.name}.part')
    try:
        with open(part, 'ab') as f:
            _complete(url, f, part, digest, tries, timeout, patience)
            put(part, path)
    except UserError:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        raise
    except OSError as error:
        raise UserError(f'{part}: cannot be written: {error.strerror or error}; check space '
                        'and rights there, then run this again') from error
    _tag_file(part).unlink(missing_ok=True)


def _complete(url, f, part, digest, tries, timeout, patience):
    """Tries until `f` holds the whole file and its digest is right."""
    resumed = f.tell() > 0
    failed = 0
    while True:
        before = f.tell()
        try:
            _attempt(url, f, part, timeout)
        except _Interrupted as error:
            # an attempt that brought something does not count against the patience
            failed = 1 if f.tell() > before else failed + 1
            if failed >= tries:
                raise UserError(f'{url}: {error}; {f.tell() / MEGABYTE:.1f} MB are kept, the '
                                'same command goes on from there') from None
            time.sleep(patience * 2 ** (failed - 1))
            continue
        if digest is None or _matches(part, digest):
            return
        _start_over(f, part)
        if not resumed:
            raise UserError(f'{url}: came whole, but is not the file that was expected (its '
                            f'{digest.split(":")[0]} is not {digest.split(":")[1]}); it was '
                            'removed; the file there may have changed')
        # Its beginning may have been another file's, or damaged on this disk.
        resumed, failed = False, 0


def _attempt(url, f, part, timeout):
    """Fetches what `f` still lacks; _Interrupted if the connection ends before that."""
    have, tag = f.tell(), _tag_file(part)
    request = urllib.request.Request(url, headers={'User-Agent': 'download.py',
                                                   'Accept-Encoding': 'identity'})
    if have:
        request.add_header('Range', f'bytes={have}-')
        if tag.exists():
            # a file that has changed meanwhile comes whole again
            request.add_header('If-Range', tag.read_text(encoding='ascii'))
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            total = re.fullmatch(r'bytes \*/(\d+)', error.headers.get('Content-Range') or '')
            if error.code == 416:
                if not total or int(total[1]) != have:
                    _start_over(f, part)
                    raise _Interrupted('the part that was kept did not fit') from None
                return
            if error.code in (408, 429) or error.code >= 500:
                raise _Interrupted(f'the server says {error.code} {error.reason}') from None
            raise UserError(f'{url}: the server says {error.code} {error.reason}') from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, 'reason', None)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(f'{url}: the certificate there is not to be trusted '
                            f'({reason.verify_message}); is this clock right, and the system '
                            'package ca-certificates there?') from None
        raise _Interrupted(f'no answer ({getattr(error, "reason", None) or error})') from None
    with response:
        total = _total(url, response, f, part)
        validator = response.headers.get('ETag') or response.headers.get('Last-Modified')
        if validator and not validator.startswith('W/') and validator.isascii():
            tag.write_text(validator, encoding='ascii')
        if total is not None:
            _check_space(part, total - f.tell())
        _receive(response, f, total, part.name[1:-len('.part')])


def _total(url, response, f, part):
    """The length of the whole file in bytes, None if unknown; `f` is set where it goes on."""
    length = response.headers.get('Content-Length')
    if response.status == 206:
        place = re.fullmatch(r'bytes (\d+)-\d+/(\d+)', response.headers.get('Content-Range', ''))
        if place and int(place[1]) == f.tell():
            return int(place[2])
        _start_over(f, part)
        raise _Interrupted('the server sent another part than the one asked for')
    if response.status != 200:
        raise UserError(f'{url}: the server says {response.status} {response.reason}')
    # it cannot give a part, or the file has changed: from the start
    _start_over(f, part)
    return int(length) if length and length.isdigit() else None


def _receive(response, f, total, label):
    with Progress((total or 0) // MEGABYTE, label, unit='MB') as progress:
        while True:
            progress.update(f.tell() // MEGABYTE - progress.done)
            if f.tell() == total:
                return
            try:
                data = response.read1(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(f'the connection broke ({error})') from None
            if not data:
                break
            if total is not None and f.tell() + len(data) > total:
                raise _Interrupted('the server sent more than it said')
            f.write(data)
            f.flush()  # the digest is taken from the disk
    if total is not None:
        raise _Interrupted(f'cut off after {f.tell()} of {total} bytes')


def _start_over(f, part):
    f.seek(0)
    f.truncate()
    _tag_file(part).unlink(missing_ok=True)


def _tag_file(part):
    """Holds the server's mark of the version that the part comes from."""
    return part.with_name(part.name + '.tag')


def _check_space(part, needed):
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise UserError(f'{part.parent}: {needed / MEGABYTE:.0f} MB still to come, but only '
                        f'{free / MEGABYTE:.0f} MB are free; make room and run this again')


def _matches(path, digest):
    if digest is None:
        return True
    kind, digits = digest.lower().split(':')
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, kind).hexdigest().startswith(digits)
