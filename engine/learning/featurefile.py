"""A clip's two .npy files of stage 2: its features and its frames' predictions."""
import numpy

from engine.errors import UserError
from engine.files import load_npy
from engine.variants import Names, output_path


def check_results(root, clip, n_features, n_classes, values=True, names=Names()):
    """Returns the number of frames of a clip whose two .npy files of stage 2 are well.

    With values=False their headers and lengths are read, not the numbers themselves.

    Raises:
        UserError: one is missing or damaged, holds what it should not, or they disagree.
    """
    lengths = []
    for folder, width, dtype in ((names.features, n_features, names.dtype),
                                 (names.frame_predictions, n_classes, 'float32')):
        path = output_path(root, folder, clip)
        array = load_npy(path, mmap=True)
        if array.dtype != dtype:
            raise UserError(f'{path}: holds {array.dtype}, expected {dtype}')
        if array.shape[1:] != (width,):
            raise UserError(f'{path}: shape {array.shape}, expected (frames, {width})')
        if not len(array):
            raise UserError(f'{path}: no frame')
        if values and not numpy.isfinite(array).all():
            raise UserError(f'{path}: holds a number that is not finite')
        lengths.append(len(array))
    if lengths[0] != lengths[1]:
        raise UserError(f'{clip.name}: {lengths[0]} features, {lengths[1]} predictions')
    return lengths[0]
