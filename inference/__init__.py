"""Pixels in, findings out: no network, no queue, no clock. Importing this package loads no torch."""

from inference import _torchvision

_torchvision.install()
