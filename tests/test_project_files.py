"""What a project has beside its code: licences file by file, workflows, and what citing and indexing programs read."""

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from test_environment import PROJECT, ROOT, tomllib

from adapters_lesson.course.lesson_source import course

REUSE = tomllib.loads((ROOT / "REUSE.toml").read_text(encoding="utf-8"))["annotations"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS_OF_ALL = (
    "README.md",
    "TEACHING.md",
    "TUTOR.md",
    "classroom/GRADING.md",
    "docs/glossary.md",
    "data/aspects/DATASHEET.md",
)


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def licence_of(path):
    """What REUSE.toml says of a file: the last entry whose pattern fits; ** and * both pass a slash here."""
    fitting = [
        one
        for one in REUSE
        if any(fnmatch(path, pattern.replace("**.", "*.").replace("**", "*")) for pattern in one["path"])
    ]
    return fitting[-1]["SPDX-License-Identifier"]


def test_each_licence_that_is_named_is_there_whole_and_each_that_is_there_is_named():
    named = {name for one in REUSE for name in one["SPDX-License-Identifier"].split(" AND ")}
    there = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "LICENSES").iterdir()}
    assert set(there) == named
    assert there["Apache-2.0"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert min(map(len, there.values())) > 6000


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        *((path, "CC-BY-4.0") for path in TEXTS_OF_ALL),
        *((path, "CC-BY-4.0") for path in ("notebooks/figures/course.svg", "notebooks/quizzes/01.json")),
        *((path, "CC0-1.0") for path in ("data/aspects/train.csv", "data/answers/train.csv", "data/answers/prose.txt")),
        *(
            (path, "Apache-2.0")
            for path in ("adapters_lesson/adapter.py", "tests/size.py", "docs/build.py", "Makefile")
        ),
        ("notebooks/solutions/01_the_bottleneck.ipynb", "Apache-2.0 AND CC-BY-4.0"),
        ("notebooks/sources/01_the_bottleneck.py", "Apache-2.0 AND CC-BY-4.0"),
    ],
)
def test_a_file_has_the_licence_that_the_words_give_it(path, licence):
    assert (ROOT / path).exists()
    assert licence_of(path) == licence


@pytest.mark.skipif(shutil.which("reuse") is None, reason="reuse is not installed: pip install reuse")
def test_reuse_has_nothing_to_say():
    assert subprocess.run(["reuse", "lint", "--quiet"], cwd=ROOT, check=False).returncode == 0


def test_the_tests_run_on_three_systems_and_each_python_that_is_allowed():
    matrix = read(".github/workflows/tests.yml")["jobs"]["fast"]["strategy"]["matrix"]
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert matrix["python"] == [f"3.{minor}" for minor in range(15) if f"3.{minor}" in allowed]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_but_where_it_publishes_and_knows_no_secret(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    writing = {name for name, job in workflow["jobs"].items() if "write" in str(job.get("permissions"))}
    assert writing <= {"publish"}
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert all("timeout-minutes" in job for name, job in workflow["jobs"].items() if name != "publish")


def test_the_commands_of_the_workflows_name_files_and_targets_that_there_are():
    said = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    for path in re.findall(r"python (?!-)(\S+\.py)|run: (\.ci/\S+)|constraints (\S+)", said):
        assert (ROOT / "".join(path)).exists(), path
    for extras in re.findall(r'"\.\[([\w,]+)\]"', said):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_a_report_can_name_each_lesson():
    form = read(".github/ISSUE_TEMPLATE/lesson.yml")
    assert {field["id"] for field in form["body"]} >= {"lesson", "seen", "platform"}
    (lessons,) = (field["attributes"]["options"] for field in form["body"] if field["id"] == "lesson")
    assert {row["lesson"][:2] for row in course()} <= set(lessons)


def test_citing_and_indexing_programs_read_the_same():
    cited, indexed = read("CITATION.cff"), json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    assert cited["version"] == indexed["version"] == PROJECT["version"]
    assert [f"https://spdx.org/licenses/{name}" for name in cited["license"]] == indexed["license"]
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in indexed["author"]]
    assert cited["keywords"] == indexed["keywords"]
    assert " ".join(cited["abstract"].split()) == indexed["description"]
    assert f"{cited['date-released']}" == indexed["dateModified"] > indexed["dateCreated"]


@pytest.mark.skipif(shutil.which("cffconvert") is None, reason="cffconvert is not installed: pip install cffconvert")
def test_the_citation_is_valid():
    command = ["cffconvert", "--validate", "--infile", "CITATION.cff"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_tutors_instructions_forbid_solutions_and_name_exercises_that_there_are():
    text = (ROOT / "TUTOR.md").read_text(encoding="utf-8")
    assert "Write the solution of an exercise" in text.partition("## You may not")[2].partition("## The ladder")[0]
    cards = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks" / "sources").glob("*.py"))
    for exercise in re.findall(r"\((\d+\.\d)[,)]", text):
        assert f"### Exercise {exercise} " in cards
    for path in re.findall(r"`((?:notebooks|data|adapters_lesson)/[\w/]+/)`", text):
        assert (ROOT / path).is_dir() or path == "notebooks/mine/"


def test_the_review_checklist_names_files_that_there_are_and_hides_nothing_that_is_open():
    text = (ROOT / "paper" / "review_checklist.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    items = [row for row in rows[1:] if not row[0].startswith("**")]
    assert {row[1] for row in items} == {"yes", "partly", "open"}
    for name in re.findall(r"`([\w./]+[./]\w*)`", text):
        assert (ROOT / name).exists(), name
    state = {row[0].partition(":")[0].partition(" with")[0]: row[1] for row in items}
    named = any("family-names" in author for author in read("CITATION.cff")["authors"])
    assert (state["Authorship"] == state["Authors"] == "yes") == named
    cited = set(re.findall(r"@(\w+)[;\]]", (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")))
    entries = re.split(r"^@\w+\{", (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert {entry.partition(",")[0] for entry in entries} == cited
    assert [entry.partition(",")[0] for entry in entries if "doi = {10." not in entry] == ["peft"]
