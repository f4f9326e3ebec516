// scatter.js - the film on the screen: bar with slider, chips, maps; what the mouse and keys do. scatter_time.js moves, scatter_draw.js draws.
const icon = (d) => `<svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path d="${d}" fill="currentColor" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round"/></svg>`;
const ICONS = { play: icon("M5 3l8 5-8 5z"), pause: icon("M5 3v10M11 3v10") };
const QUIET = 'data-lm-suppress-shortcuts="true"'; // else Lab takes the keys
const button = (act, label, inner) => `<button class="jupyter-widgets jupyter-button ex-fm-b" data-act="${act}" aria-label="${label}" title="${label}" ${QUIET}>${inner}</button>`;
const BODY = `<div class="ex-fm-bar"><div class="ex-fm-play">${button("start", "back to 0", icon("M3 3v10M13 3L6 8l7 5z"))}${button("play", "play", ICONS.play)}${button("step", "one step on", icon("M3 3l7 5-7 5zM13 3v10"))}</div>
 <div class="ex-num ex-fm-num"><small>ε =</small> <span></span><small>/255</small></div>
 <div class="ex-fm-track"><input type="range" step="any" aria-label="epsilon, k/255" ${QUIET}><div class="ex-ticks ex-short" aria-hidden="true"></div></div></div>
<p class="ex-reading ex-fm-read" aria-live="polite"></p><div class="ex-fm-chips" role="group" aria-label="shown on the map"></div>
<div class="ex-fm-maps"></div><div class="ex-note ex-fm-keys"></div>`;
const MAP = (m) => `<div class="ex-fm-cell"><div class="ex-h ex-fm-head"></div><div class="ex-map ex-fm-map" data-m="${m}" tabindex="${m ? -1 : 0}" role="application" ${QUIET}>
 <div class="ex-fm-names" aria-hidden="true"></div><svg aria-hidden="true"></svg></div></div>`;
const ring = (r) => `<svg class="gl" viewBox="0 0 12 12" aria-hidden="true"><circle cx="6" cy="6" r="${r}"/></svg>`;
const KEYS = `<span class="ex-fm-hint">Click a point to pick its image; drag around points to select them; Esc drops both.</span><span class="clean"><i class="gl-dot"></i>picked, clean</span><span class="adv"><i class="gl-dot"></i>picked, now</span>
 <span class="clean">${ring(3.5)} its nearest, clean</span><span class="adv">${ring(5)} its nearest, now</span><span>grey: the way it came</span>`;

function write(element, html) { // only what is new: the browser paints again all that is set
  if (element.written !== html) element.innerHTML = element.written = html;
}

