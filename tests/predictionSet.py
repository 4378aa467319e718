"""Ten test clips of three classes and what two methods say of them, counted by hand."""
import numpy as np
from matplotlib.image import imread

CLASSES = ['Archery', 'Bowling', 'Diving']
SHOWN = 'AAAABBBBDD'
SAID_A = 'AABBBBBADA'
SAID_B = 'AAABBBAADD'
MATRIX_A = np.array([[2, 2, 0], [1, 3, 0], [1, 0, 1]])
MATRIX_B = np.array([[3, 1, 0], [2, 2, 0], [0, 0, 2]])


def full_name(letter):
    return next(name for name in CLASSES if name[0] == letter)


NAMES = [f'v_{full_name(letter)}_g01_c{i:02d}' for i, letter in enumerate(SHOWN)]


def one_hot(letter, classes=CLASSES, frames=2):
    share = [0.8 if name[0] == letter else 0.2 / (len(classes) - 1) for name in classes]
    return np.tile(np.float32(share), (frames, 1))


def write_lists(root, classes=CLASSES, names=NAMES):
    folder = root / 'ucfTrainTestlist'
    folder.mkdir(parents=True)
    (folder / 'classInd.txt').write_text(
        ''.join(f'{i} {name}\r\n' for i, name in enumerate(classes, 1)))
    (folder / 'testlist01.txt').write_text(
        ''.join(f'{name.split("_")[1]}/{name}.avi\r\n' for name in names))
    (folder / 'trainlist01.txt').write_text(
        ''.join(f'{name}/v_{name}_g09_c01.avi {i}\r\n' for i, name in enumerate(classes, 1)))


def is_drawn(path):
    image = imread(path)
    return min(image.shape[:2]) > 200 and image[..., :3].std() > 0.02
