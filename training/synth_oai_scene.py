"""A drawn knee for MR: bones, cartilage, menisci, fluid, a bone marrow lesion, in millimetres about the joint's centre.

Coordinates are lateral, posterior, superior; a knee is not its own mirror image (the fibula is lateral, the medial
joint space is the one that narrows, the patella is in front). What is seen depends on the sequence: COR IW TSE has
bright fat and marrow, in which a lesion is dark; the two others are fat-suppressed, their lesions bright. It is a
drawing with known truth, no simulation of physics: lesions are larger and plainer than any reader meets, so that random
networks see them in a few hundred knees, and behind the clipping of preprocessing, which leaves nothing of what is
brighter than bright marrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

LESIONS = ((-15.0, 1.0, -10.0), (-14.0, -1.0, 13.0))  # centres: medial tibia and femur
LESION_RADII = (2.0, 28.0)  # mm, of no lesion's end of the scale and of a full one
_NONE = 0.02  # below this there is no lesion at all
_LATERAL_SPACE = 6.0  # mm
_TISSUES: Mapping[str, Mapping[str, float]] = MappingProxyType({
    "COR_IW_TSE": {
        "fat": 0.8, "muscle": 0.32, "marrow": 0.55, "cortex": 0.06, "cartilage": 0.45, "meniscus": 0.08, "fluid": 0.7,
        "lesion": 0.06, "tendon": 0.07,
    },
    "SAG_IW_TSE": {
        "fat": 0.16, "muscle": 0.34, "marrow": 0.2, "cortex": 0.05, "cartilage": 0.55, "meniscus": 0.1, "fluid": 0.85,
        "lesion": 0.9, "tendon": 0.05,
    },
    "SAG_3D_DESS": {
        "fat": 0.14, "muscle": 0.38, "marrow": 0.16, "cortex": 0.05, "cartilage": 0.7, "meniscus": 0.12, "fluid": 0.95,
        "lesion": 0.8, "tendon": 0.06,
    },
})  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What differs from knee to knee.

    `lesion` 0..1, medial joint space in mm, effusion 0..1 (of no effect), size (1: mean), the six coefficients of the
    bias field, noise (standard deviation as a share of full brightness).
    """

    lesion: float
    space: float
    effusion: float
    size: float
    bias: tuple[float, ...]
    noise: float

    @classmethod
    def draw(cls, lesion: float, space: float, rng: np.random.Generator) -> "Look":
        """A look with the given lesion and joint space."""
        effusion, size, noise = rng.uniform(0, 1), rng.uniform(0.93, 1.07), rng.uniform(0.02, 0.04)
        bias = tuple(float(value) for value in rng.normal(0, (0.25, 0.3, 0.3, 0.2, 0.2, 0.2)))
        return cls(lesion, space, float(effusion), float(size), bias, float(noise))


def draw(points: Array, sequence: str, look: Look, rng: np.random.Generator) -> Array:
    """Brightness 0 to about 1.5 of points (3, ...): lateral, posterior, superior, in mm; shape (...)."""
    x, y, z = (points / np.float32(look.size)).astype(np.float32)
    tissue = _TISSUES[sequence]
    image = np.zeros_like(x)
    leg = _square(x, 0, 64) + _square(y, 6, 62)
    image[leg < 1] = tissue["fat"]
    image[(leg < 0.76) & (z > -200)] = tissue["muscle"]
    femur, tibia = _femur(x, y, z, look.space), _tibia(x, y, z, look.space)
    joint = (np.abs(z) < 10) & (_square(x, 0, 44) + _square(y, 2, 30) < 1)
    image[joint] = 0.5 * (tissue["fluid"] + tissue["muscle"])
    _soft_parts(image, (x, y, z), femur, tibia, tissue, look)
    fibula = np.minimum(_fibula(x, y, z), _ellipsoid(x, y, z, (38, 16, -20), (9, 9, 8)))
    patella = _ellipsoid(x, y, z, (2, -38, 26), (20, 9, 19))
    for bone in (femur, tibia, fibula, patella):
        image[bone < 1] = tissue["cortex"]
        image[bone < 0.88] = tissue["marrow"]
    _lesions(image, (x, y, z), np.minimum(femur, tibia) < 0.9, tissue["lesion"], look)
    image *= _bias(points, look)
    image += look.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.abs(image), np.float32)


def _square(values: Array, centre: float, radius: float) -> Array:
    return np.asarray(np.square((values - np.float32(centre)) / np.float32(radius)), np.float32)


