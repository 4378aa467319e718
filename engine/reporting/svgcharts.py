"""Line charts of a page, as SVG inside it."""
import html
import math

from engine.reporting.page import Raw, element, text

# Lines are told apart by colour, dash and mark, so that no one of them has to be seen.
DASHES = ('', '6 3', '2 3', '9 3 2 3', '', '6 3', '2 3', '9 3 2 3')
WIDTH, HEIGHT = 420, 240          # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 24, 40


def ticks(largest, about=4):
    """Round numbers from 0 to at least `largest`."""
    if not largest > 0:
        largest = 1.0
    step = 10 ** math.floor(math.log10(largest / about))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10)
                 if factor * step * about >= 0.999 * largest)
    return [round(i * step, 10) for i in range(math.ceil(largest / step - 1e-9) + 1)]


def symbol(kind, x, y):
    """One of six marks about 6 units wide."""
    x, y = round(x, 1), round(y, 1)
    shapes = (f'<circle cx="{x}" cy="{y}" r="3"/>',
              f'<rect x="{x - 2.8:.1f}" y="{y - 2.8:.1f}" width="5.6" height="5.6"/>',
              f'<path d="M{x} {y - 3.8:.1f}l3.6 6.4h-7.2z"/>',
              f'<path d="M{x} {y - 4:.1f}l4 4l-4 4l-4-4z"/>',
              f'<path d="M{x} {y + 3.8:.1f}l3.6-6.4h-7.2z"/>',
              f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6" stroke-width="2"/>')
    return shapes[kind % len(shapes)]


def line_chart(name, alt, series, x_label, largest=None, unit='', x_ticks=None, log=False,
               mark=None, bars=()):
    """A line chart as inline SVG: it takes the page's colours, light or dark.

    Args:
        name (str): what the upright axis shows, with its unit.
        alt (str): the chart in one sentence.
        series: list of (name, number of its colour and mark, xs, ys); ys may hold None.
        largest: top of the upright axis; by default the largest y.
        x_ticks: numbers on the lower axis; by default round ones.
        log (bool): logarithmic lower axis, from 1.
        mark: an x to be marked by an upright line.
        bars: (number of its series, x, low, high) of intervals, as upright lines.
    """
    points = [(x, y) for _, _, xs, ys in series for x, y in zip(xs, ys) if y is not None]
    y_ticks = ticks(largest or max((y for _, y in points), default=1))
    low, high = 1 if log else min(x for x, _ in points), max(x for x, _ in points)
    if x_ticks is None:
        x_ticks = [x for x in ticks(high, 5) if x >= low and x == int(x)]
        x_ticks = [low] * (low not in x_ticks and low < x_ticks[0]) + x_ticks if x_ticks else [low]
    x_ticks = [x for x in x_ticks if low <= x <= high]

    def across(x):
        share = ((math.log(x / low) / math.log(high / low) if log else (x - low) / (high - low))
                 if high > low else 0.5)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(y):
        return TOP + (1 - y / y_ticks[-1]) * (HEIGHT - TOP - BOTTOM)

    bottom = HEIGHT - BOTTOM
    out = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
           f'aria-label="{html.escape(alt)}">',
           f'<text class="name" x="0" y="12">{text(name)}</text>']
    for y in y_ticks:
        out.append(f'<line class="{"rule" if y else "axis"}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                   f'y1="{down(y):.1f}" y2="{down(y):.1f}"/><text x="{LEFT - 6}" '
                   f'y="{down(y) + 4:.1f}" text-anchor="end">{y:g}{unit}</text>')
    for x in x_ticks:
        out.append(f'<line class="axis" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{bottom}" '
                   f'y2="{bottom + 4}"/><text x="{across(x):.1f}" y="{bottom + 17}" '
                   f'text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
               f'text-anchor="middle">{text(x_label)}</text>')
    if mark is not None:
        out.append(f'<line class="mark" x1="{across(mark):.1f}" x2="{across(mark):.1f}" '
                   f'y1="{TOP}" y2="{bottom}"/>')
    out += [f'<g class="s{number % 6}"><path class="line" d="M{across(x):.1f} {down(low):.1f}'
            f'V{down(high):.1f}"/></g>' for number, x, low, high in bars]
    for label, number, xs, ys in series:
        known = [(x, y) for x, y in zip(xs, ys) if y is not None]
        path = 'L'.join(f'{across(x):.1f} {down(y):.1f}' for x, y in known)
        out.append(f'<g class="s{number % 6}"><path class="line" d="M{path}" '
                   f'stroke-dasharray="{DASHES[number % len(DASHES)]}"/>' if known else '<g>')
        every = max(1, -(-len(known) // 20))  # marks must not run into one another
        out += [f'<g>{symbol(number, across(x), down(y))}<title>{text(label)}, {text(x_label)} '
                f'{x:g}: {y:.3g}{unit}</title></g>'
                for i, (x, y) in enumerate(known) if i % every == 0 or i == len(known) - 1]
        out.append('</g>')
    return Raw(''.join(out) + '</svg>')


def legend(names):
    """What each line's colour, dash and mark mean; names: list of (number, name)."""
    return element('ul', *(element(
        'li', Raw(f'<svg viewBox="0 0 36 12" aria-hidden="true"><g class="s{number % 6}">'
                  f'<path class="line" d="M1 6H35" '
                  f'stroke-dasharray="{DASHES[number % len(DASHES)]}"/>'
                  f'{symbol(number, 18, 6)}</g></svg>'), name) for number, name in names),
        class_='legend')


def drop_bars(drops, n):
    """Bars along a clip of n frames: how far a probability fell without each stretch of it.

    Args:
        drops: list of (start, end, drop), drop a difference of probabilities; below 0 it rose.
    """
    largest = max(0.1, *(abs(drop) for *_, drop in drops))
    start, end, most = max(drops, key=lambda bar: bar[2])
    out = [f'<svg class="drops" viewBox="0 0 {n} 40" preserveAspectRatio="none" role="img" '
           f'aria-label="Most by frames {start + 1} to {end} of {n}: {100 * most:.0f} points.">']
    for start, end, drop in drops:
        height = 20 * abs(drop) / largest
        out.append(f'<rect class="{"held" if drop > 0 else "hurt"}" x="{start}" '
                   f'width="{end - start}" y="{20 - height * (drop > 0):.2f}" '
                   f'height="{height:.2f}"><title>without frames {start + 1} to {end}: '
                   f'{-100 * drop:+.0f} points</title></rect>')
    return Raw(''.join(out) + f'<line class="axis" x1="0" x2="{n}" y1="20" y2="20"/></svg>')
