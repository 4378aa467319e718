"""Pictures of confusion matrices and gains."""
import numpy as np
import pytest
from matplotlib.image import imread

from engine.drawing import plotstyle
from engine.reporting.matrixplots import confusion_figure, gain_figure
from predictionSet import CLASSES, MATRIX_A, is_drawn


@pytest.mark.parametrize('size', [1, 2, 8, 101])
def test_figures_draw(tmp_path, size):
    random = np.random.default_rng(size)
    classes = [f'Class{i:03d}WithALongName' for i in range(size)]
    a = np.diag(np.full(size, 20)) + random.integers(0, 2, (size, size))
    b = np.diag(np.full(size, 20)) + random.integers(0, 2, (size, size))
    order = 'similar' if size == 101 else 'list'
    plotstyle.save(tmp_path / 'm.png', confusion_figure, a, classes, 'title', order)
    plotstyle.save(tmp_path / 'g.png', gain_figure, list(range(size))[:20], a, b, classes,
               ('a', 'b'), 'title')
    assert is_drawn(tmp_path / 'm.png') and is_drawn(tmp_path / 'g.png')


def test_classes_neither_shown_nor_said_are_left_out(tmp_path):
    matrix = np.zeros((101, 101), int)
    matrix[:3, :3] = MATRIX_A
    classes = CLASSES + [f'Class{i}' for i in range(98)]
    plotstyle.save(tmp_path / 'few.png', confusion_figure, matrix, classes, 'title')
    plotstyle.save(tmp_path / 'three.png', confusion_figure, MATRIX_A, CLASSES, 'title')
    assert (imread(tmp_path / 'few.png') == imread(tmp_path / 'three.png')).all()
