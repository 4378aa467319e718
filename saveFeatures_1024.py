"""Stage 2: saves a feature and a prediction of every frame of every clip, one part of many.

Needs   ROOT/VGG_1024.model (python frameBasedTrain.py), ROOT/UCF-101/, ROOT/ucfTrainTestlist/
Writes  ROOT/UCF-101_features/Class/clip.npy          (frames, 1024) float32; of --layer pool5
                                                      (frames, C*h*w) float16
        ROOT/UCF-101_framePrediction/Class/clip.npy   (frames, classes) float32, softmax
        ROOT/UCF-101_features/part03.txt              clips that failed or are short, and why

    python saveFeatures_1024.py 3 --parts 12     # part 3 of 12; ./saveFeatures.sh does all
    python saveFeatures_1024.py 1 --parts 1 --root demo
    python saveFeatures_1024.py 3 --layer pool5 --step 25    # maps, a frame a second
    python saveFeatures_1024.py 3 --fusion slow              # each frame's feature sees 10

A finished clip is skipped, so the same command goes on where a killed job stopped.
Exit code 0: all done; 3: done but for the clips named; 4: stopped before the end, by
SIGTERM or because --walltime is nearly over.
"""
import json
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy
from chainer.backends.cuda import to_cpu

import helperFunctions as hf
from engine import arguments, hdf5, stage, variants
from engine.weights import cardchecks
from engine.cluster import partkernels, parts, stopintime
from engine.learning import featurefile, statistics
from engine.reporting import scoring
from engine.video import container, flowfiles
from FusionNet import load_frame_network
from VGGNet_1024 import layer_width
from engine.video.augmentation import views
from engine.fast.upload import sending
from engine.errors import UserError
from engine.files import save_npy, write_text
from engine.learning.frames import with_mirrored_ends
from engine.weights.card import read_card, weights_digest
from engine.progress import Progress
from engine.video.decode import Frames, VideoError

# Decoded batches that may wait for the network, a clip.
AHEAD = 4
# For generate_pbs.py: what the jobs are called, their folder, what runs after all of them.
JOB, JOBS, THEN = 'features', 'jobs', ('save_hdf5.py', 'normalizeData.py')


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parts.add_parts(parser)
    group.add_argument('--step', type=arguments.whole(1), default=1, metavar='N',
                       help='take every Nth frame, for trials (default: 1)')
    group.add_argument('--views', type=int, choices=(1, 2, 10), default=1, metavar='N',
                       help='average the predictions (log softmax) of so many views of each '
                            'frame, in N times the time: 2, itself and its mirror image, or 10, '
                            'these and the four corners; features are of the whole frame alone '
                            '(default: 1)')
    group.add_argument('--batch', type=arguments.whole(1), default=16,
                       help='frames through the network at once (default: 16)')
    group.add_argument('--workers', type=arguments.at_once, default=2,
                       help='clips decoded ahead of the network (default: 2)')
    stage.add_variant(parser, 'stream', 'fusion', 'layer', 'fold')
    stage.add_device(parser)
    return parser


def finished_frames(root, clip, n_features, n_classes, names, values=True):
    """The frames of a clip whose two results are there, whole, and agree; else 0."""
    try:
        return featurefile.check_results(root, clip, n_features, n_classes, values, names)
    except UserError:
        return 0


def claim_folders(root, model_path, step, names, n_views=1, kernel=None):
    """Makes sure that what stands in the output folders came from this very model.

    `kernel` tells what computes the first of it; another may compute the rest (cluster/kernels.py).
    """
    digest = weights_digest(model_path)
    made_with = {'model_sha256': digest, 'step': step}
    if n_views > 1:
        made_with['views'] = n_views
    path = root / names.features / variants.CLAIM
    before = featurefile.made_with(root, names)
    if before is None:
        write_text(path, json.dumps({**made_with, 'kernel': kernel}))
    elif {key: before[key] for key in before if key != 'kernel'} != made_with:
        remove = f'remove them first: {featurefile.remover(root, names)}'
        if before.get('model_sha256') != digest:
            raise UserError(f'{path.parent}: holds features made with another model; {remove}')
        flags = f'--step {before["step"]} --views {before.get("views", 1)}'
        raise UserError(f'{path.parent}: holds features made with {flags}; go on with them: add '
                        f'{flags} to this command; or, to make all anew, {remove}')


