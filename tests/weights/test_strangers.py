"""engine/weights/: nothing in a file is run, no other file is read, no claim is believed."""
import os
import pickle
import subprocess
import sys
import zipfile

import h5py
import numpy
import pytest

import convertWeights
import hostileFiles
import weightWriters as ww
from smallSet import REPOSITORY
from weightSources import PLAIN, refused


class Evil:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


EVIL_PICKLES = [
    lambda path: pickle.dumps(Evil(path), 2),
    lambda path: pickle.dumps(Evil(path), 4),
    lambda path: pickle.dumps(Evil(path), 0),
    lambda path: pickle.dumps({'state_dict': {'features.0.weight': Evil(path)}}, 2),
    lambda path: ww.torch_pickle({}, extra=ww.text('x') + pickle.dumps(Evil(path), 2)[2:-1]),
    # names that look like PyTorch's own
    lambda path: b'\x80\x04' + b'\x8c\x05torch\x8c\x16serialization.os.mkdir\x93'
                 + ww.text(path) + b'\x85R.',
    lambda path: b'\x80\x02ctorch._utils\n_import_dotted_name\n' + ww.text('os') + b'\x85R.',
    lambda path: b'\x80\x02cbuiltins\neval\n' + ww.text(f'__import__("os").mkdir({path!r})')
                 + b'\x85R.',
    # opcodes that call without REDUCE
    lambda path: b'\x80\x02(' + ww.text(path) + b'ios\nmkdir\n.',
    lambda path: b'\x80\x02(cos\nmkdir\n' + ww.text(path) + b'o.',
    # an admitted name given something to call
    lambda path: b'\x80\x02ccollections\nOrderedDict\n)R(cos\nmkdir\n' + ww.text(path)
                 + b'\x85tb.']


@pytest.mark.parametrize('which', range(len(EVIL_PICKLES)))
@pytest.mark.parametrize('writer', [ww.write_torch, ww.write_legacy_torch])
def test_nothing_in_a_file_is_run(tmp_path, writer, which):
    trace = tmp_path / 'trace'
    data = EVIL_PICKLES[which](str(trace))
    writer(tmp_path / 'evil.pth', {}, data)
    message = refused(tmp_path / 'evil.pth', tmp_path)
    assert 'not read' in message or 'damaged' in message
    assert not trace.exists()


def test_the_evil_is_evil(tmp_path):
    """Without this the test above could pass for a file that is merely broken."""
    pickle.loads(EVIL_PICKLES[0](str(tmp_path / 'trace')))
    assert (tmp_path / 'trace').exists()


def test_the_stage_says_it_in_one_line(tmp_path):
    ww.write_torch(tmp_path / 'evil.pth', {}, EVIL_PICKLES[0](str(tmp_path / 'trace')))
    done = subprocess.run([sys.executable, convertWeights.__file__, str(tmp_path / 'evil.pth'),
                           '--root', str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert '.mkdir' in done.stderr and 'state_dict' in done.stderr


def test_pickled_arrays_and_links_out_of_the_file(tmp_path):
    numpy.savez(tmp_path / 'a.npz', conv1_1_W=numpy.array([Evil(str(tmp_path / 'trace'))]))
    refused(tmp_path / 'a.npz', tmp_path)
    assert not (tmp_path / 'trace').exists()
    # HDF5 and ONNX may name other files of this machine
    (tmp_path / 'secret').write_bytes(bytes(4000))
    with h5py.File(tmp_path / 'a.h5', 'w') as f:
        f.create_dataset('block1_conv1/kernel:0', (3, 3, 3, 5), 'f4',
                         external=[(str(tmp_path / 'secret'), 0, 4000)])
    assert 'another file' in refused(tmp_path / 'a.h5', tmp_path)
    folder = tmp_path / 'folder'
    folder.mkdir()
    ww.write_onnx(folder / 'a.onnx', PLAIN, '../secret')
    assert 'same folder' in refused(folder / 'a.onnx', folder)
    ww.write_onnx(folder / 'a.onnx', PLAIN, 'a.data')
    (folder / 'a.data').unlink()
    assert 'a.data, which is not there' in refused(folder / 'a.onnx', folder)


def test_compressed_zip(tmp_path):
    """A few bytes that unpack to gigabytes."""
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as f:
        f.writestr('archive/data.pkl', b'.' * 1_000_000)
    assert 'compressed' in refused(tmp_path / 'a.pth', tmp_path)


@pytest.mark.parametrize('size, stride, offset', [
    ((10 ** 9, 10 ** 9), (0, 0), 0), ((5,), (-1,), 4), ((5,), (1,), -3), ((6,), (1,), 0),
    ((2, 5), (1, 1), 0), ((5,), (2,), 0), ((3,), (1,), 3), ((2, 2), (4, 1), 0)])
def test_views_that_reach_out_of_their_numbers(tmp_path, size, stride, offset):
    data = (b'\x80\x02}(' + ww.text('features.0.bias')
            + b'ctorch._utils\n_rebuild_tensor_v2\n((' + ww.text('storage')
            + b'ctorch\nFloatStorage\n' + ww.text('0') + ww.text('cpu') + ww.integer(5) + b'tQ'
            + ww.integer(offset) + b'(' + b''.join(map(ww.integer, size)) + b't('
            + b''.join(map(ww.integer, stride)) + b't\x89NtRu.')
    ww.write_torch(tmp_path / 'a.pth', {'x': numpy.zeros(5, 'f4')}, data)
    assert 'damaged' in refused(tmp_path / 'a.pth', tmp_path)


def test_too_little_memory_is_one_line(tmp_path):
    numpy.savez(tmp_path / 'a.npz', **{f'{name}/W': parts['weight']
                                       for name, parts in PLAIN.items()})
    done = subprocess.run([
        sys.executable, '-c', 'import resource, runpy, sys; import convertWeights;'
        'resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, -1)); sys.argv = sys.argv[1:];'
        'runpy.run_path(sys.argv[0], run_name="__main__")', convertWeights.__file__,
        tmp_path / 'a.npz', '--root', tmp_path, '--hidden', '100000'], capture_output=True,
        text=True, cwd=REPOSITORY)
    assert done.returncode == 1 and done.stderr.startswith('error: not enough memory (')
    assert done.stderr.count('\n') == 1


def test_claims_cost_nothing(tmp_path):
    """In a process of its own, which some of these files would take down with them."""
    done = subprocess.run([sys.executable, hostileFiles.__file__, str(tmp_path)],
                          env=dict(os.environ, PYTHONPATH=str(REPOSITORY)), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    *lines, memory = done.stdout.splitlines()
    assert len(lines) > 60
    assert [line for line in lines if not line.endswith((': refused', ': no arrays'))] == [
        'many names.safetensors: 20000 arrays']
    assert int(memory.split()[0]) < 1000
