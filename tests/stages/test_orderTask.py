"""The task that only order can solve: same rows, other order, both in one group."""
import numpy

import helperFunctions as hf
import importFeatures
import orderTask
from engine import variants


def test_clips_come_in_both_orders_and_learn_in_one_group(undisturbed, tmp_path, call_in):
    for task, turned in (('direction', lambda rows: rows[::-1]),
                         ('halves', lambda rows: numpy.concatenate(
                             [rows[len(rows) // 2:], rows[:len(rows) // 2]]))):
        out = tmp_path / task
        before = hf.read_lists(undisturbed)
        assert orderTask.make_task(undisturbed, task, out) == 2 * len(before.train + before.test)
        call_in(out, importFeatures, out / 'arrays')
        lists = hf.read_lists(out)
        train, validation = hf.hold_out_fold(lists.train, '1/2')
        assert {c.group for c in train}.isdisjoint(c.group for c in validation)
        for side, clips in ((lists.train, before.train), (lists.test, before.test)):
            assert len(side) == 2 * len(clips)
            for clip, pair in zip(clips, zip(side[::2], side[1::2])):
                rows, *both = (
                    numpy.load(variants.output_path(root, variants.FEATURES, c))
                    for root, c in ((undisturbed, clip), (out, pair[0]), (out, pair[1])))
                assert numpy.array_equal(both[0], rows) and numpy.array_equal(both[1], turned(rows))
                assert [c.label for c in pair] == [0, 1] and {c.group for c in pair} == {clip.group}
