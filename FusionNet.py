"""The VGG of VGGNet_1024.py joining frames in time: early, late and slow fusion.

Karpathy et al. 2014, "Large-scale Video Classification with Convolutional Neural Networks",
section 3.1 and figure 1; the layers are VGG-16's where theirs were AlexNet's.

- early: the first convolution takes 10 frames at once.
- late: two frames 15 apart go through the same convolutions (towers that share their
  weights); fc6 takes both towers' maps.
- slow: the first convolution of block 1 takes 4 frames, every 2 frames; that of block 2
  takes 2 such answers, and that of block 3 again 2, so that it sees 10 frames. (Theirs are the
  first three layers; here, where a block ends in a pooling as each of theirs does, the first
  convolutions of the first three blocks.)

A window lies around its frame t: early and slow take t-4 to t+5, late t-7 and t+8. Beyond
an end of the clip it goes on in reverse, as short sequences do (engine/learning/frames.py), and
flow as the opposite of what it was.

A layer that joins n moments starts from the image network's weights, spread over the moments
(VGGNet_1024.spread): on a clip that stands still the network then answers as that of single
frames. If such a layer does not learn itself it cannot tell any order. And late fusion cannot
tell the direction of what comes round again after twice its 15 frames: half a turn ahead and
half a turn back are one.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer.functions as F
import numpy

from VGGNet import load_vgg
from VGGNet_1024 import MADE_BY, VGGNet_1024
from engine.errors import UserError
from engine.video.preprocessing import preprocess
from engine.weights.card import read_card

# Frames between the towers of late fusion.
APART = 15


class FusionNet(VGGNet_1024):
    """Base of the three: `taps` names the layers that join moments in time, and these.

    The network takes windows, (N, W, 3, S, S) float32, the W frames at `offsets`; or a
    Responses, for all windows along a clip.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # [(moments, layers that run on them)]; before fc6 there is only the joining.
        self.parts = []
        for name in self.conv_names + ['fc6']:
            if name in self.taps or name in ('conv1_1', 'fc6'):
                self.parts.append((self.taps.get(name, (0,)), []))
            if name != 'fc6':
                self.parts[-1][1].append(name)
        self.moments = [0]  # the frames of a window, from its first
        for taps, _ in self.parts:
            self.moments = sorted({moment + tap for moment in self.moments for tap in taps})

    @property
    def offsets(self):
        """The frames of the window of frame t, less t."""
        return tuple(moment - self.moments[-1] // 2 for moment in self.moments)

    def convolutions(self, x, names=None):
        """Windows, or a Responses -> what fc6 takes, (N, C, S/32, S/32); C twice for late."""
        if names is not None:
            return super().convolutions(x, names)
        if not isinstance(x, Responses):
            x = Responses(self).take_windows(x)
        return x.answer()

    def along_clip(self, step=1):
        return Responses(self, step)


class EarlyFusion(FusionNet):
    """The first convolution spans 10 frames."""
    taps = {'conv1_1': tuple(range(10))}


class LateFusion(FusionNet):
    """Two towers, joined by fc6.

    Args:
        apart (int): frames between them.
    """

    def __init__(self, *args, apart=APART, **kwargs):
        self.taps = {'fc6': (0, apart)}
        super().__init__(*args, **kwargs)
        self.shape['apart'] = apart


class SlowFusion(FusionNet):
    """Three convolutions in time: extent 4 and stride 2, then twice extent 2 and stride 2.

    Strides are distances here: answers of block 1 are 2 frames apart, those of block 2, 4.
    """
    taps = {'conv1_1': (0, 1, 2, 3), 'conv2_1': (0, 2), 'conv3_1': (0, 4)}


NETWORKS = {'single': VGGNet_1024, 'early': EarlyFusion, 'late': LateFusion, 'slow': SlowFusion}


class Responses:
    """What the parts of a network answer at each moment, each computed once.

    Neighbouring windows share most of what they see. Nothing is computed before it is
    needed, nor kept once no later window can need it.

    Args:
        model (FusionNet): the network.
        step (int): answers for every step-th window.
    """

    def __init__(self, model, step=1):
        self.model, self.step = model, step
        self.known = [{} for _ in range(len(model.parts) + 1)]  # {moment: answer}, frames first
        self.frames, self.windows, self.wanted = 0, 0, []

    def take_windows(self, x):
        """Takes (N, W, 3, S, S): N windows of the same moments. Returns itself."""
        if x.ndim != 5 or x.shape[1] != len(self.model.moments):
            raise ValueError(f'windows are {x.shape}, not (N, {len(self.model.moments)}, 3, S, S)')
        self.known[0] = {moment: x[:, i] for i, moment in enumerate(self.model.moments)}
        self.wanted = [0]
        return self

    def __call__(self, x):
        """Takes the next frames of a clip, (n, S, S, 3) bytes or preprocessed (n, 3, S, S), its
        ends already mirrored.

        Returns itself for the windows that are whole now, or None where there is none.
        """
        # Windows are numbered as their first frames are.
        for answers in self.known:
            for moment in [moment for moment in answers if moment < self.windows]:
                del answers[moment]
        for frame in preprocess(x, self.model.mean) if x.dtype == numpy.uint8 else x:
            self.known[0][self.frames] = frame[None]
            self.frames += 1
        first = self.windows
        self.windows = max(self.frames - self.model.moments[-1], first)
        self.wanted = [moment for moment in range(first, self.windows)
                       if moment % self.step == 0]
        return self if self.wanted else None

    def answer(self):
        """The last part's answer to the wanted windows, (windows or N, C, h, w)."""
        answers = self._at(len(self.model.parts), self.wanted)
        return F.concat([answers[moment] for moment in self.wanted], axis=0)

    def _at(self, level, moments):
        answers = self.known[level]
        missing = [moment for moment in moments if moment not in answers]
        if missing:
            taps, names = self.model.parts[level - 1]
            below = self._at(level - 1, sorted({moment + tap for moment in missing
                                                for tap in taps}))
            x = F.concat([F.concat([below[moment + tap] for tap in taps], axis=1)
                          for moment in missing], axis=0)
            x = self.model.convolutions(x, names)
            answers.update(zip(missing, F.split_axis(x, len(missing), axis=0)))
        return answers


def load_frame_network(path, made_by=MADE_BY, stream='rgb'):
    """Returns (network, card) from VGG_1024.model: a VGGNet_1024, or as its card says."""
    fusion = read_card(path, made_by).get('fusion', 'single')
    if fusion not in NETWORKS:
        raise UserError(f'{path}: its card asks for the fusion "{fusion}", but there are only '
                        f'{", ".join(NETWORKS)}; made by: {made_by}')
    return load_vgg(path, made_by, NETWORKS[fusion], stream)
