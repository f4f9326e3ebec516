"""A real JupyterLab in a real browser: start it, open a notebook, run all, read its cells, talk to its kernel.

`lab` is one server for the session (with pytest-xdist: for the worker). `lab.open(notebook)` gives a `Notebook`, whose kernel
is shut when it is closed. `lab.show(cells)` and `lab.lesson(path)` run cells in a page and a kernel that are kept for the
next call: a page costs 5 to 10 s of a processor, a kernel that imports the panels 5 s. All pages share what the browser has
compiled.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nbformat

ROOT = Path(__file__).resolve().parents[1]
ARGS = [
    *["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    *["--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
    *["--disable-gpu-compositing", "--disable-gpu-rasterization"],  # WebGL alone is drawn by SwiftShader, which is slow
]
READY = """async () => {
  await jupyterapp.restored; const w = jupyterapp.shell.currentWidget; await w.context.ready;
  await w.sessionContext.ready; await w.revealed; await w.sessionContext.session.kernel.info }"""
CELLS = """() => [...jupyterapp.shell.currentWidget.content.model.cells].map((c, i) => ({
  index: i, type: c.type, source: c.sharedModel.source, count: c.executionCount ?? null,
  outputs: c.outputs ? c.outputs.toJSON() : [] }))"""
SENT = """async () => {
  const { content } = jupyterapp.shell.currentWidget, mime = "application/vnd.jupyter.widget-view+json";
  if (!content.rendermime.mimeTypes.includes(mime)) return;
  const manager = await content.rendermime.createRenderer(mime)._manager.promise, end = Date.now() + 120000;
  while ([...manager._modelsSync.values()].some((m) => m._pending_msgs > 0 || m._msg_buffer !== null)) {
    if (Date.now() > end) throw Error("the kernel has not done in 120 s with what the page sent");
    await new Promise((done) => setTimeout(done, 20)) } }"""
WRITE = """async (book) => {
  await jupyterapp.commands.execute("notebook:clear-all-cell-outputs");
  jupyterapp.shell.currentWidget.context.model.fromJSON(book) }"""
FRESH = """
import os
if "panel" in globals() and hasattr(panel, "close"):
    panel.close()
    del panel
if "environment" in globals():
    os.environ.clear()
    os.environ.update(environment)
environment = dict(os.environ)"""
EMPTY = """
from ipywidgets import Widget
Widget.close_all()
%reset -f
import os
environment = dict(os.environ)"""
IMAGES = """(selector) => Promise.all([...document.querySelectorAll(selector)].map(async (img) => {
  await img.decode().catch(() => {}); // one that was replaced meanwhile
  const [w, h] = [img.naturalWidth, img.naturalHeight], c = new OffscreenCanvas(w || 1, h || 1), pen = c.getContext("2d");
  pen.drawImage(img, 0, 0);
  const pick = img.closest("[data-pick]"), box = (pick ?? img).getBoundingClientRect();
  return { rgba: [...pen.getImageData(0, 0, c.width, c.height).data], wide: img.getBoundingClientRect().width, natural: w,
           id: img.dataset.id, alt: img.alt, parent: img.parentElement.className, pick: pick?.dataset.pick,
           middle: box.left + box.width / 2 } }))"""
EXECUTE = """async (code) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel, out = [];
  const future = kernel.requestExecute({ code, store_history: false });
  future.onIOPub = (m) => { if (m.content.text) out.push(m.content.text);
                            if (m.content.traceback) out.push(m.content.traceback.join("\\n")) };
  const reply = await future.done; return { status: reply.content.status, text: out.join("") } }"""


LATE = "[anywidget] Failed to initialize model"  # a script that took over 2 s: `figures.widget` gets over that


def chromium() -> str | None:
    """The Chromium or Chrome of this machine, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CLAE_CHROMIUM") or next((p for p in map(shutil.which, names) if p), None)


def require_chromium() -> str:
    """Its path; without one the test is skipped with the reason, and fails where CI is set."""
    try:
        import playwright  # noqa: F401

        found = chromium()
    except ImportError:
        found = None
    if not found:
        reason = "no Chromium on this machine: install chromium (apt-get install chromium) and playwright (make setup)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return str(found)


