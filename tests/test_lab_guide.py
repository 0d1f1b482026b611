"""The guided experiments: a prediction first, then the run, then the reveal."""

import re
from dataclasses import replace
from pathlib import Path

import lab_stand_ins
import pytest
from matplotlib.figure import Figure

from adapters_lesson.course.laboratory import laboratory as laboratory_module
from adapters_lesson.course.laboratory.experiments import SWEEPS, Settings
from adapters_lesson.course.laboratory.guide import TITLES, Guide, committed_runs
from adapters_lesson.course.laboratory.laboratory import Laboratory
from adapters_lesson.course.laboratory.run_figures import Beforehand, runs_figure
from adapters_lesson.course.quiz import load_quiz
from adapters_lesson.history import load_results

SOURCES = Path(__file__).parents[1] / "notebooks" / "sources"


@pytest.fixture
def guide(tmp_path, monkeypatch):
    lab_stand_ins.use(monkeypatch)
    made = Guide(Laboratory(tmp_path))
    yield made
    laboratory = next(iter(made.experiments.values())).laboratory
    laboratory.stop()
    if laboratory.job is not None:
        laboratory.job.join(10)


def text(widget):
    return re.sub(r"<[^>]+>", "", widget.value)


def test_there_are_four_and_each_has_its_sweep(guide):
    assert list(guide.experiments) == list(TITLES)
    assert set(TITLES) < set(SWEEPS)
    assert [guide.tabs.get_title(i) for i in range(5)] == ["m?", "blocks?", "activation?", "steps?", "your own"]