function render({ model, el }, own) {
  el.classList.add("ex-fm");
  el.innerHTML = BODY;
  const $ = (q) => el.querySelector(q), all = (q) => [...el.querySelectorAll(q)];
  const range = $("input[type=range]"), maps = $(".ex-fm-maps"), tip = document.createElement("div");
  let by = null, boxes = [], size = { w: 0, h: 0, ratio: 0 }, tint = null, laid = null, tipped = "", drag = null, hoverTold = 0, unseen = 0;
  tip.className = "ex-fm-tip";

  function start() { by?.remove(); by = drawer(maps, () => { start(); draw.stale = true; ask(own); }); size.ratio = 0; el.dataset.by = by.name; }

  function lay() { // another film: its maps, chips, keys
    const film = own.film;
    laid = film;
    if (own.over >= film.maps) { own.over = 0; own.hover = -1; }
    if (all(".ex-fm-map").length !== film.maps) {
      maps.innerHTML = Array.from({ length: film.maps }, (_, m) => MAP(m)).join("");
      maps.append(tip);
      el.dataset.maps = film.maps;
      all(".ex-fm-map").forEach((box) => { new ResizeObserver(again).observe(box); listen(box, +box.dataset.m); });
      start();
    }
    [range.min, range.max] = limits(own);
    $(".ex-ticks").innerHTML = film.ks.map((k) => `<span style="left:${(100 * (k - film.ks[0])) / (film.ks.at(-1) - film.ks[0] || 1)}%">${k}</span>`).join("");
    $(".ex-fm-chips").innerHTML = film.names.map((g, i) => `<label class="ex-fchip" style="--c:${film.values ? "var(--ex-ref)" : g.colour}">
      <input type="checkbox" data-g="${i}" ${QUIET}>${clean(g.name)} <small>${count(g.count)}</small></label>`).join("") + ["all", "none"].map((what) => `<button class="ex-fm-link" data-show="${what}" ${QUIET}>${what}</button>`).join("");
    $(".ex-fm-keys").innerHTML = (film.scale ? `<span class="ex-fm-ramp">${clean(film.scale[0])} <b>${clean(film.scale[1])}</b><i></i><b>${clean(film.scale[2])}</b></span>` : "") + KEYS + (film.names.length > 4 ? `<input type="search" class="ex-fm-find" placeholder="find ${clean(film.by)}" aria-label="show ${clean(film.by)} by name" ${QUIET}>` : "");
    tipped = "";
  }

  function measure() { // where the maps are, and how data become pixels: one scale for all maps, stretched by 1.5 at most
    const outer = maps.getBoundingClientRect(), [x0, y0, x1, y1] = own.film.box;
    boxes = all(".ex-fm-map").map((box) => {
      const r = box.getBoundingClientRect(), w = box.clientWidth, h = box.clientHeight;
      let sx = (w - 28) / (x1 - x0 || 1), sy = (h - 28) / (y1 - y0 || 1);
      sx = Math.min(sx, 1.5 * sy); sy = Math.min(sy, 1.5 * sx);
      return { x: r.left - outer.left + 1, y: r.top - outer.top + 1, w, h, sx, sy, mx: (x0 + x1) / 2, my: (y0 + y1) / 2 };
    });
    const ratio = window.devicePixelRatio || 1, w = outer.width, h = outer.height;
    if (!w || !boxes[0].w) return false; // hidden for now (another tab, Lab changing its theme): what is drawn stays
    if (size.w !== w || size.h !== h || size.ratio !== ratio) {
      size = { w, h, ratio };
      by.size(w, h, ratio);
    }
    return true;
  }
  const pixel = (m, x, y) => { const b = boxes[m]; return [b.w / 2 + (x - b.mx) * b.sx, b.h / 2 - (y - b.my) * b.sy]; };
  const at = (m, i) => pixel(m, own.film.now[m][2 * i], own.film.now[m][2 * i + 1]);
  const atFirst = (m, i) => { const q = 2 * (m * own.film.e * own.film.n + i); return pixel(m, own.film.frames[q], own.film.frames[q + 1]); };

  function paint() { // colour of every point: its group's, faint outside the lasso, none where hidden
    const film = own.film, hidden = new Set(model.get("hidden")), lasso = model.get("lasso"), chosen = lasso.length ? new Set(lasso) : null;
    const inks = film.names.map(({ colour }) => [1, 3, 5].map((c) => parseInt(colour.slice(c, c + 2), 16)));
    tint = new Uint8Array(4 * film.n);
    for (let i = 0; i < film.n; i++) {
      const g = film.groups[i];
      tint.set(inks[g], 4 * i);
      tint[4 * i + 3] = hidden.has(g) ? 0 : !chosen || chosen.has(i) ? 230 : 60;
    }
    all(".ex-fchip input").forEach((box) => (box.checked = !hidden.has(+box.dataset.g)));
    names(hidden);
  }

  function names(hidden) { // every group's name at the clean point in its middle, pushed down where two would overlap
    const film = own.film, of = film.names.map(() => []);
    for (let i = 0; i < film.n; i++) of[film.groups[i]].push(i);
    const big = of.map((rows, g) => ({ rows, g })).filter(({ rows, g }) => rows.length && !hidden.has(g)).sort((a, b) => b.rows.length - a.rows.length).slice(0, 16);
    all(".ex-fm-names").forEach((layer, m) => {
      const put = [];
      for (const { rows, g } of big) {
        const spots = rows.map((i) => atFirst(m, i)), middle = [0, 1].map((c) => spots.map((s) => s[c]).sort((a, b) => a - b)[spots.length >> 1]);
        const spot = spots.reduce((best, s) => (Math.hypot(s[0] - middle[0], s[1] - middle[1]) < Math.hypot(best[0] - middle[0], best[1] - middle[1]) ? s : best));
        const half = 3.6 * film.names[g].name.length + 4;
        put.push({ name: film.names[g].name, x: Math.min(Math.max(spot[0], half), boxes[m].w - half), y: spot[1], half });
      }
      put.sort((a, b) => a.y - b.y);
      put.forEach((p, k) => { for (const q of put.slice(0, k)) if (Math.abs(p.x - q.x) < p.half + q.half && p.y - q.y < 15) p.y = q.y + 15; });
      layer.innerHTML = put.map((p) => `<span style="left:${p.x.toFixed(1)}px;top:${Math.min(p.y, boxes[m].h - 9).toFixed(1)}px">${clean(p.name)}</span>`).join("");
    });
  }

  function mark(m) { // over the points: the picked one's way, its neighbours then and now, the lasso, the one under the mouse
    const film = own.film, i = model.get("picked"), near = model.get("near"), out = [];
    const dot = (cls, [x, y], r) => out.push(`<circle class="${cls}" cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}"/>`);
    if (i >= 0 && i < film.n) {
      const { j } = where(film, own.eps), way = [];
      for (let f = 0; f <= j; f++) { const q = 2 * ((m * film.e + f) * film.n + i); way.push(pixel(m, film.frames[q], film.frames[q + 1])); }
      way.push(at(m, i));
      if (model.get("trails") !== "none") out.push(`<polyline class="way" points="${way.map((p) => p.map((v) => v.toFixed(1))).join(" ")}"/>`);
      for (const [cls, r] of [["then", 5], ["now", 8]]) for (const k of near[cls]?.[m] ?? []) { dot(`core ${cls}`, atFirst(m, k), 2); dot(`ring ${cls}`, atFirst(m, k), r); }
      dot("pick then", way[0], 5.5);
      dot("pick now", way.at(-1), 5.5);
    }
    if (own.hover >= 0 && own.hover < film.n) dot("under", at(m, own.hover), 6);
    if (drag?.path && drag.m === m) out.push(`<polygon class="lasso" points="${drag.path.join(" ")}"/>`);
    write(all(".ex-fm-map svg")[m], out.join(""));
  }

  function showTip() {
    const film = own.film, i = own.hover;
    tip.hidden = i < 0 || i >= film.n || !!drag?.path;
    if (tip.hidden) return;
    const key = `${film.images} ${i}`, thumb = own.thumbs.get(key), words = `${film.names[film.groups[i]].name}, no. ${film.ids[i]}`;
    if (!thumb && tipped !== key) model.send({ type: "thumb", i });
    const html = `${thumb ? `<img class="pic" width="64" height="64" alt="" src="${clean(thumb.src)}">` : '<i class="wait"></i>'}<span>${clean(thumb?.text ?? words)}<br><small>click: pick it</small></span>`;
    write(tip, html);
    tipped = key;
    const [x, y] = at(own.over, i), b = boxes[own.over];
    tip.style.transform = `translate(${Math.round(b.x + (x > b.w / 2 ? x - 12 - tip.offsetWidth : x + 12))}px,${Math.round(b.y + Math.min(Math.max(y - 36, 2), b.h - 84))}px)`;
    tip.dataset.i = i;
  }

  function draw() { // one frame of this view: slider, number and points from one eps
    const film = own.film;
    if (!film) return;
    if (laid !== film) { lay(); draw.stale = true; }
    if (draw.stale) {
      if (!measure()) { clearTimeout(unseen); unseen = setTimeout(again, 300); return; }
      paint();
      draw.stale = false;
    }
    const now = place(film, own.eps), { j, t } = where(film, own.eps), k = Math.round(own.eps * 10) / 10;
    by.draw({ film, j, t, now, boxes, tint, ratio: size.ratio, height: size.h, trails: model.get("trails") === "all", size: film.n > 8000 ? 4 : film.n > 3000 ? 5 : 6 });
    range.value = own.eps;
    range.style.setProperty("--p", `${(100 * (own.eps - film.ks[0])) / (film.ks.at(-1) - film.ks[0] || 1)}%`);
    write($(".ex-fm-num span"), String(k));
    const b = $("[data-act=play]"), what = own.playing ? "pause" : "play";
    if (b.dataset.is !== what) { b.dataset.is = what; b.innerHTML = ICONS[what]; b.setAttribute("aria-label", what); b.title = what; }
    boxes.forEach((_, m) => mark(m));
    all(".ex-fm-head").forEach((head, m) => write(head, model.get("heads")[m] ?? ""));
    write($(".ex-fm-read"), model.get("reading"));
    if (!moving(own)) {
      range.setAttribute("aria-valuetext", `${k}/255`);
      all(".ex-fm-map").forEach((box) => box.setAttribute("aria-label", `${film.what} at epsilon ${k}/255; arrows move from point to point, Enter picks`));
    }
    showTip();
    Object.assign(el.dataset, { eps: own.eps, key: film.key, n: film.n, stand: moving(own) ? "" : "yes", picked: model.get("picked"), chosen: model.get("lasso").length });
  }
  const again = () => { draw.stale = true; ask(own); };

  function find(m, x, y, reach) { // the nearest shown point of map m, -1 where none is within reach
    const film = own.film, now = place(film, own.eps)[m], b = boxes[m];
    let best = -1, least = reach * reach;
    for (let i = 0; i < film.n; i++) {
      if (!tint[4 * i + 3]) continue;
      const dx = b.w / 2 + (now[2 * i] - b.mx) * b.sx - x, dy = b.h / 2 - (now[2 * i + 1] - b.my) * b.sy - y, d = dx * dx + dy * dy;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }
  function inside(m, path) { // shown points within the lasso
    const film = own.film, rows = [];
    place(film, own.eps);
    for (let i = 0; i < film.n; i++) {
      if (!tint[4 * i + 3]) continue;
      const [x, y] = at(m, i);
      let odd = false;
      for (let p = 0, q = path.length - 1; p < path.length; q = p++) {
        const [ax, ay] = path[p], [bx, by] = path[q];
        if (ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) odd = !odd;
      }
      if (odd) rows.push(i);
    }
    return rows;
  }
  function look(m, i) { // what is under the mouse; the kernel hears of it now and then
    if (own.hover === i && own.over === m) return;
    own.hover = i; own.over = m;
    clearTimeout(hoverTold);
    hoverTold = setTimeout(() => put(own, { hover: i }), TELL);
    ask(own);
  }
  function listen(box, m) {
    const spot = (e) => { const r = box.getBoundingClientRect(); return [e.clientX - r.left - 1, e.clientY - r.top - 1]; };
    box.addEventListener("pointerdown", (e) => { if (e.button === 0) { drag = { m, from: spot(e), path: null }; box.setPointerCapture(e.pointerId); } });
    box.addEventListener("pointermove", (e) => {
      const p = spot(e);
      if (!drag) return look(m, find(m, ...p, NEAR));
      if (!drag.path && Math.hypot(p[0] - drag.from[0], p[1] - drag.from[1]) > 5) drag.path = [drag.from];
      drag.path?.push(p);
      ask(own);
    });
    box.addEventListener("pointerup", (e) => {
      const was = drag;
      drag = null;
      if (!was) return;
      if (was.path) put(own, { lasso: inside(m, was.path) });
      else { const i = find(m, ...spot(e), NEAR); put(own, i >= 0 ? { picked: i } : { lasso: [] }); }
      again();
    });
    box.addEventListener("pointercancel", () => { drag = null; ask(own); });
    box.addEventListener("pointerleave", () => { if (!drag) look(m, -1); });
    box.addEventListener("keydown", (e) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
      if (e.key === "Enter" && own.hover >= 0) put(own, { picked: own.hover });
      else if (e.key === "Escape") { look(m, -1); put(own, { lasso: [], picked: -1 }); }
      else if (way) look(m, beside(m, own.hover >= 0 ? own.hover : model.get("picked"), way));
      else return;
      e.preventDefault(); e.stopPropagation(); again();
    });
  }
  function beside(m, i, [dx, dy]) { // the nearest shown point in a direction
    place(own.film, own.eps);
    if (i < 0 || i >= own.film.n) return find(m, boxes[m].w / 2, boxes[m].h / 2, 1e6);
    const [x, y] = at(m, i);
    let best = i, least = Infinity;
    for (let o = 0; o < own.film.n; o++) {
      if (o === i || !tint[4 * o + 3]) continue;
      const [ox, oy] = at(m, o), along = (ox - x) * dx + (oy - y) * dy, aside = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
      if (along > 0.5 && aside <= along && along + 2 * aside < least) { least = along + 2 * aside; best = o; }
    }
    return best;
  }

  $(".ex-fm-bar").addEventListener("click", (e) => {
    const act = own.film && e.target.closest("[data-act]")?.dataset.act;
    if (act === "play") play(own, !own.playing);
    else if (act === "start") go(own, limits(own)[0]);
    else if (act === "step") hop(own, 1);
  });
  range.addEventListener("input", () => { own.held = true; own.playing = false; own.goal = null; own.eps = clamp(own, +range.value); ask(own); });
  const release = () => { if (own.held) { own.held = false; own.goal = nearest(own, own.eps); ask(own); } };
  for (const name of ["change", "pointerup", "pointercancel", "blur"]) range.addEventListener(name, release);
  range.addEventListener("keydown", (e) => {
    const by = { ArrowRight: 1, ArrowUp: 1, PageUp: 1, ArrowLeft: -1, ArrowDown: -1, PageDown: -1 }[e.key];
    if (by) hop(own, by);
    else if (e.key === "Home" || e.key === "End") go(own, limits(own)[e.key === "Home" ? 0 : 1]);
    else if (e.key === " ") play(own, !own.playing);
    else return;
    e.preventDefault(); e.stopPropagation();
  });
  $(".ex-fm-chips").addEventListener("change", (e) => {
    if (e.target.dataset.g) put(own, { hidden: all(".ex-fchip input").filter((box) => !box.checked).map((box) => +box.dataset.g) });
    again();
  });
  $(".ex-fm-chips").addEventListener("click", (e) => {
    const what = e.target.dataset.show;
    if (what) { put(own, { hidden: what === "all" ? [] : own.film.names.map((_, g) => g) }); again(); }
  });
  $(".ex-fm-keys").addEventListener("input", (e) => {
    if (e.target.type !== "search") return;
    const text = e.target.value.trim().toLowerCase();
    put(own, { hidden: own.film.names.flatMap(({ name }, g) => (name.toLowerCase().includes(text) ? [] : [g])) });
    again();
  });
  el.film = { at: (i, m = 0) => { const r = all(".ex-fm-map")[m].getBoundingClientRect(), [x, y] = at(m, i); return [r.left + 1 + x, r.top + 1 + y]; } };
  window.addEventListener("resize", again);
  own.views.add(draw);
  again();
  return () => { own.views.delete(draw); clearTimeout(unseen); window.removeEventListener("resize", again); };
}

export default () => { // once a model; its views share what it holds
  const own = { film: null, eps: 0, goal: null, playing: false, held: false, mine: false, due: 0, told: 0, later: 0, last: null, hover: -1, over: 0, views: new Set(), thumbs: new Map() };
  return { initialize: (given) => initialize(given, own), render: (given) => render(given, own) };
};
