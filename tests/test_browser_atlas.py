"""The embedding atlas in a real JupyterLab and a real browser: hover, click, lasso, play, two encoders, no WebGL, themes."""

import json
import os

import pytest
from browser import Notebook, eventually, says

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
ONE = """import explore as ex
panel = ex.panels.Atlas(ex.open_run("demo/clae"), points=300)
panel"""
TWO = """import explore as ex
panel = ex.panels.Atlas(ex.open_run("demo/simclr"), ex.open_run("demo/clae"), points=300, method="pca")
panel"""
LOOK = "panel.result.table.head()"
AT = "([i, m]) => document.querySelector('.ex-fm').film.at(i, m)"
SHOWN = """() => { const el = document.querySelector('.ex-fm'), r = el.querySelector('input[type=range]');
  return { ...el.dataset, slider: +r.value, number: el.querySelector('.ex-fm-num span').textContent } }"""
WATCH = """() => { const el = document.querySelector('.ex-fm'), r = el.querySelector('input[type=range]'); window.seen = []; window.odd = [];
  let was = ""; // a frame in which the thumb has moved and the points have not yet is no fault; two such frames are
  const frame = () => { const eps = +el.dataset.eps, pair = `${r.value} ${eps}`; if (eps !== seen.at(-1)) seen.push(eps);
    if (Math.abs(+r.value - eps) > 1e-6 && pair === was) odd.push(pair); was = pair; requestAnimationFrame(frame); };
  requestAnimationFrame(frame); }"""
NO_WEBGL = """(() => { const get = window.getContext = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...more) { return String(kind).startsWith('webgl') ? null : get.call(this, kind, ...more) } })()"""
WEBGL = "() => { HTMLCanvasElement.prototype.getContext = window.getContext }"


def asked(notebook: Notebook, expression: str):
    """What the kernel says, once nothing is outstanding."""
    return json.loads(notebook.execute(f"import json; panel.wait(); print(json.dumps({expression}))"))


def standing(notebook: Notebook) -> dict:
    """The film's own account once it stands and shows what the kernel has."""
    key = asked(notebook, "panel.film.meta['key']")
    notebook.page.wait_for_selector(f".ex-fm[data-stand='yes'][data-key='{key}']")

    def shows():
        shown = notebook.page.evaluate(SHOWN)
        assert float(shown["eps"]) == shown["slider"] == pytest.approx(float(shown["number"]), abs=0.051)
        return shown

    return eventually(shows)


def told(notebook: Notebook, name: str, wanted) -> None:
    """Wait until the kernel knows."""

    def knows():
        assert asked(notebook, f"panel.{name}") == wanted

    eventually(knows)


@pytest.fixture
def panel(lab):
    notebook = lab.show(ONE, LOOK)
    notebook.page.wait_for_selector(".ex-fm[data-key]")
    standing(notebook)
    return notebook


def lonely(notebook: Notebook) -> int:
    """A point with the most room about it, so that the mouse can mean no other."""
    code = "import torch; p = panel.result.frame(panel.k); d = torch.cdist(p, p).fill_diagonal_(9e9).amin(1); print(json.dumps(d.argsort(descending=True)[:5].tolist()))"
    return json.loads(notebook.execute(f"import json; panel.wait(); {code}"))[2]


