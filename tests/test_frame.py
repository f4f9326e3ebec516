"""The house itself: layers, light imports, one list of dependencies, notebooks and documents in order."""

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from explore.errors import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FLOORS = [
    {"errors", "types", "paths", "sources", "attack_table"},
    {"serialization", "incoming", "environment", "system"},
    {"config", "results", "random", "convolutions", "cuda_graph", "threads"},
    {"trunk"},
    {"nets", "attacks", "losses", "views", "datasets"},
    {"distributed", "patches", "checkpoints", "onnx_export"},
    {"runfolder", "objectives", "steps"},
    {"perturbation", "recorder", "monitor"},
    {"training", "evaluate", "maps", "attribution", "doctor", "lab"},
    {"experiments"},
    {"studies", "figures", "course"},
    {"panels", "site"},
]
SAME_FLOOR = {("training", "evaluate")}  # live kNN while training
ONLY = {"ipywidgets": {"panels"}, "anywidget": {"panels", "figures"}, "plotly": {"figures"}, "umap": {"maps"}}
ONLY["captum"] = {"attribution"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "explore").parts[0].removesuffix(".py")


def imports(path: Path):
    """(room, top-level package) of every import in a file, relative ones resolved to rooms."""
    depth = len(path.relative_to(ROOT / "explore").parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                if node.level <= depth:  # within a room's own folder
                    continue
                names = [base.split(".")[0]] if base else [a.name for a in node.names]
                yield from (("explore", name) for name in names)
            elif base.split(".")[0] == "explore":
                inner = base.split(".")[1:2] or [a.name for a in node.names]
                yield from (("explore", name) for name in inner)
            else:
                yield base.split(".")[0], ""
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], ""


def test_imports_go_down_only():
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for path in sorted((ROOT / "explore").rglob("*.py")):
        room = room_of(path)
        if room in ("__init__", "__main__", "cli"):
            continue
        assert room in floor, f"{room} stands on no floor: add it to FLOORS here and in ARCHITECTURE.md"
        for package, target in imports(path):
            inside = package == "explore" and target in floor and target != room
            if inside and (room, target) not in SAME_FLOOR and floor[target] >= floor[room]:
                wrong.append(f"{room} -> {target}")
            if package in ONLY and room not in ONLY[package]:
                wrong.append(f"{room} imports {package}")
    assert not wrong


def test_every_room_has_its_line_in_the_architecture():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = {room_of(p) for p in (ROOT / "explore").rglob("*.py")} - {"__init__", "__main__"}
    assert not [room for room in sorted(rooms) if f"| {room} |" not in text]


def run(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, *words, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    """Beside torch, `import explore` imports itself and the standard library: what is slow to import waits for its first use."""
    code = "import sys, torch; before = set(sys.modules); import explore; print(*set(sys.modules) - before)"
    assert {name.split(".")[0] for name in run(code).split()} <= {"explore", *sys.stdlib_module_names}


BLOCK = """
import builtins, sys
real = builtins.__import__
def walled(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name.split('.')[0] in {blocked!r}:
        raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = walled
"""


def test_training_needs_few_packages(tmp_path):
    """The command line trains where nothing else is installed."""
    needed = {"torch", "torchvision", "pillow", "numpy", "pandas", "safetensors", "filelock"}  # torch brings filelock
    listed = dependencies() + dependencies("notebooks") + dependencies("lab")
    others = {MODULES.get(name, name) for name in listed if name not in needed}
    blocked = sorted(others | {"IPython", "jaxtyping", "beartype", "sklearn", "matplotlib", "pooch"})
    code = BLOCK.format(blocked=blocked) + (
        "from explore.cli import main\n"
        f"sys.exit(main(['train', '--smoke', '--runs-dir', {str(tmp_path)!r}]) or main(['runs']))"
    )
    assert "kNN" in run(code)


MODULES = {
    "pillow": "PIL",
    "ipython": "IPython",
    "umap-learn": "umap",
    "scikit-learn": "sklearn",
}  # packages whose module has another name
OPTIONAL = {
    "ray": "cluster",
    "timm": "lars",
    "jaxtyping": "test",
    "latex2mathml": "site",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
}  # and the extra that has them; imports are guarded
NOT_IMPORTED = {
    "jupyterlab",
    "nbformat",
}  # a figure shows itself by nbformat; `python -m jupyterlab` is what `explore lab` starts
TOOLS = {
    "ruff",
    "mypy",
    "pytest-xdist",
    "pytest-cov",
    "hatchling",
    "notebook",
    "voila",
}  # started by make, or by a test


def dependencies(extra: str | None = None) -> list[str]:
    """The packages that pyproject.toml declares: for explore/, or for one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [re.split(r"[<>=]", d)[0] for d in listed]


def packages(node: ast.AST) -> set[str]:
    """Third-party top-level modules that a piece of code imports, anywhere in it."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            found |= {alias.name.split(".")[0] for alias in each.names}
        elif isinstance(each, ast.ImportFrom) and not each.level:
            found.add(str(each.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"explore"} - {path.stem for path in (ROOT / "tests").glob("*.py")}


def trees(folder: str) -> list[ast.AST]:
    return [ast.parse(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))]


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    imported = set().union(*map(packages, trees("explore")))
    core, notebooks, lab = ({MODULES.get(n, n) for n in dependencies(part)} for part in (None, "notebooks", "lab"))
    declared = core | notebooks | lab
    assert imported - set(OPTIONAL) | NOT_IMPORTED == declared
    assert {EXTRAS[name] for name in notebooks} == {"notebooks"} and {EXTRAS[name] for name in lab} == {"lab"}
    assert not core & set(EXTRAS) and dependencies("all") == ["clae-explorer[notebooks,lab]"]
    assert {extra: name in dependencies(extra) for name, extra in OPTIONAL.items()} == dict.fromkeys(
        OPTIONAL.values(), True
    )
    tests = set().union(*map(packages, trees("tests")))
    extra = {MODULES.get(name, name) for name in dependencies("test") if name not in TOOLS}
    assert tests - declared - set(OPTIONAL) - extra == set() and extra <= tests


def test_packages_of_extras_are_imported_where_a_missing_one_is_named():
    """Within `with extra(...)`, or in panels and figures, which import all of theirs so."""
    for path in sorted((ROOT / "explore").rglob("*.py")):
        tree = ast.parse(path.read_text())
        guards = [
            node for node in ast.walk(tree) if isinstance(node, ast.With) and "id='extra'" in ast.dump(node.items[0])
        ]
        guarded = {id(node) for guard in guards for node in ast.walk(guard)}
        doors = path.name == "__init__.py" and path.parent.name in ("panels", "figures")
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in guarded:
                if doors:
                    assert isinstance(node, ast.ImportFrom) and node.module == "errors", path
                elif room_of(path) not in ("panels", "figures"):
                    assert not packages(node) & set(EXTRAS), path


def test_imports_of_optional_packages_alone_are_guarded():
    guarded, everywhere = [], []
    for tree in trees("explore"):
        everywhere += [
            name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for name in packages(node)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Try) and any("ImportError" in ast.dump(h.type) for h in node.handlers if h.type):
                guarded += [name for part in node.body for name in packages(part)]
    assert set(guarded) == set(OPTIONAL)
    assert all(guarded.count(name) == everywhere.count(name) for name in OPTIONAL)


def test_one_list_of_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "environment.yml").read_text().split("- pip:\n")[1]
    conda = [line.strip().removeprefix("- ") for line in lines.splitlines() if line.strip()]
    extras = project["optional-dependencies"]
    assert conda == project["dependencies"] + extras["notebooks"] + extras["lab"]
    python = re.search(r"- python(\S+)", (ROOT / "environment.yml").read_text()).group(1)
    assert python == project["requires-python"]
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    listed = itertools.chain(*map(dependencies, (None, "notebooks", "lab", "test")))
    assert {name.lower() for name in listed} <= pins


