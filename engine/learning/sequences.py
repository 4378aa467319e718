"""Sequences of features out of HDF5: random segments to train on, whole clips to test."""
from concurrent.futures import ThreadPoolExecutor

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
from engine import arguments, hdf5
from engine.learning.batches import NumberedBatches
from engine.learning.examples import draws_of_epoch
from engine.learning.featurefile import why_no_features
from engine.errors import UserError


def add_sequences(parser):
    """Adds the flags that say what a SequenceBatches makes of a clip."""
    group = parser.add_argument_group('sequences')
    group.add_argument('--steps', type=arguments.whole(1), default=120, metavar='N',
                       help='frames of a training sequence: a random segment of a long clip, a '
                            'short clip with its reverse appended (default: 120)')
    group.add_argument('--variable-length', action='store_true',
                       help='take clips shorter than --steps as they are; padding is masked')
    group.add_argument('--no-reverse', dest='reverse', action='store_false',
                       help='never run a sequence backward; backward runs are new examples, '
                            'harmful where direction tells the class; of flow never done, as '
                            'what moves back has other flow')
    group.add_argument('--stride', type=arguments.whole(1), default=1, metavar='K',
                       help='every k-th frame, k random up to this: other speeds, and more of '
                            'the clip in as many steps (default: 1)')
    group.add_argument('--noise', type=arguments.not_negative, default=0.0, metavar='SHARE',
                       help="noise on the features, in each one's deviations, so that none is "
                            'learned to the last digit (default: 0)')
    group.add_argument('--drop-frames', type=arguments.share, default=0.0, metavar='SHARE',
                       help='steps that repeat the one before: an uneven pace (default: 0)')


