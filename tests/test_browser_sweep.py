"""Noise or adversary in a real JupyterLab and a real browser: controls, clicks, keys, points computed in the background, themes."""

import base64
import json
import re

import numpy as np
import pytest
from browser import Notebook, eventually, says
from dataset_files import noise
from PIL import Image

import explore as ex
from explore import paths
from explore.results import Sweep
from explore.runfolder import Run, build_encoder
from explore.studies import run_grid, train_eps_cells

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CELL = """import os
os.environ["CLAE_RUNS"] = {runs!r}
import explore as ex
panel = ex.panels.NoiseOrAdversary({study!r}, "mine", images=15)
panel"""
SHIPPED = """import explore as ex
panel = ex.panels.{name}()
panel"""
LOOK = "panel.result.table.head()"
CHART = """() => { const gd = document.querySelector('.ex .js-plotly-plot');
  return gd.data.filter((t) => t.name && t.x?.length).map((t) => ({ name: t.name, x: [...t.x], y: [...t.y], keys: t.customdata })) }"""
PLACE = """([name, i]) => { const gd = document.querySelector('.ex .js-plotly-plot'), t = gd.data.find((t) => t.name === name);
  const box = gd.getBoundingClientRect(), { xaxis, yaxis } = gd._fullLayout;
  return [box.left + xaxis._offset + xaxis.l2p(t.x[i]), box.top + yaxis._offset + yaxis.l2p(t.y[i])] }"""
FILM = ".ex-film button img"
TICKS = """() => { const gd = document.querySelector('.ex .js-plotly-plot'), a = gd._fullLayout.xaxis, left = gd.getBoundingClientRect().left;
  return Object.fromEntries([0, 2, 4, 6, 8, 10, 12, 14, 16].map((k) => [k, left + a._offset + a.l2p(k)])) }"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> dict[str, str]:
    """A study of SimCLR, an adversary at 4 and 8 and Gaussian noise at 8, two seeds, really trained on 45 images; and a run 'mine'."""
    folder, runs = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("runs")
    for side, n in (("train", 15), ("test", 5)):
        for c, name in enumerate(("bars", "dots", "rings")):
            (folder / side / name).mkdir(parents=True)
            for i in range(n):
                x = noise(32, 32, 3, seed=100 * c + i + (50 if side == "test" else 0)) // 2
                x[:: 2 + c, :, c] = 250
                Image.fromarray(x).save(folder / side / name / f"{i}.png")
    network = {"arch": "resnet10", "width": 4, "proj_dim": 8, "image_size": 32, "batch_size": 16}
    base = ex.TrainConfig(dataset=f"folder:{folder}", attack="fgsm", eps=8 / 255, epochs=1, knn_every=0, **network)
    cells = train_eps_cells(base, ("none", "fgsm"), eps=[4 / 255, 8 / 255], seeds=2)
    cells += train_eps_cells(base, ("gaussian",), eps=[8 / 255], seeds=2)
    where = tmp_path_factory.mktemp("table") / "train-eps"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_RUNS", str(runs))  # the table's runs are found below it
        found = run_grid("train-eps", cells, out=runs / "studies")
    # of 15 test images two methods often get the same number right: their points are drawn apart, so that one can be pointed at
    apart = found.table.attack.map({"fgsm": 0.3, "gaussian": 0.6}).fillna(1.0)
    Sweep(found.table.assign(value=apart * found.table.value), found.provenance).save(where)
    run = Run.create(base, name="mine", root=runs)
    run.save_encoder(build_encoder(base), 0)
    return {"runs": str(runs), "study": str(where)}


@pytest.fixture
def panel(lab, study):
    notebook = lab.show(CELL.format(**study), LOOK)
    notebook.page.wait_for_selector(".ex-card")
    return notebook


def asked(notebook: Notebook, expression: str):
    """What the kernel says."""
    return json.loads(notebook.execute(f"import json; panel.wait(); print(json.dumps({expression}))"))


def drawn(notebook: Notebook) -> dict[str, dict]:
    """The chart's curves on the screen, by name."""
    return {trace["name"]: trace for trace in notebook.page.evaluate(CHART)}


