"""Takes features that another program computed, for stages 3 to 7 in place of those of stage 2.

Needs   DIR with an array a clip, as most extractors write them: CLIP.npy, CLIP_KEY.npy (as
        v-iashin/video_features does), CLIP.avi.npy, CLIP/KEY.npy, in any folders; or in .npz
        or HDF5 files. (frames, D) each, or (D,) each of several windows CLIP_0001.npy ...
        ROOT/ucfTrainTestlist/
Writes  ROOT/UCF-101_features/Class/clip.npy          (frames, D) float32
        ROOT/UCF-101_features/imported.json           where they come from, and their rate

    python importFeatures.py output/resnet/resnet50 --root own
    python importFeatures.py output/i3d --key rgb --root own
    python importFeatures.py output/i3d --key flow --stream flow --root own   # the second stream
    python importFeatures.py DIR --root own --rate 1.5625 --name S3D   # windows of 16 frames of 25

Then save_hdf5.py, normalizeData.py and rnn.py with the same --root. These features have no frame
predictions: `rnn.py --cell linear --name linear` stands in for them in stages 5 and 7.

A row is a step of the RNN, whatever it saw: a frame, a window or the whole video. --rate says how
many rows a second there are, and is noted alone; without it timestamps_ms beside the features
tell. No pickle is ever loaded, and no link inside a file followed. Run again to renew: clips that
are no longer there, or no longer well, go.

Exit code 3: done but for the clips that are named.
"""
import hashlib
import json
import shlex
import statistics
from collections import Counter, defaultdict
from pathlib import Path

import helperFunctions as hf
from engine import arguments, locks, stage, variants
from engine.errors import UserError
from engine.files import cannot_be_written, json_of, save_npy, write_text
from engine.learning import featurefile, foreignfeatures
from engine.progress import Progress, number_of

MOST_NAMED = 10


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('folder', type=Path, metavar='DIR', help='where the features stand')
    group = parser.add_argument_group('features')
    group.add_argument('--key', help="which, where clips have several: what follows the clip's "
                                     'name (default: what most have)')
    group.add_argument('--rate', type=arguments.positive, metavar='HZ',
                       help='features a second (default: as timestamps_ms beside them say)')
    group.add_argument('--name', dest='label', metavar='NETWORK',
                       help='what results call them (default: the key, or the name of DIR)')
    stage.add_variant(parser, 'stream')
    return parser


def say(lines):
    """Prints a few of the lines, and how many more there are."""
    for line in lines[:MOST_NAMED]:
        print(line)
    if len(lines) > MOST_NAMED:
        print(f'... and {len(lines) - MOST_NAMED} more')


def choose_key(arrays, asked, folder):
    """The key of the arrays to take.

    Raises:
        UserError: no array has it, or none is asked for and several are as good.
    """
    keys = foreignfeatures.keys_of(arrays)
    words = ', '.join(f'{key or "no key"} ({n} clips)' for key, n in keys[:8])
    if not keys:
        raise UserError(f'{folder}: no array of a clip of the lists; expected CLIP.npy, '
                        'CLIP_KEY.npy, CLIP/KEY.npy, or .npz and .h5 of these')
    if asked is not None:
        if asked not in dict(keys):
            raise UserError(f'--key {asked}: no clip has it; there are: {words}')
        return asked
    if len(keys) > 1 and 2 * keys[1][1] >= keys[0][1]:
        raise UserError(f'{folder}: features of several kinds: {words}; say which: --key '
                        f'{shlex.quote(keys[0][0])}')
    return keys[0][0]


def find(args, clips):
    """Looks through DIR: ({clip name: its arrays}, {clip name: array of its times}, the key)."""
    if not args.folder.is_dir():
        raise UserError(f'{args.folder}: no such folder of features')
    arrays, wrong, others = foreignfeatures.find_arrays(args.folder)
    say([f'{path}: {reason}' for path, reason in wrong.items()])
    if others:
        print('passed over: ' + ', '.join(f'{n} {ending}' for ending, n in others.most_common(8))
              + ('; pickles are never loaded, let the extractor write .npy'
                 if {'.pkl', '.pickle', '.pt', '.pth'} & set(others) else ''))
    ours, strangers = foreignfeatures.assign(arrays, args.folder, (clip.name for clip in clips))
    if strangers:
        print(f'{len(strangers)} arrays are of no clip of the lists, {strangers[0]} first')
    key = choose_key(ours, args.key, args.folder)
    taken, times = defaultdict(list), {}
    for array in ours:
        if array.key == key:
            taken[array.clip].append(array)
        elif array.key == foreignfeatures.TIMES:
            times[array.clip] = array
    if rest := [f'{other or "no key"} ({n} clips)' for other, n in foreignfeatures.keys_of(ours)
                if other != key]:
        print(f'taken is {key or "what has no key"}, not {", ".join(rest[:8])}; --key says which')
    return taken, times, key