def reverse_append(n, steps):
    """Indices that make a clip of n frames into a sequence of at least `steps`.

    A short clip runs forward, backward, forward ... until it is long enough, as in
    the original: 0 1 2 2 1 0 0 1 2 ...
    """
    once = numpy.concatenate([numpy.arange(n), numpy.arange(n)[::-1]])
    times = max(-(-steps // n), 1)
    return numpy.tile(once, -(-times // 2))[:max(n, steps)]


class FeatureStore:
    """The features of some clips of one open HDF5 file.

    Args:
        f: open h5py.File, one (frames, D) data set a clip.
        clips: list of Clip; those that the file lacks are left out.
        memory (float): GiB that may be held in memory. A set that fits is read once;
            of a larger one each segment is read from the file when it is asked for.
        made_by: the command that makes the file, for the errors' texts.
    """

    def __init__(self, f, clips, memory=4.0, made_by='python save_hdf5.py'):
        self.path, self.made_by = f.filename, made_by
        width = hdf5.attribute(f, 'n_features')
        if width is None:
            raise UserError(f'{f.filename}: does not say how long a feature is; make it again: '
                            f'{made_by}')
        self.clips, lengths, size = [], [], 0
        for clip in clips:
            data = hdf5.data_set(f, clip.name, made_by)
            if data is None:
                continue
            self.clips.append(clip)
            if data.dtype.kind != 'f':
                raise UserError(f'{f.filename}: {clip.name} holds no floating-point numbers; '
                                f'make it again: {made_by}')
            if data.ndim != 2 or data.shape[1] != width:
                raise UserError(f'{f.filename}: {clip.name} has shape {data.shape}, expected '
                                f'(frames, {width}); make it again: {made_by}')
            if not len(data):
                raise UserError(f'{f.filename}: {clip.name} has no frame; make it again: '
                                f'{made_by}')
            lengths.append(len(data))
            size += data.size * data.dtype.itemsize
        self.labels = numpy.array([clip.label for clip in self.clips], numpy.int32)
        self.lengths = numpy.array(lengths, int)
        self.n_features = width
        self.in_memory = size <= memory * 2 ** 30
        # Else no data set stays open: HDF5 would hold some 25 KB for each.
        self.f, self._checked = f, set()
        self.layer = hdf5.attribute(f, 'layer', 'fc7')
        if self.in_memory:
            self.sets = [self._read(index) for index in range(len(self))]

    def __len__(self):
        return len(self.clips)

    def stored(self, index):
        """The features of clip `index` as they are kept: array in memory, data set in the file."""
        return self.sets[index] if self.in_memory else self.f[self.clips[index].name]

    def rows(self, index, wanted):
        """Frames `wanted` (any order, repeats allowed) of clip `index`, (n, D) float32.

        Raises:
            UserError: they cannot be read, or are no features.
        """
        low, high = int(wanted.min()), int(wanted.max()) + 1
        if self.in_memory:
            rows = self.sets[index][low:high]
        elif index in self._checked:
            rows = hdf5.read(self.f, self.clips[index].name, self.made_by, slice(low, high))
        else:  # once as a whole, for its checksum
            rows = self._read(index)[low:high]
            self._checked.add(index)
        return rows[wanted - low].astype(numpy.float32, copy=False)

    def _read(self, index):
        rows = hdf5.read(self.f, self.clips[index].name, self.made_by)
        if reason := why_no_features(rows, self.layer):
            raise UserError(f'{self.path}: {self.clips[index].name} {reason}; remove its .npy '
                            f'file, then {self.made_by} names the command that makes it again')
        return rows


class SequenceBatches(NumberedBatches):
    """Random segments, (steps, n, D) float32 with labels (n,) int32 and lengths (n,) int.

    Args:
        store (FeatureStore): where the features are.
        batch_size (int): sequences a batch; the last one of an epoch may be smaller.
        steps (int): length of a sequence. Short clips are reverse-appended, of long
            ones a random segment is taken.
        seed (int): start of the random choices.
        reverse (bool): runs a sequence backward with probability 1/2.
        stride (int): takes every k-th frame, k random from 1 to stride.
        noise (float): deviation of Gaussian noise, in deviations of each feature.
        drop_frames (float): chance of a step to repeat the step before it.
        scale: (D,) deviation of the features, for the noise.
        variable_length (bool): takes a clip shorter than `steps` as it is, without
            reverse-append; zeros fill a batch up to its longest sequence.
        share_of: Workers.share_of, where several processes share each batch.
        balanced (bool): all classes equally often, see examples.draws_of_epoch.
    """

    def __init__(self, store, batch_size, steps, seed, reverse=True, stride=1, noise=0.0,
                 drop_frames=0.0, scale=1.0, variable_length=False,
                 share_of=lambda members: (members, 1.0), balanced=False):
        if not len(store):
            raise UserError(f'no training clip has features; made by: {store.made_by}')
        self.store, self.batch_size, self.steps, self.seed = store, batch_size, steps, seed
        self.reverse, self.stride, self.noise = reverse, stride, noise
        self.drop_frames, self.scale = drop_frames, scale
        self.variable_length, self.share_of = variable_length, share_of
        self.balanced = balanced
        # One thread reads the next batch while the network works on this one.
        self.pool = ThreadPoolExecutor(1)
        self._ahead = {}
        super().__init__(-(-len(store) // batch_size))

    def _indices(self, random, n):
        """Which frames of a clip of n make up its sequence."""
        stride = random.randint(1, self.stride + 1)
        steps = min(self.steps, -(-n // stride)) if self.variable_length else self.steps
        span = (steps - 1) * stride + 1
        frames = reverse_append(n, span)
        start = random.randint(len(frames) - span + 1)
        chosen = frames[start:start + span:stride]
        if self.reverse and random.randint(2):
            chosen = chosen[::-1]
        if self.drop_frames:
            kept = random.rand(steps) >= self.drop_frames
            kept[0] = True
            chosen = chosen[numpy.maximum.accumulate(
                numpy.where(kept, numpy.arange(steps), 0))]
        return chosen

    def _make(self, number):
        epoch, place = divmod(number, self.batches_per_epoch)
        order = draws_of_epoch(self.store.labels,
                               numpy.random.RandomState([self.seed, 4, epoch]), self.balanced)
        draws = order[place * self.batch_size:(place + 1) * self.batch_size]
        chosen = {}
        for draw in draws:
            random = numpy.random.RandomState([self.seed, 5, epoch, draw])
            index = draw % len(self.store)
            chosen[draw] = self._indices(random, int(self.store.lengths[index])), random
        # All workers' batches are as long as the longest sequence of any.
        longest = max(len(frames) for frames, _ in chosen.values())
        draws, weight = self.share_of(draws)
        members = draws % len(self.store)
        lengths = numpy.array([len(chosen[draw][0]) for draw in draws])
        batch = numpy.zeros((longest, len(draws), self.store.n_features), numpy.float32)
        for column, (draw, index) in enumerate(zip(draws, members)):
            frames, random = chosen[draw]
            rows = self.store.rows(index, frames)
            if self.noise:
                rows = rows + (self.noise * self.scale
                               * random.standard_normal(rows.shape)).astype(numpy.float32)
            batch[:len(rows), column] = rows
        return (batch, self.store.labels[members], lengths), weight

    def make(self, number):
        """Returns ((steps, n, D) float32, (n,) int32, (n,) int)."""
        job = self._ahead.pop(number, None) or self.pool.submit(self._make, number)
        self._ahead = {number + 1: self.pool.submit(self._make, number + 1)}
        batch, self.weight = job.result()
        return batch


def say_if_short(lengths, steps):
    """Says that most clips are shorter than a sequence, and so run to and fro in it."""
    short = int((numpy.asarray(lengths) < steps).sum())
    if 2 * short > len(lengths):
        print(f'{short} of {len(lengths)} clips have fewer frames than --steps {steps} and go on '
              'in reverse until they fill it; fewer --steps, --variable-length, or features of '
              "more frames (stage 2's --step) waste less", flush=True)


def by_length(lengths, batch_size):
    """Groups sequences of about equal length: yields arrays of their places in `lengths`.

    The longest of a group is at most a quarter longer than the shortest, so that little
    is wasted on padding.
    """
    lengths = numpy.asarray(lengths)
    order = numpy.argsort(lengths, kind='stable')
    start = 0
    while start < len(order):
        longest = lengths[order[start]] * 5 // 4
        end = start + int(numpy.searchsorted(lengths[order[start:start + batch_size]], longest,
                                             side='right'))
        yield order[start:end]
        start = end
