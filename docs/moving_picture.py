"""The README's picture: `python docs/moving_picture.py` films the microscope into notebooks/figures/microscope.webp.

It shows data/results/microscope.json in a browser: the steps of the training, then what the answer is without the row
of the largest push, without the token of the largest push, and with everything on again.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser import browser_page, need_chromium  # noqa: E402

MODULE = ROOT / "adapters_lesson" / "course" / "microscope" / "microscope.js"
NUMBERS = ROOT / "data" / "results" / "microscope.json"
PICTURE = ROOT / "notebooks" / "figures" / "microscope.webp"
STEP, LONG = 140, 2600  # milliseconds of a training step, and of what one has to read
MOUNT = """async ([code, numbers]) => {
    const { mount } = await import("data:text/javascript;base64," + code);
    mount(document.querySelector("main"), numbers);
}"""


def main() -> None:
    """Film, and write the picture."""
    need_chromium()
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    push, pictures = numbers["now"]["push"], list[tuple[Image.Image, int]]()
    row = max(range(len(push)), key=lambda r: max(push[r]))
    token = max(range(len(push[row])), key=lambda t: push[row][t])
    with browser_page([], 860, 720) as page:
        page.emulate_media(reduced_motion="reduce")
        page.set_content("<body style='margin: 0'><main></main>")
        page.evaluate(MOUNT, [base64.b64encode(MODULE.read_bytes()).decode(), numbers])
        film = page.locator(".mic")

        def take(milliseconds: int) -> None:
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            pictures.append((Image.open(io.BytesIO(film.screenshot())), milliseconds))

        slider = page.get_by_label("training step")
        for step in range(len(numbers["frames"])):
            slider.evaluate("(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')) }", step)
            take(STEP if step else 1200)
        take(LONG)
        heads = (numbers["about"][""]["rows"][row]["label"], "row"), (numbers["now"]["tokens"][token], "column")
        for label, kind in heads:
            page.get_by_label(f"{label}: switch the {kind}", exact=True).last.focus()
            page.keyboard.press("Enter")
            take(LONG)
            page.get_by_text("all on again").click()
            take(600)
    high = max(picture.height for picture, _ in pictures)
    first, *rest = (_as_high(picture, high) for picture, _ in pictures)
    durations = [milliseconds for _, milliseconds in pictures]
    first.save(PICTURE, save_all=True, append_images=rest, duration=durations, loop=0, quality=82, method=6)
    print(f"{PICTURE.relative_to(ROOT)}: {len(pictures)} pictures, {PICTURE.stat().st_size / 1e6:.2f} MB")


def _as_high(picture: Image.Image, height: int) -> Image.Image:
    """The picture on a white sheet: sentences of one line leave the widget lower than those of two."""
    sheet = Image.new("RGB", (picture.width, height), "white")
    sheet.paste(picture)
    return sheet


if __name__ == "__main__":
    main()
