"""The glossary has the course's words, the bibliography its sources, and both lead to the lessons that they name."""

import re
from pathlib import Path

import jupytext
import pytest
from markdown_text import anchors, links

from adapters_lesson.adapter import PLACEMENTS

ROOT = Path(__file__).parents[1]
SOURCES = {path.stem: path for path in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py"))}
GLOSSARY, BIBLIOGRAPHY = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("glossary", "bibliography")
)
HOUSE = [
    "model_dim", "bottleneck_dim", "reduction_factor", "down_project", "up_project", "activation", "placement",
    *PLACEMENTS, "trainable", "frozen", "head", "base model", "full fine-tuning",
]  # fmt: skip
FIELD = [
    "adapter", "bottleneck", "residual stream", "hidden state", "LayerNorm", "pre-LN", "post-LN", "probe", "LoRA",
    "BitFit", "merge", "gradient", "optimiser state", "activations", "checkpointing", "AdapterDrop", "AdapterFusion",
    "mixed batch", "perplexity", "all-reduce", "seed", "spread", "interval",
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


def test_the_words_of_the_house_and_of_the_field_are_explained():
    assert [term for term in HOUSE + FIELD if term not in TERMS] == []


def test_the_terms_are_in_alphabetical_order_below_their_letters_and_none_is_there_twice():
    found = re.findall(r"^##+ (.+)$", GLOSSARY, re.MULTILINE)
    terms = [title for title in found if len(title) > 1]
    assert len(terms) == len(TERMS) > 60
    assert list(map(in_order, terms)) == sorted(map(in_order, terms))
    assert len(set(map(in_order, terms))) == len(terms)
    letter = ""
    for title in found:
        letter = title if len(title) == 1 else letter
        assert in_order(title)[0] == letter.lower(), title
    assert len(anchors(GLOSSARY)) == len(found) + 1, "two headings have one anchor"


@pytest.mark.parametrize("term", TERMS)
def test_a_term_has_one_or_two_sentences_and_a_lesson_in_which_it_occurs(term):
    (number, name), *more = LESSON.findall(TERMS[term])
    assert not more
    assert name.startswith(number)
    explanation = " ".join(re.sub(r"→.*", "", TERMS[term], flags=re.DOTALL).split())
    explanation = re.sub(r"\(The heads .*\)", "", explanation)
    assert 1 <= len(re.findall(r"[.?!](?= [A-Z(]|$)", explanation)) <= 2, explanation
    text = SOURCES[name].read_text(encoding="utf-8").lower()
    assert stem(term) in text, f"lesson {number} does not say {term}"


# --- The bibliography ----------------------------------------------------------------------------------------------


def test_every_paper_of_the_lessons_and_of_the_package_is_in_the_bibliography_and_no_other():
    files = [*SOURCES.values(), *(ROOT / "adapters_lesson").rglob("*.py")]
    named = set().union(*(cited(path.read_text(encoding="utf-8")) for path in files))
    assert len(named) >= 20
    assert cited(BIBLIOGRAPHY) == named


def test_a_source_without_an_arxiv_number_is_there_too():
    for name in ("Pang and Lee", "Patarasuk and Yuan"):
        assert any(entry.startswith(name) for entry in PAPERS)


@pytest.mark.parametrize("lesson", SOURCES)
def test_a_lessons_papers_say_that_it_uses_them(lesson):
    cells = jupytext.read(SOURCES[lesson]).cells
    for number in cited("\n".join(cell.source for cell in cells if cell.cell_type == "markdown")):
        (entry,) = [entry for entry in PAPERS.values() if number in cited(entry)]
        assert lesson in [name for _, name in LESSON.findall(entry)], f"{number} is named in {lesson}"


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_has_its_authors_title_and_year_what_it_shows_and_what_it_is_used_for(paper):
    source, shows, used = PAPERS[paper].strip().split("\n\n")
    surname, year = re.match(r"(?:[A-Z]\. )?(.+?)(?: et al\.| and .+)? (\d{4}): ", paper).groups()
    assert re.match(rf"(\w\. )+{surname}\b.*, \*[^*]+\*, {year}\. ", " ".join(source.split()))
    assert len(cited(source)) <= 1
    for number in cited(source):
        assert f"(https://arxiv.org/abs/{number})" in source
    assert 1 <= len(re.findall(r"[.?!](?=\s|$)", shows)) <= 3
    assert used.startswith("Used in [lesson ")
    assert all(name in SOURCES and name.startswith(number) for number, name in LESSON.findall(used))


def test_the_links_of_both_pages_lead_somewhere():
    for text in (GLOSSARY, BIBLIOGRAPHY):
        for link in links(text):
            name, _, anchor = link.partition("#")
            assert link.startswith("https://arxiv.org/abs/") or not name or (ROOT / "docs" / name).exists(), link
            assert not anchor or anchor in anchors(text), link


def test_a_citation_is_found_across_the_lines_of_a_source():
    assert cited("# (QLoRA, 2023, arXiv\n# 2305.14314) and arXiv 1902.00751, [arXiv 2005.00247](x)") == {
        "2305.14314", "1902.00751", "2005.00247",
    }  # fmt: skip
