"""Labels a video by onnxruntime and OpenCV alone, with what exportOnnx.py wrote.

    pip install onnxruntime opencv-python-headless
    python label_with_onnx.py VGG_1024.onnx RNN.onnx VIDEO

The frames are scaled by OpenCV, not by ffmpeg as in training: features differ by some percent.
"""
import json
import sys

import cv2
import numpy
import onnxruntime

BATCH, STEPS = 16, 120  # frames at a time; steps that the RNN was trained on


def read_frames(path, side):
    """Gives the frames, (side, side, 3) BGR bytes."""
    video = cv2.VideoCapture(path)
    while True:
        there, frame = video.read()
        if not there:
            return
        yield cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)


def main(frame_network, rnn, path):
    vgg, rnn = (onnxruntime.InferenceSession(name) for name in (frame_network, rnn))
    classes = json.loads(rnn.get_modelmeta().custom_metadata_map['classes'])
    frames = numpy.array(list(read_frames(path, vgg.get_inputs()[0].shape[1])))
    if not len(frames):
        sys.exit(f'{path}: no frame could be read')
    features = numpy.concatenate([vgg.run(['feature'], {'frames': frames[i:i + BATCH]})[0]
                                  for i in range(0, len(frames), BATCH)])
    windows = -(-len(features) // STEPS)
    padded = numpy.zeros((windows * STEPS, features.shape[1]), numpy.float32)
    padded[:len(features)] = features
    mask = (numpy.arange(len(padded)) < len(features)).reshape(windows, STEPS)
    probability = rnn.run(None, {'features': padded.reshape(windows, STEPS, -1), 'mask': mask})[0]
    # one vote a video: the mean over its steps of log softmax
    score = numpy.log(numpy.maximum(probability[mask], 1e-30)).mean(axis=0)
    for label in numpy.argsort(-score)[:5]:
        print(f'{classes[label]} {numpy.exp(score[label]) / numpy.exp(score).sum():.3f}')


if __name__ == '__main__':
    main(*sys.argv[1:])