def same(notebook: Notebook) -> dict[str, dict]:
    """Assert that the chart on the screen comes to have the means of `panel.result`; returns it."""
    wanted = asked(
        notebook,
        "[dict(attack=r.attack, k=r.k, mean=100 * r.mean) for r in panel.result.summary().itertuples()]",
    )
    names = {"fgsm": "adversary (CLAE)", "gaussian": "Gaussian", "none": "SimCLR"}
    means = {(names[row["attack"]], f"{row['k']:g}"): row["mean"] for row in wanted}

    def shows():
        shown = drawn(notebook)
        points = {
            (name, key.split(",")[1]): y
            for name in set(names.values()) & set(shown)
            for key, y in zip(shown[name]["keys"], shown[name]["y"], strict=True)
        }
        assert {point: points.get(point) for point in means} == pytest.approx(means, abs=1e-6)
        return shown

    return eventually(shows)


def settled(notebook: Notebook, text: str, timeout: float = 240_000) -> None:
    """Wait until a card says so."""
    notebook.page.wait_for_function(
        "(text) => document.querySelector('.ex-cards').innerText.includes(text)", arg=text, timeout=timeout
    )


def test_controls_move_the_figure(panel):
    page = panel.page
    first = same(panel)
    assert set(first) == {"adversary (CLAE)", "Gaussian", "SimCLR"}
    page.get_by_label("Measured by").select_option("kNN")
    page.wait_for_function(
        "() => document.querySelector('.ex .js-plotly-plot').layout.yaxis.title.text.startsWith('kNN')"
    )
    assert same(panel)["adversary (CLAE)"]["y"] != first["adversary (CLAE)"]["y"]
    page.get_by_role("checkbox", name="Gaussian").uncheck()
    page.wait_for_function(
        "() => !document.querySelector('.ex .js-plotly-plot').data.some((t) => t.name === 'Gaussian' && t.x.length)"
    )
    assert "Gaussian" not in same(panel) and asked(panel, "sorted(set(panel.result.table.attack))") == ["fgsm", "none"]
    handle = page.locator(".ex-at .noUi-handle")
    handle.focus()
    page.keyboard.press("ArrowRight")
    settled(panel, "ε = 9/255")
    says(page.locator(".ex-reading"), "At ε = 9/255 there is no adversary yet; there is one at 4, 8")
    page.get_by_label("Show", exact=True).select_option(
        "loss over test ε"
    )  # over test eps, of the run given, computed now
    page.wait_for_function(
        "() => document.querySelector('.ex .js-plotly-plot').layout.yaxis.title.text.startsWith('contrastive')",
        timeout=240_000,
    )
    wanted = asked(panel, "panel.result.where(attack='fgsm').table.sort_values('k').value.tolist()")
    assert len(wanted) == 9

    def shows():
        assert drawn(panel)["adversary"]["y"] == pytest.approx(wanted, abs=1e-6)
        assert any(name.startswith("chance, ln ") for name in drawn(panel))

    eventually(shows)
    assert panel.errors() == []


def test_hover_tells_and_a_click_pins(panel):
    page = panel.page

    def pins() -> None:
        """A click while the chart is drawn anew meets no point; it is made again, as a user does."""
        x, y = page.evaluate(PLACE, ["adversary (CLAE)", 0])
        page.mouse.move(x - 40, y - 30)
        page.mouse.move(x, y, steps=4)
        page.wait_for_selector(".hovertext")
        said = page.locator(".hoverlayer").text_content()
        assert "adversary, ε = 4/255" in said and "n = 2" in said and "-s0, s1" in said and "click: pin it" in said
        page.mouse.click(x, y)
        settled(panel, "ε = 4/255", 30_000)

    eventually(pins)
    values = asked(panel, "panel.result.where(attack='fgsm', k=4).table.sort_values('seed').value.tolist()")
    card = page.locator(".ex-card").first.inner_text()
    assert " · ".join(f"{100 * v:.1f}" for v in values) in card and "to SimCLR" in card
    assert asked(panel, "[panel.kind, panel.k]") == ["adversary", 4]
    page.get_by_role("button", name="Copy command").click()
    page.get_by_role("button", name="Copied").wait_for()
    page.get_by_role("button", name="s1", exact=True).click()  # its run lies here: looked at over test eps
    page.wait_for_function(
        "() => document.querySelector('.ex .js-plotly-plot').layout.xaxis.title.text.startsWith('ε on the test')",
        timeout=240_000,
    )
    assert asked(panel, "panel.encoder").endswith(asked(panel, "panel.result.table.run.iloc[0]"))
    assert panel.errors() == []


