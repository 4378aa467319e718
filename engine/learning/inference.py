"""How a trained network looks at a whole clip: which frames of it, and joined how."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy

from engine import arguments
from engine.errors import UserError
from engine.learning.sequences import by_length, reverse_append

TECHNIQUES = ('full', 'first', 'middle', 'random', 'segments:N')
# Steps that run at once, so that a long clip takes no more memory than a short one.
WINDOW = 120
# Numbers in a batch of whole sequences: 1 GiB of float32.
NUMBERS = 2 ** 28


def add_inference(group):
    """Adds --inference, --test-steps and --reverse-too to a stage's flags."""
    group.add_argument('--inference', default='first', metavar='HOW',
                       help='full: each clip as it is; first, middle, random: one segment; '
                            'segments:N: N of them from end to end, averaged (default: first)')
    group.add_argument('--test-steps', type=arguments.whole(0), default=180, metavar='N',
                       help='frames of a segment, short clips with their reverse appended; 0 '
                            'takes each clip as it is (default: 180)')
    group.add_argument('--reverse-too', action='store_true',
                       help='average in each sequence run backward')


def check_technique(technique, steps):
    """Refuses what sequences_of would not understand.

    Raises:
        UserError: naming the flag.
    """
    word, _, number = technique.partition(':')
    if technique not in TECHNIQUES[:-1] and not (word == 'segments' and number.isdigit()
                                                 and int(number) > 1):
        raise UserError(f'--inference {technique}: none of {", ".join(TECHNIQUES)} (N from 2)')
    if word == 'segments' and not steps:
        raise UserError(f'--inference {technique} wants the length of a segment: --test-steps')


def sequences_of(name, n, technique, steps, reverse_too=False, seed=0):
    """Which frames of a clip the network is shown.

    Args:
        name: of the clip; the random segment depends on it and on `seed` alone.
        n (int): frames of the clip.
        technique: 'full' shows the clip as it is; the others show segments of `steps`
            frames, of a short clip the clip with its reverse appended: the 'first', the
            'middle' or a 'random' one, or 'segments:N', evenly spaced from end to end.
        steps (int): length of a segment; 0 shows the clip as it is.
        reverse_too (bool): shows each sequence backward, too.

    Returns:
        List of (T,) int arrays of equal length.
    """
    if technique == 'full' or not steps:
        sequences = [numpy.arange(n)]
    else:
        frames = reverse_append(n, steps)
        last = len(frames) - steps
        if technique == 'first':
            starts = [0]
        elif technique == 'middle':
            starts = [last // 2]
        elif technique == 'random':
            starts = [numpy.random.RandomState([seed, *name.encode()]).randint(last + 1)]
        else:
            number = int(technique.partition(':')[2])
            # Of a short clip several would be one and the same.
            starts = sorted({round(last * k / (number - 1)) for k in range(number)})
        sequences = [frames[start:start + steps] for start in starts]
    return sequences + [frames[::-1] for frames in sequences if reverse_too]


def predict(model, store, device, batch_size, **how):
    """Yields (clip name, (T, C) float32 softmax of every step), short clips first.

    T is 1 of a network that scores a sequence once.

    The sequences of a clip are averaged step by step in log probability. Clips of about
    equal length make a batch; padding stands at the end, where it changes no score, so
    a clip's score does not depend on the clips beside it.

    Args:
        model (FeatureNet): on `device`.
        store (FeatureStore): the clips.
        batch_size (int): sequences a batch.
        how: technique, steps, reverse_too, seed as for sequences_of.
    """
    jobs, counts = [], []
    for index, clip in enumerate(store.clips):
        sequences = sequences_of(clip.name, int(store.lengths[index]), **how)
        jobs += [(index, frames) for frames in sequences]
        counts.append(len(sequences))
    seen = {}
    if model.once:
        longest = max((len(frames) for _, frames in jobs), default=1)
        batch_size = max(1, min(batch_size, NUMBERS // (longest * store.n_features)))
    for places in by_length([len(frames) for _, frames in jobs], batch_size):
        batch = [jobs[place] for place in places]
        for (index, _), logs in zip(batch, _log_probabilities(model, store, device, batch)):
            seen.setdefault(index, []).append(logs)
            if len(seen[index]) == counts[index]:
                logs = numpy.mean(seen.pop(index), axis=0, dtype=numpy.float64)
                shares = numpy.exp(logs - logs.max(axis=1, keepdims=True))
                shares /= shares.sum(axis=1, keepdims=True)
                yield store.clips[index].name, shares.astype(numpy.float32)


def _log_probabilities(model, store, device, batch):
    """One (T, C) array for each (index, frames)."""
    lengths = numpy.array([len(frames) for _, frames in batch])
    longest = window = lengths.max()
    if not model.once:
        window = min(WINDOW, longest)
    parts = []
    model.reset_state()
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for start in range(0, longest, window):
            xs = numpy.zeros((min(window, longest - start), len(batch), store.n_features),
                             numpy.float32)
            for column, (index, frames) in enumerate(batch):
                wanted = frames[start:start + window]
                if len(wanted):
                    xs[:len(wanted), column] = store.rows(index, wanted)
            scores = model(device.send(xs), lengths)[None] if model.once else model(device.send(xs))
            logs = F.log_softmax(scores, axis=2).array
            parts.append(chainer.get_device('@numpy').send(logs))
    logs = numpy.concatenate(parts)
    return [logs[:len(frames), column] for column, (_, frames) in enumerate(batch)]
