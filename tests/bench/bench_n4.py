"""N4 as `genu-train preprocess` and the service run it, against SimpleITK's filter at full size, on the same volume.

The volume is the eight middle slices of a real sagittal DESS (../shared/data), every second pixel of them, so that
SimpleITK takes a minute and not ten; or a generated knee with a planted bias field where the DESS is missing. One
thread each, and processor time, which a busy machine disturbs least.
"""

import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from threadpoolctl import threadpool_limits

from inference.bias import BiasSpec, Volume, correct_bias, otsu
from inference.findings import Side
from inference.mr_sequences import MRSequence
from inference.mr_series import select_series
from inference.reading import group_studies
from inference.volumes import source_volume
from tests.mr_phantoms import Grid, sampled
from tests.plugin.standin import ROOT

REAL = ROOT.parent / "shared" / "data" / "dicom" / "knee_mri_sag_dess.tar.xz"
SLICES = 8
FASTER, DIFFERENCE = 8.0, 0.01  # what issue and docs promise


def measure(_bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: filter, seconds and mean difference in the knee, ratio to SimpleITK at full size.

    Raises RuntimeError when what the documentation promises does not hold.
    """
    name, volume = _volume(scratch)
    inside = volume > otsu(volume)
    seconds, full = _timed(lambda: simple_itk(volume, inside, shrink=1))
    shrunk_seconds, shrunk = _timed(lambda: simple_itk(volume, inside, shrink=4))
    ours_seconds, ours = _timed(lambda: correct_bias(volume, BiasSpec()))
    found = [difference(values, full, inside) for values in (volume, shrunk, ours)]
    if seconds / ours_seconds < FASTER or found[2] > DIFFERENCE:
        raise RuntimeError(f"N4: {seconds / ours_seconds:.1f} times faster, difference {found[2]:.2%}")
    return [
        (f"SimpleITK, full size, {name}", f"{seconds:.1f} s", "1.0"),
        (
            "SimpleITK, shrunk by 4 in the plane",
            f"{shrunk_seconds:.2f} s, differs by {found[1]:.2%}",
            f"{seconds / shrunk_seconds:.1f}",
        ),
        ("Genu", f"{ours_seconds:.2f} s, differs by {found[2]:.2%}", f"{seconds / ours_seconds:.0f}"),
        ("no correction", f"differs by {found[0]:.2%}", ""),
    ]


def simple_itk(volume: Volume, inside: npt.NDArray[np.bool_], shrink: int) -> Volume:
    """SimpleITK's filter with its own defaults (four levels of 50 iterations), shrunk in the plane."""
    image = SimpleITK.GetImageFromArray(volume)
    mask = SimpleITK.GetImageFromArray(inside.astype(np.uint8))
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    if shrink == 1:
        return np.asarray(SimpleITK.GetArrayFromImage(n4.Execute(image, mask)))
    factors = [shrink, shrink, 1]
    n4.Execute(SimpleITK.Shrink(image, factors), SimpleITK.Shrink(mask, factors))
    field = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
    return np.asarray(volume / np.exp(field), np.float32)


def difference(values: Volume, reference: Volume, inside: npt.NDArray[np.bool_]) -> float:
    """Mean relative difference inside of the mask, after one factor for the whole volume is taken out."""
    factor = reference[inside].mean() / values[inside].mean()
    return float(np.mean(np.abs(values[inside] * factor - reference[inside]) / reference[inside]))


def generated(slices: int = SLICES, size: int = 128) -> tuple[Volume, Volume]:
    """A generated knee without and with a smooth bias field, (slices, size, size)."""
    grid = Grid("sagittal", slices, size, size, 128 / size, 128 / size, 6.0)
    plain = sampled(grid, "L").astype(np.float32) + 20
    plain *= np.random.default_rng(0).normal(1, 0.03, plain.shape).astype(np.float32)
    along, down, across = np.meshgrid(*(np.linspace(-1, 1, count) for count in plain.shape), indexing="ij")
    bias = np.exp(0.35 * across - 0.25 * down**2 + 0.15 * along * down + 0.2 * np.sin(2 * across + down))
    return plain, (plain * bias).astype(np.float32)


def _volume(scratch: Path) -> tuple[str, Volume]:
    if not REAL.exists():
        return "a generated knee, 8 slices of 128 x 128", generated()[1]
    with tarfile.open(REAL) as archive:
        archive.extractall(scratch / "dess", filter="data")
    (study,) = group_studies([scratch / "dess"])
    (series,) = select_series(study.instances, MRSequence.SAG_3D_DESS, side=Side.RIGHT).chosen
    whole = source_volume(series)
    first = (len(whole) - SLICES) // 2
    return "8 slices of 256 x 256 of a real DESS", np.ascontiguousarray(whole[first : first + SLICES, ::2, ::2])


def _timed(work: Callable[[], Volume]) -> tuple[float, Volume]:
    with threadpool_limits(1):
        began = time.process_time()
        values = work()
        return time.process_time() - began, values
