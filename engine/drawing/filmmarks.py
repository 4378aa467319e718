"""What is done in drawn films, as people would have marked it: in CSV, BORIS and ELAN."""
from xml.etree import ElementTree

from engine.drawing.clips import FPS
from engine.files import csv_text, write_text

BORIS_COLUMNS = ('Observation id', 'Observation date', 'Observation type', 'Source',
                 'Media duration (s)', 'FPS', 'Subject', 'Behavior', 'Behavior type', 'Time',
                 'Media file name', 'Comment')


def write_marks(folder, films):
    """Writes the marks of films, a third of them in each form: plain.csv, boris.tsv, NAME.eaf.

    Args:
        films: [(path, person, acts)], acts as engine.drawing.films.plan gives them.
    """
    _write_plain(folder / 'plain.csv', films[0::3])
    _write_boris(folder / 'boris.tsv', films[1::3])
    for film in films[2::3]:
        _write_elan(folder / f'{film[0].stem}.eaf', *film)


def _actions(acts):
    """(class, start, stop) of what is done, seconds."""
    return [(act.label, act.start / FPS, act.stop / FPS) for act in acts if act.label]


def _write_plain(path, films):
    write_text(path, csv_text([('film', 'start', 'stop', 'class', 'subject')] + [
        (film.name, f'{start:.3f}', f'{stop:.3f}', label, person)
        for film, person, acts in films for label, start, stop in _actions(acts)]))


def _write_boris(path, films):
    """As BORIS exports tabular events: a row where something starts, a row where it stops."""
    write_text(path, csv_text([BORIS_COLUMNS] + [
        (film.stem, '2026-01-01 12:00:00', 'Media file(s)', f'player #1:{film.name}',
         f'{acts[-1].stop / FPS:.3f}', f'{FPS:.3f}', person, label, kind, f'{moment:.3f}',
         film.name, '')
        for film, person, acts in films for label, start, stop in _actions(acts)
        for kind, moment in (('START', start), ('STOP', stop))], '\t'))


def _write_elan(path, film, person, acts):
    """As ELAN saves: moments, in milliseconds, and annotations from one to another."""
    root = ElementTree.Element('ANNOTATION_DOCUMENT', {
        'AUTHOR': '', 'DATE': '2026-01-01T12:00:00+00:00', 'FORMAT': '3.0', 'VERSION': '3.0'})
    header = ElementTree.SubElement(root, 'HEADER', {'MEDIA_FILE': '',
                                                     'TIME_UNITS': 'milliseconds'})
    ElementTree.SubElement(header, 'MEDIA_DESCRIPTOR', {
        'MEDIA_URL': f'file:///films/{film.name}', 'MIME_TYPE': 'video/x-msvideo',
        'RELATIVE_MEDIA_URL': f'./{film.name}'})
    order = ElementTree.SubElement(root, 'TIME_ORDER')
    tier = ElementTree.SubElement(root, 'TIER', {
        'LINGUISTIC_TYPE_REF': 'default-lt', 'PARTICIPANT': person, 'TIER_ID': 'actions'})
    for number, (label, *moments) in enumerate(_actions(acts), 1):
        slots = [f'ts{2 * number - 1}', f'ts{2 * number}']
        for slot, moment in zip(slots, moments):
            ElementTree.SubElement(order, 'TIME_SLOT', {
                'TIME_SLOT_ID': slot, 'TIME_VALUE': str(round(1000 * moment))})
        annotation = ElementTree.SubElement(
            ElementTree.SubElement(tier, 'ANNOTATION'), 'ALIGNABLE_ANNOTATION', {
                'ANNOTATION_ID': f'a{number}', 'TIME_SLOT_REF1': slots[0],
                'TIME_SLOT_REF2': slots[1]})
        ElementTree.SubElement(annotation, 'ANNOTATION_VALUE').text = label
    ElementTree.SubElement(root, 'LINGUISTIC_TYPE', {
        'GRAPHIC_REFERENCES': 'false', 'LINGUISTIC_TYPE_ID': 'default-lt',
        'TIME_ALIGNABLE': 'true'})
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding='unicode', xml_declaration=True) + '\n')
