"""What bundles of all tasks do as they are loaded: files that are what bundle.json says, and a probe to replay."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from inference.bundle_files import AnyManifest
from inference.errors import BundleError

Tensors = dict[str, torch.Tensor]


def device_of(name: str | None) -> torch.device:
    """ "cpu" or "cuda"; None takes a GPU when there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def stored_tensors(manifest: AnyManifest, *more: str) -> tuple[Tensors, ...]:
    """The weights, the probe, and `more` files of a bundle, after all that it lists have the hashes it says.

    Raises:
        BundleError: a file is missing, changed or no safetensors.
    """
    manifest.verify_files()
    try:
        return tuple(load_file(manifest.folder / name) for name in ("weights.safetensors", "probe.safetensors", *more))
    except (OSError, SafetensorError) as error:
        raise BundleError(f"the weights of {manifest.folder} cannot be read: {error}.") from error


def check_replayed(manifest: AnyManifest, difference: float, answers: str, unit: str = "") -> None:
    """Hold the largest difference between stored and found answers against what the bundle allows.

    Args:
        manifest: of the bundle.
        difference: in the unit of the answers.
        answers: what they are, in the plural.
        unit: of the answers, for the message.

    Raises:
        BundleError: it is larger, or no number.
    """
    if not difference <= manifest.probe_tolerance:
        raise BundleError(
            f"the bundle {manifest.name} {manifest.version} does not replay its probe: {answers} differ by "
            f"{difference:.4f}{unit and ' '}{unit}, {manifest.probe_tolerance} is allowed. Do not use it here; check "
            "the versions of torch and timm against the bundle's."
        )
