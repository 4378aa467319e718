"""Frames of clips for stage 1, or windows of frames, read ahead of the network; and how a clip
goes on beyond its ends, for windows in stages 1 and 2."""
from concurrent.futures import ThreadPoolExecutor

import numpy

from engine.learning.batches import NumberedBatches
from engine.learning.examples import draws_of_epoch
from engine.errors import UserError
from engine.video.decode import read_chosen


def mirrored(indices, n):
    """The frames that stand for `indices` before, in and behind a clip of n frames.

    It goes on in reverse, as sequences.reverse_append lets it: ... 1 0 0 1 2 ... and
    ... n-2 n-1 n-1 n-2 ...; a clip shorter than a window runs to and fro in it.
    """
    indices = numpy.asarray(indices) % (2 * n)
    return numpy.minimum(indices, 2 * n - 1 - indices)


def frames_at(fetch, moments, n, stream='rgb'):
    """(m, S, S, 3), the frames at `moments` before, in and behind a clip of n frames.

    Of flow, the way back is the opposite of the way there: from frame k + 1 back to k it is
    minus that from k to k + 1, and none where a frame is followed by itself.

    Args:
        fetch: function that returns the clip's frames of some indices.
        moments: (m,) whole numbers, 0 is the clip's first frame.
    """
    if stream != 'flow':
        return fetch(mirrored(moments, n))
    moments = numpy.asarray(moments) % (2 * n)
    ahead, still = moments < n, moments == 2 * n - 1
    frames = fetch(numpy.where(ahead, moments, numpy.maximum(2 * n - 2 - moments, 0)))
    opposite = (256 - numpy.maximum(frames, 1).astype(numpy.int16)).astype(numpy.uint8)
    ahead, still = (where[:, None, None, None] for where in (ahead, still))
    return numpy.where(ahead, frames, numpy.where(still, numpy.uint8(128), opposite))


def with_mirrored_ends(batches, before, after, stream='rgb'):
    """Yields (n, S, S, 3) batches of a clip with so many more frames at its ends.

    No more is held in memory than a batch and the frames that are to be mirrored.
    """
    batches = iter(batches)
    last, enough = next(batches), max(before, after) + 1  # one more, for flow
    for batch in batches:
        if len(last) >= enough:
            break
        last = numpy.concatenate([last, batch])
    else:
        batch = None
    # Either this is the whole clip, or so much of it that its length does not matter.
    yield frames_at(last.__getitem__, numpy.arange(-before, len(last)), len(last), stream)
    while batch is not None:
        yield batch
        last = numpy.concatenate([last, batch])[-enough:]
        batch = next(batches, None)
    if after:
        yield frames_at(last.__getitem__, len(last) + numpy.arange(after), len(last), stream)


# How many clips one ffmpeg may read, to start which costs as much as to decode 70 frames, and how
# many frames of them: each stands in its command, which may have 128 KB.
CLIPS_AT_ONCE, FRAMES_AT_ONCE = 32, 2048


