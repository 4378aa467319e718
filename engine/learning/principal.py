"""fc6 for a VGG.model without a top, fitted to the maps of the training frames.

A random fc6 keeps all that pool5 says, but spreads it evenly over noise, and what learns above has
few clips to tell the two apart. Here its units are the directions in which the maps of the training
frames differ most (principal component analysis), no label asked, as large as they are: whitened
they were worse than random (docs/real-clips.md). ReLU lets one side of a direction through, so each
has two units, of either sign.
"""
import hashlib
import json
import math
import os

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
from chainer.backends import cuda

from engine.errors import UserError
from engine.fast.threads import one_blas_thread
from engine.files import replacing
from engine.progress import followed, number_of
from engine.weights.limits import DAMAGE

FRAMES_PER_DIRECTION = 24
# Of 512 all frames' products with one another, and their eigenvectors, take 5 GB; of 2048 80 GB.
MOST_DIRECTIONS = 512


def directions_of(units):
    """How many directions so many units are to show."""
    return min(units // 2, MOST_DIRECTIONS)


def principal_units(maps, units):
    """(W, b) of a linear layer whose outputs, less what ReLU takes, are the principal components
    of `maps`, each with both signs, at a mean square of 1 over these rows.

    Args:
        maps: (n, D) float32; changed.
        units (int): rows of W; those for which there is no direction are 0.

    Returns:
        (units, D) and (units,) float32.
    """
    mean = maps.mean(axis=0, dtype=numpy.float64).astype(numpy.float32)
    maps -= mean
    # The directions are sums of rows: of (n, n) numbers rather than (D, D).
    variances, shares = numpy.linalg.eigh((maps @ maps.T).astype(numpy.float64))
    most = variances[-1] * len(maps) * numpy.finfo(numpy.float32).eps
    number = min(directions_of(units), int((variances > max(most, 0)).sum()))
    order = numpy.argsort(variances)[::-1][:number]
    directions = (shares[:, order] / numpy.sqrt(variances[order])).T.astype(numpy.float32) @ maps
    W = numpy.zeros((units, maps.shape[1]), numpy.float32)
    W[:number], W[number:2 * number] = directions, -directions
    # Of each direction one unit is its component, the other 0.
    scale = math.sqrt(2 * number * len(maps) / variances[order].sum()) if number else 0
    W *= numpy.float32(scale)
    return W, -(W @ mean)


def _read(path, made_of, shape):
    """(W, b) as the file tells; None where it is not there, damaged, or of something else."""
    try:
        with numpy.load(path, allow_pickle=False) as f:
            if numpy.array_equal(f['made_of'], made_of) and f['W'].shape == shape:
                return f['W'], f['b']
    except (FileNotFoundError, *DAMAGE):
        pass  # it is made again
    return None


def frames_per_clip(units, n_clips):
    """How many frames of each clip the directions of so many units are looked for in.

    Raises:
        UserError: the units are too few for one direction.
    """
    if not directions_of(units):
        raise UserError(f'--fc6 principal: fc6 of VGG.model has {units} unit, and a direction '
                        'takes two, one for each sign; make VGG.model anew: python '
                        'convertWeights.py ... --hidden 128, or 2 at least')
    return -(-FRAMES_PER_DIRECTION * directions_of(units) // n_clips)


def fit_fc6(model, batches, path, vgg, team):
    """Gives `model` an fc6 of principal units of the maps of training frames; keeps them in the
    file `path`, and takes them from there where they are of the same frames and weights.

    Args:
        model (VGGNet_1024): sees single frames; where it is to compute.
        batches (FrameIterator): of the training clips, as they are, once.
        vgg (str): digest of the weights below.
        team (Workers): of whom the first one fits.

    Returns:
        What a card and a snapshot tell: {'directions': number, 'frames': number, 'sha256': digest
        of fc6}. A snapshot of frozen layers holds only those above, which fit no other fc6.
    """
    shape, clips = model.fc6.W.shape, batches.clips
    made_of = numpy.frombuffer(hashlib.sha256(json.dumps(
        [vgg, shape, batches.per_clip, [(clip.name, os.path.getsize(clip.path),
                                         batches.counts[clip.name]) for clip in clips]]
    ).encode()).digest(), numpy.uint8)

    def fitted():
        found = _read(path, made_of, shape)
        if found is None:
            maps = _maps(model, batches)
            with one_blas_thread():  # fitted again it is the same, whatever the cores
                found = principal_units(maps, len(model.fc6.b))
            with replacing(path) as temporary, open(temporary, 'wb') as f:
                numpy.savez(f, W=found[0], b=found[1], made_of=made_of)
        return found
    W, b = team.from_first(fitted)
    if not W.any():
        raise UserError(f'--fc6 principal: the {len(clips) * batches.per_clip} frames of the '
                        f'{len(clips)} training clips are all alike to the convolutions of '
                        'VGG.model, so there is nothing to tell them apart by; look at the clips, '
                        'or at where VGG.model comes from')
    model.fc6.W.array, model.fc6.b.array = map(model.device.send, (W, b))
    told = {'directions': int(W.any(axis=1).sum()) // 2, 'frames': len(clips) * batches.per_clip,
            'sha256': hashlib.sha256(W.tobytes() + b.tobytes()).hexdigest()}
    print(f'fc6: {told["directions"]} principal directions of '
          f'{number_of(told["frames"], "frame")} of '
          f'{number_of(len(clips), "training clip")}, each with both signs', flush=True)
    return told


def _maps(model, batches):
    """pool5 of all frames, (n, D) float32."""
    maps = []
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        for frames, _ in followed(batches, batches.batches_per_epoch, 'maps for fc6', 'batches'):
            h = model.convolutions(model.device.send(frames)).array
            maps.append(cuda.to_cpu(h).reshape(len(h), -1))
    return numpy.concatenate(maps)
