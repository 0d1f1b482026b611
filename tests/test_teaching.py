"""TEACHING.md: its minutes, clock times, seconds, numbers, messages and links agree with the course."""

import csv
import json
import re
from pathlib import Path

import pytest

from adapters_lesson.lab.anatomy import draw_anatomy
from adapters_lesson.lab.cost import draw_cost
from adapters_lesson.lab.drop import draw_drop
from adapters_lesson.lab.placement import draw_placement

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
COURSE = list(csv.DictReader((ROOT / "notebooks" / "course.csv").read_text(encoding="utf-8").splitlines()))
SECTIONS = dict(re.findall(r"^### (\d\d) · .+?\n(.+?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
PARTS = ("Say", "Stall", "Ask", "Show", "Shorter")
CLOCK = re.compile(r"^\| (\d+):(\d\d)–(\d+):(\d\d) \| (\d+) \| (.+?) \|(.*)\|(.*)\|$")


def plans():
    """For each table with clock times: its rows as (from, to, minutes, part), in minutes from the beginning."""
    tables = [[]]
    for line in TEXT.splitlines():
        if row := CLOCK.match(line):
            start, end = 60 * int(row[1]) + int(row[2]), 60 * int(row[3]) + int(row[4])
            tables[-1].append((start, end, int(row[5]), row[6]))
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def test_every_lesson_has_a_section_with_its_title_and_minutes():
    headings = re.findall(r"^### (\d\d · .+)$", TEXT, re.MULTILINE)
    assert headings == [f"{row['lesson'][:2]} · {row['title']} ({row['minutes']} minutes)" for row in COURSE]
    for number, section in SECTIONS.items():
        parts = tuple(re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE))
        assert parts == (PARTS if number != "00" else ("Say", "Stall", "Show", "Shorter"))


@pytest.mark.parametrize("number", [row["lesson"][:2] for row in COURSE[1:]])
def test_a_lesson_has_three_questions_with_the_answers_people_give(number):
    asked = SECTIONS[number].partition("**Ask.**")[2].partition("**Show.**")[0]
    questions = [" ".join(question.split()) for question in re.split(r"^- ", asked, flags=re.MULTILINE)[1:]]
    assert len(questions) == 3
    for question in questions:
        assert re.match(r"\*[^*]+[?.]\* \S", question)


def test_the_glance_has_the_minutes_and_about_the_measured_seconds():
    rows = re.findall(r"^\| (\d\d) (.+?) \| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)
    assert [(n, title, minutes) for n, title, minutes, _ in rows] == [
        (row["lesson"][:2], row["title"], row["minutes"]) for row in COURSE
    ]
    times = json.loads((ROOT / "data" / "results" / "lesson_times.json").read_text(encoding="utf-8"))
    assert times["command"] in TEXT and times["cores"] == 2
    for (_, title, _, seconds), row in zip(rows, COURSE, strict=True):
        measured = times["seconds"][row["lesson"]]
        assert abs(int(seconds) - measured) <= max(10, 0.3 * measured), f"{title}: {measured} seconds were measured"


def test_the_plans_rows_follow_each_other_and_fill_their_time():
    assert [table[-1][1] for table in plans()] == [90, 240, 120, 120, 120, 120]
    for table in plans():
        assert table[0][0] == 0
        assert [row[1] for row in table[:-1]] == [row[0] for row in table[1:]]
        assert all(end - start == minutes for start, end, minutes, _ in table)


def test_the_plans_name_parts_that_the_lessons_have():
    for _, _, _, part in (row for table in plans() for row in table):
        for number, rest in re.findall(r"(?:^|; |, or )(\d\d)\b([^;]*)", part):
            (source,) = (ROOT / "notebooks" / "sources").glob(f"{number}_*.py")
            for name in re.findall(r"\*([^*]+)\*", rest):
                assert f"# ## {name}" in source.read_text(encoding="utf-8"), f"{number} has no part {name}"


@pytest.mark.parametrize("number", [row["lesson"][:2] for row in COURSE[1:]])
def test_the_exercises_and_parts_of_a_section_are_in_the_lesson(number):
    (source,) = (ROOT / "notebooks" / "sources").glob(f"{number}_*.py")
    lesson = source.read_text(encoding="utf-8")
    section = " ".join(SECTIONS[number].split())
    exercises = {
        name for name in re.findall(r"\b(\d+\.\d)\b(?! [%GB])", section) if name.split(".")[0] == str(int(number))
    }
    assert exercises <= set(re.findall(r"### Exercise (\d+\.\d)", lesson))
    for name in re.findall(r"\*([^*]+)\*", section.partition("**Shorter.**")[2]):
        assert f"# ## {name}" in lesson, name


def joined(path):
    """A file's text with neighbouring strings put together, so that a message is found wherever its lines break."""
    text = re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
    return " ".join(text.replace("\n# ", "\n").split())


@pytest.mark.parametrize("number", [row["lesson"][:2] for row in COURSE[1:]])
def test_the_messages_quoted_are_those_that_learners_read(number):
    (source,) = (ROOT / "notebooks" / "sources").glob(f"{number}_*.py")
    checks = ROOT / "adapters_lesson" / "checks"
    known = "\n".join(map(joined, [source, *sorted(checks.glob("*.py"))]))
    quoted = re.findall(r"“([^”]+)”", " ".join(SECTIONS[number].split()))
    assert quoted or number == "06"
    for message in quoted:
        assert message in known, message


def test_the_explorers_show_what_the_page_promises():
    costs = {"architecture": "llama-3-8b", "method": "adapter", "placement": "houlsby", "bottleneck_dim": 64,
             "lora_rank": 8, "batch_size": 4, "length": 512, "dtype": "bf16", "optimizer": "adamw",
             "checkpointing": False, "tasks": 9}  # fmt: skip
    promises = [
        ("01", draw_anatomy(bottleneck_dim=8), ["6,536", "8"]),
        ("01", draw_anatomy(), ["49,600", "5.6 %", "0.60 %"]),
        ("01", draw_anatomy(model_dim=4096), ["0.52 %"]),
        ("01", draw_anatomy(activation="relu"), ["27"]),
        ("03", draw_placement("houlsby"), ["0.53 %"]),
        ("03", draw_placement("parallel"), ["0.27 %"]),
        ("04", draw_cost(**costs), ["60.0 GB", "25.6 GB"]),
        ("04", draw_cost(**costs | {"length": 8192}), ["258 GB", "181 GB", "70 %"]),
        ("04", draw_cost(**costs | {"length": 8192, "bottleneck_dim": 1}), ["180 GB"]),
        ("04", draw_cost(**costs | {"length": 8192, "checkpointing": True}), ["31.5 GB"]),
        ("04", draw_cost(**costs | {"optimizer": "sgd"}), ["30.0 GB", "25.4 GB"]),
        ("04", draw_cost(**costs | {"architecture": "llama-3-70b"}), ["139 GB"]),
        ("09", draw_drop(0, "robust", 8), ["99.2"]),
        ("09", draw_drop(2, "robust", 8), ["98.2 %", "71 %"]),
        ("09", draw_drop(3, "robust", 8), ["87.8 %"]),
    ]
    for number, picture, numbers in promises:
        for text in numbers:
            assert text in picture.alt and text in " ".join(SECTIONS[number].split()), (number, text)


def test_the_page_leads_to_the_other_pages_for_teachers():
    # That they are there is a matter for test_links.py.
    assert {"classroom/GRADING.md", "classroom/hub/README.md"} <= set(re.findall(r"\]\(([^)#:]+)\)", TEXT))


def test_the_commands_named_are_targets_of_make():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets
