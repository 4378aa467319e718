"""Pieces of a self-contained HTML page: tables, line charts and pictures, no script.

Every text that comes in is escaped, except what is wrapped in Raw.
"""
import base64
import html
import math
import re

# The browser itself then refuses whatever is not inside the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# Lines are told apart by colour, dash and mark, so that no one of them has to be seen.
DASHES = ('', '6 3', '2 3', '9 3 2 3', '', '6 3', '2 3', '9 3 2 3')
VOID = ('input', 'img', 'wbr')    # elements without content or end
WIDTH, HEIGHT = 420, 240          # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 24, 40

STYLE = '''
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --muted: #55606e;
  --rule: #dfe4ea; --tint: #f3f6f9; --link: #14599d; --gain: #2166ac; --loss: #b8452c;
  --s0: #14599d; --s1: #b8452c; --s2: #00766c; --s3: #84419a; --s4: #7a5c00; --s5: #55606e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e4e9ee;
  --muted: #a3aebb; --rule: #343c46; --tint: #1d232a; --link: #8fc1ee; --gain: #7db4e6;
  --loss: #f0937c; --s0: #7db4e6; --s1: #f0937c; --s2: #52c7b8; --s3: #d3a0e3;
  --s4: #dcbc55; --s5: #b5bec9; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans",
  sans-serif; overflow-wrap: break-word; }
body > * { max-width: 76rem; margin-inline: auto; padding-inline: clamp(1rem, 4vw, 2.5rem); }
header { padding-top: 2.5rem; }
footer { padding-block: 2rem 3rem; color: var(--muted); font-size: .875rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.25rem); line-height: 1.15; letter-spacing: -.015em;
  margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.4rem; line-height: 1.25; letter-spacing: -.01em; margin: 0 0 .5rem;
  padding-top: 2.75rem; }
h3 { font-size: 1.05rem; line-height: 1.3; margin: 1.75rem 0 .35rem; }
p, ul.notes { max-width: 68ch; margin: 0 0 1rem; text-wrap: pretty; }
a { color: var(--link); text-underline-offset: .15em; }
code { font: .9em ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.muted, figcaption, caption { color: var(--muted); }
nav ul { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; padding: 0;
  margin: 1.25rem 0 0; font-size: .95rem; }
nav a { display: inline-block; padding: .3rem 0; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.75rem; margin: 1.5rem 0 .75rem; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.figures dt { color: var(--muted); font-size: .9rem; line-height: 1.35; max-width: 15rem; }
.figures dd { margin: 0; font-size: 2.1rem; line-height: 1.15; font-weight: 650;
  letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.missing { border-left: .25rem solid var(--loss); background: var(--tint); margin: 1.5rem 0;
  padding: .75rem 1rem; max-width: 76ch; }
.missing h2 { padding: 0; font-size: 1.05rem; }
.missing ul { margin: 0; padding-left: 1.1rem; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0 0 1.25rem; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible, input:focus-visible {
  outline: .15rem solid var(--link); outline-offset: .15rem; }
table { border-collapse: collapse; font-size: .92rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .5rem; font-size: .9rem; }
caption span { display: inline-block; position: sticky; left: 0;
  max-width: min(68ch, calc(100vw - 2rem)); }
th, td { padding: .38rem .6rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { padding-left: 0; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom;
  border-bottom: 2px solid var(--rule); white-space: normal; }
wbr { display: none; }
th.tight { white-space: nowrap; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--paper); }
.word { text-align: left; }
td.long { white-space: normal; min-width: 16rem; max-width: 30rem; color: var(--muted);
  font-size: .85rem; overflow-wrap: anywhere; }
.bar { display: inline-block; vertical-align: middle; position: relative; width: 3.5rem;
  height: .7rem; margin-right: .35rem; background: linear-gradient(var(--muted), var(--muted))
  center / 1px 100% no-repeat; }
.bar i { position: absolute; top: 0; height: 100%; }
.up i { left: 50%; background: var(--gain); }
.down i { right: 50%; background: var(--loss); }
.grid { display: grid; gap: 1.5rem 2rem; margin: 0 0 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.grid.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.grid.charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 31rem)); }
.grid > * { min-width: 0; }
figure { margin: 0; }
figcaption { font-size: .875rem; line-height: 1.45; margin-top: .35rem; }
figcaption strong { color: var(--ink); }
svg.chart { display: block; width: 100%; max-width: 31rem; height: auto; overflow: visible; }
svg text { font-size: 12.5px; fill: var(--muted); font-variant-numeric: tabular-nums; }
svg text.name { fill: var(--ink); font-weight: 600; font-size: 13px; }
svg .rule { stroke: var(--rule); } svg .axis { stroke: var(--muted); }
svg .mark { stroke: var(--muted); stroke-dasharray: 2 2; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
''' + ''.join(f'.s{i} {{ stroke: var(--s{i}); fill: var(--s{i}); }}\n' for i in range(6)) + '''
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; list-style: none; padding: 0;
  margin: .35rem 0 0; font-size: .875rem; line-height: 1.45; }
.legend svg { width: 36px; height: 12px; vertical-align: -1px; margin-right: .35rem; }
.picture img { display: block; max-width: 100%; height: auto; background: #fff; }
.zoom { margin-right: .4rem; }
.zoom:checked ~ .scroll img { max-width: none; }
.grid > figure:has(.zoom:checked) { grid-column: 1 / -1; }
.clip figcaption span { display: block; }
.clip img { display: block; width: 100%; height: auto; background: var(--tint); }
details { margin: 0 0 1rem; } summary { cursor: pointer; padding: .3rem 0; color: var(--link); }
@media (max-width: 40rem) { table { font-size: .85rem; } th, td { padding: .35rem .45rem; }
  tbody th { white-space: normal; max-width: 8.5rem; } wbr { display: inline; }
  .bar { width: 3rem; } }
@media print { body > * { max-width: none; } figure, tr { break-inside: avoid; } }
'''


