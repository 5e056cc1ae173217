"""`genu-train embed --prepared` and `genu-train fit --cohort --slices`: knee MRI by slices."""

import argparse
import sys
from pathlib import Path

from inference.errors import UsageError

SEQUENCES = ("COR_IW_TSE", "SAG_IW_TSE", "SAG_3D_DESS")


def add_embed_options(embed: argparse.ArgumentParser) -> None:
    """Of `embed`, beside those for radiographs."""
    embed.add_argument("--prepared", type=Path, help="folder of `genu-train preprocess`: embed slices of MR series")


def add_fit_options(fit: argparse.ArgumentParser) -> None:
    """Of `fit`, in a group of their own."""
    group = fit.add_argument_group("knee MRI (--cohort with --slices)")
    group.add_argument("--slices", type=Path, help="slice features of `genu-train embed --prepared`")
    group.add_argument("--sequence", choices=SEQUENCES, default="COR_IW_TSE", help="(default: COR_IW_TSE)")
    group.add_argument(
        "--bidirectional", action="store_true", help="read slices both ways, for whole volumes (SAG_3D_DESS)"
    )
    group.add_argument("--networks", type=int, default=3, help="seeds that are averaged (default: 3)")


def embed(options: argparse.Namespace) -> None:
    """Embed prepared slices.

    Raises:
        UsageError: options for radiographs were given too.
        DataError, BundleError: slices or weights cannot be read.
    """
    import torch

    from training.embed_weights import load_weights
    from training.prepared import PreparedStore
    from training.progress_cli import Said
    from training.slice_store import embed_slices

    if options.cohort is not None or options.export is not None:
        raise UsageError("--prepared already names what is embedded: leave --cohort and --export out.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    backbone, called = load_weights(options.backbone, options.weights)
    said = Said("series")
    computed, there = embed_slices(
        PreparedStore(options.prepared), backbone, called, options.out, batch=options.batch, device=options.device,
        progress=lambda done, all_: said(done, all_, 0),
    )  # fmt: skip
    made = " (random weights: synthetic)" if backbone.synthetic else ""
    print(f"{computed} series embedded, {there} there already, in {options.out}{made}")


def fit(options: argparse.Namespace) -> None:
    """Fit what the command line asks for.

    Raises:
        UsageError, DataError: as `training.slice_run.create`.
    """
    from training import slice_run
    from training.cv_cli import refuse_systems
    from training.slice_fit import SliceFitConfig
    from training.slice_systems import chosen_systems

    if options.cohort is None:
        raise UsageError("--slices needs --cohort: the labels are in its cohort.parquet.")
    refuse_systems(options, "of systems on radiographs: leave these out with --slices.", export=True)
    target = options.target or "progression_abs"
    wanted = chosen_systems(target, options.systems)
    run = slice_run.create(
        options.run, options.cohort, options.slices, target=target, sequence=options.sequence, folds=options.folds,
        seed=options.seed, bidirectional=options.bidirectional, config=SliceFitConfig(seeds=options.networks),
        synthetic=options.synthetic, command=options.words,
    )  # fmt: skip
    knees = run.knees()
    left_out = "".join(f", {count} {why} left out" for why, count in run.left_out.items() if count)
    shares = ", ".join(f"{int((knees['truth'] == n).sum())} {name}" for n, name in enumerate(run.classes))
    _say(f"{len(knees)} rows of {knees['PatientID'].n_unique()} patients in {run.folds} folds: {shares}{left_out}")
    run = slice_run.fit_systems(run, wanted, _say)
    print(f"{len(run.systems)} systems in {run.folder}: {', '.join(run.systems)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
