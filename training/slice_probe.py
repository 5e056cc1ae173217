"""The stored probe of an MRI bundle: a drawn knee and made people, always the same. No patient is in it."""

import numpy as np
import numpy.typing as npt

from inference.mr_sequences import MRSequence
from inference.volumes import VolumeSpec
from training.synth_oai_scene import Look, draw

SLICES = 8  # at most: as many as the turbo spin echoes have; a network reads any number
_FIELD_MM = 140.0
_DEPTH_MM = 40.0  # between the outermost slices
# In the units of inference.mr_findings.ClinicalValue.
_PERSON = {
    "age": 62.0, "sex": 1.0, "bmi": 28.5, "height": 1.68, "weight": 80.0, "mjsw": 3.9, "kl": 2.0, "womac_pain": 4.0,
    "injury": 0.0, "surgery": 0.0,
}  # fmt: skip


def probe_slices(spec: VolumeSpec) -> npt.NDArray[np.float16]:
    """A drawn knee as prepared slices, float16 (S, size, size), 0..1, S at most 8, of the spec's sequence."""
    rng = np.random.default_rng(0)
    look = Look(lesion=0.6, space=3.5, effusion=0.4, size=1.0, bias=(0.0,) * 6, noise=0.01)
    along = np.linspace(-_FIELD_MM / 2, _FIELD_MM / 2, spec.size, dtype=np.float32)
    down, across = np.meshgrid(-along, along, indexing="ij")
    count = min(SLICES, spec.slices)
    slices = []
    for place in np.linspace(-_DEPTH_MM / 2, _DEPTH_MM / 2, count, dtype=np.float32):
        depth = np.full_like(down, place)
        coronal = spec.sequence is MRSequence.COR_IW_TSE
        points = np.stack([across, depth, down] if coronal else [depth, across, down])
        slices.append(draw(points, spec.sequence.name, look, rng))
    values = np.stack(slices)
    low, high = np.percentile(values, (spec.low, spec.high))
    stretched = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(stretched, np.float16)


def probe_clinical(names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """float32 (3, C): everything known, nothing known (NaN), every other one known."""
    known = np.array([_PERSON[name] for name in names], np.float32)
    nothing = np.full_like(known, np.nan)
    some = np.where(np.arange(len(names)) % 2 == 0, known, nothing)
    return np.stack([known, nothing, some])
