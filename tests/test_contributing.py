"""CONTRIBUTING's steps, followed to the letter in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLASSMETHOD = '''
    @classmethod
    def ifgsm(cls, eps: float, *, steps: int = 10, **options: Any) -> "Attack":
        """`steps` sign steps of eps / steps from x (Kurakin et al. 2017, arXiv:1607.02533)."""
        return cls("ifgsm", eps, step=eps / steps, steps=steps, **options)
'''
ROW = '    AttackRow("ifgsm", "I-FGSM", steps=True, dash="longdash", marker="star"),\n'
READER = """
def squares(size: int | None) -> Parts:
    x = torch.arange(40, dtype=torch.uint8).repeat_interleave(256).view(40, 1, 16, 16) * 6
    parts = [Split(resized(x[i::5].contiguous(), size or 16), (x[i::5, 0, 0, 0] > 120).long()) for i in range(5)]
    train = [torch.cat(both) for both in zip(*((p.stored, p.labels) for p in parts[1:]), strict=True)]
    return Parts(Split(*train), parts[0], ["dark", "bright"], gray=True)
"""
SET = '    "squares": Shipped("40 gray squares; made when loaded", "tests/test_contributing.py", "none", squares),\n'
STUDY = '''"""How bright are the images of a data set?"""

from dataclasses import dataclass

import pandas as pd

from ..datasets import load


@dataclass(frozen=True)
class Brightness:
    """Mean pixel values of the first images."""

    values: tuple[float, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row an image."""
        return pd.DataFrame({"image": range(len(self.values)), "brightness": self.values})


def brightness(name: str, n: int) -> Brightness:
    """The brightness of the first n test images, a number in [0, 1] each."""
    x, _ = load(name).test[range(n)]
    return Brightness(tuple(x.mean((1, 2, 3)).tolist()))
'''
PANEL = '''"""A panel that shows how bright the images of a data set are."""

import ipywidgets as w
import traitlets

from ...studies.brightness import brightness
from ..base import Panel
from ..html import tag
from ..page import Content, Table


class Bright(Panel):
    """How bright are the first images?"""

    title, inputs = "Brightness", ("images", "n")
    images = traitlets.Unicode("fashion", help="a data set")
    n = traitlets.Int(3, min=1, max=9, help="how many images")

    def controls(self):
        slider = w.IntSlider(min=1, max=9, description="Images", tooltip="How many images are measured")
        self.connect(slider, "n")
        return [slider]

    def body(self):
        self.said = w.HTML()
        return [self.said]

    def compute(self, job, images, n):
        return brightness(images, n)

    def draw(self, result):
        self.said.value = str(self._said(result))

    def _said(self, result):
        return tag.p(f"mean brightness {sum(result.values) / len(result.values):.4f}", class_="ex-reading")

    def content(self):
        drawn = {n: str(self._said(brightness(self.images, n))) for n in (1, 2, 3)}
        return Content([Table({"n": list(drawn)}, lambda n: [(self.said, "value", drawn[n])])])
'''


def put(path: Path, before: str, text: str) -> None:
    """Insert text before the only place where `before` stands."""
    source = path.read_text()
    assert source.count(before) == 1, (path, before)
    path.write_text(source.replace(before, text + before))


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What one process in the copy says of all that was added to it."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "explore", root / "explore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "data").symlink_to(ROOT / "data")
    put(root / "explore/attacks.py", "\n    @property\n    def single_step", CLASSMETHOD)
    put(root / "explore/attack_table.py", '    AttackRow("gaussian"', ROW)
    put(root / "explore/datasets/shipped.py", "\nSETS = {", READER + "\n")
    put(root / "explore/datasets/shipped.py", '    "emoji": Shipped(', SET)
    put(root / "explore/panels/__init__.py", "    from .noise import", "    from .brightness.panel import Bright\n")
    put(root / "explore/panels/__init__.py", '    "FourAttacks",', '    "Bright",\n')
    (root / "explore/studies/brightness.py").write_text(STUDY)
    (root / "explore/panels/brightness").mkdir()
    (root / "explore/panels/brightness/panel.py").write_text(PANEL)
    (root / "explore/panels/brightness/__init__.py").write_text("")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(ROOT / "tests")])}
    env |= {"CLAE_RUNS": str(root / "runs"), "CLAE_CACHE": str(root / "cache")}
    words = [sys.executable, str(ROOT / "tests" / "added_rows.py")]
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True, timeout=900)
    return done.stdout + (done.stderr[-3000:] if done.returncode else "")


@pytest.mark.parametrize("added", ["attack", "dataset", "panel"])
def test_what_is_added_by_the_steps_is_found_everywhere(said, added):
    assert f"{added} is found everywhere\n" in said, said
