"""Files of weights of a few kilobytes to a few megabytes that would cost a careless reader
gigabytes, hours or its stack.

    PYTHONPATH=. python tests/hostileFiles.py FOLDER      # writes them there and reads each
"""
import json
import re
import resource
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy

import weightWriters as ww
from engine.errors import UserError
from engine.weights.weightfiles import read_weights

MANY = 100_000
LEGACY_HEAD = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.' \
              b'\x80\x02}X\r\0\0\0little_endian\x88s.'


def tensor(key=b'X\1\0\0\x000', numel=4, offset=b'K\0', size=b'K\4\x85', stride=b'K\1\x85',
           storage=b'FloatStorage'):
    """The opcodes of one tensor."""
    return (b'ctorch._utils\n_rebuild_tensor_v2\n(' + b'(' + ww.text('storage') + b'ctorch\n'
            + storage + b'\n' + key + ww.text('cpu') + ww.integer(numel) + b'tQ' + offset + size
            + stride + b'\x89}tR')


def deep(n, opcode=b'\x85'):
    return b')' + opcode * n


def pickles():
    """Name -> a pickle in the place of a state dict."""
    entry = b'\x80\x02}' + ww.text('features.0.bias')
    return {
        'deep tuple as a key': b'\x80\x02}' + deep(MANY) + b'K\1s.',
        'deep tuple as a key of pairs': b'\x80\x02ccollections\nOrderedDict\n](' + deep(MANY)
            + b'K\1\x86e\x85R.',
        'deep tuple as a storage': entry + tensor(key=deep(MANY)) + b's.',
        'deep tuple in a shape': entry + tensor(size=deep(MANY), stride=deep(MANY)) + b's.',
        'deep lists': b'\x80\x02}' + ww.text('a') + b']' * MANY + b'a' * (MANY - 1) + b's.',
        'deep dictionaries': b'\x80\x02' + (b'}' + ww.text('a')) * 50_000 + b'}'
            + b's' * 50_000 + b'.',
        'a list in itself': b'\x80\x02]q\0h\0a.',
        'a dictionary in itself': b'\x80\x02}q\0' + ww.text('a') + b'h\0s.',
        'dictionaries of one another': b'\x80\x02}q\0' + ww.text('a') + b'}q\1' + ww.text('b')
            + b'h\0ss.',
        'doubling lists': b'\x80\x02]' + b''.join(
            b'q' + bytes([i]) + b'](h' + bytes([i]) + b'h' + bytes([i]) + b'e'
            for i in range(200)) + b'.',
        'pairs copied again and again': b'\x80\x02](' + (b'X\1\0\0\0aK\1\x86' * 5000) + b'eq\0('
            + b'ccollections\nOrderedDict\nh\0\x85R' * 5000 + b'l.',
        'pairs copied into a tuple': b'\x80\x02](' + (b'X\1\0\0\0aK\1\x86' * 5000) + b'eq\0('
            + b'ccollections\nOrderedDict\nh\0\x85R' * 5000 + b't.',
        'a million marks': b'\x80\x02' + b'(' * 600_000 + b'.',
        'a million numbers': b'\x80\x02(' + b'K\1' * 600_000 + b't.',
        'a shape of large numbers': entry + tensor(
            size=b'(' + (b'\x8a\xff' + b'\x7f' * 255) * 20_000 + b't',
            stride=b'(' + b'K\0' * 20_000 + b't') + b's.',
        'a shape of 64 numbers': entry + tensor(size=b'(' + b'K\1' * 65 + b't',
                                                stride=b'(' + b'K\1' * 65 + b't') + b's.',
        'a long number': b'\x80\x02\x8b' + struct.pack('<i', 3_000_000) + b'\x7f' * 3_000_000
            + b'.',
        'a number in digits': b'\x80\x02L' + b'9' * 3_000_000 + b'L\n.',
        'a text of gigabytes': b'\x80\x02X\xff\xff\xff\xffabc.',
        'a text of exabytes': b'\x80\x04\x8d' + b'\xff' * 7 + b'\x0fabc.',
        'a large memo': b'\x80\x02Nr\xff\xff\xff\xff' * 1000 + b'.',
        'many views of one storage': b'\x80\x02}(' + b''.join(
            ww.text(f'features.{i}.bias')
            + tensor(numel=50_000, size=ww.integer(50_000) + b'\x85',
                     storage=b'BFloat16Storage')
            for i in range(20_000)) + b'u.',
        'a storage of terabytes': entry + tensor(numel=2 ** 31 - 1,
                                                 size=ww.integer(2 ** 31 - 1) + b'\x85') + b's.',
        'all of one number': entry + tensor(size=b'J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86',
                                            stride=b'K\0K\0\x86') + b's.',
    }


