// The puzzle's page: the lines of a solution, put in order by pointer, buttons or keys. help.py says what is right.

let translations = {}; // by the English text, from the kernel or the page
const N_ = String.raw; // marks a text that _ translates later, where it is shown
/** A text in the learner's language, with what is put in: _`step ${n}` is known as "step {0}". */
function _(text, ...put) {
  const english = typeof text === "string" ? text : text.reduce((said, part, i) => `${said}{${i - 1}}${part}`);
  return (translations[english] ?? english).replace(/\{(\d)\}/g, (hole, i) => put[i] ?? hole);
}

const STYLE = `
.puz { --ink: #0072b2; --ink2: #c85200; --good: #00785a; --line: color-mix(in srgb, currentColor 22%, transparent);
  color: var(--jp-content-font-color1, #222); font: 14px/1.45 var(--jp-content-font-family, system-ui, sans-serif); max-width: 860px; padding: 10px 2px; position: relative; }
[data-jp-theme-light="false"] .puz, [data-theme="dark"] .puz { --ink: #56b4e9; --ink2: #ff9a4d; --good: #3ecf9f; color: var(--jp-content-font-color1, #eee); }
.puz, .puz * { box-sizing: border-box; } .puz h3 { font-size: 17px; margin: 0; } .puz p { margin: 4px 0 10px; } .puz [hidden] { display: none !important; }
.puz ol, .puz ul { list-style: none; margin: 0; padding: 4px; border-radius: 8px; }
.puz ol { background: color-mix(in srgb, currentColor 4%, transparent); min-height: 42px; }
.puz ul { border: 1.5px dashed var(--line); min-height: 42px; margin-bottom: 10px; } .puz ul:empty::before { content: attr(data-empty); opacity: .6; display: block; padding: 4px 10px; font-size: 13px; }
.puz .head { margin: 10px 4px 3px; font-size: 13px; opacity: .8; }
.puz li { display: flex; align-items: stretch; gap: 2px; margin: 3px 0; padding: 0; border: 1px solid var(--line); border-left: 4px solid var(--line); border-radius: 6px;
  background: var(--jp-layout-color0, Canvas); position: relative; }
.puz li.held { border-color: var(--ink); box-shadow: 0 4px 14px #0004; z-index: 2; } .puz.dragging, .puz.dragging * { cursor: grabbing !important; user-select: none; }
.puz li.fits { border-left-color: var(--good); } .puz li.moves, .puz li.foreign { border-left-color: var(--ink2); } .puz ul li { border-style: dashed; border-left-style: solid; background: none; }
.puz button { font: inherit; color: inherit; background: none; border: 0; border-radius: 5px; cursor: pointer; margin: 0; padding: 0; min-width: 28px; min-height: 28px; }
.puz button:disabled { opacity: .25; cursor: default; } .puz :focus-visible { outline: 2px solid var(--ink2); outline-offset: 1px; }
.puz .grip { touch-action: none; flex: none; align-self: center; padding: 6px 7px; opacity: .45; cursor: grab; font-size: 12px; letter-spacing: -1px; user-select: none; }
.puz .number { align-self: center; flex: none; width: 20px; text-align: right; font-size: 12px; opacity: .65; font-variant-numeric: tabular-nums; }
.puz .code { flex: 1 1 auto; min-width: 0; text-align: left; padding: 4px 8px; cursor: grab; } .puz ul .number { visibility: hidden; }
.puz code { display: block; white-space: pre-wrap; overflow-wrap: anywhere; padding: 0; background: none; color: inherit; font: 13px/1.5 var(--jp-code-font-family, ui-monospace, monospace); }
.puz .keyword { color: var(--jp-mirror-editor-keyword-color, inherit); font-weight: 600; } .puz .text { color: var(--jp-mirror-editor-string-color, inherit); } .puz .digits { color: var(--jp-mirror-editor-number-color, inherit); }
.puz .mark { align-self: center; font-size: 12px; padding: 0 8px; white-space: nowrap; } .puz .fits .mark { color: var(--good); } .puz .moves .mark, .puz .foreign .mark { color: var(--ink2); }
.puz .move { align-self: center; opacity: .6; } .puz li:hover .move:enabled, .puz li:focus-within .move:enabled { opacity: 1; } .puz .move:enabled:hover { background: color-mix(in srgb, currentColor 12%, transparent); }
.puz .check { background: var(--ink); color: var(--jp-ui-inverse-font-color1, #fff); padding: 4px 18px; font-weight: 600; } [data-jp-theme-light="false"] .puz .check, [data-theme="dark"] .puz .check { color: #0b1a24; }
.puz .foot { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; } .puz .said { flex: 1 1 260px; } .puz .solved { color: var(--good); font-weight: 600; }
.puz .still { display: none; font-weight: 700; } .puz.jupyter-widgets-disconnected .still, .jupyter-widgets-disconnected .puz .still { display: block; }`;
const TOKENS = /(?<keyword>\b(?:and|as|assert|class|def|elif|else|for|from|if|import|in|is|lambda|not|or|raise|return|while|with|yield|None|True|False)\b)|(?<text>f?"[^"]*"|f?'[^']*')|(?<digits>\b\d[\d_.e]*\b)/g;
const MARKS = { fits: ["✔", N_`fits`], moves: ["↕", N_`elsewhere`], foreign: ["✘", N_`not here`] };

