"""A root with packed features of made-up clips: what stages 6 and 7 need, in milliseconds."""
import json

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

import helperFunctions as hf
from engine import hdf5, variants
from engine.learning import statistics

CLASSES = ['Archery', 'Bowling', 'Diving']
N_FEATURES = 6


def make_features(root, dtype='float32', groups=5, clips_per_group=2):
    """Writes lists and HDF5 files under root: groups 1 to `groups` train, two more test.

    The features of a class drift its own way, with noise, so that there is something to
    learn. Returns the Lists.
    """
    random = numpy.random.RandomState(0)
    folder = root / variants.LISTS
    folder.mkdir(parents=True)
    (folder / 'classInd.txt').write_text(
        ''.join(f'{i} {name}\n' for i, name in enumerate(CLASSES, 1)))
    for kind, numbers in (('train', range(1, groups + 1)), ('test', range(groups + 1, groups + 3))):
        (folder / f'{kind}list01.txt').write_text(''.join(
            f'{name}/v_{name}_g{group:02d}_c{clip:02d}.avi {label}\n'
            for label, name in enumerate(CLASSES, 1) for group in numbers
            for clip in range(1, clips_per_group + 1)))
    lists = hf.read_lists(root)
    held_out = [clip.name for clip in hf.hold_out_groups(lists.train)[1]]
    attrs = {'classes': json.dumps(CLASSES), 'split': 1, 'model_sha256': 'made up'}
    rows = []
    for path, clips in ((variants.TRAIN_HDF5, lists.train), (variants.TEST_HDF5, lists.test)):
        with hdf5.writing(root / path) as (f,):
            f.attrs.update(attrs, n_features=N_FEATURES)
            for clip in clips:
                n = random.randint(5, 30)
                x = random.randn(n, N_FEATURES)
                x[:, clip.label] += numpy.linspace(0, 3, n)
                f.add(clip.name, x.astype(dtype))
                rows.append(x)
            if path == variants.TRAIN_HDF5:
                statistics.reserve(f, N_FEATURES)
                f.add_names('held_out', held_out)
    rows = numpy.concatenate(rows[:len(lists.train)])
    statistics.store(root / variants.TRAIN_HDF5, rows.mean(axis=0), rows.std(axis=0), len(rows))
    return lists


def lines_of(root):
    """The results under a root, one dict each."""
    return [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]


def arrays_of(model):
    """{name: array} of all that a chainer.Link saves."""
    target = chainer.serializers.DictionarySerializer()
    target.save(model)
    return {name: numpy.array(value) for name, value in target.target.items()}
