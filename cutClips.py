"""Cuts clips out of films by what was annotated in them, and lays out a root for all stages.

    python cutClips.py FILMS --annotations marks.csv --root own
    python cutClips.py day1.mp4 day2.mp4 --annotations day1.eaf day2.eaf --tiers doing --root own
    python cutClips.py FILMS --annotations boris/*.tsv --groups subject --other --root own

Needs   films, in any container and codec that ffmpeg reads, or folders of them, and files that
        say what they show from when to when; the format is told by the content:
        plain tables            film,start,stop,class and perhaps subject, in any order
        BORIS                   tabular or aggregated events, exported as CSV or TSV
        ELAN                    .eaf, or exported as tab-delimited text
Writes  ROOT/UCF-101            CLASS/FILM_START_STOP.mkv, in milliseconds
        ROOT/ucfTrainTestlist   classInd.txt, trainlist01.txt, testlist01.txt ..., groups.txt
        ROOT/clips.csv          of each clip: film, start, stop, class, subject, group, frames;
                                a plain table of annotations again

A clip holds the frames that are shown at its start or later and before its stop, pixel by pixel
as they are in the film (H.264 or FFV1 without loss), whether or not the film's rate varies. In
annotations a film is named with or without folders and ending, those of another machine too.
Times are seconds, 12.5 or 12,5, or hh:mm:ss.ms. A class of BORIS is the behavior, START and STOP
paired by subject and modifiers; of ELAN an annotation's value, or the tier's name where that is
empty, and its subject is the tier's participant.

What cannot be taken gets a line that names file and row, and the rest goes on: zero lengths, states
without their end, films that are not there or that last longer or shorter than BORIS says, times
past a film's end, classes that only one group shows. What two marks share of a film becomes part
of neither, if they are of different classes, else of the first.

Whole groups train or are tested: --groups film keeps the clips of one film together, and
--groups subject those of one person or animal, in all films. With --other, stretches in which
nothing is marked, as long as the clips are and at least --margin away from any mark, become a
class of their own: without it every moment of a new film is taken for one of the actions.

The same command goes on where it was stopped, and cuts only what is new or has changed.
"""
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import engine  # noqa: F401  (before NumPy)
import numpy

import makeSplit
from engine import arguments, locks, stage, variants
from engine.errors import UserError
from engine.events.annotations import OfNothing, read_annotations
from engine.events.cutting import Cut, cut, frames_of
from engine.events.elan import Tiers
from engine.events.films import Known, films_of, survey
from engine.events.intervals import LeftOut, class_name, composed
from engine.events.made import Made, measure
from engine.events.planning import (Stretch, as_stretch, draw, gaps, pieces, place,
                                    without_overlaps)
from engine.files import csv_text, write_text
from engine.progress import Progress
from engine.video.ownvideos import Video, clean, short
from engine.video.videosgiven import videos_given

TABLE = 'clips.csv'


def times(text):
    return math.inf if text == 'all' else arguments.positive(text)


def get_parser():
    parser = stage.new_parser(__doc__)
    group = parser.add_argument_group('films and annotations')
    group.add_argument('films', type=Path, nargs='+', metavar='FILMS',
                       help='films, or folders that are searched for films')
    group.add_argument('--annotations', type=Path, nargs='+', required=True, metavar='FILE',
                       help='what the films show: plain tables, exports of BORIS, files or '
                            'exports of ELAN')
    group.add_argument('--tiers', nargs='+', metavar='NAME',
                       help='of ELAN: the tiers to read (default: all)')
    group.add_argument('--around', type=arguments.positive, metavar='SECONDS',
                       help='of BORIS: takes so many seconds before and behind each point event '
                            '(default: point events are left out)')
    group.add_argument('--classes', nargs='+', type=composed, metavar='NAME',
                       help='cuts clips of these alone; the others still count as marked')
    group.add_argument('--subjects', nargs='+', type=composed, metavar='NAME',
                       help='cuts clips of these alone; the others still count as marked')
    group = parser.add_argument_group('none of these')
    group.add_argument('--other', nargs='?', const='other', type=class_name, metavar='NAME',
                       help='adds a class of stretches in which nothing is marked, as many as '
                            'there are clips to a class on average (its name: other)')
    group.add_argument('--other-times', type=times, default=1.0, metavar='TIMES',
                       help='takes so many times as many of these; all: everything that is not '
                            'marked, in pieces as long as the longest clip at most and half as '
                            'long as the shortest at least, which teaches most where films are '
                            'to be quiet (default: 1)')
    group.add_argument('--margin', type=arguments.not_negative, default=0.5, metavar='SECONDS',
                       help='how far these stay away from what is marked (default: 0.5)')
    group = parser.add_argument_group('the split')
    group.add_argument('--groups', choices=('film', 'subject'), default='film',
                       help='what is never trained on and tested alike (default: film)')
    group.add_argument('--test-share', type=arguments.real(above=0, below=1), metavar='SHARE',
                       help='about how much of each class is tested (default: 0.3)')
    group.add_argument('--splits', type=int, choices=(1, 2, 3),
                       help='how many, tested on different groups as far as there are enough '
                            '(default: 1)')
    parser.set_defaults(split=None)
    return parser


