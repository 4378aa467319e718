"""Numbered batches: the base of both trainings' iterators.

Everything in a batch follows from (seed, its number), so the number is the only
state that a snapshot must hold, and a resumed run sees the same batches.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer


class NumberedBatches(chainer.dataset.Iterator):
    """Chainer iterator over batches 0, 1, 2 ...; subclasses make batch `number`.

    A subclass that reads ahead keeps its threads in `pool`.

    Args:
        batches_per_epoch (int): how many batches make an epoch.
        repeat (bool): goes on after an epoch.
    """

    pool = None
    # What this worker's last batch counts in the mean over workers (engine/learning/workers.py).
    weight = 1.0

    def __init__(self, batches_per_epoch, repeat=True):
        self.batches_per_epoch = batches_per_epoch
        self.repeat = repeat
        self.number = 0

    def make(self, number):
        """Returns batch `number`."""
        raise NotImplementedError

    def __next__(self):
        if not self.repeat and self.number >= self.batches_per_epoch:
            raise StopIteration
        batch = self.make(self.number)
        self.number += 1
        return batch

    next = __next__

    @property
    def epoch(self):
        return self.number // self.batches_per_epoch

    @property
    def epoch_detail(self):
        return self.number / self.batches_per_epoch

    @property
    def previous_epoch_detail(self):
        return max(self.number - 1, 0) / self.batches_per_epoch

    @property
    def is_new_epoch(self):
        return self.number > 0 and self.number % self.batches_per_epoch == 0

    @property
    def batches_left(self):
        """How many are still to come in this epoch."""
        return -self.number % self.batches_per_epoch

    def serialize(self, serializer):
        self.number = int(serializer('number', self.number))

    def finalize(self):
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
