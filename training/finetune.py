"""A network fine-tuned end to end on a run's folds: the system `convnext` of `genu-train fit --cohort`.

For each fold it learns from the other folds, an inner split of their patients choosing the epoch, and predicts the fold
that was left out. Then it learns from all knees, for the median number of epochs. All of it goes on where it stopped.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning_fabric import Fabric

from inference.backbones import entry
from inference.errors import DataError, UsageError
from inference.frozen import FrozenBackbone
from training.embed import crop_of
from training.embed_knees import read_rows
from training.embed_weights import load_weights
from training.fabric_checkpoints import SafetensorsIO
from training.final_head import FINAL, JSON, FinalHead, read_head
from training.finetune_data import Floats, Samples, inner_split
from training.finetune_final import trunk_of, write_final
from training.finetune_fit import STATE, FineTuning, Fitted, Recipe, ScoreNet
from training.finetune_results import FoldResult, predictions, read_fold, write_curves, write_fold
from training.folds import check_folds, check_pixels
from training.knee_crops import KneeCrops, gather
from training.knee_work import alone
from training.predictions import Predictions, write_predictions

PRECISIONS: Mapping[str, Any] = {"fp32": "32-true", "bf16-mixed": "bf16-mixed", "fp16-mixed": "16-mixed"}
LOSSES = ("mse", "huber")
INNER = 0.15  # of the patients of the training folds, for early stopping
_EVERY = 10.0  # seconds
Say = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneOptions:
    """What `finetune` is asked for.

    export: the DICOM export of the run's cohort. backbone, weights: as for `genu-train embed`; a convolutional one.
    recipe: how it is trained. precision: "fp32", "bf16-mixed", or "fp16-mixed" on a GPU.
    device: "cpu" or "cuda"; None takes a GPU when there is one. seed: of everything that is random.
    crops: folder in which crops are kept; None for RUN/crops. workers: decode processes of the first look, 0 for none.
    """

    export: Path
    backbone: str = "convnext_small"
    weights: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    precision: str = "fp32"
    device: str | None = None
    seed: int = 0
    crops: Path | None = None
    workers: int = 0

    @property
    def system(self) -> str:
        """The system's name: "convnext", or of another backbone "finetuned_NAME"."""
        return "convnext" if self.backbone.startswith("convnext") else f"finetuned_{self.backbone}"

    def check(self) -> torch.device:
        """The device.

        Raises:
            UsageError: a value makes no sense here; says which.
        """
        recipe = self.recipe
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.precision not in PRECISIONS or recipe.loss not in LOSSES:
            raise UsageError(
                f"precision {self.precision!r}, loss {recipe.loss!r}: they are one of {', '.join(PRECISIONS)}, and one "
                f"of {', '.join(LOSSES)}."
            )
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError("the device is cuda: torch sees no GPU here.")
        if device.type == "cpu" and self.precision == "fp16-mixed":
            raise UsageError("fp16-mixed needs a GPU; on a processor take bf16-mixed or fp32.")
        if min(recipe.epochs, recipe.patience, recipe.batch) < 1 or recipe.learning_rate <= 0:
            raise UsageError("epochs, patience and batch are at least 1, and the learning rate is more than 0.")
        return device


@dataclass(frozen=True, eq=False)
class _Job:
    """All that the trainings of a run share."""

    folder: Path
    options: FinetuneOptions
    settings: Mapping[str, Any]
    start: FrozenBackbone
    called: str
    crops: KneeCrops
    fabric: Fabric
    say: Say

    def tuning(self, name: str, train: Samples, tune: Samples | None, seed: int, last: int | None = None) -> FineTuning:
        return FineTuning(
            self.fabric, self.options.recipe, self.crops, train, tune, seed, self.folder / "checkpoints" / name, last
        )

    def make(self, centre: float, spread: float) -> ScoreNet:
        dropout = self.options.recipe.dropout
        return ScoreNet(trunk_of(self.start), self.start.width, self.start.input, centre, spread, dropout)

    def fit(self, name: str, tuning: FineTuning) -> Fitted:
        def report(figures: Mapping[str, float]) -> None:
            values = ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if key != "epoch")
            self.say(f"{self.options.system} {name} epoch {figures['epoch']:.0f}: {values}")

        return tuning.run(self.make, report)