class Problems:
    """What is left out: each line is printed at once."""

    def __init__(self):
        self.number = 0

    def say(self, *lines):
        for line in lines:
            print(line, flush=True)
        self.number += len(lines)


# ------------------------------------------------------------- reading annotations

def read_marks(args, problems):
    """([Interval], names of films of which the intervals do not tell all)."""
    marks, unsure, tiers = [], set(), Tiers(args.tiers)
    for path in args.annotations:
        try:
            intervals, wrong = read_annotations(path, tiers=tiers, around=args.around)
        except UserError as error:
            intervals, wrong = [], [str(error)]
        problems.say(*wrong)
        marks += intervals
        missing = [line for line in wrong if not isinstance(line, OfNothing)]
        if missing:
            films = {interval.film for interval in intervals}.union(*(
                line.films for line in missing if isinstance(line, LeftOut)))
            unsure |= films
            if args.other and not films:
                raise UserError(f'{path}: which films it marks cannot be read, so none is sure to '
                                f'show {args.other}; mend it, or leave out the file, or --other')
            if args.other:
                print(f'{path}: rows are missing, so nothing in its films is taken for '
                      f'{args.other}')
    tiers.check()
    if not marks:
        raise UserError('no annotation could be read')
    for flag, asked, known in (('--classes', args.classes, {mark.label for mark in marks}),
                               ('--subjects', args.subjects, {mark.subject for mark in marks})):
        if strange := set(asked or ()) - {composed(name) for name in known}:
            raise UserError(f'{flag} {", ".join(sorted(strange))}: no mark is of this; there are '
                            + ', '.join(sorted(filter(None, known))))
    return marks, unsure


def match(marks, known, unsure, problems):
    """{film's name in annotations: Film}; each name of none or several gets a line, and is
    unsure."""
    meant = {}
    rows = Counter(mark.film for mark in marks)
    for mark in marks:
        if mark.film in meant:
            continue
        found = known.meant_by(mark.film)
        meant[mark.film] = found[0] if len(found) == 1 else None
        if len(found) != 1:
            reason = ('is not among those given' if not found else
                      f'may be {" or ".join(str(film.path) for film in found)}')
            unsure.add(mark.film)
            problems.say(f'{mark.where}: the film {mark.film} {reason}; '
                         f'left out, in all {rows[mark.film]} rows')
    return {name: film for name, film in meant.items() if film}


# ----------------------------------------------------------------- planning clips

def check_spelling(args, wanted, every):
    """Refuses classes, or subjects that are groups, whose names differ in what gets lost."""
    fields = {'label': wanted}
    if args.groups == 'subject':  # with --other any of them may be whose mark is nearest
        fields['subject'] = [one for one in every if one.subject] if args.other else wanted
    for field, stretches in fields.items():
        first = {}
        for stretch in stretches:
            name = getattr(stretch, field)
            other = first.setdefault(class_name(name).lower(), stretch)
            if getattr(other, field) != name:
                raise UserError(f'{stretch.where}: "{name}" is called "{getattr(other, field)}" in '
                                f'{other.where}; spell them alike, or give them other names')
    if args.other and args.other.lower() in {class_name(one.label).lower() for one in wanted}:
        raise UserError(f'--other {args.other}: a class has this name; say another one')


