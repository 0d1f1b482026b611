"""JupyterHub for a class: the trial of `make hub` with two made-up learners, and the files for other hubs."""

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
import yaml
from browser import CHROMIUM, browser_page, run_all, wait_for_notebook
from packaging.specifiers import SpecifierSet
from test_environment import PROJECT, locked

ROOT = Path(__file__).parents[1]
HUB = ROOT / "classroom" / "hub"
LESSON = "01_the_bottleneck"
NAMES = ["learner01", "learner02"]

if sys.platform != "linux":
    pytest.skip("the classroom's hub is made for Linux", allow_module_level=True)
pytest.importorskip("jupyterhub", reason="make test-all runs these tests, in the environment .classroom")
pytestmark = pytest.mark.slow
sys.path.append(str(HUB))
import memory  # noqa: E402
import psutil  # noqa: E402
import requests  # noqa: E402
import singleuser  # noqa: E402
from learner import Learner  # noqa: E402
from links import link  # noqa: E402
from load_test import RESULTS, hold_minilm, report_class, report_each_lesson, visit  # noqa: E402
from traitlets.config import Config  # noqa: E402
from trial import CONFIG, INSTALL, PROXY, trial_hub  # noqa: E402


def runs_a_hub(test):
    """Not one of the fast tests: it starts servers and goes through a lesson."""
    return pytest.mark.notebook(pytest.mark.skipif(not PROXY.exists(), reason=INSTALL)(test))


def changed(folder, line):
    """A copy of the hub's configuration with one change."""
    ours = folder / "jupyterhub_config.py"
    ours.write_text(f"load_subconfig({str(CONFIG)!r})\nget_config().{line}\n")
    return ours


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A running hub for two learners and one in a browser. When it ends, all that it started has ended too."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        ours = changed(tmp_path_factory.mktemp("config"), "Spawner.args += ['--LabApp.expose_app_in_browser=True']")
        with trial_hub(tmp_path_factory.mktemp("hub"), len(NAMES) + 1, ours) as running:
            patch.undo()  # only the hub gets that home
            yield running
            processes = psutil.Process(running.pid).children(recursive=True)
        left = psutil.wait_procs(processes, timeout=30)[1]
        assert not left, [process.cmdline() for process in left]
        assert list(home.iterdir()) == [], "the trial keeps its things in one folder"


def the_teacher(hub):
    """The teacher, logged in."""
    teacher = Learner(hub.address, "teacher")
    teacher.login(re.search(r"as teacher with (\S+)\.$", (hub.state / "hub.log").read_text(), re.MULTILINE)[1])
    return teacher


