"""Figures: their data and their wiring follow the model; pixels are looked at by people."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from adapters_lesson import (
    Adapter,
    AdapterConfig,
    Classifier,
    History,
    SmallTransformer,
    SmallTransformerConfig,
    prepare,
    set_active_adapter,
)
from adapters_lesson.plots import (
    accuracy_against_parameters,
    adapter_diagram,
    course_map,
    learning_curves,
    show,
    update_spectrum,
    wiring,
    wiring_of,
)
from adapters_lesson.plots.quick import quick_png

D, M = 24, 4


def model_with(placement, norm, **more):
    config = SmallTransformerConfig(50, D, 2, 4, 48, norm=norm)
    model = Classifier(SmallTransformer(config), 2)
    prepare(model, "adapter", AdapterConfig(M, placement=placement, **more))
    return model


def words(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


EXPECTED = {
    ("houlsby", "post"): ("attention adapter + LayerNorm FFN adapter + LayerNorm", "LN(A(h) + r)"),
    ("pfeiffer", "post"): (
        "attention + LayerNorm FFN + LayerNorm adapter\n(update) + LayerNorm,\nthe same",
        "LN(update(LN(h + r)) + h + r)",
    ),
    ("parallel", "post"): ("attention + LayerNorm FFN + LayerNorm", "LN(h + update(r) + r)"),
    ("houlsby", "pre"): ("LayerNorm attention adapter + LayerNorm FFN adapter +", "A(h) + r"),
    ("pfeiffer", "pre"): ("LayerNorm attention + LayerNorm FFN + adapter", "A(h + r)"),
    ("parallel", "pre"): ("LayerNorm attention + LayerNorm FFN +", "h + update(r) + r"),
}


@pytest.mark.parametrize(("placement", "norm"), EXPECTED)
def test_the_wiring_is_the_models(placement, norm):
    model = model_with(placement, norm)
    wires = wiring_of(model)
    labels, formula = EXPECTED[placement, norm]
    assert " ".join(part.label for part in wires.parts) == labels
    assert wires.formula == formula
    adapters = [
        part for part in [*wires.parts, *([wires.beside[1]] if wires.beside else [])] if "adapter" in part.label
    ]
    assert all(part.parameters == Adapter.count(D, M) and part.trained for part in adapters)
    assert len(adapters) == (2 if placement == "houlsby" else 1)
    assert not any(part.trained for part in wires.parts if "adapter" not in part.label)
    sizes = {part.label: part.parameters for part in wires.parts}
    assert sizes["attention"] == 4 * (D * D + D)
    assert sizes["FFN"] == 2 * D * 48 + 48 + D
    assert sizes["LayerNorm"] == 2 * D
    assert formula in words(wiring(model))


def test_the_wiring_follows_what_is_trained_and_what_is_active():
    model = model_with("houlsby", "post", train_layer_norms=True)
    assert [p.trained for p in wiring_of(model).parts if p.label == "LayerNorm"] == [True, True]
    set_active_adapter(model, None)
    assert "adapter" not in [part.label for part in wiring_of(model).parts]
    model = Classifier(SmallTransformer(SmallTransformerConfig(50, D, 2, 4, 48)), 2)
    prepare(model, "full")
    assert all(part.trained for part in wiring_of(model).parts if not part.is_sum)


def test_the_adapter_diagram_shows_the_modules_sizes():
    text = words(adapter_diagram(Adapter(384, 64)))
    for expected in ("384 × 64: 24,640", "64 × 384: 24,960", "GELU"):
        assert expected in text


def test_the_spectrum_has_as_many_bars_as_the_bottleneck_is_wide():
    torch.manual_seed(0)
    (axes,) = update_spectrum(Adapter(12, 3, init="bert", init_std=1.0), torch.randn(12)).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) == 12
    assert all(h > 1e-4 for h in heights[:3])
    assert all(h < 1e-4 for h in heights[3:])


def test_learning_curves_show_the_histories():
    history = History({}, loss=[2.0, 1.0], validation=[{"step": 2, "loss": 0.5, "accuracy": 0.75}])
    left, right = learning_curves({"a run": history}).axes
    assert list(left.lines[0].get_ydata()) == [2.0, 1.5]
    assert list(right.lines[0].get_ydata()) == [75.0]


def test_accuracy_against_parameters_shows_mean_and_spread():
    (axes,) = accuracy_against_parameters([("a", "adapter", 1000, [0.8, 0.9])]).axes
    line, bars = axes.containers[0].lines[0], axes.containers[0].lines[2][0]
    assert list(line.get_xdata()) == [1000]
    assert line.get_ydata()[0] == pytest.approx(85)
    assert [y for _, y in bars.get_segments()[0]] == pytest.approx([80, 90])


def test_the_course_map_tells_what_is_there():
    text = words(course_map(exists=["01_the_bottleneck"]))
    assert "35 min" in text
    assert text.count("in preparation") == 10


def test_a_shown_figure_carries_its_alt_text():
    data, metadata = show(adapter_diagram(Adapter(8, 2)), "An adapter.")._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == metadata["image/png"]["alt"] == "An adapter."
    with pytest.raises(ValueError, match="alt text"):
        show(adapter_diagram(Adapter(8, 2)), " ")


def test_the_quick_way_paints_what_the_careful_one_does():
    figure = Figure(figsize=(4, 2), dpi=72)
    figure.text(0.1, 0.6, "red, and\nlower jpq", color="red", fontsize=12)
    figure.text(0.6, 0.2, "pale", alpha=0.5, weight="bold")
    figure.text(0.9, 0.5, "turned", rotation=90)
    figure.text(0.55, 0.8, r"$\alpha^2$")
    usual = figure.canvas
    quick, careful = (
        np.asarray(Image.open(io.BytesIO(png))).astype(int)[..., :3]
        for png in (quick_png(figure), show(figure, "texts").png())
    )
    assert figure.canvas is usual
    assert quick.shape == careful.shape == (144, 288, 3)
    assert (careful < 128).any()
    # Texts begin at whole pixels, so they may be up to half a pixel off: the same ink, about the same place.
    for part in (np.s_[:72], np.s_[72:]):
        assert quick[part].sum() == pytest.approx(careful[part].sum(), rel=2e-3)
    blurred = [np.cumsum(np.cumsum(255 - image, 0), 1)[::8, ::8] for image in (quick, careful)]
    assert abs(blurred[0] - blurred[1]).max() < 0.04 * blurred[1].max()
    assert quick_png(figure) == quick_png(figure)
