"""Makes a corpus of more than 200 broken or odd inputs, the same from the same seed.

    python tests/badClips.py FOLDER      # writes it there and prints each case's outcomes
"""
import functools
import io
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import h5py
import imageio_ffmpeg
import numpy

FRAMES, SIDE = 16, 64
N_FEATURES, CLASSES = 16, ('HandstandPushups', 'PushUps')
# What may become of a case: used whole, used and listed as short, or refused with one line.
WHOLE, SHORT, REFUSED = 'whole', 'short', 'refused'


class Case(NamedTuple):
    """One input: its file (or root, for lists), its kind and the outcomes that are right."""
    path: Path
    kind: str
    expected: tuple


def encode(path, codec, side=SIDE, frames=FRAMES, tag=None):
    """Writes a test picture that moves, as .avi; returns its bytes."""
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-y', '-f', 'lavfi', '-i',
                    f'testsrc=size={side}x{side}:rate=25', '-frames:v', str(frames),
                    '-c:v', codec, '-pix_fmt', 'yuvj420p' if codec == 'mjpeg' else 'yuv420p',
                    *(['-vtag', tag] if tag else []), '-threads', '1', '-bitexact', str(path)],
                   check=True)
    return path.read_bytes()


def chunk_ends(avi):
    """Where each frame of an .avi of one stream ends, and where the first one starts."""
    at = avi.index(b'movi') + 4
    first, ends = at, []
    while avi[at:at + 2] == b'00':
        size = int.from_bytes(avi[at + 4:at + 8], 'little')
        at += 8 + size + size % 2
        ends.append(at)
    return first, ends


def _case(folder, name, data, *expected):
    path = folder / name
    path.write_bytes(data)
    return Case(path, 'video', expected)


