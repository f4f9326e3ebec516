// scatter_draw.js - draws the film's points: WebGL 2 where there is one, else a 2-D canvas. One canvas for all maps of a film.
// `scene`: { film, j, t, boxes, ratio, tint, now, trails, size }. Frames j and j + 1 are mixed by t, on the GPU or already in `now`.
const POINT = `#version 300 es
in vec2 a, b; in vec4 tint; in float va, vb; uniform vec4 map; uniform vec3 low, high; uniform float t, size, ramp; out vec4 ink; out float px;
void main() {
  gl_Position = tint.a > 0. ? vec4(mix(a, b, t) * map.xy + map.zw, 0, 1) : vec4(2, 2, 2, 1);
  gl_PointSize = px = size;
  ink = vec4(ramp > 0. ? mix(low, high, mix(va, vb, t)) : tint.rgb, tint.a);
}`;
const DISC = `#version 300 es
precision mediump float; in vec4 ink; in float px; out vec4 o;
void main() { float cover = ink.a * clamp(.5 * px - length(gl_PointCoord - .5) * px, 0., 1.); o = vec4(ink.rgb * cover, cover); }`;
const LOW = [152, 152, 152], HIGH = [227, 106, 14]; // of a value: grey, and the adversary's orange

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  ["a", "b", "tint", "va", "vb"].forEach((name, i) => gl.bindAttribLocation(made, i, name));
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made));
  return { made, at: (name) => gl.getUniformLocation(made, name) };
}

function webgl(canvas) { // null where there is no WebGL 2
  const gl = canvas.getContext("webgl2", { antialias: false, depth: false, premultipliedAlpha: true });
  if (!gl) return null;
  const points = program(gl, POINT, DISC);
  const frames = gl.createBuffer(), values = gl.createBuffer(), tints = gl.createBuffer();
  let has = {};
  const fill = (buffer, name, data) => { // sent to the GPU once, when it is another array
    if (has[name] === data) return;
    has[name] = data;
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  };
  function attribute(place, buffer, count, kind, start) {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, count, kind, kind === gl.UNSIGNED_BYTE, 0, start);
  }
  function pair(film, m, j) { // frames j and j + 1 of map m: two attributes at two places of one buffer
    const at = (m * film.e + j) * film.n * 8, next = j + 1 < film.e ? at + film.n * 8 : at;
    attribute(0, frames, 2, gl.FLOAT, at);
    attribute(1, frames, 2, gl.FLOAT, next);
    attribute(2, tints, 4, gl.UNSIGNED_BYTE, 0);
    for (const place of [3, 4]) film.values ? attribute(place, values, 1, gl.FLOAT, (place === 3 ? at : next) / 2) : gl.disableVertexAttribArray(place);
  }
  function draw(scene) {
    const { film, j, t, ratio } = scene;
    fill(frames, "frames", film.frames);
    fill(tints, "tint", scene.tint);
    if (film.values) fill(values, "values", film.values);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.enable(gl.SCISSOR_TEST);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    scene.boxes.forEach((box, m) => {
      const view = [box.x, scene.height - box.y - box.h, box.w, box.h].map((v) => Math.round(v * ratio));
      gl.viewport(...view);
      gl.scissor(...view);
      const { sx, sy, mx, my } = box, map = [2 * sx / box.w, 2 * sy / box.h, -2 * sx * mx / box.w, -2 * sy * my / box.h];
      gl.useProgram(points.made);
      pair(film, m, j, 0);
      gl.uniform4fv(points.at("map"), map);
      gl.uniform3fv(points.at("low"), LOW.map((v) => v / 255));
      gl.uniform3fv(points.at("high"), HIGH.map((v) => v / 255));
      gl.uniform1f(points.at("t"), t);
      gl.uniform1f(points.at("size"), scene.size * ratio);
      gl.uniform1f(points.at("ramp"), film.values ? 1 : 0);
      gl.drawArrays(gl.POINTS, 0, film.n);
    });
  }
  return { name: "webgl", draw };
}

function flat(canvas) { // the same picture without WebGL, pixel by pixel
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let disc = { size: 0 };
  function shape(size) { // coverage of a disc in a square of pixels
    const wide = Math.ceil(size) + 1, cover = new Float32Array(wide * wide);
    for (let i = 0; i < cover.length; i++) cover[i] = Math.min(1, Math.max(0, size / 2 - Math.hypot((i % wide) + 0.5 - wide / 2, Math.floor(i / wide) + 0.5 - wide / 2) + 0.5));
    return { size, wide, cover };
  }
  function draw(scene) {
    const { film, j, t, ratio, tint, now } = scene, n = film.n, wide = canvas.width, values = film.values;
    if (disc.size !== scene.size * ratio) disc = shape(scene.size * ratio);
    const image = pen.createImageData(wide, canvas.height), data = image.data;
    scene.boxes.forEach((box, m) => {
      const [left, top, right, low] = [box.x, box.y, box.x + box.w - disc.size / ratio, box.y + box.h - disc.size / ratio].map((v) => v * ratio);
      const at = (m * film.e + j) * n, next = j + 1 < film.e ? at + n : at;
      for (let i = 0; i < n; i++) {
        const alpha = tint[4 * i + 3] / 255, [px, py] = spot(scene, box, now[m][2 * i], now[m][2 * i + 1]);
        const x0 = Math.round(px - disc.wide / 2), y0 = Math.round(py - disc.wide / 2);
        if (!alpha || x0 < left || y0 < top || x0 > right || y0 > low) continue;
        const v = values ? values[at + i] + t * (values[next + i] - values[at + i]) : 0;
        const [r, g, b] = values ? LOW.map((c, q) => c + v * (HIGH[q] - c)) : [tint[4 * i], tint[4 * i + 1], tint[4 * i + 2]];
        for (let q = 0; q < disc.cover.length; q++) {
          const a = alpha * disc.cover[q];
          if (!a) continue;
          const d = 4 * ((y0 + Math.floor(q / disc.wide)) * wide + x0 + (q % disc.wide)), was = data[d + 3] / 255;
          const whole = a + was * (1 - a), mine = a / whole;
          data[d] += mine * (r - data[d]); data[d + 1] += mine * (g - data[d + 1]); data[d + 2] += mine * (b - data[d + 2]);
          data[d + 3] = 255 * whole;
        }
      }
    });
    pen.putImageData(image, 0, 0);
  }
  return { name: "canvas", draw };
}

