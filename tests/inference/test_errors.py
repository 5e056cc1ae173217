"""The drawn exception tree is the real one."""

import ast
import re
from pathlib import Path

from inference import errors

REPOSITORY = Path(__file__).resolve().parents[2]


def defined() -> dict[str, str]:
    """Every error class of the packages, and its base."""
    found = {}
    for package in ("inference", "dicom_templates", "plugin", "training"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                    found[node.name] = ast.unparse(node.bases[0])
    return found


def drawn() -> dict[str, str]:
    """Every class of the drawing, and the one that it hangs below."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([\s│├└─]+)(\w+Error)\b", line)
        if match is None or ("─" not in line and match[2] != "GenuError"):
            continue
        depth = len(match[1])
        above = [entry for entry in above if entry[0] < depth]
        found[match[2]] = above[-1][1] if above else "Exception"
        above.append((depth, match[2]))
    return found


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn() == defined()
