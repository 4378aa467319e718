"""What the frozen layers of stage 1 answer to a frame, kept: one that comes again need be neither
decoded nor computed again."""
import zlib

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
from chainer.backends import cuda

from engine.video.preprocessing import preprocess

# Frames that go through fc6 together. Fewer would read its weights more often, of more rows more
# would stay empty.
ROWS = 16


class Answers:
    """Computes `model.bottom` of frames, and keeps it as long as there is room.

    Nothing is ever forgotten, so readers ahead may leave out what is here: `key in answers`.
    Kept are NumPy arrays: a GPU's memory is needed for other things, and 16 KB cross quickly.

    An answer has the same bits in whatever company it is computed, so that a resumed training,
    which begins with nothing kept, repeats the uninterrupted one on a CPU. The fast convolutions
    are so by themselves (engine/fast/conv.py). BLAS may sum up in another order with other numbers
    of rows, and in other rows: fc6 always gets ROWS, and a frame always stands in the same one.

    Args:
        model (VGGNet_1024): fc6 and all below must stay as they are.
        most_bytes: how large all that is kept may become.

    `found` of `asked` answers were there already.
    """

    def __init__(self, model, most_bytes):
        self.model = model
        self.frame_bytes = 4 * model.shape['hidden']
        self.most = max(0, int(most_bytes // self.frame_bytes))
        self.found = self.asked = 0
        self._kept = {}

    def __contains__(self, key):
        return key in self._kept

    def __call__(self, frames, keys):
        """Returns (n, hidden), on the model's device.

        Args:
            frames: n arrays (S, S, 3) uint8, or windows (W, S, S, 3); None where it is kept.
            keys: (clip's name, number of the frame) of each, a window's that of its middle.
        """
        # A frame may be there twice.
        missing = {key: frame for key, frame in zip(keys, frames) if key not in self._kept}
        new = self._compute(missing) if missing else {}
        self.asked += len(keys)
        self.found += sum(key not in new for key in keys)
        answers = [new[key] if key in new else self._kept[key] for key in keys]
        for key in list(new)[:self.most - len(self._kept)]:
            self._kept[key] = new[key].copy()  # a view would hold all of its batch
        return self.model.device.send(numpy.stack(answers))

    def _compute(self, frames):
        """{key: frame} -> {key: answer}"""
        model, xp = self.model, self.model.xp
        x = preprocess(model.device.send(numpy.stack(list(frames.values()))), model.mean)
        step = len(x) if model.fast else 1  # Chainer's own convolutions are BLAS's, too
        rows = numpy.array([zlib.crc32(f'{name} {number}'.encode()) % ROWS
                            for name, number in frames])
        answers = xp.empty((len(x), model.shape['hidden']), numpy.float32)
        with chainer.no_backprop_mode():
            maps = xp.concatenate([model.convolutions(x[i:i + step]).array
                                   for i in range(0, len(x), step)])
            filled = xp.zeros((ROWS, *maps.shape[1:]), maps.dtype)
            left = numpy.arange(len(x))
            while len(left):
                # The first of those that want the same row; what else stands there does not count.
                row, first = numpy.unique(rows[left], return_index=True)
                filled[row] = maps[left[first]]
                answers[left[first]] = F.relu(model.linear('fc6', filled)).array[row]
                left = numpy.delete(left, first)
        return dict(zip(frames, cuda.to_cpu(answers)))


def in_memory(memory, model, n_held_out, augmented):
    """Answers that are to hold those to held-out and to training frames; None for none.

    Args:
        memory (float): GiB for both.
        augmented: whether training frames change, so that none comes again.
    """
    if not memory or 'fc6' in model.trained:
        return None, None
    most_bytes = memory * 2 ** 30
    held_out = Answers(model, most_bytes)
    # Those held out come again after every epoch.
    reserved = n_held_out * held_out.frame_bytes
    drawn = None if augmented else Answers(model, most_bytes - reserved)
    print(f"fc6's answers in memory: {held_out.frame_bytes} bytes a frame, at most "
          f'{held_out.most} frames' + ('' if drawn else ', held out: the others are augmented'),
          flush=True)
    return held_out, drawn
