// cards.js - HTML that Python wrote, with buttons: data-act="..." is told to Python, data-copy="..." goes to the clipboard.
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
    el.classList.add("ex-cards");
    const name = (t) => t?.dataset.act ?? t?.dataset.copy;

    function draw() { // progress is written anew every second: the button in focus stays in focus
      const held = el.contains(document.activeElement) ? name(document.activeElement) : undefined;
      el.innerHTML = model.get("html");
      if (held !== undefined) [...el.querySelectorAll("button")].find((t) => name(t) === held)?.focus({ preventScroll: true });
    }
    el.addEventListener("click", (e) => {
      const t = e.target.closest("button");
      if (!t || t.disabled) return;
      if (t.dataset.act) model.send({ act: t.dataset.act });
      else if (t.dataset.copy) copy(t.dataset.copy).then(() => (t.textContent = "Copied"), () => (t.textContent = "Not allowed here"));
    });
    model.on("change:html", draw);
    draw();
    return () => model.off("change:html", draw);
  },
};