@pytest.fixture(scope="module")
def visits(hub):
    """Both learners, after they have gone through lesson 01 at the same time."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        return list(pool.map(lambda name: visit(hub, name, LESSON), NAMES))


@runs_a_hub
def test_two_learners_go_through_lesson_01_side_by_side(hub, visits):
    committed = nbformat.read(ROOT / "notebooks" / f"{LESSON}.ipynb", as_version=4)
    cells = [cell for cell in committed.cells if cell.cell_type == "code" and cell.source.strip()]
    for seen in visits:
        assert seen.failed == ""
        assert [source for source, _ in seen.cells] == [cell.source for cell in cells]
        saved = nbformat.read(hub.state / "users" / seen.name / "notebooks" / f"{LESSON}.ipynb", as_version=4)
        ran = [cell for cell in saved.cells if cell.cell_type == "code" and cell.source.strip()]
        assert all(cell.execution_count for cell in ran)
        assert sum(bool(cell.outputs) for cell in ran) >= sum(bool(cell.outputs) for cell in cells) > 5


@runs_a_hub
def test_learners_share_the_environment_and_have_notebooks_of_their_own(hub, visits):
    for seen in visits:
        inside = seen.kernel.run("import os, sys; print(sys.prefix, os.getcwd(), sep='\\n')").text
        assert inside.splitlines() == [sys.prefix, str(hub.state / "users" / seen.name / "notebooks")]
    lessons = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name in NAMES:
        assert {path.name for path in (hub.state / "users" / name / "notebooks").glob("*.ipynb")} == lessons


@runs_a_hub
def test_a_kernel_gets_its_threads_and_a_limit_of_memory(visits):
    kernel = visits[0].kernel
    assert kernel.run("import os, torch; (torch.get_num_threads(), os.environ['RAYON_NUM_THREADS'])").text == "(1, '1')"
    assert kernel.run("import resource; resource.getrlimit(resource.RLIMIT_DATA)").text == f"({2**32}, {2**32})"
    assert kernel.run("many = bytearray(2**32)").complaints == ["MemoryError: "]
    (complaint,) = kernel.run("many = torch.ones(2**30)").complaints
    assert "can't allocate memory" in complaint
    assert (
        kernel.run("len(bytearray(2**29)), torch.ones(2**27).shape").complaints == []
    )  # alive, and with room for work


@runs_a_hub
def test_weights_are_shared_among_the_learners(hub, visits):
    for seen in visits:
        hold_minilm(seen)
        assert seen.failed == ""
    processes = memory.learners_processes(hub.pid)
    assert sorted(processes) == NAMES
    for _, (kernel,) in processes.values():
        weights = memory.of_file(kernel, "model.safetensors")
        assert weights["Rss"] > 80e6  # all of it is there
        assert weights["Pss"] < 0.55 * weights["Rss"]  # and is the other's too
        assert weights["Private"] == weights["Written"] == 0
        assert memory.of_process(kernel)["Rss"] > memory.of_process(kernel)["Pss"] > weights["Pss"]


@runs_a_hub
def test_a_learner_cannot_read_what_is_another_s(hub, visits):
    first, second = (seen.learner for seen in visits)
    first.api("PUT", "contents/diary.txt", {"type": "file", "format": "text", "content": "my own"})
    assert first.api("GET", "contents/diary.txt")["content"] == "my own"
    guest, stranger = Learner(hub.address, first.name), Learner(hub.address, first.name)
    guest.session = second.session  # the second learner, at the addresses of the first
    assert guest.session.get(f"{first.home}/lab", timeout=30).status_code == 403
    for path in ("contents/diary.txt", f"contents/notebooks/{LESSON}.ipynb", "kernels"):
        assert first.api("GET", path)
        with pytest.raises(requests.HTTPError, match="403"):
            guest.api("GET", path)
    server, _ = memory.learners_processes(hub.pid)[first.name]
    ports = {place.laddr.port for place in psutil.Process(server).net_connections() if place.status == "LISTEN"}
    path = f"user/{first.name}/api/contents/diary.txt"
    past_the_hub = [stranger.session.get(f"http://127.0.0.1:{port}/{path}", timeout=30) for port in ports]
    assert [answer.status_code for answer in past_the_hub] == [403]


@runs_a_hub
def test_the_teachers_tools_are_the_teachers(hub, visits):
    teacher = the_teacher(hub)
    teacher.spawn()
    for who, status, menu in ((visits[0].learner, 404, False), (teacher, 200, True)):
        assert who.session.get(f"{who.home}/formgrader", timeout=30).status_code == status
        page = who.session.get(f"{who.home}/lab", timeout=30).text
        config = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.+?)</script>', page, re.DOTALL)[1])
        there = {extension["name"] for extension in config["federated_extensions"]}
        assert "@jupyter/nbgrader" in there  # else nothing would be hidden
        assert ("@jupyter/nbgrader" not in config.get("disabledExtensions", [])) == menu


def press(who, learner, choice):
    """Choose on a learner's page whether to share; returns the answer."""
    token = re.search(r'name="_xsrf" value="([^"]+)"', learner.session.get(f"{learner.home}/share", timeout=30).text)[1]
    return who.session.post(f"{learner.home}/share", {"_xsrf": token, "share": choice}, timeout=30)


def wait_for(look, words):
    """Look until these words are there; returns what is seen."""
    until = time.monotonic() + 30
    while words not in (seen := look()):
        assert time.monotonic() < until, f"{words} is not in {seen}"
        time.sleep(0.5)
    return seen


