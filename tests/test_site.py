"""The site: built once from the committed notebooks, then read as a browser, a screen reader and a search see it."""

import ast
import functools
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from browser import NEEDED, browser_page, served
from bs4 import BeautifulSoup
from markdown_text import headings, jumps

from adapters_lesson.course.figures.style import COLOURS, INK, PALETTE, TRAINED
from adapters_lesson.course.lesson_source import read_lesson

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

LESSONS = [row["lesson"] for row in build.course()]
COMPLETE = [f"complete_{lesson}" for lesson in LESSONS]
PAGES = [*LESSONS, *COMPLETE, *build.PAGES.values(), "search"]
LOOKS = [("light", 1280, 800), ("dark", 390, 844)]  # both themes, a desktop and a phone
browser = functools.partial(functools.reduce, lambda test, mark: mark(test), NEEDED)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "site"
    answer = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", folder], capture_output=True, text=True, timeout=600
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site):
    """Name → the parsed page."""
    return {path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.glob("*.html")}


@pytest.fixture(scope="session")
def address(site):
    with served(site) as address:
        yield address


def path_of(page):
    """The notebook that a page of a lesson shows."""
    lesson = page.removeprefix("complete_")
    return ROOT / "notebooks" / ("." if page == lesson else "solutions") / f"{lesson}.ipynb"


def committed(page):
    return nbformat.read(path_of(page), as_version=4)


def markdown_of(page):
    cells = (cell for cell in committed(page).cells if "remove-cell" not in cell.metadata.get("tags", []))
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def folded(notebook):
    """What JupyterLab folds: for each code cell that has it, "outputs_hidden" or "source_hidden"."""
    return [key for cell in notebook.cells for key in cell.metadata.get("jupyter", {})]


def pictures(cell):
    """The alt texts of a cell's pictures."""
    return [
        next(iter(about.values()))["alt"]
        for output in cell.get("outputs", [])
        if (about := {kind: of for kind, of in output.get("metadata", {}).items() if kind.startswith("image/")})
    ]


# --- the pages as files ------------------------------------------------------------------------------------------


def test_every_text_has_a_page(pages):
    assert set(pages) == set(PAGES)


def test_the_map_names_every_lesson_with_what_it_builds_on_and_its_minutes(pages):
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in pages["index"].select("table tr")[1:]]
    assert len(rows) == len(LESSONS) + 1
    for row, expected in zip(rows, build.course(), strict=False):
        assert row[0].endswith(expected["title"])
        on, uses = (expected[column].replace(" ", ", ") for column in ("builds_on", "uses"))
        assert row[2:] == [on, uses, expected["minutes"]]
    assert rows[-1][-1] == str(sum(int(row["minutes"]) for row in build.course()))
    for name, to in (("index", ""), (LESSONS[0], ""), (COMPLETE[0], "complete_")):
        (drawn,) = (svg for svg in pages[name].find_all("svg") if svg.get("aria-label", "").startswith("Map of the"))
        assert [link["href"] for link in drawn.find_all("a")] == [f"{to}{lesson}.html" for lesson in LESSONS]


@pytest.mark.parametrize("name", [*LESSONS, *COMPLETE])
def test_a_lesson_leads_to_its_notebook_its_other_page_and_its_neighbours(pages, site, name):
    page, lesson = pages[name], name.removeprefix("complete_")
    words, other = ("complete page", f"complete_{lesson}") if name == lesson else ("learner’s page", lesson)
    links = {link.get_text(): unquote(link["href"]) for link in page.select(".note a")}
    assert links.keys() == {words, "the notebook of this page"}
    assert links[words] == f"{other}.html"
    assert (site / links["the notebook of this page"]).read_bytes() == path_of(name).read_bytes()
    around = [page.select_one(f".related-pages .{side}-page") for side in ("prev", "next")]
    row = ["index", *LESSONS, "glossary"] if name == lesson else [None, *COMPLETE, None]
    neighbours = row[row.index(name) - 1], row[row.index(name) + 1]
    assert [link and link["href"] for link in around] == [there and f"{there}.html" for there in neighbours]


