"""What frozen layers answer: right, the same bits in any company, within bounds, not read again."""
import engine.chainer_today  # noqa: F401  (before chainer)
import numpy
import pytest

import engine.learning.frames
import helperFunctions as hf
from FusionNet import NETWORKS
from VGGNet import VGGNet
from VGGNet_1024 import from_vgg
from engine.learning.frozenanswers import ROWS, Answers
from engine.learning.frames import FrameIterator
from engine.video.framecounts import frame_counts
from engine.video.decode import read_chosen
from engine.video.preprocessing import preprocess

KEYS = [(f'v_{name}', number) for name in 'abcdefg' for number in range(6)]
assert len(KEYS) > 2 * ROWS  # so that some want the same row


def network(fusion='single', fast=True):
    numpy.random.seed(0)
    vgg = VGGNet((4, 6, 8, 8, 8), 24, 7, 32)
    vgg.fc6.b.array[...] = 20  # so that few units are dead
    model = from_vgg(vgg, 3, 5, NETWORKS[fusion])
    model.fast = fast
    return model


def frames_for(model):
    shape = (len(KEYS), *[len(model.offsets)] * (len(model.offsets) > 1), 32, 32, 3)
    return numpy.random.RandomState(1).randint(256, size=shape).astype(numpy.uint8)


@pytest.mark.parametrize('fast', [True, False])
@pytest.mark.parametrize('fusion', NETWORKS)
def test_answers_are_those_of_the_network(fusion, fast):
    model = network(fusion, fast)
    frames = frames_for(model)
    expected = model.bottom(preprocess(frames, model.mean)).array
    assert expected.std(axis=0).any()
    answers = Answers(model, 2 ** 20)
    def check(given, numbers):
        got = answers(given, [KEYS[i] for i in numbers])
        assert abs(got - expected[numbers]).max() < 1e-5 * abs(expected).max()
    check(frames[:5], [0, 1, 2, 3, 4])
    # known ones need no frame; a new one may be there twice
    check([None, frames[7], frames[6], frames[7], None], [4, 7, 6, 7, 0])
    assert (answers.found, answers.asked) == (2, 10)
    check(frames, list(range(len(KEYS))))


@pytest.mark.parametrize('fast', [True, False])
def test_the_bits_do_not_depend_on_company(fast, monkeypatch):
    model = network(fast=fast)
    linear, seen = model.linear, set()

    def by_row(name, maps):
        """As a BLAS would whose rounding depends on the row and on how many there are."""
        seen.add(len(maps))
        return linear(name, maps) * (1 + 1e-5 * numpy.arange(len(maps), dtype='f')[:, None])
    monkeypatch.setattr(model, 'linear', by_row)
    frames = frames_for(model)
    together = Answers(model, 0)(frames, KEYS)
    for size in (1, 4, 17):
        order = numpy.random.RandomState(size).permutation(len(KEYS))
        for begin in range(0, len(order), size):
            some = order[begin:begin + size]
            got = Answers(model, 0)(frames[some], [KEYS[i] for i in some])
            assert got.tobytes() == together[some].tobytes()
    assert seen == {ROWS}


def test_the_bound_is_kept_and_nothing_forgotten():
    model = network()
    frames = frames_for(model)
    answers = Answers(model, 10.5 * 4 * 24)
    for begin in range(0, len(KEYS), 4):
        answers(frames[begin:begin + 4], KEYS[begin:begin + 4])
    assert [key in answers for key in KEYS] == [True] * 10 + [False] * (len(KEYS) - 10)
    kept = answers._kept.values()
    assert sum(array.nbytes for array in kept) <= 10.5 * 4 * 24
    assert all(array.base is None for array in kept)  # or a whole batch were held
    for most_bytes in (0, -1000):
        none = Answers(model, most_bytes)
        none(frames[:4], KEYS[:4])
        assert KEYS[0] not in none


@pytest.mark.parametrize('offsets', [(0,), (-2, 0, 3)])
def test_known_frames_are_not_decoded(small_set, monkeypatch, offsets):
    lists = hf.read_lists(small_set)
    counts = frame_counts(small_set, lists.train, 2).frames
    read = []

    def counted(wanted, size):
        for _, indices in wanted:
            read.extend(indices)
        return read_chosen(wanted, size)

    def batches(**how):
        return FrameIterator(lists.train, counts, 5, 32, 3, 4, repeat=False, offsets=offsets, **how)
    plain = list(batches())
    monkeypatch.setattr(engine.learning.frames, 'read_chosen', counted)
    # The first half of each clip, and of one clip all.
    known = {(clip.name, number) for place, clip in enumerate(lists.train)
             for number in range(counts[clip.name] // (2 if place else 1))}
    drawn, new = 0, 0
    for (frames, labels), (given, same, keys) in zip(plain, batches(known=known), strict=True):
        assert numpy.array_equal(same, labels) and len(given) == len(keys) == len(labels)
        for frame, got, key in zip(frames, given, keys):
            assert got is None if key in known else numpy.array_equal(got, frame)
            new += key not in known
        drawn += len(keys)
    assert len(read) == new * len(offsets) and 0 < new < drawn
