// The dial of lesson 10: the adapters' scaling from 0 to 2, and what a language model then answers.
// Runs in JupyterLab by anywidget, and by `mount` on a page without a kernel.

let translations = {}; // by the English text, from the kernel or the page
/** A text in the learner's language, with what is put in: _`step ${n}` is known as "step {0}". */
function _(text, ...put) {
  const english = typeof text === "string" ? text : text.reduce((said, part, i) => `${said}{${i - 1}}${part}`);
  return (translations[english] ?? english).replace(/\{(\d)\}/g, (hole, i) => put[i] ?? hole);
}

const CSS = `
.dial { --ink: var(--jp-content-font-color1, #222); --paper: var(--jp-layout-color0, #fff);
  --pale: var(--jp-layout-color2, #e8e8e8); --adapter: #0072B2; --on: #fff; color: var(--ink); background: var(--paper);
  font-family: var(--jp-content-font-family, sans-serif); font-size: 14px; line-height: 1.45; max-width: 960px; padding: 8px }
[data-jp-theme-light="false"] .dial, [data-theme="dark"] .dial { --adapter: #56b4e9; --on: #0b1a24 }
.dial .questions, .dial .own { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 10px }
.dial button { font: inherit; color: inherit; background: var(--paper); border: 1px solid currentColor; border-radius: 6px;
  padding: 4px 10px; min-height: 28px; cursor: pointer }
.dial button[aria-pressed=true] { background: var(--adapter); color: var(--on); border-color: var(--adapter) }
.dial button:disabled { opacity: .5; cursor: default }
.dial input[type=text] { font: inherit; color: inherit; background: var(--paper); border: 1px solid currentColor;
  border-radius: 6px; padding: 4px 8px; flex: 1 1 260px; min-width: 0 }
.dial .body { display: grid; grid-template-columns: 250px 1fr; gap: 6px 22px; align-items: start }
@media (max-width: 620px) { .dial .body { grid-template-columns: 1fr } }
.dial .knob svg { width: 100%; max-width: 250px; display: block; margin: auto; cursor: grab; touch-action: none }
.dial input[type=range] { width: 100%; accent-color: var(--adapter) }
.dial .answer { white-space: pre-wrap; font-family: var(--jp-code-font-family, monospace); font-size: 13.5px; min-height: 8.4em;
  border-left: 3px solid var(--adapter); padding: 2px 0 2px 12px }
.dial .answer span { cursor: pointer; border-radius: 3px }
.dial .answer .new { background: color-mix(in srgb, var(--adapter) 28%, transparent); box-shadow: inset 0 -2px var(--adapter) }
.dial .answer .at { outline: 2px solid var(--adapter) }
.dial .next { margin-top: 10px } .dial .next table { border-collapse: collapse; width: 100%; max-width: 460px; margin: 0 }
.dial .next td { padding: 1px 8px 1px 0; text-align: left; background: none; border: 0; color: inherit }
.dial .next td:first-child { font-family: var(--jp-code-font-family, monospace); width: 8em; white-space: pre }
.dial .next td:last-child { white-space: nowrap }
.dial .next td:nth-child(2) { width: 16em }
.dial .next i { display: block; height: 12px; background: var(--adapter); min-width: 1px; transition: width .18s }
.dial .said { margin: 8px 0 0; min-height: 2.9em }
@media (prefers-reduced-motion: reduce) { .dial .next i { transition: none } }
.dial :focus-visible { outline: 3px solid #D55E00; outline-offset: 1px }`;

const el = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

const shown = (token) => token.replaceAll("\n", "⏎").replaceAll(" ", "␣");

const START = 0.8, SWEEP = 1.4; // half turns: from lower left over the top to lower right

