// The microscope's page: draws the frames that microscope.py computes, or those of a baked JSON object.
// `render` is anywidget's; `mount(element, data)` shows what `Microscope.baked()` returned, without a kernel.

let translations = {}; // by the English text, from the kernel or the page
const N_ = String.raw; // marks a text that _ translates later, where it is shown
/** A text in the learner's language, with what is put in: _`step ${n}` is known as "step {0}". */
function _(text, ...put) {
  const english = typeof text === "string" ? text : text.reduce((said, part, i) => `${said}{${i - 1}}${part}`);
  return (translations[english] ?? english).replace(/\{(\d)\}/g, (hole, i) => put[i] ?? hole);
}

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 900, LEFT = 156, ROW = 30, TOKENS = 62; // of a map, its row labels, a row, and the tokens below
const NARROW = { left: 112, row: 17, step: 16, tokens: 84, turn: -60 }; // where a language model writes: many rows and columns
const MEASURES = {
  push: { label: N_`push`, title: N_`|update| / |stream|: how much it changes what flows on`, legend: N_`numbers: % of the stream`, show: v => `${Math.round(100 * v)}`, say: v => _`${(100 * v).toFixed(v < 0.095 ? 1 : 0)} % of the stream` },
  turn: { label: N_`turn`, title: N_`the angle between the stream with the update and without it`, legend: N_`numbers: angle to the stream`, show: v => `${Math.round(v)}°`, say: v => _`turned by ${v.toFixed(1)}°` },
  units: { label: N_`units`, title: N_`the bottleneck of one adapter, after its activation`, legend: N_`blue: above 0, orange: below`, show: v => v.toFixed(1), say: v => _`unit at ${v.toFixed(2)}` },
};
const STYLE = `
.mic { --ink: #0072b2; --ink2: #c85200; --on: #fff; color: var(--jp-content-font-color1, #222); background: var(--jp-layout-color0, #fff);
  font: 14px/1.45 var(--jp-content-font-family, system-ui, sans-serif); max-width: 1000px; padding: 12px 14px; box-sizing: border-box; }
[data-jp-theme-light="false"] .mic, [data-theme="dark"] .mic { --ink: #56b4e9; --ink2: #ff9a4d; --on: #0b1a24;
  color: var(--jp-content-font-color1, #eee); background: var(--jp-layout-color0, #111); }
.mic * { box-sizing: border-box; } .mic svg { display: block; width: 100%; height: auto; overflow: visible; }
.mic h3 { font-size: 17px; margin: 0; padding: 0; } .mic .soft { opacity: .78; }
.mic .line { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; margin: 8px 0; } .mic [hidden] { display: none !important; }
.mic label { display: flex; gap: 6px; align-items: center; } .mic .long { flex: 1 1 300px; } .mic .long input { flex: 1; min-width: 120px; }
.mic input, .mic select, .mic button { font: inherit; color: inherit; background: var(--jp-layout-color1, transparent); min-height: 28px; margin: 0;
  border: 1px solid var(--jp-border-color1, #8889); border-radius: 6px; padding: 2px 8px; width: auto; }
.mic option { color: #222; background: #fff; } .mic button { cursor: pointer; min-width: 28px; } .mic button:disabled { opacity: .45; cursor: default; }
.mic input[type=range] { accent-color: var(--ink); flex: 1 1 200px; padding: 0; border: 0; background: none; } .mic input[type=checkbox] { min-height: 18px; width: 18px; accent-color: var(--ink); }
.mic .choice button { border-radius: 0; margin-left: -1px; } .mic .choice button:first-child { border-radius: 6px 0 0 6px; } .mic .choice button:last-child { border-radius: 0 6px 6px 0; }
.mic button[aria-pressed=true] { background: var(--ink); color: var(--on); border-color: var(--ink); }
.mic :focus-visible { outline: 2px solid var(--ink2); outline-offset: 1px; } .mic g[tabindex] { outline: none; cursor: pointer; }
.mic g:focus-visible > .edge { stroke: var(--ink2); stroke-width: 3; } .mic .picked > .edge { stroke: currentColor; stroke-width: 2; }
.mic .lit text { font-weight: 700; opacity: 1; } .mic text { fill: currentColor; font-size: 13px; } .mic .head text { opacity: .85; } .mic .cell text { font-size: 11px; pointer-events: none; }
.mic .wide { overflow-x: auto; overflow-y: hidden; padding: 3px 0; } .mic .wide svg { min-width: 760px; } .mic .edge { stroke: transparent; }
.mic .answers { display: grid; grid-template-columns: max-content minmax(120px, 1fr) 140px; gap: 4px 12px; align-items: center; max-width: 640px; margin: 8px 0; font-variant-numeric: tabular-nums; }
.mic .bar { position: relative; height: 18px; border-radius: 5px; background: color-mix(in srgb, currentColor 12%, transparent); }
.mic .bar i { position: absolute; inset: 0 auto 0 0; border-radius: 5px; background: var(--ink); } .mic .bar b { position: absolute; top: -3px; bottom: -3px; width: 3px; background: var(--ink2); }
.mic .details { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); margin-top: 6px; padding-top: 8px; } .mic code { font-size: 12.5px; background: none; color: inherit; overflow-wrap: anywhere; }
.mic .still { display: none; font-weight: 700; } .mic.jupyter-widgets-disconnected .still, .jupyter-widgets-disconnected .mic .still { display: block; }
.mic .error { color: var(--jp-error-color1, #b00020); font-weight: 700; }
.mic .said { white-space: pre-wrap; font-family: var(--jp-code-font-family, monospace); font-size: 13.5px; min-height: 5.6em; border-left: 3px solid var(--ink); padding: 2px 0 2px 12px; margin: 8px 0; }
.mic .said span { cursor: pointer; border-radius: 3px; } .mic .said [aria-pressed=true] { outline: 2px solid var(--ink); } .mic .said .turned { background: color-mix(in srgb, var(--ink2) 30%, transparent); box-shadow: inset 0 -2px var(--ink2); }
.mic .narrow text { font-size: 11.5px; } .mic .narrow .cell text { font-size: 9px; }`;

