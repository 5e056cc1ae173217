"""docs/performance.md: a measurement by itself changes its own table and no other."""

from tests.bench.__main__ import BEGIN, END, PAGE, SECTIONS, merged, table


def test_single_tables_replace_their_own() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert merged(page, {}, "") == page
    title, columns, _ = SECTIONS["index"]
    new = table(title, columns, [("a loop", "7 files/s", "1.0")], "By itself.")
    changed = merged(page, {title: new}, "")
    assert changed.count("### ") == page.count("### ")
    assert f"### {title}\n\nBy itself.\n" in changed and "| a loop | 7 files/s | 1.0 |\n" in changed
    kept = [part for part in page.split("\n### ") if not part.startswith(title)]
    assert all(part.removesuffix("\n") in changed for part in kept)


def test_a_whole_run_replaces_all() -> None:
    title, columns, _ = SECTIONS["score"]
    new = table(title, columns, [("a", "1 s", "1.0")])
    page = merged(f"before\n{BEGIN}\nold\n\n### Old\n\n| x |\n{END}\nafter\n", {title: new}, "\nMeasured now.\n")
    assert page == f"before\n{BEGIN}\nMeasured now.\n{new}{END}\nafter\n"
