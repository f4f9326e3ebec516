"""The example script trains, and the examples in docstrings give what they print."""

import runpy
import sys
from pathlib import Path

import pytest

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
