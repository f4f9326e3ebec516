// pixels.js - draws a batch of images, the difference and the perturbed ones, and follows eps without the kernel.
// x + s[k] * direction, clipped: float32 throughout (Math.fround), so the bytes equal the library's `results.to_pixels`.
// Attacks whose direction depends on eps come as frames, one a k; the last good picture stays until its frame is here.
const KINDS = [["adv", "adversary"], ["gauss", "Gaussian"], ["uniform", "uniform"], ["sign", "sign noise"]];
const SHOW = ["clean", "difference", "perturbed"];
const fr = Math.fround;
const frameOf = (own, k) => own.frames.get(`${own.batch.key} ${k}`);

const copy = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
const floats = (view) => new Float32Array(copy(view));
const count = (v) => v.toLocaleString("en");

function unpack(model) { // what one `meta` describes, as typed arrays
  const meta = model.get("meta");
  if (!meta.n) return null;
  const bytes = new Uint8Array(copy(model.get("images"))), codes = new Int16Array(copy(model.get("codes")));
  return {
    ...meta, len: meta.size * meta.size * meta.channels,
    x: Float32Array.from(bytes, (b) => b / 255), dirs: Float32Array.from(codes, (q) => q / 32767),
    scales: floats(model.get("scales")),
  };
}

function initialize(own, model) {
  hear(model);
  own.batch = unpack(model);
  model.on("change:meta", () => { // a message may overtake its state: keep what belongs to the new batch
    own.batch = unpack(model);
    for (const name of own.frames.keys()) if (!name.startsWith(own.batch?.key + " ")) own.frames.delete(name);
  });
  model.on("msg:custom", (msg, buffers) => {
    if (msg.type !== "frame") return;
    own.frames.set(`${msg.key} ${msg.k}`, { x: floats(buffers[0]), scales: floats(buffers[1]) });
    own.views.forEach((draw) => draw());
  });
  model.send({ type: "hello" });
}

// image i of a kind at eps = k/255 into `out`; false where its frame is not here yet
function perturb(own, kind, i, k, out) {
  const b = own.batch, frame = b.single ? null : frameOf(own, k), at = i * b.len;
  if (!b.single && !frame) return false;
  if (frame && kind === 0) { out.set(frame.x.subarray(at, at + b.len)); return true; }
  const s = frame ? frame.scales[(kind - 1) * b.n + i] : b.scales[(k * 4 + kind) * b.n + i];
  const from = (kind * b.n + i) * b.len;
  for (let j = 0; j < b.len; j++) {
    const v = fr(b.x[at + j] + fr(s * b.dirs[from + j]));
    out[j] = v < 0 ? 0 : v > 1 ? 1 : v;
  }
  return true;
}

// gain 0: the image itself; else the difference to clean, times gain. `what` names the content: the same is not painted twice
function paint(canvas, b, i, values, gain, what) {
  const name = `${b.key} ${i} ${what} ${gain}`;
  if (canvas.content === name) return;
  canvas.content = name;
  if (canvas.width !== b.size || !canvas.pen) {
    canvas.width = canvas.height = b.size;
    canvas.pen = canvas.getContext("2d", { willReadFrequently: true });
    canvas.ink = canvas.pen.createImageData(b.size, b.size);
    canvas.ink.data.fill(255);
  }
  const data = canvas.ink.data, c = b.channels, at = i * b.len;
  for (let p = 0, q = 0; q < data.length; p += c, q += 4)
    for (let j = 0; j < 3; j++) {
      const e = p + (c === 3 ? j : 0);
      data[q + j] = gain ? 128 + gain * 255 * (values[e] - b.x[at + e]) : Math.floor(fr(fr(values[e] * 255) + 0.5));
    }
  canvas.pen.putImageData(canvas.ink, 0, 0);
}

const figure = (role, what, size, more = "") => `<figure><figcaption><span class="${role}"><i class="dot"></i>
  <span class="role">${what}</span></span>${more}</figcaption>`.replace(/\s+</g, "<") +
  size.map(([id, cls]) => `<canvas data-id="${id}" class="pic ${cls}" role="img"></canvas>`).join("") + "</figure>";

const BODY = `
<div class="ex-pick"><div class="ex-strip" role="listbox" aria-label="images; arrows move, Enter picks"></div>
 <div class="ex-side"><span class="ex-k">Pick an image. Bar: how much its loss rises.</span>
 <span class="ex-pager"><select aria-label="the strip shows">${SHOW.map((s) => `<option value="${s}">show ${s}</option>`).join("")}</select>
 <span class="ex-page"><span class="ex-k"></span><button aria-label="earlier images">‹</button><button aria-label="later images">›</button></span></span></div></div>
<p class="ex-reading" aria-live="polite"></p>
<div class="ex-pics"><div class="ex-tri">${
  figure("clean", "clean", [["clean", "big"]], ' <span class="cap"><span class="name"></span><span class="at1000"></span></span>')}${
  figure("adv", "difference", [["adv-d", "big"]], ' <span class="gain"></span>')}${
  figure("adv", "perturbed", [["adv-p", "big"]], '<span class="at1000"> clean + difference</span>')}</div>
 <div class="ex-noise"><div class="ex-rl ex-note"><span>difference<br><span class="gain"></span></span><span>perturbed</span></div>${
  KINDS.slice(1).map(([role, what]) => figure(role, what, [[role + "-d", "small"], [role + "-p", "small"]])).join("")}</div></div>`;

