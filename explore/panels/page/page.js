// page.js - a saved panel without Python: models for its widgets, controls that set its traits, tables of what Python drew.
const pictures = []; // data URIs, by number
const alive = (v) => (typeof v === "string" ? v.replace(/picture:(\d+):/g, (_, i) => pictures[i]) : v?.bytes !== undefined ? bytes(v.bytes) : v);
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
const NEEDY = ".ex-page button, .ex-picks [data-act]"; // buttons of widgets that only Python can answer
const needs = "This needs Python: run the lesson in Jupyter.";

function panel(page) {
  pictures.push(...page.pictures);
  const models = {}, traits = page.traits, at = ([id, name], value) => {
    if (models[id]) models[id].set(name, alive(value));
    else if (byId(id)) byId(id).innerHTML = alive(value);
  };

  function put(trait, value) { // the page's one truth: a trait has another value
    if (traits[trait] === value) return;
    traits[trait] = value;
    for (const [own, id, name] of page.links) if (own === trait) models[id]?.set(name, value);
    for (const [id, control] of Object.entries(page.controls)) if (control.trait === trait) show(id, control);
    for (const table of page.tables) if (trait in table.axes) fill(table);
  }
  function place(values, value) { // the value's own place, for numbers the nearest
    const i = values.indexOf(value);
    if (i >= 0 || typeof value !== "number") return i;
    return values.reduce((best, v, j) => (Math.abs(v - value) < Math.abs(values[best] - value) ? j : best), 0);
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
    const quiet = () => el.parentElement.querySelectorAll(NEEDY).forEach((b) => { b.disabled = true; b.title = needs; });
    made.initialize?.({ model });
    made.render({ model, el });
    model.on("change:html", quiet);
    quiet();
  }
  for (const [trait, id, name] of page.links) models[id]?.on(`change:${name}`, () => put(trait, models[id].get(name)));
  for (const [id, control] of Object.entries(page.controls)) { listen(id, control); show(id, control); }
  for (const table of page.tables) fill(table);
  for (const [id, { data, layout }] of Object.entries(page.figures)) Plotly.newPlot(byId(id), data, layout, { displayModeBar: false });
  document.body.dataset.ready = "yes";
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