@pytest.mark.parametrize("name", [*LESSONS, *COMPLETE])
def test_the_menu_has_the_complete_page_of_the_lesson_that_one_reads_and_no_other(pages, name):
    lesson = name.removeprefix("complete_")
    menu = [(entry["href"], entry.get_text()) for entry in pages[name].select(".sidebar-tree a")]
    expected = [(f"{row['lesson']}.html", f"{row['lesson'][:2]} · {row['title']}") for row in build.course()]
    expected.insert(LESSONS.index(lesson) + 1, (f"complete_{lesson}.html", "Complete page"))
    assert [("#" if there == f"{name}.html" else there, words) for there, words in expected] == menu[: len(expected)]
    assert not [there for there, _ in menu[len(expected) :] if "complete" in there]
    (here,) = pages[name].select(".sidebar-tree .current-page > a")
    assert here["href"] == "#"


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_page_leads_to_complete_pages(pages, name):
    text = BeautifulSoup(str(pages[name].find("article")), "html.parser")
    text.select_one(".note").decompose()
    there = {Path(urlsplit(link["href"]).path).stem for link in text.select("a[href]")}
    assert there & set(LESSONS) == set()
    assert there & set(COMPLETE) or name == COMPLETE[-1]


@pytest.mark.parametrize("name", [*LESSONS, *COMPLETE])
def test_a_page_has_all_that_the_notebook_shows(pages, name):
    page, notebook = pages[name], committed(name)
    shown = [image["alt"] for image in page.select(".cell_output img")]
    assert shown == [alt for cell in notebook.cells for alt in pictures(cell)]
    text = page.find("article").get_text()
    for cell in notebook.cells:
        covered = cell.metadata.get("jupyter", {}).get("outputs_hidden", False)
        for output in cell.get("outputs", [])[covered:]:
            if "text" in output:
                assert output.text.strip() in text
    moves = any(cell.cell_type == "code" and build.WIDGET.search(cell.source) for cell in notebook.cells)
    assert ("move only in JupyterLab" in text) == moves
    folds = markdown_of(name).count("<details>") + len(folded(notebook))
    assert len(page.select("article details")) == folds


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_learner_opens_solutions_and_predicted_results_and_a_complete_page_shows_them(pages, lesson):
    learner, complete = (
        BeautifulSoup(str(pages[name].find("article")), "html.parser") for name in (lesson, f"complete_{lesson}")
    )
    assert "raise NotImplementedError" in learner.get_text() and "your code here" in learner.get_text()
    assert "your code here" not in complete.get_text()
    results = learner.select("details.hide.below-input")
    assert len(results) == folded(committed(lesson)).count("outputs_hidden") == (lesson != LESSONS[0]) * len(results)
    for result in results:
        assert "predict it first" in result.summary.get_text() and not result.summary.has_attr("aria-label")
        assert "not predicted" in result.get_text() and "Commit a prediction" not in result.get_text()
        assert not result.has_attr("open")
    for fold in learner.select("details"):
        fold.decompose()
    assert "not predicted; it is" not in learner.get_text()
    unfolded = "".join(learner.get_text().split())
    for cell in read_lesson(ROOT / "notebooks" / "sources" / f"{lesson}.py").cells:
        for solution in cell.solutions:
            assert "".join(solution.split()) not in unfolded
            assert "".join(solution.split()) in "".join(complete.get_text().split())


def test_no_hidden_test_is_on_the_site(site):
    """Nor in what can be taken from it: words of every hidden test, in whatever a file makes of them."""
    cells = [cell for path in sorted((ROOT / "notebooks" / "sources").glob("*.py")) for cell in read_lesson(path).cells]
    hidden = "\n".join(cell.hidden for cell in cells)
    said = {test.msg.value for test in ast.walk(ast.parse(hidden)) if isinstance(test, ast.Assert) and _plain(test.msg)}
    assert len(said) > 60
    said |= {"BEGIN HIDDEN TESTS"}
    for path in (path for path in site.rglob("*") if path.suffix in (".html", ".ipynb", ".py", ".md", ".js", ".json")):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            text = BeautifulSoup(text, "html.parser").get_text()
        if path.suffix in (".ipynb", ".json"):
            text = text.replace('\\"', '"')
        assert [words for words in said if words in text] == [], path.name