def stretches_of(args, marks, films, made, unsure, problems):
    """([Stretch] to be cut, [Stretch] of all that is marked); names of films one of whose marks
    cannot be right become unsure."""
    every, wanted = [], []
    for mark in marks:
        if mark.film not in films:
            continue
        every.append(as_stretch(mark, films[mark.film]))
        stretch, reason = place(mark, films[mark.film], made)
        if reason:
            problems.say(f'{mark.where}: {reason}')
            unsure.add(mark.film)
            continue
        if ((args.classes is None or stretch.label in args.classes)
                and (args.subjects is None or stretch.subject in args.subjects)):
            if args.groups == 'subject' and not mark.subject:
                problems.say(f'{mark.where}: {mark.label} has no subject, which --groups subject '
                             'asks for')
            else:
                wanted.append(stretch)
    check_spelling(args, wanted, every)
    kept, wrong = without_overlaps(wanted)
    problems.say(*wrong)
    return kept, every


def add_other(args, kept, every, ends, unsure):
    """The Stretches of the class of nothing."""
    inside = defaultdict(list)
    for stretch in every:
        inside[stretch.film].append(stretch)
    # who is seen where nothing is marked: whose mark is nearest
    named = {film: [mark for mark in inside[film] if mark.subject or args.groups == 'film']
             for film in sorted(inside) if film not in unsure}
    free = [(film, *piece) for film in named if named[film]
            for piece in gaps(0.0, ends[film], inside[film], args.margin)]
    doubtful = sorted(film.path for film in inside if film in unsure)
    if doubtful:
        print(f'{args.other}: nothing is drawn from {len(doubtful)} films of which not every mark '
              f'could be taken, {doubtful[0]} first')

    def nearest(film, start, stop):
        return min((max(mark.start - stop, start - mark.stop), mark.subject)
                   for mark in named[film])[1]
    lengths = [one.stop - one.start for one in kept]
    if math.isinf(args.other_times):
        drawn, number = pieces(free, min(lengths) / 2, max(lengths)), 0
    else:
        number = round(args.other_times * len(kept) / len({one.label for one in kept}))
        drawn = draw(free, lengths, number, numpy.random.RandomState(args.seed))
    drawn = [Stretch(film, start, stop, args.other, nearest(film, start, stop), '')
             for film, start, stop in drawn]
    drawn = [one for one in drawn if args.subjects is None or one.subject in args.subjects]
    if len(drawn) < number:
        print(f'{args.other}: room for {len(drawn)} of {number} clips in what is not marked')
    return drawn


# ------------------------------------------------------------------ clips and lists

class Planned(NamedTuple):
    """A clip to be: its stretch, its Video for the lists, its group, and what it is cut from."""
    stretch: Stretch
    video: Video
    group: str
    source: list


def planned(args, stretches):
    """[Planned] in the order of classes and names."""
    identity = {film: film.identity() for film in {stretch.film for stretch in stretches}}
    found = []
    for stretch in stretches:
        span = [round(1000 * moment) for moment in (stretch.start, stretch.stop)]
        name = short(f'{stretch.film.name}_{span[0]:07d}_{span[1]:07d}')
        folder = class_name(stretch.label)
        line = f'{folder}/{name}.mkv'
        group = stretch.film.name if args.groups == 'film' else clean(stretch.subject)
        found.append(Planned(
            stretch, Video(args.root / variants.CLIPS / line, line, name, folder, name),
            group, [stretch.film.name, *identity[stretch.film], stretch.start, stretch.stop]))
    return sorted(found, key=lambda clip: clip.video.relative)


def lists_of(args, clips, problems):
    """([Planned] of the classes that several groups show, {file name: lines} of their lists)."""
    groups = defaultdict(set)
    for clip in clips:
        groups[clip.video.class_name].add(clip.group)
    for name in sorted(groups):
        if len(groups[name]) < 2:
            problems.say(f'class {name}: only {args.groups} {min(groups[name])} shows it, and it '
                         'takes two, one to train and one to test; left out')
    clips = [clip for clip in clips if len(groups[clip.video.class_name]) > 1]
    if len({clip.video.class_name for clip in clips}) < 2:
        raise UserError(f'fewer than two classes are left; each is to be shown by two '
                        f'{args.groups}s at least' + (
                            ' (--groups subject: of one film, by two subjects)'
                            if args.groups == 'film' else ''))
    seconds = defaultdict(float)
    for clip in clips:
        seconds[clip.video.class_name] += clip.stretch.stop - clip.stretch.start
    return clips, makeSplit.new_lists(args, [clip.video for clip in clips],
                                      [clip.group for clip in clips], seconds)