class DecodedAhead:
    """Decodes clips in threads ahead of the reader, a few batches each.

    Iterating gives (clip, frames, batches, the file's identity): batches yields (n, S, S, 3)
    uint8 and raises the VideoError of a clip that cannot be read.
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
                        source = featurefile.identity(clip.path)  # before it is read
                        frames, box = self.make(clip), queue.Queue(AHEAD)
                        pool.submit(self._fill, frames, box)
                        waiting.append((clip, frames, self._empty(box), source))
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


def extract(clip, batches, model, device, stop, names, step=1, n_views=1):
    """Runs one clip through the network; returns (features, predictions) or None if stopped."""
    features, predictions = [], []
    seen = [(view, model.along_clip(step)) for view in views(n_views, names.stream)]
    with sending(device) as send:
        for frames in with_mirrored_ends(batches, -model.offsets[0], model.offsets[-1],
                                         names.stream):
            if stop.is_set():
                return None
            pairs = []
            for view, along_clip in seen:
                x = along_clip(send(view(frames)))
                if x is not None:
                    pairs.append(model.feature_and_prediction(x, names.layer))
            if pairs:
                with numpy.errstate(over='ignore'):  # looked for below
                    features.append(pairs[0][0].astype(names.dtype))
                predictions.append([prediction for _, prediction in pairs])
    # Only now: a GPU goes on to the next batch while Python asks it for nothing.
    features = numpy.concatenate([to_cpu(array) for array in features])
    predictions = numpy.concatenate([average([to_cpu(array) for array in views_of])
                                     for views_of in predictions])
    if not (numpy.isfinite(features).all() and numpy.isfinite(predictions).all()):
        raise VideoError(f'{clip.path}: the network gave a number that is not finite, or too '
                         f'large for {names.dtype}')
    # What later stages take for damage must not be saved as a result.
    if reason := (featurefile.why_no_features(features, names.layer)
                  or featurefile.why_no_predictions(predictions)):
        raise VideoError(f'{clip.path}: what the network gives of it {reason}; a network that has '
                         'learned something does not')
    return features, predictions


def average(predictions):
    """Joins the views' (n, classes) softmax by the mean of their logarithms, as videos do."""
    if len(predictions) == 1:
        return predictions[0]
    frames = numpy.stack(predictions, axis=1)  # (n, views, classes)
    averaged = [scoring.video_log_probability(frame) for frame in frames]
    return numpy.exp(averaged).astype(numpy.float32)


def save(root, names, clip, features, predictions):
    """Writes both files of a clip, which counts as finished only when both are there."""
    save_npy(variants.output_path(root, names.frame_predictions, clip), predictions)
    save_npy(variants.output_path(root, names.features, clip), features)


def run_part(args, todo, report, model, device, stop):
    """Extracts the clips; returns whether it came to the end before `stop` was set."""
    names = variants.names_of(args)
    ahead = DecodedAhead(todo, model.shape['input_size'], args.batch,
                         args.step if args.fusion == 'single' else 1, args.workers)

    def finish(saving, clip, frames, source):
        saving.result()
        featurefile.note_source(args.root / names.features, args.part, clip, source)
        progress.update(frames=frames.count)
        report.finished(clip, frames)

    with Progress(len(todo), f'part {args.part} of {args.parts}') as progress, \
            ThreadPoolExecutor(1) as disk:
        last = None  # being written while the next one is computed: a disk's sync takes time
        for clip, frames, batches, source in ahead:
            try:
                result = extract(clip, batches, model, device, stop, names, args.step,
                                 args.views)
            except VideoError as error:
                report.failed(clip, error, args.root / variants.clips_folder(args.stream))
                progress.update()
                continue
            if last:
                finish(*last)
            if result is None:
                return False
            last = disk.submit(save, args.root, names, clip, *result), clip, frames, source
        if last:
            finish(*last)
    return True


def made_by(args):
    """The command that trains the network."""
    return f'python frameBasedTrain.py{variants.flags_of(args, *variants.OF_FRAMES)}'


