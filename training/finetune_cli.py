"""The options of fine-tuning in `genu-train fit --cohort --systems convnext`."""

import argparse
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.errors import DataError, UsageError

if TYPE_CHECKING:
    from training.finetune import FinetuneOptions

DEFAULTS = Path(__file__).parent / "finetune.toml"


def add_options(fit: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    group = fit.add_argument_group("fine-tuning, with --systems convnext; needs --export")
    group.add_argument(
        "--finetune-config", type=Path, default=DEFAULTS, metavar="TOML",
        help="backbone, precision and recipe (default: training/finetune.toml)",
    )  # fmt: skip
    group.add_argument(
        "--finetune-weights", metavar="WEIGHTS",
        help="what it begins with, as --weights of `genu-train embed` (default: the usual weights)",
    )  # fmt: skip
    group.add_argument("--device", choices=("cpu", "cuda"), help="of fine-tuning (default: a GPU where there is one)")
    group.add_argument("--crops", type=Path, metavar="FOLDER", help="where crops are kept (default: RUN/crops)")


def chosen(options: argparse.Namespace) -> "FinetuneOptions":
    """What the command line asks for.

    Raises:
        UsageError: no export is named; DataError: the TOML file is missing, is no TOML, or has an unknown key.
    """
    if options.export is None:
        raise UsageError("--systems convnext reads the films: name the DICOM export of the cohort with --export.")
    return read_options(
        options.finetune_config, options.export, weights=options.finetune_weights, device=options.device,
        seed=options.seed, crops=options.crops,
    )  # fmt: skip


def read_options(path: Path, export: Path, **others: Any) -> "FinetuneOptions":
    """Options of a TOML file; `others` are fields of FinetuneOptions that it does not hold.

    Raises:
        DataError: as `chosen`.
    """
    from training.augment import AugmentConfig
    from training.finetune import FinetuneOptions
    from training.finetune_data import MODEST
    from training.finetune_fit import Recipe

    try:
        values = tomllib.loads(path.read_text("utf-8"))
        recipe: Mapping[str, Any] = values.pop("recipe", {})
        augment = AugmentConfig(**{**vars(MODEST), **recipe.get("augment", {})})
        return FinetuneOptions(export, recipe=Recipe(**{**recipe, "augment": augment}), **values, **others)
    except OSError as error:
        raise DataError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error}; compare with training/finetune.toml.") from error
