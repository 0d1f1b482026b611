"""The picture of a fusion's attention, and the sentence that says the same."""

import numpy as np
import pytest
import torch

from adapters_lesson.course.figures import Picture, fusion_figure

MEMBERS = ["film", "hotel", "sport"]
PLACES = ["lower", "upper"]
TOKENS = ["not", "a", "bad", "film"]


def by_token():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4).mul(2).softmax(1)


def test_a_map_by_word():
    weights = by_token()
    picture = fusion_figure(weights, MEMBERS, tokens=TOKENS, places=PLACES)
    assert isinstance(picture, Picture) and picture.svg().startswith("<svg")
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


def test_of_two_members_one_map_says_all():
    weights = by_token()[:, :2].softmax(1)
    picture = fusion_figure(weights, MEMBERS[:2], tokens=TOKENS, places=PLACES)
    only, _ = picture.figure.axes
    assert only.get_title(loc="left") == "film (hotel has the rest)"
    np.testing.assert_allclose(only.images[0].get_array(), weights[:, 0])
    assert all(f"{name} " in picture.alt.rpartition("Over all places: ")[2] for name in MEMBERS[:2])


def test_the_mean_counts_the_words():
    weights = by_token()
    said = fusion_figure(weights, MEMBERS, TOKENS, PLACES).alt.rpartition("Over all places: ")[2]
    means = weights.mean((0, 2)).tolist()
    assert said == ", ".join(f"{name} {mean:.2f}" for name, mean in zip(MEMBERS, means, strict=True)) + "."


@pytest.mark.parametrize(
    ("attention", "settings", "message"),
    [
        (by_token().mean(-1), {}, r"not \(places, members, tokens\): take one text, attention\[0\]"),
        (by_token(), {"tokens": TOKENS[:3]}, "3 tokens, but attention for 4"),
        (by_token(), {"members": MEMBERS[:2]}, "2 members, but attention for 3"),
        (by_token(), {"places": ["one"]}, "1 places, but attention for 2"),
        (by_token() * 0.5, {}, "do not sum to 1 over the members: leave padding out"),
        (by_token() * torch.nan, {}, "do not sum to 1"),
        (by_token()[:0], {}, r"is \(0, 3, 4\)"),
    ],
)
def test_what_is_no_attention(attention, settings, message):
    with pytest.raises(ValueError, match=message):
        fusion_figure(attention, **{"members": MEMBERS, "tokens": TOKENS, "places": PLACES, **settings})