def cut_all(args, clips, made, times, problems):
    """Cuts what is not in place; returns the clips that are, in their order."""
    missing = defaultdict(list)
    for clip in clips:
        if not made.has(clip.video.relative, clip.source):
            missing[clip.stretch.film].append(clip)
    number = sum(map(len, missing.values()))
    print(f'{len(clips) - number} clips are in place, {number} to be cut', flush=True)
    part = args.root / f'.{variants.CLIPS}.part'
    with Progress(number, 'cutting') as progress:
        for film, mine in missing.items():
            shown = times[film] if film in times else survey(film).times
            made.begin({clip.video.relative: clip.source for clip in mine})
            cuts = {Cut(clip.video.path, *frames_of(shown, clip.stretch.start,
                                                    clip.stretch.stop)): clip for clip in mine}
            empty = [made_cut for made_cut in cuts if not made_cut.count]
            made.end({cuts[one].video.relative: (one.first, 0) for one in empty})
            progress.update(len(empty))
            for right, wrong in cut(film.path, shown, [one for one in cuts if one.count], part):
                problems.say(*wrong)
                made.end({cuts[one].video.relative: (one.first, one.count) for one in right})
                progress.update(len(right), sum(one.count for one in right))
    return [clip for clip in with_frames(clips, made, problems)
            if made.has(clip.video.relative, clip.source)]


def with_frames(clips, made, problems):
    """The clips but for those that are known to hold no frame, which get a line each."""
    found = []
    for clip in clips:
        about = made.clips.get(clip.video.relative, {})
        if about.get('count') == 0 and about['source'] == clip.source:
            problems.say(f'{clip.stretch.where or clip.video.relative}: {clip.stretch.label} from '
                         f'{clip.stretch.start:.3f} to {clip.stretch.stop:.3f} s holds no frame')
        else:
            found.append(clip)
    return found


def write_table(args, clips, made):
    """Writes clips.csv: where each clip comes from."""
    rows = [['clip', 'class', 'film', 'start', 'stop', 'subject', 'group', 'first', 'frames']]
    for clip in clips:
        about = made.clips[clip.video.relative]
        rows.append([clip.video.relative, clip.video.class_name, clip.stretch.film.path,
                     f'{clip.stretch.start:.3f}', f'{clip.stretch.stop:.3f}',
                     clip.stretch.subject, clip.group, about['first'], about['count']])
    write_text(args.root / TABLE, csv_text(rows, end='\r\n'))


def given_films(args, problems):
    given = videos_given(args.films)
    problems.say(*(video.wrong for video in given if video.wrong))
    clips = (args.root / variants.CLIPS).resolve()
    films = films_of([video.path for video in given if not video.wrong
                      and clips not in video.path.resolve().parents])
    if not films:
        raise UserError('no film to cut clips from')
    return films


def work(args, problems):
    """Does all of it, while nobody else works on the root."""
    marks, unsure = read_marks(args, problems)
    films = given_films(args, problems)
    made = Made(args.root / variants.CLIPS)
    known = Known(films)
    meant = match(marks, known, unsure, problems)
    ends, times = measure(sorted(set(meant.values())), made, problems)
    meant = {name: film for name, film in meant.items() if film in ends}
    silent = len(films) - len(set(meant.values()))
    if silent:
        print(f'{silent} of {len(films)} films are not annotated, or cannot be read')
    stretches, every = stretches_of(args, marks, meant, made, unsure, problems)
    if args.other and stretches:
        stretches += add_other(args, stretches, every, ends,
                               {film for name in unsure for film in known.meant_by(name)})
    clips = with_frames(planned(args, stretches), made, problems)
    clips, files = lists_of(args, clips, problems)
    makeSplit.stale_lists(args.root, files)
    there = cut_all(args, clips, made, times, problems)
    if there != clips:
        there, files = lists_of(args, there, problems)
    makeSplit.write_lists(args.root, files)
    made.keep([clip.video.relative for clip in clips])
    write_table(args, there, made)
    print(f'{len(files["classInd.txt"])} classes, {len(there)} clips; wrote '
          f'{args.root / variants.LISTS} and {args.root / TABLE}')
    print(f'look at it: python checkData.py{variants.place(args.root)}')


def main():
    args = stage.parse(get_parser())
    if args.split:
        raise UserError(f'--split {args.split} is for the stages; --splits says how many to make')
    problems = Problems()
    with locks.only_one(args.root / variants.LISTS):
        work(args, problems)
    if problems.number:
        print(f'not all could be taken: see the lines above ({problems.number}); put it right, '
              'then run this again')
        return 3


if __name__ == '__main__':
    stage.run(main)
