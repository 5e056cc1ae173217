"""Make the reader of burned-in side letters: `genu-train markers --run RUN --out inference/bundles/markers`.

Letters, words and shapes are drawn around pieces of real knees (`training.marker_films`); the places that the reader
itself finds on such windows are what the network learns from. The threshold is chosen on films of other patients.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch.nn import functional

from inference.glyphs import ENLARGED, LONGER, Boxes, Places, find, shrunk
from inference.markers import CLASSES, FLIPPED, NOTHING, TEXT, MarkerNet, MarkerReader, classified, letters
from inference.sides import Letter
from training.halves import rounded, stored
from training.marker_films import Glyph, MarkedFilm, make_film
from training.marker_fonts import fonts

Crops = npt.NDArray[np.uint8]
Say = Callable[[str], None]

WINDOW = (320, 384)  # rows, columns of the pieces of films that are drawn for training
BATCH = 256
_RATE = 2e-3
_THRESHOLDS = np.arange(0.0, 12.25, 0.25)
_ALLOWED = 0.0025  # of the tune films may be read wrongly


@dataclass(frozen=True)
class Figures:
    """How films were read: readable letters, how many of them were read; films, and those with any wrong reading."""

    readable: int
    read: int
    films: int
    wrong: int

    @property
    def recall(self) -> float:
        """Of the readable letters."""
        return self.read / max(1, self.readable)

    @property
    def wrong_fraction(self) -> float:
        """Of the films."""
        return self.wrong / max(1, self.films)


@dataclass(frozen=True, eq=False)
class Examples:
    """What the reader found on windows: patches (N, 2, P, P) float16, and classes (N,)."""

    patches: npt.NDArray[np.float16]
    kinds: npt.NDArray[np.int64]


def examples(crops: Crops, windows: int, seed: int, fonts_: Sequence[str], say: Say = lambda _: None) -> Examples:
    """Draw windows around pieces of knees (N, S, S) and label what the reader finds on them."""
    rng = np.random.default_rng(seed)
    patches, kinds = [], []
    for number in range(windows):
        film = make_film(crops, WINDOW, rng, fonts_, busy=1.7)
        places = find((film.pixels * 255 + 0.5).astype(np.uint8), tallest=100)
        found = labelled(places.boxes, film.glyphs)
        kept = found >= 0
        patches.append(places.patches[kept].astype(np.float16))
        kinds.append(found[kept])
        if (number + 1) % 1000 == 0:
            say(f"{number + 1} of {windows} windows drawn")
    return Examples(np.concatenate(patches), np.concatenate(kinds))


def labelled(boxes: Boxes, glyphs: Sequence[Glyph]) -> npt.NDArray[np.int64]:
    """The class of each place (N,); -1 where it is hard to say, such as two thirds of a letter."""
    kinds = np.full(len(boxes), NOTHING, np.int64)
    if not glyphs or not len(boxes):
        return kinds
    true = np.asarray([glyph.box for glyph in glyphs], np.float64)
    low, high = np.maximum(boxes[:, None, :2], true[None, :, :2]), np.minimum(boxes[:, None, 2:], true[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    own, theirs = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None], (true[:, 2:] - true[:, :2]).prod(axis=1)[None]
    overlap = both / np.maximum(own + theirs - both, 1e-6)
    covered = both / np.maximum(theirs, 1e-6)
    best = overlap.argmax(axis=1)
    for number, nearest in enumerate(best):
        amount = overlap[number, nearest]
        if amount >= 0.7:
            kinds[number] = glyphs[nearest].kind
        elif (covered[number] > 0.8).sum() > 1:
            kinds[number] = TEXT
        elif amount > 0.3:
            kinds[number] = -1
    return kinds


def fit(data: Examples, steps: int, seed: int, say: Say = lambda _: None) -> MarkerNet:
    """Train a network from nothing; the same examples and seed give the same one on the same machine."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = MarkerNet().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.1)
    counts = np.bincount(data.kinds, minlength=len(CLASSES)).astype(np.float64)
    chances = np.cumsum((np.maximum(counts, 1) ** -0.5)[data.kinds])
    exchanged, total = torch.tensor(FLIPPED), 0.0
    for step in range(steps):
        rows = np.searchsorted(chances, rng.random(BATCH) * chances[-1])
        patches = torch.from_numpy(data.patches[rows].astype(np.float32))
        kinds = torch.from_numpy(data.kinds[rows])
        turned = torch.from_numpy(rng.random(BATCH) < 0.5)
        patches = torch.where(turned[:, None, None, None], patches.flip(-1), patches)
        kinds = torch.where(turned, exchanged[kinds], kinds)
        loss = functional.cross_entropy(net(patches), kinds, label_smoothing=0.002)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if (step + 1) % 250 == 0:
            say(f"step {step + 1} of {steps}: loss {total / 250:.4f}")
            total = 0.0
    return ready(net)


def ready(net: MarkerNet) -> MarkerNet:
    """As a bundle stores it, ready to run."""
    return rounded(net).to(memory_format=torch.contiguous_format).requires_grad_(False)  # type: ignore[call-overload,no-any-return]


