"""Speed and error of dense optical flow methods on motions that are known.

A picture is moved by a known field: shifts of parts of a pixel, a turn, a zoom, and a patch
of another picture that moves across it (which hides and uncovers what is behind). Both frames
get noise of their own. "error" is the mean end-point error in pixels over all pixels that
stay in the frame; "off by 1" the share of them that are wrong by more than a pixel. Methods
take turns on one core; speed is the median, in pairs of frames a second.

    python -m bench.flow --clips DIR       # frames of real clips, DIR/Class/clip.avi
    python -m bench.flow                   # drawn textures
    python -m bench.flow --clips DIR --storage    # codecs for quantised flow, in its place

Of a codec are told bytes a frame, frames a second written and read (one core), and the mean
and the 99.9th percentile of the error of a stored byte (a bound/127 of a pixel), also when
ffmpeg scales it to 224x224 as stages do, beside the mean over areas.

TV-L1 (Zach et al. 2007) is measured where opencv-contrib-python-headless stands in place of
opencv-python-headless.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy

from opticalFlow import frame_size
from engine.arguments import whole
from engine.video.flow import CODEC, METHODS, FlowWriter, flow_of_frames, get_method
from engine.video.decode import Frames, count_frames, read_frames

# dx, dy: pixels; turn: degrees; zoom: factor; patch: (dx, dy) of what moves across
MOTIONS = {'still': {}, 'shift 0.3': dict(dx=.3, dy=-.2), 'shift 2.5': dict(dx=2.5, dy=1.5),
           'shift 7': dict(dx=-6.3, dy=3.1), 'shift 16': dict(dx=14.5, dy=6.5),
           'turn 3': dict(turn=3), 'zoom 1.04': dict(zoom=1.04),
           'patch 5': dict(dx=.5, patch=(-4.2, 2.7)), 'patch 12': dict(patch=(11.2, -4.4))}


CODECS = {'x264 RGB, crf 18 (ours)': CODEC,
          **{f'x264 RGB, crf {crf}': ('-c:v', 'libx264rgb', '-preset', 'fast', '-crf', str(crf))
             for crf in (12, 23, 28)},
          'x264 RGB, lossless': ('-c:v', 'libx264rgb', '-preset', 'fast', '-qp', '0'),
          'FFV1, lossless': ('-c:v', 'ffv1', '-level', '3', '-g', '1', '-pix_fmt', 'gbrp'),
          'JPEG, best, 4:4:4': ('-c:v', 'mjpeg', '-q:v', '2', '-pix_fmt', 'yuvj444p')}


def textures(n, size, random):
    """Grey pictures with detail at all scales, as natural ones have (1/f spectrum)."""
    width, height = size
    fx, fy = numpy.meshgrid(numpy.fft.fftfreq(width), numpy.fft.fftfreq(height))
    fall = 1 / numpy.maximum(numpy.hypot(fx, fy), 1 / width) ** 1.2
    for _ in range(n):
        noise = numpy.fft.ifft2(numpy.fft.fft2(random.randn(height, width)) * fall).real
        yield numpy.uint8(numpy.clip(128 + 50 * noise / noise.std(), 0, 255))


def pictures(clips, n, size, random):
    """The middle frame of n clips chosen at random, grey."""
    paths = sorted(clips.rglob('*.avi'))
    for index in random.choice(len(paths), n, replace=len(paths) < n):
        middle = count_frames(paths[index]) // 2
        # no rectangle is to be had, so larger than needed, then down
        frame = read_frames(paths[index], [middle], max(size))[0]
        yield cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA),
                           cv2.COLOR_BGR2GRAY)


def move(picture, other, random, dx=0.0, dy=0.0, turn=0.0, zoom=1.0, patch=None):
    """Returns (before, after, flow, valid): flow (H, W, 2) of `before`'s pixels."""
    height, width = picture.shape
    middle = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, turn, zoom)
    matrix[:, 2] += dx, dy
    x, y = numpy.meshgrid(numpy.arange(width), numpy.arange(height))
    flow = numpy.stack([matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] - v
                        for i, v in ((0, x), (1, y))], axis=2)
    before, after = picture.copy(), warp(picture, matrix)
    valid = ((x + flow[..., 0] >= 0) & (x + flow[..., 0] <= width - 1)
             & (y + flow[..., 1] >= 0) & (y + flow[..., 1] <= height - 1))
    if patch:
        mask = numpy.zeros((height, width), numpy.uint8)
        cv2.ellipse(mask, (width // 2, height // 2), (width // 6, height // 5), 20, 0, 360, 255, -1)
        step = numpy.float64([[1, 0, patch[0]], [0, 1, patch[1]]])
        moved = warp(mask, step, border=cv2.BORDER_CONSTANT) / 255
        before = numpy.where(mask > 0, other, before)
        after = warp(other, step) * moved + after * (1 - moved)
        flow[mask > 0] = patch
        # what the patch hides has no place in the second frame
        hidden = cv2.remap(numpy.float32(moved), numpy.float32(x + flow[..., 0]),
                           numpy.float32(y + flow[..., 1]), cv2.INTER_LINEAR) > 0
        valid &= ~hidden | (mask > 0)
    noisy = (frame + random.randn(height, width) * 2 for frame in (before, after))
    return *(numpy.uint8(numpy.clip(numpy.rint(f), 0, 255)) for f in noisy), flow, valid


def warp(picture, matrix, border=cv2.BORDER_REFLECT):
    return cv2.warpAffine(picture, matrix, picture.shape[::-1], flags=cv2.INTER_CUBIC,
                          borderMode=border)


def storage(clips, n, size, random):
    """Prints what each codec makes of the flow of n clips."""
    paths = sorted(clips.rglob('*.avi'))
    found = []
    for index in random.choice(len(paths), n, replace=False):
        frames = (frame for batch in Frames(paths[index], size) for frame in batch)
        found.append(numpy.stack(list(flow_of_frames(frames, get_method('dis-fast'), 20))))
    print(f'{"":24} bytes/frame  written/s  read/s   error  99.9 %  scaled')
    for name, codec in CODECS.items():
        total = frames = writing = reading = 0
        errors = []
        for flow in found:
            with tempfile.NamedTemporaryFile(suffix='.mkv') as f:
                start = time.perf_counter()
                with FlowWriter(f.name, size, codec) as writer:
                    for frame in flow:
                        writer.write(frame)
                middle = time.perf_counter()
                got = numpy.concatenate(list(Frames(f.name, size)))
                writing, reading = (writing + middle - start,
                                    reading + time.perf_counter() - middle)
                total, frames = total + Path(f.name).stat().st_size, frames + len(flow)
                error = abs(got.astype(int) - flow)[..., :2]
                scaled = numpy.concatenate(list(Frames(f.name, 224))).astype(float)
                truth = [cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA)
                         for frame in flow]
                errors.append((error.mean(), numpy.percentile(error, 99.9),
                               abs(scaled - truth)[..., :2].mean()))
        error, most, scaled = numpy.mean(errors, axis=0)
        print(f'{name:24} {total / frames:11.0f} {frames / writing:10.0f} {frames / reading:7.0f}'
              f' {error:7.2f} {most:7.1f} {scaled:7.2f}', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clips', type=Path, metavar='DIR')
    parser.add_argument('--size', type=frame_size, default=(320, 240), metavar='WxH')
    parser.add_argument('--pictures', type=whole(1), default=6, metavar='N')
    parser.add_argument('--storage', action='store_true', help='of --clips')
    parser.add_argument('--seed', type=whole(0), default=0)
    parser.add_argument('--only', nargs='+', metavar='METHOD', default=list(METHODS))
    args = parser.parse_args()
    cv2.setNumThreads(1)
    random = numpy.random.RandomState(args.seed)
    size = args.size
    if args.storage:
        if not args.clips:
            parser.error('--storage: of which --clips?')
        return storage(args.clips, args.pictures, size, random)
    found = list(pictures(args.clips, args.pictures + 1, size, random) if args.clips
                 else textures(args.pictures + 1, size, random))
    methods = {}
    for name in args.only:
        try:
            methods[name] = METHODS[name]()
        except AttributeError:
            print(f'{name}: not in this OpenCV ({cv2.__version__})')
    errors, off, times = ({name: {} for name in methods} for _ in range(3))
    for motion, settings in MOTIONS.items():
        for picture, other in zip(found, found[1:]):
            before, after, flow, valid = move(picture, other, random, **settings)
            for name, method in methods.items():
                start = time.perf_counter()
                got = method(before, after)
                times[name].setdefault(motion, []).append(time.perf_counter() - start)
                error = numpy.hypot(*numpy.moveaxis(got - flow, 2, 0))[valid]
                errors[name].setdefault(motion, []).append(error.mean())
                off[name].setdefault(motion, []).append((error > 1).mean())
    width = max(map(len, methods))
    print(f'{args.pictures} pictures of {size[0]}x{size[1]}, mean end-point error in pixels')
    print(f'{"":{width}}', *(f'{motion:>9}' for motion in MOTIONS), '  all  off by 1  pairs/s')
    for name in methods:
        means = [statistics.mean(errors[name][motion]) for motion in MOTIONS]
        wrong = statistics.mean(statistics.mean(v) for v in off[name].values())
        rate = 1 / statistics.median(t for v in times[name].values() for t in v)
        print(f'{name:{width}}', *(f'{mean:9.2f}' for mean in means),
              f'{statistics.mean(means):5.2f} {100 * wrong:7.1f} % {rate:8.1f}')


if __name__ == '__main__':
    main()
