"""Fetches UCF-101: its clips and official lists, laid out under a root and looked through.

    python getData.py                           # 6.9 GB come, 14 GB of disk with the clips unpacked
    python getData.py --root DIR --lists-only   # only the lists of the three splits
    python getData.py --archive UCF101.rar --lists-archive LISTS.zip    # what you have already

Needs   one of unar, unrar, 7z, bsdtar on PATH, for the .rar; said before anything is fetched
Writes  ROOT/UCF101.rar and the .zip of the lists, as they came (remove them when all is well)
        ROOT/UCF-101/Class/clip.avi   and   ROOT/ucfTrainTestlist/*.txt

What is there is not done again, and a download that broke off goes on where it stopped. At the
end stands the inventory of checkData.py by the files' headers; exit code 3: something is amiss.
"""
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import checkData
from engine import locks, stage, variants
from engine.weights.download import MEGABYTE, download
from engine.errors import UserError
from engine.files import files_under, put, sha256
from engine.progress import Progress

URL = 'https://www.crcv.ucf.edu/data/UCF101/'
RAR, ZIP = 'UCF101.rar', 'UCF101TrainTestSplits-RecognitionTask.zip'
CLIPS = 13320
RAR_MB, CLIPS_MB = 6933, 7000
# SHA-256 of the official lists, whatever archive they come in.
DIGESTS = {
    'classInd.txt': 'd7abbb76074d04e80c62ad8a61529bb8eec32ef978569601b2890edec3af0359',
    'trainlist01.txt': 'f7a4d7abc05147b921c17fc227d731197c3583f29945d1f1d46bce830d1b9f12',
    'trainlist02.txt': '3ea7145317098bdb4a999f69fb3b53ca3d3831d692602fc5dc8cd5c5e3eb8ca9',
    'trainlist03.txt': 'c75af0148b3b0e70d5d881ad71b0a5fbb685bf2d3278908278658435c3f1bf0f',
    'testlist01.txt': '81be4765084d72739dca4d11658f7ec369c441ad9e227f11d9468fe2a1c14890',
    'testlist02.txt': 'c9eec18f3f312153cda441f93e30bc9cffef1941367ebc06996e40c9cd056c91',
    'testlist03.txt': 'f9cc029b0598c63f5cc07d070ae1fa4666d1d3901cc79a93490ea0742ca097db'}
# Best first: bsdtar does not check what a .rar says of its files' contents.
UNPACKERS = {'unar': ('-quiet', '-output-directory', '{folder}', '{archive}'),
             'unrar': ('x', '-o+', '-y', '{archive}', '{folder}/'),
             '7z': ('x', '-y', '-o{folder}', '{archive}'),
             '7zz': ('x', '-y', '-o{folder}', '{archive}'),
             'bsdtar': ('-xf', '{archive}', '-C', '{folder}')}
INSTALL = 'Debian and Ubuntu: apt install unar (or unrar, libarchive-tools)'


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parser.add_argument_group('what to fetch, and from where')
    group.add_argument('--lists-only', action='store_true', help='leave the clips out')
    group.add_argument('--archive', type=Path, metavar='FILE',
                       help=f'a {RAR} that is there already')
    group.add_argument('--lists-archive', type=Path, metavar='FILE',
                       help=f'a {ZIP} that is there already')
    group.add_argument('--url', default=URL, help=f'where both files stand (default: {URL})')
    return parser


@contextlib.contextmanager
def folder_that_becomes(path):
    """Gives a temporary folder beside `path`; what the block leaves in it as `path` is named so.

    What killed runs have left is removed first; an unpacker that outlived one writes there yet.
    """
    for left in path.parent.glob(f'.{path.name}.*.part'):
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', suffix='.part', dir=path.parent))
    try:
        yield part
        put(part / path.name, path)
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror or error}; check space and '
                        'rights there, then run this again') from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fetch(args, name, given, flag):
    """The archive that was given, or else downloaded into the root."""
    if given:
        if not given.is_file():
            raise UserError(f'{given}: not there; leave out {flag} to fetch it')
        return given
    if (args.root / name).exists():
        return args.root / name
    url = args.url.rstrip('/') + '/' + name
    try:
        path = download(url, args.root / name)
    except UserError as error:
        raise UserError(f'{error}. Or fetch {name} in any other way, then: python getData.py'
                        f'{variants.place(args.root)} {flag} FILE') from None
    with open(path, 'rb') as f:
        start = f.read(4)
    if start not in (b'Rar!', b'PK\3\4'):
        path.unlink()
        raise UserError(f'{url}: what came is no archive (a page that says why?); it was removed')
    return path


# ---------------------------------------------------------------------- the lists

def lists_are_there(folder):
    """Whether the official lists stand in `folder`; UserError if others do."""
    if not os.path.lexists(folder):
        return False
    for name, digest in DIGESTS.items():
        if not (folder / name).is_file():
            reason = 'is not there, but its folder is'
        elif sha256(folder / name) != digest:
            reason = 'is not the official list (its SHA-256 differs)'
        else:
            continue
        raise UserError(f'{folder / name}: {reason}; move {folder} away, or choose another '
                        '--root')
    return True


