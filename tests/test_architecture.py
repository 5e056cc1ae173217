"""The rules of the house that a program can read: who imports whom, where torch may enter, what nobody writes."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("inference", "dicom_templates", "plugin", "training")

# package -> the modules of ours that it may import besides its own; a trailing dot means everything below.
ARROWS: dict[str, tuple[str, ...]] = {
    "inference": (),
    "dicom_templates": ("inference.findings", "inference.mr_findings", "inference.errors"),
    "plugin": ("inference.", "dicom_templates."),
    "training": ("inference.",),
}

TORCH_FREE = (
    "inference",
    "inference.findings",
    "inference.errors",
    "inference.reading",
    "inference.studies",
    "inference.pixels",
    "inference.manifest",
    "inference.installed",
    "inference.clinical",
    "inference.mr_choice",
    "inference.mr_findings",
    "inference.slice_manifest",
    "inference.venn_abers",
    "inference.volumes",
    "dicom_templates.compose",
    "dicom_templates.tree",
    "plugin.listener",
    "plugin.supervisor",
    "plugin.jobs",
    "plugin.settings",
    "plugin.destinations",
    "plugin.dicomweb",
    "plugin.commands.score",
    "plugin.commands.explain",
    "plugin.deliverer",
    "plugin.cli",
    "plugin.results",
    "plugin.fetching",
    "plugin.explain",
    "plugin.worker",
    "plugin.doctor",
    "plugin.orthanc_doctor",
    "plugin.demo",
    "plugin.viewer",
    "plugin.web",
    "plugin.dicomweb",
    "plugin.orthanc_api",
    "plugin.changes",
    "plugin.routes",
    "plugin.sidecar",
    "plugin.sidecar_link",
    "plugin.orthanc_plugin",
)

# What is loaded into Orthanc's process: the plugin and what it brings with it. Orthanc's Python lacks Genu's packages.
IN_ORTHANC = ("orthanc_plugin", "orthanc_start", "sidecar_link", "sidecar_lines", "boundary")

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PARSED = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in MODULES}


def each_module(*, name: str = "path") -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def imported(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, at any depth; relative imports made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from inference import predictor` imports inference.predictor: take the longer name where it is a module.
            for alias in node.names:
                longer = f"{module}.{alias.name}"
                yield node.lineno, longer if _is_module(longer) else module


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@each_module()
def test_the_arrows_of_the_house_hold(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    wrong = [
        f"line {line}: {name}"
        for line, name in imported(path, PARSED[path])
        if (target := name.split(".")[0]) in (*PACKAGES, "tests")
        and target != own
        and not any(
            name == allowed or (name + ".").startswith(allowed) for allowed in ARROWS[own] if allowed[-1] == "."
        )
        and name not in ARROWS[own]
    ]
    assert not wrong, f"{own} may import {ARROWS[own] or 'nothing of ours'}; found {wrong}"


def test_torch_enters_none_of_the_modules_that_must_stay_light() -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'{name} brought in {sorted(heavy)}')\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@each_module()
def test_only_the_orthanc_plugin_imports_orthanc(path: Path) -> None:
    if path.name == "orthanc_plugin.py":
        return
    assert not [name for _, name in imported(path, PARSED[path]) if name.split(".")[0] == "orthanc"]


@pytest.mark.parametrize("name", IN_ORTHANC)
def test_orthanc_is_given_the_standard_library_alone(name: str) -> None:
    path = ROOT / "plugin" / f"{name}.py"
    allowed = {"plugin", "orthanc", *(f"plugin.{one}" for one in IN_ORTHANC)}
    found = {module for _, module in imported(path, PARSED[path])}
    foreign = {module for module in found if module.split(".")[0] not in sys.stdlib_module_names}
    assert foreign <= allowed, f"{sorted(foreign - allowed)}: none of Genu's packages may be needed inside Orthanc"


def test_the_plugin_loads_into_a_bare_python_and_brings_nothing_with_it() -> None:
    # -S: no site-packages, as inside Orthanc.
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import plugin.orthanc_plugin\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('plugin', 'inference')))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"plugin", *(f"plugin.{name}" for name in IN_ORTHANC)}


@each_module()
def test_only_the_queue_speaks_sql(path: Path) -> None:
    tree = PARSED[path]
    if any(name.split(".")[0] == "sqlite3" for _, name in imported(path, tree)):
        assert path.parts[-2:] == ("plugin", "database.py"), "sqlite3 is imported by plugin.database only"
    statement = re.compile(r"^\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b")
    inline = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and statement.match(node.value)
    ]
    assert not inline, f"SQL belongs into a .sql file, named; found in lines {inline}"


@each_module()
def test_nobody_catches_everything(path: Path) -> None:
    broad = [
        node.lineno
        for node in ast.walk(PARSED[path])
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or any(
                isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in ast.walk(node.type)
            )
        )
    ]
    assert not broad, f"name the exceptions that are meant, in lines {broad}"


# Published ImageNet weights come as .pth; torch's reader of tensors only runs none of their code.
TENSORS_ONLY = "training/lite_weights.py"


@each_module()
def test_nothing_is_unpickled(path: Path) -> None:
    unsafe = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not unsafe & {name.split(".")[0] for _, name in imported(path, PARSED[path])}
    loads = [
        node.lineno
        for node in ast.walk(PARSED[path])
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and not (path.as_posix().endswith(TENSORS_ONLY) and "weights_only=True" in map(ast.unparse, node.keywords))
    ]
    assert not loads, f"torch.load unpickles; weights are safetensors (lines {loads})"


@each_module()
def test_modules_and_functions_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines: look for the second concept"
    long = [
        f"{node.name} ({length} lines)"
        for node in ast.walk(PARSED[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 60
    ]
    assert not long, f"look for the second concept in {long}"


@each_module()
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(PARSED[path]), "a module begins with what it is for"


def test_the_packages_are_all_there() -> None:
    # Guards the parametrised tests above against passing over nothing.
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