def test_the_film_hangs_under_its_ticks_and_takes_keys(panel):
    page = panel.page

    def hangs():
        frames, ticks = panel.images(FILM), page.evaluate(TICKS)
        assert len(frames) == 27 and {f["pick"].split(",")[0] for f in frames} == {"adversary", "gaussian", "uniform"}
        for frame in frames:
            assert frame["middle"] == pytest.approx(ticks[frame["pick"].split(",")[1]], abs=1)
        return frames

    frames = eventually(hangs)
    library = """
import base64, json, torch
from explore.results import to_pixels
from explore.training import make_views
run, data = ex.open_run("mine"), panel.session.set(ex.open_run("mine").config.dataset)
x = data.test[torch.randperm(len(data.test), generator=ex.seeded(0))[:32]][0]
apart = ex.contrast(run.encoder(), make_views(run.config, data)(x, ex.seeded(0)), temperature=run.config.temperature)
made = {f"adversary,{k}": ex.Attack.fgsm(k / 255)(x, apart) for k in range(0, 17, 2)}
made |= {f"{n},{k}": ex.Noise.__dict__[n].__func__(ex.Noise, k / 255)(x, generator=ex.seeded(0)) for n in ("gaussian", "uniform") for k in range(0, 17, 2)}
print(json.dumps({key: base64.b64encode(to_pixels(v[:1])[0].tobytes()).decode() for key, v in made.items()}))"""
    wanted = json.loads(panel.execute(library))
    assert {f["pick"]: f["rgba"][:, :3].tobytes() for f in frames} == {
        key: base64.b64decode(px) for key, px in wanted.items()
    }
    page.locator(".ex-film button[data-pick='adversary,8']").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settled(panel, "Gaussian, ε = 10/255")
    assert asked(panel, "[panel.kind, panel.k]") == ["gaussian", 10]
    page.get_by_label("next image").click()
    assert asked(panel, "panel.picture") == 1

    def another():
        assert not np.array_equal(panel.images(FILM)[0]["rgba"], frames[0]["rgba"])

    eventually(another)
    assert panel.errors() == []


def test_a_missing_point_is_computed_in_the_background_and_appears(panel):
    page = panel.page
    before = same(panel)
    page.locator(".ex-film button[data-pick='gaussian,12']").click()
    settled(panel, "Gaussian, ε = 12/255")
    card = page.locator(".ex-card[data-card='gaussian,12']")
    page.wait_for_function(
        "() => /2 seeds, about \\d+ s on this machine/.test(document.querySelector('.ex-cards').innerText)",
    )
    card.get_by_role("button", name="Compute this point here").click()
    settled(panel, "Goes on if you close the page")
    says(page.locator(".ex-state"), "1 running")
    page.wait_for_function(
        "() => document.querySelector('.ex .js-plotly-plot').data.some((t) => t.name === 'Gaussian' && t.x.length === 2)",
        timeout=240_000,
    )
    after = same(panel)
    assert after["adversary (CLAE)"] == before["adversary (CLAE)"] and after["Gaussian"]["keys"] == [
        "gaussian,8",
        "gaussian,12",
    ]
    settled(panel, "n = 2")
    assert asked(panel, "sorted(panel.result.where(attack='gaussian', k=12).table.seed.tolist())") == [0, 1]
    page.locator(".ex-film button[data-pick='gaussian,14']").click()
    page.locator(".ex-card[data-card='gaussian,14']").get_by_role("button", name="Compute this point here").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    settled(panel, "stopped")
    page.get_by_role("button", name="Dismiss").click()
    page.wait_for_function("() => !document.querySelector('.ex-cards').innerText.includes('stopped')")
    page.get_by_role("button", name="Save table").click()
    page.get_by_text(re.compile(r"wrote accuracy-over-training-eps\.csv, \.parquet and \.json in")).wait_for()
    assert panel.errors() == []