// The knob: one bar for each position around the dial, as long as the share of answers in the form; a hand on top.
function knob(positions, at, asked) {
  const turn = (i) => Math.PI * (START + (SWEEP * i) / (positions.length - 1));
  const place = (i, r) => [125 + r * Math.cos(turn(i)), 112 + r * Math.sin(turn(i))].map((v) => v.toFixed(1)).join(",");
  const bars = positions.map((p, i) => {
    const look = i === at ? "var(--adapter)" : "color-mix(in srgb, var(--adapter) 45%, var(--paper))";
    const rim = `<path d="M${place(i, 66)}L${place(i, 104)}" stroke="var(--pale)" stroke-width="7"/>`;
    const title = `<title>${_`scaling ${p.scaling}: ${Math.round(p.form * asked)} of ${asked} answers in the form`}</title>`;
    return `<g>${title}${rim}<path d="M${place(i, 66)}L${place(i, 66 + 38 * p.form)}" stroke="${look}" stroke-width="7"/></g>`;
  });
  const ends = [0, positions.length - 1].map((i) => {
    const [x, y] = place(i, 82).split(",").map(Number);
    return `<text x="${x}" y="${y + 24}" text-anchor="middle">${positions[i].scaling}</text>`;
  });
  return `<svg viewBox="0 0 250 196" aria-hidden="true" fill="currentColor" font-size="14">${bars.join("")}${ends.join("")}
    <circle cx="125" cy="112" r="56" fill="var(--paper)" stroke="currentColor" stroke-width="1.5"/>
    <path d="M${place(at, 40)}L${place(at, 56)}" stroke="var(--adapter)" stroke-width="6" stroke-linecap="round"/>
    <text x="125" y="110" text-anchor="middle" font-size="30" font-weight="bold">${positions[at].scaling.toFixed(1)}</text>
    <text x="125" y="131" text-anchor="middle" font-size="12">${_`scaling`}</text></svg>`;
}

