"""Films whose frames carry their number as black and white bars, read back from any decoder."""
import subprocess

import imageio_ffmpeg
import numpy

BITS = 10
CODEC = ('-c:v', 'libx264', '-crf', '12', '-g', '12', '-bf', '2', '-pix_fmt', 'yuv420p')


def draw(number, height=32):
    """(height, 16 BITS, 3) uint8: the bits of a number, the lowest at the left."""
    bits = (number >> numpy.arange(BITS)) & 1
    row = numpy.repeat(numpy.where(bits, 235, 20), 16).astype(numpy.uint8)
    return numpy.broadcast_to(row[None, :, None], (height, len(row), 3))


def number_of(frame):
    """The number that a frame (H, W, 3) carries, whatever its size."""
    middles = ((numpy.arange(BITS) + 0.5) * frame.shape[1] / BITS).astype(int)
    bits = frame[frame.shape[0] // 2, middles].mean(axis=-1) > 128
    return int((bits << numpy.arange(BITS)).sum())


def make_film(path, frames, rate=25, codec=CODEC, stamps='', first=0):
    """Writes a film of so many frames; `stamps`: an expression of ffmpeg's setpts for a rate that
    varies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    varies = ['-vf', f'settb=1/1000,setpts={stamps}', '-fps_mode', 'passthrough',
              '-enc_time_base', '1/1000'] if stamps else []
    data = b''.join(draw(first + i).tobytes() for i in range(frames))
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-f', 'rawvideo',
                    '-pix_fmt', 'bgr24', '-s', f'{16 * BITS}x32', '-r', str(rate), '-i', 'pipe:0',
                    *varies, *codec, '-y', str(path)], input=data, check=True)
    return path
