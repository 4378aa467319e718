"""Stage 4: mean and standard deviation of the training features, kept with them.

Needs   ROOT/train1024.hdf5 (python save_hdf5.py)
Writes  the statistics into that file (group .about/statistics)

    python normalizeData.py

The stored features stay as they are: rnn.py subtracts the mean and divides by the
deviation, once, inside the network, and RNN.model carries both, so that the test
features cannot meet other numbers. Running this twice gives the same.
"""
import engine  # noqa: F401  (before NumPy)
import numpy

from engine import hdf5, locks, stage, variants
from engine.learning import statistics
from engine.learning.featurefile import why_no_features
from engine.errors import UserError
from engine.progress import Progress, number_of


def get_parser():
    parser = stage.new_parser(__doc__)
    stage.add_variant(parser, 'stream', 'fusion', 'layer', 'fold')
    return parser


class Moments:
    """Mean and variance of rows that come in pieces, in float64.

    The pieces are joined by the formula of Chan, Golub & LeVeque (1983), which loses
    nothing where a plain sum of squares would cancel.
    """

    def __init__(self, width):
        self.n, self.mean, self.squares = 0, numpy.zeros(width), numpy.zeros(width)

    def add(self, rows):
        """Takes in (n, width) more rows."""
        rows = rows.astype(numpy.float64)
        n, mean = len(rows), rows.mean(axis=0)
        difference = mean - self.mean
        total = self.n + n
        self.squares += (((rows - mean) ** 2).sum(axis=0)
                         + difference ** 2 * (self.n * n / total))
        self.mean += difference * (n / total)
        self.n = total

    def deviation(self):
        """(width,) standard deviation; 1 where a feature never changes, so it becomes 0."""
        deviation = numpy.sqrt(self.squares / self.n)
        constant = deviation <= 1e-12 * abs(self.mean)  # no more than rounding
        return numpy.where(constant, 1.0, deviation)


def read_rows(f, name, shape, made_by):
    """The (frames, n_features) rows of one clip; a UserError where they are no features."""
    rows = hdf5.read(f, name, made_by)
    if rows.shape[1:] != shape or not len(rows):
        raise UserError(f'{f.filename}: {name} has shape {rows.shape}, expected '
                        f'(frames, {shape[0]}); make the file again: {made_by}')
    if reason := why_no_features(rows, hdf5.attribute(f, 'layer', 'fc7')):
        raise UserError(f'{f.filename}: {name} {reason}; remove its .npy file, then {made_by} '
                        'names the command that makes it again')
    return rows


def main():
    args = stage.parse(get_parser())
    stage.check_root(args.root)
    names = variants.names_of(args)
    path = args.root / names.train
    made_by = f'python save_hdf5.py{variants.flags_of(args)}'
    with locks.only_one(path):
        normalize(args, path, made_by)


def normalize(args, path, made_by):
    """Works out the statistics of a file of features and stores them there."""
    with hdf5.open_hdf5(path, made_by) as f:
        clips = hdf5.clip_names(f)
        if args.fold:  # else as ever: of all clips of the training list
            clips = sorted(set(clips) - set(hdf5.read_names(f, 'held_out')))
        n_features = hdf5.attribute(f, 'n_features')
        if not clips or n_features is None:
            raise UserError(f'{path}: holds no features; made by: {made_by}')
        moments = Moments(n_features)
        with Progress(len(clips), 'statistics') as progress:
            for name in clips:
                rows = read_rows(f, name, moments.mean.shape, made_by)
                moments.add(rows)
                progress.update(frames=len(rows))
    deviation = moments.deviation()
    statistics.store(path, moments.mean, deviation, moments.n, made_by)
    print(f'{path}: mean and deviation of {number_of(moments.n, "frame")} of '
          f'{number_of(len(clips), "clip")} '
          f'({int((deviation == 1).sum())} of {len(deviation)} features are constant); '
          f'next: python singleFrameAccuracy.py{variants.flags_of(args)}, '
          f'python rnn.py{variants.flags_of(args)}')


if __name__ == '__main__':
    stage.run(main)
