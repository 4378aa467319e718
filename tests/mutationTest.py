"""Changes one line of a rule at a time and demands that a test fails.

    python tests/mutationTest.py                  # all: some minutes
    python tests/mutationTest.py --only combine   # those whose file or change holds a word

Each mutation is a wrong rule of choice, score or statistics that would give figures that look
right: it is made in a copy of the code, where the tests named beside it run. One that no test
notices survives, and asks for a better test. Exit code 0: none survived, and each old text
stands exactly once in its file. After a change of such a line, change its entry.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SCORES = 'tests/reporting/test_scoring.py'
LISTS = 'tests/stages/test_helperFunctions.py -k held_or_hold_or_group'
COMBINE = 'tests/stages/test_combine.py'
RESULTS = 'tests/stages/test_results.py -k mean_or_averaged_or_interval_or_compare'
MATRICES = 'tests/reporting/test_matrices.py'
SIGNIFICANCE = 'tests/reporting/test_significance.py'
TRAINING = 'tests/learning/test_training.py -k best_or_rate'
SEQUENCES = 'tests/learning/test_sequences.py'
STEPS = 'tests/networks/test_rnnNet.py -k step_weights_or_padded_or_running_or_window'
RNN = 'tests/stages/test_rnn.py -k writes_what_or_best_epoch_or_other_inference_or_stops_when'
PACK = 'tests/stages/test_pack.py -k moments_or_statistics_or_accuracy'
FRAMES = 'tests/stages/test_frameBasedTrain.py -k whole_groups_or_by_frames'
REPORT = 'tests/stages/test_report.py -k hand_or_chosen_or_position'

# file, text that stands there once, what it becomes, tests of which one must fail
MUTATIONS = [
    # one prediction for a video
    ('engine/reporting/scoring.py',
     'joined = logs.mean(axis=0)',
     'joined = probabilities.mean(axis=0)', SCORES),
    ('engine/reporting/scoring.py',
     'weights=numpy.arange(1, len(logs) + 1))',
     'weights=numpy.arange(len(logs), 0, -1))', SCORES),
    ('engine/reporting/scoring.py', 'joined = logs[-1]', 'joined = logs[0]', SCORES),
    ('engine/reporting/scoring.py',
     'joined = logs.max(axis=0)',
     'joined = logs.min(axis=0)', SCORES),
    ('engine/reporting/scoring.py',
     'return joined - numpy.logaddexp.reduce(joined)',
     'return joined', SCORES),
    ('engine/reporting/scoring.py',
     'numpy.maximum(probabilities, 1e-30)',
     'numpy.maximum(probabilities, 1e-300)', SCORES),
    # ranks, ties, figures
    ('engine/reporting/scoring.py',
     '(scores >= true[:, None]).sum(axis=1) - 1',
     '(scores > true[:, None]).sum(axis=1)', SCORES),
    ('engine/reporting/scoring.py',
     'float((rank < k).mean())',
     'float((rank <= k).mean())', SCORES),
    ('engine/reporting/scoring.py',
     'if k < n_classes or k == 1 else None',
     'if k <= n_classes else None', SCORES),
    ('engine/reporting/scoring.py',
     "'loss': float(-true.mean())",
     "'loss': float(-numpy.median(true))", SCORES),
    ('engine/reporting/scoring.py',
     'others[rows[rank > 0], labels[rank > 0]] = -numpy.inf',
     'pass', SCORES),
    ('engine/reporting/scoring.py',
     "means = {'labels': shown,",
     "means = {'labels': numpy.union1d(shown, named),", SCORES),
    # who is held out
    ('helperFunctions.py', 'max(1, len(groups) // every)', 'len(groups) // every', LISTS),
    ('helperFunctions.py',
     '.RandomState([seed, len(groups)])',
     '.RandomState([0, len(groups)])', LISTS),
    ('helperFunctions.py',
     '[c for c in clips if (c.class_name, c.group) not in held]',
     '[c for c in clips if c.group not in held]', LISTS),
    ('helperFunctions.py',
     '.RandomState([seed, len(groups)])',
     '.RandomState([seed, len(groups), len(held)])', LISTS),
    ('helperFunctions.py',
     'return found.group(1) if found else name',
     'return found.group(0) if found else name', LISTS),
    # which epoch is kept, when a training stops, how the rate falls
    ('engine/learning/snapshots.py', 'if now < self.best:', 'if now <= self.best:', TRAINING),
    ('engine/learning/snapshots.py',
     'bool(self.patience) and self.age >= self.patience',
     'bool(self.patience) and self.age > self.patience', TRAINING),
    ('engine/learning/rates.py',
     'return 0.1 ** int(progress / drop)',
     'return 0.1 ** (progress / drop)', TRAINING),
    ('engine/learning/rates.py', 'return 1 - share', 'return 1 - share ** 2', TRAINING),
    ('rnn.py', "best.add(figures['loss'], figures['top1'])",
     "best.add(-figures['top1'], 0)", RNN),
    ('engine/learning/trainingset.py', "(clip.name in held_out) == (kind == 'validation')]",
     "kind == 'training' or clip.name in held_out]", RNN),
    ('frameBasedTrain.py',
     'float(v.array) * len(batch[1]) for v in figures',
     'float(v.array) * n / 2 for v in figures', FRAMES),
    # what each step counts, and windows
    ('engine/learning/steploss.py',
     'weights = number / lengths',
     'weights = number / steps + 0 * lengths', STEPS),
    ('engine/learning/steploss.py',
     'weights = number == lengths',
     'weights = number == steps + 0 * lengths', STEPS),
    ('engine/learning/steploss.py',
     'numpy.where(number <= lengths, weights, 0)',
     'numpy.where(number < lengths, weights, 0)', STEPS),
    ('engine/learning/steploss.py',
     'weights.ravel()[real])) / batch',
     'weights.ravel()[real])) / weights.sum()', STEPS),
    ('rnn.py',
     'for start in range(0, len(xs), self.window):',
     'for start in range(0, len(xs) - self.window + 1, self.window):', STEPS),
    ('RNNNet.py',
     'self._sum, self._steps = total[-1], self._steps + len(h)',
     'self._sum, self._steps = total[-1], len(h)', STEPS),
    ('engine/learning/sequences.py',
     '[numpy.arange(n), numpy.arange(n)[::-1]]',
     '[numpy.arange(n), numpy.arange(n)]', SEQUENCES),
    ('engine/learning/sequences.py',
     'start = random.randint(len(frames) - span + 1)',
     'start = 0', SEQUENCES),
    # whole clips
    ('engine/learning/inference.py', 'starts = [last // 2]', 'starts = [last]', SEQUENCES),
    ('engine/learning/inference.py',
     'logs = numpy.mean(seen.pop(index), axis=0, dtype=numpy.float64)',
     'logs = numpy.max(seen.pop(index), axis=0)', SEQUENCES),
    ('engine/learning/inference.py',
     'return [logs[:len(frames), column]',
     'return [logs[-len(frames):, column]', SEQUENCES),
    # mean and deviation of features
    ('normalizeData.py',
     '+ difference ** 2 * (self.n * n / total))',
     '+ difference ** 2 * (n / total))', PACK),
    ('normalizeData.py',
     'numpy.sqrt(self.squares / self.n)',
     'numpy.sqrt(self.squares / (self.n - 1))', PACK),
    ('normalizeData.py',
     'numpy.where(constant, 1.0, deviation)',
     'numpy.where(constant, 1e-12, deviation)', PACK),
    ('singleFrameAccuracy.py',
     'scoring.score(*counted(videos, labels, without))',
     'scoring.score(*counted(videos[:-1], labels[:-1], without))', PACK),
    # weights chosen on validation clips
    ('combine.py',
     'return (rank > 0).mean(), -true.mean()',
     'return -true.mean(), (rank > 0).mean()', COMBINE),
    ('combine.py',
     'return (rank > 0).mean(), -true.mean()',
     'return (rank > 0).mean(), 0', COMBINE),
    ('combine.py',
     'best = min(grid(n, parts), key=badness)',
     'best = max(grid(n, parts), key=badness)', COMBINE),
    ('combine.py', 'parts = 10 if n <= 6 else 5', 'parts = 5', COMBINE),
    ('combine.py',
     'numpy.tensordot(weights / weights.sum(), logs, axes=1)',
     'numpy.log(numpy.tensordot(weights / weights.sum(), numpy.exp(logs), axes=1))', COMBINE),
    ('combine.py',
     'validation = read([validation_file(path) for path in paths], lists.train, lists,',
     'validation = read(paths, lists.test, lists,', COMBINE),
    # intervals, tests, means
    ('engine/reporting/significance.py',
     'tail = 50 * (1 - level)',
     'tail = 100 * (1 - level)', SIGNIFICANCE),
    ('engine/reporting/significance.py',
     'hits[drawn].sum() / sizes[drawn].sum()',
     '(hits[drawn] / sizes[drawn]).mean()', SIGNIFICANCE),
    ('engine/reporting/significance.py',
     'random.integers(len(sizes), size=len(sizes))',
     'random.permutation(len(sizes))', SIGNIFICANCE),
    ('engine/reporting/significance.py',
     'binomtest(only_b, only_a + only_b, 0.5)',
     "binomtest(only_b, only_a + only_b, 0.5, 'greater')", SIGNIFICANCE),
    ('engine/reporting/means.py',
     "result.get('root'), result.get('seed')] = result",
     "result.get('seed'),] = result", RESULTS),
    ('engine/reporting/means.py',
     'values = [run[key][0] for run in runs if run.get(key)]',
     "values = [run[key][0] for run in runs for _ in range(run['runs']) if run.get(key)]", RESULTS),
    ('engine/reporting/means.py', "settings.pop('weights', None)", 'pass', RESULTS),
    ('results.py', "if units == 'clips' else", "if units != 'clips' else", RESULTS),
    ('results.py',
     'only_a, only_b = pairs.count((True, False)), pairs.count((False, True))',
     'only_b, only_a = pairs.count((True, False)), pairs.count((False, True))', RESULTS),
    # matrices
    ('engine/reporting/matrices.py', '-pair[2] / n[pair[0]]', 'pair[2] / n[pair[0]]', MATRICES),
    ('engine/reporting/matrices.py',
     'matrix.diagonal() / numpy.maximum(n, 1)',
     'matrix.diagonal() / numpy.maximum(matrix.sum(axis=0), 1)', MATRICES),
    ('engine/reporting/matrices.py',
     'labels.sort(key=lambda i: (round(-sign * change[i], 9), -n[i], i))',
     'labels.sort(key=lambda i: (round(-sign * change[i], 9), n[i], i))', MATRICES),
    # the report
    ('engine/reporting/runs.py',
     'order = sorted(names, key=lambda name: (loss(name), name))',
     'order = sorted(names)', REPORT),
    ('engine/reporting/runs.py',
     'video_log_probability(frames[:k], readout)',
     'video_log_probability(frames[-k:], readout)', 'tests/reporting/test_runs.py'),
    ('engine/reporting/sections.py',
     'known = [(value, epoch) for value, epoch in zip(loss, epochs)',
     'known = [(-value, epoch) for value, epoch in zip(loss, epochs)', REPORT),
]


def copy_code(folder):
    """Copies what git knows of the code, with the changes made to it."""
    names = subprocess.run(['git', '-C', REPOSITORY, 'ls-files', '-z', '-co',
                            '--exclude-standard'], capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split('\0')):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)


def run_tests(folder, tests, log):
    """pytest's exit code for tests as the list names them: 0 all passed, 1 some failed."""
    path, _, words = tests.partition(' -k ')
    command = [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', path]
    if words:
        command += ['-k', words.replace('_or_', ' or ')]
    return subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                          env=dict(os.environ, PYTHONDONTWRITEBYTECODE='1')).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', metavar='WORD',
                        help='mutations whose file, text or tests hold this word')
    args = parser.parse_args()
    wanted = [mutation for mutation in MUTATIONS if args.only in ' '.join(mutation)]
    stale = [(name, old) for name, old, _, _ in wanted
             if (REPOSITORY / name).read_text().count(old) != 1]
    for name, old in stale:
        print(f'{name}: "{old}" does not stand there once; mend the list')
    survived, began = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, 'w') as log:
        folder = Path(folder)
        copy_code(folder)
        for tests in dict.fromkeys(tests for *_, tests in wanted):
            if run_tests(folder, tests, sys.stdout) != 0:
                sys.exit(f'{tests}: fails, or is empty, without any change')
        for number, (name, old, new, tests) in enumerate(wanted, 1):
            if (name, old) in stale:
                continue
            text = (folder / name).read_text()
            (folder / name).write_text(text.replace(old, new))
            noticed = run_tests(folder, tests, log) == 1
            (folder / name).write_text(text)
            print(f'{number:3} {"noticed " if noticed else "SURVIVED"} {name}: {old}  ->  {new}',
                  flush=True)
            if not noticed:
                survived.append(name)
    print(f'{len(wanted) - len(stale) - len(survived)} of {len(wanted)} noticed, '
          f'{len(survived)} survived, {len(stale)} not found; '
          f'{time.monotonic() - began:.0f} seconds')
    return 1 if survived or stale else 0


if __name__ == '__main__':
    sys.exit(main())
