"""The table of results: as text of 80 columns, as Markdown, as CSV."""
import json
import textwrap

from engine.files import csv_text
from engine.reporting.resultsfile import is_number
from engine.reporting.scoring import TOP_K
from engine.stage import TEST_FLAGS

WIDTH = 80
LEFT = ('method', 'unit', 'top-1 95 %', 'inference')  # columns of words; the others hold figures
FILES_ONLY = ('train loss', 'val loss', 'epochs', 'inference')  # no room for them in WIDTH
# Left out of the text where it would be too wide, the first of them first.
EXPENDABLE = ('ECE', 'ECE cal.', 'macro F1', 'balanced', 'kappa', 'train', 'val', 'seconds')


def differing_settings(results):
    """For each result a dict of the settings in which runs of its method differ."""
    by_method = {}
    for result in results:
        by_method.setdefault(result['method'], []).append(result['settings'])
    differing = {}
    inferences = {method: {inference(run) for run in runs} for method, runs in by_method.items()}
    for method, runs in by_method.items():
        differing[method] = [
            key for key in sorted(set().union(*runs))
            if key not in TEST_FLAGS
            and len({json.dumps(run.get(key), sort_keys=True) for run in runs}) > 1]
    shown = [{key: result['settings'][key] for key in differing[result['method']]
              if key in result['settings']} for result in results]
    for result, settings in zip(results, shown):
        if len(inferences[result['method']]) > 1:
            settings['inference'] = inference(result['settings'])
    return shown


def inference(settings):
    """How a run looked at the test clips: 'first of 180, linear'; '-' where it does not say."""
    if 'inference' not in settings:
        return '-'
    whole = settings['inference'] == 'full' or not settings.get('test_steps')
    return ', '.join(['full' if whole else f'{settings["inference"]} of {settings["test_steps"]}']
                     + ['reversed too'] * bool(settings.get('reverse_too'))
                     + [str(settings.get('readout', '-'))])


def figure(value, factor=1, digits=1):
    """One cell: a number, 'mean ± deviation', or '-'."""
    if isinstance(value, tuple):
        mean, deviation = value
        return f'{factor * mean:.{digits}f}' + (
            '' if deviation is None else f' ± {factor * deviation:.{digits}f}')
    return f'{factor * value:.{digits}f}' if is_number(value) else '-'


def table(results, intervals=None):
    """Turns results into (header, rows of str); columns that are empty throughout are left out."""
    rows = []
    for number, result in enumerate(results, 1):
        row = {'#': str(number), 'method': result['method'], 'unit': result['unit'],
               'split': str(result['split']), 'fold': result.get('fold') or '-',
               'n': str(result['n'])}
        row.update((f'top{k}', figure(result.get(f'top{k}'), 100)) for k in TOP_K)
        row['macro F1'] = figure(result.get('macro_f1'), 100)
        row['balanced'] = figure(result.get('balanced_accuracy'), 100)
        row['kappa'] = figure(result.get('kappa'), digits=2)
        row['ECE'] = figure(result.get('ece'), digits=3)
        row['ECE cal.'] = figure(result.get('ece_calibrated'), digits=3)
        if intervals:
            row['top-1 95 %'] = intervals[number - 1]
        row['train'] = figure(result.get('train_accuracy'), 100)
        row['val'] = figure(result.get('validation_accuracy'), 100)
        row['train loss'] = figure(result.get('train_loss'), digits=3)
        row['val loss'] = figure(result.get('validation_loss'), digits=3)
        row['seed'] = str(result.get('seed', '-'))
        row['epochs'] = figure(result.get('epochs'), digits=0)
        row['seconds'] = figure(result.get('seconds'), digits=0)
        row['inference'] = inference(result['settings'])
        rows.append(row)
    optional = [key for key in (*FILES_ONLY, *EXPENDABLE, 'fold', 'top-1 95 %')
                if all(row.get(key, '-') == '-' for row in rows)]
    header = [key for key in rows[0] if key not in optional]
    return header, [[row[key] for key in header] for row in rows]


def as_text(header, rows, settings):
    """The table in WIDTH columns; settings stand under their row, long names are cut."""
    columns = {name: column for name, *column in zip(header, *rows) if name not in FILES_ONLY}
    for name in EXPENDABLE:
        least = sum(8 if key == 'method' else max(map(len, (key, *column)))
                    for key, column in columns.items()) + len(columns) - 1
        if least > WIDTH:
            columns.pop(name, None)
    header, rows = list(columns), list(zip(*columns.values()))
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    method = header.index('method')
    gap = '  ' if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else ' '
    too_wide = sum(widths) + len(gap) * (len(widths) - 1) - WIDTH
    if too_wide > 0:
        widths[method] = max(8, widths[method] - too_wide)

    def line(cells):
        cut = [cell if len(cell) <= width else cell[:width - 1] + '~'
               for cell, width in zip(cells, widths)]
        return gap.join(cell.ljust(width) if name in LEFT else cell.rjust(width)
                        for cell, width, name in zip(cut, widths, header)).rstrip()
    indent = ' ' * (widths[0] + len(gap))
    lines = [line(header)]
    for row, differing in zip(rows, settings):
        lines.append(line(row))
        if differing:
            lines += textwrap.wrap(in_words(differing), WIDTH, initial_indent=indent,
                                   subsequent_indent=indent, break_on_hyphens=False)
    return '\n'.join(lines)


def in_words(settings):
    def word(value):
        if isinstance(value, list):
            return ','.join(map(word, value))
        return value if isinstance(value, str) else json.dumps(value)
    return ' '.join(f'{key}={word(value)}' for key, value in settings.items())


def without_inference(settings):
    """The settings for a file, which has a column for the inference."""
    return [{key: value for key, value in one.items() if key != 'inference'} for one in settings]


def as_markdown(header, rows, settings):
    settings = without_inference(settings)

    def line(cells):
        return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'
    rule = ['---' if name in LEFT + ('settings',) else '---:' for name in header + ['settings']]
    lines = [line(header + ['settings']), line(rule)]
    lines += [line(row + [in_words(differing)]) for row, differing in zip(rows, settings)]
    return '\n'.join(lines) + '\n'


def as_csv(header, rows, settings):
    settings = without_inference(settings)
    return csv_text([header + ['settings'], *(
        row + [in_words(differing)] for row, differing in zip(rows, settings))])
