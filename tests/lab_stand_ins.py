"""A tiny base model and a tiny task in place of MiniLM and the aspects, so that a run takes milliseconds."""

from types import SimpleNamespace

import torch
from models import VOCAB, Columns, toy_data

from adapters_lesson.course.figures import Picture
from adapters_lesson.course.laboratory import experiments
from adapters_lesson.transformer import SmallTransformer, SmallTransformerConfig

TINY = {"vocab_size": VOCAB, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


class Labelled(Columns):
    """Columns that know how many labels there are, as a Dataset does."""

    features = {"label": SimpleNamespace(num_classes=2)}  # noqa: RUF012


def tiny_base(layers):
    return SmallTransformer(SmallTransformerConfig(**TINY, num_hidden_layers=layers))


def use(monkeypatch):
    """Let ``run_experiment`` use the stand-ins."""
    data = {"train": Labelled(toy_data(48, seed=0)), "validation": Labelled(toy_data(20, seed=1))}
    monkeypatch.setattr(experiments, "encoded", lambda task: data)
    monkeypatch.setattr(experiments.SmallTransformer, "from_minilm", tiny_base)
    # Figures are made but not painted: painting has its own tests, and takes longest.
    monkeypatch.setattr(Picture, "svg", lambda picture: "<svg/>")
    torch.manual_seed(0)
