"""Computes the optical flow of every clip, one part of many: what the flow network sees.

Needs   ROOT/UCF-101/, ROOT/ucfTrainTestlist/
Writes  ROOT/UCF-101_flow/Class/clip.mkv    a frame of flow for each frame (--step N: each Nth):
                                            x, y and 128 as channels, 128 where nothing moves
        ROOT/UCF-101_flow/flow.json         what all of them were made with
        ROOT/UCF-101_flow/part03.txt        clips that failed, are short or have one frame
        ROOT/flow_CLIP.png                  of --show: frames beside their flow

    python opticalFlow.py 3 --parts 12                    # part 3 of 12
    ./saveFeatures.sh --stage opticalFlow --local         # all parts, here
    ./saveFeatures.sh --stage opticalFlow --root DIR      # as batch jobs
    python opticalFlow.py --show v_PushUps_g01_c01
    python frameBasedTrain.py --stream flow               # next; all later stages alike

Flow is from each frame taken to the next one taken; the last frame's is that of the one before
it, so that a clip has as many flows as frames. The whole of UCF-101 (2.48 million frames) takes
about 3.5 GB, and 6 hours on one core (estimates: docs/flow.md). A finished clip is skipped, so
the same command goes on where a killed job stopped. Exit code 0: all done; 3: done but for the
clips named; 4: stopped before the end, by SIGTERM or because --walltime is nearly over.
"""
import argparse
import collections
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor

import engine  # noqa: F401  (before NumPy)
import cv2
import numpy

import helperFunctions as hf
from engine import arguments, files, stage, variants
from engine.cluster import parts, stopintime
from engine.drawing import plotstyle
from engine.video import flowfiles
from engine.errors import UserError
from engine.files import write_text
from engine.video.flow import (CODEC, METHODS, colours, dequantise, get_method, save_flow,
                               stored_frames, wheel)
from engine.progress import Progress
from engine.video.container import read_header
from engine.video.decode import VideoError, read_frames

# For generate_pbs.py: what the jobs are called, their folder, what runs after all of them.
JOB, JOBS, THEN = 'flow', 'jobs_opticalFlow', ()


def frame_size(text):
    """argparse type: '320x240' -> (320, 240)."""
    found = re.fullmatch(r'(\d+)x(\d+)', text)
    size = tuple(map(int, found.groups())) if found else (0, 0)
    # DIS gives up on smaller frames
    if not all(32 <= side <= 4096 for side in size):
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, from 32 to 4096')
    return size


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parts.add_parts(parser, needed=False)
    group.add_argument('--workers', type=arguments.at_once, default=2,
                       help='clips at once, each on about a core (default: 2)')
    group = parser.add_argument_group('flow')
    group.add_argument('--method', choices=METHODS, default=variants.FLOW_DECIDES['method'],
                       help='speeds and errors of each: docs/flow.md (default: %(default)s)')
    group.add_argument('--step', type=arguments.whole(1), default=variants.FLOW_DECIDES['step'],
                       metavar='N',
                       help='take every Nth frame, and the flow from one of these to the next '
                            '(default: %(default)s)')
    group.add_argument('--bound', type=arguments.real(above=0, below=1e4),
                       default=variants.FLOW_DECIDES['bound'],
                       metavar='PIXELS',
                       help='what moves farther from frame to frame is taken to move so far; a '
                            'stored byte is a 127th of it (default: %(default)g)')
    group.add_argument('--size', type=frame_size,
                       default=tuple(variants.FLOW_DECIDES['size']), metavar='WxH',
                       help='frames are scaled to this before, and flow is in its pixels '
                            '(default: 320x240, that of UCF-101)')
    group = parser.add_argument_group('looking')
    group.add_argument('--show', metavar='CLIP', help='only draw this clip and its flow')
    return parser


def work_of(args, values=False):
    """The engine.cluster.parts.Work of this stage."""
    lists = hf.read_lists(args.root, args.split)
    return parts.Work(lists.train + lists.test, args.root / variants.clips_folder('flow'),
                      lambda clip: stored_frames(variants.flow_path(args.root, clip)),
                      lambda clip: [variants.flow_path(args.root, clip)],
                      announced=lambda clip: read_header(clip.path)[0] // args.step,
                      # as measured at 320x240: docs/flow.md
                      frame_bytes=1400 * args.size[0] * args.size[1] / (320 * 240))


def claim_folder(args):
    """Makes sure that the flow in the folder was made with these settings."""
    folder = args.root / variants.clips_folder('flow')
    settings = {'method': args.method, 'bound': args.bound, 'step': args.step,
                'size': list(args.size)}
    before = files.read_json(folder / variants.FLOW_SETTINGS)
    if before is None:
        write_text(folder / variants.FLOW_SETTINGS, json.dumps(
            {**settings, 'codec': ' '.join(CODEC), 'opencv': cv2.__version__}) + '\n')
        return
    for key in variants.FLOW_DECIDES:
        if before.get(key) != settings[key]:
            raise UserError(f'{folder}: holds flow made with {key} {before.get(key)}, not '
                            f'{settings[key]}; remove it first: rm -r {shlex.quote(str(folder))}')


