"""Says what any video shows: the top classes of the frame network and, if there, of the RNN.

Needs   ROOT/VGG_1024.model (python frameBasedTrain.py); better with ROOT/RNN.model (python rnn.py)
Writes  nothing; with --out DIR, for each video
        DIR/NAME.predicted.mp4    a copy with the labels on it: its own size, rate and sound
        DIR/NAME.predicted.png    the top classes over time
        DIR/NAME.predicted.json   all of it as numbers, the line that --json prints
        with --events, what happens from when to when:
        DIR/NAME.events.csv       film, class, start, stop (seconds), probability
        DIR/NAME.srt              the same as subtitles (--subtitles)
        DIR/budget.csv            over all films: how often and how long each class happens
        DIR/events.boris          all films as a BORIS project, to be opened or imported (--boris)

    python predict.py holiday.mp4                     # the top 5, a line a network
    python predict.py --out seen FOLDER more.mkv      # every video under a folder
    python predict.py --json *.avi > seen.jsonl       # a JSON object a line
    python predict.py --camera 0 --out seen           # until Ctrl-C
    python predict.py films --out seen --events --subtitles --boris
    python predict.py marked --out tried --events --choose marks/*   # how to find events best

A video is read as a stream and seen through a window, as long as the RNN's training sequences
(120 frames), that moves on by a quarter of its length; of a shorter one the RNN sees the reverse
appended, as in training. So an hour takes no more memory than a minute, but for a few MB of
results. The prediction of the whole video is, of the frame network, the mean over all frames of
log softmax; of the RNN, the mean over the windows of their log probability.
Exit code 3: done but for the videos named.
"""
import contextlib
import json
import shlex
import sys
import time
from itertools import zip_longest
from pathlib import Path

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy
from chainer.backends.cuda import to_cpu

import helperFunctions as hf
from engine import arguments, files, stage, variants
from engine.reporting import scoring
from engine.reporting.calibration import temper, temperature_of
from RNNNet import load_rnn
from FusionNet import load_frame_network
from engine.learning import inference
from engine.video.camera import look_through
from engine.errors import UserError
from engine.events import eventfiles, merging
from engine.events.choosing import Settings, check_marks, tell_choice
from engine.files import write_text
from engine.video.videosgiven import videos_given
from engine.weights.card import read_card, weights_digest
from engine.video.container import read_header, shape_of
from engine.video.overlay import label_video, panel
from engine.progress import Progress, number_of
from engine.video.sliding import OneClip, Pictures, moment, slide, zones
from engine.video.classstrip import draw_strip
from engine.video.decode import Frames, VideoError

OURS = eventfiles.PREDICTED_SUFFIX  # in the names of the outputs, which are not looked at again
PROJECT = 'events.boris'


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('videos', nargs='*', metavar='VIDEO', type=Path,
                        help='files, and folders that are searched for videos')
    group = parser.add_argument_group('camera')
    group.add_argument('--camera', metavar='NAME',
                       help='look through a camera: its number, or device (/dev/video0)')
    group.add_argument('--input-format', default='v4l2', metavar='KIND',
                       help="ffmpeg's name for the kind of camera: avfoundation on a Mac, dshow "
                            'on Windows (default: v4l2, Linux)')
    group.add_argument('--seconds', type=arguments.positive, metavar='S',
                       help='end the camera after so long (default: at Ctrl-C)')
    group = parser.add_argument_group('networks')
    group.add_argument('--rnn', metavar='NAME',
                       help='ROOT/NAME.model beside the frame network (default: RNN, if there)')
    group.add_argument('--no-rnn', action='store_true', help='the frame network alone')
    group = parser.add_argument_group('time')
    group.add_argument('--step', type=arguments.whole(1), metavar='N',
                       help='take every Nth frame, N times as quick (default: as the features '
                            'were saved that the RNN was trained on, else 1)')
    group.add_argument('--window', type=arguments.whole(1), metavar='N',
                       help='frames taken that are seen at once (default: the length of the '
                            "RNN's training sequences, else 120)")
    group.add_argument('--stride', type=arguments.whole(1), metavar='N',
                       help='frames taken from one window to the next (default: a quarter of a '
                            'window); what lies between windows that do not touch is unseen')
    group.add_argument('--readout', choices=scoring.READOUTS,
                       help="how the RNN's steps make one prediction (default: as it was tested)")
    group.add_argument('--batch', type=arguments.whole(1), default=16, metavar='N',
                       help='frames through the network at once (default: 16)')
    merging.add_events(parser)
    group = parser.add_argument_group('output')
    group.add_argument('--out', type=Path, metavar='DIR',
                       help='write labelled video, strip and numbers there')
    group.add_argument('--json', action='store_true',
                       help='a JSON object a line on stdout; words go to stderr')
    group.add_argument('--top', type=arguments.whole(1), default=5, metavar='K',
                       help='classes that are told (default: 5)')
    stage.add_device(parser)
    return parser


