"""Features of made-up clips in the number and lengths of UCF-101, as stage 2 leaves them.

The real set has 13,320 clips of 29 to 1776 frames, median 167, 28 % shorter than 120, and
2,482,324 frames in all. Lengths follow a curve through these quantiles, exponential between
one and the next; its 99th percentile, which nobody told, is chosen so that the sum is right.
"""
import json

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy

import helperFunctions as hf
from engine import variants
from VGGNet_1024 import VGGNet_1024
from engine.files import save_npy, write_text
from engine.weights.card import weights_digest
from engine.weights.modelfile import save_model
from engine.progress import Progress

N_TRAIN, N_TEST, N_FRAMES = 9537, 3783, 2_482_324
N_CLASSES, N_FEATURES = 101, 1024
QUANTILES = {0.0: 29, 0.28: 120, 0.5: 167, 0.99: None, 1.0: 1776}
# Groups 1 to 7 of each class are the test list of split 1, 8 to 25 its training list.
TEST_GROUPS, TRAIN_GROUPS = range(1, 8), range(8, 26)
# Frames of random numbers of which each clip is a piece: too many to be found alike.
BLOCK = 16384


def _curve(top):
    """(13320,) lengths in rising order, with `top` frames at the 99th percentile."""
    values = [top if value is None else value for value in QUANTILES.values()]
    places = numpy.linspace(0, 1, N_TRAIN + N_TEST)
    return numpy.exp(numpy.interp(places, list(QUANTILES), numpy.log(values)))


def lengths(share=1.0, seed=0):
    """Frames of each clip of a share of the set, (n,) int, in random order.

    The whole set has exactly the sum, least, most and median of the real one; a share has
    evenly spaced clips of it.
    """
    low, high = 167.0, 1776.0
    for _ in range(60):  # bisection
        middle = (low + high) / 2
        low, high = (middle, high) if numpy.rint(_curve(middle)).sum() < N_FRAMES else (low, middle)
    whole = numpy.rint(_curve(low)).astype(int)
    # What rounding leaves, a frame a clip; these are long ones, far from any quantile.
    left = N_FRAMES - int(whole.sum())
    whole[10000:10000 + abs(left)] += numpy.sign(left)
    n = sum(sizes(share))
    chosen = whole[((numpy.arange(n) + 0.5) * len(whole) / n).astype(int)]
    return numpy.random.RandomState(seed).permutation(chosen)


def sizes(share):
    """Clips of the training and of the test list."""
    return max(round(N_TRAIN * share), 1), max(round(N_TEST * share), 1)


def _names(n, groups, n_classes):
    """'Action001/v_Action001_g08_c01' ... of n clips, dealt to classes, then to groups."""
    for i in range(n):
        place, label = divmod(i, n_classes)
        clip, group = divmod(place, len(groups))
        name = f'Action{label + 1:03d}'
        yield f'{name}/v_{name}_g{groups[group]:02d}_c{clip + 1:02d}', label


def make(root, share=1.0, seed=0):
    """Writes lists, model and the .npy files of stage 2 under root; returns the Lists.

    The classes are 101, but a small share's clips are of fewer, so that its classes have
    several groups. The model has the width of VGG's feature and few weights otherwise.
    """
    random = numpy.random.RandomState(seed)
    n_train, n_test = sizes(share)
    used = min(N_CLASSES, max(n_train // len(TRAIN_GROUPS), 1))
    folder = root / variants.LISTS
    hf.write_list(folder / 'classInd.txt',
                  [f'{i} Action{i:03d}' for i in range(1, N_CLASSES + 1)])
    hf.write_list(folder / 'trainlist01.txt', [
        f'{name}.avi {label + 1}' for name, label in _names(n_train, TRAIN_GROUPS, used)])
    hf.write_list(folder / 'testlist01.txt', [
        f'{name}.avi' for name, _ in _names(n_test, TEST_GROUPS, used)])
    lists = hf.read_lists(root)
    numpy.random.seed(seed)
    model = VGGNet_1024((8,) * 5, 32, N_CLASSES, 32, N_FEATURES)
    save_model(root / variants.FRAME_MODEL, model, {
        'kind': 'frames', 'shape': model.shape, 'classes': lists.classes, 'split': 1,
        'held_out': sorted(clip.name for clip in hf.hold_out_groups(lists.train)[1])})
    features = random.standard_normal((BLOCK, N_FEATURES)).astype(numpy.float32)
    scores = numpy.exp(3 * random.standard_normal((BLOCK, N_CLASSES)))
    softmax = (scores / scores.sum(axis=1, keepdims=True)).astype(numpy.float32)
    clips = lists.train + lists.test
    with Progress(len(clips), 'made') as progress:
        for clip, n in zip(clips, lengths(share, seed)):
            start = random.randint(BLOCK - n)
            for kind, block in ((variants.FEATURES, features),
                                (variants.FRAME_PREDICTIONS, softmax)):
                save_npy(variants.output_path(root, kind, clip), block[start:start + n])
            progress.update(frames=int(n))
    # last: a set that was not finished is made again
    write_text(root / variants.FEATURES / 'extraction.json', json.dumps(
        {'model_sha256': weights_digest(root / variants.FRAME_MODEL), 'step': 1}))
    return lists
