"""The small set with its flow, small too: what the stages of --stream flow need."""
import shutil

import numpy

import helperFunctions as hf
from engine.video.decode import Frames
from smallSet import run_stage, vgg_set

SIZE = ('--size', '64x48')


def make_flow_set(small_set, root):
    """Makes a root of clips, lists, VGG.model and flow; returns it."""
    vgg_set(small_set, root)
    for part in (1, 2):
        done = run_stage('opticalFlow.py', part, '--parts', 2, '--root', root, *SIZE)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def own(root, target):
    """A root whose flow and clips may be changed."""
    shutil.copytree(root, target)
    return target


def clips_of(root):
    lists = hf.read_lists(root)
    return lists.train + lists.test


def flow_files(root):
    return {path.name: path.read_bytes() for path in (root / 'UCF-101_flow').rglob('*.mkv')}


def frames_of(path, size):
    return numpy.concatenate(list(Frames(path, size)))
