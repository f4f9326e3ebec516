// html.js - HTML that Python wrote, of whose parts one can be picked: by a click, or by arrows and Enter. One tab stop.
// What can be picked carries data-pick="key"; parts of one row stand in one data-row. `picked` is the key, both ways.
export default {
  render({ model, el }) {
    el.classList.add("ex-picks");
    const rows = () => [...el.querySelectorAll("[data-row]")].map((r) => [...r.querySelectorAll("[data-pick]")]);
    const key = (t) => t?.dataset.pick;

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
    function draw() {
      const held = el.contains(document.activeElement) ? key(document.activeElement) : undefined;
      el.innerHTML = model.get("html");
      if (held !== undefined) rows().flat().find((t) => key(t) === held)?.focus({ preventScroll: true });
      mark();
    }
    function pick(t) {
      if (t.disabled) return;
      model.set("picked", key(t));
      model.save_changes();
    }
    el.addEventListener("click", (e) => {
      const t = e.target.closest("[data-pick]");
      if (t) { pick(t); t.focus({ preventScroll: true }); mark(); }
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
