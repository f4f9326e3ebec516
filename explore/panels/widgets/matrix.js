// matrix.js - cosines of 2n views as cells: blue above 0, grey below, the stronger the larger; frames mark positives, the diagonal is
// empty. The mouse or the arrows choose a cell, whose two pictures stand beside it; a click or an arrow sets `picked`, "row,column".
const SIDE = 384, SVG = "http://www.w3.org/2000/svg";
const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

export default {
  render({ model, el }) {
    hear(model);
    el.classList.add("ex-mx");
    el.innerHTML = `<div class="ex-mx-map" tabindex="0" role="application" data-lm-suppress-shortcuts="true"
      aria-label="Cosines of all pairs of views; arrows move, the pair is told beside the matrix">
      <canvas></canvas><svg></svg></div><div class="ex-mx-pair" aria-live="polite"></div>`;
    const map = el.querySelector(".ex-mx-map"), canvas = el.querySelector("canvas"), marks = el.querySelector("svg");
    const pair = el.querySelector(".ex-mx-pair");
    let m = 0, cell = 0, cosine, weight, hover = null;

    const picked = () => model.get("picked").split(",").map((v) => Math.min(m - 1, Math.max(0, Number(v))));
    const partner = (i) => (i + m / 2) % m;
    const view = (i) => `${model.get("names")[i % (m / 2)]}, view ${i < m / 2 ? 1 : 2}`;

    function frame(r, c, kind, wide = cell) {
      const rect = document.createElementNS(SVG, "rect"), half = 0.75;
      for (const [key, value] of Object.entries({ x: c * cell + half, y: r * cell + half, width: wide - 2 * half, height: cell - 2 * half })) rect.setAttribute(key, value);
      rect.setAttribute("class", kind);
      marks.append(rect);
    }
    function draw() {
      cosine = floats(model.get("values"));
      weight = floats(model.get("weights"));
      m = Math.round(Math.sqrt(cosine.length));
      if (!m) return;
      cell = Math.max(1, Math.floor(SIDE / m));
      const size = cell * m, pen = canvas.getContext("2d");
      canvas.width = canvas.height = size;
      map.style.width = map.style.height = `${size}px`;
      marks.setAttribute("viewBox", `0 0 ${size} ${size}`);
      for (let r = 0; r < m; r++) for (let c = 0; c < m; c++) {
        const v = cosine[r * m + c];
        if (r === c) continue;
        pen.fillStyle = v > 0 ? `rgba(52,103,210,${0.9 * v})` : `rgba(128,128,128,${-0.9 * v})`;
        pen.fillRect(c * cell, r * cell, cell, cell);
      }
      mark();
    }
    function mark() {
      if (!m) return;
      const [r, c] = picked(), [hr, hc] = hover ?? [r, c];
      marks.replaceChildren();
      for (let i = 0; i < m; i++) frame(i, partner(i), "positive");
      frame(r, 0, "row", cell * m);
      frame(hr, hc, "at");
      tell(hr, hc);
    }
    function tell(r, c) {
      const same = r === c, names = model.get("names"), pics = model.get("pictures");
      const kind = same ? "itself: left out" : c === partner(r) ? "positive pair"
        : names[r % (m / 2)] === names[c % (m / 2)] && names[r % (m / 2)] !== "image" ? "negative pair of one class" : "negative pair";
      const percent = (100 * weight[r * m + c]).toFixed(1);
      pair.replaceChildren();
      for (const [i, word] of [[r, "anchor (row)"], [c, "candidate (column)"]]) {
        const figure = document.createElement("figure"), img = new Image(96, 96), caption = document.createElement("figcaption");
        img.src = pics[i] ?? "";
        img.alt = view(i);
        img.className = "pic";
        img.dataset.view = i;
        caption.append(word, document.createElement("br"), view(i));
        figure.append(img, caption);
        pair.append(figure);
      }
      const words = document.createElement("p");
      const bold = document.createElement("b");
      bold.textContent = kind;
      words.append(bold, document.createElement("br"), `cosine ${cosine[r * m + c].toFixed(3).replace("-", "−")}`,
        document.createElement("br"), `weight ${percent} %`);
      pair.append(words);
      map.dataset.at = `${r},${c}`;
    }
    function place(e) {
      const box = canvas.getBoundingClientRect();
      const of = (v, low, wide) => Math.min(m - 1, Math.max(0, Math.floor(((v - low) / wide) * m)));
      return [of(e.clientY, box.top, box.height), of(e.clientX, box.left, box.width)];
    }
    function pick(at) {
      model.set("picked", at.join(","));
      model.save_changes();
    }
    map.addEventListener("mousemove", (e) => { hover = place(e); mark(); });
    map.addEventListener("mouseleave", () => { hover = null; mark(); });
    map.addEventListener("click", (e) => { pick(place(e)); map.focus({ preventScroll: true }); });
    map.addEventListener("keydown", (e) => {
      const [r, c] = picked();
      const to = { ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], Home: [r, 0], End: [r, m - 1] }[e.key];
      if (!to) return;
      e.preventDefault();
      e.stopPropagation();
      hover = null;
      pick(to.map((v) => Math.min(m - 1, Math.max(0, v))));
    });
    model.on("change:values change:pictures", draw);
    model.on("change:weights", () => { weight = floats(model.get("weights")); mark(); });
    model.on("change:picked", mark);
    draw();
  },
};
