"""Layers and optimizers made fast, for any Chainer program."""