function make(parent, name, attributes = {}, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== "") element.textContent = text;
  parent.append(element);
  return element;
}

/** Write a line of Python with the colours of JupyterLab's cells. */
function write(code, line) {
  let end = 0;
  for (const { 0: word, index, groups } of line.matchAll(TOKENS)) {
    code.append(line.slice(end, index));
    make(code, "span", { class: Object.keys(groups).find(kind => groups[kind]) }, word);
    end = index + word.length;
  }
  code.append(line.slice(end));
}

function render({ model, el }) {
  translations = model.get("words") ?? {};
  const lines = model.get("lines"), all = lines.map((_, i) => i);
  const dead = () => el.closest(".jupyter-widgets-disconnected") !== null;
  let order = [...model.get("order")], before = null, drag = null, current = order[0]; // before: the order when a line was picked up
  el.classList.add("puz");
  make(el, "style", {}, STYLE);
  make(el, "div", { class: "still" }, _`Run this cell to have it checked.`);
  make(el, "h3", {}, model.get("title"));
  make(el, "p", {}, model.get("about"));
  const chosen = make(el, "ol", { "aria-label": _`the solution, in order` });
  make(el, "div", { class: "head" }, _`Laid aside`);
  const aside = make(el, "ul", { "aria-label": _`lines laid aside`, "data-empty": _`empty` });
  const foot = make(el, "div", { class: "foot" }), check = make(foot, "button", { type: "button", class: "check" }, _`Check`), status = make(foot, "div", { class: "said", role: "status" });

  const laid = () => all.filter(i => !order.includes(i)), shown = () => [...order, ...laid()];
  const short = i => _`“${lines[i].trim()}”`, say = (text, solved = false) => { status.textContent = text; status.classList.toggle("solved", solved); };

  const items = all.map(i => {
    const item = make(el, "li"), grip = make(item, "span", { class: "grip", "aria-hidden": "true" }, "⠿"), number = make(item, "span", { class: "number", "aria-hidden": "true" });
    const line = make(item, "button", { type: "button", class: "code" }), code = make(line, "code"), mark = make(item, "span", { class: "mark", "aria-hidden": "true" });
    const indent = lines[i].length - lines[i].trimStart().length;
    write(code, lines[i].trim());
    code.style.paddingLeft = `${indent + 4}ch`; // a long line goes on below itself, a little to the right
    code.style.textIndent = "-4ch";
    const [up, down, off] = ["↑", "↓", "✕"].map(sign => make(item, "button", { type: "button", class: "move" }, sign));
    up.addEventListener("click", () => go(i, order.indexOf(i) - 1));
    down.addEventListener("click", () => go(i, order.indexOf(i) + 1));
    off.addEventListener("click", () => go(i, order.includes(i) ? -1 : order.length));
    line.addEventListener("click", event => { if (event.detail === 0) pick(i); }); // by key: the pointer drags
    item.addEventListener("focusin", () => { current = i; rove(); });
    item.addEventListener("pointerdown", event => grab(event, i));
    return { item, number, line, mark, up, down, off, indent };
  });

  /** Tab reaches the current line and its buttons; arrows reach the others. */
  function rove() {
    items.forEach(({ line, up, down, off }, i) => [line, up, down, off].forEach(one => { one.tabIndex = i === current ? 0 : -1; }));
  }

  function draw() {
    const focused = document.activeElement, tops = items.map(({ item }) => item.getBoundingClientRect().top), { order: seen = [], marks = [] } = model.get("checked");
    const marked = seen.join() === order.join() && before === null && drag === null, aloft = drag?.line ?? (before ? current : -1);
    [[chosen, order], [aside, laid()]].forEach(([list, inside]) => inside.forEach((i, place) => {
      if (list.children[place] !== items[i].item) list.insertBefore(items[i].item, list.children[place] ?? null);
    }));
    if (el.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true }); // what is moved loses it
    items.forEach(({ item, number, line, mark, up, down, off, indent }, i) => {
      const place = order.indexOf(i), verdict = marked && place >= 0 ? marks[place] : "", here = place >= 0;
      item.className = [verdict, i === aloft ? "held" : ""].join(" ");
      number.textContent = here ? place + 1 : "";
      mark.textContent = verdict ? `${MARKS[verdict][0]} ${_(MARKS[verdict][1])}` : "";
      up.hidden = down.hidden = !here;
      up.disabled = place === 0;
      down.disabled = place === order.length - 1;
      off.textContent = here ? "✕" : "↩";
      up.setAttribute("aria-label", _`up: ${lines[i].trim()}`);
      down.setAttribute("aria-label", _`down: ${lines[i].trim()}`);
      off.title = here ? _`lay aside` : _`put back`;
      off.setAttribute("aria-label", `${off.title}: ${lines[i].trim()}`);
      line.setAttribute("aria-pressed", i === aloft);
      line.setAttribute("aria-label", `${here ? _`line ${place + 1} of ${order.length}` : _`laid aside`}: ${_`${lines[i].trim()}, indented by ${indent}`}${verdict ? `, ${_(MARKS[verdict][1])}` : ""}`);
    });
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
      items.forEach(({ item }, i) => {
        const shift = tops[i] - item.getBoundingClientRect().top;
        if (shift && i !== drag?.line) item.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], { duration: 130, easing: "ease-out" });
      });
    }
  }

  /** Put a line at a place of the solution, or aside with -1; tells whether it moved. */
  function put(i, place) {
    const rest = order.filter(other => other !== i), next = place < 0 ? rest : [...rest.slice(0, place), i, ...rest.slice(place)];
    if (next.join() === order.join()) return false;
    order = next;
    model.set("order", order);
    model.save_changes();
    return true;
  }

  function where(i) {
    const place = order.indexOf(i);
    if (place < 0) return _`${short(i)} is laid aside.`;
    return place ? _`${short(i)} is line ${place + 1} of ${order.length} now, after ${short(order[place - 1])}.` : _`${short(i)} is line ${place + 1} of ${order.length} now.`;
  }

  function go(i, place) {
    before = null;
    if (!put(i, place)) return;
    draw();
    current = i;
    rove();
    if (document.activeElement.disabled || document.activeElement === document.body) items[i].line.focus();
    say(where(i));
  }

  function pick(i) {
    say(before ? _`Put down: ${where(i)}` : _`Picked up ${short(i)}: the arrow keys move it, Space puts it down, Escape puts it back.`);
    before = before ? null : [...order];
    draw();
  }

  el.addEventListener("keydown", event => {
    const i = items.findIndex(({ item }) => item.contains(event.target));
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key], place = order.indexOf(i), walk = shown();
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === "Enter" || event.key === " ") event.stopPropagation(); // the button's own; JupyterLab would type into the cell
    if (i < 0 || event.key === "Enter" || event.key === " ") return;
    if (step && before) { // from the last place on, the next is aside; and from there back again
      if (place < 0 ? step < 0 && put(i, order.length) : put(i, place + step > walk.length - laid().length - 1 ? -1 : Math.max(0, place + step))) say(where(i));
      draw();
    } else if (step) items[walk[walk.indexOf(i) + step] ?? i].line.focus();
    else if (event.key === "Home" || event.key === "End") items[event.key === "Home" ? walk[0] : walk[walk.length - 1]].line.focus();
    else if (event.key === "Delete" || event.key === "Backspace") go(i, -1);
    else if (event.key === "Escape" && before) {
      order = before;
      before = null;
      model.set("order", order);
      model.save_changes();
      draw();
      say(_`Put back: ${where(i)}`);
    } else return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would leave the cell
  });

  function grab(event, i) {
    if (event.button !== 0 || event.target.closest(".move") || (event.pointerType === "touch" && !event.target.closest(".grip"))) return;
    const from = event.clientY, { item } = items[i], hold = from - item.getBoundingClientRect().top, start = [...order];
    const move = moved => {
      if (!drag && Math.abs(moved.clientY - from) < 4) return;
      if (!drag) { before = null; el.classList.add("dragging"); el.setPointerCapture(event.pointerId); }
      drag = { line: i };
      const top = moved.clientY - hold - el.getBoundingClientRect().top, middle = one => one.offsetTop + one.offsetHeight / 2; // where they will be, while they still slide
      const bottom = top + item.offsetHeight, place = order.indexOf(i), edge = chosen.offsetTop + chosen.offsetHeight;
      const above = order.filter((other, at) => other !== i && middle(items[other].item) < (at < place ? top : bottom)); // an edge that has passed a middle counts
      put(i, (top + bottom) / 2 > edge + (place < 0 ? -8 : 8) ? -1 : above.length);
      draw();
      item.style.transform = `translateY(${top - item.offsetTop}px)`;
    };
    const end = ended => {
      removeEventListener("pointermove", move);
      ["pointerup", "pointercancel"].forEach(name => removeEventListener(name, end));
      if (!drag) return;
      drag = null;
      el.classList.remove("dragging");
      item.style.transform = "";
      if (ended.type === "pointercancel") { order = start; model.set("order", order); model.save_changes(); }
      draw();
      items[i].line.focus({ preventScroll: true });
      say(where(i));
    };
    addEventListener("pointermove", move);
    ["pointerup", "pointercancel"].forEach(name => addEventListener(name, end));
  }

  function answered() {
    const { order: seen = [], said = "", solved = false } = model.get("checked");
    if (seen.join() === order.join()) say(said, solved);
    else say(_`A line has moved since: check again.`);
    draw();
  }
  check.addEventListener("click", () => {
    before = null;
    if (dead()) say(_`Run this cell first: without a kernel nobody can check it.`);
    else if (!order.length) say(_`All lines are laid aside: put one back first.`);
    else if (model.get("checked").order?.join() === order.join()) answered();
    else {
      say(_`Checking …`);
      model.set("asked", [...order]); // the order itself: what moves meanwhile is another question
      model.save_changes();
    }
  });
  const outside = () => { if (model.get("order").join() !== order.join() && !drag) { order = [...model.get("order")]; draw(); } };
  model.on("change:checked", answered);
  model.on("change:order", outside);
  rove();
  draw();
  return () => { model.off("change:checked", answered); model.off("change:order", outside); };
}

export default { render };
