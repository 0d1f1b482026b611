"""The picture of a fusion's attention, and the sentence that says the same."""

import numpy as np
import pytest
import torch

from adapters_lesson.plots import Picture, fusion_figure

MEMBERS = ["film", "hotel", "sport"]
BY_PLACE = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.1, 0.9]])
TOKENS = ["not", "a", "bad", "film"]


def by_token():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4).mul(2).softmax(1)


def test_a_map_by_place():
    picture = fusion_figure(BY_PLACE, MEMBERS)
    assert isinstance(picture, Picture) and picture.png().startswith(b"\x89PNG")
    (axes,) = picture.figure.axes
    np.testing.assert_allclose(axes.images[0].get_array(), BY_PLACE)
    assert axes.images[0].get_clim() == (0, 1) and axes.images[0].origin == "lower"
    assert [label.get_text() for label in axes.get_xticklabels()] == MEMBERS
    assert [label.get_text() for label in axes.get_yticklabels()] == ["place 1", "place 2"]
    assert [text.get_text() for text in axes.texts] == ["0.70", "0.20", "0.10", "0.00", "0.10", "0.90"]
    assert [text.get_color() for text in axes.texts] == ["white", *["black"] * 4, "white"]
    assert picture.alt == (
        "Attention of a fusion over film, hotel, sport, mean over words. The most weight has, in place 1 film, 0.70; "
        "place 2 sport, 0.90. Over all places: film 0.35, hotel 0.15, sport 0.50."
    )


def test_a_map_by_word():
    weights = by_token()
    picture = fusion_figure(weights, MEMBERS, tokens=TOKENS, places=["lower", "upper"])
    assert picture.png().startswith(b"\x89PNG")
    *maps, _ = picture.figure.axes  # and the bar with the colours
    assert [axes.get_title(loc="left") for axes in maps] == MEMBERS
    for i, axes in enumerate(maps):
        np.testing.assert_allclose(axes.images[0].get_array(), weights[:, i])
    assert [label.get_text() for label in maps[-1].get_xticklabels()] == TOKENS
    assert [label.get_text() for label in maps[0].get_yticklabels()] == ["lower", "upper"]
    means = weights.mean(-1)
    strongest = MEMBERS[means[1].argmax()]
    assert "the text “not a bad film”" in picture.alt
    assert f"upper {strongest}, {means[1].max():.2f}" in picture.alt


def test_the_mean_counts_the_words():
    weights = by_token()
    said = fusion_figure(weights, MEMBERS, tokens=TOKENS).alt.rpartition("Over all places: ")[2]
    means = weights.mean((0, 2)).tolist()
    assert said == ", ".join(f"{name} {mean:.2f}" for name, mean in zip(MEMBERS, means, strict=True)) + "."


@pytest.mark.parametrize(
    ("attention", "settings", "message"),
    [
        (by_token(), {}, r"shape \(2, 3, 4\), not \(places, members\): give the tokens, or the mean over them"),
        (BY_PLACE, {"tokens": TOKENS}, r"not \(places, members, tokens\): take one text, attention\[0\]"),
        (by_token(), {"tokens": TOKENS[:3]}, "3 tokens, but attention for 4"),
        (BY_PLACE, {"members": MEMBERS[:2]}, "2 members, but attention for 3"),
        (BY_PLACE, {"places": ["one"]}, "1 places, but attention for 2"),
        (BY_PLACE * 0.5, {}, "do not sum to 1 over the members: leave padding out"),
        (BY_PLACE * torch.nan, {}, "do not sum to 1"),
        (BY_PLACE[:0], {}, r"shape \(0, 3\)"),
    ],
)
def test_what_is_no_attention(attention, settings, message):
    with pytest.raises(ValueError, match=message):
        fusion_figure(attention, **{"members": MEMBERS, **settings})