def test_hover_click_and_keys_pick_the_image_under_the_mouse(panel):
    page, i = panel.page, lonely(panel)
    x, y = page.evaluate(AT, [i, 0])
    page.mouse.move(x - 40, y - 30)
    page.mouse.move(x + 1, y, steps=4)
    page.wait_for_selector(f".ex-fm-tip[data-i='{i}'] img")
    words = asked(panel, f"panel._words(panel.result, {i})")
    says(page.locator(".ex-fm-tip"), words)
    told(panel, "hover", i)
    page.mouse.click(x, y)
    told(panel, "picked", i)
    page.wait_for_selector(f".ex-fm[data-picked='{i}'] .pick.now")
    page.wait_for_function(
        "() => ['then', 'now'].every((when) => document.querySelectorAll(`.ring.${when}`).length === 5)"
    )
    page.wait_for_function("() => document.querySelectorAll('.ex-trio img').length === 3")
    says(page.locator(".ex-fm-side"), words)
    assert page.locator(".ex-trio img").count() == 3
    then, now = asked(panel, f"[t.tolist() for t in panel._outcome.studies[0].neighbours({i}, 8)]")

    def near():
        shown = page.evaluate(
            "() => [...document.querySelectorAll('.ex-nn')].map((r) => [...r.querySelectorAll('button')].map((b) => +b.dataset.pick))"
        )
        assert shown == [then, now]

    eventually(near)
    assert page.locator(".ring.then").count() == page.locator(".ring.now").count() == 5
    kept = len(set(then) & set(now))
    says(page.locator(".ex-line"), f"kept {kept} of its 5 nearest")
    page.locator(".ex-nn button").nth(7).click()  # a neighbour is picked like a point
    told(panel, "picked", now[2])
    page.wait_for_selector(f".ex-fm[data-picked='{now[2]}']")
    page.wait_for_selector(".ex-fm-tip", state="hidden")  # the mouse is not over the map
    here, middle = page.evaluate(AT, [now[2], 0])[0], page.locator(".ex-fm-map").bounding_box()
    key = "ArrowLeft" if here > middle["x"] + middle["width"] / 2 else "ArrowRight"
    page.locator(".ex-fm-map").focus()
    page.keyboard.press(key)
    page.wait_for_selector(".ex-fm-tip:visible")
    over = int(page.locator(".ex-fm-tip").get_attribute("data-i"))
    there = page.evaluate(AT, [over, 0])[0]
    assert there < here if key == "ArrowLeft" else there > here
    page.keyboard.press("Enter")
    told(panel, "picked", over)
    panel.execute("panel.picked = 5")  # the kernel picks: the page follows
    page.wait_for_selector(".ex-fm[data-picked='5']")
    assert panel.errors() == []


def test_a_lasso_takes_what_lies_in_it(panel):
    page = panel.page
    spots = [page.evaluate(AT, [i, 0]) for i in range(300)]
    box = page.locator(".ex-fm-map").bounding_box()
    left, top, right, low = box["x"] + 60, box["y"] + 60, box["x"] + box["width"] / 2, box["y"] + box["height"] - 60
    wanted = [i for i, (x, y) in enumerate(spots) if left < x < right and top < y < low]
    assert 5 < len(wanted) < 295
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top + 2)):
        page.mouse.move(x, y, steps=10)
    page.mouse.up()
    told(panel, "lasso", wanted)
    page.wait_for_selector(f".ex-fm[data-chosen='{len(wanted)}']")
    table = asked(
        panel, "[panel.selected.image.tolist(), panel.selected.k.unique().tolist(), float(panel.selected.kept.mean())]"
    )
    ids = asked(panel, "panel.result.index.tolist()")
    assert table[0] == [ids[i] for i in wanted] and table[1] == [8.0]
    page.wait_for_function(f"() => document.querySelector('.ex-fm-side').innerText.includes('{len(wanted)} selected')")
    says(page.locator(".ex-fm-side"), f"ten nearest kept: {100 * table[2]:.0f} %")
    counts = page.evaluate("() => [...document.querySelectorAll('.ex-counts div b')].map((b) => +b.textContent)")
    labels = asked(panel, "panel.result.labels.tolist()")
    most = sorted((sum(labels[i] == c for i in wanted) for c in range(10)), reverse=True)
    assert counts == [c for c in most[:6] if c]
    page.locator(".ex-fm-find").fill("boot")  # filter by class
    told(panel, "film.hidden", list(range(9)))
    page.locator("[data-show=all]").click()
    told(panel, "film.hidden", [])
    page.locator(".ex-fchip", has_text="Bag").click()
    told(panel, "film.hidden", [8])
    assert panel.errors() == []


