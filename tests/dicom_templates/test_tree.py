"""The tree of a report for a terminal."""

from dicom_templates.compose import compose
from dicom_templates.tree import render_tree
from inference.findings import Box, Refusal, RefusalCode, Side
from tests.dicom_templates.factory import context, header, image, knee, study, uid


def test_the_tree_shows_results_refusals_and_no_identity() -> None:
    findings = study(
        [knee(Side.RIGHT, 3, box=Box(10, 20, 200, 210))],
        [Refusal(RefusalCode.NOT_A_KNEE, "BodyPartExamined is CHEST.", uid(2))],
        [image(2)],
    )
    report = compose(findings, [header(), header(2)], context()).report
    assert report is not None
    lines = render_tree(report).splitlines()
    assert lines[0] == "Imaging Measurement Report"
    assert "      ├─ Finding Site: Knee joint (Right)".replace("      ", "   │  ", 1) in lines
    for words in (
        "Kellgren-Lawrence grade: Kellgren-Lawrence grade 3 (moderate)",
        "Probability of Kellgren-Lawrence grade 3: 0.8",
        "Image Region: columns 10-200, rows 20-210",
        "Reason for not scoring: Not a knee",
        "Intended use of result: AI - RESEARCH - NOT FOR DIAGNOSIS",
    ):
        assert sum(words in line for line in lines) >= 1, words
    assert "Phantom" not in render_tree(report)
    assert "PHANTOM-1" not in render_tree(report)
