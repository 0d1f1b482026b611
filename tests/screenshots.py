"""`make screenshots`: every widget in JupyterLab, and the site on a phone, in both themes, as pictures to look at.

They go to dist/screenshots, or to the folder that the command line names. `tests/test_screenshots.py` holds that no
widget of a lesson is left out. What a page complains about meanwhile is printed, and then the exit status is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
from browser import (  # noqa: E402
    browser_page,
    copy_of_the_course,
    errors,
    make_lab,
    need_chromium,
    open_notebook,
    run_cell,
    served,
    themes,
    write_notebook,
)
from lab_speed import DIAL, EXPLORERS, MICROSCOPE, PLAYGROUND, ROUTING  # noqa: E402

from adapters_lesson.course.lesson_source import course  # noqa: E402

FOLDER = ROOT / "dist" / "screenshots"
DOCTOR = """import torch
from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, prepare
from adapters_lesson.doctor import diagnose

model = Classifier(SmallTransformer.from_minilm(2), 2)
prepare(model, "adapter", AdapterConfig(16))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad][:-2])
model(torch.tensor([[101, 102]]), torch.ones(1, 2)).sum().backward()
diagnose(model, optimizer)"""
PREDICTIONS = """from adapters_lesson.course.predictions import compare, prediction

prediction("{}", "Which weights get a gradient in the first step?", {})"""
LABORATORY = "from adapters_lesson.course.laboratory"
WIDGETS = {  # a name for the picture → the cell that makes it
    **{
        name: f"from adapters_lesson.course.explorers import {name}\n\n{name}()"
        for name in EXPLORERS
        if name != "routing_explorer"
    },
    "routing_explorer": ROUTING,
    "microscope": MICROSCOPE,
    "Playground": PLAYGROUND,
    "dial": DIAL,
    "which_method": "from adapters_lesson.course.decision import WhichMethod\n\nWhichMethod()",
    "puzzle": 'from adapters_lesson.course.help import puzzle\n\npuzzle("5.1")',
    "quiz": 'from adapters_lesson.course.quiz import quiz\n\nquiz("01")',
    "review": 'from adapters_lesson.course.quiz import review\n\nreview("04")',
    "concept_test": 'from adapters_lesson.course.quiz import concept_test\n\nconcept_test("before")',
    "prediction": PREDICTIONS.format("1b", '["both", "only down_project\'s", "only up_project\'s", "none"]'),
    "prediction_of_a_number": PREDICTIONS.format("1a", 'within=10, unit=" %"'),
    "guided_experiments": f"{LABORATORY} import Laboratory, guided_experiments\n\nguided_experiments(Laboratory())",
    "laboratory": f"{LABORATORY} import Laboratory\n\nLaboratory()",
    "progress": "from adapters_lesson.course.record import progress\n\nprogress()",
    "map": "from adapters_lesson.course.figures import course_map\n\ncourse_map()",
    "doctor": DOCTOR,
    "graduation": "from adapters_lesson.course.mine.graduation import graduate\n\ngraduate(steps=2, test=20)",
}


def _enter(part: str) -> Callable[[Any], None]:
    """Do what a click does, by keyboard, with the first of these parts of a widget."""
    return lambda output: output.locator(part).first.press("Enter")


# What one does first, because a widget says most when it has been used.
USED: dict[str, Callable[[Any], None]] = {
    "microscope": _enter("[role=gridcell]"),
    "puzzle": lambda output: output.get_by_role("button", name="Check").click(),
    "which_method": lambda output: output.get_by_role("button", name="Yes").click(),
    "Playground": lambda output: [output.locator(".play").click(), output.page.wait_for_timeout(3000)][0],
}


def photograph_widgets(folder: Path) -> list[str]:
    """Take the pictures of all ``WIDGETS``; returns what the page complained about."""
    seen: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        path = copy_of_the_course(home / "course") / "notebooks" / "widgets.ipynb"
        cells = {name: (f"# picture {number:02}", source) for number, (name, source) in enumerate(WIDGETS.items())}
        write_notebook(path, [f"{mark}\n{source.strip()}" for mark, source in cells.values()])
        own = {"ADAPTERS_LESSON_RUNS": f"{home}/runs", "ADAPTERS_LESSON_PROGRESS": f"{home}/own/progress.json"}
        with make_lab(home, **own) as address, browser_page(seen, 1366, 1500) as page:
            open_notebook(page, f"{address}&reset", path.name)
            for name, (mark, _) in cells.items():
                output = run_cell(page, mark, timeout=600)
                seen += [f"{name}: {error}" for error in errors(page)]
                for theme in themes(page):
                    output.scroll_into_view_if_needed()
                    page.wait_for_timeout(1000)
                    if theme == "Dark" and name in USED:
                        USED[name](output)
                        page.wait_for_timeout(500)
                    output.screenshot(path=folder / f"{name}_{theme.lower()}.png")
            (graduation,) = (home / "own").rglob("graduation.html")
            page.goto(graduation.as_uri())
            page.screenshot(path=folder / "graduation_page.png", full_page=True)
    return [what for what in seen if "favicon" not in what]


def photograph_site(folder: Path, site: Path) -> list[str]:
    """Take the pictures of the site's pages on a phone: the front page whole, of a lesson its top and what lives."""
    seen: list[str] = []
    with served(site) as address, browser_page(seen, 390, 844) as page:
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for name in ("index", *(row["lesson"] for row in course()), "complete_01_the_bottleneck", "glossary"):
                page.goto(f"{address}/{name}.html")
                page.wait_for_timeout(1000)
                page.screenshot(path=folder / f"site_{name}_{theme}.png", full_page=name == "index")
                page.add_style_tag(content=".mobile-header, .back-to-top { display: none }")  # they would cover it
                for number, alive in enumerate(page.locator(".alive").all()):
                    alive.screenshot(path=folder / f"site_{name}_alive{number}_{theme}.png")
                if (fold := page.locator("details.hide").first).count():
                    fold.locator("summary").click()
                    fold.scroll_into_view_if_needed()
                    page.screenshot(path=folder / f"site_{name}_fold_{theme}.png")
    return seen


def main() -> int:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where the pictures go")
    parser.add_argument("--site", type=Path, help="a site that is there; otherwise it is built")
    arguments = parser.parse_args()
    need_chromium()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seen = photograph_widgets(arguments.folder)
    with tempfile.TemporaryDirectory() as work:
        site = arguments.site or Path(work) / "site"
        if not arguments.site:
            subprocess.run([sys.executable, ROOT / "docs" / "build.py", site], check=True)
        seen += photograph_site(arguments.folder, site)
    print(*seen, f"{len(list(arguments.folder.glob('*.png')))} pictures are in {arguments.folder}", sep="\n")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
