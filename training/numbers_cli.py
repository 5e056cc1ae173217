"""Numbers of the command line that more than one command takes."""

import argparse


def positive(text: str) -> int:
    """A whole number of 1 or more, as argparse's `type`."""
    return _whole(text, 1, 2**31 - 1)


def seed(text: str) -> int:
    """What numpy and scikit-learn take as a seed, as argparse's `type`."""
    return _whole(text, 0, 2**32 - 1)


def _whole(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from {least} to {most}")
    return value
