"""How good the events that predict.py found are, against what people marked in the same films.

Needs   the tables that `python predict.py FILM... --out DIR --events` wrote, and annotations
Writes  nothing; with --out DIR
        DIR/eventAccuracy.csv       one line a class, and one of all
        DIR/timeline.png            of each film what is true above what was said

    python eventAccuracy.py --events seen --annotations marks/*
    python eventAccuracy.py --events seen/*.events.csv --annotations marks.csv --out seen

By frame: every frame counts once, those that show none of the classes, too; the mean over classes
is that of the shares of each class's frames that are right. F1 at an overlap: an event is found if
one of its class overlaps it by so much (intersection over union); each counts once, what was said
beyond that is too much. Edit score: 100 less the share of events that would have to be put in,
taken out or renamed to make their order right, the mean over films. All as in Lea et al. 2017 and
Farha and Gall 2019. Borders: mean absolute error of where the events found at an overlap of 0.1
start and stop.

A film is known by its name without ending; of films of one name in several folders, by these as
far as they are told. Marks of one class that touch or overlap are one event, whoever it is.
Exit code 3: done but for the films and rows named.
"""
import sys
from pathlib import Path

from engine import arguments, stage
from engine.drawing import plotstyle
from engine.errors import UserError
from engine.progress import number_of
from engine.events.comparing import compare, event_tables
from engine.events.eventscores import OVERLAPS, Scores
from engine.events.intervals import class_name
from engine.events.merging import OTHER
from engine.events.timeline import timeline_figure
from engine.files import csv_text, write_text

FILMS_IN_PICTURE = 40
ALL = 'all'


def get_parser():
    parser = arguments.Parser(description=__doc__)
    parser.add_argument('--events', nargs='+', type=Path, required=True, metavar='PATH',
                        help='tables of predict.py, NAME.events.csv, or folders of them')
    parser.add_argument('--annotations', nargs='+', type=Path, required=True, metavar='FILE',
                        help='what is true: any annotations that cutClips.py takes')
    parser.add_argument('--tiers', nargs='+', metavar='NAME',
                        help='the tiers to read, of files that have tiers (default: all)')
    parser.add_argument('--around', type=arguments.positive, metavar='S',
                        help='point events last from S seconds before to S seconds behind')
    parser.add_argument('--other', default=OTHER, type=class_name, metavar='NAME',
                        help=f'what is marked so is nothing (default: {OTHER})')
    parser.add_argument('--rate', type=arguments.positive, default=25.0, metavar='N',
                        help='frames a second by which time is counted (default: 25)')
    parser.add_argument('--out', type=Path, metavar='DIR', help='write table and picture there')
    return parser


def rows(scores, classes):
    """The figures of each class and of all, as {column: value}; shares of 1, seconds."""
    found = scores.found[OVERLAPS[-1]]
    for label, name in [*enumerate(classes), (None, ALL)]:
        whole = label is None
        yield {
            'class': name,
            'events': scores.true.total() if whole else scores.true[label],
            'said': scores.predicted.total() if whole else scores.predicted[label],
            f'found at {OVERLAPS[-1]}': found.total() if whole else found[label],
            'frames': int(scores.frames.sum() if whole else scores.frames[label].sum()),
            'frames right': scores.accuracy() if whole else scores.recall(label),
            **{f'F1 at {least}': scores.f1(least, label) for least in OVERLAPS},
            'borders': sum(len(errors) for key, errors in scores.starts.items()
                           if whole or key == label),
            'start error': scores.border_error('starts', label),
            'stop error': scores.border_error('stops', label)}


def cell(column, value):
    """A value as the table on the screen shows it: shares in percent, seconds as they are."""
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return '-'
    return f'{value:.2f}' if 'error' in column else f'{100 * value:.1f}'


def tell(films, scores, table):
    """Prints the figures in 80 columns."""
    last = table[-1]
    print(f'{number_of(len(films), "film")}, {number_of(last["frames"], "frame")}, '
          f'{number_of(last["events"], "event")}; {number_of(last["said"], "event")} said')
    print(f'by frame     {100 * scores.accuracy():.1f} % right; '
          f'mean over classes {cell("", scores.mean_recall())} %')
    print('F1           ' + ', '.join(f'{cell("", scores.f1(least))} at {least}'
                                      for least in OVERLAPS))
    print(f'edit score   {cell("", scores.edit())}')
    print(f'borders      start {cell("error", last["start error"])} s, stop '
          f'{cell("error", last["stop error"])} s off on average (n = {last["borders"]})\n')
    shown = ['events', 'said', f'found at {OVERLAPS[-1]}', 'frames right',
             *(f'F1 at {least}' for least in OVERLAPS), 'start error', 'stop error']
    heads = ['n', 'said', 'found', ' frames', *(f' F1@{least:g}'.replace('@0', '@')
                                                for least in OVERLAPS), 'start', 'stop']
    wide = max(5, min(24, max(len(row['class']) for row in table)))
    print(f'{"class":{wide}}' + ''.join(f'{head:>6}' for head in heads))
    for row in table:
        print(f'{row["class"][:wide]:{wide}}' + ''.join(
            f'{cell(column, row[column]):>{max(6, len(head))}}'
            for column, head in zip(shown, heads)))
    print(f'n, said, found (at {OVERLAPS[-1]}): events; frames (right), F1: %; start, stop: s')


def write_table(path, table, scores):
    """Writes the rows as CSV, with what there is of all only."""
    rows = [[*table[0], 'mean over classes', 'edit score']]
    for row in table:
        extra = (scores.mean_recall(), scores.edit()) if row['class'] == ALL else ('', '')
        rows.append(['' if value != value else f'{value:.4f}' if isinstance(value, float)
                     else value for value in (*row.values(), *extra)])
    write_text(path, csv_text(rows))
    print(f'wrote {path}')


def draw(path, films, classes):
    """Draws the films, at most FILMS_IN_PICTURE a picture."""
    for first in range(0, len(films), FILMS_IN_PICTURE):
        name = path if not first else path.with_stem(
            f'{path.stem}-{first // FILMS_IN_PICTURE + 1}')
        plotstyle.save(name, timeline_figure, 'Events', films[first:first + FILMS_IN_PICTURE],
                       classes)
        print(f'wrote {name}')


def main():
    args = get_parser().parse_args()
    films, classes, notes, problems = compare(
        event_tables(args.events), args.annotations, args.other, tiers=args.tiers,
        around=args.around)
    for line in problems:
        print(line, file=sys.stderr, flush=True)
    if not films:
        raise UserError('no film is there of which events and annotations are known; films are '
                        'known by their names without folders and ending')
    if not classes:
        raise UserError('neither an event nor an annotation names a class')
    scores = Scores(len(classes), args.rate)
    for film in films:
        scores.add(film.truth, film.predicted, film.seconds)
    table = list(rows(scores, classes))
    for line in notes:
        print(line)
    tell(films, scores, table)
    if args.out:
        write_table(args.out / 'eventAccuracy.csv', table, scores)
        draw(args.out / 'timeline.png', films, classes)
    return 3 if problems else 0


if __name__ == '__main__':
    stage.run(main)