/** Which of `tokens` are no part of the longest sequence that both answers share. */
function others(tokens, before) {
  const longest = Array.from({ length: tokens.length + 1 }, () => new Array(before.length + 1).fill(0));
  for (let i = tokens.length - 1; i >= 0; i--)
    for (let j = before.length - 1; j >= 0; j--)
      longest[i][j] = tokens[i] === before[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  const changed = new Set();
  for (let i = 0, j = 0; i < tokens.length; ) {
    if (tokens[i] === before[j]) i++, j++;
    else if (j < before.length && longest[i][j + 1] >= longest[i + 1][j]) j++;
    else changed.add(i++);
  }
  return changed;
}

function render({ model, el: root }) {
  translations = model.get("words") ?? {};
  const { positions, questions, asked } = model.get("results"), last = positions.length - 1, middle = Math.round(last / 2);
  let question = 1, at = middle, place = 0, before = null, own = null, run = Math.random(); // two views of a dial hear each other's answers

  const said = el("p", { class: "said", role: "status" }), face = el("div", { class: "knob" });
  const range = el("input", { type: "range", min: 0, max: last, step: 1, "aria-label": _`scaling of the adapters` });
  const answer = el("div", { class: "answer", role: "group", "aria-label": _`the answer, token by token` }), next = el("div", { class: "next" });
  const buttons = questions.map((text, i) => el("button", { type: "button", onclick: () => choose(i) }, text));
  const style = el("style");
  style.textContent = CSS;
  const body = el("div", { class: "body" }, el("div", {}, face, range), el("div", {}, answer, next));
  const frame = el("div", { class: "dial" }, el("div", { class: "questions", role: "group", "aria-label": _`questions` }, ...buttons), body, said);
  root.replaceChildren(style, frame);

  const now = () => positions[at].answers[question];

  function choose(i) {
    [question, place, before, own] = [i, 0, null, null];
    model.send?.({ stop: true });
    draw();
  }
  function turnTo(position) {
    const to = Math.max(0, Math.min(last, Math.round(position)));
    if (to === at) return;
    [before, at] = [own ? null : now().tokens, to];
    draw();
  }
  function pick(i, focus) {
    place = Math.max(0, Math.min(now().tokens.length - 1, i));
    draw();
    if (focus) answer.children[place].focus();
  }

  function draw() {
    const position = positions[at];
    face.innerHTML = knob(positions, at, asked);
    range.value = at;
    range.setAttribute("aria-valuetext", position.scaling.toFixed(1));
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(!own && i === question)));
    if (own) {
      answer.replaceChildren(own.text);
      next.replaceChildren();
      said.textContent = own.note;
      return;
    }
    const { tokens, likeliest } = now(), changed = before ? others(tokens, before) : new Set();
    place = Math.min(place, Math.max(tokens.length - 1, 0));
    answer.replaceChildren(
      ...tokens.map((token, i) => {
        const look = `${changed.has(i) ? "new " : ""}${i === place ? "at" : ""}`;
        const span = el("span", { class: look, tabindex: i === place ? 0 : -1, role: "button", "aria-label": _`token ${i + 1}: ${shown(token)}` }, token);
        span.addEventListener("click", () => pick(i, true));
        return span;
      }),
    );
    next.replaceChildren(
      el("div", {}, _`What the model would write at place ${place + 1}, likeliest first (choose a place above):`),
      el("table", {}, ...(likeliest[place] ?? []).map(([token, mille]) => {
        const bar = el("i");
        bar.style.width = `${mille / 10}%`;
        return el("tr", {}, el("td", {}, shown(token)), el("td", {}, bar), el("td", {}, `${(mille / 10).toFixed(1)} %`));
      })),
    );
    const turned = before ? _` ${changed.size} of ${tokens.length} tokens are new.` : "";
    const cut = tokens.at(-1)?.startsWith("<|") ? "" : _` This one is cut off after ${tokens.length} tokens.`;
    said.textContent = _`With scaling ${position.scaling.toFixed(1)}, ${Math.round(position.form * asked)} of ${asked} answers have the form.` + cut + turned;
  }

  answer.addEventListener("keydown", (event) => {
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: Infinity }[event.key];
    event.stopPropagation(); // JupyterLab would leave the cell
    if (to === undefined || own) return;
    event.preventDefault();
    pick(to, true);
  });
  range.addEventListener("input", () => turnTo(Number(range.value)));
  range.addEventListener("keydown", (event) => { // JupyterLab takes the arrow keys from a range, for its headings
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    turnTo(to);
  });
  const follow = (event) => {
    const box = face.firstElementChild.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) / box.width) * 250 - 125, ((event.clientY - box.top) / box.height) * 196 - 112];
    const turn = (Math.atan2(y, x) / Math.PI - START + 2.3) % 2 - 0.3; // half turns behind the start; a little before it is the start
    turnTo((turn / SWEEP) * last);
  };
  face.addEventListener("pointerdown", (event) => { face.setPointerCapture(event.pointerId); follow(event); });
  face.addEventListener("pointermove", (event) => event.buttons && follow(event));

  let heard = () => {};
  if (model.get("live")) { // a kernel with the language model: it answers the learner's own question
    const text = el("input", { type: "text", placeholder: _`ask a question of your own`, "aria-label": _`your own question` });
    const ask = el("button", { type: "button" }, _`Ask`), stop = el("button", { type: "button", disabled: "" }, _`Stop`);
    const send = () => {
      [own, before] = [{ text: "", note: "…" }, null];
      model.send({ ask: text.value, scaling: positions[at].scaling, run: ++run });
      draw();
    };
    ask.addEventListener("click", send);
    text.addEventListener("keydown", (event) => {
      event.stopPropagation(); // JupyterLab would run the cell
      if (event.key === "Enter") send();
    });
    stop.addEventListener("click", () => model.send({ stop: true }));
    const again = () => own && send(); // when the dial is let go
    range.addEventListener("change", again);
    range.addEventListener("keyup", (event) => /Arrow|Home|End/.test(event.key) && again());
    face.addEventListener("pointerup", again);
    heard = (message) => {
      if (message.run !== run) return; // what was asked before the last question
      stop.disabled = !message.busy;
      if (!own) return;
      if (message.text !== undefined) own.text = message.text;
      own.note = message.note ?? _`With scaling ${positions[at].scaling.toFixed(1)} …`;
      draw();
    };
    model.on("msg:custom", heard);
    frame.insertBefore(el("div", { class: "own" }, text, ask, stop), body);
  }
  draw();
  return () => model.off("msg:custom", heard);
}

/** Show what data/run_dial.py measured, in an element of any page; `words` are translations by the English. */
export function mount(root, results, words = {}) {
  return render({ el: root, model: { get: (name) => ({ results, live: false, words })[name], off() {} } });
}

export default { render };
