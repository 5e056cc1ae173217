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
    has them), "fused" or "patches". exported: whether a final head is kept for a bundle. beside: the baseline that is
    fitted wherever this system is.
    """

    name: str
    title: str
    kind: str
    head: Head
    embedding: str | None = None
    features: str = "pooled"
    exported: bool = False
    beside: str | None = None


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


def systems(
    stores: Sequence[Store], heads: Sequence[str] | None, bounds: tuple[float, float], *, graded: bool = True
) -> tuple[System, ...]:
    """Every baseline and system that the stores allow, baselines first.

    Args:
        stores: embeddings by name.
        heads: of `HEADS`; ridge has no suffix in a system's name, any other has its own. None for ridge.
        bounds: of the target; CORN's levels are the integers within.
        graded: whether a KL grade may be seen; without one no system is there that would.

    Raises:
        UsageError: a head is none of them, has no system here, or cannot learn this target; or two systems would have
            one name, and one folder.
    """
    wanted = ("ridge",) if heads is None else heads
    unknown = sorted(set(wanted) - set(HEADS))
    if unknown:
        raise UsageError(f"there is no head {', '.join(unknown)}; there are {', '.join(HEADS)}.")
    found = [system for system in BASELINES if graded or system.name != "kl_only"]
    fitted = set()
    for store in stores:
        for head in (head for head in HEADS if head in wanted):
            made = _of(store, head, bounds, graded)
            fitted |= {head} if made else set()
            found += [system for system in made if system not in found]
    for head in (head for head in heads or () if head not in fitted):
        raise UsageError(f"--heads {head}: {_why_none(stores)}")
    names = [system.name for system in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two systems would be called {twice[0]!r}: give the embeddings another NAME.")
    return tuple(found)


def with_baselines(table: Sequence[System], names: Sequence[str] | None) -> list[str]:
    """The systems that are named (None: all), every baseline without an image, and those that stand beside the named.

    In the order of the table; a name that is not in it is left out.
    """
    wanted = {system.name for system in table} if names is None else set(names)
    wanted |= {system.beside for system in table if system.name in wanted and system.beside}
    wanted |= {system.name for system in table if system.embedding is None}
    return [system.name for system in table if system.name in wanted]


def _why_none(stores: Sequence[Store]) -> str:
    if not stores:
        return "heads are fitted on embeddings, and the run has none: give --embeddings NAME=FOLDER."
    names = ", ".join(store.name for store in stores)
    return (
        f"it needs patch tokens, and the embeddings {names} have none: run `genu-train embed` with --features patches."
    )


def _of(store: Store, head: str, bounds: tuple[float, float], graded: bool) -> list[System]:
    suffix = "" if head == "ridge" else f"_{head}"
    name, title = store.name, f"{store.backbone} embedding"
    if head == "attentive":
        if store.features != "patches":
            return []
        probe, beside = AttentiveHead(), [_image_kl(store, "ridge", bounds)] if graded else []
        with_kl = beside[0].name if beside else None
        attentive = f"{title}, attentive probe"
        return [System(f"{name}_attentive", attentive, "system", probe, name, "patches", True, with_kl), *beside]
    image, kept = _head(head, ("image",), bounds), head != "boosting"
    beside = [_image_kl(store, head, bounds)] if graded else []
    with_kl = beside[0].name if beside else None
    made = [System(f"{name}{suffix}", f"{title}, {image.name}", "system", image, name, "pooled", kept, with_kl)]
    if store.texts and graded:
        title_of_text = f"{store.backbone} image and description of the KL grade, {image.name}"
        made.append(System(f"{name}_text{suffix}", title_of_text, "system", image, name, "fused", kept, with_kl))
    made += beside
    if head == "boosting":
        every = _head(head, ("image", "grades", "people") if graded else ("image", "people"), bounds)
        seen = f"{'KL grade, ' if graded else ''}age, sex and race"
        made.append(
            System(f"all_{name}{suffix}", f"{title}, {seen}, {every.name}", "system", every, name, beside=with_kl)
        )
    return made


def _image_kl(store: Store, head: str, bounds: tuple[float, float]) -> System:
    both = _head(head, ("image", "grades"), bounds)
    name = f"image_kl_{store.name}{'' if head == 'ridge' else f'_{head}'}"
    title = f"{store.backbone} embedding and KL grade, {both.name}"
    return System(name, title, "baseline", both, store.name, exported=head != "boosting")


def _head(head: str, parts: tuple[str, ...], bounds: tuple[float, float]) -> Head:
    if head == "corn":
        corn = CornHead(parts, bounds)
        corn.levels()  # a scale that it cannot learn is said before anything is fitted
        return corn
    return BoostingHead(parts) if head == "boosting" else RidgeHead(parts)
