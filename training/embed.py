"""Frozen embeddings of a cohort's knees: `genu-train embed`.

A knee's vectors are kept under the hashes of its pixels, of the preprocessing and of the weights. What is there is not
computed again, neither after a kill nor in a second run; any change of one of the three is a miss.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from inference.backbones import entry, network_input
from inference.bert import describe
from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.frozen import Features, FrozenBackbone
from inference.preprocess import PreprocessSpec
from training.embed_knees import KneeRow, read_cohort
from training.embed_shards import Shards
from training.embed_weights import load_weights
from training.embeddings import (
    KEYS,
    SENTENCES,
    SPEC,
    TEXTS,
    EmbeddingSpec,
    read_texts,
    sentences_digest,
    shard_folder,
)
from training.export_names import Export
from training.knee_work import Compute, KneeWork, Progress, alone, check_work, write_failures

__all__ = ["PRECISIONS", "EmbedPlan", "EmbedReport", "describe", "embed"]

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EmbedPlan:
    """What `embed` is asked for.

    cohort: folder of cohort.parquet. export: the DICOM export. out: folder of the embeddings.
    backbone, weights: as for `load_weights`. batch: knees of one forward. workers: decode processes, 0 for none.
    device: "cpu" or "cuda"; None takes a GPU when there is one. precision: of the forward. features: what is kept.
    crop: how knees are cut out; None for the defaults at the size that the backbone sees.
    """

    cohort: Path
    export: Export
    out: Path
    backbone: str
    weights: str | None = None
    batch: int = 32
    workers: int = 2
    device: str | None = None
    precision: str = "fp32"
    features: Features = "pooled"
    crop: PreprocessSpec | None = None


@dataclass(frozen=True)
class EmbedReport:
    """What was done. `embedded` knees went through the network in `batches`; `cached` ones were there already.

    `torn` names shards that were not believed and made again; `seconds` without the loading of the weights.
    """

    knees: int = 0
    embedded: int = 0
    cached: int = 0
    failed: int = 0
    batches: int = 0
    seconds: float = 0.0
    torn: tuple[str, ...] = ()


def embed(plan: EmbedPlan, progress: Progress | None = None) -> EmbedReport:
    """Embed a cohort into `plan.out`, going on where an earlier run stopped.

    Args:
        plan: what is asked for.
        progress: called with knees done, knees in all, and failures among them.

    Raises:
        UsageError: a number or the precision makes no sense here; DataError: no cohort, no export, or another run is at
            work in the folder; BundleError: the weights; ResourceError: memory, disk, or a worker that was ended.
    """
    device = _device(plan)
    rows = read_cohort(plan.cohort)
    backbone, called = load_weights(plan.backbone, plan.weights)
    spec = specification(plan, backbone, called)
    with alone(plan.out):
        began = time.monotonic()
        shards = Shards.open(shard_folder(plan.out, spec))
        work = KneeWork(shards, spec.digest, _compute(plan, backbone.to(device), device), plan.batch)
        work.run(plan.export, rows, spec.crop, plan.workers, progress)
        _write_texts(backbone, spec, shards.folder / TEXTS)
        _publish(plan.out, rows, work, spec)
        return EmbedReport(
            knees=len(rows),
            embedded=work.computed,
            cached=work.cached,
            failed=len(work.failures),
            batches=work.batches,
            seconds=time.monotonic() - began,
            torn=tuple(shards.torn),
        )


def specification(plan: EmbedPlan, backbone: FrozenBackbone, called: str) -> EmbeddingSpec:
    """What a plan and loaded weights give."""
    terms = entry(plan.backbone).terms
    return EmbeddingSpec(
        backbone=plan.backbone,
        weights=called,
        weights_digest=backbone.digest,
        crop=plan.crop or crop_of(backbone),
        input=backbone.input,
        features=plan.features,
        precision=plan.precision,
        width=backbone.width,
        synthetic=backbone.synthetic,
        licence=terms.licence,
        deployed_use=terms.deployed,
        texts=backbone.text is not None,
    )


def crop_of(backbone: FrozenBackbone) -> PreprocessSpec:
    """How knees are cut out for a backbone: its own way, or the defaults at the size that it sees."""
    size = backbone.input.size
    return backbone.crop or PreprocessSpec(crop_size=size, size=(size, size))


def _compute(plan: EmbedPlan, backbone: FrozenBackbone, device: torch.device) -> Compute:
    def forward(crops: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.floating]]:
        dtype = PRECISIONS[plan.precision]
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            images = network_input(torch.from_numpy(crops)[:, None].to(device).float() / 255, backbone.input)
            tensors = backbone.features(images, plan.features)
        part = {name: _stored(name, values) for name, values in tensors.items()}
        if not all(np.isfinite(values).all() for values in part.values()):
            raise DataError(f"{plan.backbone} gave values beyond its precision, {plan.precision}: use another.")
        return part

    return forward


def _stored(name: str, values: torch.Tensor) -> npt.NDArray[np.floating]:
    """Tokens in half precision, all else in single."""
    return np.asarray(values.to(torch.float16 if name == "patches" else torch.float32).cpu().numpy())


def _device(plan: EmbedPlan) -> torch.device:
    check_work(plan.batch, plan.workers)
    if plan.precision not in PRECISIONS:
        raise UsageError(f"--precision {plan.precision}: one of {', '.join(PRECISIONS)}.")
    device = torch.device(plan.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here.")
    if device.type == "cpu" and plan.precision == "fp16":
        raise UsageError("--precision fp16 needs a GPU; on a processor take bf16 or fp32.")
    return device


def _write_texts(backbone: FrozenBackbone, spec: EmbeddingSpec, path: Path) -> None:
    """The ten descriptions, float32 (2 sides, 5 grades, width), once for each wording of them."""
    if backbone.text is None:
        return
    try:
        there, sentences = read_texts(path)
        if there.shape == (2, 5, spec.width) and sentences == sentences_digest():
            return
    except (OSError, SafetensorError):
        pass  # not there, or torn
    texts = backbone.describe_all([describe(side, kl) for side in Side for kl in range(5)])
    part = path.with_suffix(".part")
    save_file({"texts": texts.cpu().numpy().reshape(2, 5, -1)}, part, {SENTENCES: sentences_digest()})
    part.replace(path)


def _publish(out: Path, rows: list[KneeRow], work: KneeWork, spec: EmbeddingSpec) -> None:
    """keys.parquet and failures.csv of this cohort, spec.json last: with it the folder is finished."""
    keys = [
        {"knee": row.knee, "key": key, "shard": place[0], "row": place[1]}
        for row in rows
        if (key := work.found.get(row.knee)) is not None
        for place in (work.shards.places[key],)
    ]
    schema = pa.schema([("knee", pa.string()), ("key", pa.string()), ("shard", pa.string()), ("row", pa.int32())])
    (out / SPEC).unlink(missing_ok=True)
    part = out / "keys.part"
    pq.write_table(pa.Table.from_pylist(keys, schema=schema), part)
    part.replace(out / KEYS)
    write_failures(out / "failures.csv", work.failures)
    (out / "spec.part").write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")
    (out / "spec.part").replace(out / SPEC)
