"""Decoding and display: every syntax that can be read, and the grey-scale pipeline against values worked out."""

import base64
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from inference.codestreams import read_frame_header
from inference.decoding import decode, supported_syntaxes
from inference.errors import RefusalError
from inference.findings import RefusalCode
from inference.isolated import CODEC
from inference.pixels import DisplayImage, load_display
from inference.reading import read_instance
from tests import malformed, phantoms

RAMP = np.arange(0, 4096, dtype="<u2").reshape(64, 64)

# A phantom as JPEG Lossless, mutated until GDCM's codec aborted its process (deflated, base 85).
ABORTS_GDCM = (
    "c-rk$OK;mo5FXNsOE_*orAVqnQLNpI4l=P1zP5)zj2<>^iKImudBA9@CTwHW76nOZkGb{SQ-4K|{Riz&=%Fo8z^DF<u(Pb~L@o*!MS<jyA&C"
    "8Ec4l|>o7n|;z0wUkLmkJ1K@EP!Q3nm;yJ|$ybQ}-D4}e+R@@;A{N~v!-7PD;ps}DU^(5L;E4|gr}vV`kXY75J^Z0TE!GwQkybp)q^`X1#>x"
    "{^!k30rXAvu%$vp@WI*+`hDz(rnA4I^4X-gnMcij|)l}wS=X9*YYrv_aNOdA@29X^ij7n%=R7$*CPfP&`EDXJPNnNC>R_jqi`6E9vtG#?JLh"
    "`K;wTop8*8AfdQOy7xQKYY+TYeFX<m$(kW!aRbU*Gqz14hjW20pNlTCwz;k?xEa=d^Z@^PTCiLSGNk+Z27iB>f#*qP27{oUqc{-jfiW73Ln0"
    "+}%j=qH?Qt{Lr#Osjk1W^_b$=)Q-4Y-3gbIC@6M8%+e4Z5@O*ON2P`bL^Pgh4T%ALsKq*-d)e<Z*E_ouPJAOj=}~ALox32+3FD<7YWxEix^R"
    "CJVBdjVJTZi`faGtye?HY>e*2u>^Hgl^dJsJ|If~FG@IVg31}RbjJXXyV9kU8=#|JgS3;Oe@z?2HBi}^*n3HIakfwPqF&F$dcAVCE$%WVsdP"
    "--LDhvxNA({wp<VGBlLp*Egezin0{|J&fuWULpeOZiiac8OA^xZvx0HVrN9eEZt5t%e0kvr-UB#O@>UFXPT$?JNVAKm5ur^hvIcJ-|yH|83m"
    "yXN1ls?0Lw581i^CY&Y5H7>pBW>;o<`B4XRfjWa`_yC16AtriA@QPMlT+&Ww(AI6x{Py|AdAcS)gesP$qC-fb3`hR28VsbpH<8a5J7v8eRv-"
    "EG5I2&<XGMONsCMhGQ~RQlSNa#MyYzCnoz^Ybr{A`+}Rn$!yYG1^?u-N8)xekqKH6K$V8-7XdRJWq3eiNDg<hFMP(AjO=z1{e(^T07?>$q%d"
    "!cH*~OZ0YWo&#!hWUMRJuwVp;p7HQjAC|%qpB!bw5ZkvkkR6rENI4rg~IK21HkQ_pD#<Ui9l42q^^;P6hdU$C`k*GoKY((_)U}Q8CM4Q$Jrd"
    "A&OrE!Y<zGFne(N+^pX75=HG&JA3yP{sxuum+}<M-G10df^c{Ip!^Z8tFES+R)?*h;C-A@lP^Wn-!aSIz|boHKfYU*A6DNQ-WpyS)*dd);<X"
    "xDZ%7{hX!!n3P3%7yrvD=3dHL&$^7m8quKWq%=p@|"
)


def film(stored: np.ndarray, **attributes: Any) -> Dataset:
    """A DX with exactly these stored values and no window; 12 bits unless told otherwise."""
    ds = phantoms.wrap_dx(np.zeros(stored.shape[:2], np.float64), "L", bits=12, identity="pixels")
    del ds.WindowCenter, ds.WindowWidth
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    if stored.dtype.itemsize == 1:
        ds.BitsStored, ds.HighBit = 8, 7
        ds["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def shown(ds: Dataset, folder: Path) -> DisplayImage:
    return load_display(read_instance(phantoms.write(ds, folder / "x.dcm")))


def lut(keyword: str, values: list[int], start: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(values), start, bits])
    item.add_new(0x00283006, "OW", np.array(values, "<u2").tobytes())
    if keyword == "ModalityLUTSequence":
        item.ModalityLUTType = "US"
    return item