def videos(folder, rng):
    """Yields the broken clips."""
    folder.mkdir(parents=True)
    case = functools.partial(_case, folder)
    whole = {'xvid': encode(folder / 'xvid.avi', 'mpeg4', tag='XVID'),
             'mjpeg': encode(folder / 'mjpeg.avi', 'mjpeg'),
             'ffv1': encode(folder / 'ffv1.avi', 'ffv1')}
    for name, avi in whole.items():
        yield Case(folder / f'{name}.avi', 'video', (WHOLE,))
        first, ends = chunk_ends(avi)
        assert len(ends) == FRAMES
        places = rng.sample(range(first), 6) + rng.sample(range(ends[0], len(avi)), 20)
        for place in places:
            # a frame cut in its middle may be shown or not
            complete = sum(end <= place for end in ends)
            expected = ((REFUSED,) if place < first else
                        (SHORT,) if complete <= FRAMES - 4 else
                        (WHOLE,) if complete >= FRAMES - 2 else (SHORT, WHOLE))
            yield case(f'{name} cut at {place}.avi', avi[:place], *expected)
        for end in (ends[3], ends[9]):
            yield case(f'{name} zeros from {end}.avi', avi[:end] + bytes(len(avi) - end), SHORT)
        yield case(f'{name} header of zeros.avi', bytes(first) + avi[first:], REFUSED, SHORT,
                   WHOLE)
        yield case(f'{name} no frames.avi', avi[:first], REFUSED)
        for frames, outcome in ((0, WHOLE), (FRAMES // 2, WHOLE), (FRAMES + 1, WHOLE),
                                (FRAMES * 2, SHORT), (2 ** 31, SHORT)):
            lie = bytearray(avi)
            lie[48:52] = frames.to_bytes(4, 'little')
            yield case(f'{name} says {frames} frames.avi', lie, outcome)
        for flip in range(4):
            damaged = bytearray(avi)
            for _ in range(40):
                damaged[rng.randrange(first, ends[-1])] = rng.randrange(256)
            yield case(f'{name} damaged {flip}.avi', damaged, WHOLE, SHORT, REFUSED)
        yield case(f'{name} 100% [whole]; é #1.avi', avi, WHOLE)
    yield from strangers(folder, rng, whole)


def strangers(folder, rng, whole):
    """Yields files that are no such video, or hardly one; `whole`: three that are, by codec."""
    case = functools.partial(_case, folder)
    for tag in (b'ZZZZ', b'\0\1\2\3'):
        yield case(f'codec {tag.hex()}.avi', whole['ffv1'].replace(b'FFV1', tag), REFUSED)
    yield case('codec of another.avi', whole['xvid'].replace(b'XVID', b'FFV1'), REFUSED)
    for codec in ('mpeg4', 'mjpeg', 'ffv1'):
        one = folder / f'one frame {codec}.avi'
        encode(one, codec, frames=1)
        yield Case(one, 'video', (WHOLE,))
    # raw H.264 may change its size midway
    parts = [encode(folder / f'{side}.h264', 'libx264', side) for side in (64, 96)]
    yield case('changing size.avi', b''.join(parts), WHOLE)
    yield from no_videos(case, rng)
    yield Case(folder / 'missing.avi', 'video', (REFUSED,))
    (folder / 'a folder.avi').mkdir()
    yield Case(folder / 'a folder.avi', 'video', (REFUSED,))


def no_videos(case, rng):
    """Yields what `case` makes of bytes that are no video at all."""
    for size in (0, 1, 11, 12, 51, 52, 5000):
        yield case(f'{size} zero bytes.avi', bytes(size), REFUSED)
    for number in range(4):
        yield case(f'noise {number}.avi', rng.randbytes(3000), REFUSED)
    for number, text in enumerate((
            'not a video\n' * 100, '<!DOCTYPE html><html><body>404 Not Found</body></html>\n',
            '{"error": "quota"}\n', 'import os\n' * 50, 'a,b\n1,2\n' * 30, '\n' * 200,
            '#EXTM3U\n#EXTINF:1,\nxvid.avi\n', "ffconcat version 1.0\nfile 'missing.avi'\n",
            'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n')):
        yield case(f'text {number}.avi', text.encode(), REFUSED)


def arrays(folder, rng):
    """Yields the broken .npy files, each as one clip's features."""
    folder.mkdir(parents=True)
    good = numpy.random.RandomState(rng.randrange(2 ** 31)).rand(9, N_FEATURES).astype('f4')

    def dump(array, **options):
        buffer = io.BytesIO()
        numpy.save(buffer, array, **options)
        return buffer.getvalue()

    def case(name, data, expected=REFUSED):
        path = folder / f'{name}.npy'
        path.write_bytes(data)
        return Case(path, 'npy', (expected,))
    whole = dump(good)
    yield case('good', whole, WHOLE)
    yield case('Fortran order', dump(numpy.asfortranarray(good)), WHOLE)
    yield case('one frame', dump(good[:1]), WHOLE)
    for place in sorted(rng.sample(range(len(whole)), 20)):
        yield case(f'cut at {place}', whole[:place])
    for value in (numpy.nan, numpy.inf, -numpy.inf):
        spoilt = good.copy()
        spoilt[rng.randrange(9), rng.randrange(N_FEATURES)] = value
        yield case(f'holds {value}', dump(spoilt))
    for dtype in ('f8', 'f2', '>f4', 'i4', 'u1', '?', 'c8', 'S4', 'U4'):
        yield case(f'dtype {dtype.strip("<>?") or "bool"}', dump(good.astype(dtype)))
    for name, array in (('too wide', good.repeat(2, axis=1)), ('too narrow', good[:, 1:]),
                        ('one axis', good[0]), ('three axes', good[None]), ('no axis', good[0, 0]),
                        ('no frame', good[:0]), ('transposed', good.T)):
        yield case(name, dump(array))
    yield case('pickled objects', dump(numpy.array([{}, None], object), allow_pickle=True))
    yield case('a pickle', pickle.dumps([1, 2]))
    yield case('text', b'1.0 2.0\n' * 20)
    yield case('zip cut', b'PK\3\4' + bytes(30))
    archive = io.BytesIO()
    numpy.savez(archive, good)
    yield case('npz', archive.getvalue())
    yield case('huge shape', whole.replace(b"(9, 16), }", b"(9" + b"9" * 9 + b", 16)}"
                                           .ljust(1)).replace(b'          \n', b'\n', 1))


def predictions(folder, rng):
    """Yields the broken prediction files; the clip in them is called 'clip'."""
    folder.mkdir(parents=True)
    good = numpy.full((9, len(CLASSES)), 1 / len(CLASSES), 'f4')

    def write(name, data=good, expected=REFUSED, classes=json.dumps(CLASSES)):
        path = folder / f'{name}.hdf5'
        with h5py.File(path, 'w') as f:
            if data is not None:
                f['clip'] = data
            else:
                f.create_group('clip')
            if classes is not None:
                f.attrs['classes'] = classes
        return Case(path, 'hdf5', (expected,))
    yield write('good', expected=WHOLE)
    yield write('float64', good.astype('f8'), WHOLE)
    whole = (folder / 'good.hdf5').read_bytes()
    for place in sorted(rng.sample(range(len(whole)), 12)) + [0]:
        path = folder / f'cut at {place}.hdf5'
        path.write_bytes(whole[:place])
        yield Case(path, 'hdf5', (REFUSED,))
    for value in (numpy.nan, numpy.inf):
        spoilt = good.copy()
        spoilt[rng.randrange(9), 0] = value
        yield write(f'holds {value}', spoilt)
    for name, data in (('too wide', good.repeat(2, axis=1)), ('one axis', good[0]),
                       ('no axis', good[0, 0]), ('no frame', good[:0]),
                       ('integers', good.astype(int)), ('strings', good.astype('S4')),
                       ('a group', None)):
        yield write(name, data)
    for number, classes in enumerate((None, 'not JSON', '["A"]', '[]', '3', 7.0)):
        yield write(f'classes {number}', classes=classes)
    for name, data in (('text', b'no HDF5\n' * 99), ('zeros', bytes(4096))):
        path = folder / f'{name}.hdf5'
        path.write_bytes(data)
        yield Case(path, 'hdf5', (REFUSED,))


def lists(folder):
    """Yields roots whose lists are odd (a good reader takes them) or wrong."""
    good = {'classes': '1 HandstandPushups\n2 PushUps\n',
            'train': 'HandstandPushups/v_HandStandPushups_g02_c01.avi 1\n'
                     'PushUps/v_PushUps_g02_c01.avi 2\n',
            'test': 'HandstandPushups/v_HandStandPushups_g01_c01.avi\n'
                    'PushUps/v_PushUps_g01_c01.avi\n'}
    more = 'PushUps/v_PushUps_g03_c01.avi'
    cases = [('good', WHOLE, {})]
    for key, text in good.items():
        for name, odd in (('CRLF', text.replace('\n', '\r\n')), ('CR', text.replace('\n', '\r')),
                          ('blank lines', '\n\n' + text.replace('\n', '\n \n')),
                          ('spaces', text.replace('\n', '  \n ')),
                          ('tabs', '\t' + text.replace('\n', '\t\n')),
                          ('byte order mark', '\ufeff' + text), ('no last end', text.rstrip())):
            cases.append((f'{name} in {key}', WHOLE, {key: odd}))
        for name, wrong in (('empty', ''), ('blank', ' \n\r\n'), ('nonsense', text + 'nonsense\n'),
                            ('binary', text + '\xff\0'), ('missing', None),
                            ('a line twice', text + text.splitlines()[0] + '\n')):
            cases.append((f'{name}: {key}', REFUSED, {key: wrong}))
    cases += [('HandStand in classes', WHOLE, {'classes': '1 HandStandPushups\n2 PushUps\n'})]
    cases += [(f'HandStand in {key}', WHOLE, {
        key: good[key].replace('HandstandPushups/', 'HandStandPushups/')})
        for key in ('train', 'test')]
    cases += [(f'{line!r} in train', REFUSED, {'train': good['train'] + line}) for line in (
        'Juggling/v_Juggling_g01_c01.avi 3\n', f'{more} 1\n', f'{more} 0\n', f'{more} 3\n',
        f'{more} two\n', 'PushUps/v_PushUps_g03_c01 2\n', 'v_PushUps_g03_c01.avi 2\n',
        'PushUps/ 2\n', 'PushUps/v_PushUps_g01_c01.avi 2\n', 'PushUps/v_PushUps_g01_c09.avi 2\n')]
    cases += [(f'{text!r} as classes', REFUSED, {'classes': text}) for text in (
        '0 HandstandPushups\n1 PushUps\n', '1 HandstandPushups\n3 PushUps\n', 'PushUps 1\n',
        '1 HandstandPushups\n1 PushUps\n', '1 PushUps\n2 PushUps\n', '1 Push Ups\n')]
    for number, (name, expected, changes) in enumerate(cases):
        root = folder / f'{number:03d}'
        (root / 'ucfTrainTestlist').mkdir(parents=True)
        (root / 'case.txt').write_text(name, encoding='utf-8')
        for key, text in {**good, **changes}.items():
            file_name = {'classes': 'classInd'}.get(key, f'{key}list01') + '.txt'
            if text is not None:
                # Latin-1 alone makes bytes that are no UTF-8.
                coding = 'latin-1' if '\xff' in text else 'utf-8'
                (root / 'ucfTrainTestlist' / file_name).write_bytes(text.encode(coding))
        yield Case(root, 'lists', (expected,))


def make(folder, seed=0):
    """Writes the whole corpus under `folder`; returns its list of Case."""
    folder, rng = Path(folder), random.Random(seed)
    return [*videos(folder / 'clips', rng), *arrays(folder / 'arrays', rng),
            *predictions(folder / 'predictions', rng), *lists(folder / 'lists')]


if __name__ == '__main__':
    for found in make(sys.argv[1]):
        print(found.kind, found.path, *found.expected, sep='\t')
