"""Short forms of the kill tests; the long ones are commands, see the heads of both files."""
import shutil
import signal
import sys

import pytest

import interruptTest
from killTest import STAGES, kill_test
from smallSet import REPOSITORY, run


def test_every_stage_killed_once_ends_in_the_same_bytes(tmp_path):
    assert kill_test(tmp_path, len(STAGES), seed=2) == len(STAGES)


def test_a_signal_ends_a_stage_and_the_same_command_goes_on(tmp_path):
    # Hanging is what is looked for here, not the time, which tells of the machine's other work.
    _, faults = interruptTest.interrupt_test(tmp_path, 2, 3, within=30, stages=STAGES[:2])
    assert not faults


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_training_of_an_rnn(packed, number):
    command = ('rnn.py', '--tiny', '--epochs', '100000')
    spent, wrong = interruptTest.interrupted(command, packed, 4.0, number, alone=True, within=30)
    assert spent is not None and not wrong


@pytest.mark.skipif(not sys.platform.startswith('linux') or not shutil.which('cc'),
                    reason='wants Linux and a C compiler')
def test_every_kind_of_file_is_whole_whatever_step_ends_its_writer():
    done = run(sys.executable, REPOSITORY / 'tests/everyStepTest.py', '--saves', '--sample', 5,
               '--seed', 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'every one left whole files' in done.stdout
