"""Sections of report.py's page on what one run gains over another: classes, pairs, clips."""
import imageio.v3 as imageio
import numpy

from engine.errors import UserError
from engine.reporting.svgcharts import drop_bars
from engine.reporting.matrices import class_accuracy, count, gains, most_confused
from engine.reporting.page import (bar, element, join, paragraph, percent, picture, points,
                                   section, signed, table)
from engine.reporting.significance import mcnemar
from engine.video.container import shape_of
from engine.video.decode import count_frames, read_frames

THUMBNAIL = 112                    # height and decoded width of an example frame, pixels


def shared_clips(a, b):
    return [clip for clip in a.method.clips if clip.name in b.method.said]


def change_sections(a, b, lists, top):
    """Classes that gained and lost from A to B, and the most confused pairs of both."""
    clips = shared_clips(a, b)
    matrix_a = count(a.method, clips, len(lists.classes))
    matrix_b = count(b.method, clips, len(lists.classes))
    accuracy_a, accuracy_b = map(class_accuracy, (matrix_a, matrix_b))
    change, n = accuracy_b - accuracy_a, matrix_a.sum(axis=1)
    shown = [int(i) for i in numpy.flatnonzero(n)]
    shown.sort(key=lambda i: (round(-change[i], 9), -n[i], i))
    largest = max(abs(change[i]) for i in shown)

    def classes(caption, labels):
        rows = [[lists.classes[i], n[i], join([bar(change[i], largest), points(change[i])]),
                 percent(accuracy_a[i]), percent(accuracy_b[i]),
                 signed(matrix_b[i, i] - matrix_a[i, i])] for i in labels]
        return table(caption, ['class', 'n', 'points', f'{a.title} %', f'{b.title} %', 'videos'],
                     rows)
    by = 'by video; n: test videos of the class'
    if len(shown) <= 2 * top:
        tables = [classes(f'All {len(shown)} classes, most gained first ({by})', shown)]
    else:
        gained, lost = gains(matrix_a, matrix_b, top)
        tables = [classes(f'The {len(labels)} classes that {word} most ({by})', labels)
                  if labels else paragraph(f'No class {word}.')
                  for word, labels in (('gained', gained), ('lost', lost))]
        tables.append(element('details', element('summary', f'All {len(shown)} classes'), classes(
            f'All {len(shown)} classes, most gained first ({by})', shown)))
    few, many = n[n > 0].min(), n.max()
    yardstick = f'{100 / many:.1f}' + (f' to {100 / few:.1f}' if few < many else '')
    of_classes = section(
        'classes', f'Classes: what {b.title} gains over {a.title}',
        paragraph(f'One video moves its class by 100/n points, here by {yardstick}: read each '
                  'change beside its n.'),
        # Side by side where both fit.
        element('div', *tables[:2], class_='grid wide') if len(tables) > 1 else '',
        *(tables[2:] if len(tables) > 1 else tables))

    def pairs(caption, matrix):
        rows = [[lists.classes[i], lists.classes[j], n[i], matrix_a[i, j], matrix_b[i, j]]
                for i, j, _ in most_confused(matrix)[:top]]
        if not rows:
            return paragraph(f'{caption}: none, every video is right.')
        return table(f'{caption} (by video; n: test videos of the class shown)',
                     ['shown', 'taken for', 'n', a.title, b.title], rows, words=('taken for',))
    return join([of_classes, section(
        'pairs', 'Most confused pairs, before and after',
        paragraph(f'How many of the n videos of one class are taken for another, by {a.title} '
                  f'(before) and by {b.title} (after).'),
        element('div', pairs(f'Before: most confused by {a.title}', matrix_a),
                pairs(f'After: most confused by {b.title}', matrix_b), class_='grid wide'))])


