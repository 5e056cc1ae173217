"""A small random bundle that goes through the real loading code, for tests and trials. Its output is no result."""

import argparse
from pathlib import Path

import torch

from inference.heads import KLGrader
from inference.preprocess import PreprocessSpec
from training.export import Parts, write_bundle


def write_random_bundle(out: Path, seed: int = 0) -> Path:
    """Write a bundle with random weights, marked synthetic, into `out` and return it."""
    torch.manual_seed(seed)
    spec = PreprocessSpec(size=(96, 96))
    model = KLGrader("mobilenetv2_035").eval()
    torch.nn.init.normal_(model.classifier.weight, std=0.05)
    write_bundle(
        Parts(
            name="genu-random",
            version="0.0.0",
            synthetic=True,
            networks=[("random", "mobilenetv2_035", spec, model)],
            temperature=1.0,
            decoder="argmax",
            metrics={},
            training={"note": f"random weights, seed {seed}; the output means nothing"},
            card="# genu-random\n\nRandom weights for tests. Its output means nothing.\n",
        ),
        out,
    )
    return out


def main() -> None:
    """`python -m training.standin OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    write_random_bundle(parser.parse_args().out)


if __name__ == "__main__":
    main()