class FrameIterator(NumberedBatches):
    """Batches of single frames: random ones for training, the middle ones for validation.

    For networks that join frames (FusionNet.py) these are the middles of windows.

    Args:
        clips: list of Clip.
        counts: {clip name: frames}.
        batch_size (int): frames a batch; the last one of an epoch may be smaller.
        size (int): side of a frame, pixels.
        seed (int): start of the random choices; None takes evenly spaced frames in order.
        frames_per_clip (int): frames a clip and epoch. More than one are read in one go
            and spread over as many batches.
        augment: function of (frames uint8, RandomState) that changes the training frames,
            such as an Augmentation; None leaves them as they are.
        offsets: the frames of a window, less its middle one; see `mirrored` for the clip's
            ends. All frames of a window are augmented alike.
        workers (int): clips decoded at once.
        repeat (bool): goes on after an epoch.
        share_of: Workers.share_of, where several processes share each batch. What they have
            together is one process's batch if frames_per_clip is 1; if not, the same frames
            come in other batches.
        known: container of (clip's name, number of the frame or of a window's middle), such as
            an Answers: what is there need not be read, and must never leave it. Not beside an
            `augment` that changes anything. None reads everything.
        stream (str): 'flow' where clips hold flow, see `frames_at`.
        balanced (bool): all classes equally often, see examples.draws_of_epoch.
    """

    def __init__(self, clips, counts, batch_size, size, seed=None, frames_per_clip=1,
                 augment=None, workers=2, repeat=True, offsets=(0,),
                 share_of=lambda members: (members, 1.0), known=None, stream='rgb',
                 balanced=False):
        if not clips:
            raise UserError('no clip to read frames from')
        self.clips, self.counts = clips, counts
        self.batch_size, self.size, self.seed = batch_size, size, seed
        self.per_clip, self.augment = frames_per_clip, augment
        self.offsets, self.share_of = numpy.array(offsets), share_of
        self.known, self.stream, self.balanced = known, stream, balanced
        self.labels = numpy.array([clip.label for clip in clips], numpy.int32)
        self.workers, self.pool = workers, ThreadPoolExecutor(workers)
        self._blocks = -(-len(clips) // batch_size)
        self._pending = {}
        self._block = (None, None)
        super().__init__(self._blocks * frames_per_clip, repeat)

    def _random(self, *numbers):
        return numpy.random.RandomState([self.seed, *numbers])

    def _members(self, block):
        """Epoch, draws (examples.draws_of_epoch) that a block of batches reads, their weight."""
        epoch, place = divmod(block, self._blocks)
        order = (numpy.arange(len(self.clips)) if self.seed is None else
                 draws_of_epoch(self.labels, self._random(1, epoch), self.balanced))
        return epoch, *self.share_of(order[place * self.batch_size:
                                           (place + 1) * self.batch_size])

    def _read(self, epoch, draws):
        """[(frame or window, its key)] of clips, one after the other; None for each that is
        known."""
        drawn = [self._drawn(epoch, draw) for draw in draws]
        if len(self.offsets) == 1:
            wanted = [(clip.path, middles[new]) for clip, _, middles, new in drawn if new.any()]
            frames = iter(read_chosen(wanted, self.size))
        else:
            frames = (self._windows(clip, middles[new]) for clip, _, middles, new in drawn
                      if new.any())
        pairs = []
        for clip, random, middles, new in drawn:
            windows = iter(self._augmented(next(frames), random) if new.any() else ())
            pairs += [(next(windows) if is_new else None, (clip.name, middle))
                      for is_new, middle in zip(new, middles.tolist())]
        return pairs

    def _drawn(self, epoch, draw):
        """A clip, its random numbers to come, its frames or windows' middles, which are new."""
        clip = self.clips[draw % len(self.clips)]
        count = self.counts[clip.name]
        if self.seed is None:
            random = None
            middles = (2 * numpy.arange(self.per_clip) + 1) * count // (2 * self.per_clip)
        else:
            random = self._random(2, epoch, draw)
            middles = random.randint(count, size=self.per_clip)
        new = [self.known is None or (clip.name, middle) not in self.known
               for middle in middles.tolist()]
        return clip, random, middles, numpy.array(new)

    def _augmented(self, windows, random):
        if random is None or self.augment is None:
            return windows
        if windows.ndim == 4:
            return self.augment(windows, random)
        # A window goes through as one frame of 3 W channels.
        n, length, size = windows.shape[:3]
        frames = windows.transpose(0, 2, 3, 1, 4).reshape(n, size, size, 3 * length)
        frames = self.augment(frames, random).reshape(n, size, size, length, 3)
        return frames.transpose(0, 3, 1, 2, 4)

    def _windows(self, clip, middles):
        """(n, W, S, S, 3), the windows around n middles."""
        moments = middles[:, None] + self.offsets
        frames = frames_at(lambda wanted: read_chosen([(clip.path, wanted)], self.size)[0],
                           moments.ravel(), self.counts[clip.name], self.stream)
        return frames.reshape(*moments.shape, *frames.shape[1:])

    def _start(self, block):
        if block not in self._pending:
            epoch, members, _ = self._members(block)
            n = max(1, min(CLIPS_AT_ONCE, FRAMES_AT_ONCE // self.per_clip,
                           -(-len(members) // self.workers)))
            self._pending[block] = [
                self.pool.submit(self._read, epoch, [int(draw) for draw in members[at:at + n]])
                for at in range(0, len(members), n)]

    def make(self, number):
        """Returns (frames (n, S, S, 3) uint8 BGR, or windows (n, W, S, S, 3), labels (n,) int32).

        With `known` it is (list of frames or None, labels, keys).
        """
        block, slot = divmod(number, self.per_clip)
        if self._block[0] != block:
            self._start(block)
            # One block ahead: frames are decoded while the network works on these.
            if self.repeat or block + 1 < self._blocks:
                self._start(block + 1)
            self._block = block, [pair for job in self._pending.pop(block)
                                  for pair in job.result()]
        _, members, self.weight = self._members(block)
        labels = numpy.repeat(self.labels[members % len(self.clips)], self.per_clip)
        order = (numpy.arange(len(labels)) if self.seed is None
                 else self._random(3, block).permutation(len(labels)))
        chosen = order[slot * len(labels) // self.per_clip:
                       (slot + 1) * len(labels) // self.per_clip]
        frames, keys = zip(*(self._block[1][i] for i in chosen))
        if self.known is None:
            return numpy.stack(frames), labels[chosen]
        return frames, labels[chosen], keys
