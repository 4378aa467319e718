"""A strip of the top classes over time, with frames of the video above: what predict.py saw."""
import numpy
from numpy import ma

from engine.drawing import plotstyle
from engine.drawing.fonts import drawable
from engine.drawing.plotstyle import FAINT, INK, MUTED

ROWS = 8  # classes at most: those with the highest mean probability
# Inches: the strip is so wide, a class so tall, a method's name above takes GAP.
SIDE, RIGHT, CELL, GAP, TOP, BOTTOM = 8.0, 0.95, 0.3, 0.42, 0.62, 0.62


def draw_strip(path, *arguments):
    """Writes what strip_figure draws as PNG."""
    plotstyle.save(path, strip_figure, *arguments, dpi=150)


def strip_figure(title, classes, methods, zones, frames, aspect):
    """Draws the top classes over time, with frames of the video above, as a Figure.

    Args:
        classes: names of all classes.
        methods: {name: ((n, C) log probability of each window, (C,) of the whole video)}.
        zones: [(from, to, window or None)], seconds, one behind the other; None where no
            window looked.
        frames: [(seconds, (S, S, 3) uint8 BGR)] to be shown above.
        aspect: width of the video over its height.
    """
    from matplotlib.figure import Figure
    share = numpy.mean([numpy.exp(logs).mean(axis=0) for logs, _ in methods.values()], axis=0)
    best = numpy.argsort(-share, kind='stable')[:ROWS]
    names = [classes[label] for label in best]
    start = zones[0][0]
    end = max(zones[-1][1], start + 1e-3)
    edges = numpy.array([*(begin for begin, _, _ in zones), end])
    chosen = [window for _, _, window in zones]
    count = max(1, min(len(frames), round(SIDE / (0.9 * aspect))))
    film = min(SIDE / count / aspect, 1.4) if frames else 0.0
    left, block = 0.35 + 0.085 * max(map(plotstyle.width_of, names)), CELL * len(best) + GAP
    width, height = left + SIDE + RIGHT, TOP + film + block * len(methods) + BOTTOM
    figure = Figure(figsize=(width, height), facecolor='white')

    def add_axes(x, y, wide, tall):
        return figure.add_axes((x / width, 1 - (y + tall) / height, wide / width, tall / height))

    def write(x, y, text, **how):
        figure.text(x / width, 1 - y / height, text, va='center', **how)
    write(0.2, 0.27, drawable(title), fontsize=13, color=INK, weight='bold')
    if frames:
        wanted = (numpy.arange(count) + 0.5) / count * (end - start) + start
        _draw_film(add_axes(left, TOP, SIDE, film), frames, wanted,
                   min(1.0, film * aspect * count / SIDE))
    for number, (name, (logs, whole)) in enumerate(methods.items()):
        y = TOP + film + GAP + number * block
        axes = add_axes(left, y, SIDE, block - GAP)
        shares = ma.array([numpy.exp(logs[window or 0][best]) for window in chosen],
                          mask=[[window is None] * len(best) for window in chosen])
        image = _draw_classes(axes, edges, shares, names)
        for row, label in enumerate(best):
            first = label == whole.argmax()
            axes.text(1 + 0.12 / SIDE, row + 0.5, f'{100 * numpy.exp(whole[label]):.1f} %',
                      transform=axes.get_yaxis_transform(), va='center', fontsize=9.5,
                      color=INK if first else MUTED, weight='bold' if first else 'normal')
        last = number == len(methods) - 1
        axes.tick_params(axis='x', length=3 if last else 0, labelbottom=last, colors=MUTED)
        write(left, y - 0.15, name, fontsize=10, color=MUTED)
        write(left + SIDE + 0.12, y - 0.15, 'whole', fontsize=10, color=MUTED)
    axes.set_xlabel('seconds' + ' (hatched: no window looked)' * (None in chosen), fontsize=10,
                    color=MUTED)
    bar = add_axes(left + SIDE - 1.6, 0.21, 1.6, 0.1)
    figure.colorbar(image, cax=bar, orientation='horizontal').outline.set_visible(False)
    bar.set_xticks([0, 0.5, 1], ['0', '50', '100 %'], fontsize=8, color=MUTED)
    bar.tick_params(length=0, pad=2)
    return figure


def _draw_film(axes, frames, wanted, wide):
    """Draws the frames nearest to the wanted moments side by side, each so wide a share of its
    place."""
    moments = numpy.array([moment for moment, _ in frames])
    for place, moment in enumerate(wanted):
        picture = frames[int(abs(moments - moment).argmin())][1][..., ::-1]
        axes.imshow(picture, extent=(place + 0.5 - wide / 2, place + 0.5 + wide / 2, 0, 1),
                    aspect='auto', interpolation='bilinear')
    axes.set(xlim=(0, len(wanted)), ylim=(0, 1))
    axes.axis('off')


def _draw_classes(axes, edges, shares, names):
    """Draws (n, classes) probability between n + 1 edges, hatched where it is masked; returns
    the mesh."""
    image = axes.pcolormesh(edges, numpy.arange(len(names) + 1), shares.T, vmin=0, vmax=1,
                            cmap=plotstyle.shares_map())
    for begin, end, unseen in zip(edges, edges[1:], ma.getmaskarray(shares)[:, 0]):
        if unseen:
            axes.axvspan(begin, end, facecolor='white', edgecolor=MUTED, hatch='////', linewidth=0)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(len(names), 0))
    axes.set_yticks(numpy.arange(len(names)) + 0.5, names, fontsize=9.5)
    axes.set_yticks(numpy.arange(1, len(names)), minor=True)
    axes.grid(which='minor', axis='y', color=FAINT, linewidth=0.6)
    axes.tick_params(which='both', length=0, pad=5, colors=INK)
    for spine in axes.spines.values():
        spine.set(color=MUTED, linewidth=0.8)
    return image
