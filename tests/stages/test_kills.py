"""The short form of the kill test; the long one: python tests/killTest.py --kills 100."""
from killTest import STAGES, kill_test


def test_every_stage_killed_once_ends_in_the_same_bytes(tmp_path):
    assert kill_test(tmp_path, len(STAGES), seed=2) == len(STAGES)