# --------------------------------------------------------------------------- networks

class Networks:
    """The frame network and, if there, the RNN behind it, checked to belong together.

    `names` is {'frames': 'frames', 'rnn': 'LSTM 1x1024'}, the latter where there is one.

    Raises:
        UserError: they do not, or one is of a variant that sees no single frames.
    """

    def __init__(self, args):
        self.device = stage.get_device(args.device)
        self.path = args.root / variants.Names().model
        where = variants.place(args.root, args.split)
        made_by = f'python frameBasedTrain.py{where}'
        card = read_card(self.path, made_by)
        for field, usual in zip(('stream', 'fusion'), variants.Names()):
            if card.get(field, usual) != usual:
                raise UserError(f'{self.path}: a network of {field} {card[field]}; predict.py '
                                f'takes one of {field} {usual}: {made_by}')
        self.frames, _ = load_frame_network(self.path, made_by)
        self.classes = card.get('classes')
        if not self.classes:
            raise UserError(f'{self.path}: its card names no classes; make it again: '
                            + made_by)
        self.names, self.rnn, settings = {'frames': 'frames'}, None, {}
        self.temperatures = {'frames': temperature_of(card, self.path)}
        digest = weights_digest(self.path)
        path = args.root / f'{args.rnn or "RNN"}.model'
        if not args.no_rnn and (args.rnn or path.exists()):
            settings = self._load_rnn(
                path, digest, f'python rnn.py --name {shlex.quote(path.stem)}{where}')
            self.rnn.to_device(self.device)
        made = files.read_json(args.root / variants.FEATURES / 'extraction.json') or {}
        self.trained_step = made.get('step', 1) if made.get('model_sha256') == digest else 1
        self.step = args.step or self.trained_step
        self.window = args.window or settings.get('steps', 120)
        self.stride = args.stride or max(1, self.window // 4)
        self.readout = args.readout or settings.get('readout', 'linear')
        # An RNN that is tested on whole clips as they are sees short ones so here, too.
        as_is = settings.get('variable_length') or not settings.get('test_steps', 180)
        self.technique = 'full' if as_is else 'first'
        self.frames.fast = args.fast
        self.frames.to_device(self.device)

    def _load_rnn(self, path, digest, made_by):
        """Loads the network on sequences of features; returns the settings of its training."""
        self.rnn, card = load_rnn(path, made_by)
        hint = f'train it again: {made_by} --restart, or add --no-rnn'
        for theirs, ours in zip_longest(card.get('classes') or [], self.classes):
            if theirs != ours:
                raise UserError(f'{path}: made for other classes than {self.path}: for {theirs} '
                                f'where that has {ours}; {hint}')
        for field, usual in variants.Names()._asdict().items():
            if card.get(field, usual) != usual:
                raise UserError(f'{path}: trained with --{field} {card[field]}, which predict.py '
                                f'does not take from {self.path}; give --rnn another, or add '
                                '--no-rnn')
        if card.get('features') != digest:
            raise UserError(f'{path}: trained on other features than those of {self.path}; save '
                            f'these (stages 2 to 4), then {hint}')
        self.names['rnn'] = card.get('method', 'RNN')
        self.temperatures['rnn'] = temperature_of(card, path)
        return card.get('settings', {})

    def features_and_softmax(self, frames):
        """(n, S, S, 3) uint8 BGR -> (n, D) and (n, C) float32."""
        return [to_cpu(array) for array in
                self.frames.feature_and_prediction(self.device.send(frames))]

    def rnn_log_probability(self, features):
        """(T, D) features of a window -> (C,) log probability, as stage 6 tests a clip."""
        store = OneClip(hf.Clip('window', '', -1, '', None), features)
        ((_, steps),) = inference.predict(self.rnn, store, self.device, 1,
                                          technique=self.technique, steps=self.window)
        return scoring.video_log_probability(steps, self.readout)

    def in_words(self):
        def taken(step):
            return 'every frame' if step == 1 else f'one frame in {step}'
        other = self.rnn is not None and self.step != self.trained_step
        return (f'{self.path}{", " + self.names["rnn"] if self.rnn else ""}: {len(self.classes)} '
                f'classes; {taken(self.step)}'
                + f', but the RNN was trained on {taken(self.trained_step)}' * other)


# ------------------------------------------------------------------------- one video

class Seen:
    """What the networks say of one video: window by window, and of the whole.

    `windows` is [(start, end, {'frames' or 'rnn': (C,) float32 log probability})].
    """

    def __init__(self, networks, frames, progress=None):
        self.networks, self.frames = networks, frames
        self.progress, self.windows, self.pictures = progress, [], Pictures(16)
        self.frame_logs = 0.0

    def _batches(self):
        for batch in self.frames:
            pair = self.networks.features_and_softmax(batch)
            if not all(numpy.isfinite(array).all() for array in pair):
                raise VideoError(f'{self.frames.path}: the network gave a number that is not '
                                 'finite')
            self.frame_logs += len(batch) * scoring.video_log_probability(pair[1])
            self.pictures.add(batch)
            if self.progress:
                self.progress.update(len(batch))
            yield pair

    def __iter__(self):
        """Goes through the video; yields each window, which is also kept."""
        for start, end, features, softmax in slide(self._batches(), self.networks.window,
                                                   self.networks.stride):
            said = {'frames': scoring.video_log_probability(softmax)}
            if self.networks.rnn:
                said['rnn'] = self.networks.rnn_log_probability(features)
            said = {key: logs.astype(numpy.float32) for key, logs in said.items()}
            self.windows.append((start, end, said))
            yield self.windows[-1]

    def times(self):
        """Seconds at which each frame begins, and at which the last one ends."""
        return [*self.frames.times, self.frames.end()]

    def logs(self, key):
        """(n, C) log probability of all windows."""
        return numpy.array([said[key] for _, _, said in self.windows])

    def whole(self):
        """{'frames' or 'rnn': (C,) log probability}, as the script's first lines say."""
        said = {key: scoring.video_log_probability(numpy.exp(self.logs(key)))
                for key in self.networks.names}
        mean = self.frame_logs / self.frames.count
        return {**said, 'frames': mean - numpy.logaddexp.reduce(mean)}

    def best(self, logs, k):
        """[(class, probability)] of the k best, the best first."""
        best = numpy.argsort(-logs, kind='stable')[:k]
        return [(self.networks.classes[i], float(numpy.exp(logs[i]))) for i in best]

    def film(self, path, args):
        """What happened, as a Film called `path`."""
        times, last = self.times(), list(self.networks.names)[-1]
        moments = merging.moments(
            [(moment(times, start), moment(times, end)) for start, end, _ in self.windows],
            numpy.exp(temper(self.logs(last), self.networks.temperatures[last])))
        return eventfiles.Film(path, moment(times, self.frames.count), merging.merge(
            *moments, self.networks.classes, args.threshold, args.shortest, args.gap,
            args.other), moments if args.choose else None)

    def as_json(self, k):
        """All of it as JSON values, times in seconds."""
        times, networks = self.times(), self.networks
        wrong = self.frames.remark

        def top(said):
            return {key: [{'class': name, 'probability': round(p, 6)}
                          for name, p in self.best(logs, k)] for key, logs in said.items()}
        return {'video': self.frames.path, 'frames_seen': self.frames.count,
                'seconds': round(moment(times, self.frames.count) - times[0], 3),
                'step': networks.step, 'window': networks.window, 'stride': networks.stride,
                'methods': networks.names, **({wrong.kind: wrong.reason} if wrong else {}),
                'predictions': top(self.whole()),
                'windows': [{'from': round(moment(times, start), 3),
                             'to': round(moment(times, end), 3), **top(said)}
                            for start, end, said in self.windows]}

    def write(self, stem, video, found):
        """Writes `found` as JSON, the strip, and last the labelled copy of `video`."""
        shape, times, names = shape_of(video), self.times(), self.networks.names
        seen = zones([window[:2] for window in self.windows], times)
        said, last = self.whole(), list(names)[-1]
        files.remove_leftovers(f'{stem}.{ending}' for ending in ('json', 'png', 'mp4'))
        write_text(f'{stem}.json', json.dumps(found) + '\n')
        not_drawn = None
        try:
            draw_strip(f'{stem}.png', Path(self.frames.path).name, self.networks.classes,
                       {name: (self.logs(key), said[key]) for key, name in names.items()}, seen,
                       [(moment(times, i), shown) for i, shown in self.pictures.kept],
                       shape.aspect)
        except UserError as error:  # of matplotlib; where nothing can be written the copy says so
            not_drawn = VideoError(str(error))
        print(f'wrote {stem}.json' if not_drawn else f'wrote {stem}.png and .json', flush=True)

        def rows(window):
            if window is None:
                return [('not seen', None), *[('', None)] * 2]
            return self.best(self.windows[window][2][last], 3)
        silent = label_video(video, f'{stem}.mp4', (
            (start, panel(rows(window), shape)) for start, _, window in seen), shape)
        print(*silent, f'wrote {stem}.mp4', sep='\n', flush=True)
        if not_drawn:
            raise not_drawn


def in_words(pairs):
    return '  '.join(f'{name} {100 * probability:.1f} %' for name, probability in pairs)


@contextlib.contextmanager
def opened(args, source, options):
    """Gives (Frames, file to draw labels on, Progress) of a video, or of the camera (None)."""
    if source is not None:
        progress = Progress(read_header(source)[0] // options['step'], source.name, 'frames')
        try:
            yield Frames(source, **options), source, progress
        finally:
            if progress.bar:
                progress.close()
        return
    numbered = args.input_format == 'v4l2' and args.camera.isdigit()
    with look_through(f'/dev/video{args.camera}' if numbered else args.camera, args.input_format,
                      args.seconds, args.out, **options) as camera:
        yield camera, camera.record, None


def look(args, networks, source, stem, films, tables):
    """Predicts one video, or through the camera (None); returns (as_json, seconds of work, why
    there is no labelled copy). With --events, what happened is written and added to `films`, and
    where it stands to `tables`."""
    started = time.monotonic()
    if stem:
        files.check_outputs(*(f'{stem}.{ending}' for ending in ('json', 'png', 'mp4')))
    options = dict(size=networks.frames.shape['input_size'], step=networks.step, timed=True,
                   batch=min(args.batch, networks.stride))
    with opened(args, source, options) as (frames, video, progress):
        seen = Seen(networks, frames, progress)
        for start, end, said in seen:
            if source is None:
                key = list(said)[-1]
                print(f'{moment(frames.times, start):.1f} to {moment(frames.times, end):.1f} s  '
                      f'{networks.names[key]}  {in_words(seen.best(said[key], 3))}', flush=True)
        spent = time.monotonic() - started
        for key, logs in seen.whole().items():
            print(f'{frames.path}  {networks.names[key]}  {in_words(seen.best(logs, args.top))}',
                  flush=True)
        if frames.remark:
            print(f'{frames.remark.kind}: {frames.path}: {frames.remark.reason}', flush=True)
        name, failed = str(stem).removesuffix(OURS), ''
        found = {**seen.as_json(args.top), **(eventfiles.written(name) if stem else {})}
        if args.events:
            films.append(seen.film(f'{stem}.mp4' if source is None else frames.path, args))
            failed = eventfiles.write_film(name, films[-1], found, args.subtitles)
            tables.append(Path(name + eventfiles.EVENTS_SUFFIX))
        try:
            if stem:
                seen.write(stem, video, found)
        except VideoError as error:  # of the copy
            failed = str(error)
    return found, spent, failed


# ----------------------------------------------------------------------------- the run

def run(args, tell):
    networks = Networks(args)
    args.other = merging.class_of_nothing(args.other, networks.classes)
    print(f'{networks.in_words()}; a window of {networks.window} every {networks.stride}')
    if args.events:
        key, name = list(networks.names.items())[-1]
        print(f'events as {name} says, at temperature {networks.temperatures[key]:.2f}')
    for network in filter(None, (networks.frames, networks.rnn)):
        stage.tell_kernel(network)
    failed, films, tables = 0, [], []
    frames = seconds = spent = 0
    sources = (videos_given(args.videos, args.out, OURS) if args.camera is None else
               [(None, args.out and args.out / f'camera{OURS}', None)])
    for _, stem, _ in sources if args.events else ():
        if line := eventfiles.changed(str(stem).removesuffix(OURS), args.subtitles):
            raise UserError(line)
    for source, stem, wrong in sources:
        try:
            if wrong:
                raise VideoError(wrong)
            found, took, wrong = look(args, networks, source, stem, films, tables)
            frames, seconds = frames + found['frames_seen'], seconds + found['seconds']
            spent += took
        except VideoError as error:
            wrong = str(error)
            found = {'video': str(source or args.camera), 'error': wrong}
        if wrong:
            print(wrong, file=sys.stderr, flush=True)
            failed += 1
        tell(found)
    if films:
        classes = [name for name in networks.classes if name != args.other]
        eventfiles.write_budget(args.out / 'budget.csv', films, classes)
        if args.boris:
            eventfiles.write_boris(args.out / PROJECT, films, classes)
        if args.choose:
            for line in tell_choice(films, tables, args.choose, networks.classes, args.other,
                                    Settings(args.threshold, args.gap, args.shortest)):
                print(line, file=sys.stderr, flush=True)
                failed += 1
    if frames:
        pace = seconds / spent
        step = max(2 * networks.step, int(numpy.ceil(networks.step / pace)))
        print(f'{number_of(frames, "frame")} in {spent:.1f} s: {frames / spent:.1f} frames/s, '
              f'{pace:.2g} x real time'
              + f' on the CPU; quicker: --step {step}, or a GPU: --device 0'
              * (networks.device.xp is numpy))
    return 3 if failed else 0


def main():
    args = stage.parse(get_parser(), step=8)
    if bool(args.videos) == (args.camera is not None):
        raise UserError('name videos or folders of them, or a camera: python predict.py --help')
    if args.events and not args.out:
        raise UserError('--events wants --out DIR, the folder to write them in')
    if (args.subtitles or args.boris or args.choose) and not args.events:
        raise UserError('--subtitles, --boris and --choose are of --events: add it')
    if args.boris:
        eventfiles.check_boris(args.out / PROJECT)
    check_marks(args.choose or ())
    stage.check_root(args.root)
    out = sys.stdout

    def tell(found):
        if args.json:
            print(json.dumps(found), file=out, flush=True)
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        return run(args, tell)


if __name__ == '__main__':
    stage.run(main)
