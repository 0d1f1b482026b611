// The explorers' slider: the browser's own range, which has a name, says its value in words, and fills its room.

const CSS = `
.lesson-slider { display: flex; align-items: center; gap: 8px; height: var(--jp-widgets-inline-height, 28px); margin: 2px;
  color: var(--jp-ui-font-color1, #222); font-size: var(--jp-widgets-font-size, 13px) }
.lesson-slider label { flex: 0 0 128px; text-align: right; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.lesson-slider input { flex: 1 1 60px; min-width: 60px; margin: 0; accent-color: var(--jp-brand-color1, #0072B2) }
.lesson-slider output { flex: 0 0 64px; white-space: nowrap }
.lesson-slider:has(:disabled) { opacity: 0.55 }
`;

let made = 0;

function render({ model, el }) {
  const [style, frame, label, range, output] = ["style", "div", "label", "input", "output"].map((name) => document.createElement(name));
  style.textContent = CSS;
  frame.className = "lesson-slider widget-inline-hbox";
  label.className = "widget-label";
  range.type = "range";
  range.min = 0;
  label.htmlFor = range.id = `lesson-slider-${++made}-${Date.now()}`;
  frame.append(label, range, output);
  el.append(style, frame);

  const draw = () => {
    const said = model.get("labels")[model.get("index")] ?? "";
    label.textContent = label.title = model.get("description");
    range.max = model.get("labels").length - 1; // before the value, which it would clip
    range.value = model.get("index");
    range.disabled = model.get("disabled");
    range.setAttribute("aria-label", model.get("description"));
    range.setAttribute("aria-valuetext", said);
    output.textContent = said;
  };
  const move = (index) => {
    model.set("index", Math.max(0, Math.min(Number(range.max), index)));
    model.save_changes();
  };
  range.addEventListener("input", () => move(Number(range.value)));
  range.addEventListener("keydown", (event) => { // JupyterLab takes the arrow keys from a range, for its headings
    const at = model.get("index");
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: Infinity }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  });
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}

export default { render };
