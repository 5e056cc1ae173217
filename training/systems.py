"""The table of systems and baselines of a cross-validated run on radiographs: what each of them sees, and its head."""

from collections.abc import Sequence
from dataclasses import dataclass

from inference.errors import UsageError
from training.regression_attentive import AttentiveHead
from training.regression_boosting import BoostingHead
from training.regression_corn import CornHead
from training.regression_ridge import RidgeHead
from training.regression_samples import Head
from training.regression_simple import ByGrade, Constant

HEADS = ("ridge", "corn", "attentive", "boosting")


@dataclass(frozen=True)
class System:
    """One row of the table.

    embedding: name of the store whose images it sees, None for none. features: "pooled" (or "layers" where the store
    has them), "fused" or "patches". exported: whether a final head is kept for a bundle.
    """

    name: str
    title: str
    kind: str
    head: Head
    embedding: str | None = None
    features: str = "pooled"
    exported: bool = False


BASELINES = (
    System("constant_mean", "Mean of the training folds for everybody", "baseline", Constant("mean")),
    System("constant_median", "Median of the training folds for everybody", "baseline", Constant("median")),
    System("kl_only", "KL grade alone", "baseline", ByGrade()),
    System("demographics", "Age, sex and race alone", "baseline", RidgeHead(("people",))),
)


@dataclass(frozen=True)
class Store:
    """What the table has to know of an embedding store."""

    name: str
    backbone: str
    features: str
    texts: bool


def systems(stores: Sequence[Store], heads: Sequence[str], bounds: tuple[float, float]) -> tuple[System, ...]:
    """Every baseline and system that the stores allow, baselines first.

    Args:
        stores: embeddings by name.
        heads: of `HEADS`; ridge has no suffix in a system's name, any other has its own.
        bounds: of the target; CORN's levels are the integers within.

    Raises:
        UsageError: a head is none of them, or two systems would have one name, and one folder.
    """
    unknown = sorted(set(heads) - set(HEADS))
    if unknown:
        raise UsageError(f"there is no head {', '.join(unknown)}; there are {', '.join(HEADS)}.")
    found = list(BASELINES)
    for store in stores:
        for head in HEADS:
            if head in heads:
                found += _of(store, head, bounds)
    names = [system.name for system in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two systems would be called {twice[0]!r}: give the embeddings another NAME.")
    return tuple(found)


def _of(store: Store, head: str, bounds: tuple[float, float]) -> list[System]:
    suffix = "" if head == "ridge" else f"_{head}"
    name, title = store.name, f"{store.backbone} embedding"
    if head == "attentive":
        if store.features != "patches":
            return []
        probe = AttentiveHead()
        return [System(f"{name}_attentive", f"{title}, attentive probe", "system", probe, name, "patches", True)]
    image, both = _head(head, ("image",), bounds), _head(head, ("image", "grades"), bounds)
    kept = head != "boosting"
    made = [System(f"{name}{suffix}", f"{title}, {image.name}", "system", image, name, exported=kept)]
    if store.texts:
        title_of_text = f"{store.backbone} image and description of the KL grade, {image.name}"
        made.append(System(f"{name}_text{suffix}", title_of_text, "system", image, name, "fused", kept))
    made.append(
        System(f"image_kl_{name}{suffix}", f"{title} and KL grade, {both.name}", "baseline", both, name, exported=kept)
    )
    if head == "boosting":
        every = _head(head, ("image", "grades", "people"), bounds)
        made.append(
            System(f"all_{name}{suffix}", f"{title}, KL grade, age, sex and race, {every.name}", "system", every, name)
        )
    return made


def _head(head: str, parts: tuple[str, ...], bounds: tuple[float, float]) -> Head:
    if head == "corn":
        return CornHead(parts, bounds)
    return BoostingHead(parts) if head == "boosting" else RidgeHead(parts)