def everything(widget):
    """A widget with all that stands in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def test_the_whole_laboratory_stands_in_the_same_view(guide):
    laboratory = guide.experiments["depth"].laboratory
    shown = list(everything(guide))
    buttons = ("run_button", "reset_button", "pause_button", "stop_button", "sweep_button")
    others = ("seeds", "swept", "over", "bar", "message", "image", "axis", "status", "table", "extra")
    parts = [getattr(laboratory, name) for name in buttons + others]
    for part in (*laboratory.knobs.values(), *parts, *laboratory.tools.values()):
        assert shown.count(part) == 1
    assert all(part in list(everything(laboratory)) for part in parts)


@pytest.mark.parametrize("name", list(TITLES))
def test_without_a_prediction_there_is_no_run_and_no_reveal(guide, name):
    experiment = guide.experiments[name]
    assert experiment.run_button.disabled
    assert experiment.reveal_button.disabled
    experiment.reveal()
    assert experiment.laboratory.picture.alt == "0 runs are drawn."
    assert experiment.verdict.value == ""
    experiment.options[1].click()
    assert not experiment.run_button.disabled
    assert not experiment.reveal_button.disabled


@pytest.mark.parametrize("name", list(TITLES))
@pytest.mark.parametrize("number", range(3))
def test_the_reveal_says_what_was_predicted_and_what_came_out(guide, name, number):
    experiment = guide.experiments[name]
    experiment.options[(number + 1) % 3].click()
    experiment.options[number].click()  # one may think again
    experiment.reveal_button.click()
    said = text(experiment.verdict)
    chosen = experiment.question.options[number]
    right = next(option for option in experiment.question.options if option.right)
    escaped = chosen.text.replace("'", "&#x27;")
    assert f"You predicted: {escaped}." in said
    assert f"What came out: {right.text}." in said
    assert (chosen.reason[:30].replace("'", "&#x27;") in said) or chosen.right
    assert ", because" not in said
    assert experiment.laboratory.error is None
    assert all(option.disabled for option in experiment.options)
    assert experiment.laboratory.axis.value == SWEEPS[name].knob
    assert experiment.laboratory.picture.alt.startswith(f"Mean over three seeds, by {SWEEPS[name].knob}: ")


@pytest.mark.parametrize("number", range(3))
def test_after_the_reveal_the_right_option_and_the_chosen_one_are_marked(guide, number):
    experiment = guide.experiments["depth"]
    experiment.because.value = " <b>it sees & compares</b> "
    experiment.predict(number)
    assert [option.icon for option in experiment.options] == ["hand-o-right" * (i == number) for i in range(3)]
    experiment.reveal()
    for i, (option, asked) in enumerate(zip(experiment.options, experiment.question.options, strict=True)):
        mark, colour = {(True, True): ("check", "success"), (False, True): ("times", "error")}.get(
            (asked.right, asked.right or i == number), ("", "")
        )
        assert option.icon == mark
        assert (colour in (option.layout.border_left or "")) and bool(option.layout.border_left) == bool(mark)
    right = experiment.question.options[number].right
    assert text(experiment.status) == ("Right." if right else "Not quite.")
    assert "because &lt;b&gt;it sees &amp; compares&lt;/b&gt;." in experiment.verdict.value


def test_each_tab_has_its_own_reveal(guide):
    laboratory = guide.experiments["depth"].laboratory
    for number, name in enumerate(TITLES):
        guide.tabs.selected_index = number
        assert laboratory.picture.alt == "0 runs are drawn."
        guide.experiments[name].predict(0)
        guide.experiments[name].reveal()
    guide.tabs.selected_index = 1
    assert laboratory.picture.alt.startswith("Mean over three seeds, by base_layers")
    laboratory.axis.value = "trainable"
    assert laboratory.picture.alt == "0 runs are drawn."
    guide.tabs.selected_index = 0
    assert laboratory.picture.alt.startswith("Mean over three seeds, by bottleneck_dim")
    guide.tabs.selected_index = 4
    assert laboratory.picture.alt == "0 runs are drawn."


def test_it_runs_beside_and_the_reveal_has_rings(guide):
    experiment = guide.experiments["no activation"]
    laboratory = experiment.laboratory
    laboratory.run(steps=25, bottleneck_dim=2).wait(60)  # what was set and run before must not matter
    experiment.predict(0)
    experiment.run_button.click()
    assert "Watch the curves beside" in text(experiment.status)
    laboratory.job.wait(60)
    before, *runs = laboratory.book.runs.values()
    assert [run.settings for run in runs] == SWEEPS["no activation"].settings()
    assert laboratory.table.chosen == [run.number for run in runs]
    assert (laboratory.axis.value, laboratory.swept.value, laboratory.over.value) == (
        "activation", "activation", "gelu, identity",
    )  # fmt: skip
    beforehand = experiment.beforehand
    assert beforehand.own([before, *runs]) == runs
    experiment.reveal()
    assert "Rings: 2 of your own." in laboratory.picture.alt
    against = laboratory.picture.figure.axes[2]
    rings = [line for line in against.lines if line.get_markersize() == 14]
    assert [line.get_ydata()[0] for line in rings] == [100 * run.accuracy for run in runs]


def test_run_once_more_after_the_reveal_what_came_out_stays(guide):
    experiment = guide.experiments["no activation"]
    experiment.predict(0)
    experiment.reveal()
    experiment.run_button.click()
    experiment.laboratory.refresh()  # as the first report of the run does
    assert experiment.laboratory.picture.alt.startswith("Mean over three seeds, by activation")


def test_it_says_which_value_runs_and_the_knob_shows_it(guide, monkeypatch):
    experiment, told = guide.experiments["agreement"], []
    laboratory = experiment.laboratory
    monkeypatch.setattr(laboratory_module, "runs_figure", lambda *_: Figure())
    monkeypatch.setattr(laboratory_module, "EVERY", 0)
    knob, message = laboratory.knobs["bottleneck_dim"], laboratory.message
    message.observe(lambda _: told.append((text(message), knob.value)), "value")
    experiment.predict(0)
    experiment.run()
    laboratory.job.wait(60)
    for number, width in ((1, 4), (2, 16)):
        beginning = f"run {number} of 2: m = {width}, seed 0, "
        said = {line.removeprefix(beginning): shown for line, shown in told if line.startswith(beginning)}
        assert set(said.values()) == {width}
        assert {"getting ready", "step 37 of 200"} <= {line.split(", loss")[0] for line in said}


def test_while_another_run_goes_on_it_says_so_and_turns_nothing(guide):
    experiment = guide.experiments["depth"]
    experiment.laboratory.run(steps=800, bottleneck_dim=2)
    experiment.predict(1)
    experiment.run_button.click()
    assert "another run goes on" in text(experiment.status)
    assert "error-color" in experiment.status.value
    assert experiment.laboratory.knobs["bottleneck_dim"].value == 2


def test_runs_with_other_settings_get_no_ring():
    runs = [replace(run, number=1) for run in committed_runs("width") if run.settings == Settings(bottleneck_dim=4)]
    (same,) = runs
    other = replace(same, settings=Settings(bottleneck_dim=4, learning_rate=1e-2))
    seed = replace(same, settings=Settings(bottleneck_dim=4, seed=3))
    live, stopped = replace(same, number=0), replace(same, history=replace(same.history, stopped="interrupted"))
    assert Beforehand(SWEEPS["width"], []).own([same, other, seed, live, stopped]) == [same, seed]


@pytest.mark.parametrize("name", list(TITLES))
def test_the_figure_has_the_committed_runs(name):
    beforehand = Beforehand(SWEEPS[name], committed_runs(name))
    axes = runs_figure([], {}, SWEEPS[name].knob, beforehand).axes[2]
    points = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert points == [100 * run["accuracy"] for run in load_results("laboratory")["rows"][name]["runs"]]


def mean_of(name, value):
    accuracies = [run.accuracy for run in committed_runs(name) if getattr(run.settings, SWEEPS[name].knob) == value]
    assert len(accuracies) == 3
    return 100 * sum(accuracies) / 3


def test_the_option_that_is_said_to_be_right_is_what_came_out():
    lost = mean_of("agreement", 16) - mean_of("agreement", 4)
    cost = mean_of("no activation", "gelu") - mean_of("no activation", "identity")
    gained = mean_of("half the steps", 200) - mean_of("half the steps", 100)
    one, two = mean_of("depth", 1), mean_of("depth", 2)
    came_out = {  # by experiment, what its options begin with, and whether that is true
        "agreement": {"Less than two": lost < 2, "Two to ten": 2 <= lost <= 10, "More than ten": lost > 10},
        "depth": {"One block": one > 95, "One stays": one < 80 and two > 90, "Both stay": one < 80 and two < 80},
        "no activation": {"Less than two": cost < 2, "Two to ten": 2 <= cost <= 10, "More than ten": cost > 10},
        "half the steps": {"Less than": gained < 10, "Ten to": 10 <= gained <= 20, "More than": gained > 20},
    }
    assert list(came_out) == list(TITLES)
    for question, true in zip(load_quiz("06_guide"), came_out.values(), strict=True):
        found = {begin: option.right for option in question.options for begin in true if option.text.startswith(begin)}
        assert found == true, question.text


@pytest.mark.parametrize("name", list(TITLES))
def test_no_earlier_lesson_has_shown_this_task_or_base(name):
    earlier = "".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("0[0-5]_*.py")))
    bases = set(map(int, re.findall(r"\blayers(?:: int)? ?= ?(\d)", earlier)))
    trained = set(re.findall(r'encode\(load_task\("(\w+)"', earlier))
    assert {3, 4, 6} <= bases and "aspect_sentiment" in trained
    for settings in SWEEPS[name].settings():
        reference = name == "depth" and settings.base_layers == 3  # what the new ones are held against
        assert reference or settings.base_layers not in bases or settings.task not in trained


def test_what_the_lesson_says_is_so():
    width = {m: mean_of("width", m) for m in SWEEPS["width"].values}
    assert all(width[m] > width[64] - 2 for m in (8, 16, 32, 128))
    assert all(width[m] < width[64] - 2 for m in (1, 2, 4))
    assert width[8] < width[64] - 0.1 or max(width[m] - width[8] for m in (16, 32, 64, 128)) < 1.5
    place = {p: mean_of("placement", p) for p in SWEEPS["placement"].values}
    assert place["houlsby"] > place["pfeiffer"] + 2 > place["parallel"] + 4
    init = {s: mean_of("init", s) for s in SWEEPS["init"].values}
    assert min(init[s] for s in (1e-4, 1e-3, 1e-2, 1e-1)) > 99
    assert max(init[s] for s in (0.3, 1.0)) < 70
    rate = {r: mean_of("rate", r) for r in SWEEPS["rate"].values}
    assert min(rate[3e-3], rate[1e-2]) > 99
    assert max(rate[r] for r in (1e-4, 3e-4, 1e-3, 3e-2)) < 80
    higher = {m: mean_of("width, higher rate", m) for m in SWEEPS["width, higher rate"].values}
    assert higher[4] > width[4] + 10


def test_every_guided_question_has_three_options_of_which_one_came_out():
    for question in load_quiz("06_guide"):
        assert len(question.options) == 3
        assert sum(option.right for option in question.options) == 1


def test_what_is_saved_is_a_picture_of_the_questions(guide):
    data, _ = guide._repr_mimebundle_()
    assert all(question.text[:40] in data["text/plain"] for question in load_quiz("06_guide"))
    assert "run this cell" in data["text/html"]
