"""Reads the arrays of a network from the files that other frameworks write.

    form, arrays, notes = read_weights('vgg16-397923af.pth')

Nothing in a file is ever run. Every length and offset in it is checked against the file
before it is believed, and a Budget (limits.py) bounds what its reading may cost. What the names
mean is the business of layernames.py.
"""
import os
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.weights.caffefile import read_caffe
from engine.weights.kerasfile import ARCHIVED, read_hdf5, read_keras_archive
from engine.weights.limits import DAMAGE, Budget, open_zip, reason_of
from engine.weights.card import CARD, notes_of
from engine.weights.npzfile import open_npz
from engine.weights.onnxlayers import read_onnx
from engine.weights.safetensorsfile import read_safetensors
from engine.weights.torchfile import LEGACY_START, read_torch

FORMS = ('PyTorch .pth', '.safetensors', 'Keras .h5 or .keras', 'Caffe .caffemodel', 'ONNX .onnx',
         'NumPy .npz')
UNPACK = 'unpack it and give what is in it'
# What is found in place of weights, by its first bytes, and the way on.
OTHERS = {
    b'version https://git-lfs': (
        'a Git LFS pointer in place of the weights',
        'fetch the file itself: git lfs pull, or the download link of its page'),
    b'\x1f\x8b': ('packed by gzip', UNPACK), b'BZh': ('packed by bzip2', UNPACK),
    b'\xfd7zXZ': ('packed by xz', UNPACK), b'\x28\xb5\x2f\xfd': ('packed by zstd', UNPACK),
    b'7z\xbc\xaf': ('a 7z archive', UNPACK), b'Rar!': ('a RAR archive', UNPACK),
    b'MATLAB': ('a MATLAB file', 'fetch the weights in another form: --download'),
    b'\x93NUMPY': (
        'a single .npy, of pickled objects if it is a whole network',
        'where you trust it, load it in Python and numpy.savez its arrays as NAME__kernel and '
        'NAME__bias'),
    b'GGUF': ('GGUF', 'fetch the weights in another form: --download')}


class Weights(NamedTuple):
    """What a file holds.

    `form` says how its arrays, {name: NumPy array}, lie:
        'torch'   (out, in, h, w) and (out, in); names as in the state dict, with the keys of
                  dictionaries around it and / before. ONNX too: conv1_1.weight ... fc8.bias.
        'chainer' the same, names conv1_1/W and conv1_1/b. Caffe too.
        'keras'   (h, w, in, out) and (in, out).
    `notes` is what else the file tells: of ONNX what read_onnx says, of Keras 'other_layers',
    names of kinds that may change the input, or 'unread_layers'; of a model of this project's
    own 'card'.
    """
    form: str
    arrays: dict
    notes: dict


def read_weights(path, top=True):
    """Reads a file of weights in any of FORMS, told by its content.

    Args:
        top (bool): False leaves out what stands behind the convolutions where a graph is to be
            followed (ONNX), whatever it is.

    Returns:
        Weights.

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
        weights = _read(path, _kind(path, start, size), top)
        for name, array in weights.arrays.items():
            if len(name) > 300 or not name.isprintable():
                raise ValueError('an array has no proper name')
            if array.dtype.kind not in 'fiub':
                raise ValueError(f'{name} holds {array.dtype}, not numbers')
        return weights
    except UserError as error:
        # it may quote the file, and what the file says goes to a terminal
        raise UserError(''.join(c if c.isprintable() else '?' for c in str(error)[:600])) from None
    except DAMAGE as error:
        raise UserError(f'{path}: damaged or cut off ({reason_of(error)}); '
                        'fetch it again') from None


def _read(path, kind, top):
    """The Weights of a file of a known kind."""
    budget = Budget()
    if kind == 'torch':
        return Weights('torch', read_torch(path, budget), {})
    if kind == 'safetensors':
        return Weights('torch', read_safetensors(path, budget), {})
    if kind == 'onnx':
        return Weights('torch', *read_onnx(path, budget, top))
    if kind == 'caffe':
        return Weights('chainer', read_caffe(path, budget), {})
    arrays, notes = {'hdf5': read_hdf5, 'keras': read_keras_archive,
                     'npz': _read_npz}[kind](path, budget)
    for form, end in (('chainer', '/W'), ('torch', '.weight')):  # a state dict, by numpy.savez
        if any(name.endswith(end) for name in arrays):
            return Weights(form, arrays, notes)
    return Weights('keras', arrays, notes)


def _read_npz(path, budget):
    with open_npz(path, budget) as source:
        names = [name for name in source if name != CARD]
        budget.take(size=sum(map(source.size, names)))
        return {name: source[name] for name in names}, notes_of(source)


def _kind(path, start, size):
    """What a file is, by its first bytes."""
    if start.startswith(b'PK'):
        return _kind_of_zip(path)
    if start.startswith(LEGACY_START):
        return 'torch'
    if start.startswith(b'\x89HDF\r\n\x1a\n'):
        return 'hdf5'
    if start[8:9] == b'{' and len(start) > 8:
        return 'safetensors'
    _refuse_others(path, start, size)
    # These two say nothing of themselves at their start.
    if path.suffix == '.caffemodel':
        return 'caffe'
    if path.suffix == '.onnx':
        return 'onnx'
    raise UserError(f'{path}: none of {", ".join(FORMS)}, or its first bytes are damaged')


def _kind_of_zip(path):
    if not zipfile.is_zipfile(path):
        raise ValueError('the table of contents at its end is missing')
    with open_zip(path) as archive:
        names = archive.namelist()
    if any(name.endswith('.npy') for name in names):
        return 'npz'
    if ARCHIVED in names:
        return 'keras'
    if any(name.endswith('data.pkl') for name in names):
        if any(re.search('(^|/)(code/|constants.pkl$)', name) for name in names):
            raise UserError(f'{path}: TorchScript (torch.jit.save), which is a program; where you '
                            'trust it, in Python: torch.save(torch.jit.load(FILE).state_dict(), '
                            '"weights.pth")')
        return 'torch'
    raise UserError(f'{path}: a zip, but not of tensors: it holds '
                    f'{", ".join(sorted(names)[:3]) or "nothing"}; if the weights are in it, '
                    + UNPACK)


def _refuse_others(path, start, size):
    """Names what is no weights at all."""
    for begin, (what, way_on) in OTHERS.items():
        if start.startswith(begin):
            raise UserError(f'{path}: {what}; {way_on}')
    text = start.removeprefix(b'\xef\xbb\xbf').lstrip()
    if text.startswith(b'<'):
        raise UserError(f'{path}: a web page in place of the weights; fetch the file itself')
    if not size:
        raise UserError(f'{path}: empty; fetch it again')
    if start[:1] == b'\x80' and start[1:2] in b'\2\3\4\5':
        raise UserError(f'{path}: a pickle that torch.save did not write; not read; where you '
                        'trust it, load it in Python and numpy.savez its arrays')
    if start[257:262] == b'ustar':
        raise UserError(f'{path}: a tar archive; {UNPACK}')
    if path.suffix == '.safetensors':
        length = int.from_bytes(start[:8], 'little')
        raise UserError(f'{path}: not safetensors: its header should be {length} bytes of '
                        'JSON; fetch it again')
    if text and all(32 <= byte < 127 or byte in b'\r\n\t' for byte in text):
        raise UserError(f'{path}: a text in place of the weights: '
                        f'"{text.decode().splitlines()[0][:80]}"; fetch the file itself')