def width_of(taken):
    """The D that most clips' features have.

    Raises:
        UserError: there is no such.
    """
    counts = Counter()
    for arrays in taken.values():
        lengths = [length for length in arrays[0].shape if length != 1]
        counts[lengths[-1] if lengths else 1] += 1
    (width, most), *others = counts.most_common(2)
    if others and others[0][1] == most:
        rows = {arrays[0].shape[0] for arrays in taken.values()}
        raise UserError(f'features of width {width} and of {others[0][0]} in {most} clips each'
                        + (', and all of one length: are they (D, frames)? Transpose them'
                           if len(rows) == 1 < len(taken) else
                           '; keep one kind in the folder, or say which: --key'))
    return width


def convert(args, names, clips, taken, times):
    """Writes what is well of each clip; removes what was there of others.

    Returns:
        ({clip name: (rows, digest)}, {clip name: why not}, features a second of each clip that
        tells, the width).
    """
    width = width_of(taken)
    done, wrong, rates = {}, {}, []
    with Progress(len(clips), 'imported') as progress:
        for clip in clips:
            path = variants.output_path(args.root, names.features, clip)
            try:
                if clip.name not in taken:
                    raise ValueError('no features')
                rows = foreignfeatures.rows_of(taken[clip.name])
                if rows.shape[1] != width:
                    raise ValueError(f'has features of width {rows.shape[1]}, most have {width}: '
                                     f'{taken[clip.name][0]}')
                if reason := featurefile.why_no_features(rows):
                    raise ValueError(f'{reason}: {taken[clip.name][0]}')
                if clip.name in times:
                    rates.append(foreignfeatures.rate_of(times[clip.name], len(rows)))
                save_npy(path, rows)
                done[clip.name] = len(rows), hashlib.sha256(rows.tobytes()).hexdigest()
            except ValueError as error:
                wrong[clip.name] = str(error)
                remove(path)
            progress.update(frames=done.get(clip.name, (0,))[0])
    return done, wrong, [rate for rate in rates if rate], width


def remove(path):
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def claim(args, names, card):
    """Makes sure that the folder of features holds none of other origin; marks it as begun.

    Raises:
        UserError: it does.
    """
    folder = args.root / names.features
    path = folder / variants.IMPORTED
    before = None
    if path.exists():
        try:
            before = json_of(path.read_text())
            same = {key: before[key] for key in ('from', 'key', 'imported')} == {
                key: card[key] for key in ('from', 'key', 'imported')}
        except (OSError, ValueError, KeyError, TypeError):
            same = False
    else:
        same = not (folder / variants.CLAIM).exists() and not any(folder.glob('*/*.npy'))
    if not same:
        raise UserError(f'{folder}: holds features of another origin; remove them: '
                        f'{featurefile.remover(args.root, names)}, or begin under another --root')
    write_text(path, json.dumps({**card, 'unfinished': True}))


def main():
    args = stage.parse(get_parser())
    names = variants.names_of(args)
    lists = hf.read_lists(args.root, args.split)
    with locks.only_one(args.root / names.features):
        return import_features(args, names, lists.train + lists.test)


def import_features(args, names, clips):
    """Takes the features of all clips; returns the exit code."""
    taken, times, key = find(args, clips)
    card = {'imported': ' '.join((args.label or key.strip('_#') or args.folder.resolve().name)
                                 .split()),
            'from': str(args.folder.resolve()), 'key': key, 'command': stage.command_line()}
    claim(args, names, card)
    done, wrong, rates, width = convert(args, names, clips, taken, times)
    say([f'{name}: {reason}' for name, reason in wrong.items()])
    if not done:
        raise UserError(f'{args.folder}: no clip of the lists has good features')
    lengths = [n for n, _ in done.values()]
    windows = max(len(taken[name]) for name in done)
    digest = hashlib.sha256(''.join(f'{name} {digest}\n' for name, (_, digest) in
                                    sorted(done.items())).encode()).hexdigest()
    rate = args.rate or (statistics.median(rates) if rates else None)
    write_text(args.root / names.features / variants.IMPORTED, json.dumps({
        **card, 'model_sha256': digest, 'step': 1, 'n_features': width, 'clips': len(done),
        'rows': {'least': min(lengths), 'most': max(lengths),
                 'of': 'files, one a window' if windows > 1 else 'whole videos'
                 if max(lengths) == 1 else 'frames or windows, one file a clip'},
        'rate': rate, 'rates': [min(rates), max(rates)] if rates else None,
        'commit': stage.commit()}, indent=1))
    print(f'{number_of(len(done), "clip")}: {min(lengths)} to {max(lengths)} features each of '
          f'{width} numbers, '
          + (f'{rate:.4g} a second' if rate else 'at a rate that nobody tells (--rate)')
          + (f', joined of up to {windows} files a clip' if windows > 1 else '')
          + f'; {number_of(len(wrong), "clip")} without')
    if max(lengths) == 1:
        print('one feature a clip holds no order: --cell linear sees as much as an LSTM')
    print(f'next: python save_hdf5.py{variants.flags_of(args)}'
          + ' --allow-missing, or mend these and run this again' * bool(wrong))
    return 3 if wrong else 0


if __name__ == '__main__':
    stage.run(main)