def _ellipsoid(
    x: Array, y: Array, z: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> Array:
    """Below 1 inside."""
    parts = (_square(values, c, r) for values, c, r in zip((x, y, z), centre, radii, strict=True))
    return np.asarray(sum(parts), np.float32)


def _gap(x: Array, space: float) -> Array:
    """Half the joint space in mm, medial and lateral, smoothly from one to the other."""
    lateral = np.clip((x + 6) / 12, 0, 1)
    return np.asarray(0.5 * (space + (_LATERAL_SPACE - space) * lateral), np.float32)


def _femur(x: Array, y: Array, z: Array, space: float) -> Array:
    """Two condyles, the medial one longer, and a shaft that leans; below 1 inside."""
    half = space / 2
    medial = _ellipsoid(x, y, z, (-22, 3, 21 + half), (20, 30, 21))
    lateral = _ellipsoid(x, y, z, (22, 1, 20 + _LATERAL_SPACE / 2), (19, 27, 20))
    trochlea = _ellipsoid(x, y, z, (0, -10, 30), (30, 18, 18))
    wide = 15 + 24 * np.exp(-np.square((z - 18) / np.float32(22)))
    shaft = np.square((x - np.float32(0.08) * (z - 30)) / wide) + _square(y, 0, 17)
    shaft = np.where(z > 30, shaft, np.float32(9))
    return np.asarray(np.minimum.reduce([medial, lateral, trochlea, shaft]), np.float32)


def _tibia(x: Array, y: Array, z: Array, space: float) -> Array:
    """A plateau with an eminence, tapering to a shaft; below 1 inside."""
    top = -_gap(x, space) + 6 * np.exp(-_square(x, 0, 6) - _square(y, 4, 14))
    depth = np.clip(-z, 0, None)
    wide = 15 + 27 * np.exp(-np.square(depth / np.float32(26)))
    deep = 14 + 14 * np.exp(-np.square(depth / np.float32(24)))
    inside = np.square(x / wide) + np.square((y - 2) / deep)
    edge = 1 - np.clip((top - z) / np.float32(14), 0, 1)  # the plateau's own cortex
    return np.asarray(np.where(z < top, np.maximum(inside, edge), np.float32(9)), np.float32)


def _fibula(x: Array, y: Array, z: Array) -> Array:
    return np.asarray(np.where(z < -18, _square(x, 38, 6) + _square(y, 16, 6), np.float32(9)), np.float32)


def _soft_parts(
    image: Array,
    points: tuple[Array, Array, Array],
    femur: Array,
    tibia: Array,
    tissue: Mapping[str, float],
    look: Look,
) -> None:
    """Effusion, cartilage, menisci, patellar tendon; bones are painted over them."""
    x, y, z = points
    fluid = 0.35 + 0.65 * look.effusion
    pouch = _ellipsoid(x, y, z, (0, -25, 50), (26 * fluid, 9 * fluid, 17 * fluid)) < 1
    image[pouch] = tissue["fluid"]
    near = (np.abs(z) < 26) & (femur < 1.22) & (z < 24)
    image[near] = tissue["cartilage"]
    image[(tibia > 1) & (z < 3) & (z > -8) & (_square(x, 0, 41) + _square(y, 2, 27) < 1)] = tissue["cartilage"]
    for centre in (-22.0, 22.0):
        ring = np.sqrt(_square(x, centre, 20) + _square(y, 2, 25))
        image[(ring > 0.62) & (ring < 1.02) & (np.abs(z) < 1.2 + 5 * (ring - 0.6))] = tissue["meniscus"]
    image[(np.abs(x) < 10) & (np.abs(y + 36 + 0.12 * (z + 20)) < 2.5) & (z < 10) & (z > -40)] = tissue["tendon"]


def _lesions(
    image: Array, points: tuple[Array, Array, Array], bone: npt.NDArray[np.bool_], shade: float, look: Look
) -> None:
    """Larger and stronger with `lesion`, so that clipping at a percentile leaves its area to be seen."""
    if look.lesion < _NONE:
        return
    low, high = LESION_RADII
    radius = low + (high - low) * look.lesion
    strength = np.float32(0.4 + 0.6 * look.lesion)
    for number, centre in enumerate(LESIONS):
        size = radius * (1.0 if number == 0 else 0.75)
        inside = np.clip(1.25 - _ellipsoid(*points, centre, (size, size, 0.8 * size)), 0, 1) * bone
        image += (np.float32(shade) - image) * np.minimum(inside * 2, 1) * strength


def _bias(points: Array, look: Look) -> Array:
    """The field of the coil: a smooth factor about 1, mostly between 0.5 and 2."""
    u, v, w = (points / np.float32(70)).astype(np.float32)
    a, b, c, d, e, f = look.bias
    return np.asarray(np.exp(a * u + b * v + c * w + d * u * v + e * w * w - abs(f) * u * u), np.float32)