def run_part(args, todo, report, stop):
    """Computes the flow of the clips; returns whether it came to the end before `stop`."""
    def compute(clip):
        try:
            return save_flow(clip.path, variants.flow_path(args.root, clip), args.method,
                             args.bound, args.size, args.step, stop.is_set)
        except VideoError as error:
            return error
    with Progress(len(todo), f'part {args.part} of {args.parts}') as progress, \
            ThreadPoolExecutor(args.workers) as pool:
        waiting, clips = collections.deque(), iter(todo)
        try:
            while True:
                while len(waiting) < 2 * args.workers:
                    clip = next(clips, None)
                    if clip is None:
                        break
                    waiting.append((clip, pool.submit(compute, clip)))
                if not waiting:
                    return True
                clip, job = waiting.popleft()
                frames = job.result()
                if frames is None:
                    return False
                note(args, clip, frames, report, progress)
        finally:
            for _, job in waiting:
                job.cancel()


def note(args, clip, frames, report, progress):
    """Enters in the report what was wrong with a clip; `frames`: Frames or VideoError."""
    if isinstance(frames, VideoError):
        report.failed(clip, frames, args.root / variants.CLIPS)
        progress.update()
        return
    progress.update(frames=frames.count)
    still = 'still', f'{clip.path}: one frame, so its flow is zero'
    report.finished(clip, frames, still if frames.count == 1 else None)


# ---------------------------------------------------------------------------- looking

def show(args, columns=5, rows=2):
    """Draws frames of a clip, evenly spaced, each above its flow; returns the picture's path."""
    lists = hf.read_lists(args.root, args.split)
    clip = next((c for c in lists.train + lists.test if c.name == args.show), None)
    if clip is None:
        raise UserError(f'--show {args.show}: not on the lists of split {args.split}')
    made_with = flowfiles.flow_made_with(args.root, args.split)
    path = variants.flow_path(args.root, clip)
    n = stored_frames(path)
    if not n:
        raise UserError(f'{path}: not there, or not whole; made by: python opticalFlow.py 1 '
                        f'--parts 1{variants.place(args.root, args.split)}')
    indices = [(2 * i + 1) * n // (2 * columns * rows) for i in range(columns * rows)]
    size = tuple(made_with['size'])
    frames = read_frames(clip.path, [i * made_with['step'] for i in indices], size)
    flow = dequantise(read_frames(path, indices, size), made_with['bound'])
    # The strongest motion but for a few odd pixels; never so small that noise gets colour.
    most = max(float(numpy.percentile(numpy.hypot(flow[..., 0], flow[..., 1]), 99)), 1.0)
    target = args.root / f'flow_{clip.name}.png'
    plotstyle.save(target, flow_figure, [
        (f'frame {index * made_with["step"]}', *pair)
        for index, *pair in zip(indices, frames, flow)], most,
        f'{clip.name}: optical flow, {made_with["method"]}, step {made_with["step"]}', dpi=110)
    return target


def flow_figure(pictures, most, title, columns=5):
    """Rows of (title, (S, S, 3) BGR frame, its (S, S, 2) flow in pixels), as a Figure."""
    from matplotlib.figure import Figure
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.4 * (columns + 1), 3.7 * rows), layout='constrained')
    axes = figure.subplots(2 * rows, columns + 1)
    for axis in axes.flat:
        axis.axis('off')
    for place, (name, frame, flow) in enumerate(pictures):
        row, column = divmod(place, columns)
        axes[2 * row, column].imshow(frame[..., ::-1])
        axes[2 * row, column].set_title(name, fontsize=9)
        axes[2 * row + 1, column].imshow(colours(flow, most))
    legend = axes[0, -1]
    legend.imshow(wheel(201, most))
    legend.set_title(f'where to; rim: {most:.1f} pixels\nor more, middle: still', fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def main():
    parser = get_parser()
    args = stage.parse(parser, step=8)
    if args.show:
        print(f'wrote {show(args)}')
        return 0
    if args.part is None:
        parser.error('the following arguments are required: part (or --show CLIP)')
    if args.part > args.parts:
        raise UserError(f'part {args.part}: expected 1 to {args.parts}')
    stop = stopintime.Stop(args.walltime, args.margin)
    stage.print_settings(args)
    cv2.setNumThreads(1)  # a clip a core is faster than all cores at one clip
    get_method(args.method)
    work = work_of(args)  # before a folder is made for it
    claim_folder(args)
    with parts.only_one(work, args.part):
        mine, todo, report = parts.begin(work, args.part, args.parts)
        stop.run(lambda: run_part(args, todo, report, stop.event))
        return parts.end(mine, report, args.part)


if __name__ == '__main__':
    stage.run(main)
