"""Key to picture in the perturbation lab: from the key press to the frame that shows another picture, in a real browser.

`instant`: FGSM, which the browser draws itself. `kernel`: PGD with the panel's three steps, 32 images, every eps computed when
asked for; `one gradient`: F-FGSM, likewise. `ahead`: PGD as it is used, the other eps computed while nothing was asked.
"""

import platform
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat

from explore.errors import UserError

CELL = """import explore as ex
panel = ex.panels.Perturbation(ex.open_run("demo/clae"), attack={attack!r}, k=0)
{extra}
panel"""
WATCH = """() => {
  const canvas = document.querySelector('canvas[data-id="adv-p"]'), pen = canvas.getContext("2d");
  const hash = () => pen.getImageData(0, 0, canvas.width, canvas.height).data.reduce((h, b) => (h * 31 + b) | 0, 7);
  let began = null, before = 0;
  window.keyToPicture = [];
  document.addEventListener("keydown", () => { began = performance.now(); before = hash(); }, true);
  const after = new MessageChannel(); // its message comes when the frame is done
  after.port1.onmessage = () => {
    if (began !== null && hash() !== before) { window.keyToPicture.push(performance.now() - began); began = null; }
  };
  const frame = () => { after.port2.postMessage(0); requestAnimationFrame(frame); };
  frame();
}"""


def run(quick: bool, device: str) -> dict[str, object]:
    """Milliseconds of `presses` key presses each way; the kernel computes on the CPU."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import browser

    executable = browser.chromium()
    if executable is None:
        raise UserError("This benchmark needs a Chromium: apt-get install chromium, or set CLAE_CHROMIUM.")
    ways = {
        "instant": ("FGSM", ""),
        "one gradient": ("F-FGSM", "panel.idle = lambda: False"),
        "kernel": ("PGD", "panel.idle = lambda: False"),
        "ahead": ("PGD", ""),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        lab = browser.Lab(Path(folder), executable)
        try:
            times = {name: _presses(lab, attack, extra, 1 if quick else 3) for name, (attack, extra) in ways.items()}
        finally:
            lab.close()
    print(f"{'key to picture, ms':<22}{'median':>8}{'p95':>8}{'max':>8}{'presses':>9}")
    for name, each in times.items():
        print(f"{name:<22}{statistics.median(each):>8.1f}{_p95(each):>8.1f}{max(each):>8.1f}{len(each):>9}")
    return {
        "median_ms": statistics.median(times["kernel"]),
        "p95_ms": _p95(times["kernel"]),
        "instant_median_ms": statistics.median(times["instant"]),
        "instant_p95_ms": _p95(times["instant"]),
        "one_gradient_median_ms": statistics.median(times["one gradient"]),
        "one_gradient_p95_ms": _p95(times["one gradient"]),
        "ahead_median_ms": statistics.median(times["ahead"]),
        "ahead_p95_ms": _p95(times["ahead"]),
        "machine": platform.machine(),
        "quick": quick,
    }


def _presses(lab, attack: str, extra: str, rounds: int) -> list[float]:
    """Sixteen presses of the right arrow from eps = 0 a round, another seed each round."""
    cell = nbformat.v4.new_code_cell(CELL.format(attack=attack, extra=extra))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = lab.folder / "bench.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    with lab.open(path) as notebook:
        page = notebook.page
        notebook.run_all()
        page.wait_for_selector(".ex-pixels[data-k='0']")
        notebook.execute("panel.wait()")
        page.wait_for_timeout(1000)
        page.evaluate(WATCH)
        for seed in range(rounds):
            ahead = "" if extra else "\nimport time\nwhile panel._complete is not panel._outcome: time.sleep(0.05)"
            notebook.execute(f"panel.k, panel.seed = 0, {seed + 1}\npanel.wait(){ahead}")
            page.wait_for_selector(".ex-pixels[data-k='0']:not(.waiting)")
            page.wait_for_timeout(500)
            page.locator(".ex-eps .noUi-handle").focus()
            for k in range(1, 17):
                done = page.evaluate("() => window.keyToPicture.length")
                page.keyboard.press("ArrowRight")
                page.wait_for_function(f"() => window.keyToPicture.length > {done}")
                page.wait_for_selector(f".ex-pixels[data-k='{k}']:not(.waiting)")
                notebook.execute("panel.wait()")
                page.wait_for_timeout(150)
        assert notebook.errors() == [], notebook.errors()
        return page.evaluate("() => window.keyToPicture")


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]