class Lab:
    """A JupyterLab server of its own, with settings and history in `folder`, and a browser."""

    def __init__(self, folder: Path, executable: str):
        from playwright.sync_api import sync_playwright

        self.folder, self.token, self.port = folder, secrets.token_hex(16), _free_port()
        self.url = f"http://127.0.0.1:{self.port}/user/student"  # a prefix, as behind JupyterHub
        self._kept: Notebook | None = None
        self.root = folder / "notebooks"
        self.root.mkdir(parents=True)
        self.began = time.perf_counter()
        self.server = self._serve()
        self._wait()
        self._playwright = sync_playwright().start()
        self.browser = self._playwright.chromium.launch(executable_path=executable, headless=True, args=ARGS)
        self.pages = self.browser.new_context(viewport={"width": 1280, "height": 1400})

    def _serve(self) -> subprocess.Popen:
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        names += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
        own = {name: str(self.folder / name.lower()) for name in names}
        labconfig = Path(own["JUPYTER_CONFIG_DIR"]) / "labconfig"
        labconfig.mkdir(parents=True)
        shipped = ROOT / "explore" / "lab_settings" / "labconfig"
        for file in shipped.glob("*.json"):
            shutil.copy(file, labconfig)
        overrides = labconfig / "default_setting_overrides.json"
        settings = json.loads(overrides.read_text()) if overrides.is_file() else {}
        settings.setdefault("@jupyterlab/docmanager-extension:plugin", {})["autosave"] = False
        overrides.write_text(json.dumps(settings))
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={self.port}"]
        command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}", "--expose-app-in-browser"]
        command += [f"--ServerApp.root_dir={self.root}", "--ServerApp.base_url=/user/student/"]
        command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        with open(self.folder / "server.log", "w") as log:
            env = {
                "GOMP_SPINCOUNT": "10000",
                **os.environ,
                **own,
                "PYTHONPATH": path,
            }  # kernel and browser share cores
            return subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def _wait(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.api("GET", "/api/status")
                return
            except OSError:
                if self.server.poll() is not None:
                    break
                time.sleep(0.2)
        raise RuntimeError("JupyterLab did not start:\n" + (self.folder / "server.log").read_text()[-2000:])

    def api(self, method: str, path: str, body: dict | None = None) -> Any:
        """A call of the server's REST interface."""
        headers, data = {"Authorization": f"token {self.token}"}, None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def open(
        self,
        notebook: Path,
        *,
        kernel: str | None = None,
        width: int = 1280,
        height: int = 1400,
        without: str = "",
    ) -> "Notebook":
        """A copy of the notebook in a fresh page; its kernel is started, or is one that runs already (its id); `without`: an extension that this JupyterLab lacks."""
        target = self.root / notebook.name
        shutil.copy(notebook, target)
        if kernel is not None:
            session = {"path": target.name, "name": target.name, "type": "notebook", "kernel": {"id": kernel}}
            self.api("POST", "/api/sessions", session)
        return Notebook(self, target.name, width, height, without, borrowed=kernel is not None)

    def write(self, *cells: str) -> Path:
        """A notebook of these cells."""
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)], metadata={"kernelspec": kernel})
        nbformat.write(book, path := self.folder / f"cells-{secrets.token_hex(4)}.ipynb")
        return path

    def show(self, *cells: str) -> "Notebook":
        """Two cells, run; the first makes `panel`. Page and kernel are kept for the next call, nothing of the panel is."""
        return self._fresh(self.write(*cells), FRESH)

    def lesson(self, path: Path) -> "Notebook":
        """A notebook, run; in the page and the kernel of `show`, in which no name and no widget is left."""
        return self._fresh(path, FRESH + EMPTY)

    def _fresh(self, path: Path, before: str) -> "Notebook":
        if self._kept is None:
            self._kept = self.open(path)
        self._kept.fresh(path, before)
        return self._kept

    def close(self) -> None:
        started = psutil.Process(self.server.pid).children(recursive=True)  # kernels, and the trainings that they began
        for session in self.api("GET", "/api/sessions"):
            with contextlib.suppress(urllib.error.HTTPError):  # its kernel went with another session of the same kernel
                self.api("DELETE", f"/api/sessions/{session['id']}")
        self.browser.close()
        self._playwright.stop()
        self.server.terminate()
        try:
            self.server.wait(10)
        except subprocess.TimeoutExpired:
            self.server.kill()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Notebook:
    """A notebook open in the browser."""

    def __init__(self, lab: Lab, name: str, width: int, height: int, without: str = "", borrowed: bool = False):
        self.lab, self.name, self.size, self.borrowed = lab, name, {"width": width, "height": height}, borrowed
        self.page = lab.pages.new_page()
        self.page.set_viewport_size(self.size)
        self.page.set_default_timeout(120_000)
        if without:
            self.page.route(f"**/lab/extensions/{without}/**", lambda route: route.abort())
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)) if LATE not in str(error) else None)
        workspace = f"w{secrets.token_hex(4)}"  # two pages of one browser in one workspace would load twice
        self.page.goto(f"{lab.url}/lab/workspaces/{workspace}/tree/{name}?token={lab.token}&reset")
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.sessionContext")
        self.page.evaluate(READY)

    def __enter__(self) -> "Notebook":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fresh(self, path: Path, before: str) -> None:
        """Run a notebook's cells as if it had just been opened, but for what the kernel has imported; `before` them, code in the kernel."""
        self.page.mouse.move(0, 0)
        self.page.set_viewport_size(self.size)
        self.theme(False)
        self.execute(before)
        self.page.evaluate(WRITE, json.loads(path.read_text(encoding="utf-8")))
        self.complaints.clear()
        self.run_all()

    def run_all(self) -> list[dict]:
        """Run every cell; returns the cells with their outputs."""
        self.page.evaluate("async () => await jupyterapp.commands.execute('notebook:run-all-cells')")
        return self.cells()

    def cells(self) -> list[dict]:
        return self.page.evaluate(CELLS)

    def errors(self) -> list[str]:
        """Error outputs, code cells that never ran, and panels' banners."""
        found = []
        for cell in self.cells():
            if cell["type"] != "code":
                continue
            found += [f"cell {cell['index']}: {o['ename']}: {o['evalue']}" for o in cell["outputs"] if "ename" in o]
            found += [f"cell {cell['index']} did not run"] if cell["count"] is None and cell["source"].strip() else []
        banners = self.page.locator(".ex-error:visible").all_inner_texts()
        return found + [f"banner: {text}" for text in banners] + [f"page: {text}" for text in self.complaints]

    def ran_well(self) -> None:
        """Assert that no cell failed, no panel shows a banner and nothing was written to stderr, a moment after the last cell."""
        self.execute("pass")  # what the page has sent is done
        self.page.wait_for_timeout(300)
        assert not (found := self.errors()), found
        outputs = [output for cell in self.cells() for output in cell["outputs"]]
        assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []

    def images(self, selector: str) -> list[dict]:
        """The <img> elements on the page: pixels (n, RGBA), shown and natural width, id, alt, parent's class, data-pick."""
        found = self.page.evaluate(IMAGES, selector)
        return [{**img, "rgba": np.array(img["rgba"], np.uint8).reshape(-1, 4)} for img in found]

    def execute(self, code: str) -> str:
        """Run code in the kernel, outside any cell; what it printed. Its exception becomes an AssertionError.

        The kernel has heard by then of all that was done on the page: ipywidgets sends a widget's next value when the
        last one is done with, and the kernel runs callbacks in a thread beside the code.
        """
        self.page.evaluate(SENT)
        reply = self.page.evaluate(EXECUTE, code)
        assert reply["status"] == "ok", reply["text"]
        return reply["text"].strip()

    def theme(self, dark: bool) -> None:
        """Lab's dark or light theme."""
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        wanted = "false" if dark else "true"
        if self.page.evaluate("() => document.body.dataset.jpThemeLight") == wanted:
            return
        self.page.evaluate("(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{wanted}'")
        self.page.wait_for_timeout(300)

    def fit(self, selector: str, width: int, height: int = 1500) -> None:
        """Size the window so that the element is `width` pixels wide; a busy machine lays out late, so until it stays so."""
        self.page.evaluate("() => jupyterapp.shell.collapseLeft()")
        size, off = {"width": width + 200, "height": height}, None
        for turn in range(10):
            self.page.set_viewport_size(size)
            self.page.wait_for_timeout(200 + 100 * turn)
            before, off = off, width - round(self.page.locator(selector).bounding_box()["width"])
            if off == 0 and before == 0:
                return
            size["width"] += off

    def pictures(
        self,
        name: str,
        folder: Path,
        *,
        selector: str = ".ex",
        height: int = 1500,
        look: Callable[[], Any] = lambda: None,
    ) -> None:
        """Screenshots of a panel in both themes, 1000 and 800 px wide, into CLAE_SCREENSHOTS (else `folder`); nothing may stand out at the side.

        `look` is called before each.
        """
        folder = Path(os.environ.get("CLAE_SCREENSHOTS") or folder)
        folder.mkdir(parents=True, exist_ok=True)
        for width in (1000, 800):
            self.fit(selector, width, height)
            for dark in (False, True):
                self.theme(dark)
                path = folder / f"{name}-{'dark' if dark else 'light'}{'' if width == 1000 else '-800'}.png"
                self.page.wait_for_function(  # a change of theme takes it away for a moment
                    "([s, w]) => Math.round(document.querySelector(s)?.getBoundingClientRect().width) === w",
                    arg=[selector, width],
                )
                look()
                box = self.page.locator(selector).bounding_box()
                clip = {"x": box["x"] - 8, "y": box["y"] - 4, "width": width + 16, "height": box["height"] + 8}
                self.page.screenshot(path=path, clip=clip)
                wide = self.page.evaluate(
                    "(s) => { const e = document.querySelector(s); return e.scrollWidth - e.clientWidth }", selector
                )
                assert wide <= 0, f"the panel is {wide} px too wide at {width}"
                assert path.stat().st_size > 20_000

    def kernel(self) -> str:
        """The id of its kernel."""
        return self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.id")

    def close(self) -> None:
        """Close the page and shut its kernel, unless that is another page's too."""
        self.page.close()
        if self.borrowed:
            return
        for session in self.lab.api("GET", "/api/sessions"):
            if session["path"] == self.name:
                self.lab.api("DELETE", f"/api/sessions/{session['id']}")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab and one browser for all tests."""
    server = Lab(tmp_path_factory.mktemp("lab"), require_chromium())
    yield server
    server.close()


def eventually(check: Callable[[], Any], seconds: float = 120) -> Any:
    """What `check` returns once none of its assertions and reads of the page fails: the kernel's messages take time to the screen."""
    from playwright.sync_api import Error

    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, Error):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def says(place: Any, text: str) -> None:
    """Wait until an element (a locator of one) shows the text; a no-break space counts as a space."""

    def shows() -> None:
        assert text in place.inner_text().replace("\xa0", " ")

    eventually(shows)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
