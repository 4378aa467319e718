"""Films of real clips: test clips of a root end to end, group by group, and marks of them.

    python studies/joinedFilms.py --root trial --out trial

Writes OUT/new/GROUP.avi, a film of each tested group with up to --clips clips of each class in an
order of chance, and OUT/newMarks/plain.csv, which says what is shown when. Nobody in them is in a
training clip. What predict.py and eventAccuracy.py make of them: docs/real-clips.md.
"""
import csv
import sys
from collections import defaultdict
from pathlib import Path

import imageio_ffmpeg
import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import helperFunctions as hf  # noqa: E402
from engine import arguments, stage  # noqa: E402
from engine.drawing.clips import FPS, write_avi  # noqa: E402
from engine.drawing.shapes import HEIGHT, WIDTH  # noqa: E402
from engine.files import replacing  # noqa: E402


def frames_of(clip):
    """The frames of a clip, (HEIGHT, WIDTH, 3) uint8 RGB, FPS a second."""
    reader = imageio_ffmpeg.read_frames(
        str(clip.path), output_params=['-s', f'{WIDTH}x{HEIGHT}', '-r', str(FPS)])
    next(reader)  # what is known of it
    for frame in reader:
        yield numpy.frombuffer(frame, numpy.uint8)


def join(clips, path):
    """Writes clips end to end; returns the frames of each."""
    lengths = []

    def all_frames():
        for clip in clips:
            number = -1
            for number, frame in enumerate(frames_of(clip)):
                yield frame
            lengths.append(number + 1)
    with replacing(path) as temporary:
        write_avi(temporary, all_frames(), 'clips of UCF-101')
    return lengths


def main():
    parser = arguments.Parser(description=__doc__)
    parser.add_argument('--root', type=Path, required=True, help='clips and lists')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--clips', type=int, default=2, help='of each class (default: 2)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    groups = defaultdict(lambda: defaultdict(list))
    for clip in hf.read_lists(args.root).test:
        groups[clip.group][clip.class_name].append(clip)
    rows = [('film', 'start', 'stop', 'class')]
    for number, (group, classes) in enumerate(sorted(groups.items())):
        random = numpy.random.default_rng([args.seed, number])
        chosen = [clip for _, clips in sorted(classes.items()) for clip in clips[:args.clips]]
        chosen = [chosen[i] for i in random.permutation(len(chosen))]
        path = args.out / 'new' / f'{str(group).replace("/", "_")}.avi'
        begin = 0
        for clip, length in zip(chosen, join(chosen, path)):
            rows.append((path.name, f'{begin / FPS:.3f}', f'{(begin + length) / FPS:.3f}',
                         clip.class_name))
            begin += length
        print(f'{path}: {len(chosen)} clips, {begin / FPS:.1f} s')
    marks = args.out / 'newMarks' / 'plain.csv'
    marks.parent.mkdir(parents=True, exist_ok=True)
    with open(marks, 'w', newline='') as f:
        csv.writer(f).writerows(rows)


if __name__ == '__main__':
    stage.run(main)