def write_zip(path, data, storage=bytes(200_000)):
    with zipfile.ZipFile(path, 'w') as f:
        f.writestr('archive/data.pkl', data)
        f.writestr('archive/data/0', storage)


def write_overlapping(path):
    """A thousand storages, each of which holds all that come behind it in the file."""
    n, numel = 1000, 1 << 20
    data = b'\x80\x02}(' + b''.join(
        ww.text(f'features.{i}.bias') + tensor(key=ww.text(str(i)), numel=numel,
                                               size=ww.integer(numel) + b'\x85')
        for i in range(n)) + b'u.'
    with zipfile.ZipFile(path, 'w') as f:
        f.writestr('archive/data.pkl', data)
        for i in range(n):
            f.writestr(f'archive/data/{i}', b'')
        end = f.fp.tell()
        f.fp.write(bytes(4 * numel))
        for info in f.infolist()[1:]:
            info.compress_size = info.file_size = 4 * numel + end - info.header_offset
        f.start_dir = f.fp.tell()


def npy(shape, data=b'', dtype='<f4'):
    head = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b'\x93NUMPY\1\0' + struct.pack('<H', len(head)) + head + data


def write_npz(path, entries, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', kind) as f:
        for name, data in entries.items():
            f.writestr(name, data)


def zips(folder):
    write_overlapping(folder / 'overlapping storages.pth')
    with zipfile.ZipFile(folder / 'a table of contents alone.npz', 'w') as f:
        for i in range(9_000):
            f.writestr(zipfile.ZipInfo(f'{i:0500}.npy'), b'')
    zeros = npy((1 << 25,)) + bytes(1 << 27)
    packed = zlib.compress(zeros, 1, -15)
    with zipfile.ZipFile(folder / 'zeros.npz', 'w') as f:
        for i in range(17):
            f.writestr(f'conv1_{i}_W.npy', packed)
            info = f.infolist()[-1]
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(zeros)
            info.CRC = zlib.crc32(zeros)
    write_npz(folder / 'a claim of terabytes.npz', {'conv1_1_W.npy': npy((10 ** 12,))})
    write_npz(folder / 'a negative claim.npz', {'conv1_1_W.npy': npy((-1, -1), bytes(4))})
    write_npz(folder / 'a header too deep.npz', {'a.npy': npy('(' * 4000 + ')' * 4000)})
    write_npz(folder / 'a header of minus signs.npz', {'a.npy': npy('-' * 9000 + '1')})
    write_npz(folder / 'a header of digits.npz', {'a.npy': npy('9' * 9000)})
    write_npz(folder / 'objects.npz', {'a.npy': npy((1,), b'cos\nsystem\n.', '|O')})
    write_npz(folder / 'a deep dtype.npz', {'a.npy': npy((1,), bytes(4), [('a', '<f4')])})
    with zipfile.ZipFile(folder / 'one name twice.npz', 'w') as f:
        for name in ('conv1_1_W.npy', 'conv1_2_W.npy'):
            f.writestr(name, npy((1,), bytes(4)))
        f.infolist()[1].filename = 'conv1_1_W.npy'


def hdf5s(folder):
    def new(name):
        return h5py.File(folder / f'{name}.h5', 'w', libver='latest')
    with new('groups in one another') as f:
        group = f
        for _ in range(20_000):
            group = group.create_group('g')
    with new('a group in itself') as f:
        f['a/b'] = 1.
        f['a/c'] = f['a']
    with new('many groups') as f:
        for i in range(20_000):
            f.create_group(str(i))
    with new('a sparse terabyte') as f:
        f.create_dataset('conv1_1/kernel:0', (1 << 20, 1 << 18), 'f4', chunks=(1 << 10, 1 << 10))
    with new('zeros') as f:
        piece = zlib.compress(bytes(1 << 24), 1)
        for i in range(3):
            data = f.create_dataset(f'block1_conv{i}/kernel:0', (1 << 26,), 'f4',
                                    chunks=(1 << 22,), compression='gzip')
            for start in range(0, 1 << 26, 1 << 22):
                data.id.write_direct_chunk((start,), piece)
            for again in range(3):
                f[f'{again} of {i}'] = data
    with new('a vlen text') as f:
        f.create_dataset('a', data=['x' * 1000] * 1000)
    (folder / 'secret').write_bytes(bytes(4000))
    with h5py.File(folder / 'secret.h5', 'w') as f:
        f['block1_conv1/kernel:0'] = numpy.ones((3, 3, 3, 5), 'f4')
    with new('an external link') as f:
        f['model_weights'] = h5py.ExternalLink('secret.h5', '/')
    with new('an external link inside') as f:
        f['block1_conv1'] = h5py.ExternalLink('secret.h5', '/block1_conv1')
    with new('numbers elsewhere') as f:
        f.create_dataset('block1_conv1/kernel:0', (3, 3, 3, 5), 'f4',
                         external=[(str(folder / 'secret'), 0, 4000)])
    with new('a virtual data set') as f:
        layout = h5py.VirtualLayout((3, 3, 3, 5), 'f4')
        layout[...] = h5py.VirtualSource(str(folder / 'secret.h5'), 'block1_conv1/kernel:0',
                                         (3, 3, 3, 5))
        f.create_virtual_dataset('block1_conv1/kernel:0', layout)


def messages(folder):
    (folder / 'a number without end.onnx').write_bytes(
        ww.field(7, ww.field(5, ww.field(1, b'\xff' * 2_000_000) + ww.field(2, 1))))
    (folder / 'a tag without end.onnx').write_bytes(b'\xff' * 2_000_000)
    (folder / 'millions of fields.onnx').write_bytes(b'\x08\x00' * 600_000)
    (folder / 'millions of fields.caffemodel').write_bytes(b'\x08\x00' * 600_000)
    (folder / 'a shape of millions.onnx').write_bytes(
        ww.field(7, ww.field(5, ww.field(1, b'\1' * 600_000) + ww.field(2, 1))))
    (folder / 'large sides.onnx').write_bytes(ww.field(7, ww.field(5, ww.field(
        1, (b'\xff' * 8 + b'\x7f') * 100_000) + ww.field(2, 1) + ww.field(8, 'w')
        + ww.field(9, bytes(8)))))
    beside = b''.join(ww.field(13, ww.field(1, key) + ww.field(2, value))
                      for key, value in (('location', 'beside'), ('offset', '0')))
    (folder / 'beside').write_bytes(bytes(1 << 20))
    one = ww.field(1, 1 << 19) + ww.field(2, 16) + beside + ww.field(14, 1)
    (folder / 'one place ten thousand times.onnx').write_bytes(ww.field(7, b''.join(
        ww.field(5, one + ww.field(8, f'w{i}')) for i in range(10_000))))
    (folder / 'blobs of one byte.caffemodel').write_bytes(ww.field(100, ww.field(
        1, 'conv1_1') + ww.field(7, b'\x2d\0\0\0\0' * 600_000)))


def safetensors(folder):
    def write(name, header):
        (folder / f'{name}.safetensors').write_bytes(struct.pack('<Q', len(header)) + header)
    entry = '"dtype": "F32", "data_offsets": [0, 0]'
    write('a deep header', b'{"a":' + b'[' * MANY + b']' * MANY + b'}')
    write('a number of digits', b'{"a": {"shape": [' + b'9' * 1_000_000 + b'], %s}}'
          % entry.encode())
    write('many sides', json.dumps({'a': {'dtype': 'F32', 'data_offsets': [0, 0],
                                          'shape': [10 ** 15] * 100_000 + [0]}}).encode())
    write('many names', json.dumps({str(i): {'dtype': 'F32', 'data_offsets': [0, 0],
                                             'shape': [0]} for i in range(20_000)}).encode())
    (folder / 'a header of terabytes.safetensors').write_bytes(b'\xff' * 6 + b'\0\0{"a": 1}')
    write('a claim of terabytes', b'{"a": {"dtype": "F32", "shape": [1000000000000], '
          b'"data_offsets": [0, 4000000000000]}}')


def make_all(folder):
    """Writes all of them."""
    helpers = {'secret', 'secret.h5', 'beside'}
    for name, data in pickles().items():
        write_zip(folder / f'{name}.pth', data)
    (folder / 'deep tuple as a legacy key.pth').write_bytes(
        LEGACY_HEAD + b'\x80\x02}.\x80\x02](' + deep(MANY) + b'e.')
    (folder / 'a legacy length of exabytes.pth').write_bytes(
        LEGACY_HEAD + b'\x80\x02}' + ww.text('a') + tensor() + b's.\x80\x02](X\1\0\0\x000e.'
        + b'\xff' * 7 + b'\x7f')
    for write in (zips, hdf5s, messages, safetensors):
        write(folder)
    return sorted(path for path in folder.iterdir() if path.name not in helpers)


def main(folder):
    """Writes and reads each; says which was not refused in one line, and the memory all took."""
    for path in make_all(folder):
        try:
            arrays = read_weights(path)[1]
            said = 'no arrays' if not arrays else f'{len(arrays)} arrays'
        except UserError as error:
            said = 'refused' if str(path) in str(error) and str(error).isprintable() else error
        print(f'{path.name}: {said}')
    print(most_memory() // 1024, 'MB')


def most_memory():
    """KiB that this program has had at most; getrusage would count who started it, too."""
    try:
        status = Path('/proc/self/status').read_text()
        return int(re.search(r'VmHWM:\s+(\d+)', status)[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == '__main__':
    main(Path(sys.argv[1]))
