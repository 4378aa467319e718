"""Progress that reads well on a terminal (a bar) and in a job's log (a line now and then); words of
the lines that stages print."""
import sys
import time

from tqdm import tqdm


def followed(items, total, label, unit='clips'):
    """Yields `items`, `total` of them, and says how far it is: in a log if it takes long."""
    progress = Progress(total, label, unit)
    try:
        for item in items:
            yield item
            progress.update()
    finally:
        if progress.bar is not None:
            progress.bar.close()


class Progress:
    """Counts clips (or other units) and, if given, the frames in them.

    Args:
        total (int): how many units there are.
        label (str): what is going on, 'part 3 of 12'.
        unit (str): what is counted.
        every (float): seconds between two lines where there is no terminal.
    """

    def __init__(self, total, label, unit='clips', every=30.0):
        self.total, self.label, self.unit, self.every = total, label, unit, every
        self.done = self.frames = 0
        self.start = self.last = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=label, unit=f' {unit}', dynamic_ncols=True,
                            leave=False)

    def update(self, n=1, frames=0):
        """Says that `n` more units, with so many frames, are done."""
        self.done += n
        self.frames += frames
        if self.bar is not None:
            if frames:
                self.bar.set_postfix_str(f'{self._rate():.0f} frames/s', refresh=False)
            self.bar.update(n)
        elif time.monotonic() - self.last >= self.every:
            self._line()

    def _rate(self):
        return self.frames / max(time.monotonic() - self.start, 1e-9)

    def _line(self):
        self.last = time.monotonic()
        spent = self.last - self.start
        left = tqdm.format_interval(spent / max(self.done, 1) * (self.total - self.done))
        frames = f', {self.frames} frames, {self._rate():.1f} frames/s' if self.frames else ''
        print(f'{self.label}: {self.done}/{self.total} {self.unit}{frames}, '
              f'{tqdm.format_interval(spent)} spent, {left} left', flush=True)

    def close(self):
        """Ends the bar; in a log, writes the last line."""
        if self.bar is not None:
            self.bar.close()
        elif self.done:
            self._line()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def number_of(n, noun, plural=None):
    """'1 clip', '2 clips', '2 classes' of (2, 'class', 'classes')."""
    return f'{n} {noun if n == 1 else plural or noun + "s"}'


def listed(words):
    """'a, b and c'"""
    *first, last = words
    return f'{", ".join(first)} and {last}' if first else last


def kernel_now(text):
    """What computed something, as it is written now: '1 threads' stood there once."""
    return text.replace('; 1 threads', '; 1 thread')
