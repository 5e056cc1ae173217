"""Frozen embeddings of a cohort's knees: `genu-train embed`.

A knee's vectors are kept under the hashes of its pixels, of the preprocessing and of the weights. What is there is not
computed again, neither after a kill nor in a second run; any change of one of the three is a miss.
"""

import csv
import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from inference.backbones import entry, network_input
from inference.bert import describe
from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.frozen import Features, FrozenBackbone
from inference.preprocess import PreprocessSpec
from training.embed_decode import prepared
from training.embed_knees import KneeRow, PreparedKnee, films, read_cohort
from training.embed_shards import Record, Shards
from training.embed_weights import load_weights
from training.embeddings import KEYS, SPEC, TEXTS, EmbeddingSpec, shard_folder

__all__ = ["PRECISIONS", "EmbedPlan", "EmbedReport", "describe", "embed"]

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_SHARD_BYTES = 64 << 20
_SHARD_KNEES = 2048
_SHARD_SECONDS = 60.0  # of work that a kill may cost
_FAILURES = ("knee", "SOPInstanceUID", "side", "code", "reason")
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class EmbedPlan:
    """What `embed` is asked for.

    cohort: folder of cohort.parquet. export: the DICOM export. out: folder of the embeddings.
    backbone, weights: as for `load_weights`. batch: knees of one forward. workers: decode processes, 0 for none.
    device: "cpu" or "cuda"; None takes a GPU when there is one. precision: of the forward. features: what is kept.
    crop: how knees are cut out; None for the defaults at the size that the backbone sees.
    """

    cohort: Path
    export: Path
    out: Path
    backbone: str
    weights: str | None = None
    batch: int = 32
    workers: int = 2
    device: str | None = None
    precision: str = "fp32"
    features: Features = "pooled"
    crop: PreprocessSpec | None = None


@dataclass
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
    if not plan.export.is_dir():
        raise DataError(f"{plan.export} is not a folder: name the DICOM export that the cohort was made of.")
    backbone, called = load_weights(plan.backbone, plan.weights)
    spec = specification(plan, backbone, called)
    plan.out.mkdir(parents=True, exist_ok=True)
    with _alone(plan.out):
        began = time.monotonic()
        shards = Shards.open(shard_folder(plan.out, spec))
        run = _Run(plan, backbone.to(device), spec, device, shards)
        run.report.knees, run.report.torn = len(rows), tuple(shards.torn)
        done = 0
        for knees in prepared(films(plan.export, rows, spec.crop, shards.known()), plan.workers):
            for knee in knees:
                run.take(knee)
            done += len(knees)
            if progress is not None:
                progress(done, len(rows), len(run.failures))
        run.finish()
        _write_texts(backbone, spec, shards.folder / TEXTS)
        _publish(plan.out, rows, run)
        run.report.seconds = time.monotonic() - began
    return run.report


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


