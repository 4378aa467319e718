"""Leaving a job in good order: before its walltime is over, or at a signal.
"""
import os
import re
import signal
import sys
import threading
import time

from engine import stage
from engine.errors import DecoderKilled, UserError

# A stop must be over before the scheduler's SIGKILL, which may come after 2 s.
PATIENCE = 1.0


def seconds(walltime):
    """'02:30:00' -> 9000.0."""
    found = re.fullmatch(r'([0-9]+):([0-5]?[0-9]):([0-5]?[0-9])', walltime)
    if not found:
        raise UserError(f'--walltime {walltime}: expected HH:MM:SS')
    hours, minutes, rest = map(float, found.groups())
    return hours * 3600 + minutes * 60 + rest


class Stop:
    """Lets a stage leave by SIGTERM, SIGHUP, Ctrl-C or its own deadline, with exit code 4, in time.

    Make it as the first thing: from then on a signal ends the program well.

    Args:
        walltime: 'HH:MM:SS' that the job has, or None.
        margin: seconds to leave before that.

    `event` (threading.Event) is set when the work should end.
    """

    def __init__(self, walltime=None, margin=120.0):
        self.deadline = (time.monotonic() + seconds(walltime) - margin if walltime
                         else float('inf'))
        self.margin, self.event = margin, threading.Event()
        self._why, self._at_work = [], False
        # Python's own handlers wait for the main thread, which may make 400 MB of weights in one
        # call of NumPy's; a thread that reads what the signal writes does not.
        heard, said = os.pipe()
        os.set_blocking(said, False)
        signal.set_wakeup_fd(said)
        threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
        for number in stage.stopping():
            signal.signal(number, self._heard_already)

    def _heard_already(self, *_):
        """Python's handler: while it stands there, and nobody else's, the signal is ours."""

    def _listen(self, heard):
        while number := os.read(heard, 1):
            if signal.getsignal(number[0]) == self._heard_already:
                self._on_signal(number[0])

    def _on_signal(self, number):
        self._why.append(signal.Signals(number).name)
        self.event.set()
        if not self._at_work:
            self._leave()

    def run(self, work):
        """Calls work(), which returns whether it came to its end before `event` was set.

        Does not return if it did not. The work goes on in a thread, so that this one hears
        signals at once.
        """
        outcome = {}

        def in_thread():
            try:
                outcome['ended'] = work()
            except BaseException as error:  # raised again below, in the main thread
                outcome['error'] = error
        worker = threading.Thread(target=in_thread, daemon=True)
        self._at_work = True
        worker.start()
        while worker.is_alive() and not self.event.is_set():
            worker.join(0.1)
            if time.monotonic() > self.deadline:
                self._why.append(f'{self.margin:g} s are left of --walltime')
                self.event.set()
        worker.join(PATIENCE)
        error = outcome.get('error')
        if isinstance(error, DecoderKilled):
            # A scheduler signals one process after the other: ours may be yet to come.
            self.event.wait(PATIENCE)
        if error and not self._why:
            raise error
        if not outcome.get('ended'):
            self._leave()

    def _leave(self):
        stage.end_now(4, f'stopped ({self._why[0]}); the same command goes on', sys.stdout)