class Raw(str):
    """HTML already: not to be escaped again."""


def text(value):
    """HTML of a text, a number or a Raw."""
    return value if isinstance(value, Raw) else Raw(html.escape(str(value)))


def join(parts, between=''):
    return Raw(between.join(text(part) for part in parts))


def element(name, *content, **attributes):
    """<name attributes>content</name>; class_ stands for class, aria_label for aria-label."""
    given = ''.join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
                    for key, value in attributes.items() if value is not None)
    if name in VOID:
        return Raw(f'<{name}{given}>')
    return Raw(f'<{name}{given}>{join(content)}</{name}>')


def page(title, body):
    """The whole document."""
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f'<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
            f'<body>\n{body}\n</body>\n</html>\n')


def table(caption, header, rows, words=(), long=(), heads=0):
    """A table that scrolls in its own box where it is wider than the page.

    Args:
        caption (str): says what is counted, by what, and n.
        header: list of str.
        rows: lists of cells.
        words, long: names of columns that hold words, and of those that may break lines.
        heads (int): column that names its row.
    """
    def cell(i, value):
        kind = ('word ' * (header[i] in words or header[i] in long or i == heads)
                + 'long' * (header[i] in long)).strip() or None
        if i == heads:
            return element('th', camel(value), scope='row', class_=kind)
        return element('td', value, class_=kind)
    titles = [element('th', name, scope='col', class_=' '.join(
        ['word'] * (name in words or name in long or i == heads)
        + ['tight'] * (len(name) <= 10)) or None) for i, name in enumerate(header)]
    lines = [element('tr', *(cell(i, value) for i, value in enumerate(row))) for row in rows]
    whole = element('table', element('caption', element('span', caption)),
                    element('thead', element('tr', *titles)),
                    element('tbody', join(lines, '\n')))
    # tabindex: a keyboard must reach what has to be scrolled.
    return element('div', whole, class_='scroll', tabindex=0, role='region', aria_label=caption)


def camel(value):
    """Lets a name such as HandstandPushups break before a capital, where room is short."""
    return Raw(re.sub('(?<=[a-z])(?=[A-Z])', '<wbr>', text(value)))


def bar(value, largest):
    """A bar to the right (gain) or to the left (loss); the number stands beside it in text."""
    share = 50 * min(1, abs(value) / largest) if largest else 0
    return Raw(f'<span class="bar {"up" if value > 0 else "down"}" aria-hidden="true">'
               f'<i style="width:{share:.1f}%"></i></span>')


def picture(data, kind, alt, **attributes):
    """An <img> with its bytes inside; kind: 'png' or 'jpeg'."""
    source = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    given = ''.join(f' {key}="{html.escape(str(value))}"' for key, value in attributes.items())
    return Raw(f'<img src="{source}" alt="{html.escape(alt)}"{given}>')


# ------------------------------------------------------------------------ charts

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
               mark=None):
    """A line chart as inline SVG: it takes the page's colours, light or dark.

    Args:
        name (str): what the upright axis shows, with its unit.
        alt (str): the chart in one sentence.
        series: list of (name, number of its colour and mark, xs, ys); ys may hold None.
        largest: top of the upright axis; by default the largest y.
        x_ticks: numbers on the lower axis; by default round ones.
        log (bool): logarithmic lower axis, from 1.
        mark: an x to be marked by an upright line.
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