@runs_a_hub
def test_the_live_view_shows_those_who_share_to_the_teacher(hub, visits):
    (ada, kernel), (_, other) = ((seen.learner, seen.kernel) for seen in visits)
    teacher, place = the_teacher(hub), f"{hub.address}/services/live/"

    def look():
        answer = teacher.session.get(place, timeout=30)
        assert answer.status_code == 200
        return answer.text

    for one in (kernel, other):
        one.run("from adapters_lesson.course.checks import lesson01")
        assert "✘ 1.3" in one.run("lesson01.check_count(lambda d, m: 1 / 0)").text
    wait_for(look, "Nobody shares now")
    for part in ("", "tables"):
        assert ada.session.get(f"{place}{part}", timeout=30).status_code == 403
    would = ada.session.get(f"{ada.home}/share", timeout=30).text
    assert "You do not share." in would and "your code raised ZeroDivisionError" in would
    assert "You share now." in press(ada, ada, "on").text
    shown = wait_for(look, "learner01")
    assert "your code raised ZeroDivisionError" in shown and "1.3 " in shown
    assert "learner02" not in shown

    (secret,) = kernel.run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").text.split()
    mine = {"Authorization": f"token {secret}"}
    assert requests.get(place, headers=mine, timeout=30).status_code == 403, "a learner's token is no key to the page"
    for key in ({}, {"Authorization": "token guessed"}):
        assert requests.put(f"{place}report", "{}", headers=key, timeout=30).status_code == 403
        assert requests.delete(f"{place}report", headers=key, timeout=30).status_code == 403
    assert "learner01" in look()

    record = hub.state / "users" / "learner01" / "notebooks" / "progress.json"
    good = record.read_text()
    record.write_text('{"exercises": {"1.3": "<script>"}}')
    shown = wait_for(look, "progress.json was altered, or is damaged")
    assert "<script>alert" not in shown and "ZeroDivisionError" not in shown
    record.write_text(good)
    wait_for(look, "your code raised ZeroDivisionError")

    assert press(teacher, ada, "off").status_code == 403, "only the learner decides"
    assert "learner01" in look()
    assert "You do not share." in press(ada, ada, "off").text
    assert "Nobody shares now" in look()
    assert not list((hub.state / "users").glob("*/share_with_teacher.txt"))


@runs_a_hub
def test_a_report_that_is_none_is_told_to_the_teacher_and_the_sender(hub, visits):
    kernel, place, teacher = visits[1].kernel, f"{hub.address}/services/live/", the_teacher(hub)
    (secret,) = kernel.run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").text.split()
    mine = {"Authorization": f"token {secret}"}
    sent = '{"exercises": {"1.3": {"done": false, "at": 1, "said": "<b>hello</b>", "times": 1}}}'
    answer = requests.put(f"{place}report", sent, headers=mine, timeout=30)
    assert (answer.status_code, answer.text) == (400, "its exercise 1.3 has a sentence that no check says")
    assert requests.put(f"{place}report", sent, headers=mine, timeout=30).status_code == 429
    shown = teacher.session.get(place, timeout=30).text
    assert re.search(r"learner02.*cannot be used: its exercise 1.3 has a sentence that no check says", shown)
    assert "hello" not in shown
    with suppress(requests.ConnectionError):  # it may hang up before all has come
        assert requests.put(f"{place}report", " " * 10**6, headers=mine, timeout=30).status_code in (400, 413, 503)
    requests.delete(f"{place}report", headers=mine, timeout=30).raise_for_status()
    assert "Nobody shares now" in teacher.session.get(place, timeout=30).text


@runs_a_hub
def test_only_the_learners_get_in_and_only_with_the_password(hub):
    with pytest.raises(PermissionError, match="does not let a_stranger in: 403"):
        hub.learner("a_stranger")
    with pytest.raises(PermissionError, match="does not let learner01 in: 403"):
        Learner(hub.address, "learner01").login("guessed")


@runs_a_hub
def test_the_hub_listens_on_this_machine_only(hub):
    everything = [psutil.Process(hub.pid), *psutil.Process(hub.pid).children(recursive=True)]
    places = [place.laddr.ip for process in everything for place in process.net_connections("inet")]
    assert len(places) > 3
    assert set(places) <= {"127.0.0.1", "::ffff:127.0.0.1"}


