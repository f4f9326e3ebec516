// page.js - a saved panel without Python: models for its widgets, controls that set its traits, tables of what Python drew.
const pictures = [], texts = []; // data URIs and parts of HTML, by number
const drawn = (text) => text.replace(/picture:(\d+):/g, (_, i) => pictures[i]);
const alive = (v) => (typeof v === "string" ? drawn(v) : v?.bytes !== undefined ? bytes(v.bytes) : v?.parts ? v.parts.map((i) => drawn(texts[i])).join("") : v);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

class Model { // what a widget's JavaScript uses of anywidget's model
  constructor(state, replies) {
    this.state = Object.fromEntries(Object.entries(state).map(([name, v]) => [name, alive(v)]));
    this.replies = replies ?? {};
    this.handlers = {};
  }
  get(name) { return this.state[name]; }
  set(name, value) {
    const news = Object.entries(typeof name === "string" ? { [name]: value } : name).filter(([key, v]) => this.state[key] !== v);
    for (const [key, v] of news) this.state[key] = v;
    for (const [key] of news) this.emit(`change:${key}`);
  }
  save_changes() {}
  on(event, run) { (this.handlers[event] ??= new Set()).add(run); }
  off(event, run) { this.handlers[event]?.delete(run); }
  emit(event, ...given) { for (const run of [...(this.handlers[event] ?? [])]) run(...given); }
  send(message) {
    for (const [said, buffers] of this.replies[JSON.stringify(message)] ?? []) {
      const whole = Object.fromEntries(Object.entries(said).map(([name, v]) => [name, alive(v)]));
      queueMicrotask(() => this.emit("msg:custom", whole, buffers.map(alive)));
    }
  }
}

const byId = (id) => document.getElementById(id);
const NEEDY = ".ex-page button, [data-act]:not(.ex-fm-b)"; // buttons of widgets that only Python can answer
const needs = "This needs Python: run the lesson in Jupyter.";

function panel(page) {
  pictures.push(...page.pictures);
  texts.push(...page.texts);
  const models = {}, traits = page.traits, at = ([id, name], value) => {
    if (models[id]) models[id].set(name, alive(value));
    else if (page.figures[id]) Plotly.relayout(byId(id), { [name]: value });
    else if (byId(id)) byId(id).innerHTML = alive(value);
  };

  function put(trait, value) { // the page's one truth: a trait has another value
    if (traits[trait] === value) return;
    traits[trait] = value;
    for (const [names, id, name] of page.links) if (names.split(",").includes(trait)) models[id]?.set(name, like(models[id].get(name), names.split(",").map((own) => traits[own])));
    for (const [id, control] of Object.entries(page.controls)) if (control.trait === trait) show(id, control);
    for (const table of page.tables) if (trait in table.axes) fillLater(table);
  }
  const like = (old, values) => (typeof old === "string" ? values.join(",") : values[0]); // a trait as the widget has it
  function take(names, value) { // and back: 'kind,k' are two
    const parts = names.includes(",") ? String(value).split(",") : [value];
    if (parts.length === names.split(",").length) names.split(",").forEach((trait, i) => put(trait, typeof traits[trait] === "number" && parts[i] !== "" ? +parts[i] : parts[i]));
  }
  function place(values, value) { // the value's own place, for numbers the nearest
    const i = values.indexOf(value);
    if (i >= 0 || typeof value !== "number") return i;
    return values.reduce((best, v, j) => (Math.abs(v - value) < Math.abs(values[best] - value) ? j : best), 0);
  }
  const waiting = new Set();
  function fillLater(table) { // pictures first: they are drawn in the next frame, text after it
    if (!waiting.size) requestAnimationFrame(() => setTimeout(() => { waiting.forEach(fill); waiting.clear(); }));
    waiting.add(table);
  }
  function fill(table) {
    let row = 0;
    for (const [trait, values] of Object.entries(table.axes)) {
      const i = place(values, traits[trait]);
      if (i < 0) return;
      row = row * values.length + i;
    }
    if (table.shown === row) return;
    table.shown = row;
    table.targets.forEach((target, j) => at(target, table.rows[row][j]));
  }

  const field = (id) => document.querySelector(`[data-control="${id}"]`);
  function show(id, { trait, values }) { // a control shows its trait
    const own = field(id), value = traits[trait], i = values.indexOf(value);
    if (own.type === "range") {
      own.value = values.length ? i : value;
      own.style.setProperty("--p", `${(100 * (own.value - own.min)) / (own.max - own.min)}%`);
      const out = own.closest(".widget-slider").querySelector(".widget-readout");
      if (out) out.textContent = value;
    } else if (own.type === "checkbox") own.checked = value;
    else if (own.tagName === "SELECT") own.selectedIndex = i;
    else if (own.tagName === "INPUT") own.value = value;
    else [...own.children].forEach((button, j) => button.classList.toggle("mod-active", j === i));
  }
  function listen(id, { trait, values }) {
    const own = field(id);
    if (own.tagName === "DIV") [...own.children].forEach((button, j) => button.addEventListener("click", () => put(trait, values[j])));
    else own.addEventListener("input", () => put(trait, own.tagName === "SELECT" ? values[own.selectedIndex] : own.type === "checkbox" ? own.checked : values.length ? values[+own.value] : +own.value));
  }

  for (const [id, { module, state }] of Object.entries(page.widgets)) {
    const model = (models[id] = new Model(state, page.replies[id])), el = byId(id);
    const made = typeof MODULES[module] === "function" ? MODULES[module]() : MODULES[module];
    const linked = page.links.some(([, own]) => own === id); // else a pick would change nothing
    const quiet = () => el.querySelectorAll(NEEDY + (linked ? "" : ", [data-pick]")).forEach((b) => { b.disabled = true; b.title ||= needs; });
    made.initialize?.({ model });
    made.render({ model, el });
    model.on("change:html", quiet);
    quiet();
  }
  for (const [names, id, name] of page.links) models[id]?.on(`change:${name}`, () => take(names, models[id].get(name)));
  for (const [id, control] of Object.entries(page.controls)) { listen(id, control); show(id, control); }
  for (const [id, { data, layout }] of Object.entries(page.figures)) {
    Plotly.newPlot(byId(id), data, layout, { displayModeBar: false });
    for (const [names, own] of page.links) if (own === id) byId(id).on("plotly_click", ({ points }) => points[0]?.customdata !== undefined && take(names, points[0].customdata));
  }
  for (const table of page.tables) fill(table);
  document.body.dataset.ready = "yes";
  if (parent !== window) new ResizeObserver(() => parent.postMessage({ height: document.documentElement.scrollHeight + 2 }, "*")).observe(document.querySelector(".ex-sheet"));
}

function themes() { // the reader's own, or the switch's
  const dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement, own = byId("theme");
  const put = (on) => { root.dataset.jpThemeLight = String(!on); own.textContent = on ? "Light" : "Dark"; };
  put(dark.matches);
  dark.addEventListener("change", () => put(dark.matches));
  own.addEventListener("click", () => put(root.dataset.jpThemeLight === "true"));
}

themes();
new Response(new Blob([bytes(byId("data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"))).json().then(panel);