def films(crops: Crops, count: int, seed: int, fonts_: Sequence[str]) -> Iterator[MarkedFilm]:
    """Films of many sizes for figures."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        longer = int(rng.choice([512, 900, 1024, 1400, 2200], p=[0.15, 0.2, 0.45, 0.1, 0.1]))
        shape = (longer, int(longer * rng.uniform(0.6, 1.0)))
        shape = shape if rng.random() < 0.8 else (shape[1], shape[0])
        unit = longer / min(LONGER, ENLARGED * longer)
        yield make_film(crops, shape, rng, fonts_, unit=unit, busy=1.5)


@dataclass(frozen=True, eq=False)
class Seen:
    """What is on a film, and what the network says of its places: any threshold can be tried on it."""

    glyphs: tuple[Glyph, ...]
    places: Places
    logs: npt.NDArray[np.float32]
    shape: tuple[int, ...]


def look(net: MarkerNet, film: MarkedFilm) -> Seen:
    """All of a reading that is the same for every threshold."""
    places = find(shrunk(film.pixels))
    logs = classified(net, places.patches)
    return Seen(film.glyphs, replace(places, patches=places.patches[:0]), logs, film.pixels.shape)


def measure(seen: Sequence[Seen], threshold: float) -> Figures:
    """Compare what is read with what was drawn."""
    judged = [judge(each, letters(each.places, each.logs, threshold)) for each in seen]
    readable = sum(sum(glyph.marks and glyph.readable for glyph in each.glyphs) for each in seen)
    return Figures(readable, sum(read for read, _ in judged), len(seen), sum(bool(wrong) for _, wrong in judged))


def judge(seen: Seen, found: Sequence[Letter]) -> tuple[int, list[Letter]]:
    """How many readable letters were read, and what was read although it is not there or is something else."""
    rows, columns = seen.shape
    read, wrong = 0, []
    for letter in found:
        x, y = letter.across * columns, letter.down * rows
        here = [g for g in seen.glyphs if g.box[0] <= x <= g.box[2] and g.box[1] <= y <= g.box[3]]
        right = [g for g in here if g.marks and CLASSES[g.kind] == named(letter)]
        read += any(glyph.readable for glyph in right)
        if not right:
            wrong.append(letter)
    return read, wrong


def named(letter: Letter) -> str:
    """Its class."""
    return ("mirrored " if letter.mirrored else "") + letter.side.value


def choose_threshold(seen: Sequence[Seen], say: Say = lambda _: None) -> float:
    """The lowest log-odds at which hardly a tune film is read wrongly."""
    for threshold in _THRESHOLDS:
        figures = measure(seen, float(threshold))
        say(
            f"threshold {threshold:.2f}: recall {figures.recall:.3f}, wrong on {figures.wrong} of {figures.films} films"
        )
        if figures.wrong_fraction <= _ALLOWED:
            return float(threshold)
    return float(_THRESHOLDS[-1])


def write_bundle(net: MarkerNet, threshold: float, probe: Examples, made: dict[str, Any], folder: Path) -> MarkerReader:
    """Write the three files and load them again. `made` says how it came about."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(stored(net), folder / "weights.safetensors")
    patches = torch.from_numpy(probe.patches[:64])
    probabilities = torch.from_numpy(np.exp(classified(net, patches.float().numpy())))
    save_file({"patches": patches, "probabilities": probabilities}, folder / "probe.safetensors")
    files = ("weights.safetensors", "probe.safetensors")
    values = {
        "classes": list(CLASSES),
        "threshold": threshold,
        "probe_tolerance": 0.01,
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        "made": made,
    }
    (folder / "markers.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return MarkerReader.load(folder)


@dataclass(frozen=True)
class Plan:
    """How much is drawn and trained."""

    windows: int = 6500
    steps: int = 2600
    tune_films: int = 800
    seed: int = 0


def make(crops: Crops, tune_crops: Crops, plan: Plan, folder: Path, say: Say = lambda _: None) -> MarkerReader:
    """Draw, train, choose the threshold, write the bundle. Crops uint8 (N, S, S) of different patients."""
    data = examples(crops, plan.windows, plan.seed, fonts(), say)
    say(", ".join(f"{name} {int((data.kinds == kind).sum())}" for kind, name in enumerate(CLASSES)))
    net = fit(data, plan.steps, plan.seed, say)
    seen = [look(net, film) for film in films(tune_crops, plan.tune_films, plan.seed + 1, fonts())]
    threshold = choose_threshold(seen, say)
    figures = measure(seen, threshold)
    made = {"plan": asdict(plan), "licence": "Apache-2.0", "tune": asdict(figures)}
    chosen = np.concatenate([np.flatnonzero(data.kinds == kind)[:10] for kind in range(len(CLASSES))])
    return write_bundle(net, threshold, Examples(data.patches[chosen], data.kinds[chosen]), made, folder)


def report(reader: MarkerReader, crops: Crops, count: int, seed: int) -> Iterator[str]:
    """The figures of a reader on made films around crops uint8 (N, S, S) that it has not seen, line by line."""
    for held_out in (False, True):
        drawn = films(crops, count, seed, fonts(held_out=held_out))
        figures = measure([look(reader.net, film) for film in drawn], reader.threshold)
        yield (
            f"films with {'fonts held out' if held_out else 'the fonts of training'}: recall {figures.recall:.3f} of "
            f"{figures.readable} readable letters, wrong on {figures.wrong} of {figures.films} films"
        )
    read = sum(bool(reader.read(crop.astype(np.float32) / 255)) for crop in crops)
    yield f"letters read on {read} of {len(crops)} plain crops; threshold {reader.threshold}, {reader.digest[:12]}"
