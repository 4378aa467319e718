"""Stage 2: saves a feature and a prediction of every frame of every clip, one part of many.

Needs   ROOT/VGG_1024.model (python frameBasedTrain.py), ROOT/UCF-101/, ROOT/ucfTrainTestlist/
Writes  ROOT/UCF-101_features/Class/clip.npy          (frames, 1024) float32
        ROOT/UCF-101_framePrediction/Class/clip.npy   (frames, classes) float32, softmax
        ROOT/UCF-101_features/part03.txt              clips that failed or are short, and why

    python saveFeatures_1024.py 3 --parts 12     # part 3 of 12; ./saveFeatures.sh does all
    python saveFeatures_1024.py 1 --parts 1 --root demo

A finished clip is skipped, so the same command goes on where a killed job stopped.
Exit code 0: all done; 3: done but for the clips named; 4: stopped before the end, by
SIGTERM or because --walltime is nearly over.
"""
import json
import os
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy
from chainer.backends.cuda import to_cpu

import helperFunctions as hf
from VGGNet_1024 import load_vgg_1024
from engine.errors import UserError
from engine.files import remove_leftovers, save_npy, write_text
from engine.modelfile import weights_digest
from engine.progress import Progress
from engine.video import DecoderKilled, Frames, VideoError, is_short, preprocess

# Decoded batches that may wait for the network, a clip.
AHEAD = 4
# A stop must be over before the scheduler's SIGKILL, which may come after 2 s.
PATIENCE = 1.0


def get_parser():
    parser = hf.stage_parser(__doc__)
    parser.add_argument('part', type=hf.whole(1), help='which part, from 1')
    group = parser.add_argument_group('work')
    group.add_argument('--parts', type=hf.whole(1), default=12,
                       help='into how many parts the clips are dealt (default: 12)')
    group.add_argument('--step', type=hf.whole(1), default=1, metavar='N',
                       help='take every Nth frame, for trials (default: 1)')
    group.add_argument('--batch', type=hf.whole(1), default=16,
                       help='frames through the network at once (default: 16)')
    group.add_argument('--workers', type=hf.whole(1), default=2,
                       help='clips decoded ahead of the network (default: 2)')
    group.add_argument('--walltime', default=None, metavar='HH:MM:SS',
                       help='leave in good order before this much time has passed')
    group.add_argument('--margin', type=float, default=120, metavar='SECONDS',
                       help='how long before --walltime to leave (default: 120)')
    hf.add_variant(parser, 'stream', 'fusion', 'layer')
    hf.add_device(parser)
    return parser


def size(clip):
    """Bytes of a clip's file; 0 if it is not there."""
    try:
        return os.path.getsize(clip.path)
    except OSError:
        return 0


def deal(clips, parts):
    """Deals clips into parts of nearly equal bytes: [[Clip, ...], ...].

    The largest clip goes to the part with least so far. Only the lists and the
    files' sizes decide, never what is finished, so a part means the same every day.
    """
    sized = sorted(((size(clip), clip) for clip in clips), key=lambda s: (-s[0], s[1].name))
    dealt, loads = [[] for _ in range(parts)], [0] * parts
    for bytes_, clip in sized:
        # a file that is not there still counts a little, or all would go to one part
        lightest = loads.index(min(loads))
        dealt[lightest].append(clip)
        loads[lightest] += max(bytes_, 1)
    return [sorted(part, key=lambda clip: str(clip.path)) for part in dealt]


def finished_frames(root, clip, n_features, n_classes, names, values=True):
    """The frames of a clip whose two results are there, whole, and agree; else 0."""
    try:
        return hf.check_results(root, clip, n_features, n_classes, values, names)
    except UserError:
        return 0


def claim_folders(root, model_path, step, names):
    """Makes sure that what stands in the output folders came from this very model."""
    digest = weights_digest(model_path)
    made_with = {'model_sha256': digest, 'step': step}
    path = root / names.features / 'extraction.json'
    before = hf.read_json(path)
    if before is None:
        write_text(path, json.dumps(made_with))
    elif before != made_with:
        what = ('another model' if before.get('model_sha256') != digest
                else f'--step {before.get("step")}')
        raise UserError(f'{path.parent}: holds features made with {what}; remove them first: '
                        f'rm -r {path.parent} {root / names.frame_predictions}')


