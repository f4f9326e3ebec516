// html.js - HTML that Python wrote. A part with data-pick="key" is picked by a click, or by arrows and Enter; parts of one row stand in
// one data-row, all have one tab stop, `picked` is the key, both ways. A button's data-act is sent to Python, its data-copy is copied.
function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea"); // a Lab served over plain http has no clipboard of its own
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done ? Promise.resolve() : Promise.reject();
}

export default {
  render({ model, el }) {
    hear(model);
    el.classList.add("ex-picks");
    const rows = () => [...el.querySelectorAll("[data-row]")].map((r) => [...r.querySelectorAll("[data-pick]")]);
    const key = (t) => t?.dataset.pick;
    const name = (t) => key(t) ?? t?.dataset.act ?? t?.dataset.copy;

    function mark() { // the picked part, and the one tab stop: the focused part, else the picked one, else the first
      const all = rows().flat(), picked = model.get("picked");
      const stop = all.find((t) => t === document.activeElement) ?? all.find((t) => key(t) === picked) ?? all[0];
      for (const t of all) {
        t.classList.toggle("on", key(t) === picked);
        if (t.hasAttribute("aria-selected")) t.setAttribute("aria-selected", key(t) === picked);
        t.tabIndex = t === stop ? 0 : -1;
        t.dataset.lmSuppressShortcuts = "true"; // else Lab takes the arrow keys
      }
    }
    function draw() { // progress is written anew every second: what has the focus keeps it
      const held = el.contains(document.activeElement) ? name(document.activeElement) : undefined;
      el.innerHTML = model.get("html");
      if (held !== undefined) [...el.querySelectorAll("[data-pick], button")].find((t) => name(t) === held)?.focus({ preventScroll: true });
      mark();
    }
    function pick(t) {
      if (t.disabled) return;
      model.set("picked", key(t));
      model.save_changes();
    }
    el.addEventListener("click", (e) => {
      const t = e.target.closest("[data-pick], button");
      if (!t || t.disabled) return;
      if (key(t) !== undefined) { pick(t); t.focus({ preventScroll: true }); mark(); }
      else if (t.dataset.act) model.send({ act: t.dataset.act });
      else if (t.dataset.copy) copy(t.dataset.copy).then(() => (t.textContent = "Copied"), () => (t.textContent = "Not allowed here"));
    });
    el.addEventListener("keydown", (e) => {
      const grid = rows(), r = grid.findIndex((row) => row.includes(document.activeElement));
      if (r < 0) return;
      const c = grid[r].indexOf(document.activeElement), last = grid[r].length - 1;
      if (e.key === "Enter" || e.key === " ") pick(document.activeElement);
      const to = { ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], Home: [r, 0], End: [r, last] }[e.key];
      if (!to && e.key !== "Enter" && e.key !== " ") return;
      e.preventDefault();
      e.stopPropagation();
      const next = to && grid[to[0]]?.[to[1]];
      if (next) { next.focus(); mark(); }
    });
    model.on("change:html", draw);
    model.on("change:picked", mark);
    draw();
    return () => { model.off("change:html", draw); model.off("change:picked", mark); };
  },
};
