"""The stages on a GPU against the same on the CPU, on the clips of a root.

    python -m bench.gpu_stages --root demo --frames='--features 128 --no-flip ...' --rnn='...'

ROOT has clips, lists and VGG.model; it is read alone, all else is made in a folder that goes
away. Both train without dropout, so that nothing random differs; Adam makes large differences of
the smallest ones, momentum SGD does not. Stage 1 runs on both; stage 2
with the CPU's network, stage 6 on the CPU's features. An RNN stopped on the GPU goes on there, and
another on the CPU. The exit code is 1 if a line says WRONG.
"""
import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

from bench.gpu_check import HALF, Checks
from engine import variants

HERE = Path(__file__).resolve().parent.parent
LOSSES = 1e-3


def command(script, *flags):
    return [sys.executable, str(HERE / script), *map(str, flags)]


def run(script, *flags):
    """Runs a stage to its end; returns its output."""
    start = time.perf_counter()
    done = subprocess.run(command(script, *flags), capture_output=True, text=True)
    print(f'       {time.perf_counter() - start:5.1f} s  {script} {shlex.join(map(str, flags))}',
          flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], flush=True)
        raise RuntimeError(f'{script} ended with {done.returncode}')
    return done.stdout


def losses(folder):
    return [[epoch[key] for key in ('main/loss', 'validation/main/loss')]
            for epoch in json.loads((folder / 'log').read_text())]


def stop_and_go_on(root, flags, device, then):
    """An RNN stopped after its second epoch on one device goes on on another."""
    process = subprocess.Popen(command('rnn.py', *flags, '--device', device),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = root / 'RNN.training' / 'log'
    while process.poll() is None and not (log.exists() and log.read_text().count('epoch"') >= 2):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    print(f'       stopped after epoch {len(losses(log.parent))}, code {process.returncode}')
    run('rnn.py', *flags, '--device', then)
    return losses(log.parent)


def predictions(root):
    """{clip: (features, softmax)} of stage 2."""
    folders = variants.FEATURES, variants.FRAME_PREDICTIONS
    return {path.stem: [numpy.load(root / folder / path.relative_to(root / folders[0]))
                        for folder in folders]
            for path in sorted((root / folders[0]).glob('*/*.npy'))}


def check_stages(check, source, work, args):
    roots = {device: work / f'on{device}' for device in ('-1', args.device)}
    cpu, gpu = roots.values()
    for root in roots.values():
        root.mkdir()
        (root / variants.CLIPS).symlink_to((source / variants.CLIPS).resolve())
        shutil.copytree(source / variants.LISTS, root / variants.LISTS)
        (root / 'VGG.model').symlink_to((source / 'VGG.model').resolve())
    for device, root in roots.items():
        run('frameBasedTrain.py', '--root', root, '--device', device, '--dropout', 0,
            *args.frames)
    check('losses of stage 1', *map(losses, (gpu / 'frameTraining', cpu / 'frameTraining')),
          50 * LOSSES)  # frozen layers answer in halves, and every step adds to that
    shutil.copy(cpu / 'VGG_1024.model', gpu)
    for device, root in roots.items():
        run('saveFeatures_1024.py', 1, '--parts', 1, '--root', root, '--device', device,
            '--step', args.step)
    theirs, ours = map(predictions, roots.values())
    assert ours.keys() == theirs.keys() and ours
    ours, theirs = ([numpy.concatenate([clip[k] for clip in made.values()]) for k in (0, 1)]
                    for made in (ours, theirs))
    check(f'features of {len(ours[0])} frames', ours[0], theirs[0], HALF)
    same = (ours[1].argmax(1) == theirs[1].argmax(1)).mean()
    check.wrong += same < 0.995
    print(f'{"ok" if same >= 0.995 else "WRONG":6} the same class for {100 * same:.2f} % of them')
    for script in 'save_hdf5.py', 'normalizeData.py', 'singleFrameAccuracy.py':
        run(script, '--root', cpu)
    for path in cpu.glob('*1024*.hdf5'):
        shutil.copy(path, gpu)
    flags = ['--dropout', 0, '--epochs', 10, *args.rnn]
    for device, root in roots.items():
        run('rnn.py', '--root', root, '--device', device, *flags)
    expected = losses(cpu / 'RNN.training')
    check('losses of the RNN', losses(gpu / 'RNN.training'), expected, LOSSES)
    for then in args.device, '-1':
        shutil.rmtree(gpu / 'RNN.training')
        (gpu / 'RNN.model').unlink()
        check(f'losses of an RNN stopped on the GPU, on {then} again',
              stop_and_go_on(gpu, ['--root', gpu, *flags], args.device, then), expected, LOSSES)
    clip = next((source / variants.CLIPS).glob('*/*.avi'))
    said = []
    for device, root in roots.items():
        run('predict.py', clip, '--root', cpu, '--device', device, '--out', root / 'out')
        said.append(json.loads(next((root / 'out').glob('*.json')).read_text()))
    print(f'       predict.py: {json.dumps(said[0])[:300]}\n       {json.dumps(said[1])[:300]}')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, required=True, help='its clips, lists, VGG.model')
    parser.add_argument('--device', default='0', metavar='N', help='GPU number (default: 0)')
    for name, script in ('frames', 'frameBasedTrain.py'), ('rnn', 'rnn.py'):
        parser.add_argument(f'--{name}', type=shlex.split, default=[], metavar='FLAGS',
                            help=f'flags of {script}, in quotes')
    parser.add_argument('--step', default='1', help="saveFeatures_1024.py's (default: 1)")
    args = parser.parse_args()
    check = Checks()
    with tempfile.TemporaryDirectory() as folder, check.named('stages'):
        check_stages(check, args.root, Path(folder), args)
    return int(check.wrong > 0)


if __name__ == '__main__':
    sys.exit(main())
