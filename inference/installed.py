"""The bundles of one installation, by their manifests: which there are, whether they go together. No torch."""

from collections.abc import Sequence
from pathlib import Path

from inference.bundle_files import SHIPPED, read_values
from inference.errors import BundleError
from inference.manifest import Manifest
from inference.pain_manifest import TASK, PainManifest

AnyManifest = Manifest | PainManifest


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
    raise BundleError(f"{folder} has the task {task!r}; this version of Genu serves 'kl' and 'pain'.")


def installed(folders: Sequence[Path], *, allow_undeployed: bool = False) -> tuple[AnyManifest, ...]:
    """The manifests of all bundles that serve: that of the grade first, then that of pain where there is one.

    Args:
        folders: bundle folders; the grader that ships is taken where none of them grades.
        allow_undeployed: load bundles although the terms of their weights exclude use in a running service.

    Raises:
        BundleError: a manifest cannot be read, there are two of one task, or the terms exclude it.
    """
    found = [read_manifest(folder) for folder in folders]
    if not any(isinstance(manifest, Manifest) for manifest in found):
        found = [Manifest.read(SHIPPED), *found]
    tasks = [manifest.task for manifest in found]
    twice = [task for task in dict.fromkeys(tasks) if tasks.count(task) > 1]
    if twice:
        raise BundleError(f"the bundles have the tasks {tasks}: name one bundle of the task {twice[0]!r}.")
    for manifest in found:
        if isinstance(manifest, PainManifest):
            check_terms(manifest, allow_undeployed=allow_undeployed)
    return tuple(sorted(found, key=lambda manifest: manifest.task != "kl"))


def check_terms(manifest: PainManifest, *, allow_undeployed: bool) -> None:
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