@pytest.fixture(scope="module")
def ct_files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ct")
    with tarfile.open(shared_data / "dicom" / "ct_transfer_syntaxes.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    files = sorted(folder.rglob("*.dcm*"))
    return {path.stem.rpartition("_")[2] if "Syntax" in path.name else "original": path for path in files}


LOSSLESS = ["", ".1", ".1.99", ".2", ".4.57", ".4.70", ".4.80", ".4.90", ".5"]
# The largest difference to the original in Hounsfield units: as lossy as their writer chose.
LOSSY = {".4.91": 5, ".4.81": 1, ".4.51": 40, ".4.50": 70}
REFUSED = [".4.53", ".4.55"]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_syntaxes_are_identical(ct_files: dict[str, Path], suffix: str) -> None:
    instance = read_instance(ct_files["1.2.840.10008.1.2" + suffix])
    assert instance.transfer_syntax_uid == "1.2.840.10008.1.2" + suffix
    original = read_instance(ct_files["original"])
    assert (decode(instance).values == decode(original).values).all()
    assert (load_display(instance).values == load_display(original).values).all()


@pytest.mark.parametrize(("suffix", "tolerance"), LOSSY.items())
def test_lossy_syntaxes_are_near(ct_files: dict[str, Path], suffix: str, tolerance: float) -> None:
    instance = read_instance(ct_files["1.2.840.10008.1.2" + suffix])
    header, original = instance.header, read_instance(ct_files["original"])
    truth = decode(original).values * float(original.header.RescaleSlope) + float(original.header.RescaleIntercept)
    found = decode(instance).values * float(header.RescaleSlope) + float(header.RescaleIntercept)
    assert np.abs(truth - found).max() <= tolerance
    assert load_display(instance).lossy


@pytest.mark.parametrize("suffix", REFUSED)
def test_retired_syntaxes_are_refused_by_name(ct_files: dict[str, Path], suffix: str) -> None:
    instance = read_instance(ct_files["1.2.840.10008.1.2" + suffix])
    with pytest.raises(RefusalError) as error:
        load_display(instance)
    assert error.value.refusal.code is RefusalCode.UNSUPPORTED_TRANSFER_SYNTAX
    assert error.value.refusal.source == instance.sop_instance_uid
    assert "1.2.840.10008.1.2" + suffix in error.value.refusal.reason
    assert "JPEG" in error.value.refusal.reason


def test_every_file_of_the_collection_is_covered(ct_files: dict[str, Path]) -> None:
    covered = {"1.2.840.10008.1.2" + suffix for suffix in (*LOSSLESS, *LOSSY, *REFUSED)}
    assert set(ct_files) == covered | {"original"}
    assert {u for u in covered if u.removeprefix("1.2.840.10008.1.2") not in REFUSED} <= set(supported_syntaxes())


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_phantoms_survive_lossless_compression(tmp_path: Path, syntax: str, bits: int) -> None:
    ds = phantoms.dx_knee("L", bits=bits)
    plain = load_display(read_instance(phantoms.write(ds, tmp_path / "plain.dcm")))
    packed = load_display(read_instance(phantoms.write(phantoms.compress(ds, syntax), tmp_path / "packed.dcm")))
    assert (plain.values == packed.values).all()
    assert not packed.lossy


@pytest.mark.parametrize(
    ("option", "bits", "tolerance"), [("+e1", 12, 0), ("+el", 12, 0), ("+eb", 8, 0.1), ("+ee", 12, 0.1)]
)
def test_jpeg_as_dcmtk_writes_it(tmp_path: Path, option: str, bits: int, tolerance: float) -> None:
    source = phantoms.write(phantoms.dx_knee("R", bits=bits), tmp_path / "plain.dcm")
    packed = phantoms.dcmtk_compress(source, tmp_path / "packed.dcm", option)
    difference = np.abs(load_display(read_instance(source)).values - load_display(read_instance(packed)).values)
    assert difference.max() <= tolerance
    assert load_display(read_instance(packed)).lossy is (tolerance > 0)


def test_bright_bone_whatever_the_photometric_interpretation(tmp_path: Path) -> None:
    normal = shown(phantoms.dx_knee("L"), tmp_path).values
    inverted = shown(phantoms.dx_knee("L", photometric="MONOCHROME1"), tmp_path).values
    assert normal[100, 168] > normal[100, 2] + 0.3  # femur against air
    assert np.abs(normal - inverted).max() < 0.002


def test_presentation_lut_shape_inverse_inverts_once(tmp_path: Path) -> None:
    plain = shown(film(RAMP, PresentationLUTShape="IDENTITY"), tmp_path).values
    inverse = shown(film(RAMP, PresentationLUTShape="INVERSE"), tmp_path).values
    both = shown(film(RAMP, PresentationLUTShape="INVERSE", PhotometricInterpretation="MONOCHROME1"), tmp_path).values
    assert np.allclose(inverse, 1 - plain, atol=1e-6)
    assert (both == inverse).all()


def test_window_linear_is_that_of_the_standard(tmp_path: Path) -> None:
    values = shown(film(RAMP, WindowCenter=[2048, 1], WindowWidth=[1000, 2]), tmp_path).values
    expected = np.clip((RAMP - 2047.5) / 999 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    assert np.allclose(values, expected, atol=1e-5)


def test_window_functions(tmp_path: Path) -> None:
    exact = shown(film(RAMP, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT"), tmp_path).values
    assert np.allclose(exact, np.clip((RAMP - 2048.0) / 1000 + 0.5, 0, 1), atol=1e-5)
    sigmoid = shown(film(RAMP, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID"), tmp_path).values
    assert np.allclose(sigmoid, 1 / (1 + np.exp(-4 * (RAMP - 2048.0) / 1000)), atol=1e-5)


@pytest.mark.parametrize("window", [(2048, 0), (2048, -5), (None, None), (90000, 10)])
def test_unusable_windows_fall_back_to_the_range(tmp_path: Path, window: tuple[Any, Any]) -> None:
    ds = film(RAMP) if window[0] is None else film(RAMP, WindowCenter=window[0], WindowWidth=window[1])
    values = shown(ds, tmp_path).values
    assert values.min() == 0
    assert values.max() == 1
    assert abs(float(values[32, 0]) - 0.5) < 0.01


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(
    "numbers",
    [
        {"WindowCenter": 2048, "WindowWidth": 1e-40},
        {"WindowCenter": 2048, "WindowWidth": 1e-14},
        {"WindowCenter": 0, "WindowWidth": 1, "RescaleSlope": 9e11},
        {"RescaleSlope": 1e29, "VOILUTSequence": [lut("VOILUTSequence", [0, 255], 2000, 8)]},
        {"RescaleSlope": 9e11, "VOILUTSequence": [lut("VOILUTSequence", [0, 255], 2000, 8)]},
    ],
)
def test_numbers_beyond_all_measure_are_no_error(tmp_path: Path, function: str, numbers: dict[str, Any]) -> None:
    values = shown(film(RAMP, VOILUTFunction=function, **numbers), tmp_path).values
    assert np.isfinite(values).all()
    assert 0 <= values.min() < values.max() <= 1


def test_modality_comes_before_the_window(tmp_path: Path) -> None:
    ds = film(RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2001)
    assert np.allclose(shown(ds, tmp_path).values, np.clip((2.0 * RAMP - 1000 - 999.5) / 2000 + 0.5, 0, 1), atol=1e-5)


def test_modality_lut_and_voi_lut(tmp_path: Path) -> None:
    ds = film(RAMP, ModalityLUTSequence=[lut("ModalityLUTSequence", [10, 20, 30], 100, 16)])
    del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    ds.WindowCenter, ds.WindowWidth = 20, 21
    values = shown(ds, tmp_path).values
    assert values[0, 0] == pytest.approx(np.clip((10 - 19.5) / 20 + 0.5, 0, 1))
    assert values[1, 101 - 64] == pytest.approx((20 - 19.5) / 20 + 0.5)
    assert values[-1, -1] == pytest.approx(1.0)
    ds = film(RAMP, VOILUTSequence=[lut("VOILUTSequence", [0, 255, 51], 2000, 8)], WindowCenter=1, WindowWidth=2)
    values = shown(ds, tmp_path).values.ravel()
    assert (values[1999], values[2000], values[2001], values[2002]) == pytest.approx((0, 0, 1, 0.2))
    assert values[4000] == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore:A value of type 'str' cannot be assigned")
@pytest.mark.parametrize("broken", [[0, 0], [0, 0, 40], ["x"]])
def test_damaged_luts_are_passed_over(tmp_path: Path, broken: list[Any]) -> None:
    item = lut("VOILUTSequence", [0, 1], 0, 8)
    del item.LUTDescriptor
    item.add_new(0x00283002, "LO", [str(v) for v in broken])  # a wrong VR, kept in Explicit VR
    assert np.ptp(shown(film(RAMP, VOILUTSequence=[item]), tmp_path).values) == 1


def test_padding_is_left_out_of_the_range_and_is_black(tmp_path: Path) -> None:
    stored = RAMP // 4 + 100
    stored[:16] = 4095
    ds = film(stored)
    ds.add_new(0x00280120, "US", 4095)
    image = shown(ds, tmp_path)
    assert image.padding is not None
    assert image.padding[:16].all()
    assert not image.padding[16:].any()
    assert (image.values[:16] == 0).all()
    assert image.values[16:].max() == 1
    ds.add_new(0x00280121, "US", 1100)
    assert shown(ds, tmp_path).padding[16:].any()


def test_padding_everywhere_is_no_padding(tmp_path: Path) -> None:
    ds = film(np.full((8, 8), 7, "<u2"))
    ds.add_new(0x00280120, "US", 7)
    image = shown(ds, tmp_path)
    assert image.padding is None
    assert (image.values == 0.5).all()


def test_signed_pixels(tmp_path: Path) -> None:
    stored = (RAMP.astype("<i4") - 2048).astype("<i2")
    ds = film(stored, PixelRepresentation=1, WindowCenter=0, WindowWidth=2001)
    ds.add_new(0x00280120, "SS", -2048)
    image = shown(ds, tmp_path)
    assert np.allclose(
        image.values[~image.padding], np.clip((stored + 0.5) / 2000 + 0.5, 0, 1)[~image.padding], atol=1e-5
    )
    assert image.padding.sum() == 1


def test_garbage_above_bits_stored_is_ignored(tmp_path: Path) -> None:
    clean = film(RAMP, WindowCenter=2048, WindowWidth=4096)
    dirty = film(RAMP | 0xA000, WindowCenter=2048, WindowWidth=4096)
    assert (shown(clean, tmp_path).values == shown(dirty, tmp_path).values).all()
    signed = (RAMP.astype("<i4") - 2048).astype("<i2")
    masked = (signed.view("<u2") & 0x0FFF).view("<i2")  # no sign extension into the upper bits
    one = film(signed, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    two = film(masked, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    assert (shown(one, tmp_path).values == shown(two, tmp_path).values).all()


def test_eight_bits_with_an_odd_number_of_pixels(tmp_path: Path) -> None:
    stored = np.arange(81, dtype="u1").reshape(9, 9)
    assert shown(film(stored, WindowCenter=40, WindowWidth=81), tmp_path).values.shape == (9, 9)


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_becomes_grey(tmp_path: Path, planar: int) -> None:
    colour = np.zeros((8, 8, 3), "u1")
    colour[:4] = (255, 0, 0)
    colour[4:] = (255, 255, 255)
    stored = np.ascontiguousarray(colour.transpose(2, 0, 1)) if planar else colour
    ds = phantoms.sc_knee()
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", planar
    ds.Rows = ds.Columns = 8
    ds.PixelData = stored.tobytes()
    values = shown(ds, tmp_path).values
    assert values[0, 0] == pytest.approx(0.299)
    assert values[7, 7] == pytest.approx(1.0)


def test_ybr_secondary_capture(tmp_path: Path) -> None:
    ds = phantoms.sc_knee()
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL", 0
    ds.Rows = ds.Columns = 8
    ds.PixelData = bytes((200, 128, 128)) * 64
    assert shown(ds, tmp_path).values[0, 0] == pytest.approx(200 / 255, abs=0.01)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"BitsAllocated": 1},
        {"Rows": 0},
        {"Rows": 65},
        {"SamplesPerPixel": 3},
        {"NumberOfFrames": 2},
    ],
)
def test_images_that_make_no_sense_are_undecodable(tmp_path: Path, attributes: dict[str, Any]) -> None:
    with pytest.raises(RefusalError) as error:
        shown(film(RAMP, **attributes), tmp_path)
    assert error.value.refusal.code is RefusalCode.UNDECODABLE_PIXELS


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_truncated_codestreams_never_crash(tmp_path: Path, syntax: str, keep: float) -> None:
    data = malformed.encoded(phantoms.compress(phantoms.dx_knee("L"), syntax))
    start = data.index(b"\xe0\x7f\x10\x00OB")
    path = tmp_path / "x.dcm"
    path.write_bytes(data[: start + int((len(data) - start) * keep)])
    with pytest.raises(RefusalError) as error:
        load_display(read_instance(path))
    assert error.value.refusal.code is RefusalCode.UNDECODABLE_PIXELS


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.93", "1.2.3.4"])
def test_unknown_syntaxes_are_refused_by_name(tmp_path: Path, syntax: str) -> None:
    ds = malformed.small()
    ds.PixelData = encapsulate([b"\0" * 100])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    data = malformed.encoded(phantoms.compress(malformed.small(), "1.2.840.10008.1.2.5"))
    old = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.5\x00"
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    assert old in data
    path = tmp_path / "x.dcm"
    path.write_bytes(data.replace(old, b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value))
    with pytest.raises(RefusalError, match=syntax) as error:
        load_display(read_instance(path))
    assert error.value.refusal.code is RefusalCode.UNSUPPORTED_TRANSFER_SYNTAX


def test_encapsulation_must_fit_the_syntax(tmp_path: Path) -> None:
    for old, new in (
        (b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"),
    ):
        ds = malformed.small() if old.endswith(b".1\0") else phantoms.compress(malformed.small(), "1.2.840.10008.1.2.5")
        path = tmp_path / "x.dcm"
        path.write_bytes(malformed.encoded(ds).replace(old, new))
        with pytest.raises(RefusalError, match="encapsulated"):
            load_display(read_instance(path))


def test_a_codec_that_aborts_or_is_killed_is_replaced(tmp_path: Path) -> None:
    source = phantoms.write(malformed.small(), tmp_path / "plain.dcm")
    good = phantoms.dcmtk_compress(source, tmp_path / "good.dcm", "+e1")
    aborting = tmp_path / "aborting.dcm"
    aborting.write_bytes(zlib.decompress(base64.b85decode(ABORTS_GDCM)))
    for _ in range(2):
        with pytest.raises(RefusalError, match="damaged") as error:
            load_display(read_instance(aborting))
        assert error.value.refusal.code is RefusalCode.UNDECODABLE_PIXELS
        assert load_display(read_instance(good)).values.shape == (64, 48)
    children = psutil.Process().children()
    codec = next(child for child in children if "codec_child" in " ".join(child.cmdline()))
    codec.kill()
    codec.wait()
    assert load_display(read_instance(good)).values.shape == (64, 48)
    CODEC.close()


def test_frame_headers() -> None:
    assert read_frame_header(b"") is None
    assert read_frame_header(b"\xff\xd8\xff\xda\0\0") is None
    assert read_frame_header(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 50) is None
    for syntax in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"):
        ds = phantoms.compress(phantoms.dx_knee("L"), syntax)
        from pydicom.encaps import generate_frames

        header = read_frame_header(next(generate_frames(ds.PixelData, number_of_frames=1)))
        assert header is not None
        assert (header.rows, header.columns, header.components, header.precision) == (448, 336, 1, 12)


def test_real_radiographs_look_right(shared_data: Path) -> None:
    chest = load_display(read_instance(shared_data / "dicom" / "not_a_knee_chest_cr_mono1_j2k.dcm")).values
    rows, columns = chest.shape
    lungs = chest[rows // 3 : rows // 2, columns // 5 : columns // 3].mean()
    spine = chest[rows // 3 : rows // 2, columns * 9 // 20 : columns * 11 // 20].mean()
    assert spine > lungs + 0.1  # MONOCHROME1 turned round: bone is bright


def test_the_codec_ends_with_its_process_and_leaves_no_warning(tmp_path: Path) -> None:
    source = phantoms.write(malformed.small(), tmp_path / "plain.dcm")
    lossless = phantoms.dcmtk_compress(source, tmp_path / "lossless.dcm", "+e1")
    program = (
        "import psutil, sys\n"
        "from pathlib import Path\n"
        "from inference.pixels import load_display\n"
        "from inference.reading import read_instance\n"
        "load_display(read_instance(Path(sys.argv[1])))\n"
        "children = [child for child in psutil.Process().children() if 'codec_child' in ' '.join(child.cmdline())]\n"
        "print(*(child.pid for child in children))\n"
    )
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program, str(lossless)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (codec,) = map(int, done.stdout.split())
    assert "still running" not in done.stderr
    assert not psutil.pid_exists(codec)
