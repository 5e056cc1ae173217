"""`genu-train embed`: a cohort's knees through a frozen backbone."""

import argparse
from pathlib import Path
from typing import Any

from inference.errors import UsageError
from training import export_names, slice_cli
from training.numbers_cli import positive
from training.progress_cli import Said


def add_command(commands: Any) -> None:
    """Register the command."""
    embed = commands.add_parser(
        "embed", help="embed the knees of a cohort with a frozen backbone; goes on where it stopped"
    )
    embed.add_argument("--cohort", type=Path, help="folder with cohort.parquet")
    embed.add_argument("--export", type=export_names.named, help="the DICOM export that the cohort was made of")
    slice_cli.add_embed_options(embed)
    embed.add_argument(
        "--backbone",
        required=True,
        help="efficientnet_b0, convnext_small, mobilenetv2_100, rad_dino, biomedclip, or genu_kl (the KL bundle's own)",
    )
    embed.add_argument(
        "--weights",
        default=None,
        help="folder with safetensors, the quantised .tflite, or OWNER/NAME[@REVISION] on the hub; of genu_kl "
        "BUNDLE[#MEMBER] (default: the usual)",
    )
    embed.add_argument("--out", type=Path, required=True, help="folder of the embeddings; also their cache")
    embed.add_argument(
        "--features",
        choices=("pooled", "layers", "patches"),
        default="pooled",
        help="besides the pooled vector: means of the last layers, or patch tokens (default: pooled)",
    )
    embed.add_argument("--batch", type=int, default=32, help="knees of one forward (default: 32)")
    embed.add_argument("--workers", type=int, default=2, help="decode processes, 0 for none (default: 2)")
    embed.add_argument("--device", choices=("cpu", "cuda"), default=None, help="default: a GPU where there is one")
    embed.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the forward (default: fp32)"
    )
    embed.add_argument(
        "--threads", type=positive, default=None, help="torch threads of the forward (default: torch's choice)"
    )
    embed.set_defaults(run_command=_embed)


def _embed(options: argparse.Namespace) -> None:
    if options.prepared is not None:
        slice_cli.embed(options)
        return
    if options.cohort is None or options.export is None:
        raise UsageError("give --cohort and --export for radiographs, or --prepared for slices of MR series.")
    import torch

    from training.embed import EmbedPlan, embed

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    plan = EmbedPlan(
        cohort=options.cohort,
        export=options.export,
        out=options.out,
        backbone=options.backbone,
        weights=options.weights,
        batch=options.batch,
        workers=options.workers,
        device=options.device,
        precision=options.precision,
        features=options.features,
    )
    report = embed(plan, Said())
    if report.torn:
        print(f"{len(report.torn)} torn shard(s) made again: {', '.join(report.torn)}")
    rate = report.knees / max(report.seconds, 1e-9)
    print(
        f"{report.knees} knees in {report.seconds:.1f} s ({rate:.1f} knees/s): {report.embedded} embedded in "
        f"{report.batches} batches, {report.cached} there already, {report.failed} in {options.out / 'failures.csv'}"
    )
