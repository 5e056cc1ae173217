"""The documentation is complete and current: commands, settings, refusal codes, errors, links, spelling."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import plugin.cli
from dicom_templates import codes
from inference import errors
from inference.findings import RefusalCode, StudyStatus
from plugin.settings import Settings
from tests import reference

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_reference_of_commands_is_current() -> None:
    assert page("commands.md") == reference.render(), "run `make docs`"


def test_the_table_of_codes_is_current() -> None:
    assert page("codes.md") == codes.markdown(), "run `make docs`"


@pytest.mark.parametrize("parser", reference.parsers(), ids=lambda p: p.prog)
def test_every_command_and_option_has_a_sentence(parser: object) -> None:
    commands = reference.subcommands(parser)  # type: ignore[arg-type]
    assert commands
    for name, command in commands.items():
        assert reference.summaries(parser)[name], name  # type: ignore[arg-type]
        silent = [action.dest for action in reference.options(command) if not action.help]
        assert not silent, f"{name}: say what {silent} mean"


def test_every_command_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for parser in reference.parsers():
        missing = [name for name in reference.subcommands(parser) if f"{parser.prog} {name}" not in readme]
        assert set(missing) <= {"deliver"}, missing


def settings_names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_names(field.annotation)
        else:
            yield name


def test_every_setting_is_documented() -> None:
    text = page("settings.md")
    missing = [name for name in settings_names(Settings) if f"`{name}`" not in text]
    assert not missing


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_code_is_explained(code: RefusalCode) -> None:
    assert re.search(rf"^\| `{code.value}` \| .+ \| .+ \|$", page("results.md"), re.MULTILINE)


@pytest.mark.parametrize("status", StudyStatus)
def test_every_status_is_explained(status: StudyStatus) -> None:
    assert re.search(rf"^\| `{status.value}` \| .+ \|$", page("results.md"), re.MULTILINE)


def test_every_error_class_is_in_the_tree_and_in_the_page() -> None:
    text = page("errors.md")
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.GenuError):
            assert f"`{name}`" in text, f"docs/errors.md says nothing of {name}"
            assert name in (errors.__doc__ or ""), f"the drawn tree of inference.errors lacks {name}"


def test_errors_of_other_modules_are_documented_where_they_are() -> None:
    for path in sorted((ROOT / "plugin").rglob("*.py")):
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, errors.GenuError) and kind.__module__ == module.__name__:
                assert f"`{name}`" in page("errors.md"), f"docs/errors.md says nothing of {module.__name__}.{name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not broken


def test_every_page_is_in_the_index() -> None:
    index = page("README.md")
    missing = [
        path.name for path in sorted(DOCS.glob("*.md")) if path.name != "README.md" and f"]({path.name})" not in index
    ]
    assert not missing


def test_every_make_target_of_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in PAGES:
        named = set(
            re.findall(r"`make ([a-z-]+)[^`]*`|^    make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert {first or second for first, second in named} <= targets, path.name


AMERICAN = re.compile(
    r"\b(normaliz|recogniz|color\b|gray\b|center\b|behavior|artifact|analyz|initializ|serializ)", re.IGNORECASE
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_spelling_is_british(path: Path) -> None:
    # Code spans keep the names of the standard and of libraries.
    prose = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not AMERICAN.findall(prose)


def test_nothing_committed_names_the_place_where_it_was_written() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    place = re.compile(rb"/work/|/root/|/home/[a-z]")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".json", ".sql", ""} and path.is_file() and name != ".gitignore":
            assert name == "tests/test_docs.py" or not place.search(path.read_bytes()), name


def test_module_docstrings_name_commands_that_exist() -> None:
    for path in sorted((ROOT / "plugin").rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        named = set(re.findall(r"`genu ([a-z]+)", text))
        assert named <= set(reference.subcommands(plugin.cli.build_parser())), path.name


def test_help_is_quick_and_needs_no_torch() -> None:
    program = (
        "import sys, plugin.cli\n"
        "try: plugin.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False).returncode == 0
