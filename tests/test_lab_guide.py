"""The guided experiments: a prediction first, then the run, then the reveal."""

import re
from pathlib import Path

import lab_stand_ins
import pytest

from adapters_lesson.course.laboratory.experiments import SWEEPS, Settings
from adapters_lesson.course.laboratory.guide import TITLES, Guide, committed_runs, draw_reveal, own_runs
from adapters_lesson.course.laboratory.laboratory import Laboratory
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
    assert [guide.tabs.get_title(i) for i in range(4)] == list(TITLES.values())


@pytest.mark.parametrize("name", list(TITLES))
def test_without_a_prediction_there_is_no_run_and_no_reveal(guide, name):
    experiment = guide.experiments[name]
    assert experiment.run_button.disabled
    assert experiment.reveal_button.disabled
    experiment.reveal()
    assert experiment.picture is None
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
    assert experiment.error is None
    assert experiment.image.layout.display == ""
    assert all(option.disabled for option in experiment.options)
    assert experiment.picture.alt.startswith(f"Mean over three seeds, by {SWEEPS[name].knob}: ")


def test_it_runs_in_the_laboratory_and_the_reveal_has_rings(guide):
    experiment = guide.experiments["no activation"]
    laboratory = experiment.laboratory
    laboratory.knobs["bottleneck_dim"].value = 2  # what was set before must not matter
    experiment.predict(0)
    experiment.run_button.click()
    assert "runs in the laboratory below" in text(experiment.status)
    assert not experiment.run_button.disabled
    laboratory.job.wait(60)
    runs = list(laboratory.book.runs.values())
    assert [run.settings for run in runs] == SWEEPS["no activation"].settings()
    assert laboratory.axis.value == "activation"
    assert own_runs(SWEEPS["no activation"], runs) == runs
    experiment.reveal()
    assert "Rings: your own 2 runs." in experiment.picture.alt
    rings = [line for line in experiment.picture.figure.axes[0].lines if line.get_markersize() == 14]
    assert [line.get_ydata()[0] for line in rings] == [100 * run.accuracy for run in runs]


def test_while_another_run_goes_on_it_says_so(guide):
    experiment = guide.experiments["depth"]
    experiment.laboratory.run(steps=800)
    experiment.predict(1)
    experiment.run_button.click()
    assert "another run goes on" in text(experiment.status)
    assert "error-color" in experiment.status.value


def test_runs_with_other_settings_get_no_ring():
    same, other = Settings(bottleneck_dim=4, seed=3), Settings(bottleneck_dim=4, learning_rate=1e-2)
    runs = [run for run in committed_runs("width") if run.settings == Settings(bottleneck_dim=4)]
    changed = [type(runs[0])(other, runs[0].history, 1), type(runs[0])(same, runs[0].history, 1)]
    assert own_runs(SWEEPS["width"], runs + changed) == [runs[0], changed[1]]


@pytest.mark.parametrize("name", list(TITLES))
def test_the_figure_has_the_committed_runs(name):
    axes = draw_reveal(name).figure.axes[0]
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
