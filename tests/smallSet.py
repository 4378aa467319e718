"""24 clips of a few frames and a small random network: enough to run every stage."""
import os
import subprocess
import sys
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy

import helperFunctions as hf
from engine import variants
from VGGNet import VGGNet
from VGGNet_1024 import VGGNet_1024
from engine.weights.modelfile import save_model

REPOSITORY = Path(__file__).resolve().parent.parent
N_FEATURES = 16


def run(*command, env=None, timeout=120, **options):
    """Runs a command from the repository; returns its CompletedProcess with text."""
    return subprocess.run([str(word) for word in command], cwd=REPOSITORY, timeout=timeout,
                          env=dict(env or os.environ, PYTHON=sys.executable),
                          capture_output=True, text=True, **options)


def run_stage(script, *flags, **options):
    """Runs one of the stages with this Python."""
    return run(sys.executable, REPOSITORY / script, *flags, **options)


def make_set(root):
    """Writes clips, lists and VGG_1024.model under root."""
    done = run_stage('demo.py', 'clips', '--root', root, '--groups', 3, '--clips-per-group', 1,
                 '--shortest', 8, '--longest', 12)
    assert done.returncode == 0, done.stderr
    save_random_model(root)


def save_random_model(root, seed=0):
    """Writes a VGG_1024.model of random weights for the lists under root."""
    numpy.random.seed(seed)
    lists = hf.read_lists(root)
    model = VGGNet_1024((8, 8, 8, 8, 8), 32, len(lists.classes), 32, N_FEATURES)
    held_out = hf.hold_out_groups(lists.train)[1]
    save_model(root / variants.FRAME_MODEL, model, {
        'kind': 'frames', 'shape': model.shape, 'classes': lists.classes,
        'held_out': sorted(clip.name for clip in held_out)})


def vgg_set(source, root, hidden=32, mean=None):
    """Makes a root with clips and lists of another one and a random VGG.model, which takes frames
    less `mean` (three numbers; default: the usual one); returns it."""
    root.mkdir(parents=True)
    for name in (variants.CLIPS, variants.LISTS):
        (root / name).symlink_to(source / name)
    numpy.random.seed(0)
    vgg = VGGNet((8, 8, 8, 8, 8), hidden, 10, 32)
    save_model(root / variants.VGG_MODEL, vgg, {
        'kind': 'VGG', 'shape': vgg.shape,
        **({'preprocessing': {'mean': list(mean)}} if mean else {})})
    return root


def copy_set(source, root):
    """Makes a root with clips, lists and model of another one, and no features; returns it."""
    root.mkdir(parents=True)
    for name in (variants.CLIPS, variants.LISTS, variants.FRAME_MODEL):
        (root / name).symlink_to(source / name)
    return root


def features(root):
    """{path under root: bytes} of all .npy files of stage 2."""
    return {str(path.relative_to(root)): path.read_bytes()
            for folder in (variants.FEATURES, variants.FRAME_PREDICTIONS)
            for path in sorted((root / folder).rglob('*.npy'))}


def say(f, **texts):
    """Changes what an open HDF5 file says of itself, in the form of files made before."""
    f.attrs.update(texts)
    f.attrs.pop('texts', None)
