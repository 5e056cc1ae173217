"""The table of codes: complete, within DICOM's lengths, and published as it is."""

import re
import subprocess
import sys
from pathlib import Path

from dicom_templates import codes
from inference.findings import RefusalCode, Side

ROOT = Path(__file__).parents[2]


def test_values_and_meanings_are_unique_short_and_ascii() -> None:
    values = [row.value for row in codes.TABLE]
    meanings = [row.meaning for row in codes.TABLE]
    assert len(set(values)) == len(values)
    assert len(set(meanings)) == len(meanings)
    for row in codes.TABLE:
        assert len(row.value) <= 16, row.value  # SH
        assert len(row.meaning) <= 64, row.meaning  # LO
        assert (row.value + row.meaning + row.definition).isascii()
        assert "\\" not in row.meaning
        assert row.code.scheme_designator == "99GENU"
    assert len(codes.SCHEME) <= 16


def test_every_refusal_code_has_a_concept() -> None:
    assert set(codes.REFUSALS) == set(RefusalCode)
    assert all(concept in codes.TABLE for concept in codes.REFUSALS.values())


def test_every_refusal_code_has_a_remedy_and_the_documentation_gives_the_same() -> None:
    assert set(codes.REMEDIES) == set(RefusalCode)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for code, remedy in codes.REMEDIES.items():
        assert 10 <= len(remedy) <= 140, remedy
        assert remedy.isascii()
        assert remedy.endswith(".")
        assert re.search(rf"^\| `{code.value}` \| .+ \| {re.escape(remedy)} \|$", page, re.MULTILINE), code


def test_sides_are_not_exchanged() -> None:
    assert codes.SIDES[Side.RIGHT].value == "24028007"
    assert codes.SIDES[Side.LEFT].value == "7771000"


def test_no_concept_says_osteoarthritis() -> None:
    assert "osteoarthritis" not in codes.markdown().lower()


def test_published_table_is_current() -> None:
    page = ROOT / "docs" / "codes.md"
    made = subprocess.run(
        [sys.executable, "-m", "dicom_templates.codes"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert page.read_text(encoding="utf-8") == made, "run: python -m dicom_templates.codes > docs/codes.md"
    for row in codes.TABLE:
        assert f"| `{row.value}` | {row.meaning} |" in made
