"""The playground's module: its numbers against torch, its strings, and what is made from it."""

import functools
import importlib.util
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from browser import CHROMIUM

import adapters_lesson.course.playground as package
from adapters_lesson.course.playground import Playground
from adapters_lesson.history import load_results

ROOT = Path(__file__).parents[1]
FOLDER = Path(package.__file__).parent
MODULE = FOLDER / "playground.js"
DEFAULT = Playground().state
ACTIVATIONS = {"identity": lambda x: x, "relu": torch.relu, "gelu": F.gelu, "tanh": torch.tanh}
SETTINGS = [
    DEFAULT,
    "m1-identity-zero-lr0.01-res1-turned-s3",
    "m8-relu-std0.01-lr0.03-res1-circles-s1",
    "m3-tanh-std1-lr0.01-res0-moons-s2",
    "m2-gelu-std1-lr0.1-res1-x0.5-spirals-s4",
]


@functools.cache
def in_javascript(expression):
    """The value of an expression in which ``p`` is the module: in Node where it is, else in Chromium."""
    if node := shutil.which("node"):
        script = f"import p from {json.dumps(MODULE.as_uri())}; console.log(JSON.stringify({expression}));"
        run = [node, "--no-warnings", "--experimental-default-type=module", "--input-type=module", "-e", script]
        answer = subprocess.run(run, capture_output=True, text=True)
        if "bad option" in answer.stderr:  # older or newer than that switch
            answer = subprocess.run([r for r in run if "experimental" not in r], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)
    if CHROMIUM is None:
        pytest.skip("neither node nor chromium is here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        body, _, exported = MODULE.read_text(encoding="utf-8").rpartition("\nexport default ")
        answer = page.evaluate(f"() => {{ {body}\n const p = {exported} return JSON.stringify({expression}); }}")
        browser.close()
    return json.loads(answer)


def runs():
    """For each of SETTINGS the data, the weights at the start and after 200 steps, and the losses."""
    return in_javascript(
        f"""{json.dumps(SETTINGS)}.map(state => {{
            const run = new p.Run(p.parse(state));
            const plain = weights => Object.fromEntries(Object.entries(weights).map(([name, w]) => [name, [...w]]));
            const start = plain(run.weights);
            for (let i = 0; i < 200; i++) run.train();
            const {{ x, y }} = run.points;
            return {{ start, end: plain(run.weights), losses: run.losses, x: [...x], y: [...y], base: p.BASE }};
        }})"""
    )


def trained_by_torch(state, seen, steps=200):
    """The weights and losses of the same run in torch, float64."""
    width, activation, _, rate, residual, *rest = state.split("-")
    scaling = float(rest[0][1:]) if rest[0].startswith("x") else 1.0
    m, f = int(width[1:]), ACTIVATIONS[activation]
    make = functools.partial(torch.tensor, dtype=torch.float64)
    sizes = {"embed": (8, 2), "wide": (32, 8), "narrow": (8, 32), "head": (2, 8)}
    base = {name: make(numbers).view(sizes.get(name, (-1,))) for name, numbers in seen["base"].items()}
    sizes = {"down": (m, 8), "up": (8, m)}
    own = {name: make(numbers).view(sizes.get(name, (-1,))) for name, numbers in seen["start"].items()}
    for weight in own.values():
        weight.requires_grad_()
    x, y = make(seen["x"]).view(-1, 2), torch.tensor(seen["y"])
    optimizer, losses = torch.optim.Adam(own.values(), lr=float(rate[2:])), []
    for step in range(steps + 1):
        h = F.linear(x, base["embed"], base["embedBias"])
        update = F.linear(f(F.linear(h, own["down"], own["downBias"])), own["up"], own["upBias"])
        h = int(residual[3:]) * h + scaling * update
        h = h + F.linear(torch.tanh(F.linear(h, base["wide"], base["wideBias"])), base["narrow"], base["narrowBias"])
        loss = F.cross_entropy(F.linear(h, base["head"], base["headBias"]), y)
        losses.append(loss.item())
        if step < steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: weight.detach().flatten() for name, weight in own.items()}, losses


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=SETTINGS)
def test_two_hundred_steps_are_those_of_torch(number):
    seen = runs()[number]
    ours, losses = trained_by_torch(SETTINGS[number], seen)
    for name, weight in ours.items():
        theirs = torch.tensor(seen["end"][name], dtype=torch.float64)
        assert (weight - theirs).abs().max() < 1e-4, name
        assert not torch.equal(theirs, torch.tensor(seen["start"][name], dtype=torch.float64)), f"{name} did not move"
    assert seen["losses"] == pytest.approx(losses, abs=1e-5)


def test_the_error_function_is_exact():
    at = [-7.0, -3.1, -2.5, -1.0, -1e-9, 0.0, 1e-3, 0.5, 2.4999, 2.5, 2.5001, 4.0, 5.9, 6.1]
    assert in_javascript(f"{at}.map(p.erf)") == pytest.approx([math.erf(x) for x in at], abs=1e-14)


def test_starts_are_what_they_say():
    zero, _, small, one, _ = runs()
    assert set(zero["start"]["up"]) == {0}
    assert 0 < max(map(abs, zero["start"]["down"])) <= 8**-0.5
    for seen, std in ((small, 0.01), (one, 1.0)):
        drawn = torch.tensor(seen["start"]["down"] + seen["start"]["up"])
        assert 0.6 * std < drawn.std() < 1.4 * std


def test_a_seed_gives_the_same_run_and_another_seed_another():
    same = "(s => { const r = new p.Run(p.parse(s)); return [...r.points.x, ...r.weights.down]; })"
    one, again, other = (
        in_javascript(f"{same}({json.dumps(s)}).concat({n})")[:-1]
        for n, s in enumerate((DEFAULT, DEFAULT, DEFAULT.replace("s0", "s1")))
    )
    assert one == again
    assert one != other


