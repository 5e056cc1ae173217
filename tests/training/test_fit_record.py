"""What run.json keeps of each fit, and what is read of runs that others wrote."""

from training import fit_record


def test_fits_are_told_once_each() -> None:
    first = fit_record.added((), ["genu-train", "fit"])
    assert fit_record.added(first, ["genu-train", "fit"]) == first
    second = fit_record.added(first, ["genu-train", "fit", "--more"])
    about = {"fits": [*second, {**first[0], "versions": {"genu": "0.0.1"}}]}
    assert fit_record.commands(about) == [["genu-train", "fit"], ["genu-train", "fit", "--more"]]
    assert fit_record.versions(about) == [fit_record.installed(), {"genu": "0.0.1"}]


def test_what_others_wrote_is_read() -> None:
    alone = {"command": ["genu-train", "fit", 7], "versions": {"torch": "2.0"}}
    assert fit_record.commands(alone) == [["genu-train", "fit", "7"]]
    assert fit_record.versions(alone) == [{"torch": "2.0"}]
    for about in ({}, {"fits": 7}, {"fits": ["x", {"command": "text", "versions": []}, {}]}, {"command": None}):
        assert (fit_record.commands(about), fit_record.versions(about)) == ([], [])