def unpack_lists(archive, folder):
    """Unpacks the lists by their names alone, wherever in the .zip they stand."""
    with folder_that_becomes(folder) as part:
        (part / folder.name).mkdir()
        try:
            with zipfile.ZipFile(archive) as f:
                members = {info.filename.rpartition('/')[2]: info for info in f.infolist()}
                for name in DIGESTS:
                    if name not in members:
                        raise UserError(f'{archive}: holds no {name}; fetch it anew')
                    if members[name].file_size > 10 * MEGABYTE:
                        raise UserError(f'{archive}: its {name} is far too large to be a list')
                    (part / folder.name / name).write_bytes(f.read(members[name]))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError,
                NotImplementedError) as error:
            raise UserError(f'{archive}: not a whole .zip ({error}); fetch it anew') from None
        try:
            lists_are_there(part / folder.name)
        except UserError:
            wrong = [name for name, digest in DIGESTS.items()
                     if sha256(part / folder.name / name) != digest]
            raise UserError(f'{archive}: its {wrong[0]} is not the official list (its SHA-256 '
                            'differs); fetch it anew, or from elsewhere') from None


# ---------------------------------------------------------------------- the clips

def find_unpackers():
    """The programs on PATH that unpack .rar, best first."""
    found = [name for name in UNPACKERS if shutil.which(name)]
    if not found:
        raise UserError(f'nothing on PATH unpacks {RAR}: install one of '
                        f'{", ".join(UNPACKERS)}; {INSTALL}')
    return found


def unpack_clips(archive, folder, unpackers):
    """Unpacks the .rar with the first of the programs that knows how."""
    with folder_that_becomes(folder) as part:
        for name in unpackers:
            code, last = run_unpacker(name, archive, part)
            files = files_under(part)
            if code and not files:  # one that cannot read this kind of .rar: the next may
                print(f'{name} cannot unpack {archive} ({last})')
                continue
            if code:
                raise UserError(f'{archive}: {name} could not unpack it whole ({last}); is the '
                                'disk full, or the file damaged? Make room, or remove it and run '
                                f'this again, or try another program: {INSTALL}')
            break
        else:
            raise UserError(f'{archive}: {" and ".join(unpackers)} cannot unpack it; if it is '
                            f'whole, install another program: {INSTALL}')
        links = [path for path in part.rglob('*') if path.is_symlink()]
        if links or not (part / folder.name).is_dir():
            raise UserError(f'{archive}: ' + (f'holds a link, {links[0].name}' if links else
                                              f'holds no folder {folder.name}')
                            + f'; this is no {RAR}')


def run_unpacker(name, archive, folder):
    """Runs one and shows how many files have come; returns (exit code, its last line)."""
    words = [word.format(archive=archive.resolve(), folder=folder.resolve())
             for word in UNPACKERS[name]]
    with tempfile.TemporaryFile() as log, Progress(CLIPS, f'unpacking with {name}',
                                                   'files') as progress:
        process = subprocess.Popen([name, *words], stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(min(1.0, 0.05 + progress.done / 1000))
                progress.update(sum(len(files) for _, _, files in os.walk(folder))
                                - progress.done)
        finally:
            process.kill()
            process.wait()
        progress.update(sum(len(files) for _, _, files in os.walk(folder)) - progress.done)
        log.seek(0)
        lines = log.read().decode(errors='replace').split('\n')
    said = [line.strip() for line in lines if line.strip()]
    return process.returncode, said[-1][:200] if said else f'exit code {process.returncode}'


def say_plan(args, lists_there, clips_there):
    """Prints what will be done and what it takes; returns the unpackers, [] if none is needed.

    Raises:
        UserError: no program that unpacks, or no room.
    """
    unpackers, needed = [], 0
    if not lists_there:
        print(f'lists: {args.lists_archive or args.url.rstrip("/") + "/" + ZIP}')
    if clips_there or args.lists_only:
        return unpackers
    have = args.archive or args.root / RAR
    part = args.root / f'.{RAR}.part'
    if not have.exists():
        needed = max(0, RAR_MB - (part.stat().st_size // MEGABYTE if part.exists() else 0))
        have = args.url.rstrip('/') + '/' + RAR
    unpackers = find_unpackers()
    free = shutil.disk_usage(args.root).free // MEGABYTE
    print(f'clips: {have}, {needed} MB to fetch; {CLIPS_MB} MB when unpacked, by {unpackers[0]}; '
          f'{free} MB are free', flush=True)
    if free < needed + CLIPS_MB:
        raise UserError(f'{args.root}: needs {needed + CLIPS_MB} MB, but {free} MB are free; make '
                        'room, or choose another --root')
    return unpackers


def main():
    args = stage.parse(get_parser())
    try:
        args.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{args.root}: {error.strerror}') from None
    lists, clips = args.root / variants.LISTS, args.root / variants.CLIPS
    with locks.only_one(clips):
        lists_there, clips_there = lists_are_there(lists), os.path.lexists(clips)
        unpackers = say_plan(args, lists_there, clips_there)
        if not lists_there:
            archive = fetch(args, ZIP, args.lists_archive, '--lists-archive')
            try:
                unpack_lists(archive, lists)
            except UserError:
                if not args.lists_archive:
                    archive.unlink()  # so that the next run fetches it anew
                raise
            print(f'wrote {lists}')
        if unpackers:
            unpack_clips(fetch(args, RAR, args.archive, '--archive'), clips, unpackers)
            print(f'wrote {clips}; {RAR} is no longer needed')
    if args.lists_only:
        return 0
    code = checkData.show(checkData.inventory(args.root, args.split, workers=2, quick=True))
    print('This believed the headers; to decode every clip: python checkData.py'
          + variants.place(args.root, args.split))
    return code


if __name__ == '__main__':
    stage.run(main)