class _Told:
    """How far the cutting out is, every now and then."""

    def __init__(self, say: Say) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self, done: int, total: int, failed: int) -> None:
        if time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self._say(f"{done}/{total} knees cut out, {failed} failed")


def finetune(run: Path, options: FinetuneOptions, say: Say = lambda _: None) -> Predictions:
    """Fine-tune on the folds of a run and on all of its knees, going on where an earlier call stopped.

    Args:
        run: folder with run.json and knees.parquet (training.cv_run).
        options: what is asked for.
        say: called with a line for each epoch.

    Returns:
        The out-of-fold predictions, as written with the curves and the final network into RUN/systems/NAME. The mean is
        the network's answer, moved by the mean error of the inner validation patients for the Huber loss, which does
        not aim at the mean; the median is moved by their median error. A knee without a crop gets the mean and the
        median of the training folds, and is counted.

    Raises:
        UsageError: an option makes no sense here.
        DataError: no run, no export, a leak, another fine-tuning in the folder, or a loss that is no number any more.
        BundleError: the weights; ResourceError: memory, disk.
    """
    device = options.check()
    settings, table = _read_run(run)
    began = time.monotonic()
    start, called = load_weights(options.backbone, options.weights)
    trunk_of(start)
    crops = gather(
        options.export, read_rows(run / "knees.parquet"), crop_of(start), options.crops or run / "crops",
        workers=options.workers, progress=_Told(say),
    )  # fmt: skip
    folder = run / "systems" / options.system
    fabric = Fabric(
        accelerator=device.type, devices=1, precision=PRECISIONS[options.precision], plugins=[SafetensorsIO()]
    )
    with alone(folder):
        _same_inputs(folder, _fingerprint(options, start, crops, table))
        job = _Job(folder, options, settings, start, called, crops, fabric, say)
        samples = Samples(
            tuple(table["knee"].to_list()),
            table["truth"].to_numpy().astype(np.float64),
            tuple(table["PatientID"].cast(pl.String).to_list()),
        )
        folds = table["fold"].to_numpy().astype(np.int64)
        usable = np.array([knee in crops for knee in samples.knees])
        seen = samples.where(usable)
        check_pixels(seen.knees, seen.patients, folds[usable], crops.pixels(seen.knees))
        results = [_fold(job, samples, folds, fold) for fold in sorted(set(folds.tolist()))]
        write_curves(folder, results)
        final = _final(job, samples, results)
        found = predictions(options.system, samples, folds, results, settings["bounds"])
        about = _about(job, samples, results) | {"final": final, "seconds": round(time.monotonic() - began, 3)}
        found = Predictions(found.system, found.knees, found.folds, found.mean, found.median, about=about)
        write_predictions(run, found)
    return found


def _fold(job: _Job, samples: Samples, folds: np.ndarray[Any, Any], fold: int) -> FoldResult:
    """One fold: as it was finished before, or trained now."""
    path = job.folder / "folds" / f"fold-{fold}.json"
    done = read_fold(path)
    if done is not None:
        return done
    seed = job.options.seed * 1009 + fold
    usable = np.array([knee in job.crops for knee in samples.knees])
    train, tune = inner_split(samples.where((folds != fold) & usable), INNER, seed)
    held = samples.where((folds == fold) & usable)
    blind = samples.where((folds == fold) & ~usable)
    tuning = job.tuning(f"fold-{fold}", train, tune, seed)
    fitted = job.fit(f"fold {fold}", tuning)
    error = tune.truth - tuning.predict(fitted.net, tune.knees)
    to_mean = float(np.mean(error)) if job.options.recipe.loss == "huber" else 0.0
    to_median = float(np.median(error))
    scores = tuning.predict(fitted.net, held.knees)
    learnt = np.concatenate([train.truth, tune.truth])
    result = FoldResult(
        fold=fold,
        knees=(*held.knees, *blind.knees),
        mean=[*(scores + to_mean).tolist(), *[float(np.mean(learnt))] * len(blind)],
        median=[*(scores + to_median).tolist(), *[float(np.median(learnt))] * len(blind)],
        epoch=fitted.epoch,
        to_mean=to_mean,
        to_median=to_median,
        blind=len(blind),
        curve=fitted.curve,
    )
    write_fold(path, result)
    (tuning.folder / STATE).unlink(missing_ok=True)  # the weights of the best epoch stay
    return result


