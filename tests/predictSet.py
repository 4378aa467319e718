"""Videos to predict, a root with both networks, and a look at what is drawn."""
import contextlib
import io
import json
import re
import subprocess
import sys

import engine.chainer_today  # noqa: F401  (before chainer)
import imageio_ffmpeg
import numpy

import predict
from RNNNet import RNNNet
from engine import variants
from engine.video.container import shape_of
from engine.weights.card import read_card, weights_digest
from engine.weights.modelfile import save_model
from smallSet import N_FEATURES, copy_set

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*flags):
    subprocess.run([FFMPEG, '-v', 'error', '-y', *map(str, flags)], check=True)


def draw(path, *flags, frames=50, size='96x64', rate=25, sound=True):
    """A test picture that moves, with a tone as long."""
    tone = ['-f', 'lavfi', '-i', f'sine=duration={frames / rate}'] if sound else []
    ffmpeg('-f', 'lavfi', '-i', f'testsrc=size={size}:rate={rate}:duration={frames / rate}', *tone,
           *flags, path)
    return path


def about(path):
    """(what ffmpeg says of a file, seconds of each frame, frames (n, H, W, 3) uint8 RGB)."""
    log = subprocess.run([FFMPEG, '-i', path, '-vf', 'showinfo', '-f', 'null', '-fps_mode',
                          'passthrough', '-'], capture_output=True, text=True).stderr
    times = [float(t) for t in re.findall(r'pts_time:\s*([\d.]+)', log)]
    done = subprocess.run([FFMPEG, '-v', 'error', '-i', path, '-fps_mode', 'passthrough',
                           '-pix_fmt', 'rgb24', '-f', 'rawvideo', '-'], capture_output=True)
    width, height = shape_of(path)[1:3]
    return log, times, numpy.frombuffer(done.stdout, numpy.uint8).reshape(-1, height, width, 3)


def save_rnn(root, name='RNN', **changes):
    """Writes a random RNN that belongs to the frame network of a root."""
    numpy.random.seed(1)
    classes = read_card(root / variants.FRAME_MODEL)['classes']
    model = RNNNet(N_FEATURES, len(classes), cells=(12,), hidden=0, batch_norm=False)
    model.set_statistics(numpy.full(N_FEATURES, 0.1), numpy.full(N_FEATURES, 0.05))
    card = {'kind': 'rnn', 'shape': model.shape, 'classes': classes, 'split': 1,
            'method': 'LSTM 1x12', 'features': weights_digest(root / variants.FRAME_MODEL),
            'settings': {'steps': 20, 'test_steps': 20, 'readout': 'linear'}}
    save_model(root / f'{name}.model', model, {**card, **changes})
    return model


def make_root(undisturbed, root):
    """Makes a root with both networks, and what stage 2 saved of its clips; returns it."""
    copy_set(undisturbed, root)
    for name in (variants.FEATURES, variants.FRAME_PREDICTIONS):
        (root / name).symlink_to(undisturbed / name)
    save_rnn(root)
    return root


def call(*flags):
    """Runs the stage in this process; returns its CompletedProcess with text."""
    out, errors, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ['predict.py', *map(str, flags)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = predict.main()
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(flags, code, out.getvalue(), errors.getvalue())


def objects(done):
    return [json.loads(line) for line in done.stdout.splitlines()]
