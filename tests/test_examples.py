"""The example script trains, and the examples in docstrings give what they print."""

import ast
import doctest
import importlib
import runpy
import sys
from pathlib import Path

import pytest
import torch

import explore as ex

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = ("images=1024", "epochs=1", "batch_size=64", "width=8")


@pytest.mark.parametrize("words", [SMALL, (*SMALL, "attack=none")], ids=["clae", "simclr"])
def test_the_example_script_trains(words, monkeypatch, capsys):
    path = EXAMPLES / "simclr_in_60_lines.py"
    assert len(path.read_text().splitlines()) <= 60
    monkeypatch.setattr(sys, "argv", [path.name, *words])
    ran = runpy.run_path(str(path), run_name="__main__")
    half = len(ran["losses"]) // 2
    clean, adversarial = (sum(values) / half for values in zip(*ran["losses"][half:], strict=True))
    assert clean < ran["chance"] == pytest.approx(ex.chance(64))
    assert clean == adversarial if "attack=none" in words else adversarial > clean
    assert ran["knn"].accuracy > 0.4 and ran["probe"].top1 > 0.4  # ten classes
    assert "linear probe" in capsys.readouterr().out


HOMES = sorted(set(ex._HOME.values()))
WITHOUT = {  # public names whose example would be long or slow; the lessons and the README show them
    "TrainConfig",
    "parse_eps",
    "Run",
    "open_run",
    "runs",
    "train",
    "perturb",
    "robust_accuracy",
    "transfer",
    "diagnose",
}


def examples() -> dict[str, doctest.DocTest]:
    """Every example in a docstring of the modules behind the public names, by its place."""
    found = {}
    for home in HOMES:
        package = importlib.import_module(f"explore.{home}")
        inner = {getattr(package, name).__module__ for name, of in ex._HOME.items() if of == home}
        for module in sorted({package.__name__, *inner}):
            for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
                if test.examples:
                    found[test.name] = test
    return found


@pytest.mark.parametrize("name", examples())
def test_the_examples_of_the_docstrings_give_what_they_print(name, capsys):
    """They use `ex` and `torch` as every lesson imports them."""
    test = examples()[name]
    test.globs = {"ex": ex, "torch": torch}
    failed, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert not failed, capsys.readouterr().out


def test_every_public_name_has_an_example():
    shown = {name.rsplit(".", 1)[-1] for name in examples()}
    assert {name for name in ex._HOME if name not in shown} <= WITHOUT


WRAPPED = (
    "attacks",
    "nets",
    "losses",
    "views",
    "objectives",
    "steps",
    "doctor",
    "lab",
    "sources",
    "paths",
    "random",
    "types",
)
WRAPPED_ROOMS = ("course", "maps", "attribution", "datasets", "results", "figures")


def test_docstrings_wrap_at_100_characters():
    root = Path(ex.__file__).parent
    paths = [root / f"{name}.py" for name in WRAPPED] + [
        p for room in WRAPPED_ROOMS for p in (root / room).glob("*.py")
    ]
    for path in paths:
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                said = lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
                assert max(map(len, said)) <= 100, f"{path.name}: {max(said, key=len)}"