@runs_a_hub
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sudo apt install chromium, or install Google Chrome")
def test_a_learner_in_a_real_browser(hub):
    seen, name = [], "learner03"
    with browser_page(seen) as page:
        page.goto(hub.address)
        page.fill("[name=username]", name)
        page.fill("[name=password]", (hub.state / "password").read_text())
        page.click("[type=submit]")
        wait_for_notebook(page, "notebooks/00_start_here.ipynb")
        page.goto(f"{hub.address}/user/{name}/lab/tree/notebooks/{LESSON}.ipynb")
        wait_for_notebook(page, f"notebooks/{LESSON}.ipynb")
        run_all(page)
    assert seen == []


@runs_a_hub
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sudo apt install chromium, or install Google Chrome")
def test_a_learner_shares_in_a_real_browser_and_the_teacher_s_page_renews_itself(hub):
    seen = []

    def enter(page, name, password, path):
        page.goto(f"{hub.address}/hub/login?next={path}")
        page.fill("[name=username]", name)
        page.fill("[name=password]", password)
        page.click("[type=submit]")

    said = re.search(r"as teacher with (\S+)\.$", (hub.state / "hub.log").read_text(), re.MULTILINE)[1]
    with browser_page(seen) as learners:
        enter(learners, "learner03", (hub.state / "password").read_text(), "/hub/user-redirect/share")
        learners.wait_for_selector("text=You do not share.", timeout=120_000)
        teachers = learners.context.browser.new_context().new_page()
        teachers.on("console", lambda message: seen.append(message.text))
        enter(teachers, "teacher", said, "/services/live/")
        teachers.wait_for_selector("text=Nobody shares now")
        learners.click("text=Share with my teacher")
        learners.wait_for_selector("text=You share now.")
        teachers.wait_for_selector("th:has-text('learner03')", timeout=30_000)  # of itself
        assert teachers.inner_text("#when").startswith("As of ")
        teachers.check("#pause")
        learners.click("text=Stop sharing")
        learners.wait_for_selector("text=You do not share.")
        teachers.wait_for_timeout(6_000)
        assert teachers.is_visible("th:has-text('learner03')")
        teachers.uncheck("#pause")
        teachers.wait_for_selector("text=Nobody shares now", timeout=15_000)
    assert seen == []


@runs_a_hub
def test_lab_asks_for_no_news_and_installs_no_extensions(visits):
    learner = visits[0].learner
    address = f"{learner.home}/lab/api/settings/@jupyterlab/apputils-extension:notification"
    settings = learner.session.get(address).json()["schema"]["properties"]
    assert (settings["fetchNews"]["default"], settings["checkForUpdates"]["default"]) == ("false", False)
    assert '"extensionManager": {"can_install": false' in learner.session.get(f"{learner.home}/lab").text


@runs_a_hub
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_link_brings_the_lessons_and_keeps_what_the_learner_changed(hub, visits, tmp_path):
    origin, learner = tmp_path / "origin", visits[0].learner
    lesson, other = origin / "notebooks" / "01_one.ipynb", origin / "notebooks" / "02_two.ipynb"
    lesson.parent.mkdir(parents=True)
    lesson.write_text("the lesson")

    def git(*arguments):
        name = ["-c", "user.name=A teacher", "-c", "user.email=teacher@example.org"]
        subprocess.run(["git", *name, *arguments], cwd=origin, check=True, capture_output=True)

    def click():
        page = learner.session.get(link(hub.address, f"file://{origin}", "main", "01_one"))
        assert page.url.startswith(f"{learner.home}/git-pull?"), "the hub sends the learner to their own server"
        assert "lab/tree/adapters-lesson/notebooks/01_one.ipynb" in page.text
        wanted = {"repo": f"file://{origin}", "branch": "main", "targetpath": "adapters-lesson"}
        return learner.session.get(f"{learner.home}/git-pull/api", params=wanted).text

    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "one")
    assert '{"phase": "finished"}' in click()
    copy = hub.state / "users" / learner.name / "adapters-lesson" / "notebooks"
    assert (copy / "01_one.ipynb").read_text() == "the lesson"
    (copy / "01_one.ipynb").write_text("the lesson, with my answers")
    lesson.write_text("the lesson, corrected")
    other.write_text("another")
    git("add", ".")
    git("commit", "-m", "two")
    assert '{"phase": "finished"}' in click()
    assert (copy / "01_one.ipynb").read_text() == "the lesson, with my answers"
    assert (copy / "02_two.ipynb").read_text() == "another"