def _final(job: _Job, samples: Samples, results: list[FoldResult]) -> dict[str, Any]:
    """The network of all knees; what is finished stays."""
    folder = job.folder / FINAL
    if (folder / JSON).exists():
        return dict(read_head(folder).chosen)
    epochs = max(1, round(float(np.median([result.epoch for result in results]))))
    usable = samples.where(np.array([knee in job.crops for knee in samples.knees]))
    seed = job.options.seed * 1009 + 997
    tuning = job.tuning("final", usable, None, seed, last=epochs)
    fitted = job.fit("all knees", tuning)
    to_mean, to_median = (
        float(np.mean([getattr(result, name) for result in results])) for name in ("to_mean", "to_median")
    )
    low, high = job.settings["bounds"]
    chosen = {"epochs": epochs, "to_mean": to_mean, "to_median": to_median}
    head = FinalHead(
        kind="ridge", features="pooled", embedding=job.options.system, target=job.settings["target"],
        bounds=(low, high), unit=job.settings["unit"], knees=len(usable), patients=len(set(usable.patients)),
        tensors={}, synthetic=bool(job.settings["synthetic"] or job.start.synthetic), slope=1.0,
        intercept=to_median - to_mean, chosen=chosen,
    )  # fmt: skip
    with torch.no_grad():  # the mean error belongs to the mean, the median's is told beside it
        fitted.net.head.bias.add_(to_mean / float(fitted.net.get_buffer("spread")))
    write_final(folder, fitted.net, job.start, job.called, job.crops.spec, head)
    (tuning.folder / STATE).unlink(missing_ok=True)
    return chosen


def _about(job: _Job, samples: Samples, results: list[FoldResult]) -> dict[str, Any]:
    options, terms = job.options, entry(job.start.name).terms
    patients = dict(zip(samples.knees, samples.patients, strict=True))
    return {
        "title": f"{options.backbone}, fine-tuned",
        "kind": "system",
        "head": "fine-tuned",
        "features": None,
        "embedding": None,
        "synthetic": bool(job.settings["synthetic"] or job.start.synthetic),
        "backbone": options.backbone,
        "weights": job.called,
        "licence": terms.licence,
        "deployed_use": terms.deployed,
        "exported": True,
        "recipe": asdict(options.recipe),
        "precision": options.precision,
        "seed": options.seed,
        "without_image": sum(result.blind for result in results),
        "folds": [
            {
                "fold": result.fold,
                "knees": len(result.knees),
                "patients": len({patients[knee] for knee in result.knees}),
                "chosen": {"epochs": result.epoch, "to_mean": result.to_mean, "to_median": result.to_median},
            }
            for result in results
        ],
    }


def _read_run(run: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    try:
        settings = json.loads((run / "run.json").read_text("utf-8"))
        table = pl.read_parquet(run / "knees.parquet")
        low, high = settings["bounds"]
        settings = {
            "bounds": (float(low), float(high)),
            "target": str(settings["target"]),
            "unit": str(settings.get("unit", "")),
            "synthetic": bool(settings["synthetic"]),
        }
        check_folds(table["knee"].to_list(), table["PatientID"].to_list(), table["fold"].to_numpy().astype(np.int64))
        truth: Floats = table["truth"].to_numpy().astype(np.float64)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{run} holds no cross-validated run ({error}): make one with `genu-train fit --cohort`."
        ) from error
    if not np.isfinite(truth).all():
        raise DataError(f"{run / 'knees.parquet'} holds a knee without a target: fit into another folder.")
    return settings, table


def _fingerprint(options: FinetuneOptions, start: FrozenBackbone, crops: KneeCrops, table: pl.DataFrame) -> str:
    """SHA-256 of all that decides the answer, but for the device."""
    rows = [table[name].cast(pl.String).to_list() for name in ("knee", "PatientID", "fold", "truth")]
    parts = [asdict(options.recipe), options.precision, options.seed, start.digest, crops.digest(rows[0]), rows]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _same_inputs(folder: Path, fingerprint: str) -> None:
    """A folder is of one fine-tuning.

    Raises:
        DataError: it is of another.
    """
    path = folder / "inputs.sha256"
    if path.exists() and path.read_text("utf-8").strip() != fingerprint:
        raise DataError(
            f"{folder} holds a fine-tuning with other options, weights or knees: remove it, or use another run."
        )
    path.write_text(fingerprint + "\n", encoding="utf-8")
