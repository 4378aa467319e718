"""Random changes to training frames: what a network sees once it must not learn by heart.

And the several views of a frame whose predictions may be averaged in testing.
"""
import functools

import numpy

# Side of a corner view, as a share of the frame's: 224 of 256 pixels.
CORNER = 0.875


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
        stream (str): 'flow' where frames hold flow (engine/video/flow.py), whose numbers change
            with a mirror and with scale; it can be neither turned nor brightened.
    """

    def __init__(self, flip=False, crop=1.0, rotate=0.0, rescale=0.0, brightness=0.0,
                 stream='rgb'):
        if stream == 'flow' and (rotate or brightness):
            raise ValueError('flow can be neither turned nor brightened')
        self.flip, self.crop, self.rotate = flip, crop, rotate
        self.rescale, self.brightness, self.stream = rescale, brightness, stream

    @property
    def changes(self):
        """Whether anything is asked for."""
        return bool(self.flip or self.crop < 1 or self.rotate or self.rescale or self.brightness)

    def __call__(self, frames, random):
        """Returns changed copies.

        Args:
            frames: (n, S, S, 3) uint8.
            random: numpy.random.RandomState, the only source of chance.
        """
        if self.flip:
            frames = frames.copy()
            mirrored = random.randint(2, size=len(frames)) == 1
            frames[mirrored] = mirror(frames[mirrored], self.stream)
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
        frame = resample(frame, side, angle, *random.uniform(-reach, reach, 2))
        return zoom_flow(frame, 1 / side) if self.stream == 'flow' else frame


def mirror(frames, stream='rgb'):
    """Left and right exchanged: (n, S, S, C) uint8. A window of W frames has C = 3 W.

    Of flow, x also changes its sign: a byte b becomes 256 - b.
    """
    frames = frames[:, :, ::-1]
    if stream == 'flow':
        frames = frames.copy()
        # 0 is no byte of flow, but a codec may leave one
        frames[..., ::3] = 256 - numpy.maximum(frames[..., ::3], 1).astype(numpy.int16)
    return frames


def zoom_flow(frames, factor):
    """Flow (uint8) of frames that are scaled up by a factor: what moves, moves farther."""
    return numpy.rint(numpy.clip(128 + factor * (frames.astype(numpy.float32) - 128), 1, 255)
                      ).astype(numpy.uint8)


def views(number, stream='rgb'):
    """Returns functions of frames (n, S, S, 3) uint8, the first of which changes nothing.

    Args:
        number: 1; 2 with the mirror image; 10 with the four corners scaled up, too, and
            their mirror images.
    """
    reach = (1 - CORNER) / 2
    places = [None] + [(right, down) for right in (-reach, reach) for down in (-reach, reach)]
    return [functools.partial(_view, place, flip, stream) for place in places
            for flip in (False, True)][:number]


def _view(place, flip, stream, frames):
    if place is not None:
        # all frames at once, as one of 3 n channels
        n, size = frames.shape[:2]
        beside = frames.transpose(1, 2, 0, 3).reshape(size, size, 3 * n)
        frames = resample(beside, CORNER, 0, *place).reshape(size, size, n, 3)
        frames = frames.transpose(2, 0, 1, 3)
        if stream == 'flow':
            frames = zoom_flow(frames, 1 / CORNER)
    return mirror(frames, stream) if flip else frames


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
