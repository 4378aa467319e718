"""Random changes to training frames: what a network sees once it must not learn by heart."""
import numpy


class Augmentation:
    """Crops, turns, rescales, brightens and mirrors single frames, each at random.

    Crop, turn and scale make one resampling (bilinear); what lies beyond the frame's
    edge repeats the edge. With nothing asked for, frames stay as they are.

    Args:
        flip (bool): mirrors left and right with probability 1/2.
        crop (float): side of the window that is cut out at a random place and scaled up to
            the whole, as a share of the frame's; 1 cuts nothing.
        rotate (float): turns by up to so many degrees either way.
        rescale (float): makes things larger or smaller by up to this share.
        brightness (float): multiplies all values by 1 - brightness to 1 + brightness.
    """

    def __init__(self, flip=False, crop=1.0, rotate=0.0, rescale=0.0, brightness=0.0):
        self.flip, self.crop, self.rotate = flip, crop, rotate
        self.rescale, self.brightness = rescale, brightness

    def __call__(self, frames, random):
        """Returns changed copies.

        Args:
            frames: (n, S, S, 3) uint8.
            random: numpy.random.RandomState, the only source of chance.
        """
        if self.flip:
            frames = frames.copy()
            mirrored = random.randint(2, size=len(frames)) == 1
            frames[mirrored] = frames[mirrored, :, ::-1]
        if self.crop < 1 or self.rotate or self.rescale:
            frames = numpy.stack([self._resample(frame, random) for frame in frames])
        if self.brightness:
            factors = random.uniform(1 - self.brightness, 1 + self.brightness, len(frames))
            frames = numpy.stack([brighten(frame, factor)
                                  for frame, factor in zip(frames, factors)])
        return frames

    def _resample(self, frame, random):
        side = self.crop * random.uniform(1 - self.rescale, 1 + self.rescale)
        angle = numpy.deg2rad(random.uniform(-self.rotate, self.rotate))
        # How far the window's middle may lie from the frame's.
        reach = (1 - self.crop) / 2
        return resample(frame, side, angle, *random.uniform(-reach, reach, 2))


def resample(frame, side, angle, right, down):
    """The square window of a frame as a frame of the same size.

    Args:
        frame: (S, S, 3) uint8.
        side: of the window, as a share of S.
        angle: by which the window is turned, radians.
        right, down: of the window's middle from the frame's, as shares of S.
    """
    size = len(frame)
    # Places of pixels' middles, from the middle of the window.
    place = ((numpy.arange(size) + 0.5) / size - 0.5) * side
    cos, sin = numpy.cos(angle), numpy.sin(angle)
    x = (cos * place[None, :] - sin * place[:, None] + right + 0.5) * size - 0.5
    y = (sin * place[None, :] + cos * place[:, None] + down + 0.5) * size - 0.5
    x, y = (numpy.clip(v, 0, size - 1).astype(numpy.float32) for v in (x, y))
    left, top = (numpy.minimum(v.astype(numpy.intp), size - 2) for v in (x, y))
    x, y = (x - left)[..., None], (y - top)[..., None]
    upper = frame[top, left] * (1 - x) + frame[top, left + 1] * x
    lower = frame[top + 1, left] * (1 - x) + frame[top + 1, left + 1] * x
    return numpy.rint(upper * (1 - y) + lower * y).astype(numpy.uint8)


def brighten(frame, factor):
    """uint8 values times a factor, those beyond 255 cut off."""
    table = numpy.minimum(numpy.rint(numpy.arange(256) * factor), 255).astype(numpy.uint8)
    return table[frame]
