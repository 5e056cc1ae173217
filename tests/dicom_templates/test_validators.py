"""Every kind of object that Genu writes, through dciodvfy, dcentvfy, dsrdump and PixelMed's DicomSRValidator.

No errors; warnings only where `ALLOWED` gives the reason. A validator that is not installed skips its test.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.checker import check_study
from dicom_templates.compose import PredecessorRef, compose
from dicom_templates.context import ReportContext
from inference.findings import Box, Refusal, RefusalCode, Side, StudyFindings
from tests.dicom_templates.factory import (
    PAIN,
    STAND_IN,
    STUDY,
    context,
    header,
    image,
    knee,
    raw_file,
    reread,
    study,
    uid,
    with_raw,
)
from tests.dicom_templates.mr_findings import STAND_IN as MR_STAND_IN
from tests.dicom_templates.mr_findings import pain_classes, progression, series, volume
from tests.dicom_templates.mr_findings import study as mr_study
from tests.dicom_templates.test_patient import CHARACTER_SETS
from tests.mr_phantoms import Grid, enhanced_series

FILM = (512, 512)
BOTH = (
    knee(Side.RIGHT, 1, size=FILM, box=Box(-4.5, 60, 240, 430), conformal_set=(0, 1, 2)),
    knee(Side.LEFT, 3, size=FILM, box=Box(270, 60, 490.25, 430)),
)
NO_FRONTAL = Refusal(RefusalCode.NO_FRONTAL_VIEW, "No image of the study is a frontal view.")
NOT_A_KNEE = Refusal(RefusalCode.NOT_A_KNEE, "BodyPartExamined is CHEST, not a knee.", uid(2))
ONE_SIDE = Refusal(RefusalCode.SIDE_UNKNOWN, "Nothing says which half is left.", uid(1), Side.LEFT)
LOST = Refusal(RefusalCode.UNREADABLE, "The file ends after 100 bytes.", uid(9))
EARLIER = (PredecessorRef(STUDY, "2.25.77", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.78"),)
NOT_VALIDATED = {  # character sets for which an error would be right, or the validator's own
    "none": "the same as one knee",
    "empty": "Specific Character Set is copied although it may not be empty",
    "bytes outside of the set": "the name is invalid and is copied so",
    "gbk": "dciodvfy of 2022 does not know the defined term GBK",
}

IODS = "Comprehensive3DSR|SCImage|MultiframeTrueColorSCImage|ParametricMap"  # as dciodvfy calls them

ALLOWED = {
    "dciodvfy": {
        r"Unrecognized defined term <99GENU> for value 1 of attribute <Coding Scheme Designator>": (
            "the private scheme, declared in the Coding Scheme Identification Sequence"
        ),
        rf"Unrecognized defined term <{re.escape(codes.SCHEME_UID)}> for value 1 of attribute <Coding Scheme UID>": (
            "the UID of the private scheme"
        ),
        r"Attribute is not present in standard DICOM IOD - \(0x0018,0x1002\) UI Device UID ": (
            "in the items of the Contributing Equipment Sequence; newer than this dciodvfy"
        ),
        r"Dicom dataset contains attributes not present in standard DICOM IOD - .*": "follows from that on Device UID",
    },
    "dcentvfy": {
        r"Different information entities for attribute - Element=<AccessionNumber> IE <(Series|Study)> versus .*": (
            "dcentvfy takes the Accession Number of image and SR for different entities, even where both are a copy"
        ),
    },
    "pixelmed": {
        rf".*\((CODE |TEXT )?{value},{scheme},.*: Content Item not in template": reason
        for value, scheme, reason in [
            ("122405", "DCM", "Algorithm Manufacturer, a newer row of TID 4019"),
            ("130400", "DCM", "Geometric purpose of region, a newer row of TID 1410"),
            *(
                (row.value, "99GENU", "qualitative evaluation or comment; TID 1410 is extensible")
                for row in codes.TABLE
            ),
        ]
    },
}

# DCMTK 3.6.7 checks text in some character sets only, and says so.
ALLOWED_DSRDUMP = r"W: (The VR checker does not support this|Reading unknown/unsupported) ?Specific ?Character ?Set.*"


def kinds() -> dict[str, tuple[Sequence[Dataset], Sequence[Dataset]]]:
    """Each kind of study as (source headers, objects)."""
    one, film, chest = header(), header(size=FILM), header(2)
    pained = (BOTH[0], replace(BOTH[1], pain=PAIN))
    everything = study([*pained, knee(model=STAND_IN, number=2)], [NOT_A_KNEE, ONE_SIDE, NO_FRONTAL, LOST], [image(2)])
    lossy = header(
        LossyImageCompression="01", LossyImageCompressionRatio="7.5", LossyImageCompressionMethod="ISO_10918_1"
    )
    cases = {
        "one knee": (study([knee()]), [one], context()),
        "one knee, lossy source": (study([knee(Side.RIGHT)]), [lossy], context()),
        "bilateral": (study(BOTH), [film], context()),
        "pain": (study([replace(one, pain=PAIN) for one in BOTH]), [film], context()),
        "partial refusal": (study([knee()], [NOT_A_KNEE, ONE_SIDE], [image(2)]), [one, chest], context()),
        "refused with images": (study([], [NO_FRONTAL, NOT_A_KNEE], [image(), image(2)]), [one, chest], context()),
        "refused without images": (study([], [NO_FRONTAL, LOST]), [one], context()),
        "superseding": (study([knee()]), [one], context(predecessors=EARLIER)),
        "synthetic": (study([knee(model=STAND_IN)]), [one], context()),
        "all at once": (everything, [film, chest], context(predecessors=EARLIER)),
    }
    for name, (character_set, patient) in CHARACTER_SETS.items():
        if name not in NOT_VALIDATED:
            odd = with_raw(header(), {"SpecificCharacterSet": character_set or b"", "PatientName": patient})
            cases[name] = (study([knee()]), [odd], context())
    cases |= mr_kinds()
    return {name: (headers, compose(findings, headers, c).all) for name, (findings, headers, c) in cases.items()}


def mr_kinds() -> dict[str, tuple[StudyFindings, list[Dataset], ReportContext]]:
    """The same of MR series; nothing but the slices that are read goes into the files."""
    left, right = series(), series(Side.RIGHT, Grid("sagittal", tilt=(4.0, 9.0, -7.0)))
    enhanced = [reread(enhanced_series())]
    placeless = [with_raw(each, {"FrameOfReferenceUID": b""}) for each in series()]
    found = volume(left, read=[4, 5, 6])
    other = volume(right, Side.RIGHT, Grid("sagittal", tilt=(4.0, 9.0, -7.0)), read=[3, 6], outcome=pain_classes())
    refusals = [
        Refusal(RefusalCode.WRONG_PLANE, "The slices are axial.", left[0].SOPInstanceUID),
        Refusal(RefusalCode.TOO_FEW_SLICES, "The series has 3 slices.", right[0].SOPInstanceUID, Side.RIGHT),
    ]
    stand_in = volume(left, read=[6], outcome=progression(MR_STAND_IN))
    return {
        "MR, two knees": (mr_study([found, other], headers=[*left, *right]), [*left[4:7], *right[3:7]], context()),
        "MR, enhanced": (mr_study([volume(enhanced, read=[4, 5])], headers=enhanced), enhanced, context()),
        "MR, refused": (mr_study([], refusals, [*left, *right]), [left[0], right[0]], context()),
        "MR, in part": (mr_study([found], refusals[1:], [*left, *right]), [*left[4:7], right[0]], context()),
        "MR, stand-in, one slice": (mr_study([stand_in], headers=left), left[6:7], context()),
        "MR, no place": (mr_study([volume(placeless, read=[5])], headers=placeless), placeless[5:6], context()),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The files of each kind: sources (names begin with "source") and objects."""
    folder = tmp_path_factory.mktemp("objects")
    files: dict[str, list[Path]] = {}
    for name, (headers, objects) in kinds().items():
        place = folder / name.replace(" ", "_").replace(",", "")
        place.mkdir()
        for role, datasets in (("source", headers), ("object", objects)):
            for number, dataset in enumerate(datasets):
                path = place / f"{role}_{number}_{dataset.Modality}.dcm"
                path.write_bytes(raw_file(dataset))
                files.setdefault(name, []).append(path)
        assert check_study(objects) == []
    return files


