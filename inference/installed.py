"""The bundles of one installation, by their manifests: which there are, whether they go together. No torch."""

from collections.abc import Sequence
from pathlib import Path

from inference.bundle_files import SHIPPED, read_values
from inference.errors import BundleError
from inference.manifest import Manifest
from inference.pain_manifest import TASK, PainManifest
from inference.slice_manifest import TASKS, SliceManifest

AnyManifest = Manifest | PainManifest | SliceManifest


def read_manifest(folder: Path) -> AnyManifest:
    """The manifest of a bundle, whatever its task.

    Raises:
        BundleError: it cannot be read, or has a task that this version of Genu does not know.
    """
    task = read_values(folder, ("format", "task", "files"), 1)[0]["task"]
    if task == TASK:
        return PainManifest.read(folder)
    if task == "kl":
        return Manifest.read(folder)
    if task in TASKS.values():
        return SliceManifest.read(folder)
    *known, last = (repr(name) for name in ("kl", TASK, *dict.fromkeys(TASKS.values())))
    raise BundleError(f"{folder} has the task {task!r}; this version of Genu serves {', '.join(known)} and {last}.")


def installed(folders: Sequence[Path], *, allow_undeployed: bool = False) -> tuple[AnyManifest, ...]:
    """The manifests of all bundles that serve: that of the grade first, then pain, then those for knee MRI.

    Args:
        folders: bundle folders; the grader that ships is taken where none of them grades. For knee MRI there may be
            any number, one for each outcome and sequence.
        allow_undeployed: load bundles although the terms of their weights exclude use in a running service.

    Raises:
        BundleError: a manifest cannot be read, two answer the same question, or the terms exclude it.
    """
    found = [read_manifest(folder) for folder in folders]
    if not any(isinstance(manifest, Manifest) for manifest in found):
        found = [Manifest.read(SHIPPED), *found]
    asked = [_question(manifest) for manifest in found]
    twice = [question for question in dict.fromkeys(asked) if asked.count(question) > 1]
    if twice:
        raise BundleError(f"{asked.count(twice[0])} bundles are {twice[0]}: name one bundle {twice[0]}.")
    for manifest in found:
        if not isinstance(manifest, Manifest):
            check_terms(manifest, allow_undeployed=allow_undeployed)
    return tuple(sorted(found, key=_order))


def reads_mr(folders: Sequence[Path]) -> bool:
    """Whether any of the bundles is one for knee MRI, so that MR images are needed whole.

    Raises:
        BundleError: a manifest cannot be read.
    """
    return any(isinstance(read_manifest(folder), SliceManifest) for folder in folders)


def _question(manifest: AnyManifest) -> str:
    """What a bundle answers; no two may answer the same."""
    if isinstance(manifest, SliceManifest):
        return f"for {manifest.target} of the {manifest.volume.sequence.wording} series"
    return f"of the task {manifest.task!r}"


def _order(manifest: AnyManifest) -> tuple[int, str, str, str]:
    if isinstance(manifest, SliceManifest):
        return 2, manifest.task, manifest.target, manifest.volume.sequence.value
    return int(isinstance(manifest, PainManifest)), "", "", ""


def check_terms(manifest: PainManifest | SliceManifest, *, allow_undeployed: bool) -> None:
    """Whether the terms of the weights let a service load the bundle.

    Raises:
        BundleError: they do not, and it was not allowed all the same.
    """
    if not manifest.deployed_use and not allow_undeployed:
        raise BundleError(
            f"{manifest.folder} rests on weights of {manifest.backbone} ({manifest.licence}), whose authors exclude "
            "use in a running service. Score with another bundle; for a study that its terms cover set "
            "allow_undeployed_bundles = true."
        )