@runs_a_hub
def test_idle_servers_are_stopped(tmp_path):
    ours = changed(tmp_path, "JupyterHub.services[0]['command'][-2:] = ['--timeout=2', '--cull-every=1']")
    with trial_hub(tmp_path / "hub", 1, ours) as hub:
        hub.learner("learner01").spawn()
        server, _ = memory.learners_processes(hub.pid)["learner01"]
        psutil.Process(server).wait(60)
        said = (hub.state / "hub.log").read_text()
    assert "Traceback" not in said
    assert re.search(r"IdleCuller.*\] Culling server learner01", said)


def test_lessons_are_copied_once_and_never_overwritten(tmp_path):
    copies = singleuser.copy_lessons(tmp_path / "notebooks")
    assert [copy.name for copy in copies] == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    mine, lost = copies[1], copies[2]
    mine.write_text("my answers")
    lost.unlink()
    assert singleuser.copy_lessons(tmp_path / "notebooks") == [lost]
    assert mine.read_text() == "my answers"
    assert lost.read_bytes() == (ROOT / "notebooks" / lost.name).read_bytes()


def test_a_copy_can_be_written_where_the_course_cannot(tmp_path, monkeypatch):
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "01.ipynb").write_text("a lesson")
    (tmp_path / "course" / "01.ipynb").chmod(0o444)
    monkeypatch.setattr(singleuser, "LESSONS", tmp_path / "course")
    (copy,) = singleuser.copy_lessons(tmp_path / "home")
    assert copy.stat().st_mode & 0o200


def test_a_hub_without_live_view_has_no_page_to_share(tmp_path, monkeypatch):
    monkeypatch.delenv("ADAPTERS_LESSON_LIVE", raising=False)
    assert singleuser.may_share() == []
    off = tmp_path / "jupyterhub_config.py"
    off.write_text(CONFIG.read_text().replace("LIVE_VIEW = True", "LIVE_VIEW = False"))
    config = configuration(off, monkeypatch, ADAPTERS_LESSON_HUB_STATE=str(tmp_path))
    assert [service["name"] for service in config.JupyterHub.services] == ["idle-culler"]
    assert "ADAPTERS_LESSON_LIVE" not in config.Spawner.environment


