"""What jupyterlab-a11y-checker finds in the lessons: `make accessibility`, which installs it, runs this script.

Its wheel is an extension of JupyterLab: a container of modules, of which one is its engine, with axe-core. A page of
Chromium loads that container, without JupyterLab, and hands its engine the cells of each notebook. The engine reads
the Markdown; what code shows is tested elsewhere (see docs/accessibility.md).
"""

import json
import sys
from collections import Counter

import nbformat
from browser import ROOT, browser_page, need_chromium, served

FOLDER = ROOT / ".a11y" / "jupyterlab_a11y_checker" / "labextension"
NAME, ENGINE = "jupyterlab-a11y-checker", "@berkeley-dsep-infra/a11y-checker-core"
PAGE = "<!doctype html><html lang='en'><head><title>checker</title></head><body></body></html>"
START = """async ([name, engine]) => {
    const shared = {};
    await window._JUPYTERLAB[name].init(shared);
    window.engine = (await Object.values(shared[engine])[0].get())();
}"""
CHECK = "cells => window.engine.analyzeCellsAccessibility(cells, document, '', null, '')"


def notebooks(root=ROOT):
    """All built lessons: the learner's, the solved, the translated."""
    return sorted(path for path in (root / "notebooks").rglob("[0-9]*.ipynb") if "checkpoint" not in path.name)


def version(folder=FOLDER):
    """The checker's own version."""
    return json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]


def findings(paths, folder=FOLDER):
    """For each notebook its findings, each the rule, the number of the cell, and the place in its text."""
    (entry,) = (folder / "static").glob("remoteEntry.*.js")
    seen, found = [], {}
    with served(folder) as address, browser_page(seen) as page:
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{address}/package.json")
        page.set_content(PAGE)
        page.add_script_tag(url=f"{address}/static/{entry.name}")
        page.evaluate(START, [NAME, ENGINE])
        for path in paths:
            cells = nbformat.read(path, as_version=4).cells
            given = [
                {"cellIndex": number, "type": cell.cell_type, "source": cell.source}
                for number, cell in enumerate(cells)
            ]
            found[path] = [
                (issue["violationId"], cells[issue["cellIndex"]].id, issue["issueContentRaw"])
                for issue in page.evaluate(CHECK, given)
            ]
    fetched = [line for line in seen if line.startswith(("request", "websocket"))]  # an image without alt is not there
    assert fetched == [], fetched
    return found


def main():
    """Print the findings and how many there are of each rule; 1 when there are any."""
    need_chromium()
    if not FOLDER.is_dir():
        raise SystemExit(f"there is no {NAME} in {FOLDER.parents[1].name}: make accessibility installs it")
    found = findings(notebooks())
    for path, issues in found.items():
        for rule, cell, text in issues:
            print(f"{path.relative_to(ROOT).as_posix()} {cell}: {rule}: {' '.join(text.split())[:100]}")
    rules = Counter(rule for issues in found.values() for rule, *_ in issues)
    print(f"{NAME} {version()}, {len(found)} notebooks: {dict(rules) or 'no findings'}")
    return 1 if rules else 0


if __name__ == "__main__":
    sys.exit(main())