function make(parent, name, attributes = {}, text = "") {
  const drawn = ["svg", "g", "rect", "circle", "line", "path", "text", "title", "defs", "pattern"].includes(name);
  const element = drawn ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== "") element.textContent = text;
  parent.append(element);
  return element;
}

/** A token as one can see it. */
const word = token => token.replaceAll("\n", "⏎").trim() || "␣";

/** What is switched off, as one of the clicks that make it, and in words; an empty key where it takes several clicks. */
function described(off, rows, tokens) {
  const [P, T] = [rows.length, tokens.length], has = new Set(off.map(([r, t]) => r * T + t));
  const name = i => _`${rows[Math.floor(i / T)].label} on “${word(tokens[i % T])}”`;
  const inRow = r => off.every(one => one[0] === r), inColumn = t => off.every(one => one[1] === t);
  if (!off.length) return { key: "on", words: "" };
  const [r, t] = off[0];
  if (has.size === P * T) return { key: "all", words: _`everything` };
  if (has.size === 1) return { key: `cell ${r} ${t}`, words: name(r * T + t) };
  if (has.size === T && inRow(r)) return { key: `row ${r}`, words: _`all of ${rows[r].label}` };
  if (has.size === P && inColumn(t)) return { key: `column ${t}`, words: _`everything on “${word(tokens[t])}”` };
  const left = has.size === P * T - 1 ? [...Array(P * T).keys()].find(i => !has.has(i)) : -1;
  if (left >= 0) return { key: `only ${Math.floor(left / T)} ${left % T}`, words: _`everything but ${name(left)}` };
  return { key: "", words: _`${has.size} pushes` };
}

/** A map of cells: rows from the bottom up, tokens from left to right. `on` is told of clicks and of what is picked. */
class Grid {
  constructor(parent, on) {
    this.on = on;
    this.at = [0, 0]; // [row, token]; row -1 are the tokens' own buttons, token -1 the rows'
    this.svg = make(parent, "svg", { role: "grid" });
    this.id = `off${Math.random().toString(36).slice(2)}`;
    this.svg.addEventListener("keydown", event => this.key(event));
  }

  /** Draw `values[row][token]`; `off` has "row,token", `most` is the largest size that is shown, `say` words a value. With `room` for many, tokens are narrow. */
  paint({ rows, tokens, values, off, most, measure, name, fixed, room = 0 }) {
    const shape = JSON.stringify([rows, fixed, room || tokens.length]), grows = shape === this.shape && this.tokens.every((token, t) => token === tokens[t]);
    Object.assign(this, { shape, rows, fixed, room });
    if (!grows) this.build(rows, tokens.length);
    while (this.tokens.length < tokens.length) this.add(tokens[this.tokens.length]);
    this.svg.setAttribute("aria-label", name);
    values.forEach((row, r) => row.forEach((value, t) => {
      const cell = this.cells[r][t], { g, dot, text, hatch } = cell, isOff = off.has(`${r},${t}`), known = value !== null, look = `${value} ${isOff} ${most} ${measure.label}`;
      if (cell.look === look) return;
      cell.look = look;
      const size = Math.min(1, Math.abs(value) / most) ** 0.55;
      dot.style.fill = value < 0 ? "var(--ink2)" : "var(--ink)";
      dot.style.fillOpacity = isOff ? 0.05 : (0.05 + 0.95 * size).toFixed(3);
      hatch.style.display = isOff ? "" : "none";
      text.textContent = size > 0.3 || isOff ? measure.show(value) : "";
      if (room) { text.textContent = measure === MEASURES.units ? "" : text.textContent.replace("°", ""); text.style.fontSize = text.textContent.length > 2 ? "7px" : ""; }
      text.style.fill = size > 0.78 && !isOff ? "var(--on)" : "currentColor";
      g.setAttribute("aria-label", `${tokens[t]}, ${rows[r]}: ${known ? measure.say(value) : _`not known yet`}${isOff ? _`, switched off` : ""}`);
    }));
    this.at = [Math.min(this.at[0], rows.length - 1), Math.min(this.at[1], tokens.length - 1)];
    this.element(...this.at)?.setAttribute("tabindex", 0);
  }

