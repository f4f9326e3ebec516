// scatter_time.js - points that travel through a fixed map as eps moves. Frames are sent once; the browser mixes two neighbouring ones.
// One eps a model, held in `own`; slider, number and points are put on the screen by the same turn of one loop, which turns only
// when something changed. Standing still the film stands on a computed eps; between two of them it is on its way.
const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const TELL = 200, SPEED = 3, NEAR = 12; // ms between two messages to the kernel on the way; k a second; pixels to a point
const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const ints = (view) => new Int32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const clean = (text) => { const made = document.createElement("i"); made.textContent = text; return made.innerHTML.replaceAll('"', "&quot;"); }; // a name as HTML
const count = (v) => v.toLocaleString("en");

function unpack(model) { // what one `meta` describes, as typed arrays
  const meta = model.get("meta");
  if (!meta.n) return null;
  const values = floats(model.get("values"));
  const film = { ...meta, e: meta.ks.length, frames: floats(model.get("frames")), ids: ints(model.get("ids")), groups: ints(model.get("groups")), values: values.length ? values : null };
  film.now = Array.from({ length: meta.maps }, () => new Float32Array(2 * meta.n));
  return film;
}

function where(film, eps) { // frame before eps and how far it is to the next
  let j = 0;
  while (j + 2 < film.e && film.ks[j + 1] <= eps) j++;
  const t = film.e > 1 ? (eps - film.ks[j]) / (film.ks[j + 1] - film.ks[j]) : 0;
  return t >= 1 ? { j: Math.min(j + 1, film.e - 1), t: 0 } : { j, t };
}

function place(film, eps) { // the same mixture on the CPU, for hover, lasso, rings; kept until eps is another
  if (film.stands === eps) return film.now;
  const { j, t } = where(film, eps), len = 2 * film.n;
  film.now.forEach((now, m) => {
    const at = (m * film.e + j) * len, next = j + 1 < film.e ? at + len : at, f = film.frames;
    for (let i = 0; i < len; i++) now[i] = f[at + i] + t * (f[next + i] - f[at + i]);
  });
  film.stands = eps;
  return film.now;
}

const limits = (own) => (own.film ? [own.film.ks[0], own.film.ks.at(-1)] : [0, 16]);
const clamp = (own, eps) => Math.min(Math.max(eps, limits(own)[0]), limits(own)[1]);
const nearest = (own, eps) => own.film.ks.reduce((best, k) => (Math.abs(k - eps) < Math.abs(best - eps) ? k : best));
const moving = (own) => own.playing || own.goal !== null || own.held;

function put(own, changes) { // to the kernel; `mine` tells our own changes from the kernel's
  const news = Object.entries(changes).filter(([name, value]) => JSON.stringify(own.model.get(name)) !== JSON.stringify(value));
  if (!news.length) return;
  own.mine = true;
  own.model.set(Object.fromEntries(news));
  own.mine = false;
  own.model.save_changes();
}
function tell(own) { // eps to the kernel: at once when it stands, now and then while it moves
  const wait = own.told + TELL - performance.now();
  if (moving(own) && wait > 0) { own.later ||= setTimeout(() => { own.later = 0; tell(own); }, wait); return; }
  own.told = performance.now();
  put(own, own.film?.e > 1 ? { k: Math.round(own.eps * 1000) / 1000, playing: own.playing } : { playing: own.playing }); // one frame: eps waits
}
function turn(own, time) {
  own.due = 0;
  if (!own.film) return;
  const step = (Math.min(time - (own.last ?? time - 16), 100) / 1000) * SPEED, [first, end] = limits(own);
  own.last = moving(own) ? time : null;
  if (own.playing) {
    own.eps = Math.min(own.eps + step, end);
    if (own.eps >= end) own.playing = false;
  } else if (own.goal !== null) { // to the computed eps where it will stand
    const left = own.goal - own.eps;
    own.eps = Math.abs(left) <= 4 * step || CALM.matches ? own.goal : own.eps + 4 * step * Math.sign(left);
    if (own.eps === own.goal) own.goal = null;
  }
  own.views.forEach((draw) => draw());
  tell(own);
  if (own.playing || own.goal !== null) ask(own);
  else own.last = null;
}
function ask(own) { own.due ||= requestAnimationFrame((time) => turn(own, time)); }
function play(own, on) {
  own.playing = on && !!own.film;
  own.goal = own.playing || !own.film ? null : nearest(own, own.eps);
  if (own.playing && own.eps >= limits(own)[1]) own.eps = limits(own)[0];
  ask(own);
}
function go(own, eps) { own.playing = false; own.goal = clamp(own, eps); ask(own); }
function hop(own, by) { // to the next computed eps in that direction
  const from = own.goal ?? own.eps, ks = own.film.ks;
  go(own, by > 0 ? ks.find((k) => k > from + 1e-6) ?? ks.at(-1) : ks.findLast((k) => k < from - 1e-6) ?? ks[0]);
}

function initialize({ model }, own) {
  hear(model);
  own.model = model;
  own.eps = model.get("k");
  own.film = unpack(model);
  const anew = () => { own.views.forEach((draw) => (draw.stale = true)); ask(own); };
  model.on("change:meta", () => {
    own.film = unpack(model);
    if (own.film && !moving(own)) own.eps = model.get("k");
    own.eps = clamp(own, own.eps);
    for (const name of own.thumbs.keys()) if (!name.startsWith(`${own.film?.images} `)) own.thumbs.delete(name);
    anew();
  });
  model.on("change:k", () => { if (!own.mine) { own.eps = clamp(own, model.get("k")); own.goal = null; ask(own); } });
  model.on("change:playing", () => { if (!own.mine) play(own, model.get("playing")); });
  model.on("change:hover", () => { if (!own.mine) { own.hover = model.get("hover"); own.over = 0; ask(own); } });
  for (const name of ["picked", "lasso", "hidden", "trails", "near"]) model.on(`change:${name}`, anew);
  for (const name of ["heads", "reading"]) model.on(`change:${name}`, () => ask(own));
  model.on("msg:custom", (msg) => { if (msg.type === "thumb") { own.thumbs.set(`${msg.images} ${msg.i}`, msg); ask(own); } });
  if (model.get("playing")) play(own, true);
}