def configuration(path, monkeypatch, **variables):
    """What a configuration of JupyterHub sets."""
    for name in ("ADAPTERS_LESSON_HUB", "ADAPTERS_LESSON_HUB_STATE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = Config()
    runpy.run_path(str(path), init_globals={"get_config": lambda: config})
    return config


def test_a_class_gets_nothing_of_the_trial(tmp_path, monkeypatch):
    state = {"ADAPTERS_LESSON_HUB_STATE": str(tmp_path)}
    ours = configuration(CONFIG, monkeypatch, **state)
    trial = configuration(CONFIG, monkeypatch, ADAPTERS_LESSON_HUB="trial", **state)
    assert ours.JupyterHub.authenticator_class == "pam"
    assert ours.JupyterHub.spawner_class in ("localprocess", "systemdspawner.SystemdSpawner")
    assert trial.JupyterHub.authenticator_class == "shared-password"
    assert trial.JupyterHub.spawner_class == "simple"
    assert not {"SharedPasswordAuthenticator", "SimpleLocalProcessSpawner"} & set(ours)
    for one in (ours, trial):
        assert one.Spawner.environment.pop("ADAPTERS_LESSON_LIVE").startswith("http://127.0.0.1:")
    for name in ("cmd", "args", "environment", "mem_limit"):
        assert ours.Spawner[name] == trial.Spawner[name], "what holds for learners is tried in the trial"
    (culler, live), (our_culler, our_live) = trial.JupyterHub.services, ours.JupyterHub.services
    assert our_culler == culler
    assert our_live | {"url": live["url"]} == live, "it has a port of its own"


def test_other_hubs_start_learners_servers_as_the_trial_does(tmp_path, monkeypatch):
    trial = configuration(CONFIG, monkeypatch, ADAPTERS_LESSON_HUB_STATE=str(tmp_path))
    tljh = configuration(HUB / "tljh_config.py", monkeypatch)
    values = yaml.safe_load((HUB / "values.yaml").read_text())["singleuser"]
    variables = trial.Spawner.environment
    assert variables.pop("ADAPTERS_LESSON_NOTEBOOKS") == "notebooks"  # what singleuser.py takes, too
    environments = [trial.Spawner.environment, tljh.Spawner.environment, values["extraEnv"]]
    places = [urlsplit(environment.pop("ADAPTERS_LESSON_LIVE")) for environment in environments]
    assert {place.path for place in places} == {"/services/live/"}
    assert tljh.Spawner.environment == values["extraEnv"] == variables
    assert tljh.Spawner.default_url == values["defaultUrl"] == trial.Spawner.default_url
    assert values["memory"]["limit"] == trial.Spawner.mem_limit
    for python, script in (tljh.Spawner.cmd, values["cmd"]):
        assert Path(python).name == "python"
        assert (ROOT / Path(script).relative_to("/srv/adapters-lesson")).is_file()


def test_the_cluster_s_live_view_starts_with_its_variables_alone(tmp_path):
    (container,) = yaml.safe_load((HUB / "values.yaml").read_text())["hub"]["extraContainers"]
    variables = {one["name"]: one.get("value", "made by the chart") for one in container["env"]}
    assert (ROOT / Path(variables["PYTHONPATH"]).relative_to("/srv/adapters-lesson")).is_dir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    changed = {"PYTHONPATH": str(HUB / "live"), "JUPYTERHUB_SERVICE_URL": address, "PATH": os.environ["PATH"]}
    log = tmp_path / "log"
    with log.open("w") as output:
        command = [sys.executable, *container["command"][1:]]
        service = subprocess.Popen(command, env=variables | changed, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 60
        while service.poll() is None and time.monotonic() < until:
            with suppress(requests.ConnectionError):
                answer = requests.get(f"{address}/services/live/", allow_redirects=False, timeout=30)
                break
            time.sleep(0.2)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/hub/api/oauth2/authorize")
        assert requests.put(f"{address}/services/live/report", "{}", timeout=30).status_code == 403
    finally:
        service.terminate()
        service.wait(30)


def test_the_image_is_made_of_files_and_versions_that_are_there():
    text = (HUB / "Dockerfile").read_text()
    python = re.search(r"^FROM python:(\S+)-slim$", text, re.MULTILINE)[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert re.search(r"^ARG JUPYTERHUB=(\S+)$", text, re.MULTILINE)[1] == version("jupyterhub")
    assert [str(found) for found in locked()["jupyterhub"]] == [version("jupyterhub")]
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    needed = {"pyproject.toml", "requirements.lock", "adapters_lesson", "data", "notebooks", PROJECT["readme"]}
    assert needed | set(PROJECT["license-files"]) <= set(copied)


def test_nobody_gets_into_the_cluster_s_hub_before_an_authenticator_is_chosen():
    config = yaml.safe_load((HUB / "values.yaml").read_text())["hub"]["config"]
    assert config["JupyterHub"]["authenticator_class"] == "null"


def test_a_link_can_be_clicked_by_every_learner():
    address = link("https://hub.example.org/", "https://git.example.org/a course", "main", LESSON)
    assert address == (
        "https://hub.example.org/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgit.example.org%2Fa+course&branch=main"
        "&targetpath=adapters-lesson&urlpath=lab%2Ftree%2Fadapters-lesson%2Fnotebooks%2F01_the_bottleneck.ipynb"
    )


def test_nobody_failed_in_the_committed_measurements_and_the_readme_shows_them():
    load, lessons = (json.loads((RESULTS / name).read_text()) for name in ("hub_load.json", "hub_lessons.json"))
    assert (load["learners"], load["finished"], load["cores"], load["failed"]) == (20, 20, 2, {})
    weights = load["memory_mb"]["each with all of MiniLM"]["weights"]
    assert weights["Rss"]["median"] > 80
    assert weights["Pss"]["worst"] < weights["Rss"]["median"] / 10
    assert weights["Written"]["worst"] == 0
    assert lessons["failed"] == {}
    assert list(lessons["lessons"]) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    readme = (HUB / "README.md").read_text()
    assert "\n".join(report_class(load)) in readme
    assert "\n".join(report_each_lesson(lessons)) in readme
