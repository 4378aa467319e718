"""HDF5 files where there are no locks, in others' hands, damaged, or made to harm."""
import errno
import fcntl
import os
import shutil
import subprocess
import sys

import h5py
import numpy
import pytest

import smallSet
from engine import hdf5
from engine.errors import UserError
from smallSet import REPOSITORY

CLIP = numpy.arange(12, dtype='f4').reshape(3, 4) + 1


@pytest.fixture
def path(tmp_path):
    with hdf5.writing(tmp_path / 'a.hdf5') as (f,):
        f.add('clip', CLIP)
        f.add_names('missing', ['x', 'é'])
        f.tell(classes='["A"]', split=1)
    return tmp_path / 'a.hdf5'


def read(path):
    with hdf5.open_hdf5(path, 'make it') as f:
        return hdf5.read(f, 'clip', 'make it')


def test_what_was_written_is_read_by_name(path):
    numpy.testing.assert_array_equal(read(path), CLIP)
    with hdf5.open_hdf5(path, '') as f:
        assert hdf5.read_names(f, 'missing') == ['x', 'é'] and hdf5.clip_names(f) == ['clip']
        numpy.testing.assert_array_equal(hdf5.read(f, 'clip', '', slice(1, 2)), CLIP[1:2])
        assert hdf5.data_set(f, 'other', '') is None and hdf5.data_set(f, '.', '') is None
        assert hdf5.attributes(f) == {'classes': '["A"]', 'split': 1}


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks(path, tmp_path, number):
    compiler = shutil.which('cc')
    if not compiler:
        pytest.skip('no C compiler')
    (tmp_path / 'no.c').write_text('#include <errno.h>\n'
                                   f'int flock(int f, int o) {{ errno = {number}; return -1; }}\n')
    subprocess.run([compiler, '-shared', '-fPIC', '-o', tmp_path / 'no.so', tmp_path / 'no.c'],
                   check=True)
    code = ('import sys, numpy\nfrom engine import hdf5\n'
            'with hdf5.open_hdf5(sys.argv[1], "") as f: print(hdf5.read(f, "clip", "").sum())\n'
            'with hdf5.open_file(sys.argv[1], "r+") as f: f["clip"][0, 0] = 2\n'
            'with hdf5.writing(sys.argv[2]) as (f,): f.add("b", numpy.ones((2, 2)))\n')
    done = subprocess.run([sys.executable, '-c', code, path, tmp_path / 'b.hdf5'],
                          cwd=REPOSITORY, capture_output=True, text=True,
                          env=dict(os.environ, LD_PRELOAD=str(tmp_path / 'no.so')))
    assert (done.returncode, done.stdout) == (0, f'{CLIP.sum()}\n'), done.stderr
    assert (tmp_path / 'b.hdf5').exists()


def test_a_file_in_use_is_named_so(path):
    with open(path, 'rb') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='in use') as error:
            read(path)
    assert 'make it' not in str(error.value)


def test_what_cannot_be_opened_is_not_made_again(path):
    with pytest.raises(UserError, match='Is a directory|cannot be read'):
        read(path.parent)
    with pytest.raises(UserError, match='made by: make it'):
        read(path.with_name('none'))


@pytest.mark.parametrize('where', [CLIP.tobytes(), b'clip'])
def test_a_changed_byte_is_seen(path, where):
    data = bytearray(path.read_bytes())
    data[data.index(where) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match='make it'):
        read(path)


def soft(f, other):
    f['clip'] = h5py.SoftLink('/inside')


def external_link(f, other):
    f['clip'] = h5py.ExternalLink(str(other), 'secret')


def external_storage(f, other):
    f.create_dataset('clip', shape=(3, 4), dtype='f4', external=[(str(other), 0, 48)])


def virtual(f, other):
    layout = h5py.VirtualLayout((3, 4), 'f4')
    layout[:] = h5py.VirtualSource(str(other), 'secret', (3, 4))
    f.create_virtual_dataset('clip', layout)


def references(f, other):
    f.create_dataset('clip', data=numpy.array([[f.ref]], h5py.ref_dtype), dtype=h5py.ref_dtype)


def variable_length(f, other):
    f.create_dataset('clip', (1, 1), h5py.vlen_dtype('f4'))[0, 0] = numpy.ones(3, 'f4')


