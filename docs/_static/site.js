// What scrolls sideways in a box of its own has to be reachable by keyboard; what fits need not be a stop on the way.
const BOXES = {
  pre: "Code or output",
  ".adapters-lesson-drawing": "Figure",
  ".table-wrapper": "Table",
  "div.math": "Formula",
};

function markScrolling() {
  for (const [selector, label] of Object.entries(BOXES)) {
    for (const box of document.querySelectorAll(`article ${selector}`)) {
      const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
      for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", label]]) {
        scrolls ? box.setAttribute(name, value) : box.removeAttribute(name);
      }
    }
  }
}

addEventListener("load", markScrolling);
addEventListener("resize", markScrolling);
addEventListener("toggle", markScrolling, true); // a hint that is unfolded may have code in it

// What lives without a kernel takes the place of its picture; where that fails, from a file or without a script, it stays.
async function bringToLife(place) {
  try {
    const numbers = await fetch(place.dataset.numbers);
    const { mount } = await import(new URL(place.dataset.module, document.baseURI));
    mount(place, await numbers.json());
    markScrolling();
  } catch (error) {
    place.replaceChildren();
    console.warn(`${place.dataset.module} stays a picture: ${error.message}`);
  }
}

document.querySelectorAll(".alive").forEach(bringToLife);
