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


def put(path: Path, before: str, text: str) -> None:
    """Insert text before the only place where `before` stands."""
    source = path.read_text()
    assert source.count(before) == 1, (path, before)
    path.write_text(source.replace(before, text + before))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "explore", root / "explore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "data").symlink_to(ROOT / "data")
    put(root / "explore/attacks.py", "\n    @property\n    def single_step", CLASSMETHOD)
    put(root / "explore/attack_table.py", '    AttackRow("gaussian"', ROW)
    put(root / "explore/datasets/shipped.py", "\nSETS = {", READER + "\n")
    put(root / "explore/datasets/shipped.py", '    "emoji": Shipped(', SET)
    return root


@pytest.mark.parametrize("added", ["attack", "dataset"])
def test_what_is_added_by_the_steps_is_found_everywhere(copy, added):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(ROOT / "tests")])}
    env |= {"CLAE_RUNS": str(copy / "runs"), "CLAE_CACHE": str(copy / "cache")}
    words = [sys.executable, str(ROOT / "tests" / "added_rows.py"), added]
    done = subprocess.run(words, cwd=copy, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and done.stdout.endswith("found everywhere\n"), done.stderr[-3000:]
