"""`make train-demo` and `make train-demo-mri` end with an error when what was planted is not recovered."""

import os
import subprocess
from pathlib import Path

import pytest

# Stands for Python: keeps the words, leaves a film and an examination behind, and can fail to recover.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$*" >> "$LOG"
case "$*" in
*"synth mrkr"*) mkdir -p "$OUT/mrkr/images" && : > "$OUT/mrkr/images/a.dcm" ;;
*"synth oai"*) mkdir -p "$OUT/arrival/images/00m" && : > "$OUT/arrival/images/00m/001" ;;
*" recover "*) exit "$RECOVERS" ;;
esac
"""


def demo(script: str, folder: Path, *, recovers: int) -> tuple[int, str, list[str]]:
    """Its exit code, what it said of errors, and the commands that it ran."""
    python, log, out = folder / "python", folder / "log", folder / "out"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    told = {"PYTHON": str(python), "LOG": str(log), "OUT": str(out), "RECOVERS": str(recovers)}
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    place = Path(__file__).parents[2]
    done = subprocess.run(
        ["sh", f"training/{script}", str(out)], cwd=place, env=kept | told, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr, log.read_text().splitlines()


@pytest.mark.parametrize("script", ["demo.sh", "demo_mri.sh"])
def test_what_is_not_recovered_is_an_error_in_the_end(tmp_path: Path, script: str) -> None:
    for name in ("found", "missed"):
        (tmp_path / name).mkdir()
    code, said, done = demo(script, tmp_path / "found", recovers=0)
    assert (code, said) == (0, "")
    words = [line.split()[2] for line in done if line.startswith("-m training.cli ")]
    assert "recover" in words and words.index("recover") < words.index("report") < words.index("export")
    code, said, again = demo(script, tmp_path / "missed", recovers=2)
    assert code == 1 and "Not all that was planted is recovered" in said
    assert len(again) == len(done), "the report and the bundle are made all the same"