def ours(files: dict[str, list[Path]], modality: str = "") -> list[Path]:
    """The files that Genu wrote."""
    return [p for paths in files.values() for p in paths if p.name.startswith("object") and modality in p.stem]


def tool(name: str) -> str:
    """The path of a validator; skips the test when it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install dicom3tools dcmtk pixelmed-apps)")
    return found


def complaints(output: str, allowed: dict[str, str]) -> list[str]:
    """Error lines, and warning lines that no allowed pattern covers in full."""
    found = []
    for line in output.splitlines():
        kind = re.match(r"(Error|Warning|Fatal)\W+", line)
        if kind is None:
            continue
        rest = line[kind.end() :]
        if kind[1] != "Warning" or not any(re.fullmatch(pattern, rest) for pattern in allowed):
            found.append(line)
    return found


def output_of(*command: str | Path) -> str:
    """Standard output and error of a command, read as bytes that may be in any character set."""
    result = subprocess.run(command, capture_output=True, check=False, timeout=400)
    return (result.stdout + result.stderr).decode("utf-8", "replace")


def test_dciodvfy(written: dict[str, list[Path]]) -> None:
    dciodvfy = tool("dciodvfy")
    used = set()
    for path in ours(written):
        output = output_of(dciodvfy, path)
        assert complaints(output, ALLOWED["dciodvfy"]) == [], path
        used |= {p for p in ALLOWED["dciodvfy"] if re.search(p, output)}
        assert re.search(
            r"^(Comprehensive3DSR|SCImage|MultiframeTrueColorSCImage|ParametricMap)$", output, re.MULTILINE
        ), output
    assert used == set(ALLOWED["dciodvfy"]), "an allowed warning no longer occurs: take it off the list"


def test_dcentvfy(written: dict[str, list[Path]]) -> None:
    dcentvfy = tool("dcentvfy")
    for name, paths in written.items():
        assert complaints(output_of(dcentvfy, *paths), ALLOWED["dcentvfy"]) == [], name


def test_dcentvfy_sees_a_differing_patient(written: dict[str, list[Path]], tmp_path: Path) -> None:
    dcentvfy = tool("dcentvfy")
    other = pydicom.dcmread(written["one knee"][-1])
    other.PatientID = "SOMEBODY-ELSE"
    other.save_as(tmp_path / "other.dcm")
    assert complaints(output_of(dcentvfy, *written["one knee"], tmp_path / "other.dcm"), ALLOWED["dcentvfy"])


def test_dsrdump_reads_every_report(written: dict[str, list[Path]]) -> None:
    dsrdump = tool("dsrdump")
    for path in ours(written, "SR"):
        result = subprocess.run([dsrdump, path], capture_output=True, check=False, timeout=60)
        assert result.returncode == 0, result.stderr
        lines = result.stderr.decode("utf-8", "replace").splitlines()
        assert [line for line in lines if not re.fullmatch(ALLOWED_DSRDUMP, line)] == [], path
        assert b"NOT FOR DIAGNOSIS" in result.stdout


def test_pixelmed_finds_no_error(written: dict[str, list[Path]]) -> None:
    java, jar = tool("java"), Path("/usr/share/java/pixelmed.jar")
    if not jar.exists():
        pytest.skip(f"{jar} is missing (Debian: apt-get install pixelmed-apps)")
    limits = [f"-Djdk.xml.xpath{name}=0" for name in ("ExprGrpLimit", "ExprOpLimit", "TotalOpLimit")]
    faster = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    names = ["all at once", "refused with images", "refused without images", "MR, in part"]
    reports = [path for name in names for path in ours({name: written[name]}, "SR")]

    def validate(path: Path) -> str:
        return output_of(java, *faster, *limits, "-cp", jar, "com.pixelmed.validate.DicomSRValidator", path)

    with ThreadPoolExecutor(2) as pool:  # one process takes about 10 s
        for path, output in zip(reports, pool.map(validate, reports), strict=True):
            assert "Found Root Template TID_1500" in output, output
            assert "IOD validation complete" in output
            assert complaints(output, ALLOWED["pixelmed"]) == [], path