def test_slider_and_picture_never_stand_on_different_eps(panel):
    page = panel.page
    page.evaluate(WATCH)
    page.locator("[data-act=start]").click()
    page.wait_for_selector(".ex-fm[data-stand='yes'][data-eps='0']")
    page.locator("[data-act=play]").click()
    told(panel, "playing", True)
    page.wait_for_selector(".ex-fm[data-stand='yes'][data-eps='16']")
    told(panel, "k", 16.0)
    assert asked(panel, "panel.playing") is False
    page.wait_for_function("() => window.seen.at(-1) === 16")
    assert any(e % 2 for e in page.evaluate("() => window.seen")), "it never was on the way"
    range_, box = page.locator(".ex-fm input[type=range]"), page.locator(".ex-fm input[type=range]").bounding_box()
    y, at = box["y"] + 10, lambda k: box["x"] + 10 + (box["width"] - 20) * k / 16
    for stop in (3.1, 13.4, 7.2, 9.9):  # wild drags, let go anywhere
        page.mouse.move(at(float(page.evaluate(SHOWN)["eps"])), y)
        page.mouse.down()
        for k in (0.3, 15.8, stop):
            page.mouse.move(at(k), y, steps=6)
        page.mouse.up()
        page.wait_for_selector(".ex-fm[data-stand='yes']")
        told(panel, "k", float(round(stop / 2) * 2))
        assert standing(panel)["slider"] == round(stop / 2) * 2
    range_.focus()
    page.keyboard.press("ArrowRight")
    told(panel, "k", 12.0)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    told(panel, "k", 8.0)
    panel.execute("panel.k = 9.0")  # the kernel may stand between two frames: the page says so
    page.wait_for_selector(".ex-fm[data-eps='9'][data-stand='yes']")
    says(page.locator(".ex-fm-read"), "On the way")
    x, y = page.evaluate(AT, [7, 0])
    panel.execute("panel.k = 14.0")
    page.wait_for_selector(".ex-fm[data-eps='14'][data-stand='yes']")
    panel.execute("panel.k = 9.0")  # back again: the same picture
    page.wait_for_selector(".ex-fm[data-eps='9'][data-stand='yes']")
    assert page.evaluate(AT, [7, 0]) == [x, y]
    assert page.evaluate("() => window.odd") == []
    assert panel.errors() == []


def test_points_stand_where_the_result_says_and_another_map_leaves_none_behind(panel):
    page = panel.page

    def placed():  # data positions read back from the page: an affine function of the result's own
        spots = [page.evaluate(AT, [i, 0]) for i in range(0, 300, 30)]
        return [[float(v) for v in spot] for spot in spots]

    def fits(spots):
        own = asked(panel, "panel.result.frame(panel.k)[::30].tolist()")
        for axis in (0, 1):
            a, b = [p[axis] for p in own], [s[axis] for s in spots]
            slope = (b[1] - b[0]) / (a[1] - a[0])
            assert [b[0] + slope * (v - a[0]) for v in a] == pytest.approx(b, abs=0.05)

    first, before = placed(), standing(panel)["key"]
    fits(first)
    panel.execute("panel.n_neighbors = 4; panel.wait()")
    after = standing(panel)
    assert (
        after["key"] != before
        and after["key"].endswith("umap 4")
        and page.get_by_label("Map", exact=True).evaluate('(e) => e.selectedOptions[0].text.replaceAll("\\u00a0", " ")')
        == "UMAP, k = 4"
    )
    second = placed()
    fits(second)
    assert second != first
    panel.execute("panel.points = 200; panel.wait()")
    assert standing(panel)["n"] == "200"
    panel.execute("panel.points, panel.n_neighbors = 300, 15; panel.wait()")
    standing(panel)
    assert placed() == first
    page.get_by_label("Colour by").select_option("loss")
    page.wait_for_selector(".ex-fm-ramp")
    assert asked(panel, "len(panel.film.values)") == 4 * 9 * 300
    assert panel.errors() == []


def ink(notebook: Notebook) -> list[bool]:
    """Whether something is drawn at every tenth point: the page's pixels there against the map's empty corner."""
    import io

    from PIL import Image

    notebook.execute("panel.trails, panel.picked = 'none', -1")
    notebook.page.wait_for_selector(".ex-fm[data-picked='-1']")
    style = notebook.page.add_style_tag(content=".ex-fm-names, .ex-fm-tip { visibility: hidden }")
    notebook.page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(notebook.page.screenshot())).convert("RGB")
    style.evaluate("(tag) => tag.remove()")
    empty = picture.getpixel(
        tuple(int(v) + 3 for v in list(notebook.page.locator(".ex-fm-map").bounding_box().values())[:2])
    )
    spots = [notebook.page.evaluate(AT, [i, 0]) for i in range(0, 300, 10)]
    assert any(picture.getpixel((int(x) + 25, int(y))) == empty for x, y in spots), "the map is full of ink"
    return [picture.getpixel((int(x), int(y))) != empty for x, y in spots]


def drawn(notebook: Notebook) -> None:
    """Wait until something is drawn at each of these points."""

    def shows():
        assert all(ink(notebook))

    eventually(shows)


