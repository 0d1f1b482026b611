// Which method when: one question after the other, and for each answer what it stands on.
// Runs in JupyterLab by anywidget, and by `mount` on a page without a kernel.

let translations = {}; // by the English text, from the kernel or the page
/** A text in the learner's language, with what is put in: _`step ${n}` is known as "step {0}". */
function _(text, ...put) {
  const english = typeof text === "string" ? text : text.reduce((said, part, i) => `${said}{${i - 1}}${part}`);
  return (translations[english] ?? english).replace(/\{(\d)\}/g, (hole, i) => put[i] ?? hole);
}

const CSS = `
.which { --ink: var(--jp-content-font-color1, #222); --paper: var(--jp-layout-color0, #fff); --pale: var(--jp-layout-color2, #e8e8e8);
  --adapter: #0072B2; --on: #fff; color: var(--ink); background: var(--paper); max-width: 760px; padding: 8px; position: relative;
  font-family: var(--jp-content-font-family, sans-serif); font-size: 14px; line-height: 1.45 }
[data-jp-theme-light="false"] .which, [data-theme="dark"] .which { --adapter: #56b4e9; --on: #0b1a24 }
.which ol, .which ul, .which p { margin: 0; padding: 0 }
.which ol { list-style: none }
.which ol > li { border-left: 3px solid var(--pale); padding: 0 0 12px 12px; overflow-wrap: anywhere }
.which ul { list-style: none; padding-top: 3px }
.which ul li { font-size: 13px; margin-top: 4px }
.which .from { display: block; font-style: italic }
.which .now { border-left: 3px solid var(--adapter); padding: 2px 0 4px 12px }
.which .ask { font-size: 16px; font-weight: bold; margin-bottom: 8px }
.which .answers { display: grid; gap: 6px; justify-items: start }
.which button { font: inherit; color: inherit; background: var(--paper); border: 1px solid currentColor; border-radius: 6px;
  padding: 4px 12px; min-height: 30px; text-align: left; cursor: pointer }
.which .answers button:hover { background: var(--adapter); color: var(--on) }
.which ol button { float: right; margin-left: 10px; font-size: 12px; padding: 1px 8px; min-height: 24px }
.which .method { background: var(--adapter); color: var(--on); border-radius: 6px; padding: 10px 14px; margin-bottom: 8px }
.which .method b { font-size: 18px }
.which [role=status] { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
.which :focus-visible { outline: 3px solid #D55E00; outline-offset: 1px }`;

const el = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

const because = (answer) =>
  el("ul", {}, ...answer.because.map((reason) => el("li", {}, reason.text, el("span", { class: "from" }, reason.from))));

function render({ model, el: root }) {
  translations = model.get("words") ?? {};
  const { questions, methods } = model.get("tree"), style = el("style"), frame = el("div", { class: "which" });
  const way = el("ol", { "aria-label": _`your answers` }), now = el("div", { class: "now" });
  const said = el("p", { role: "status" }); // it says to who cannot see them what the last answer stands on, and what is next
  let taken = []; // the answers so far
  style.textContent = CSS;
  frame.append(way, now, said);
  root.replaceChildren(style, frame);

  const button = (text, onclick, more = {}) => el("button", { type: "button", onclick, ...more }, text);
  const asked = () => questions.find((question) => question.key === (taken.at(-1)?.to ?? questions[0].key));

  function go(answers) {
    taken = answers;
    draw();
    now.querySelector("button").focus();
  }

  function draw() {
    const question = asked(), last = taken.at(-1);
    way.replaceChildren(...taken.map((answer, i) => {
      const { ask } = questions.find((one) => one.answers.includes(answer));
      const change = button(_`Change`, () => go(taken.slice(0, i)), { "aria-label": _`Change the answer to: ${ask}` });
      return el("li", {}, change, `${ask} `, el("b", {}, answer.say), because(answer));
    }));
    if (question) {
      const name = el("p", { class: "ask" }, `${taken.length + 1}. ${question.ask}`);
      const answers = question.answers.map((answer) => button(answer.say, () => go([...taken, answer])));
      now.replaceChildren(name, el("div", { class: "answers", role: "group", "aria-label": question.ask }, ...answers));
      const support = last ? `${last.say}: ${last.because.map((reason) => `${reason.text} (${reason.from})`).join(" ")} ` : "";
      said.textContent = support + _`Question ${taken.length + 1}, of ${questions.length} at most: ${question.ask}`;
    } else {
      const { name, do: todo } = methods[last.to];
      now.replaceChildren(el("div", { class: "method" }, el("b", {}, name), el("p", {}, todo)), button(_`Start again`, () => go([])));
      said.textContent = _`After ${taken.length} answers: ${name}. ${todo}`;
    }
  }

  frame.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") event.stopPropagation(); // the button's own; JupyterLab would type into the cell
  });
  draw();
}

/** Show the branches, with their numbers, in an element of any page; `words` are translations by the English. */
export function mount(root, tree, words = {}) {
  return render({ el: root, model: { get: (name) => ({ tree, words })[name] } });
}

export default { render };
