"""Pieces of a self-contained HTML page: tables and pictures, no script.

Every text that comes in is escaped, except what is wrapped in Raw.
"""
import base64
import html
import math
import re

# The browser itself then refuses whatever is not inside the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
VOID = ('input', 'img', 'wbr')    # elements without content or end

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
svg.drops { display: block; width: 100%; height: 2.2rem; background: var(--tint); }
svg.drops .held { fill: var(--gain); } svg.drops .hurt { fill: var(--loss); }
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


def section(name, title, *content):
    return element('section', element('h2', title, id=name), *content)


def paragraph(*content, **attributes):
    return element('p', *content, **attributes)


def percent(share):
    return '-' if share is None or math.isnan(share) else f'{100 * share:.1f}'


def points(change, digits=1):
    """A change in percentage points, with its sign."""
    return signed(100 * change, digits)


def signed(number, digits=0):
    return f'{number:+.{digits}f}'.replace('-', '\u2212') if round(number, digits) else '0'
