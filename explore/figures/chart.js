// chart.js - a plotly figure. All that is drawn is in data_json and layout_json, which arrive in one message, so whenever
// and however often the page opens the chart, it is complete. plotly.js itself is another model's, one for all charts.
const POINTS = { min: 320, max: 960 }; // px: a chart is as wide as its place, within these
const SAY = 5, TRY = 30; // seconds until a chart without plotly.js says so, and until it tries again
const WAITS = "This chart is not drawn yet, because its script has not come. It is tried again until it comes; where this stays, " +
  "run this cell again.";

async function shared(model) { // from the model that was sent once for all charts
  const zipped = (await model.widget_manager.get_model(model.get("script").slice("IPY_MODEL_".length))).get("zipped");
  if (!zipped?.byteLength) throw Error("the model of plotly.js is empty");
  return zipped;
}

function asked(model) { // from the kernel, which answers when it has time
  return new Promise((resolve) => {
    const answer = (content, buffers) => {
      if (content.what !== "script") return;
      model.off("msg:custom", answer);
      resolve(buffers[0]);
    };
    model.on("msg:custom", answer);
    model.send({ what: "script" });
  });
}

const after = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function load(model) { // the shared model, and where it has not come within five seconds, whichever comes first
  const zipped = new Blob([await Promise.any([shared(model), after(5).then(() => asked(model))])]).stream();
  const text = await new Response(zipped.pipeThrough(new DecompressionStream("gzip"))).text();
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" })), before = window.Plotly;
  try { await import(/* webpackIgnore: true */ url); } finally { URL.revokeObjectURL(url); }
  const own = window.Plotly;
  if (before) window.Plotly = before; // the page's own, of another version perhaps
  return own;
}

async function plotly(model, signal, waits) { // one for the page: the first that comes, of whichever chart and try, however late
  const page = (globalThis[`explore.plotly/${model.get("version")}`] ??= { began: -Infinity });
  page.found ??= new Promise((found) => { page.take = found; });
  for (let seconds = 1; !signal?.aborted; seconds++) {
    if (performance.now() - page.began > 1000 * TRY) {
      page.began = performance.now();
      load(model).then(page.take, (error) => { console.error(error); page.failed = true; page.began = -Infinity; });
    }
    const found = await Promise.race([page.found, after(1)]);
    if (found) return found;
    if (seconds >= SAY || page.failed) waits();
  }
}

export default {
  async render({ model, el, signal }) {
    hear(model);
    const place = document.createElement("div"), style = document.createElement("style");
    const still = `.ex-still-${model.get("key")}`; // the picture in the output, for whoever has no live chart
    const ink = ".ex-chart text[style*='128, 128, 128']{fill:var(--jp-ui-font-color1,#808080)!important}"; // the theme's
    const hide = (what) => `.ex-chart.jupyter-widgets-disconnected::before{content:none!important}${ink}${what}{display:none!important}`;
    style.textContent = hide(`${still} p`); // its sentence at once, the picture when the chart is drawn
    el.classList.add("ex-chart");
    el.style.cssText += ";display:block;width:100%;min-width:0;overflow:visible";
    el.append(style, place);
    let text, data, drawn, wide = 0, ended = false, wanted = false, drawing = false;
    const Plotly = await plotly(model, signal, () => { place.textContent = WAITS; });
    if (!Plotly) return; // the view was closed meanwhile
    place.textContent = "";
    async function put(layout) {
      const parts = Object.fromEntries(Object.entries(layout).map(([key, value]) => [key, JSON.stringify(value)]));
      if (drawn?.data === data) { // where the traces stay, only the changed parts of the layout are drawn
        const keys = Object.keys({ ...parts, ...drawn.parts }).filter((key) => parts[key] !== drawn.parts[key]);
        if (keys.length) await Plotly.relayout(place, Object.fromEntries(keys.map((key) => [key, layout[key] ?? null])));
      } else await Plotly.react(place, data, layout, { displayModeBar: false });
      drawn = { data, parts };
    }
    async function draw() { // the newest state; while one is drawn, further requests become one
      wanted = true;
      if (drawing) return;
      drawing = true;
      while (wanted && !ended) {
        wanted = false;
        if (model.get("data_json") !== text) data = JSON.parse(text = model.get("data_json"));
        const layout = JSON.parse(model.get("layout_json"));
        wide = el.clientWidth;
        layout.width = wide ? Math.max(POINTS.min, Math.min(wide, Math.max(POINTS.max, layout.width ?? 0))) : layout.width;
        try { await put(layout); } catch (error) {
          console.error(error);
          if (!drawn) place.textContent = `This chart cannot be drawn (${error.message}). Reload the page, or run this cell again.`;
        }
      }
      drawing = false;
    }
    const size = new ResizeObserver(() => { if (el.clientWidth && el.clientWidth !== wide) draw(); });
    const on_data = () => draw();
    model.on("change:data_json", on_data);
    model.on("change:layout_json", on_data);
    await draw();
    if (drawn) style.textContent = hide(`${still},.jp-OutputArea-child:has(${still})`);
    place.on?.("plotly_click", (e) => model.send({ points: e.points.map((p) => [p.curveNumber, p.pointNumber]) }));
    size.observe(el);
    return () => {
      ended = true;
      size.disconnect();
      model.off("change:data_json", on_data);
      model.off("change:layout_json", on_data);
      Plotly.purge(place);
    };
  },
};