def test_no_script_in_a_name_runs(lab, tmp_path):
    """Folders of classes and a run whose names are HTML that would run a script."""
    script = "<img src=x onerror='window.ran=1'>"
    for side in ("train", "test"):
        for name in (f"bars {script}", f'dots"><svg onload="window.ran=1">{script}'):
            folder = tmp_path / "images" / side / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(noise(32, 32, 3, seed=i)).save(folder / f"{i}.png")
    network = {"arch": "resnet10", "width": 4, "proj_dim": 8, "image_size": 32, "batch_size": 8}
    config = ex.TrainConfig(dataset=f"folder:{tmp_path / 'images'}", attack="fgsm", epochs=1, knn_every=0, **network)
    run = Run.create(config, name=f"mine {script}", root=tmp_path / "runs")
    run.save_encoder(build_encoder(config), 0)
    code = f"""import os
os.environ["CLAE_RUNS"] = {str(tmp_path / "runs")!r}
import explore as ex
panel = ex.panels.NoiseOrAdversary(None, {run.name!r}, against="test ε", images=8, encoder={run.name!r})
panel"""
    panel = lab.show(code, LOOK)
    panel.page.wait_for_selector(".ex-film")
    says(panel.page.locator(".ex-film-h"), "onerror='window.ran=1'")
    panel.page.locator(".ex-film button").first.click()
    x, y = eventually(lambda: panel.page.evaluate(PLACE, ["adversary", 3]))
    panel.page.mouse.move(x - 40, y - 30)
    panel.page.mouse.move(x, y, steps=4)
    panel.page.wait_for_selector(".hovertext")
    assert panel.page.evaluate("window.ran === undefined && !document.querySelector('.ex img[src=x], .ex svg[onload]')")


def test_a_fault_becomes_a_banner(panel):
    panel.execute("panel.source.trained = lambda: 1 / 0; panel.judge = 'kNN'; panel.wait()")
    panel.page.locator(".ex-error").wait_for(state="visible")
    says(panel.page.locator(".ex-error"), "ZeroDivisionError")
    says(panel.page.locator(".ex-state"), "shows accuracy over training ε")
    assert any(text.startswith("banner: ") for text in panel.errors())


def test_the_panel_in_both_themes_and_widths(lab, tmp_path, study):
    code = SHIPPED.format(name="NoiseOrAdversary") if (paths.shipped() / "studies").is_dir() else CELL.format(**study)
    panel = lab.show(code, LOOK)
    panel.page.wait_for_selector(".ex-film")
    panel.execute("import time\npanel.wait()\nwhile 'being measured' in panel.cards.html: time.sleep(0.1)")
    panel.pictures("noise-or-adversary", tmp_path)
    assert panel.errors() == []


@pytest.mark.skipif(not (paths.shipped() / "studies").is_dir(), reason="data/studies is not there: make studies")
def test_four_attacks_from_the_shipped_studies(lab, tmp_path):
    panel = lab.show(SHIPPED.format(name="FourAttacks"), LOOK)
    panel.page.wait_for_selector(".ex-film")
    wanted = asked(panel, "{r.attack: 100 * r.mean for r in panel.result.where(k=[0, 8]).summary().itertuples()}")
    names = {"fgsm": "FGSM", "rfgsm": "R-FGSM", "ffgsm": "F-FGSM", "pgd": "PGD", "sign": "sign noise"}

    def shows():
        shown = drawn(panel)
        for attack, name in names.items():
            own = dict(zip([key.split(",")[1] for key in shown[name]["keys"]], shown[name]["y"], strict=True))
            assert own["8"] == pytest.approx(wanted[attack], abs=1e-6)
        assert panel.page.locator(FILM).count() == 45
        said = panel.page.locator(".ex-reading").inner_text()
        assert said.startswith("At ε = 8/255 the attacks reach FGSM") and "Farthest apart" in said

    eventually(shows)
    panel.execute("import time\nwhile 'being measured' in panel.cards.html: time.sleep(0.1)")
    panel.pictures("four-attacks", tmp_path)
    panel.page.get_by_label("Show", exact=True).select_option("loss over test ε")
    panel.page.wait_for_function(
        "() => document.querySelector('.ex .js-plotly-plot').layout.yaxis.title.text.startsWith('contrastive')"
    )
    last = asked(panel, "panel.result.where(attack='pgd', k=16).summary()['mean'].tolist()")

    def ends():
        assert drawn(panel)["PGD"]["y"][-1] == pytest.approx(last[0], abs=1e-6)

    eventually(ends)
    assert panel.errors() == []