  /** The rows, still without tokens. */
  build(rows, count) {
    const P = rows.length, { room } = this, wide = room ? Math.max(WIDE, NARROW.left + room * NARROW.step) : WIDE;
    this.size = room ? NARROW : { left: LEFT, row: ROW, step: (WIDE - LEFT) / count, tokens: TOKENS, turn: -34 };
    const { left, row, tokens } = this.size;
    this.svg.replaceChildren();
    this.svg.classList.toggle("narrow", room > 0);
    this.svg.setAttribute("viewBox", `0 0 ${wide} ${P * row + tokens}`);
    const pattern = make(make(this.svg, "defs"), "pattern", { id: this.id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    make(pattern, "line", { x1: 0, y1: 0, x2: 0, y2: 6, stroke: "currentColor", "stroke-width": 1.6, "stroke-opacity": 0.55 });
    this.tokens = [];
    this.cells = rows.map(() => []);
    this.heads = { row: [], column: [] };
    this.lines = [];
    for (let r = P - 1; r >= 0; r--) {
      const y = (P - 1 - r) * row;
      this.lines[r] = make(this.svg, "g", { role: "row" });
      this.heads.row[r] = this.head(this.lines[r], r, -1, "rowheader", _`${rows[r]}: switch the row`, g => {
        make(g, "rect", { class: "edge", x: 0, y: y + 1, width: left - 8, height: row - 3, rx: 5, fill: "transparent" });
        make(g, "text", { x: left - 16, y: y + row * 0.5 + 5, "text-anchor": "end" }, rows[r]);
      });
    }
    this.foot = make(this.svg, "g", { role: "row" });
  }

  head(line, r, t, role, label, draw) {
    const g = make(line, "g", { class: "head", tabindex: -1, role, "aria-label": label });
    draw(g);
    this.listen(g, r, t);
    return g;
  }

  /** One token more, on the right. */
  add(token) {
    const { left, row, step, turn } = this.size, t = this.tokens.push(token) - 1, P = this.rows.length, x = left + t * step, gap = this.room ? 1 : 3;
    for (let r = P - 1; r >= 0; r--) {
      const y = (P - 1 - r) * row, g = make(this.lines[r], "g", { class: "cell", tabindex: -1, role: "gridcell" }), box = { x, y: y + 1, width: step - gap, height: row - gap, rx: this.room ? 2 : 5 };
      const dot = make(g, "rect", { ...box, class: "dot" }), hatch = make(g, "rect", { ...box, fill: `url(#${this.id})` });
      make(g, "rect", { ...box, class: "edge", fill: "transparent" });
      const text = make(g, "text", { x: x + (step - gap) / 2, y: y + row * 0.5 + 3.5, "text-anchor": "middle" });
      this.listen(g, r, t);
      this.cells[r][t] = { g, dot, text, hatch };
    }
    const middle = x + step / 2, foot = P * row;
    this.heads.column[t] = this.head(this.foot, -1, t, "columnheader", _`${token}: switch the column`, g => {
      make(g, "rect", { class: "edge", x, y: foot + 2, width: step - gap, height: 24, rx: 5, fill: "transparent" });
      make(g, "text", { x: middle + 5, y: foot + 14, "text-anchor": "end", transform: `rotate(${turn} ${middle + 5} ${foot + 14})` }, token.length > 12 ? `${token.slice(0, 11)}…` : token);
    });
  }

  element(r, t) {
    return t < 0 ? this.heads.row[r] : r < 0 ? this.heads.column[t] : this.cells[r]?.[t].g;
  }

  listen(g, r, t) {
    g.addEventListener("pointerenter", () => r >= 0 && t >= 0 && this.on.pick(r, t));
    g.addEventListener("focus", () => { this.move(r, t, false); if (r >= 0 && t >= 0) this.on.pick(r, t, true); });
    g.addEventListener("click", event => !this.fixed && this.on.click(r, t, event.shiftKey));
  }

  move(r, t, focus = true) {
    const next = this.element(r, t);
    if (!next) return;
    this.element(...this.at)?.setAttribute("tabindex", -1);
    this.at = [r, t];
    next.setAttribute("tabindex", 0);
    if (focus) next.focus();
  }

  key(event) {
    const [r, t] = this.at, step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step && (r + step[0] >= 0 || t + step[1] >= 0)) this.move(Math.max(-1, r + step[0]), Math.max(-1, t + step[1]));
    else if (event.key === "Enter" || event.key === " ") this.element(r, t).dispatchEvent(new MouseEvent("click", { shiftKey: event.shiftKey }));
    else if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would run the cell, or leave it
  }

  pick(r, t) {
    this.svg.querySelectorAll(".picked, .lit").forEach(one => one.classList.remove("picked", "lit"));
    this.cells[r]?.[t]?.g.classList.add("picked");
    this.heads.row[r]?.classList.add("lit");
    this.heads.column[t]?.classList.add("lit");
  }
}

/** The block with the adapter's place lit up, and below it the adapter's formula with its norms. */
function drawSketch(svg, row, numbers, compared) {
  svg.replaceChildren();
  const { parts, skips, part_beside: beside, mark } = row, gap = (WIDE - 70) / parts.length, y = 52, low = 102;
  const x = i => 60 + (i + 0.5) * gap, half = i => (parts[i] === "+" ? 11 : Math.min(46, gap / 2 - 7));
  const wire = points => make(svg, "path", { d: "M" + points.map(p => p.join(" ")).join("L"), fill: "none", stroke: "currentColor", "stroke-opacity": 0.55, "stroke-width": 1.5 });
  const box = (i, cx, cy, label) => {
    const lit = i === mark, look = lit ? "fill: var(--ink); stroke: var(--ink2); stroke-width: 3" : "fill: color-mix(in srgb, currentColor 12%, var(--jp-layout-color0, Canvas)); stroke: currentColor; stroke-opacity: .5";
    if (label === "+") make(svg, "circle", { cx, cy, r: 11, style: look });
    else make(svg, "rect", { x: cx - half(Math.max(i, 0)), y: cy - 17, width: 2 * half(Math.max(i, 0)), height: 34, rx: 6, style: look });
    const short = label.replace(", the same", " ′").replace(" (update)", ""), size = Math.min(13, (2 * half(Math.max(i, 0)) - 6) / short.length * 1.75);
    make(svg, "text", { x: cx, y: cy + 4.5, "text-anchor": "middle", style: `font-size: ${label === "+" ? 15 : size}px; ${lit ? "fill: var(--on); font-weight: 700" : ""}` }, short);
  };
  make(svg, "text", { x: 0, y: y + 4, style: "opacity: .8" }, _`block ${row.label.match(/\d+/)[0]}`);
  wire([[54, y], [WIDE - 6, y]]);
  make(svg, "path", { d: `M${WIDE} ${y}l-10 -5v10z`, fill: "currentColor", "fill-opacity": 0.7 });
  skips.forEach(([a, b], i) => { const from = a < 0 ? 58 : x(a) + gap / 2, top = 18 - 9 * (i === 2); wire([[from, y], [from, top], [x(b), top], [x(b), y - 11]]); });
  if (beside) {
    const [a, b] = skips[skips.length - 1], from = a < 0 ? 58 : x(a) + gap / 2;
    wire([[from, y], [from, low], [x(b), low], [x(b), y + 11]]);
    box(-1, x(beside[0]), low, beside[1]);
  }
  parts.forEach((label, i) => box(i, x(i), y, label));
  const n = numbers, bottom = beside ? 142 : 92, known = v => v !== null && v !== undefined, f = v => (known(v) ? (v >= 100 ? v.toFixed(0) : v.toPrecision(2)) : "–");
  const chain = compared ? [[_`|stream of the base|`, n.stream], [_`|difference|`, n.update, true]] : [["|h|", n.h], ["|down|", n.down], [_`|activation|`, n.act], [_`|up| = |update|`, n.update, true], [_`|stream|`, n.stream]].filter(([, v]) => known(v));
  const most = Math.max(...chain.map(([, v]) => v), 1e-9), each = WIDE / 5;
  chain.forEach(([label, value, pushed], i) => {
    make(svg, "rect", { x: i * each, y: bottom, width: Math.max(2, (each - 40) * value / most), height: 10, rx: 4, style: `fill: ${pushed ? "var(--ink2)" : "var(--ink)"}` });
    make(svg, "text", { x: i * each, y: bottom + 28 }, `${label} ${f(value)}`);
    if (i < chain.length - 1 && i < 3) make(svg, "text", { x: (i + 1) * each - 26, y: bottom + 11, style: "opacity: .6" }, "→");
  });
  svg.setAttribute("viewBox", `0 0 ${WIDE} ${bottom + 36}`);
  svg.setAttribute("aria-label", `${_`Wiring of block ${row.label.match(/\d+/)[0]}`}: ${parts.join(", ")}${beside ? _`, ${beside[1]} beside the FFN` : ""}. ${chain.map(([l, v]) => `${l} ${f(v)}`).join(", ")}`);
}

function initialize({ model }) {
  model.on("change:now", () => { // a new step is kept in place: set() would send the whole list back to the kernel
    const now = model.get("now"), frames = model.get("frames"), last = frames[frames.length - 1];
    if (last && now.step < last.step) frames.length = 0;
    if (!frames.length || now.step > last.step) frames.push(now);
  });
}

function render({ model, el }) {
  el.classList.add("mic");
  translations = model.get("words") ?? {};
  make(el, "style", {}, STYLE);
  const state = { measure: "push", step: null, picked: null, difference: false, message: "", playing: 0, place: 0, live: null, asked: null, run: Math.random() }; // run: two views of a microscope hear each other's answers
  const writes = model.get("room") > 0, busy = () => state.live !== null; // a language model, and whether it is writing
  make(el, "div", { class: "still" }, _`Run this cell to move it.`);
  const title = make(el, "div", { class: "line" });
  make(title, "h3", {}, _`Microscope`);
  const subtitle = make(title, "span", { class: "soft" });

  const send = changes => { for (const [key, value] of Object.entries(changes)) model.set(key, value); model.save_changes(); };
  const dead = () => el.closest(".jupyter-widgets-disconnected") !== null;

  /** A field for a sentence; where it is "aspect: sentence", one for each. */
  function sentence(name, label) {
    const line = make(el, "div", { class: "line" }), asked = make(line, "label", {}, _`${label} about`), long = make(line, "label", { class: "long" }, _`in`);
    const aspect = make(asked, "input", { size: 11, "aria-label": _`${label}: the aspect asked about` }), text = make(long, "input", { "aria-label": _`${label}: the sentence`, spellcheck: false });
    const split = () => /^([^:]{1,24}): (.*)$/s.exec(model.get(name));
    const show = () => {
      const parts = writes ? null : split();
      asked.hidden = !parts;
      long.firstChild.textContent = parts ? _`in` : label;
      if (document.activeElement !== aspect) aspect.value = parts ? parts[1] : "";
      if (document.activeElement !== text) text.value = parts ? parts[2] : state.asked ?? model.get(name);
    };
    const typed = () => {
      if (writes) return; // it is asked when Write is pressed
      state.step = null; send({ [name]: asked.hidden ? text.value : `${aspect.value}: ${text.value}`, ...(name === "text" ? { off: [] } : {}) }); };
    for (const input of [aspect, text]) {
      input.addEventListener("input", typed);
      input.addEventListener("keydown", event => { event.stopPropagation(); if (writes && event.key === "Enter") write(); });
      input.disabled = model.baked;
    }
    return { line, show, text };
  }
  const first = sentence("text", _`Ask`);
  const said = make(el, "div", { class: "said", role: "group", "aria-label": _`the answer, token by token: the arrow keys choose a place` });
  const start = make(first.line, "button", { type: "button" }, _`Write`), end = make(first.line, "button", { type: "button" }, _`Stop`);
  start.hidden = end.hidden = said.hidden = !writes;
  start.addEventListener("click", () => write());
  end.addEventListener("click", () => model.send({ stop: true }));
  said.addEventListener("keydown", event => {
    const to = { ArrowRight: state.place + 1, ArrowLeft: state.place - 1, Home: 0, End: Infinity }[event.key];
    event.stopPropagation(); // JupyterLab would leave the cell
    if (to === undefined) return;
    event.preventDefault();
    goTo(to, true);
  });

  /** Ask anew; the columns come one by one, and are kept here until the kernel has the whole. */
  function write() {
    if (busy()) return;
    if (dead()) state.message = _`Run this cell first: without a kernel nobody can write.`;
    else {
      const none = () => rows().map(() => [null]);
      Object.assign(state, { place: 0, message: "", asked: first.text.value });
      state.live = { tokens: [model.get("now").tokens[0]], push: none(), turn: none(), norms: {}, places: [], off: [], before: [], after: [], words: _`Reading the question …`, unit_row: 0 };
      if (state.measure === "units") state.measure = "push";
      model.send({ ask: state.asked, run: ++state.run });
    }
    schedule();
  }
  function heard({ run, busy: still, token, place, column }) {
    const { live } = state;
    if (run !== state.run || !live) return; // what was asked before
    if (!still) Object.assign(state, { live: null, asked: null });
    else if (column) {
      live.tokens.push(token);
      live.places.push(place);
      for (const [name, values] of Object.entries(column)) values.forEach((value, r) => ((name in live ? live : live.norms)[name] ??= rows().map(() => [null]))[r].push(value));
      state.place = live.places.length - 1;
      live.words = _`Writing: ${live.places.length} tokens so far.`;
    }
    schedule();
  }
  function goTo(place, focus) {
    state.place = Math.max(0, Math.min(frame().places.length - 1, place));
    paint();
    if (focus) said.children[state.place]?.focus();
  }

  const choices = make(el, "div", { class: "line" }), group = make(choices, "span", { class: "choice", role: "group", "aria-label": _`what is shown` });
  const measures = Object.entries(MEASURES).map(([name, { label, title }]) => {
    const button = make(group, "button", { type: "button", title: _(title) }, _(label));
    button.addEventListener("click", () => { state.measure = name; schedule(); });
    return [name, button];
  });
  const besideLabel = make(choices, "label", {}, _`beside it`), beside = make(besideLabel, "select", { "aria-label": _`what stands beside it` });
  const names = Object.keys(model.get("about")).filter(Boolean);
  for (const [value, label] of [["", _`nothing`], ["another sentence", _`another sentence`], ...names.map(name => [name, name])]) make(beside, "option", { value }, label);
  beside.addEventListener("change", () => { state.step = null; send({ beside: beside.value }); schedule(); });
  besideLabel.hidden = Boolean(model.baked) || writes;
  const differenceLabel = make(choices, "label"), difference = make(differenceLabel, "input", { type: "checkbox" });
  differenceLabel.append(_`as one difference`);
  difference.addEventListener("change", () => { state.difference = difference.checked; schedule(); });
  const unitLabel = make(choices, "label", {}, _`of`), unit = make(unitLabel, "select", { "aria-label": _`the adapter whose units are shown` });
  unit.addEventListener("change", () => { state.step = null; send({ unit_row: Number(unit.value) }); });
  const legend = make(choices, "span", { class: "soft" });
  const second = sentence("other", _`Beside it, ask`);

  const where = make(el, "div"), answers = make(el, "div", { class: "answers" });
  if (writes) answers.after(choices);
  const main = new Grid(make(el, "div", { class: "wide" }), {
    pick: (r, t, focused) => {
      if (state.measure !== "units") { state.picked = [r, t]; details(); }
      if (writes && focused && t > 0) { state.place = t - 1; schedule(); }
    },
    click: (r, t, only) => toggle(r, t, only),
  });
  const sideTitle = make(el, "div", { class: "line" }), sideHolder = make(el, "div", { class: "wide" }), side = new Grid(sideHolder, { pick: () => {}, click: () => {} });
  const tools = make(el, "div", { class: "line" });
  const film = make(tools, "span", { class: "line long", style: "margin: 0" });
  const play = make(film, "button", { type: "button", "aria-label": _`play the training` }, "▶"), slider = make(film, "input", { type: "range", min: 0, "aria-label": _`training step` }), at = make(film, "span");
  slider.addEventListener("input", () => { const last = model.get("frames").length - 1; state.step = Number(slider.value) === last ? null : Number(slider.value); schedule(); });
  slider.addEventListener("keydown", event => event.stopPropagation());
  play.addEventListener("click", () => { if (state.playing) stop(); else { state.step = 0; state.playing = setInterval(advance, 110); schedule(); } });
  const stop = () => { clearInterval(state.playing); state.playing = 0; schedule(); };
  function advance() {
    if (!el.isConnected || state.step === null) return stop();
    state.step = state.step + 1 >= model.get("frames").length - 1 ? null : state.step + 1;
    schedule();
  }
  const only = make(tools, "button", { type: "button", title: _`switch off all others (Shift+Enter in the map)` }, _`only this push`), none = make(tools, "button", { type: "button", title: _`the model without its adapters` }, _`all off`), all = make(tools, "button", { type: "button" }, _`all on again`);
  const astrayLabel = make(tools, "label", {}, _`what is off`), astray = make(astrayLabel, "select", { "aria-label": _`what becomes of a push that is off` });
  for (const [value, label] of [["", _`is left out`], ["yes", _`is as long, in a random direction`]]) make(astray, "option", { value }, label);
  astray.addEventListener("change", () => { state.step = null; send({ astray: Boolean(astray.value) }); });
  none.addEventListener("click", () => toggle(-1, -1, true));
  only.addEventListener("click", () => state.picked && toggle(...state.picked, true));
  all.addEventListener("click", () => ask([]));
  const panel = make(el, "div", { class: "details" }), words = make(panel, "div"), sketch = make(make(panel, "div", { class: "wide", tabindex: 0, role: "region", "aria-label": _`where it sits, and its formula` }), "svg", { role: "img" }), code = make(panel, "div"), status = make(panel, "div", { role: "status", style: "margin-top: 6px" }), error = make(panel, "div", { class: "error", role: "alert" });

  const rows = () => model.get("about")[""].rows;
  /** The frame that is shown: a recorded step, or the model as it is. */
  const frame = () => state.live ?? (state.step === null ? model.get("now") : model.get("frames")[state.step]);

  function toggle(r, t, onlyThis) {
    const [P, T] = [rows().length, model.get("now").tokens.length], off = new Set(model.get("off").map(String));
    const cells = [];
    for (let i = 0; i < P; i++) for (let j = 0; j < T; j++) if ((r < 0 || i === r) && (t < 0 || j === t)) cells.push(`${i},${j}`);
    if (state.measure === "units" || busy()) return;
    if (r < 0 && t < 0) return ask(cells.map(cell => cell.split(",").map(Number)));
    if (onlyThis) {
      off.clear();
      for (let i = 0; i < P; i++) for (let j = 0; j < T; j++) if (!cells.includes(`${i},${j}`)) off.add(`${i},${j}`);
    } else if (cells.every(cell => off.has(cell))) cells.forEach(cell => off.delete(cell));
    else cells.forEach(cell => off.add(cell));
    ask([...off].map(cell => cell.split(",").map(Number)));
  }

  function ask(off) {
    state.step = null;
    const about = model.get("about")[""], { key } = described(off, about.rows, model.get("now").tokens);
    state.message = "";
    if (about.compared) state.message = _`Only an adapter's push can be switched off: this is a difference between two models.`;
    else if (dead()) state.message = _`Run this cell first: without a kernel nobody can compute the answer.`;
    else if (model.baked && key !== "on" && !model.get("answers")[key]) state.message = _`Several clicks together need a running kernel. “All on again” goes back.`;
    else if (model.baked) Object.assign(model.get("now"), { after: key === "on" ? model.get("now").before : model.get("answers")[key], off });
    if (!state.message) send({ off });
    schedule();
  }

  function details() {
    const shown = frame(), about = model.get("about")[""], [r, t] = state.picked ?? [0, 0];
    if (!about.rows[r] || t >= shown.tokens.length) return;
    main.pick(state.measure === "units" ? -1 : r, t);
    const number = Object.fromEntries(Object.entries(shown.norms).map(([name, values]) => [name, values[r][t]]));
    words.replaceChildren();
    make(words, "b", {}, writes && t ? _`${about.rows[r].label} before “${word(shown.tokens[t])}”` : _`${about.rows[r].label} on “${word(shown.tokens[t])}”`);
    if (number.update === undefined || number.update === null) return;
    words.append(about.compared
      ? _`: the stream differs from the base's by ${MEASURES.push.say(shown.push[r][t])}, ${MEASURES.turn.say(shown.turn[r][t])}`
      : `: ${number.update.toPrecision(3)} / ${number.stream.toPrecision(3)} = ${_`${MEASURES.push.say(shown.push[r][t])}, which is ${MEASURES.turn.say(shown.turn[r][t])}`}`);
    drawSketch(sketch, about.rows[r], number, about.compared);
    code.replaceChildren();
    if (about.rows[r].code) make(code, "code", {}, about.rows[r].code);
  }

  function paintAnswers(shown, labels) {
    const key = JSON.stringify([shown.before, shown.after, shown.off.length, labels]);
    if (answers.dataset.key === key) return;
    answers.dataset.key = key;
    const order = writes ? shown.before.keys() : shown.before.map((_, i) => i).sort((a, b) => shown.before[b] - shown.before[a]).slice(0, 4).sort((a, b) => a - b);
    answers.replaceChildren();
    const percent = v => `${(100 * v).toFixed(1)} %`;
    for (const i of order) {
      const [before, after] = [shown.before[i], shown.after[i]], moved = shown.off.length > 0;
      make(answers, "span", { style: after === Math.max(...shown.after) ? "font-weight: 700" : "" }, word(labels[i]));
      const bar = make(answers, "span", { class: "bar", role: "img", "aria-label": `${word(labels[i])}: ${moved ? _`${percent(before)} with everything on, now ${percent(after)}` : percent(before)}` });
      make(bar, "i", { style: `width: ${100 * after}%` });
      if (moved) make(bar, "b", { style: `left: calc(${100 * before}% - 1.5px)`, title: _`with everything on` });
      make(answers, "span", {}, moved ? `${percent(before)} → ${percent(after)}` : percent(before));
    }
  }

  /** The answer, in which each place can be chosen; marked where another token would be likeliest. Returns at how many places. */
  function paintSaid(shown) {
    const turned = shown.places.map(({ after }) => after[0] < Math.max(...after)), key = JSON.stringify([shown.tokens, turned]);
    if (said.dataset.key !== key) {
      said.dataset.key = key;
      said.replaceChildren(...shown.places.map(({ labels }, i) => {
        const span = make(said, "span", { role: "button", class: turned[i] ? "turned" : "", "aria-label": `${_`place ${i + 1}`}: ${word(labels[0])}${turned[i] ? _`, would be another` : ""}` }, labels[0]);
        span.addEventListener("click", () => goTo(i, true));
        return span;
      }));
    }
    state.place = Math.max(0, Math.min(shown.places.length - 1, state.place));
    [...said.children].forEach((span, i) => { span.setAttribute("aria-pressed", i === state.place); span.tabIndex = i === state.place ? 0 : -1; });
    const at = shown.places[state.place];
    where.textContent = at ? _`Place ${state.place + 1}, where it wrote “${word(at.labels[0])}”: how likely was which token?` : "";
    paintAnswers(at ? { ...at, off: shown.off } : { before: [], after: [], off: [] }, at?.labels ?? []);
    return turned.filter(Boolean).length;
  }

  function paint() {
    if (busy() && dead()) Object.assign(state, { live: null, asked: null, message: _`The kernel has gone: run this cell again.` });
    const about = model.get("about"), { compared, labels } = about[""], frames = model.get("frames"), shown = frame(), other = state.step === null ? model.get("side") : {};
    const twin = model.get("beside") in about && model.get("beside") ? model.get("beside") : "", measure = MEASURES[state.measure], units = state.measure === "units";
    subtitle.textContent = writes ? `${_`Which pushes chose each token?`} ${model.get("of")}` : compared ? _`Where does training change the stream? Difference to the frozen base, below and here.` : _`How far does each adapter push each word? Click a push, and it is switched off.`;
    first.show(); second.show();
    second.line.hidden = !model.get("beside") || Boolean(twin);
    measures.forEach(([name, button]) => { button.setAttribute("aria-pressed", name === state.measure); button.hidden = name === "units" && (compared || busy()); });
    start.disabled = busy();
    end.disabled = !busy();
    if (unit.options.length !== rows().length) { unit.replaceChildren(); rows().forEach((row, r) => make(unit, "option", { value: r }, row.label)); }
    unit.value = shown.unit_row;
    unitLabel.hidden = !units;
    beside.value = model.get("beside");
    legend.textContent = compared && !units ? _`${_(measure.legend)} of the base` : _(measure.legend);
    const values = one => (units ? one.units ?? [[]] : one[state.measure]), label = (name, one) => (units ? values(one).map((row, i) => _`unit ${i}`) : about[name].rows.map(row => row.label));
    const fits = Boolean(other.tokens) && values(other).length === values(shown).length && other.tokens.length === shown.tokens.length, both = Boolean(other.tokens);
    differenceLabel.hidden = !both;
    difference.disabled = !fits;
    const asDifference = both && fits && state.difference, off = new Set(units ? [] : shown.off.map(String));
    const scale = writes ? [shown] : [...frames.filter(one => !units || one.unit_row === shown.unit_row), shown, ...(both ? [other] : [])];
    const most = Math.max(1e-6, ...scale.flatMap(one => values(one).flat().map(Math.abs))); // unknown is 0
    const apart = values(shown).map((row, r) => row.map((value, t) => value - (fits ? values(other)[r][t] : 0)));
    const tokens = one => (writes ? one.tokens.map(word) : one.tokens), room = writes ? model.get("room") + 1 : 0, name = _`${_(measure.title)}; rows: adapters, columns: tokens; Enter switches a push off`;
    const mixed = asDifference ? shown.tokens.map((token, t) => (token === other.tokens[t] ? token : `${token} − ${other.tokens[t]}`)) : tokens(shown);
    main.paint({ rows: label("", shown), tokens: mixed, values: asDifference ? apart : values(shown), off, most, measure, name, fixed: units, room });
    sideTitle.hidden = sideHolder.hidden = !both || asDifference;
    if (both && !asDifference) {
      const its = about[twin].labels, best = other.before.indexOf(Math.max(...other.before));
      sideTitle.textContent = `${twin || _`another sentence`}: ${its[best]}, ${(100 * other.before[best]).toFixed(1)} %`;
      side.paint({ rows: label(twin, other), tokens: tokens(other), values: values(other), off: new Set(), most, measure, name: _`beside it: ${sideTitle.textContent}`, fixed: true });
    }
    film.hidden = frames.length < 2;
    slider.max = frames.length - 1;
    slider.value = state.step ?? frames.length - 1;
    slider.setAttribute("aria-valuetext", _`step ${shown.step}`);
    at.textContent = _`step ${shown.step}`;
    play.textContent = state.playing ? "❚❚" : "▶";
    only.hidden = all.hidden = none.hidden = compared || units;
    astrayLabel.hidden = compared || units || Boolean(model.baked);
    astray.value = model.get("astray") ? "yes" : "";
    all.disabled = !model.get("off").length;
    if (!state.picked || state.picked[1] >= shown.tokens.length) {
      const flat = shown.push.flat(), i = flat.indexOf(Math.max(...flat));
      state.picked = [Math.floor(i / shown.tokens.length), i % shown.tokens.length];
    }
    let turned = "", told = "";
    if (writes) turned = _` At ${paintSaid(shown)} of ${shown.places.length} places another token would be the likeliest.`;
    else paintAnswers(shown, labels);
    const without = described(shown.off, rows(), shown.tokens).words, best = shown.before.indexOf(Math.max(...shown.before));
    if (without) told = ` ${model.get("astray") ? _`With ${without} in a random direction` : _`Without ${without}`}: ${writes ? turned : `${labels[best]} ${(100 * shown.after[best]).toFixed(1)} %.`}`;
    status.textContent = `${frames.length > 1 ? _`Step ${shown.step}. ` : ""}${shown.words}${told}${both && !fits && !asDifference ? _` Different numbers of tokens or adapters: no difference can be formed.` : ""} ${state.message}`;
    error.textContent = model.get("error");
    details();
  }

  let waiting = 0;
  function schedule() {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; paint(); });
  }
  if (writes) model.on("msg:custom", heard);
  const followed = ["astray", "now", "side", "frames", "about", "text", "other", "off", "error", "beside"].map(name => `change:${name}`).concat("comm_live_update"); // the last: a kernel came or went
  followed.forEach(name => model.on(name, schedule));
  paint();
  return () => { clearInterval(state.playing); cancelAnimationFrame(waiting); followed.forEach(name => model.off(name, schedule)); model.off("msg:custom", heard); };
}

/** Show what `Microscope.baked()` has returned, in an element of any page; `words` are translations by the English. */
export function mount(el, data, words = {}) {
  const values = { words, frames: [], side: {}, other: "", beside: "", error: "", off: [], ...structuredClone(data) };
  return render({ el, model: { baked: true, get: name => values[name], set: (name, value) => { values[name] = value; }, save_changes() {}, on() {}, off() {} } });
}

export default { initialize, render };
