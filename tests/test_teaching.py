"""TEACHING.md: its clock times, seconds, numbers and messages agree with the course (its parts: test_lessons.py)."""

import json
import re
from pathlib import Path

import pytest
from artists import drawn

from adapters_lesson.course.explorers import anatomy_explorer, placement_explorer
from adapters_lesson.course.explorers.explore_cost import draw_cost
from adapters_lesson.course.explorers.explore_drop import draw_drop

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py"))
SECTIONS = dict(re.findall(r"^### (\d\d) · .+?\n(.+?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
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


def test_the_glance_has_about_the_measured_seconds():
    rows = re.findall(r"^\| (\d\d) .+? \| \d+ \| (\d+) \|", TEXT, re.MULTILINE)
    assert [number for number, _ in rows] == [source.stem[:2] for source in SOURCES]
    times = json.loads((ROOT / "data" / "results" / "lesson_times.json").read_text(encoding="utf-8"))
    assert times["command"] in TEXT and times["cores"] == 2
    for (_, seconds), source in zip(rows, SOURCES, strict=True):
        measured = times["seconds"][source.stem]
        assert abs(int(seconds) - measured) <= max(10, 0.3 * measured), f"{source.stem}: {measured} seconds"


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


@pytest.mark.parametrize("number", [source.stem[:2] for source in SOURCES[1:]])
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


@pytest.mark.parametrize("number", [source.stem[:2] for source in SOURCES[1:]])
def test_the_messages_quoted_are_those_that_learners_read(number):
    (source,) = (ROOT / "notebooks" / "sources").glob(f"{number}_*.py")
    checks = ROOT / "adapters_lesson" / "course" / "checks"
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
        ("01", drawn(anatomy_explorer(), bottleneck_dim=8), ["6,536", "8"]),
        ("01", drawn(anatomy_explorer()), ["49,600", "5.6 %", "0.60 %"]),
        ("01", drawn(anatomy_explorer(), model_dim=4096), ["0.52 %"]),
        ("01", drawn(anatomy_explorer(), activation="relu"), ["27"]),
        ("03", drawn(placement_explorer(), placement="houlsby"), ["0.53 %"]),
        ("03", drawn(placement_explorer(), placement="parallel"), ["0.27 %"]),
        ("04", draw_cost(**costs), ["60.1 GB", "25.6 GB"]),
        ("04", draw_cost(**costs | {"length": 8192}), ["259 GB", "181 GB", "70 %"]),
        ("04", draw_cost(**costs | {"length": 8192, "bottleneck_dim": 1}), ["180 GB"]),
        ("04", draw_cost(**costs | {"length": 8192, "checkpointing": True}), ["31.7 GB"]),
        ("04", draw_cost(**costs | {"optimizer": "sgd"}), ["30.0 GB", "25.4 GB"]),
        ("04", draw_cost(**costs | {"architecture": "llama-3-70b"}), ["139 GB"]),
        ("09", draw_drop(0, "robust", 8), ["99.2"]),
        ("09", draw_drop(2, "robust", 8), ["98.2 %", "71 %"]),
        ("09", draw_drop(3, "robust", 8), ["87.8 %"]),
    ]
    for number, picture, numbers in promises:
        for text in numbers:
            assert text in picture.alt and text in " ".join(SECTIONS[number].split()), (number, text)


def test_the_commands_named_are_targets_of_make():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets
