"""The glossary has the course's words, the bibliography its sources, and both lead to the lessons that they name."""

import re
from pathlib import Path

import pytest

from adapters_lesson.placements import PLACEMENTS

ROOT = Path(__file__).parents[1]
SOURCES = {path.stem: path for path in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py"))}
GLOSSARY, BIBLIOGRAPHY = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("glossary", "bibliography")
)
HOUSE = [
    "model_dim", "bottleneck_dim", "reduction_factor", "down_project", "up_project", "activation", "placement",
    *PLACEMENTS, "trainable", "frozen", "head", "base model", "full fine-tuning",
]  # fmt: skip
ARXIV = re.compile(r"arXiv[\s:#*]+(\d{4}\.\d{4,5})")  # a comment's or a text's line may break in between
LESSON = re.compile(r"\[lesson (\d\d)\]\(\.\./notebooks/solutions/(\w+)\.ipynb\)")


def entries(text):
    """Heading of the third level → what stands below it."""
    return dict(re.findall(r"^### ([^\n]+)\n\n(.*?)(?=\n##|\Z)", text, re.MULTILINE | re.DOTALL))


def in_order(term):
    """By which a term is sorted: letters, figures and spaces only."""
    return re.sub(r"[^a-z0-9 ]", "", re.sub(r"[-_]", " ", term.lower()))


def stem(term):
    """The beginning of a term's longest word, which other forms of it share."""
    return max(re.findall(r"[a-z]+", term.lower()), key=len)[:5]


def cited(text):
    return set(ARXIV.findall(text))


TERMS, PAPERS = entries(GLOSSARY), entries(BIBLIOGRAPHY)


# --- The glossary --------------------------------------------------------------------------------------------------


def test_the_words_of_the_house_are_explained_and_the_terms_can_be_found():
    assert [term for term in HOUSE if term not in TERMS] == []
    order = [in_order(term) for term in re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)]
    assert order == sorted(set(order)), "in alphabetical order, none twice"


@pytest.mark.parametrize("term", TERMS)
def test_a_term_leads_to_a_lesson_in_which_it_occurs(term):
    ((number, name),) = LESSON.findall(TERMS[term])
    assert name.startswith(number)
    assert stem(term) in SOURCES[name].read_text(encoding="utf-8").lower(), f"lesson {number} does not say {term}"


# --- The bibliography ----------------------------------------------------------------------------------------------


def test_every_paper_of_the_lessons_and_of_the_package_is_in_the_bibliography_and_no_other():
    files = [*SOURCES.values(), *(ROOT / "adapters_lesson").rglob("*.py")]
    named = set().union(*(cited(path.read_text(encoding="utf-8")) for path in files))
    assert len(named) >= 20
    assert cited(BIBLIOGRAPHY) == named


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_leads_to_itself_and_to_lessons(paper):
    source, _, used = PAPERS[paper].strip().split("\n\n")
    assert all(f"(https://arxiv.org/abs/{number})" in source for number in cited(source))
    lessons = LESSON.findall(used)
    assert lessons and all(name in SOURCES and name.startswith(number) for number, name in lessons)


def test_a_citation_is_found_across_the_lines_of_a_source():
    assert cited("# (QLoRA, 2023, arXiv\n# 2305.14314) and arXiv 1902.00751, [arXiv 2005.00247](x)") == {
        "2305.14314", "1902.00751", "2005.00247",
    }  # fmt: skip
