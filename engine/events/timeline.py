"""A picture of events over time: of each film what is true above what was said."""
from engine.drawing.plotstyle import FAINT, INK, MUTED, width_of

# Told apart by colour-blind readers, too (Okabe and Ito), and a few more; classes beyond are grey.
COLOURS = ('#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#f0e442', '#333333',
           '#8c6bb1', '#a6761d', '#66a61e', '#e7298a')
SIDE, BAR, FILM, TOP, LINE, BOTTOM = 9.0, 0.2, 0.62, 0.6, 0.24, 0.55  # inches
MOST_LETTERS = 30  # of a film's name


def timeline_figure(title, films, classes):
    """Draws the events of films as a Figure.

    Args:
        films: [(name, seconds, truth, predicted)], the last two lists of (label, start, stop).
        classes: names of the labels.
    """
    from matplotlib.figure import Figure
    names = [name if width_of(name) <= MOST_LETTERS else name[:MOST_LETTERS - 1] + '\u2026'
             for name, *_ in films]
    left = 0.75 + 0.085 * max(map(width_of, names))
    width = left + SIDE + 0.2
    cell = 0.5 + 0.09 * max(map(width_of, classes))
    across = max(1, int((width - 0.4) / cell))
    top = TOP + LINE * -(-len(classes) // across)
    height = top + FILM * len(films) + BOTTOM
    figure = Figure(figsize=(width, height), facecolor='white')
    figure.text(0.2 / width, 1 - 0.27 / height, title, va='center', fontsize=13, color=INK,
                weight='bold')
    legend = figure.add_axes((0, 1 - top / height, 1, (top - TOP + LINE / 2) / height))
    legend.set(xlim=(0, width), ylim=(top, TOP - LINE / 2))
    legend.axis('off')
    for number, name in enumerate(classes):
        x, y = 0.2 + cell * (number % across), TOP + LINE * (number // across)
        legend.broken_barh([(x, 0.16)], (y - 0.08, 0.16), color=colour(number))
        legend.text(x + 0.24, y, name, va='center', fontsize=9, color=INK)
    axes = figure.add_axes((left / width, BOTTOM / height, SIDE / width,
                            FILM * len(films) / height))
    for row, (name, (_, seconds, truth, predicted)) in enumerate(zip(names, films)):
        _draw_film(axes, row, name, seconds, {'true': truth, 'said': predicted})
    axes.set(xlim=(0, max(seconds for _, seconds, *_ in films)), ylim=(len(films), 0), yticks=[])
    axes.set_xlabel('seconds', fontsize=10, color=MUTED)
    axes.tick_params(axis='x', length=3, colors=MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _draw_film(axes, row, name, seconds, said):
    """Draws the two bars of a film, one below the other, and their names on the left."""
    place = axes.get_yaxis_transform()
    for number, (word, events) in enumerate(said.items()):
        y, tall = row + (0.08 + (BAR + 0.03) * number) / FILM, BAR / FILM
        axes.broken_barh([(0, seconds)], (y, tall), color=FAINT, linewidth=0)
        for label, start, stop in events:
            axes.broken_barh([(start, stop - start)], (y, tall), color=colour(label), linewidth=0)
        axes.text(-0.06 / SIDE, y + tall / 2, word, ha='right', va='center', fontsize=8,
                  color=MUTED, transform=place)
    axes.text(-0.45 / SIDE, row + (0.095 + BAR) / FILM, name, ha='right', va='center',
              fontsize=9.5, color=INK, transform=place)


def colour(label):
    return COLOURS[label] if label < len(COLOURS) else MUTED
