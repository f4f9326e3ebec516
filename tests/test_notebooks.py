"""Every notebook runs from top to bottom, without a browser; where there is one, `test_browser` runs them in it."""

import json
import os
import warnings
from pathlib import Path

import pytest
from browser import chromium

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nbformat
    from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.skipif(chromium() is not None, reason="tests/test_browser.py runs them, in the browser that is here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(path, as_version=4)
    client = NotebookClient(
        book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env=dict(os.environ))
    for cell in book.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")
    text = json.dumps(book)
    assert "panel-error" not in text and 'role=\\"alert\\"' not in text


def test_the_readmes_cell_runs():
    text = (NOTEBOOKS[0].parent.parent / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    place: dict = {}
    exec(compile(code, "README.md", "exec"), place)
    clean, noisy, adversarial = (float(place["apart"](place[name]).mean()) for name in ("x", "noisy", "x_adv"))
    assert adversarial > clean and adversarial > noisy
    place["panel"].close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_answers_a_predict_is_folded(path):
    """A cell before the text with the answer folds its output; the text is folded too."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(path, as_version=4).cells]
    asked = [i for i, (kind, text) in enumerate(cells) if kind == "markdown" and "**Predict" in text]
    assert asked or path.stem.startswith("00")
    for i in asked:
        answer = next(j for j in range(i + 1, len(cells)) if "What you should see" in cells[j][1])
        shown = [text for kind, text in cells[i + 1 : answer] if kind == "code"]
        assert any("ex.course.fold()" in code.splitlines() for code in shown), f"cells {i + 1} to {answer - 1}"
        assert "<summary><b>What you should see" in cells[answer][1]