def contiguous_terabytes(f, other):
    f.create_dataset('clip', (2 ** 40, 4), 'f4')


def chunked_terabytes(f, other):
    f.create_dataset('clip', (2 ** 40, 4), 'f4', chunks=(2 ** 10, 4), compression='gzip')[:1] = 1


def unknown_filter(f, other):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((3, 4))
    layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # Zstandard
    h5py.h5d.create(f.id, b'clip', h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((3, 4)), layout)


def empty(f, other):
    f['clip'] = h5py.Empty('f4')


@pytest.mark.parametrize('make, reason', [
    (soft, 'link'), (external_link, 'link'), (external_storage, 'another file'),
    (virtual, 'another file'), (references, 'neither numbers'),
    (variable_length, 'neither numbers'), (contiguous_terabytes, 'claims'),
    (chunked_terabytes, 'claims'), (unknown_filter, 'filter'), (empty, 'is empty'),
    (lambda f, other: f.create_group('clip'), 'is no data set'),
    (lambda f, other: f.create_dataset('clip', data=[[1]]), 'floating-point')])
def test_what_leads_elsewhere_or_claims_too_much_is_not_read(tmp_path, make, reason):
    with h5py.File(tmp_path / 'other.hdf5', 'w') as f:
        f['secret'] = CLIP
    with h5py.File(tmp_path / 'a.hdf5', 'w') as f:
        f['inside'] = CLIP
        make(f, tmp_path / 'other.hdf5')
    with pytest.raises(UserError, match=f'a.hdf5: clip .*{reason}') as error:
        read(tmp_path / 'a.hdf5')
    assert '\n' not in str(error.value)


def test_packed_by_filters_of_hdf5_is_read(tmp_path):
    zeros = numpy.zeros((1000, 1000), 'f4')  # packed to a thousandth
    for options in ({'compression': 'gzip', 'shuffle': True, 'fletcher32': True},
                    {'compression': 'lzf'}):
        with h5py.File(tmp_path / 'a.hdf5', 'w') as f:
            f.create_dataset('clip', data=zeros, **options)
        numpy.testing.assert_array_equal(read(tmp_path / 'a.hdf5'), zeros)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    class Full(hdf5._Output):
        left = 20000

        def _write_all(self, view):
            self.left -= len(view)
            if self.left < 0:
                raise OSError(errno.ENOSPC, 'No space left on device')
            super()._write_all(view)
    monkeypatch.setattr(hdf5, '_Output', Full)
    for size in (300, 4000):  # as a later clip is written, and the first
        with pytest.raises(UserError, match='No space left'):
            with hdf5.writing(tmp_path / 'a.hdf5', tmp_path / 'b.hdf5') as (a, b):
                for number in range(30):
                    a.add(str(number), numpy.ones((size, 4), 'f4'))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name, value', [
    ('split', '1'), ('split', -1), ('split', [1, 2]), ('split', 1.5), ('n_features', 'many'),
    ('classes', 7), ('classes', ['a', 'b']), ('model_sha256', 3), ('maps', 5), ('maps', 'abc'),
    ('maps', [1.5, 1, 1]), ('maps', [4, 1])])
def test_what_a_file_says_of_itself_is_of_the_kind_that_stages_write(path, name, value):
    with h5py.File(path, 'r+') as f:
        smallSet.say(f, **{name: value})
    with pytest.raises(UserError, match=f'a.hdf5: its {name} is .*; make it again'):
        hdf5.open_hdf5(path, 'make it').close()


def test_a_damaged_heap_of_texts_is_not_read(path):
    with hdf5.open_hdf5(path, '') as f:
        expected = hdf5.attributes(f)
    data = bytearray(path.read_bytes())
    heap = data.index(b'GCOL')
    data[heap:heap + 256] = b'\xff' * 256
    path.write_bytes(data)
    with hdf5.open_hdf5(path, '') as f:
        assert hdf5.attributes(f) == expected and expected['classes'] == '["A"]'


def test_damaged_texts_are_refused(path):
    data = path.read_bytes()
    assert data.count(b'{"classes"') == 1
    path.write_bytes(data.replace(b'{"classes"', b'{"claases"'))
    with pytest.raises(UserError, match='a.hdf5: '):
        hdf5.open_hdf5(path, 'make it').close()
