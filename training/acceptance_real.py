"""Real images in the acceptance set: films that we know, and DICOM objects that show no frontal knee.

The latter go in as they are, and once more with their pixels under a header that says KNEE AP L.
"""

import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image as Pictures

from inference.errors import DataError, RefusalError
from inference.findings import RefusalCode, Side
from inference.pixels import load_display
from inference.reading import read_instance
from training import acceptance_films as films
from training.acceptance import FILMS, TrueFilm, write_film
from training.acceptance_dicom import Encoding, Header
from training.acceptance_films import Picture, There
from training.acceptance_kinds import CONTRADICTORY, UNKNOWN, Film, refused, scored
from training.acceptance_unfit import lying

# By file name: whose knees are where. The R of this one reads backwards, and stands at its left border.
KNOWN = {
    "mrkr_bilateral_frontal_mirrored.png": (
        There(Side.RIGHT, 193.0, 318.0, 150.0, 150.0),
        There(Side.LEFT, 403.0, 318.0, 150.0, 150.0),
    )
}
_FROM_ARCHIVE = 3  # files of one archive
_PLAIN = Encoding(12, monochrome1=False, window=True, low=0.0, high=1.0, syntax="1.2.840.10008.1.2.1")


def write_real(places: Sequence[Path], seed: int, out: Path, number: int) -> list[TrueFilm]:
    """Write real images below OUT/films, counting on from `number`; what they are.

    Args:
        places: files of known films, DICOM files without a frontal knee, archives of these, or folders.
        seed: of the headers.
        out: the folder of the set.
        number: of the first file.

    Raises:
        DataError: a place does not exist, or nothing in it can be used.
    """
    found: list[TrueFilm] = []
    with tempfile.TemporaryDirectory() as unpacked:
        for place in places:
            before = len(found)
            for path in _files(place, Path(unpacked)):
                made = _known(path) if path.name in KNOWN else _no_knee(path, seed + len(found))
                for kind, film in made:
                    names = (f"real {path.name} {len(found)}",) * 2
                    found.append(write_film(film, kind, names, _PLAIN, out, number + len(found)))
                if path.name not in KNOWN and (copied := _copied(path, out, number + len(found))):
                    found.append(copied)
            if len(found) == before:
                raise DataError(f"--real {place}: nothing in it is a DICOM image or a film that is known.")
    return found


def _files(place: Path, unpacked: Path) -> Iterator[Path]:
    if not place.exists():
        raise DataError(f"--real {place}: there is no such file or folder.")
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if ".tar" in path.suffixes:
            with tarfile.open(path) as archive:
                members = [member for member in archive.getmembers() if member.isfile()]
                for at in sorted({int(at) for at in np.linspace(0, len(members) - 1, _FROM_ARCHIVE + 2)[1:-1]}):
                    archive.extract(members[at], unpacked, filter="data")
                    yield unpacked / members[at].name
        elif path.is_file():
            yield path


def _no_knee(path: Path, seed: int) -> list[tuple[str, Film]]:
    """The pixels under a header that lies; nothing where they cannot be read."""
    try:
        pixels = load_display(read_instance(path)).values
    except RefusalError:
        return []
    said = replace(lying(np.random.default_rng(seed), 0), sop_class=Header().sop_class)
    codes = frozenset({RefusalCode.NO_KNEE_FOUND, RefusalCode.NO_FRONTAL_VIEW, RefusalCode.FILM_TURNED})
    return [("real, no knee, header says KNEE AP", refused(Picture(pixels), said, codes, f"{path.name} as KNEE AP L"))]


def _copied(path: Path, out: Path, number: int) -> TrueFilm | None:
    """The object as it is; any refusal is right."""
    try:
        instance = read_instance(path)
        ds = pydicom.dcmread(path, stop_before_pixels=True)
    except (RefusalError, pydicom.errors.InvalidDicomError):
        return None
    file = f"{FILMS}/{number:04d}_real_as_it_is.dcm"
    (out / file).write_bytes(path.read_bytes())
    study, shows = str(ds.StudyInstanceUID), f"{path.name} as it is"
    no_sides: frozenset[Side] = frozenset()
    return TrueFilm(file, study, instance.sop_instance_uid, "real, no knee, as it is", no_sides, frozenset(), (), shows)


def _known(path: Path) -> list[tuple[str, Film]]:
    """A film of both knees with an R that reads backwards: in several headers, turned over, inverted."""
    with Pictures.open(path) as image:
        pixels = np.asarray(image.convert("L"), np.float32) / np.float32(255)
    picture = Picture(pixels, KNOWN[path.name])
    both = Header("B", orientation=None, description="BOTH KNEES STANDING")
    over = scored(films.mirrored(picture), both, f"{path.name}, turned over, header B")
    turned = films.turned(picture, 1)
    made = [
        scored(picture, both, f"{path.name}, header B"),
        scored(picture, replace(both, orientation=("L", "F")), f"{path.name}, header B, L\\F"),
        replace(over, codes=UNKNOWN),  # one letter that reads rightly does not turn a film round
        scored(films.inverted(picture), both, f"{path.name}, inverted, header B"),
        refused(picture, replace(both, orientation=("R", "F")), CONTRADICTORY, f"{path.name}, header B, R\\F"),
        refused(picture, replace(both, side="L", description="KNEE AP"), CONTRADICTORY, f"{path.name}, header L"),
        refused(turned, both, frozenset({RefusalCode.FILM_TURNED}), f"{path.name}, turned by 90 degrees"),
    ]
    return [("real, both knees", film) for film in made]