function render(own, model, el) {
  const $ = (q) => el.querySelector(q), all = (q) => [...el.querySelectorAll(q)];
  el.classList.add("ex-pixels");
  el.innerHTML = BODY;
  const strip = $(".ex-strip"), [back, next] = all(".ex-page button"), select = $("select");
  const big = Object.fromEntries(all("canvas").map((c) => [c.dataset.id, c]));
  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  let thumbs = [], values = new Float32Array(0), due = 0, late = 0, shown = null; // shown: batch and eps on the screen

  const eps = () => (model.get("hold") < 0 ? model.get("k") : model.get("hold"));

  function layout() { // a new batch: thumbnails, sizes, page
    const b = own.batch;
    el.hidden = !b;
    if (!b) return;
    values = new Float32Array(b.len);
    const times = (px) => b.size * Math.max(1, Math.floor(px / b.size)) + "px";
    for (const [name, px] of [["big", 192], ["mid", 160], ["small", 96], ["tiny", 64]]) el.style.setProperty("--" + name, times(px));
    strip.innerHTML = b.names.map((_, i) =>
      `<button class="ex-th" role="option" data-i="${i}" data-lm-suppress-shortcuts="true"><canvas class="pic"></canvas><i></i></button>`).join("");
    thumbs = all(".ex-th");
    $(".ex-page .ex-k").textContent = `${count(b.first + 1)}–${count(b.first + b.n)} of ${count(b.total)}`;
    back.disabled = b.first === 0;
    next.disabled = b.first + b.n >= b.total;
    draw();
  }

  function draw() { // one frame, however many changes asked for it
    if (!due) due = requestAnimationFrame(() => { due = 0; if (own.batch) put(); });
  }

  function put() {
    const b = own.batch, ready = b.single || !!frameOf(own, eps());
    const k = ready || shown?.key !== b.key ? eps() : shown.k; // until its frame is here, all stays at the last one's eps
    const gain = model.get("gain"), show = SHOW.indexOf(model.get("show"));
    const i = Math.min(model.get("picked"), b.n - 1), name = b.names[i];
    const rise = floats(model.get("rises")), most = rise.reduce((m, r) => (r > m ? r : m), 1e-6);
    all(".gain").forEach((g) => (g.textContent = `× ${gain}`));
    $(".cap .name").textContent = name; // text, never HTML: a class is named by its folder
    $(".cap .at1000").textContent = `, no. ${b.ids[i]}`;
    select.value = SHOW[show];
    thumbs.forEach((t, j) => {
      const up = rise[k * b.n + j];
      if (show === 0) paint(t.firstChild, b, j, b.x.subarray(j * b.len, (j + 1) * b.len), 0, "clean");
      else if (perturb(own, 0, j, k, values)) paint(t.firstChild, b, j, values, show === 1 ? gain : 0, k);
      if (up === up) t.lastChild.style.width = `${Math.round((32 * Math.max(up, 0)) / most)}px`;
      t.setAttribute("aria-label", `image ${b.ids[j]}, ${b.names[j]}` + (up === up ? `, loss ${up < 0 ? "−" : "+"}${Math.abs(up).toFixed(2)}` : ""));
      t.setAttribute("aria-selected", j === i);
      t.classList.toggle("sel", j === i);
      if (!strip.contains(document.activeElement)) t.tabIndex = j === i ? 0 : -1;
    });
    paint(big.clean, b, i, b.x.subarray(i * b.len, (i + 1) * b.len), 0, "clean");
    big.clean.setAttribute("aria-label", `clean: ${name}`);
    KINDS.forEach(([role, what], kind) => {
      if (!perturb(own, kind, i, k, values)) return;
      paint(big[role + "-d"], b, i, values, gain, k);
      paint(big[role + "-p"], b, i, values, 0, k);
      big[role + "-d"].setAttribute("aria-label", `signed difference, ${kind ? what : b.attack + " adversary"}, times ${gain}; grey is unchanged`);
      big[role + "-p"].setAttribute("aria-label", `perturbed by ${kind ? what : "the adversary"} at ${k}/255: ${name}`);
    });
    clearTimeout(late);
    if (ready) {
      el.dataset.k = k;
      shown = { key: b.key, k };
      el.classList.remove("waiting");
    } else late = setTimeout(() => el.classList.add("waiting"), 150); // sooner, and quick work would flicker
  }

  const focus = (j) => { const t = thumbs[Math.max(0, Math.min(j, thumbs.length - 1))]; thumbs.forEach((o) => (o.tabIndex = o === t ? 0 : -1)); t.focus(); };
  strip.addEventListener("click", (e) => { const t = e.target.closest(".ex-th"); if (t) set("picked", +t.dataset.i); });
  strip.addEventListener("keydown", (e) => {
    const across = getComputedStyle(strip).gridTemplateColumns.split(" ").length, j = +document.activeElement.dataset.i;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -j, End: thumbs.length - 1 - j }[e.key];
    if (step === undefined) return;
    e.preventDefault(); e.stopPropagation(); focus(j + step);
  });
  back.addEventListener("click", () => set("page", model.get("page") - 1));
  next.addEventListener("click", () => set("page", model.get("page") + 1));
  select.addEventListener("change", () => set("show", select.value));
  const reading = () => { $(".ex-reading").innerHTML = model.get("reading"); };
  const watched = { "change:meta": layout, "change:reading": reading };
  for (const name of ["k", "hold", "picked", "gain", "show", "rises"]) watched["change:" + name] = draw;
  for (const [event, run] of Object.entries(watched)) model.on(event, run);
  own.views.add(draw);
  reading();
  layout();
  return () => { own.views.delete(draw); for (const [event, run] of Object.entries(watched)) model.off(event, run); };
}

export default () => { // once a model; its views share what it holds
  const own = { batch: null, frames: new Map(), views: new Set() };
  return { initialize: ({ model }) => initialize(own, model), render: ({ model, el }) => render(own, model, el) };
};
