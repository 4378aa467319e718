"""Reads a page of HTML as a test needs it."""
from html.parser import HTMLParser

VOID = {'meta', 'img', 'input', 'br', 'wbr', 'link', 'hr'}


class Page(HTMLParser):
    """Checks that elements are closed in order; keeps tables, text and attributes."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.tables, self.words = [], [], {}, []
        self.feed(html)
        self.close()
        assert not self.open
        self.text = ' '.join(' '.join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'table':
            self.caption, self.rows = '', []
        elif tag == 'tr':
            self.rows.append([])
        elif tag in ('th', 'td'):
            self.rows[-1].append('')

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f'</{tag}> closes another element'
        if tag == 'table':
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        if 'style' in self.open:
            return
        self.words.append(data)
        if 'caption' in self.open:
            self.caption += data
        elif {'th', 'td'} & set(self.open):
            self.rows[-1][-1] += data

    def table(self, begins):
        return next(rows for caption, rows in self.tables.items() if caption.startswith(begins))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