class Report:
    """The clips of a part that failed or are short, kept in a file beside the features.

    A line of the file is KIND, clip and reason, with tabs between.
    """

    def __init__(self, folder, part):
        self.path = folder / f'part{part:02d}.txt'
        self.lines = {}
        try:
            text = self.path.read_text(encoding='utf-8')
        except OSError:
            return
        for line in text.splitlines():
            kind, name, reason = line.split('\t', 2)
            self.lines[name] = kind, reason

    def add(self, kind, name, reason):
        self.lines[name] = kind, ' '.join(reason.split())
        self.save()

    def remove(self, name):
        if self.lines.pop(name, None):
            self.save()

    def save(self):
        write_text(self.path, ''.join(f'{kind}\t{name}\t{reason}\n' for name, (kind, reason)
                                      in sorted(self.lines.items())))

    def of_kind(self, kind):
        return [(name, reason) for name, (k, reason) in sorted(self.lines.items()) if k == kind]


class DecodedAhead:
    """Decodes clips in threads ahead of the reader, a few batches each.

    Iterating gives (clip, frames, batches): batches yields (n, S, S, 3) uint8 and
    raises the VideoError of a clip that cannot be read.
    """

    def __init__(self, clips, size, batch, step, workers):
        self.clips, self.stopped = clips, threading.Event()
        self.make = lambda clip: Frames(clip.path, size, batch, step)
        self.workers = workers

    def __iter__(self):
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = []
            clips = iter(self.clips)
            try:
                while True:
                    while len(waiting) < self.workers:
                        clip = next(clips, None)
                        if clip is None:
                            break
                        frames, box = self.make(clip), queue.Queue(AHEAD)
                        pool.submit(self._fill, frames, box)
                        waiting.append((clip, frames, self._empty(box)))
                    if not waiting:
                        return
                    yield waiting.pop(0)
            finally:
                self.stopped.set()

    def _fill(self, frames, box):
        try:
            for batch in frames:
                self._put(box, batch)
            self._put(box, None)
        except Exception as error:  # told to whoever reads this clip
            self._put(box, error)

    def _put(self, box, item):
        while not self.stopped.is_set():
            try:
                return box.put(item, timeout=0.2)
            except queue.Full:
                pass
        raise SystemExit  # nobody reads any more: ends this thread and its ffmpeg

    @staticmethod
    def _empty(box):
        while (item := box.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


def extract(clip, batches, model, device, stop):
    """Runs one clip through the network; returns (features, predictions) or None if stopped."""
    features, predictions = [], []
    for frames in batches:
        if stop.is_set():
            return None
        pair = model.feature_and_prediction(preprocess(device.send(frames), model.mean))
        features.append(to_cpu(pair[0]))
        predictions.append(to_cpu(pair[1]))
    features, predictions = numpy.concatenate(features), numpy.concatenate(predictions)
    if not (numpy.isfinite(features).all() and numpy.isfinite(predictions).all()):
        raise VideoError(f'{clip.path}: the network gave a number that is not finite')
    return features, predictions


def run_part(args, todo, report, model, device, stop):
    """Extracts the clips; returns whether it came to the end before `stop` was set."""
    names = hf.names_of(args)
    ahead = DecodedAhead(todo, model.shape['input_size'], args.batch, args.step, args.workers)
    with Progress(len(todo), f'part {args.part} of {args.parts}') as progress:
        for clip, frames, batches in ahead:
            try:
                result = extract(clip, batches, model, device, stop)
            except VideoError as error:
                folder = args.root / hf.clips_folder(args.stream)
                if not folder.is_dir():
                    # The file system has gone, not this clip.
                    raise UserError(f'{folder}: not there any more; run the '
                                    'command again when it is back') from None
                report.add('failed', clip.name, str(error))
                progress.update()
                continue
            if result is None:
                return False
            # Both or neither: a clip counts as finished only when both are there.
            save_npy(hf.output_path(args.root, names.frame_predictions, clip), result[1])
            save_npy(hf.output_path(args.root, names.features, clip), result[0])
            progress.update(frames=frames.count)
            if is_short(frames.count, frames.announced):
                report.add('short', clip.name, f'{clip.path}: {frames.count} of '
                           f'{frames.announced} frames ({frames.complaint or "no complaint"})')
            else:
                report.remove(clip.name)
    return True


def seconds(walltime):
    """'02:30:00' -> 9000.0."""
    try:
        hours, minutes, rest = walltime.split(':')
        return int(hours) * 3600 + int(minutes) * 60 + float(rest)
    except ValueError:
        raise UserError(f'--walltime {walltime}: expected HH:MM:SS') from None


def leave(why):
    """Ends the program now: what is finished stands there in whole files.

    A batch still in the network is not waited for, nor is anything asked of a file
    system that may hang.
    """
    print(f'stopped ({why}); the same command goes on', flush=True)
    os._exit(4)


def main():
    started = time.monotonic()
    args = hf.parse_stage(get_parser(), step=8)
    if not 1 <= args.part <= args.parts:
        raise UserError(f'part {args.part}: expected 1 to {args.parts}')
    hf.print_settings(args)
    names = hf.names_of(args)
    stop, why = threading.Event(), []

    def on_signal(number, _):
        why.append(signal.Signals(number).name)
        stop.set()
        if not at_work:
            leave(why[0])
    at_work = False
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    lists = hf.read_lists(args.root, args.split, stream=args.stream)
    model_path = args.root / names.model
    model, card = load_vgg_1024(
        model_path, f'python frameBasedTrain.py{names.flags("stream", "fusion")}')
    if card.get('classes') != lists.classes:
        raise UserError(f'{model_path}: trained for {len(card.get("classes", []))} classes, '
                        f'but {args.root / hf.LISTS} names {len(lists.classes)}; '
                        'train again: python frameBasedTrain.py')
    hf.check_frame_model(model_path, card, args.split, names)
    claim_folders(args.root, model_path, args.step, names)
    device = hf.get_device(args.device)
    model.fast = args.fast
    model.to_device(device)

    mine = deal(lists.train + lists.test, args.parts)[args.part - 1]
    todo = [clip for clip in mine
            if not finished_frames(args.root, clip, model.n_features, len(lists.classes),
                                   names)]
    print(f'{len(mine)} clips in this part, {len(mine) - len(todo)} finished before', flush=True)
    remove_leftovers(hf.output_path(args.root, folder, clip) for clip in todo
                     for folder in (names.features, names.frame_predictions))
    report = Report(args.root / names.features, args.part)
    finished_before = {clip.name for clip in mine} - {clip.name for clip in todo}
    report.lines = {name: line for name, line in report.lines.items()
                    if line[0] == 'short' and name in finished_before}
    report.save()

    deadline = (started + seconds(args.walltime) - args.margin if args.walltime
                else float('inf'))

    # The network works in a thread, so that this one hears signals at once.
    outcome = {}

    def work():
        try:
            outcome['ended'] = run_part(args, todo, report, model, device, stop)
        except BaseException as error:  # raised again below, in the main thread
            outcome['error'] = error
    worker = threading.Thread(target=work, daemon=True)
    at_work = True
    worker.start()
    while worker.is_alive() and not stop.is_set():
        worker.join(0.1)
        if time.monotonic() > deadline:
            why.append(f'{args.margin:g} s are left of --walltime')
            stop.set()
    worker.join(PATIENCE)
    error = outcome.get('error')
    if isinstance(error, DecoderKilled):
        # A scheduler signals one process after the other: ours may be yet to come.
        stop.wait(PATIENCE)
    if error and not why:
        raise error
    if not outcome.get('ended'):
        leave(why[0])
    for kind in ('short', 'failed'):
        for _, reason in report.of_kind(kind):
            print(f'{kind}: {reason}')
    failed = report.of_kind('failed')
    print(f'part {args.part}: {len(mine) - len(failed)} clips finished, {len(failed)} failed'
          + (f'; see {report.path}' if report.lines else ''), flush=True)
    return 3 if failed else 0


if __name__ == '__main__':
    hf.stage_main(main)