def test_base_knows_the_moons_and_not_the_others():
    alone = {
        name: in_javascript(
            f"(r => r.measure(r.unseen, false).accuracy)(new p.Run(p.parse('m1-gelu-zero-lr0.1-res1-{name}-s0')))"
        )
        for name in ("moons", "turned", "circles", "spirals")
    }
    assert alone.pop("moons") > 0.99
    assert all(share < 0.6 for share in alone.values()), alone


# --- strings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*SETTINGS, f"{DEFAULT}-hide.rate.seed"])
def test_a_state_survives_reading_and_writing(state):
    assert in_javascript(f"p.format(p.parse({json.dumps(state)}))") == state
    assert in_javascript(f"p.format(p.parse({json.dumps(f' {state} ')}))") == state


@pytest.mark.parametrize(
    "sent", ["“m4–gelu–zero–lr0.03–res1–spirals–s0”", "M4 - GELU - zero - lr0.03 - res1 - spirals - s0"]
)
def test_a_state_survives_a_letter(sent):
    assert in_javascript(f"p.format(p.parse({json.dumps(sent)}))") == DEFAULT


BAD = [
    ("", "“” is no bottleneck m: expected one of m1, m2"),
    ("m9-gelu-zero-lr0.03-res1-spirals-s0", "“m9” is no bottleneck m: expected one of m1, "),
    ("m4-gelo-zero-lr0.03-res1-spirals-s0", "“gelo” is no activation: expected one of identity, relu, gelu, tanh."),
    ("m4-gelu-zero-lr3-res1-spirals-s0", "“lr3” is no learning rate: expected one of lr0.001"),
    ("m4-gelu-zero-lr0.03-spirals-s0", "“spirals” is no residual: expected one of res0, res1."),
    ("m4-gelu-zero-lr0.03-res1-x9-spirals-s0", "“x9” is no scaling s: expected one of x0, x0.25"),
    ("m4-gelu-zero-lr0.03-res1", "The state ends before its data set: expected one of moons"),
    (f"{DEFAULT}-hide.rate.speed", "“speed” cannot be hidden: expected one of m, activation"),
    (f"{DEFAULT}-now", "“now” is too much: expected the end after the seed"),
    ("<b>" * 50, "“<b><b>"),
]


@pytest.mark.parametrize(("state", "words"), BAD, ids=[words[:24] for _, words in BAD])
def test_a_bad_state_is_told_in_one_sentence(state, words):
    said = in_javascript(f"(() => {{ try {{ p.parse({json.dumps(state)}); }} catch (e) {{ return e.message; }} }})()")
    assert said.startswith(words)
    assert re.fullmatch(r"[^.]*(?:\d\.\d+[^.]*|hide\.rate\.seed)*\.", said), said
    assert len(said) < 200


# --- what is made from it --------------------------------------------------------------------------------------------


def test_the_widget_leaves_a_picture_and_knows_the_modules_own_state():
    assert in_javascript("p.DEFAULT") == DEFAULT
    data, about = Playground()._repr_mimebundle_()
    assert "Run this cell to move it." in data["text/html"]
    assert data["image/svg+xml"].startswith("<svg")
    assert len(about["image/svg+xml"]["alt"]) >= 80
    assert len(data["image/svg+xml"]) < 60_000


def test_the_picture_tells_what_the_module_computes():
    seen = in_javascript(f"(s => ({{...s, base: 0, now: 0}}))(p.snapshot({json.dumps(DEFAULT)}, 300))")
    alt = (FOLDER / "still.txt").read_text(encoding="utf-8")
    numbers = [seen["frozen"], round(100 * seen["baseAccuracy"]), seen["trained"], 300, round(100 * seen["accuracy"])]
    assert [int(number) for number in re.findall(r"\d+", alt)] == numbers
    assert seen["frozen"] == 594 and seen["trained"] == 2 * 8 * 4 + 4 + 8


def test_the_committed_results_are_those_of_the_module():
    results = load_results("playground")
    for row in results["rows"].values():
        for run in row["runs"][:2]:
            state = f"{row['state']}-s{run['seed']}"
            found = in_javascript(
                "(r => [r.measure(r.unseen).accuracy, (() => {"
                f" for (let i = 0; i < {results['steps']}; i++) r.train();"
                f" return r.measure(r.unseen).accuracy; }})()])(new p.Run(p.parse('{state}')))"
            )
            assert found == pytest.approx([run["start"], run["test"]], abs=0.011)  # another machine's last digits


def test_the_base_is_that_of_the_script():
    spec = importlib.util.spec_from_file_location("make_playground", ROOT / "data" / "make_playground.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sizes = {name: len(numbers) for name, numbers in in_javascript("p.BASE").items()}
    torch.set_default_dtype(torch.float64)
    try:
        made = script.trained_base(steps=3)
        x, y = script.moons(400, torch.Generator().manual_seed(5))
    finally:
        torch.set_default_dtype(torch.float32)
    assert sizes == {name: weight.numel() for name, weight in made.items()}
    shapes = {name: weight.shape for name, weight in made.items()}
    base = {
        name: torch.tensor(w, dtype=torch.float64).view(shapes[name]) for name, w in in_javascript("p.BASE").items()
    }
    assert (script.logits(base, x).argmax(-1) == y).double().mean() > 0.98  # Python's moons are the page's


def test_the_module_is_small_and_asks_nobody():
    text = MODULE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 700
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|^import ", text, re.M)
    assert set(re.findall(r"https?://[^\"']+", text)) == {"http://www.w3.org/2000/svg"}
