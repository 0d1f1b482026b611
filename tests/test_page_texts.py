"""The widgets' pages: all that their modules show goes through `_`, and a page gets its words from the kernel."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

import page_texts  # noqa: E402

from adapters_lesson.course import words  # noqa: E402
from adapters_lesson.course.decision import WhichMethod  # noqa: E402
from adapters_lesson.course.help import puzzle  # noqa: E402
from adapters_lesson.course.language.dial import Dial  # noqa: E402
from adapters_lesson.course.page import Page  # noqa: E402
from adapters_lesson.course.playground import Playground  # noqa: E402
from adapters_lesson.history import load_results  # noqa: E402

MODULES = {path.stem: path for path in sorted((ROOT / "adapters_lesson").rglob("*.js"))}
NAMES = {"ReLU", "GELU", "tanh", "another sentence"}  # functions' names, and what the page tells the kernel
ASKS = re.compile(r"^function _\(.*?^}$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def german():
    words.speak("de")
    yield
    words.speak("en")


@pytest.mark.parametrize("name", list(MODULES))
def test_a_module_shows_nothing_that_is_not_asked_for(name):
    source = MODULES[name].read_text(encoding="utf-8")
    assert len(list(page_texts.literals(source))) > 20
    assert set(page_texts.untranslated(source)) <= NAMES  # else: write _`…` in place of "…"


@pytest.mark.parametrize(
    "line",
    [
        'make(el, "p", {}, "Press it");',
        'make(el, "button", { "aria-label": "close" });',
        'make(el, "button", { class: "big", title: "close it now" }, "✕");',
        'field.placeholder = "yours";',
        'button.textContent = "Stop";',
        'button.setAttribute("aria-label", `step ${n}`);',
        "say(`${n} of ${all} lines`);",
        "throw new Error(`no ${_`such`} state`);",
        'const label = on ? "Switch it off" : "";',
        "status.textContent = _`told: ${on ? `with ${n} pushes` : ``}`;",
    ],
)
def test_a_text_that_is_not_asked_for_is_found(line):
    assert len(list(page_texts.untranslated(f"{line} // a note of words\n"))) == 1


@pytest.mark.parametrize(
    "line",
    [
        'make(el, "p", { class: "soft wide", style: "margin: 0 auto" }, _`Press it`);',
        'if (event.key === "Enter" || event.key === "Escape") event.stopPropagation();',
        'mark.setAttribute("class", right ? "point" : "point wrong");',
        "const from = /^(the [/] words`of)$/.exec(text); // a pattern has words, and a quotation mark",
        'svg.setAttribute("viewBox", `0 0 ${wide / 2} ${high}`);',
        "const half = wide / 2, rest = high / 3;",
    ],
)
def test_what_is_asked_for_or_not_shown_is_not_found(line):
    assert list(page_texts.untranslated(line)) == []


def test_a_text_is_known_by_its_template_with_numbered_holes():
    source = "a(_`step ${n} of ${f({ x: `${m}` })}`, N_`later`, `not`, \"nor\", '_`this`'); // _`comment`"
    assert list(page_texts.texts(source)) == ["step {0} of {1}", "later"]
    assert list(page_texts.texts("_`it\\u00a0is ${_`inner`}`")) == ["inner", "it\u00a0is {0}"]


def test_all_modules_ask_in_the_same_way():
    asks = {name: ASKS.findall(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    assert asks.pop("slider") == []  # it shows what the kernel has worded
    assert len({tuple(found) for found in asks.values()}) == 1
    assert all(len(found) == 1 for found in asks.values())


def test_a_page_has_the_words_of_the_language_that_is_spoken(german):
    made = Playground()
    assert made.words["▶ Play"] == "▶ Start"
    assert made.words["step {0}: the run ends here"] == "Schritt {0}: hier endet der Lauf"
    assert isinstance(made, Page)
    assert made.get_state()["words"] == made.words
    still = made._repr_mimebundle_()[0]
    assert still["text/plain"].startswith("Spielwiese. Links zwei Spiralen")
    assert ">die eingefrorene Basis: 38 % richtig</text" in still["text/html"]
    assert "Führen Sie" in still["text/html"]


def test_a_page_in_english_or_in_an_unknown_language_has_none(monkeypatch):
    assert Playground().words == {}
    monkeypatch.setattr(words, "_spoken", "xx")  # as ADAPTERS_LESSON_LANGUAGE=xx
    assert Playground().words == {}
    assert Playground()._repr_mimebundle_()[0]["text/plain"].startswith("Playground. Left two spirals")


def test_what_a_page_asks_for_is_no_pattern_for_a_sentence(german):
    assert words.of_pages()["{0} on “{1}”"] == "{0} auf „{1}“"
    assert words._("a word on “paper”") == "a word on “paper”"


@pytest.mark.parametrize("make", [WhichMethod, lambda: puzzle("1.1"), lambda: Dial(load_results("dial"))])
def test_every_widget_with_a_page_has_words(german, make):
    made = make()
    assert made.words == words.of_pages()
    assert {"text/html", "text/plain"} <= made._repr_mimebundle_()[0].keys()


def test_the_puzzle_speaks_german(german):
    game = puzzle("1.1")
    assert game.title == "Puzzle 1.1"
    assert game.about.startswith("Bringen Sie die Zeilen in die richtige Reihenfolge. Ziehen Sie sie;")
    game.asked = game.order[:1]
    assert game.checked["said"].startswith("1 von ")
    assert game.checked["said"].endswith(" noch beiseitegelegt.")