@dataclass(eq=False)
class _Run:
    """The way of knees from crops to shards; holds one batch and one shard at most."""

    plan: EmbedPlan
    backbone: FrozenBackbone
    spec: EmbeddingSpec
    device: torch.device
    shards: Shards
    report: EmbedReport = field(default_factory=EmbedReport)
    failures: list[tuple[KneeRow, str, str]] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)  # knee -> key
    _batch: list[tuple[Record, npt.NDArray[np.uint8]]] = field(default_factory=list)
    _pending: set[str] = field(default_factory=set)
    _records: list[Record] = field(default_factory=list)
    _parts: list[dict[str, npt.NDArray[np.floating]]] = field(default_factory=list)
    _rows: int = 0
    _bytes: int = 0
    _since: float = field(default_factory=time.monotonic)

    def take(self, knee: PreparedKnee) -> None:
        """One knee: known, refused, or on its way to the network."""
        name = knee.row.knee
        if knee.code:
            self._fail(knee.row, knee.code, knee.reason)
            if knee.source:
                self._records.append(Record(name, knee.source, "", "", -1, knee.code, knee.reason))
        elif knee.crop is None:
            known = self.shards.outcomes[name, knee.source]
            self.report.cached += not known.code
            if known.code:
                self._fail(knee.row, known.code, known.reason)
            else:
                self.found[name] = known.key
        else:
            key = hashlib.sha256(f"{knee.pixels}\n{self.spec.digest}".encode()).hexdigest()
            self.found[name] = key
            if key in self.shards.places or key in self._pending:
                self.report.cached += 1
                self._records.append(Record(name, knee.source, knee.pixels, key, -1))
            else:
                self._pending.add(key)
                self._batch.append((Record(name, knee.source, knee.pixels, key, 0), knee.crop))
        if len(self._batch) >= self.plan.batch:
            self._forward()
        full = self._bytes >= _SHARD_BYTES or len(self._records) >= _SHARD_KNEES
        if full or time.monotonic() - self._since > _SHARD_SECONDS:
            self._flush()

    def finish(self) -> None:
        """The last batch and the last shard."""
        self._forward()
        self._flush()

    def _fail(self, row: KneeRow, code: str, reason: str) -> None:
        self.report.failed += 1
        self.failures.append((row, code, reason))

    def _forward(self) -> None:
        if not self._batch:
            return
        crops = torch.from_numpy(np.stack([crop for _, crop in self._batch]))[:, None]
        dtype = PRECISIONS[self.plan.precision]
        with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            images = network_input(crops.to(self.device).float() / 255, self.spec.input)
            tensors = self.backbone.features(images, self.plan.features)
        part = {name: _stored(name, values) for name, values in tensors.items()}
        if not all(np.isfinite(values).all() for values in part.values()):
            raise DataError(
                f"{self.plan.backbone} gave values beyond its precision, {self.plan.precision}: use another."
            )
        self._parts.append(part)
        for record, _ in self._batch:
            self._records.append(Record(record.knee, record.source, record.pixels, record.key, self._rows))
            self._rows += 1
        self._bytes += sum(values.nbytes for values in part.values())
        self.report.embedded += len(self._batch)
        self.report.batches += 1
        self._batch = []

    def _flush(self) -> None:
        if self._records:
            names = self._parts[0] if self._parts else {}
            self.shards.write(self._records, {name: np.concatenate([p[name] for p in self._parts]) for name in names})
        self._records, self._parts, self._rows, self._bytes = [], [], 0, 0
        self._pending = {record.key for record, _ in self._batch}
        self._since = time.monotonic()


def _stored(name: str, values: torch.Tensor) -> npt.NDArray[np.floating]:
    """Tokens in half precision, all else in single."""
    return np.asarray(values.to(torch.float16 if name == "patches" else torch.float32).cpu().numpy())


def _device(plan: EmbedPlan) -> torch.device:
    if plan.batch < 1 or plan.workers < 0:
        raise UsageError(f"--batch {plan.batch} --workers {plan.workers}: at least 1, and at least 0.")
    if plan.precision not in PRECISIONS:
        raise UsageError(f"--precision {plan.precision}: one of {', '.join(PRECISIONS)}.")
    device = torch.device(plan.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here.")
    if device.type == "cpu" and plan.precision == "fp16":
        raise UsageError("--precision fp16 needs a GPU; on a processor take bf16 or fp32.")
    return device


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; a killed one leaves no lock behind."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"another run is at work in {folder}: wait for it, or name another folder.") from error
        yield


def _write_texts(backbone: FrozenBackbone, spec: EmbeddingSpec, path: Path) -> None:
    """The ten descriptions, float32 (2 sides, 5 grades, width), once."""
    if backbone.text is None:
        return
    try:
        if load_file(path)["texts"].shape == (2, 5, spec.width):
            return
    except (OSError, SafetensorError, KeyError):
        pass  # not there, or torn
    texts = backbone.describe_all([describe(side, kl) for side in Side for kl in range(5)])
    part = path.with_suffix(".part")
    save_file({"texts": texts.cpu().numpy().reshape(2, 5, -1)}, part)
    part.replace(path)


def _publish(out: Path, rows: list[KneeRow], run: _Run) -> None:
    """keys.parquet and failures.csv of this cohort, spec.json last: with it the folder is finished."""
    keys = [
        {"knee": row.knee, "key": key, "shard": place[0], "row": place[1]}
        for row in rows
        if (key := run.found.get(row.knee)) is not None
        for place in (run.shards.places[key],)
    ]
    schema = pa.schema([("knee", pa.string()), ("key", pa.string()), ("shard", pa.string()), ("row", pa.int32())])
    (out / SPEC).unlink(missing_ok=True)
    part = out / "keys.part"
    pq.write_table(pa.Table.from_pylist(keys, schema=schema), part)
    part.replace(out / KEYS)
    with (out / "failures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_FAILURES)
        failures = sorted(run.failures, key=lambda failure: failure[0].knee)
        writer.writerows([row.knee, row.sop_instance_uid, row.side, code, reason] for row, code, reason in failures)
    (out / "spec.part").write_text(json.dumps(run.spec.to_json(), indent=2) + "\n", encoding="utf-8")
    (out / "spec.part").replace(out / SPEC)
