"""The container that a hand-in runs in: what an engine is asked for, by a stand-in that notes its arguments.

What an engine makes of that, tests/test_grading.py tries where podman or Docker has the image.
"""

import os
import sys
from pathlib import Path

import pytest

CLASSROOM = Path(__file__).parents[1] / "classroom"
sys.path.insert(0, str(CLASSROOM))
import box  # noqa: E402
import container  # noqa: E402
import image  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers share sockets with us on Linux only")
ENGINE = """#!/bin/sh
printf '%s\\n' "$@" > "{notes}/$1"
case $1 in
    info) test ! -e "{notes}/refuse" || {{ echo "it is not running" >&2; exit 1; }} ;;
    image) test -e "{notes}/label" && cat "{notes}/label" ;;
    build) for context in "$@"; do :; done; ls "$context" > "{notes}/context"; test ! -e "{notes}/full" ||
        {{ echo "no space" >&2; exit 1; }} ;;
    ps) echo one two ;;
    run) while [ "$1" != adapters-lesson-grading ]; do shift; done; shift; exec "$@" ;;
esac
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A folder of notes: what each of a stand-in podman's commands was called with."""
    notes, programs = tmp_path / "notes", tmp_path / "bin"
    for folder in (notes, programs):
        folder.mkdir()
    (programs / "podman").write_text(ENGINE.format(notes=notes))
    (programs / "podman").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    usual = [folder for folder in os.environ["PATH"].split(":") if not Path(folder, "docker").exists()]
    monkeypatch.setenv("PATH", ":".join([str(programs), *usual]))
    return notes


@pytest.fixture
def folders(tmp_path):
    """The class's folder, the hand-in's own and the kernel's."""
    inside, folder = tmp_path / "class" / "autograded" / 'Zoë, "王"' / "lesson01", tmp_path / "own"
    for path in (inside, folder):
        path.mkdir(parents=True)
    return tmp_path / "class", inside, folder


def said(notes, command):
    return (notes / command).read_text().splitlines()


def test_a_hand_in_gets_its_two_folders_and_no_more_of_this_machine(engine, folders):
    root, inside, folder = folders
    (engine / "label").touch()
    made, why_not = container.find_box("auto", root, inside, folder, {"QUIET": "1"})
    assert (made.engine, made.python, why_not) == ("podman", "python", "")
    words = said(engine, "run")
    assert words == [*made.words[1:], *words[len(made.words) - 1 :]]
    quoted = str(inside).replace('"', '""')
    assert [word for word in words if word.startswith(("--mount", "--volume", "-v"))] == [
        f'--mount=type=bind,"src={folder}/hand-in","dst={quoted}"',
        f'--mount=type=bind,"src={folder}","dst={folder}"',
    ]
    wanted = "--network=none --read-only --pull=never --rm --cap-drop=ALL --security-opt=no-new-privileges --cpus=1"
    wanted += f" --memory={6 * 2**30} --memory-swap={6 * 2**30} --pids-limit=512 --env=QUIET=1 --env=HOME=/tmp"
    wanted += f" --ulimit=fsize={2**28}:{2**28} --ulimit=core=0:0 --ulimit=nproc=4096:4096 --ulimit=nofile=1024:1024"
    assert {word.replace("--cpus=2", "--cpus=1") for word in words} >= {*wanted.split(), f"--workdir={inside}"}
    assert not [word for word in words if "privileged" in word or word.startswith("--env=PATH")]


@pytest.mark.parametrize("account, user", [(0, "65534:65534"), (1234, "1234:77")])
def test_nobody_is_root_in_it(account, user, engine, folders, monkeypatch):
    (engine / "label").touch()
    monkeypatch.setattr(os, "getuid", lambda: account)
    monkeypatch.setattr(os, "getgid", lambda: 77)
    monkeypatch.setattr(container, "try_out", lambda *_: "")
    made, _ = container.container("podman", *folders[1:], {})
    assert f"--user={user}" in made.words and made.user == (None if account else box.NOBODY)
    assert ("--userns=keep-id" in made.words) == bool(account)


def test_an_engine_that_cannot_be_used_says_why(engine, folders, monkeypatch):
    assert container.container("docker", *folders[1:], {}) == (box.Box(), "there is no docker on this machine")
    assert container.container("podman", *folders[1:], {})[1] == "it has not the image, which make grade builds"
    (engine / "refuse").touch()
    assert container.container("podman", *folders[1:], {})[1] == "it is not running"
    assert container.find_box("podman", *folders, {}) == (box.Box(), "podman: it is not running")
    assert image.provide("docker") == "docker: there is no docker on this machine"
    assert image.provide("auto") == "podman: it is not running"
    assert image.provide("namespaces") == ""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "on Linux only" in container.container("podman", *folders[1:], {})[1]


def test_an_engine_that_does_not_share_our_files_is_not_taken(engine, folders):
    (engine / "label").touch()
    engine_file = engine.parent / "bin" / "podman"
    engine_file.write_text(engine_file.read_text().replace('exec "$@"', 'exec "$1" "$2" "$3" /nowhere'))
    assert "FileNotFoundError" in container.container("podman", *folders[1:], {})[1]


def test_the_image_is_built_once_for_a_version_from_the_wheel(engine, capsys):
    assert image.provide("auto", base="ours/python") == ""
    words = said(engine, "build")
    assert "--build-arg=BASE=ours/python" in words and f"--tag={container.IMAGE}" in words
    wheel, *others = sorted(said(engine, "context"), key=lambda name: not name.endswith(".whl"))
    assert wheel.startswith("adapters_lesson-") and others == ["Containerfile", "requirements.lock"]
    assert "podman builds the image" in capsys.readouterr().out
    (label,) = (word for word in words if word.startswith(f"--label={image.LABEL}="))
    (engine / "label").write_text(label.rpartition("=")[2])
    (engine / "build").unlink()
    assert image.provide("podman", base="ours/python") == ""
    assert not (engine / "build").exists() and capsys.readouterr().out == ""
    (engine / "full").touch()
    assert image.provide("podman") == "podman could not build the image: no space"  # another base


def test_nothing_of_a_hand_in_runs_on(engine, tmp_path):
    with box.lent(box.Box(engine="podman"), tmp_path / "own"):
        assert not (engine / "ps").exists()
    assert "--filter=label=hand-in=own" in said(engine, "ps")
    assert said(engine, "rm") == ["rm", "--force", "one", "two"]


def test_the_image_has_no_lessons_and_is_not_roots():
    text = (CLASSROOM / "Containerfile").read_text()
    assert (
        "print(NOTEBOOKS)" in text and "-name '*.ipynb' -delete" in text and text.rstrip().endswith("USER 65534:65534")
    )
