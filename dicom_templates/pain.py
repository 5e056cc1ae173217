"""Predicted pain in words, for reports, heatmaps and pages.

A score predicted from an image is not the score that a patient gives: the coded name is our own, never that of a
reported score (LOINC 72514-3, which only the algorithm's parameters name, as what was learnt from), and wherever the
number stands the words "predicted from image, not patient-reported" stand with it.
"""

from typing import Final

from inference.findings import PainFinding

ORIGIN: Final = "predicted from image, not patient-reported"


def rounded(pain: PainFinding) -> tuple[float, float, float]:
    """Score, low and high as they are told everywhere: in hundredths of a point."""
    return round(pain.score, 2), round(pain.low, 2), round(pain.high, 2)


def pain_words(pain: PainFinding) -> str:
    """The score with its interval, in tenths of a point; without the origin."""
    score, low, high = rounded(pain)
    return f"{score:.1f} of 10 ({100 * pain.coverage:.0f} % interval {low:.1f} to {high:.1f})"


def pain_sentence(pain: PainFinding) -> str:
    """What is burned into a heatmap and stands on pages, in ASCII."""
    return f"Predicted pain {pain_words(pain)}, {ORIGIN}"