def test_without_webgl_and_after_a_lost_context_the_same_points_are_drawn(lab, panel):
    assert standing(panel)["by"] == "webgl"
    drawn(panel)
    panel.page.evaluate(
        "() => { const c = [...document.querySelectorAll('.ex-fm-canvas')].at(-1); c.getContext('webgl2').getExtension('WEBGL_lose_context').loseContext(); }"
    )
    panel.page.wait_for_function(
        "() => !document.querySelector('.ex-fm-canvas:last-of-type').getContext('webgl2')?.isContextLost()"
    )
    drawn(panel)
    assert panel.errors() == []
    panel.page.evaluate(NO_WEBGL)
    try:
        flat = lab.show(ONE, LOOK)
        flat.page.wait_for_selector(".ex-fm[data-key]")
        assert standing(flat)["by"] == "canvas"
        drawn(flat)
        flat.page.locator("[data-act=play]").click()
        flat.page.wait_for_selector(".ex-fm[data-stand='yes'][data-eps='16']")
        standing(flat)
        drawn(flat)
        assert flat.errors() == []
    finally:
        panel.page.evaluate(WEBGL)


def test_two_encoders_side_by_side(lab):
    two = lab.show(TWO, LOOK)
    two.page.wait_for_selector(".ex-fm[data-key]")
    shown = standing(two)
    assert shown["maps"] == "2" and two.page.locator(".ex-fm-map").count() == 2
    i = lonely(two)
    two.page.mouse.click(*two.page.evaluate(AT, [i, 0]))
    told(two, "picked", i)
    two.page.wait_for_selector(".ex-fm-map[data-m='1'] .pick.now")  # the same image in both maps
    for m in (0, 1):
        spot = two.page.locator(f".ex-fm-map[data-m='{m}'] .pick.now").bounding_box()
        middle = [spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2]
        assert middle == pytest.approx(two.page.evaluate(AT, [i, m]), abs=1)
    near = asked(two, f"[[t.tolist() for t in s.neighbours({i}, 8)] for s in panel._outcome.studies]")
    a, b, both = asked(
        two,
        "[panel.agreement['residual'], panel.agreement['shared_neighbours'], [x.figures[(x.figures.kind == 'adversary') & (x.figures.k == 8)].kept.item() for x in (panel.result, panel.beside)]]",
    )

    def shows():
        rows = two.page.evaluate(
            "() => [...document.querySelectorAll('.ex-nn')].map((r) => [...r.querySelectorAll('button')].map((b) => +b.dataset.pick))"
        )
        assert rows == [near[0][0], near[0][1], near[1][0], near[1][1]]
        facts = two.page.locator(".ex-agree .ex-fact").all_inner_texts()
        assert [f.replace("\xa0", " ") for f in facts] == [f"{100 * b:.0f} %", f"{a:.2f}"]
        heads = [t.replace("\xa0", " ") for t in two.page.locator(".ex-fm-head").all_inner_texts()]
        assert heads == [
            f"{n} ten nearest kept: {100 * v:.0f} %" for n, v in zip(("SimCLR", "CLAE"), both, strict=True)
        ]

    eventually(shows)
    x, y = two.page.evaluate(AT, [i, 1])
    two.page.mouse.move(x - 20, y - 20)
    two.page.mouse.move(x, y, steps=3)
    two.page.wait_for_selector(".ex-fm-tip:visible")
    assert two.page.locator(".under").count() == 2
    two.execute("panel.other = ''; panel.wait()")
    assert standing(two)["maps"] == "1" and two.page.locator(".ex-fm-map").count() == 1
    assert two.errors() == []


def test_the_panel_in_both_themes_and_widths(lab, tmp_path):
    for name, code in (("atlas", ONE), ("atlas-two", TWO)):
        panel = lab.show(code.replace("300", "1000") if "CLAE_SCREENSHOTS" in os.environ else code, LOOK)
        panel.page.wait_for_selector(".ex-fm[data-key]")
        standing(panel)
        panel.execute("panel.wait(); panel.trails = 'all'; panel.picked = int(panel.result.moved[4].argsort()[-3])")
        panel.execute(
            "panel.lasso = (panel.result.labels == 5).nonzero().flatten().tolist()" if name == "atlas" else "pass"
        )
        panel.page.wait_for_selector(".ex-nn img")
        panel.pictures(name, tmp_path, height=2300, look=lambda panel=panel: standing(panel))
        assert panel.errors() == []
