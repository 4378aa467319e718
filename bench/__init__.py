"""What the measurements share: contenders that take turns, and the limits of the machine.

Importing it sets the number of threads, so it comes before numpy.
"""
import os
import statistics
import subprocess
import tempfile
import time

from engine import usable_cores  # sets BLAS's waiting, too

for _name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(_name, str(usable_cores()))

import numpy  # noqa: E402  (after the number of threads)


def take_turns(contenders, turns, clock=time.perf_counter):
    """Runs all contenders once to warm up, then in turn: other load meets all alike.

    Args:
        contenders: {name: function without arguments}.

    Returns:
        {name: [seconds of each turn]}.
    """
    seconds = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def ratio(ours, theirs):
    """How many times as long they take: the median of the ratios within a turn."""
    return statistics.median(b / a for a, b in zip(ours, theirs))


def table(seconds, amount, unit):
    """Prints each contender's speed, and how the first one's compares with it.

    Args:
        seconds: from take_turns.
        amount: {name: units of work of a turn}, or one number for all.
    """
    first = next(iter(seconds))
    print(f'{"":30} {unit + "/s":>12} {"best":>9}   {first!r} is')
    for name, times in seconds.items():
        n = amount[name] if isinstance(amount, dict) else amount
        theirs = [second / n for second in times]
        ours = [second / (amount[first] if isinstance(amount, dict) else amount)
                for second in seconds[first]]
        print(f'{name:30} {1 / statistics.median(theirs):12.2f} {1 / min(theirs):9.2f}   '
              f'{ratio(ours, theirs):.2f} times', flush=True)


def sgemm_speed(clock=time.perf_counter):
    """Operations a second of a large product of matrices in float32."""
    a, b = (numpy.random.rand(2048, 2048).astype('f') for _ in range(2))
    a @ b
    start = clock()
    for _ in range(3):
        a @ b
    return 3 * 2 * 2048 ** 3 / (clock() - start)


def pipe_speed(megabytes=1024):
    """Bytes a second from another process through a pipe."""
    with subprocess.Popen(['dd', 'if=/dev/zero', 'bs=1M', f'count={megabytes}'],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        buffer, done = memoryview(bytearray(1 << 20)), 0
        start = time.perf_counter()
        while got := process.stdout.readinto(buffer):
            done += got
        return done / (time.perf_counter() - start)


def disk_speed(folder, megabytes=256):
    """Bytes a second written to a file in a folder, and there for good."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as f:
        start = time.perf_counter()
        for _ in range(megabytes):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())
        return megabytes * len(block) / (time.perf_counter() - start)


def drawn_clips(folder, number, frames, size='320x240'):
    """Draws clips of moving test pictures in the format of UCF-101; returns their paths."""
    import imageio_ffmpeg
    paths = []
    for k in range(number):
        path = os.path.join(folder, f'v_Drawn_g{k + 1:02d}_c01.avi')
        subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-f', 'lavfi', '-i',
             f'testsrc2=size={size}:rate=25,rotate={0.3 * k + 0.1}*t,noise=alls=12:allf=t',
             '-frames:v', str(frames), '-c:v', 'mpeg4', '-q:v', '5', path], check=True)
        paths.append(path)
    return paths
