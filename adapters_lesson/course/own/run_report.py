"""A run told to others: as JSON, as a page that needs no other file, and as a model card beside what was trained."""

import html
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.costs.memory import measure_memory, memory_ledger
from adapters_lesson.costs.traffic import gradient_bytes, ring_bytes
from adapters_lesson.evaluation import predict
from adapters_lesson.history import History
from adapters_lesson.methods import trainable

from .bases import licence_of
from .saved_run import MARK

MOST_ERRORS = 20  # that a page shows
BEGINNINGS = ('"arguments": {', MARK)  # of a report: JSON, and a page
_PAGES = (".html", ".htm")


@dataclass
class Run:
    """One seed's run."""

    seed: int
    history: History
    seconds: float
    exchanged: int  # bytes of gradients, in all steps
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # of the split it is judged on


def report_of(trained: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """All that is told of the runs, as plain values; ``trained`` and ``about`` as `train` has them."""
    model, (data, labels, licence), (first, *_) = trained.model, trained.task, trained.runs
    steps, gradients, arguments = max(1, first.history.steps), gradient_bytes(model), about["arguments"]
    counts = trainable(model)
    names = ("adapters-lesson", "torch", "transformers", "datasets")
    report = {
        **about,
        "seconds": round(first.seconds, 3),
        "seconds_per_step": first.history.seconds / steps,
        # bytes of memory and of the network are per process
        "gradient_bytes": gradients,
        "exchanged_bytes_per_step": first.exchanged / steps,
        "sent_bytes_per_step_in_a_ring": ring_bytes(gradients, about["processes"]),
        "torch": torch.__version__.partition("+")[0],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "threads": torch.get_num_threads(),
        "history": asdict(first.history),
        "runs": [asdict(one) for one in trained.runs],
        "trainable": counts.trainable,
        "total": counts.total,
        "labels": list(labels),
        "rows": {split: len(rows) for split, rows in data.items()},
        "licences": {"base": licence_of(arguments["base"]), "data": licence},
        "base_sha256": trained.saved.base_sha256,
    }
    for split in first.scores:
        report |= {"judged": split, "accuracy": over_seeds([one.scores[split]["accuracy"] for one in trained.runs])}
        report |= about_answers(model, data[split], labels) if arguments["report"] else {}
    if labels and is_page(arguments["report"]):
        longest = max(map(len, data["train"]["input_ids"][:]))
        report["memory"] = about_memory(model, min(arguments["batch_size"], len(data["train"])), longest)
    return report


def about_answers(model: nn.Module, data: Any, names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix, rows what is right and columns what the model says, and its most confident errors."""
    sure, said = predict(model, data).softmax(-1).cpu().max(-1)
    labels, counts = torch.tensor(data["label"][:]), torch.zeros(len(names), len(names), dtype=torch.long)
    counts.index_put_((labels, said), torch.ones_like(labels), accumulate=True)
    wrong = sorted((said != labels).nonzero().flatten().tolist(), key=lambda row: -float(sure[row]))
    errors = [
        (data["text"][i], names[int(labels[i])], names[int(said[i])], float(sure[i])) for i in wrong[:MOST_ERRORS]
    ]
    return {"confusion": counts.tolist(), "errors": errors, "wrong": len(wrong)}


def about_memory(model: nn.Module, rows: int, tokens: int) -> dict[str, Any]:
    """Bytes of a training step on rows of so many tokens, predicted and measured; or why there are none."""
    found: dict[str, Any] = {"rows": rows, "tokens": tokens}
    try:
        for what, ledger in (("predicted", memory_ledger), ("measured", measure_memory)):
            found[what] = vars(one := ledger(model, rows, tokens)) | {"peak": one.peak}
    except Exception as error:  # a report after hours of training is worth more than this entry of it
        return {"why": " ".join(str(error).split())[:200] or type(error).__name__}
    return found


def over_seeds(values: Sequence[float]) -> str:
    """The mean in per cent, with its 95 % interval over the seeds where there are several."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f} %, one seed, so without an interval (--seeds 0 1 2 gives one)"
    from adapters_lesson.course.figures import mean_and_interval

    mean, half = mean_and_interval(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f} %, mean and 95 % interval of {len(values)} seeds"


def is_page(path: str | None) -> bool:
    return Path(path or "").suffix.lower() in _PAGES


def as_text(report: Mapping[str, Any], path: str) -> str:
    """The report for a file of this name: a page, or JSON."""
    if not is_page(path):
        return json.dumps(report, indent=1) + "\n"
    from adapters_lesson.course.figures.curves import run_curves
    from adapters_lesson.course.figures.picture import Picture

    histories = {run["seed"]: History(**run["history"]) for run in report["runs"]}
    last = ", ".join(f"{history.loss[-1]:.3f} with seed {seed}" for seed, history in histories.items() if history.loss)
    alt = f"Training and validation loss, and validation accuracy, by step. The training loss ends at {last}."
    return _filled("report.html.j2", report, mark=MARK, curves=Picture(run_curves(histories), alt).svg())


def card(report: Mapping[str, Any]) -> str:
    """The report as a model card in Markdown, which says what only people can fill in."""
    return _filled("card.md.j2", report, mark=MARK)


def _filled(name: str, report: Mapping[str, Any], **more: str) -> str:
    """A template of this folder. Whatever comes from outside is escaped: it is text, on a page and in a card."""
    import jinja2  # of torch's and JupyterLab's own needs

    base, task = (Path(report["arguments"][what]).name for what in ("base", "task"))
    room = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=".html" in name)
    room.filters["cell"] = lambda text: html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")
    title = f"{task}: {report['arguments']['method']} on {base}"
    return room.get_template(name).render(**report, **more, title=title, unknown="not stated: fill in") + "\n"
