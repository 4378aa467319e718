"""The way of frames to a GPU: as bytes, beside its work."""
import contextlib

import numpy


class Upload:
    """Copies batches of frames to the GPU beside its work: bytes, through pinned memory.

    Each call returns at once an array on the GPU; what is then enqueued on the current stream
    waits for the copy. It may be used until `slots` more calls were made, by work enqueued on
    the stream that was current then.

    Args:
        xp: cupy.
        slots (int): batches on their way or in use at once.
    """

    def __init__(self, xp, slots=3):
        self.cuda = xp.cuda
        self.xp = xp
        self.stream = xp.cuda.Stream(non_blocking=True)
        self.slots = [None] * slots
        self.number = -1

    def __call__(self, frames):
        """frames: NumPy array of any shape and dtype -> the same on the GPU."""
        now = self.cuda.get_current_stream()
        if self.number >= 0:
            # All that reads the last batch is enqueued by now.
            self.slots[self.number % len(self.slots)][3].record(now)
        self.number += 1
        place = self.number % len(self.slots)
        if self.slots[place] is None or self.slots[place][0].nbytes < frames.nbytes:
            if self.slots[place] is not None:
                self.slots[place][3].synchronize()
            memory = self.cuda.alloc_pinned_memory(frames.nbytes)
            self.slots[place] = (numpy.frombuffer(memory, numpy.uint8, frames.nbytes),
                                 self.xp.empty(frames.nbytes, numpy.uint8),
                                 self.cuda.Event(), self.cuda.Event())
            # CuPy may have given memory that work enqueued before still reads.
            self.slots[place][3].record(now)
        pinned, there, copied, used = self.slots[place]
        copied.synchronize()  # the pinned bytes of some batches ago have left
        size = frames.nbytes
        pinned[:size] = numpy.ascontiguousarray(frames).reshape(-1).view(numpy.uint8)
        self.stream.wait_event(used)
        there[:size].set(pinned[:size], stream=self.stream)
        copied.record(self.stream)
        now.wait_event(copied)
        return there[:size].view(frames.dtype).reshape(frames.shape)


@contextlib.contextmanager
def sending(device):
    """Gives the function that sends arrays to a chainer.Device: an Upload if it is a GPU."""
    if device.xp is numpy:
        yield device.send
        return
    upload = Upload(device.xp)
    try:
        yield upload
    finally:
        upload.stream.synchronize()  # before its pinned memory serves somebody else