def work_of(args):
    """The engine.cluster.parts.Work of this stage, as generate_pbs.py asks for it."""
    card = read_card(args.root / variants.names_of(args).model, made_by(args))
    return work_on(args, hf.read_lists(args.root, args.split), card)


def work_on(args, lists, card, values=False):
    """The Work on the clips of `lists`; with `values` every number of a result is checked."""
    names = variants.names_of(args)
    widths = layer_width(card.get('shape', {}), names.layer), len(lists.classes)
    sources = featurefile.read_sources(args.root / names.features)

    def finished(clip):
        path = variants.in_stream(args.root, clip, args.stream).path
        if featurefile.is_replaced(path, sources.get(clip.name)):
            return 0
        return finished_frames(args.root, clip, *widths, names, values)
    return parts.Work(
        # dealt by the pictures' files, which stay as they are while flow is being computed
        lists.train + lists.test, args.root / names.features,
        finished,
        lambda clip: [variants.output_path(args.root, folder, clip)
                      for folder in (names.frame_predictions, names.features)],
        lambda clip: variants.in_stream(args.root, clip, args.stream),
        lambda clip: container.read_header(clip.path)[0] // args.step,
        widths[0] * numpy.dtype(names.dtype).itemsize + widths[1] * 4,
        lambda newest: is_packed(args.root, names, newest))


def is_packed(root, names, newest):
    """Whether the files of stages 3 and 4 are there, none older than the newest result."""
    try:
        with hdf5.open_hdf5(root / names.train, '') as f:
            statistics.read(f)
        return all(os.path.getmtime(root / name) >= newest
                   for name in (names.train, names.test, names.test_predictions))
    except (OSError, UserError):
        return False


def check_model(args, path, card, lists):
    """Refuses a network that was trained for other classes, clips or pictures than these."""
    if card.get('classes') != lists.classes:
        raise UserError(f'{path}: trained for {len(card.get("classes", []))} classes, '
                        f'but {args.root / variants.LISTS} names {len(lists.classes)}; '
                        f'train again: {made_by(args)}')
    cardchecks.check_frame_model(path, card, lists.test, args.split, variants.names_of(args))
    if args.stream == 'flow':
        theirs, ours = card.get('flow'), flowfiles.flow_made_with(args.root, args.split)
        if theirs != ours:
            raise UserError(f'{path}: trained on flow made with {theirs}, but that in '
                            f'{args.root / variants.clips_folder("flow")} is made with {ours}; '
                            'make either again')


def say_replaced(folder, clips):
    """Names those of the clips that are other files than the features there were made from."""
    sources = featurefile.read_sources(folder)
    for clip in clips:
        if featurefile.is_replaced(clip.path, sources.get(clip.name)):
            print(f'{clip.path}: replaced after its features were saved; they are made again')


def main():
    args = stage.parse(get_parser(), step=8)
    if not 1 <= args.part <= args.parts:
        raise UserError(f'part {args.part}: expected 1 to {args.parts}')
    stop = stopintime.Stop(args.walltime, args.margin)
    stage.print_settings(args)
    names = variants.names_of(args)
    lists = hf.read_lists(args.root, args.split)
    model_path = args.root / names.model
    model, card = load_frame_network(model_path, made_by(args), args.stream)
    check_model(args, model_path, card, lists)
    work = work_on(args, lists, card, values=True)
    if args.stream == 'flow':
        flowfiles.check_flow(
            args.root, parts.deal(work.clips, args.parts)[args.part - 1], args.split,
            parts.failed_clips(args.root / variants.clips_folder('flow')), work.finished)
    device = stage.get_device(args.device)
    model.fast = args.fast
    model.to_device(device)
    kernel = stage.tell_kernel(model)
    claim_folders(args.root, model_path, args.step, names, args.views, kernel)

    with parts.only_one(work, args.part):
        mine, todo, report = parts.begin(work, args.part, args.parts)
        if todo:
            partkernels.note(work.folder, args.part, kernel)
        for line in partkernels.several(work.folder):
            print(line, flush=True)
        say_replaced(work.folder, todo)
        stop.run(lambda: run_part(args, todo, report, model, device, stop.event))
        return parts.end(mine, report, args.part)


if __name__ == '__main__':
    stage.run(main)
