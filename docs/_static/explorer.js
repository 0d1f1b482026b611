// An explorer on a page without a kernel: its pictures were drawn when the site was built, the knobs choose among them.

const CSS = `
.explorer { margin: 1rem 0 } .explorer .knobs { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 6px 22px; margin: 8px 0 }
.explorer label { display: flex; gap: 10px; align-items: center; font-size: 0.9em } .explorer label > span { flex: 0 0 128px; text-align: right }
.explorer input { flex: 1 1 80px; min-width: 80px; accent-color: #0072b2 } .explorer output { flex: 0 0 64px }
.explorer select { font: inherit; color: inherit; background: var(--jp-layout-color0); border: 1px solid currentColor; border-radius: 4px; padding: 2px 6px; min-height: 28px }
.explorer .picture { overflow-x: auto } .explorer .picture svg { display: block }`;

const make = (parent, name, attributes = {}, text = "") => {
  const element = parent.appendChild(document.createElement(name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};

/** Show what `explorers.baked` returned. */
export function mount(root, { title, still, knobs, pictures }) {
  make(root, "style", {}, CSS);
  const frame = make(root, "div", { class: "explorer" }), at = knobs.map((knob) => knob.at);
  make(frame, "b", {}, title);
  const fields = make(frame, "div", { class: "knobs" });
  const picture = make(frame, "div", { class: "picture adapters-lesson-drawing" }), said = make(frame, "p", { role: "status" });
  make(frame, "p", {}, still);

  const draws = knobs.map((knob, k) => {
    const label = make(fields, "label");
    make(label, "span", {}, knob.label);
    const turn = (place) => { at[k] = Number(place); draw(); };
    if (!knob.slides) {
      const list = make(label, "select", { "aria-label": knob.label });
      knob.options.forEach((text, place) => make(list, "option", { value: place }, text));
      list.addEventListener("change", () => turn(list.value));
      return () => { list.value = at[k]; };
    }
    const range = make(label, "input", { type: "range", min: 0, max: knob.options.length - 1, "aria-label": knob.label }), shown = make(label, "output");
    range.addEventListener("input", () => turn(range.value));
    return () => {
      range.value = at[k];
      shown.textContent = knob.options[at[k]];
      range.setAttribute("aria-valuetext", knob.options[at[k]]);
    };
  });

  function draw() {
    draws.forEach((show) => show());
    const { svg, alt } = pictures[at.join()];
    picture.innerHTML = svg;
    said.textContent = alt;
  }
  draw();
}
