"""What headers say of the person, and what they do not: read, left out with a reason, or imputed as in training."""

from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from inference.clinical import ABOUT, read_clinical
from inference.slice_nets import SliceNetSpec
from tests.inference.mr_bundle import HEADER, random_net


def header(**attributes: Any) -> Dataset:
    """Values as they come, also those that their VR does not allow."""
    ds = Dataset()
    for keyword, value in attributes.items():
        ds.add_new(keyword, "LO", value)
    return ds


def known(*headers: Dataset) -> dict[str, float]:
    return {value.name: value.value for value in read_clinical(headers).known}


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientAge": "061Y"}, 61),
        ({"PatientAge": "61Y"}, 61),
        ({"PatientAge": "240M"}, 20),
        ({"PatientAge": "061Y", "PatientBirthDate": "19000101", "StudyDate": "20240101"}, 61),
        ({"PatientBirthDate": "19630102", "StudyDate": "20240102"}, 61),
        ({"PatientBirthDate": "19630103", "StudyDate": "20240102"}, 60),
        ({"PatientBirthDate": "1963.01.02", "StudyDate": "20240102"}, 61),
        ({"PatientBirthDate": "19630102", "AcquisitionDate": "20231231", "StudyDate": "20240102"}, 60),
        ({"PatientBirthDate": "19630102", "AcquisitionDateTime": "20240102101500"}, 61),
    ],
)
def test_age(attributes: dict[str, str], years: float) -> None:
    assert known(header(**attributes)) == {"age": pytest.approx(years)}


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientAge": "000Y"},
        {"PatientAge": "999Y"},
        {"PatientAge": "006M"},
        {"PatientAge": "61"},
        {"PatientAge": "Y61"},
        {"PatientBirthDate": "19000101", "StudyDate": "20240102"},
        {"PatientBirthDate": "19630102"},
        {"PatientBirthDate": "19631302", "StudyDate": "20240102"},
        {"PatientBirthDate": "20250102", "StudyDate": "20240102"},
        {"PatientSex": "O"},
        {"PatientSex": "Z"},
        {"PatientSize": "0"},
        {"PatientSize": "17.2"},
        {"PatientSize": "-1.7"},
        {"PatientSize": "0.2"},
        {"PatientSize": "1720"},
        {"PatientWeight": "0"},
        {"PatientWeight": "999"},
        {"PatientWeight": "1e400"},
        {"PatientWeight": "nan"},
        {"PatientSize": "1.1", "PatientWeight": "200"},
        {"PatientAge": ["061Y", "062Y"]},
        {"PatientSex": ["M", "F"]},
        {"PatientSize": ["1.7", "1.9"]},
        {"PatientWeight": ["80", "90"]},
    ],
)
def test_what_cannot_be_is_missing_and_said_so(attributes: dict[str, Any]) -> None:
    found = read_clinical([header(**attributes)])
    assert not found.known
    assert found.evidence[-1].supports == "missing"
    assert {evidence.about for evidence in found.evidence} == {ABOUT}
    values = {text for text in attributes.values() if isinstance(text, str) and len(text) > 2}
    assert not values & {word for evidence in found.evidence for word in (evidence.value, evidence.source)}


def test_size_weight_and_what_follows() -> None:
    assert known(header(PatientSize="1.72", PatientWeight="80", PatientSex="F")) == {
        "sex": 1.0,
        "height": 1.72,
        "weight": 80.0,
        "bmi": pytest.approx(27.04, abs=0.01),
    }
    assert known(header(PatientSex="m")) == {"sex": 0.0}
    found = read_clinical([header(PatientSize="172", PatientWeight="80")])
    height = next(value for value in found.known if value.name == "height")
    assert (height.value, height.source) == (1.72, "PatientSize in centimetres")
    assert next(value for value in found.known if value.name == "bmi").source == (
        "PatientWeight and PatientSize in centimetres"
    )
    assert known(header(PatientWeight="80")) == {"weight": 80.0}
    assert known(header()) == {}
    assert not read_clinical([]).known


def test_what_differs_within_a_series_is_missing() -> None:
    one, other = header(PatientAge="061Y", PatientSex="F"), header(PatientAge="062Y", PatientSex="F")
    assert known(one, other, header()) == {"sex": 1.0}
    (said,) = [e for e in read_clinical([one, other]).evidence if e.source == "PatientAge"]
    assert (said.value, said.supports) == ("different values within the series", "missing")
    assert known(header(PatientSize="1.72"), header(PatientSize="172")) == {"height": 1.72}
    assert known(header(PatientWeight="80"), header(PatientWeight="0")) == {}


def test_a_missing_variable_is_filled_as_training_fills_it() -> None:
    """One path: NaN goes into the network, which imputes the median it learnt and says that it was missing."""
    net = random_net(SliceNetSpec(features=4, attention=2, hidden=(4, 4), clinical=HEADER))
    values = known(header(PatientAge="061Y", PatientSex="F"))
    row = np.array([values.get(name, np.nan) for name in HEADER], np.float32)[None]
    found = net.standardised(torch.from_numpy(row))[0]
    by_hand = torch.from_numpy(np.where(np.isnan(row), net.median.numpy(), row))[0]
    expected = ((by_hand - net.mean) / net.scale).clamp(-5, 5)
    assert torch.allclose(found[:5], expected)
    assert found[5:].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
