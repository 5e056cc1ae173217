"""What the knee finder can do, on made films of knees it has not learnt from: thresholds and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.finder import Finder, FinderNet, Sighting, Sightings, Thresholds
from training.filmmaking import Placed
from training.finder_films import Sample, draw_sample

Image = npt.NDArray[np.float32]
Crops = npt.NDArray[np.uint8]

EXTENT = 512  # pixels of the made films
_NEAR = 0.3  # of the knee's size: what is found farther away is another knee
_ALMOST = 0.99  # share of knees without metal or cast that must stay below the limits
_MOST_FALSE = 0.003  # share of films without a knee on which one may be seen
_NOTHING = Thresholds(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class _Seen:
    """Scores of everything, pooled over films."""

    matched: list[tuple[Sighting, Placed]] = field(default_factory=list)
    truths: list[dict[str, bool]] = field(default_factory=list)
    missed: int = 0
    false_on_knees: list[float] = field(default_factory=list)
    false_elsewhere: list[float] = field(default_factory=list)
    turned: list[tuple[float, bool]] = field(default_factory=list)
    other_view: list[tuple[float, bool]] = field(default_factory=list)


def choose_thresholds(net: FinderNet, crops: Crops, others: Sequence[Image], films: int, seed: int = 5) -> Thresholds:
    """Limits from made films of held-back patients.

    A knee's limit lets at most 0.3 % of films without a knee show one, and lies no lower than half of the lowest score
    of a knee; those of metal, cast, turned films and other views let at most 1 % of ordinary knees be refused.
    """
    seen = _look(Finder(net, _NOTHING, ""), crops, others, films, seed)
    scores = np.asarray([sighting.score for sighting, _ in seen.matched] or [0.0])
    false = np.asarray(seen.false_elsewhere or [0.0])
    knee = max(float(np.quantile(false, 1 - _MOST_FALSE)) + 0.02, float(np.quantile(scores, 0.002)) / 2)
    return Thresholds(
        knee=min(knee, 0.6),
        turned=_above([score for score, is_so in seen.turned if not is_so]),
        other_view=_above([score for score, is_so in seen.other_view if not is_so]),
        metal=_above(_of(seen, "metal", so=False)),
        cast=_above(_of(seen, "cast", so=False)),
    )


def measure(
    net: FinderNet, thresholds: Thresholds, crops: Crops, others: Sequence[Image], films: int, seed: int = 6
) -> dict[str, Any]:
    """Figures on made films of `crops` and on real images without a knee; errors are fractions of the crop's size."""
    finder = Finder(net, thresholds, "")
    seen = _look(finder, crops, (), films, seed)
    real = [_best(finder.look(image)) for image in others]
    knees = len(seen.matched) + seen.missed
    found = [(sighting, placed) for sighting, placed in seen.matched if sighting.score >= thresholds.knee]
    away = [_distance(sighting, placed) / placed.size for sighting, placed in found]
    scale = [abs(sighting.size / placed.size - 1) for sighting, placed in found]
    false = [score for score in seen.false_elsewhere if score >= thresholds.knee]
    return {
        "films": films,
        "film_pixels": EXTENT,
        "knees": knees,
        "recall": len(found) / max(1, knees),
        "centre_error_percentiles_50_95": _percentiles(away),
        "scale_error_percentiles_50_95": _percentiles(scale),
        "tilt_error_degrees_percentiles_50_95": _percentiles([abs(s.tilt - p.tilt) for s, p in found]),
        "fibula_side_right": _share([(s.fibula_right > 0.5) == (p.lateral > 0) for s, p in found]),
        "fibula_side_sure": _share([abs(s.fibula_right - 0.5) > 0.4 for s, _ in found]),
        "fibula_side_sure_and_wrong": _share(
            [abs(s.fibula_right - 0.5) > 0.4 and (s.fibula_right > 0.5) != (p.lateral > 0) for s, p in found]
        ),
        "inversion_right": _share(
            [(s.inverted > 0.5) == t["inverted"] for (s, _), t in zip(seen.matched, seen.truths, strict=True)]
        ),
        "further_knees_a_film": len([score for score in seen.false_on_knees if score >= thresholds.knee]) / films,
        "films_without_knee": len(seen.false_elsewhere),
        "false_knees": len(false) / max(1, len(seen.false_elsewhere)),
        "real_images_without_knee": len(real),
        "false_knees_real": _share([score >= thresholds.knee for score in real]),
        "highest_score_real": max(real, default=0.0),
        "turned_found": _share([score >= thresholds.turned for score, is_so in seen.turned if is_so]),
        "other_view_found": _share([score >= thresholds.other_view for score, is_so in seen.other_view if is_so]),
        "other_view_false": _share([score >= thresholds.other_view for score, is_so in seen.other_view if not is_so]),
        **{
            f"{name}_{'found' if so else 'false'}": _share(
                [score >= getattr(thresholds, name) for score in _of(seen, name, so=so)]
            )
            for name in ("metal", "cast")
            for so in (True, False)
        },
    }


def _look(finder: Finder, crops: Crops, others: Sequence[Image], films: int, seed: int) -> _Seen:
    seen = _Seen()
    rng = np.random.default_rng(seed)
    for _ in range(films):
        sample = draw_sample(crops, others, rng, EXTENT)
        _compare(sample, finder.look(sample.film), seen)
    return seen


def _compare(sample: Sample, found: Sightings, seen: _Seen) -> None:
    if sample.other_view or not sample.knees:
        seen.false_elsewhere.append(_best(found))
        seen.other_view.append((found.other_view, sample.other_view))
        return
    seen.turned.append((found.turned, sample.turned > 0))
    if sample.turned:
        return
    seen.other_view.append((found.other_view, False))
    left = list(found.knees)
    for knee in sample.knees:
        near = min(left, key=lambda s: _distance(s, knee.placed), default=None)
        if near is None or _distance(near, knee.placed) > _NEAR * knee.placed.size:
            seen.missed += 1
            continue
        left.remove(near)
        seen.matched.append((near, knee.placed))
        seen.truths.append({"metal": knee.metal, "cast": knee.cast, "inverted": sample.inverted})
    seen.false_on_knees += [sighting.score for sighting in left]


def _of(seen: _Seen, name: str, *, so: bool) -> list[float]:
    pairs = zip(seen.matched, seen.truths, strict=True)
    return [float(getattr(sighting, name)) for (sighting, _), truth in pairs if truth[name] is so]


def _above(scores: Sequence[float]) -> float:
    """A limit above almost all scores of ordinary knees, no lower than a half."""
    return min(0.98, max(0.5, float(np.quantile(np.asarray(scores or [0.0]), _ALMOST)) + 0.01))


def _best(found: Sightings) -> float:
    return max((sighting.score for sighting in found.knees), default=0.0)


def _distance(sighting: Sighting, placed: Placed) -> float:
    return float(np.hypot(sighting.x - placed.x, sighting.y - placed.y))


def _percentiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.percentile(np.asarray(values or [float("nan")]), (50, 95))]


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