def _plain(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_formulas_are_mathml(pages):
    for lesson in [*LESSONS, *COMPLETE]:
        article, text = pages[lesson].find("article"), markdown_of(lesson)
        blocks = re.findall(r"\$\$.+?\$\$", text, re.DOTALL)
        assert len(article.select("div.math > math[display=block]")) == len(blocks)
        for formula in article.find_all("math"):
            assert "\\" not in formula.get_text()
        assert "$" not in article.get_text() or "$$" not in article.get_text()
    assert len(pages["05_training"].select("article math")) == 3
    words = [word.get_text() for word in pages["08_many_tasks_one_model"].select("math mi")]
    assert "softmax" in words


def test_every_picture_has_alt_text_and_every_page_its_headings_in_order(pages):
    for name, page in pages.items():
        for image in page.find_all("img"):
            assert image.get("alt", "").strip(), f"{name}: {image}"
        levels = [int(heading.name[1]) for heading in page.find("article").find_all(re.compile(r"^h[1-6]$"))]
        assert jumps(levels) == [], name
        assert levels.count(1) == 1 or name == "search"


MINIMUM = {"description", "keywords", "name", "@context", "@type", "@id", "http://purl.org/dc/terms/conformsTo"}
RECOMMENDED = {
    *("about", "abstract", "audience", "author", "competencyRequired", "educationalLevel", "identifier"),
    *("inLanguage", "learningResourceType", "license", "mentions", "teaches", "timeRequired", "url"),
}  # of Bioschemas' TrainingMaterial 1.0-RELEASE


def test_the_front_page_and_each_lesson_describe_themselves_in_bioschemas_profile(pages):
    found = {name: page.select('head script[type="application/ld+json"]') for name, page in pages.items()}
    assert {name for name, scripts in found.items() if scripts} == {"index", *LESSONS}
    rows = {row["lesson"]: row for row in build.course()}
    for name in ("index", *LESSONS):
        (script,) = found[name]
        said = json.loads(script.string)
        assert said.keys() >= MINIMUM | RECOMMENDED
        assert [key for key, value in said.items() if not value] == []
        assert said["@type"] == "LearningResource"
        assert said["url"] == said["@id"] == f"{name}.html"
        assert all(len(outcome) > 20 and not re.search(r"[*`\[]", outcome) for outcome in said["teaches"])
        minutes = rows[name]["minutes"] if name in rows else sum(int(row["minutes"]) for row in rows.values())
        assert said["timeRequired"] == f"PT{minutes}M"
        parts = said.get("hasPart", []) + ([said["isPartOf"]] if name in rows else [])
        assert parts and {part["url"].removesuffix(".html") for part in parts} <= set(pages)
        assert all(re.search(r"/abs/\d{4}\.\d{4,5}$", paper["url"]) for paper in said["mentions"])
    assert len(json.loads(found["index"][0].string)["hasPart"]) == len(LESSONS)


def test_links_between_pages_lead_somewhere_and_nothing_is_loaded_from_elsewhere(pages, site):
    for name, page in pages.items():
        for tag in page.find_all(True):
            for attribute in ("src", "href", "action", "srcset", "data", "poster"):
                link = tag.get(attribute)
                if not link or link.startswith("data:") or (tag.name == "a" and re.match(r"https?:|mailto:", link)):
                    continue
                parts = urlsplit(link)
                assert not parts.scheme and not parts.netloc, f"{name} loads {link}"
                target = site / unquote(parts.path) if parts.path else site / f"{name}.html"
                assert target.exists(), f"{name} has a link to {link}"
                if parts.fragment and target.suffix == ".html":
                    there = pages[target.stem]
                    assert there.find(id=unquote(parts.fragment)), f"{name} has a link to {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text(encoding="utf-8")), style.name


# --- what goes wrong is said -------------------------------------------------------------------------------------


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="name a folder that is new or empty"):
        build.build(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_links_become_pages_downloads_or_text(tmp_path):
    pages = build.Pages(tmp_path)
    text = (
        "[a](../TEACHING.md#x) [`b`](../notebooks/01_the_bottleneck.ipynb) [c](../notebooks) [d](https://example.org) "
        "[e](#here) `[f](g)` ![h](../notebooks/figures/course.svg) [i](../LICENSE)\n```\n[j](k)\n```"
    )
    assert pages.linked(text, ROOT / "docs" / "index.md") == (
        "[a](teaching.md#x) [`b`](01_the_bottleneck.ipynb) c [d](https://example.org) "
        "[e](#here) `[f](g)` ![h](repository/notebooks/figures/course.svg) [i](path:repository/LICENSE)"
        "\n```\n[j](k)\n```"
    )
    assert (tmp_path / "repository" / "LICENSE").exists()
    with pytest.raises(ValueError, match=r"docs/index\.md has a link to nothing\.md"):
        pages.linked("[a](nothing.md)", ROOT / "docs" / "index.md")
    with pytest.raises(ValueError, match="has hidden tests: take it away"):
        pages.linked("[a](../notebooks/sources/01_the_bottleneck.py)", ROOT / "docs" / "index.md")


# --- lessons -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", COMPLETE)
def test_a_lessons_headings_are_in_order(lesson):
    levels = [level for level, _ in headings(markdown_of(lesson))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert jumps(levels) == []


@pytest.mark.parametrize("lesson", COMPLETE)
def test_every_figure_has_alt_text_and_a_sentence_after_it(lesson):
    cells = committed(lesson).cells
    for number, cell in enumerate(cells):
        for alt in pictures(cell):
            assert len(alt) >= 80, f"{cell.id}: an alt text says what there is to see: {alt}"
            if build.WIDGET.search(cell.source):
                continue  # its own sentence stands below it
            rest = cells[number + 1 :]
            said = next(place for place, after in enumerate(rest) if after.cell_type == "markdown")
            assert not rest[said].source.startswith("#"), f"{cell.id}: no sentence says what to see in the figure"
            assert not any(pictures(between) for between in rest[:said]), f"{cell.id}: another figure comes first"


def test_a_jump_between_headings_would_be_found():
    assert jumps([1, 2, 3, 2, 3, 3, 1]) == []
    assert jumps([1, 3]) == [(1, 3)]
    assert jumps([2, 3]) == [(0, 2)]


# --- colours -----------------------------------------------------------------------------------------------------


def luminance(colour):
    """Relative luminance of "#RRGGBB", by WCAG 2.2's definition."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other="#FFFFFF"):
    """WCAG's contrast ratio, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000") == pytest.approx(21)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("colour", sorted({*COLOURS.values(), TRAINED, INK}))
def test_a_methods_colour_stands_out_from_the_page(colour):
    assert contrast(colour) >= 3  # what WCAG asks of lines and marks (1.4.11)


def test_the_laboratorys_runs_stand_out_from_the_page():
    assert all(contrast(colour) >= 3 for colour in PALETTE)


# --- the pages in a browser --------------------------------------------------------------------------------------

# Everything unfolded. Of the words in code, one of each colour is enough: axe takes minutes for all of them.
READY = """() => {
    document.querySelectorAll("details").forEach(fold => { fold.open = true });
    const seen = new Set();
    for (const word of document.querySelectorAll("pre span[class]")) {
        const kind = word.className + word.closest(".container, details, article").className;
        if (seen.has(kind)) word.replaceWith(word.textContent);
        seen.add(kind);
    }
}"""


@browser
@pytest.mark.parametrize(("theme", "width", "height"), LOOKS)
def test_no_page_has_a_serious_finding(address, theme, width, height):
    from axe_playwright_python.sync_playwright import Axe

    seen, findings = [], []
    with browser_page(seen, width, height) as page:
        page.emulate_media(color_scheme=theme)
        for name in PAGES:
            page.goto(f"{address}/{name}.html")
            page.evaluate(READY)
            wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wider <= 0, f"{name} is wider than the window by {wider} pixels"
            if name in COMPLETE[2:]:
                continue  # made as the first two are, and axe is slow
            found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
            findings += [(name, violation["id"], violation["nodes"][0]["html"]) for violation in found]
    assert findings == []
    assert seen == []


@browser
def test_what_scrolls_in_its_box_can_be_reached_by_keyboard(address):
    with browser_page([], 390, 844) as page:
        page.goto(f"{address}/01_the_bottleneck.html")
        box = page.locator("article .adapters-lesson-drawing[tabindex='0']").first
        assert box.get_attribute("aria-label") == "Figure"
        box.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
        page.set_viewport_size({"width": 1280, "height": 800})
        page.wait_for_function("() => !document.querySelector('.adapters-lesson-drawing[tabindex]')")


@browser
def test_the_microscope_lives_without_a_kernel(address):
    seen = []
    with browser_page(seen) as page:
        page.goto(f"{address}/03_inserting_adapters.html")
        film = page.locator(".alive.mic")
        film.wait_for()
        still = page.locator(".alive.mic ~ div")
        assert still.count() == 1
        assert not still.is_visible()
        said = film.locator("[role=status]")
        steps = film.get_by_label("training step")
        steps.focus()
        page.keyboard.press("Home")
        page.wait_for_function("said => said.textContent.startsWith('Step 0.')", arg=said.element_handle())
        page.keyboard.press("End")
        film.get_by_label("block 3 · attention: switch the row").click()
        page.wait_for_function("said => / Without all of block 3/.test(said.textContent)", arg=said.element_handle())
    assert seen == []


@pytest.mark.parametrize("lesson, name", [(rows[0], name) for name, rows in build.ALIVE.items()])
def test_without_a_script_the_picture_stays(pages, lesson, name):
    both = [page for title, page in pages.items() if title.removeprefix("complete_").startswith(lesson)]
    assert len(both) == 2
    for page in both:
        (place,) = page.select(f".alive[data-numbers$='{name}.json']")
        assert place.get_text() == ""
        still = place.find_next_sibling("div")
        assert still.select("ol > li") if name == "decision" else still.find("svg")["aria-label"]


@browser
@pytest.mark.parametrize(("theme", "width", "height"), LOOKS)
def test_an_explorer_turns_without_a_kernel(address, theme, width, height):
    seen = []
    with browser_page(seen, width, height) as page:
        page.emulate_media(color_scheme=theme)
        page.goto(f"{address}/03_inserting_adapters.html")
        explorer = page.locator(".alive .explorer")
        explorer.wait_for()
        said = explorer.locator("p[role=status]")
        assert said.inner_text().startswith("Pfeiffer, post-LN")
        explorer.get_by_label("placement", exact=True).select_option("houlsby")
        explorer.get_by_label("bottleneck_dim m").focus()
        page.keyboard.press("End")
        for words in ("Houlsby, post-LN", "changed by exactly 0", "197,248"):
            assert words in said.inner_text() + explorer.locator("svg").first.text_content()
        assert explorer.locator("svg").first.get_attribute("aria-label") == said.inner_text()
        page.goto(f"{address}/04_counting_the_cost.html")
        before = page.locator(".explorer p[role=status]").inner_text()
        page.get_by_label("method", exact=True).select_option("full")
        assert page.locator(".explorer p[role=status]").inner_text() != before
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen == []


@browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_drawing_has_the_colours_of_its_page(address, theme):
    drawn = "document.querySelector('article .adapters-lesson-drawing svg')"
    with browser_page([]) as page:
        page.emulate_media(color_scheme=theme)
        page.goto(f"{address}/01_the_bottleneck.html")
        for name, of_page in (("color", "foreground"), ("backgroundColor", "background")):
            expected = page.evaluate(
                f"""() => {{
                    const probe = document.body.appendChild(document.createElement("i"));
                    probe.style.color = "var(--color-{of_page}-primary)";
                    return getComputedStyle(probe).color;
                }}"""
            )
            assert page.evaluate(f"getComputedStyle({drawn}).{name}") == expected


@browser
def test_search_finds_the_bottleneck(address):
    seen = []
    with browser_page(seen) as page:
        page.goto(f"{address}/index.html")
        page.get_by_role("textbox", name="Search").fill("bottleneck")
        page.keyboard.press("Enter")
        first = page.locator("ul.search li a").first
        first.wait_for()
        found = page.locator("ul.search li a").evaluate_all("links => links.map(link => new URL(link.href).pathname)")
        assert any("01_the_bottleneck.html" in path for path in found)
        first.click()
        page.wait_for_selector("article h1")
    assert seen == []