def test_the_cards_layout():
    for name in ("notebooks", "explore", "data", "tests", "benchmarks"):
        assert (ROOT / name).is_dir()
    for name in (
        "environment.yml",
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LOG.md",
        "LICENSE",
        "CITATION.cff",
    ):
        assert (ROOT / name).is_file()
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def committed(path: Path) -> str:
    """A file as git has it staged: a learner's own outputs, saved in the folder, are no fault of the project's."""
    shown = subprocess.run(["git", "show", f":./{path.name}"], cwd=path.parent, capture_output=True, text=True)
    return shown.stdout if shown.returncode == 0 else path.read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_clean_and_readable(path):
    book = json.loads(committed(path))
    assert book["metadata"].get("widgets") is None and book["metadata"]["kernelspec"]["name"] == "python3"
    cells = book["cells"]
    assert "".join(cells[0]["source"]).startswith("# ") and "?" in "".join(cells[0]["source"])  # title and question
    for before, cell in itertools.pairwise(cells):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert before["cell_type"] == "markdown"
            lines = "".join(cell["source"]).splitlines()
            assert len([line for line in lines if line != "ex.course.fold()"]) <= 8


def test_every_link_and_picture_of_the_documents_is_there():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/**/*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} points to {target}"


@pytest.mark.parametrize(
    "name", ["README.md", "LOG.md", "RESULTS.md", "docs/benchmarks.md", "docs/hosts.md", "docs/paper.md"]
)
def test_documents_wrap_at_100_characters(name):
    """Outside tables, code and HTML."""
    text = re.sub(r"(?ms)^```.*?^```$", "", (ROOT / name).read_text())
    assert not [line for line in text.splitlines() if len(line) > 100 and not line.startswith(("|", "<", "  <"))]


def test_readme_commands_exist():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^(\w[\w ]*):", (ROOT / "Makefile").read_text(), re.M)
    known = {word for line in targets for word in line.split()}
    assert set(re.findall(r"`?\bmake (\w+)", text)) <= known
    from explore.cli import _parser

    for line in re.findall(r"^python -m explore (.+)$", text, re.M):
        _parser().parse_args(line.split("#")[0].split())


def test_every_public_name_is_there_and_explains_itself():
    import explore as ex

    for name in ex.__all__:
        thing = getattr(ex, name)
        assert name == "__version__" or (thing.__doc__ and not thing.__doc__.startswith(f"{name}(")), name
    assert set(ex.__all__) <= set(dir(ex))
    with pytest.raises(AttributeError, match="has no 'fgsm'"):
        ex.fgsm
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ex.__version__ == project["version"]
    assert f"## {ex.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_source_shows_the_real_code():
    import explore as ex

    shown = ex.source(ex.chance)
    assert shown.startswith("def chance(") and shown._repr_markdown_().startswith("```python\n")
    assert "def __call__" in ex.source(ex.Attack.__call__)
