"""The section of report.py's page on how sure networks are, and how often they are right."""
import numpy

from engine.reporting.calibration import expected_error, reliability, temper
from engine.reporting.page import element, paragraph, section, table
from engine.reporting.resultsfile import is_number
from engine.reporting.svgcharts import legend, line_chart

BINS = 10  # fewer than the figure's, so that a point stands for some clips


def sureness_section(runs, lines):
    """Reliability diagrams of the runs, as they are and calibrated; '' without any temperature.

    Args:
        runs: list of engine.reporting.runs.Run.
        lines: {name of a run: its line of results.jsonl}.
    """
    known = [(number, run, lines[run.name]['temperature']) for number, run in enumerate(runs)
             if is_number(lines[run.name].get('temperature'))]
    if not known:
        return ''
    drawn, rows = {'as they are': [], 'calibrated': []}, []
    for number, run, temperature in known:
        labels = numpy.array([clip.label for clip in run.method.clips])
        logs = numpy.log(numpy.maximum([run.probability[clip.name] for clip in run.method.clips],
                                       1e-30))
        cells = [run.title, len(labels), f'{temperature:.2f}']
        for series, said in zip(drawn.values(), (logs, temper(logs, temperature))):
            sure, right, _ = zip(*reliability(said, labels, BINS))
            series.append((run.title, number, [100 * share for share in sure],
                           [100 * share for share in right]))
            cells.append(f'{expected_error(said, labels):.3f}')
        rows.append(cells)
    free = next((n for n in range(6) if n not in {m % 6 for m, _, _ in known}), len(runs))
    even = ('as sure as right', free, [0, 100], [0, 100])
    charts = [element('figure', line_chart(
        'videos right', f'share of videos right by how sure the network is, {name}',
        [even, *series], 'probability of the class named, %', 100, ' %'),
        element('figcaption', name)) for name, series in drawn.items()]
    return section(
        'sureness', 'Sureness',
        paragraph('Test videos in bins of the probability given to the class named: below the '
                  'straight line a network is surer than it should be. Calibrated: all log '
                  'probabilities divided by one temperature, found on the validation videos; no '
                  'class named changes. The error is the mean gap between sureness and share '
                  'right, in 15 bins (expected calibration error).'),
        element('div', *charts, class_='grid charts'),
        legend([(number, f'{run.title} (n {len(run.method.clips)} videos)')
                for number, run, _ in known] + [(even[1], even[0])]),
        table('By video', ['method', 'n', 'temperature', 'error as it is', 'error calibrated'],
              rows))