const spot = ({ ratio }, box, x, y) => [(box.x + box.w / 2 + (x - box.mx) * box.sx) * ratio, (box.y + box.h / 2 - (y - box.my) * box.sy) * ratio];

function tracer(canvas) { // the ways the points came: whole steps are kept, the step under way is drawn anew every time
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let has = null, kept = new Uint8Array(0), image = null;
  function line(cover, wide, x0, y0, x1, y1) { // a smooth line one pixel wide, by the larger of its two directions
    const flip = Math.abs(y1 - y0) > Math.abs(x1 - x0);
    if (flip) [x0, y0, x1, y1] = [y0, x0, y1, x1];
    if (x0 > x1) [x0, y0, x1, y1] = [x1, y1, x0, y0];
    const rise = x1 > x0 ? (y1 - y0) / (x1 - x0) : 0;
    for (let x = Math.round(x0); x <= x1; x++) {
      const y = y0 + rise * (x - x0), low = Math.floor(y), up = y - low;
      const p = flip ? x * wide + low : low * wide + x, q = flip ? p + 1 : p + wide;
      const a = 90 * (1 - up), b = 90 * up; // where lines cross they do not add up: a bundle stays as light as one
      if (cover[p] < a) cover[p] = a;
      if (cover[q] < b) cover[q] = b;
    }
  }
  function stroke(cover, scene, from, to) { // all points' way from frame `from` to frame `to`, or to where they are now
    const { film, tint, boxes, ratio, now } = scene, f = film.frames;
    boxes.forEach((box, m) => {
      const [left, top, right, low] = [box.x, box.y, box.x + box.w - 2, box.y + box.h - 2].map((v) => Math.round(v * ratio));
      const x = (v) => Math.min(Math.max((box.x + box.w / 2 + (v - box.mx) * box.sx) * ratio, left), right);
      const y = (v) => Math.min(Math.max((box.y + box.h / 2 - (v - box.my) * box.sy) * ratio, top), low);
      for (let i = 0; i < film.n; i++) {
        if (tint[4 * i + 3] < 128) continue;
        const a = 2 * ((m * film.e + from) * film.n + i), b = 2 * ((m * film.e + to) * film.n + i);
        const [u, v] = to > from ? [f[b], f[b + 1]] : [now[m][2 * i], now[m][2 * i + 1]];
        line(cover, canvas.width, x(f[a]), y(f[a + 1]), x(u), y(v));
      }
    });
  }
  function draw(scene) {
    const { film, tint, boxes, trails, j } = scene, size = canvas.width * canvas.height;
    const same = has && has.film === film && has.tint === tint && has.boxes === boxes && has.trails === trails && j >= has.j && kept.length === size;
    if (!trails) { if (has?.trails) pen.clearRect(0, 0, canvas.width, canvas.height); has = { trails }; return; }
    if (!same) kept = new Uint8Array(size);
    if (image?.width !== canvas.width || image.height !== canvas.height) { image = pen.createImageData(canvas.width, canvas.height); image.data.fill(128); }
    for (let f = same ? has.j : 0; f < j; f++) stroke(kept, scene, f, f + 1);
    const cover = scene.t > 0 ? kept.slice() : kept, data = image.data;
    if (scene.t > 0) stroke(cover, scene, j, j);
    for (let p = 0, q = 3; p < size; p++, q += 4) data[q] = cover[p];
    pen.putImageData(image, 0, 0);
    has = { film, tint, boxes, trails, j };
  }
  return draw;
}

// two canvases in `parent` and what draws on them; `lost` is called when the browser takes the GPU away
function drawer(parent, lost) {
  const fresh = () => { const made = document.createElement("canvas"); made.className = "ex-fm-canvas"; made.setAttribute("aria-hidden", "true"); return made; };
  const under = fresh();
  let canvas = fresh(), by = null;
  try { by = webgl(canvas); } catch (error) { console.warn("film: drawing without WebGL:", error); canvas = fresh(); }
  if (!by) { canvas = fresh(); by = flat(canvas); }
  canvas.addEventListener("webglcontextlost", lost);
  const all = [under, canvas], trace = tracer(under);
  parent.prepend(...all);
  return {
    name: by.name,
    draw: (scene) => { trace(scene); by.draw(scene); },
    remove: () => all.forEach((one) => one.remove()),
    size: (w, h, ratio) => all.forEach((one) => { one.width = Math.round(w * ratio); one.height = Math.round(h * ratio); Object.assign(one.style, { width: `${w}px`, height: `${h}px` }); }),
  };
}
