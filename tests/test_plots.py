"""Figures: their data and their wiring follow the model; pixels are looked at by people."""

import re
import xml.etree.ElementTree as ET

import artists
import pytest
import torch

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
from adapters_lesson.course.figures import (
    accuracy_against_parameters,
    adapter_diagram,
    course_map,
    learning_curves,
    show,
    style,
    update_spectrum,
    wiring,
)
from adapters_lesson.course.figures.diagrams import Part, spread, wiring_of
from adapters_lesson.course.figures.svg import WIDTH
from adapters_lesson.course.lesson_source import course
from adapters_lesson.data import NOTEBOOKS

D, M = 24, 4


def model_with(placement, norm, **more):
    config = SmallTransformerConfig(50, D, 2, 4, 48, norm=norm)
    model = Classifier(SmallTransformer(config), 2)
    prepare(model, "adapter", AdapterConfig(M, placement=placement, **more))
    return model


def words(figure):
    return " ".join(artists.texts(figure))


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
    drawing = wiring(model)
    assert formula in words(drawing)
    assert [title for title in artists.titles(drawing) if title != "sum"] == [
        f"{part.label.replace(chr(10), ' ')}: {part.parameters:,} parameters, {'trained' if part.trained else 'frozen'}"
        for part in [*([wires.beside[1]] if wires.beside else []), *wires.parts]
        if not part.is_sum
    ]


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
    shown = course_map("{}.html")
    text, drawn = " ".join(words(shown.figure).split()), ET.fromstring(shown.svg())
    assert "what is an adapter? 35 min" in text
    lessons = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
    links = [(link.get("href"), link.text) for link in drawn.iter("{http://www.w3.org/1999/xhtml}a")]
    assert links == [(f"{lesson}.html", row["title"]) for lesson, row in zip(lessons, course(), strict=True)]
    titles = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    for row in course():
        number, pieces = row["lesson"][:2], row["uses"].replace(" ", ", ")
        about = f"{number} {row['title']}: {row['question']} {row['minutes']} minutes"
        assert about in shown.alt and any(title.startswith(about) for title in titles)
        assert {title for title in titles if title.startswith(f"{number} builds on")} == {
            f"{number} builds on {n}" for n in row["builds_on"].split()
        }
        runs = [title for title in titles if title.startswith(f"{number} runs on")]
        assert len(runs) == len({piece.split(".")[0] for piece in row["uses"].split()})
        assert all(title == f"{number} runs on your {pieces}" for title in runs)
    assert drawn.get("role") == "group" and drawn.get("aria-label") == shown.alt


def test_a_shown_chart_carries_its_alt_text():
    chart = learning_curves({"a run": History({}, loss=[2.0])})
    data, metadata = show(chart, "A curve.")._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/svg+xml"]["alt"] == "A curve."
    assert ET.fromstring(data["image/svg+xml"]).get("aria-label") == "A curve."
    with pytest.raises(ValueError, match="alt text"):
        show(chart, " ")


def test_a_chart_is_svg_in_the_colours_of_the_page():
    def chart():
        figure, axes = style.new_figure(5, 3)
        axes.bar([0, 1], [1, 2], color=[style.FROZEN, style.COLOURS["lora"]], edgecolor=style.INK)
        axes.set_title('so "many" < all')
        return show(figure, 'Two "bars" & a line.').svg()

    drawn = chart()
    root = ET.fromstring(drawn)
    assert root.get("aria-label") == 'Two "bars" & a line.'
    assert (root.get("width"), root.get("viewBox")) == ("360", "0 0 360 216")
    assert 'so "many" < all' in [text.text for text in root.iter(artists.SVG + "text")]  # words, no outlines of letters
    colours = set(re.findall("#[0-9a-f]{6}", drawn))
    assert colours == {style.COLOURS["lora"].lower()}  # paper, ink, grid and what is frozen follow the theme
    assert chart() == drawn  # a notebook built anew is the same file


def test_a_shown_drawing_is_svg_with_an_image_for_notebooks_that_are_not_trusted():
    alt = 'An adapter: "h" < 8 & more.'
    data, metadata = show(adapter_diagram(Adapter(8, 2)), alt)._repr_mimebundle_()
    root = ET.fromstring(data["image/svg+xml"])
    assert root.get("aria-label") == data["text/plain"] == metadata["image/svg+xml"]["alt"] == alt
    assert data["image/svg+xml"] in data["text/html"]
    assert '<img src="data:image/svg+xml;base64,' in data["text/html"]
    assert 'alt="An adapter: &quot;h&quot; &lt; 8 &amp; more."' in data["text/html"]
    assert "var(--jp-content-font-color1, #222)" in root.get("style")


def test_parts_fill_the_width_with_equal_gaps():
    box, plus = Part("box"), Part("+")
    for parts in ([box, plus, box], [box] * 6 + [plus] * 3, [box, plus] * 4):
        xs, halves = spread(parts), [14 if part.is_sum else 42 for part in parts]
        gaps = [b - a - h - g for a, b, h, g in zip(xs, xs[1:], halves, halves[1:], strict=False)]
        assert min(gaps) == pytest.approx(max(gaps))
        assert min(gaps) > 14  # an arrow, and the line that branches off
        assert (xs[0] - halves[0], xs[-1] + halves[-1]) == pytest.approx((64, WIDTH - 38))