def example(clip, a, b, classes, drops=()):
    """Three frames of a clip, and what both methods say of it.

    Args:
        drops: as for drop_bars, of the class that B names, to be drawn under the frames.

    Raises:
        UserError: the clip cannot be decoded.
    """
    n = count_frames(clip.path)  # features may be of fewer, or of windows
    indices = sorted({n // 10, n // 2, n * 9 // 10})
    frames = read_frames(clip.path, indices, THUMBNAIL)
    aspect = shape_of(clip.path).aspect
    strip = numpy.hstack(list(frames[..., ::-1]))  # BGR to RGB
    data = imageio.imwrite('<bytes>', strip, extension='.jpg', quality=82)
    said = [f'{run.title}: {classes[run.method.said[clip.name]]} '
            f'({100 * run.probability[clip.name][run.method.said[clip.name]]:.0f}\u00a0%)'
            for run in (a, b)]
    # Frames are decoded as squares; the page gives them their own shape back.
    shape = f'aspect-ratio:{len(frames) * aspect:.4f}'
    return element(
        'figure', picture(data, 'jpeg', f'{len(frames)} frames of {clip.name}, which shows '
                          f'{clip.class_name}: at a tenth, the middle and nine tenths of it',
                          style=shape, loading='lazy'),
        drop_bars(drops, drops[-1][1]) if drops else '',
        element('figcaption', element('strong', clip.class_name), f' \u00b7 {clip.name}',
                *(element('span', words) for words in said)), class_='clip')


def flips(a, b):
    """Clips that flipped to right and to wrong from A to B; the surest change first."""
    right, wrong = [], []
    for clip in shared_clips(a, b):
        before, after = (run.method.said[clip.name] == clip.label for run in (a, b))
        if before != after:
            (right if after else wrong).append(clip)

    def change(clip):
        return -abs(b.probability[clip.name][clip.label] - a.probability[clip.name][clip.label])
    return sorted(right, key=change), sorted(wrong, key=change)


def flips_section(a, b, lists, args, notes, drops_of=None):
    """Clips that flipped from A to B.

    Args:
        drops_of: None, or a function of a clip that gives what drop_bars draws.
    """
    parts, failed = [], []
    for word, clips in zip(('right', 'wrong'), flips(a, b)):
        there = [clip for clip in clips if clip.path.exists()]
        failed += [f'{clip.path}: not there' for clip in clips if not clip.path.exists()]
        # One clip a class before a second one: clips of a class look alike.
        seen, first, later = set(), [], []
        for clip in there:
            (later if clip.label in seen else first).append(clip)
            seen.add(clip.label)
        shown = []
        for clip in (first + later)[:args.examples]:
            try:
                shown.append(example(clip, a, b, lists.classes,
                                     drops_of(clip) if drops_of else ()))
            except UserError as error:
                failed.append(str(error))
        parts += [element('h3', f'{len(clips)} video{"s" * (len(clips) != 1)} flipped to {word}'),
                  element('div', *shown, class_='grid') if shown else
                  paragraph('None.' if not clips else 'No frame could be read.'
                            if args.examples else 'No frames asked for.')]
    if failed and args.examples:
        notes.append(f'{len(failed)} clips that flipped give no example frame, first: '
                     f'{failed[0]}')
    return section(
        'flips', 'Clips that flipped',
        paragraph(f'From {a.title} to {b.title}, over {len(shared_clips(a, b))} test videos. '
                  f'Shown are up to {args.examples} each way, first those where the probability '
                  'of the true class changed most, one a class before a second. In brackets: '
                  'the probability given to the class named.'),
        paragraph(f'Bars under the frames, from the first frame to the last: how far {b.title} '
                  'takes back the class that it names when that stretch of frames is left out '
                  '(up), or is surer of it (down); the longest bar of a clip is its scale, 10 '
                  'points at least.', class_='muted') if drops_of else '', *parts)


def against(a, b):
    """How run B differs from A: (top-1 of A, of B, clips in both, the test in words)."""
    clips = shared_clips(a, b)
    right_a, right_b = (numpy.mean([run.method.said[c.name] == c.label for c in clips])
                        for run in (a, b))
    gained, lost = map(len, flips(a, b))
    p = mcnemar(lost, gained)
    p = f'p = {p:.2g}' if p >= 0.0001 else 'p < 0.0001'
    return right_a, right_b, len(clips), (
        f'Over the {len(clips)} test videos that both predict: {gained} flipped to right, {lost} '
        f'to wrong; McNemar\u2019s exact test {p}')


def summary(a, b, no_order=None):
    """The figures to take away.

    Args:
        no_order (Run): one on the same features as B that sees no order, if there is one.
    """
    right_a, right_b, n, test = against(a, b)
    unit = f'top-1 by video (n\u00a0{n})'

    def one(number, words):
        return element('div', element('dt', words), element('dd', number))
    figures = [one(f'{100 * right_a:.1f} %', f'{a.title}, {unit}'),
               one(f'{100 * right_b:.1f} %', f'{b.title}, {unit}'),
               one(points(right_b - right_a), 'percentage points between them')]
    said = [paragraph(f'{test} (it takes videos as independent, which those of one group are not '
                      'quite).')]
    if no_order:
        blind, seeing, n, test = against(no_order, b)
        figures += [one(f'{100 * blind:.1f} %', f'{no_order.title}, on the features of {b.title} '
                        f'without their order (n\u00a0{n})'),
                    one(points(seeing - blind), f'points of {b.title} over it: what order adds')]
        said.append(paragraph(f'{b.title} over {no_order.title}, which sees no order. {test}.'))
    return join([element('dl', *figures, class_='figures'), *said])
