"""Reads the arrays of a network from the files that other frameworks write.

    form, arrays = read_weights('vgg16-397923af.pth')

Nothing in a file is ever run. Every length and offset in it is checked against the file
before it is believed, and a Budget (limits.py) bounds what its reading may cost. What the names
mean is the business of layernames.py.
"""
import os
from pathlib import Path

from engine.errors import UserError
from engine.weights.caffefile import read_caffe
from engine.weights.kerasfile import read_hdf5
from engine.weights.limits import DAMAGE, Budget, open_zip, reason_of
from engine.weights.npzfile import open_npz
from engine.weights.onnxfile import read_onnx
from engine.weights.safetensorsfile import read_safetensors
from engine.weights.torchfile import LEGACY_START, read_torch

FORMS = ('PyTorch .pth', '.safetensors', 'Keras .h5', 'Caffe .caffemodel', 'ONNX .onnx',
         'NumPy .npz')


def read_weights(path):
    """Reads a file of weights in any of FORMS, told by its content.

    Returns:
        (form, arrays): arrays is {name: NumPy array} and form says how they lie:
        'torch'   (out, in, h, w) and (out, in); names as in the state dict. ONNX too:
                  conv.0.weight, linear.0.bias ... by their place in the graph.
        'chainer' the same, names conv1_1/W and conv1_1/b. Caffe too.
        'keras'   (h, w, in, out) and (in, out).

    Raises:
        UserError: one line that names the file and says what is wrong with it.
    """
    path = Path(path)
    try:
        with open(path, 'rb') as f:
            start = f.read(1024)
        size = os.path.getsize(path)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}; see --download') from None
    try:
        form, reader = _kind(path, start, size)
        arrays = reader(path, Budget())
        if not all(len(name) < 300 and name.isprintable() for name in arrays):
            raise ValueError('an array has no proper name')
    except UserError as error:
        # it may quote the file, and what the file says goes to a terminal
        raise UserError(''.join(c if c.isprintable() else '?' for c in str(error)[:600])) from None
    except DAMAGE as error:
        raise UserError(f'{path}: damaged or cut off ({reason_of(error)}); '
                        'fetch it again') from None
    if form is None:
        form = 'chainer' if any(name.endswith('/W') for name in arrays) else 'keras'
    return form, arrays


def _kind(path, start, size):
    """(form, reader) by the first bytes; the form is None where the names will tell."""
    if start.startswith(b'PK'):
        with open_zip(path) as archive:
            arrays = any(name.endswith('.npy') for name in archive.namelist())
        return (None, _read_npz) if arrays else ('torch', read_torch)
    if start.startswith(LEGACY_START):
        return 'torch', read_torch
    if start.startswith(b'\x89HDF\r\n\x1a\n'):
        return None, read_hdf5
    if start[8:9] == b'{' and len(start) > 8:
        return 'torch', read_safetensors
    if path.suffix == '.safetensors':
        length = int.from_bytes(start[:8], 'little')
        raise UserError(f'{path}: not safetensors: its header should be {length} bytes of '
                        'JSON; fetch it again')
    if start[:1] == b'<' or start.startswith(b'version https://git-lfs'):
        what = 'a web page' if start[:1] == b'<' else 'a Git LFS pointer'
        raise UserError(f'{path}: {what} in place of the weights; fetch the file itself')
    if not size:
        raise UserError(f'{path}: empty; fetch it again')
    # These two say nothing of themselves at their start.
    if path.suffix == '.caffemodel':
        return 'chainer', read_caffe
    if path.suffix == '.onnx':
        return 'torch', read_onnx
    raise UserError(f'{path}: none of {", ".join(FORMS)}, or its first bytes are damaged')


def _read_npz(path, budget):
    with open_npz(path, budget) as source:
        return {name: source[name] for name in source if name != 'card'}
