"""engine/cluster/stopintime.py: the end that a scheduler or a person asks for."""
import signal
import subprocess
import sys
import time

from smallSet import REPOSITORY


def test_a_signal_is_heard_in_the_midst_of_a_long_call(tmp_path):
    """Python would call its handler after it: making the whole VGG's weights takes seconds."""
    code = ('import hashlib; from engine.cluster import stopintime; stopintime.Stop(); '
            'print("ready", flush=True); '
            'hashlib.pbkdf2_hmac("sha256", b"", b"", 2 ** 31 - 1)')  # an hour
    child = subprocess.Popen([sys.executable, '-c', code], cwd=REPOSITORY, text=True,
                             stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == 'ready\n'
        time.sleep(0.5)  # into the call
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=60)[0].startswith('stopped (SIGTERM)')
        assert child.returncode == 4
    finally:
        child.kill()


def test_a_signal_that_somebody_else_handles_ends_nothing():
    """As in these tests, where a training with its own handler follows in the same process."""
    code = ('import os, signal, sys, time; from engine.cluster import stopintime; '
            'stopintime.Stop(); '
            'signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True)); '
            'os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.5)')
    done = subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, 'heard\n')
