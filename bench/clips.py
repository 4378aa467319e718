"""Clips: decoding against ffmpeg alone, and the whole of stage 2 against its network alone.

"decode" reads clips one after the other, scaled to 224x224, as bytes in NumPy arrays; "ffmpeg"
runs the same program with the same filter into /dev/null. "stage 2" is saveFeatures_1024.py's own
loop: it decodes, computes and writes both files of each clip; "network" computes the same from
frames that are in memory already.

    python -m bench.clips                       # draws its clips
    python -m bench.clips --data DIR            # DIR/UCF-101/Class/*.avi
"""
import argparse
import itertools
import os
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

import saveFeatures_1024
import helperFunctions as hf
from engine import usable_cores, variants
from engine.arguments import whole
from VGGNet_1024 import VGGNet_1024
from engine.cluster.parts import Report
from engine.video.container import read_header
from engine.video.decode import Frames


def clips_of(args, folder):
    """Clips with about --frames frames in all: drawn, or evenly from those in --data."""
    if not args.data:
        return [Path(path) for path in bench.drawn_clips(folder, 3, args.frames // 3)]
    paths = sorted((args.data / variants.CLIPS).glob('*/*.avi'))
    chosen, frames = [], 0
    for path in itertools.chain(*(paths[k::7] for k in range(7))):
        if frames < args.frames:
            chosen.append(path)
            frames += read_header(path)[0]
    return chosen


def decode(paths):
    for path in paths:
        for _ in Frames(path, 224):
            pass


def decode_at_once(paths, readers):
    """The same, so many clips at once."""
    with ThreadPoolExecutor(readers) as pool:
        list(pool.map(lambda path: decode([path]), paths))


def ffmpeg(paths):
    for path in paths:
        command = Frames(path, 224)._command()
        subprocess.run([*command, '-y', os.devnull], stdin=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True)


def stage_2(clips, root, model, args, workers=2, device=None):
    """The loop of saveFeatures_1024.py over clips, without what it does once a start."""
    arguments = saveFeatures_1024.get_parser().parse_args(
        ['1', '--root', str(root), '--batch', str(args.batch), '--workers', str(workers)])
    report = Report(root, 1)

    def run():
        assert saveFeatures_1024.run_part(
            arguments, clips, report, model, device or chainer.get_device('@numpy'),
            threading.Event())
    return run


def network(clips, model, args):
    """The same batches from memory."""
    names = variants.names_of(saveFeatures_1024.get_parser().parse_args(['1']))
    size = model.shape['input_size']
    batches = {clip: list(Frames(clip.path, size, args.batch)) for clip in clips}

    def run():
        for clip in clips:
            saveFeatures_1024.extract(clip, iter(batches[clip]), model,
                                      chainer.get_device('@numpy'), threading.Event(), names)
    return run


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, metavar='DIR', help='real clips, DIR/UCF-101')
    parser.add_argument('--frames', type=whole(1), default=150,
                        help='of all clips together, about (default: 150)')
    parser.add_argument('--batch', type=whole(1), default=16, help='frames (default: 16)')
    parser.add_argument('--turns', type=whole(1), default=3, help='turns of each (default: 3)')
    args = parser.parse_args()

    numpy.random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = clips_of(args, folder)
        frames = {path: sum(map(len, Frames(path, 8))) for path in paths}
        n = sum(frames.values())
        print(f'\n{len(paths)} clips of {min(frames.values())} to {max(frames.values())} frames, '
              f'{n} in all; {usable_cores()} threads, {args.turns} turns')
        seconds = bench.take_turns(
            {'decode': lambda: decode(paths), 'ffmpeg': lambda: ffmpeg(paths)}, args.turns)
        bench.table(seconds, n, 'frames')
        pipe, disk = bench.pipe_speed(), bench.disk_speed(folder)
        print(f'{"pipe":30} {pipe / (224 * 224 * 3):12.2f}')

        model = VGGNet_1024()
        clips = [hf.Clip(path.stem, 'Class', 0, 'g01', path) for path in paths]
        seconds = bench.take_turns(
            {'stage 2': stage_2(clips, Path(folder), model, args),
             'network': network(clips, model, args)}, args.turns)
        bench.table(seconds, n, 'frames')
        print(f'{"disk":30} {disk / (4 * (1024 + 101)):12.2f}')


if __name__ == '__main__':
    main()
