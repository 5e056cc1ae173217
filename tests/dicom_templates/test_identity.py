"""Derived UIDs, texts and the equipment that all objects share."""

import pytest

from dicom_templates.identity import ascii_text, derived_uid, lasting_uid, tracking_uid
from inference.findings import Side
from tests.dicom_templates.factory import context, header, with_raw


def test_derived_uids_are_valid_stable_and_told_apart() -> None:
    uid = derived_uid("report", "1.2.3")
    assert uid == derived_uid("report", "1.2.3")
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    others = {derived_uid("report", "1.2", "3"), derived_uid("report", "1.2.3", ""), derived_uid("heatmap", "1.2.3")}
    assert len(others) == 3
    assert uid not in others
    assert uid == "2.25.183211406198918958893081426091863218206", (
        "derived UIDs are a contract: raise TEMPLATE_VERSION when bytes change"
    )


def test_what_outlives_templates_is_not_touched_by_them() -> None:
    assert lasting_uid("report", "1.2.3") == "2.25.334216108184080134082890684430922001442"
    assert tracking_uid(header(), Side.LEFT, "1.2") == "2.25.85267948206901199860799095000733767306"


def test_tracking_follows_patient_and_side_only() -> None:
    left = tracking_uid(header(1), Side.LEFT, "1.2")
    assert left == tracking_uid(header(2, StudyDescription="other"), Side.LEFT, "1.3")
    assert left != tracking_uid(header(1), Side.RIGHT, "1.2")
    assert left != tracking_uid(header(1, PatientID="PHANTOM-2"), Side.LEFT, "1.2")
    assert left != tracking_uid(header(1, IssuerOfPatientID="ELSEWHERE"), Side.LEFT, "1.2")


@pytest.mark.parametrize("patient_id", [b"", b"   "])
def test_without_a_patient_id_tracking_does_not_leave_the_study(patient_id: bytes) -> None:
    nameless = with_raw(header(), {"PatientID": patient_id})
    assert tracking_uid(nameless, Side.LEFT, "1.2") == tracking_uid(header(PatientID=None), Side.LEFT, "1.2")
    assert tracking_uid(nameless, Side.LEFT, "1.2") != tracking_uid(nameless, Side.LEFT, "1.3")


def test_texts_hold_only_what_every_character_set_shares() -> None:
    assert ascii_text("caf\u00e9 \\ ~ \x1b[31m\nnew  line", 64) == "caf? ? ? ?[31m new line"
    assert ascii_text("x" * 70, 64) == "x" * 61 + "..."


def test_a_context_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        context(created=context().created.replace(tzinfo=None))
