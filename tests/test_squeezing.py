"""Medians equal NumPy's order statistics; the score is what is written, and sees answers that hang on single pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.defenses.detectors.squeezing import Squeezing, medians, squeezed_odds
from mithridate.metrics import auroc
from mithridate.nn.taps import trace


class Brightness(nn.Module):
    """Classes by how bright an image is, and by how many edges it has."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(1, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.arange(classes)[:, None] * 20.0)
            self.head.bias.copy_(-10.0 * torch.arange(classes).square() / max(1, classes - 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head((x + (x - x.roll(1, 3)).abs()).mean((1, 2, 3))[:, None])
        return logits


def spots(count: int, seed: int = 0) -> Samples:
    coarse = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    images = nn.functional.interpolate(coarse, (12, 12), mode="bilinear")
    return Samples(images, (3 * images.mean((1, 2, 3))).long().clamp(0, 2), ("dark", "gray", "bright"))


def test_medians_are_the_second_and_third_of_four() -> None:
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    four = np.sort(np.stack([wide[..., :-1, :-1], wide[..., :-1, 1:], wide[..., 1:, :-1], wide[..., 1:, 1:]]), 0)
    lower, upper = medians(images)
    np.testing.assert_array_equal(lower.numpy(), four[1])
    np.testing.assert_array_equal(upper.numpy(), four[2])


def test_a_lone_pixel_is_squeezed_away() -> None:
    image = torch.zeros(1, 1, 6, 6)
    image[..., 2, 3] = 1
    assert not any(bool(median.any()) for median in medians(image))


def test_odds_are_against_the_answer_before_and_after() -> None:
    model, images = Brightness(), spots(7).images
    seen = trace(model, images)
    lower, upper = medians(images)
    squeezed, answer = (model(lower) + model(upper)) / 2, seen.predicted
    rows = torch.arange(7)
    after = squeezed - squeezed[rows, answer][:, None]
    change = after - (seen.logits - seen.logits[rows, answer][:, None])
    torch.testing.assert_close(squeezed_odds(model, seen, torch.tensor(1.0)), torch.stack([after, change]))


def test_half_way_to_the_median_is_half_way() -> None:
    model, images = Brightness(), spots(4).images
    seen = trace(model, images)
    half = [(images + median) / 2 for median in medians(images)]
    squeezed = (model(half[0]) + model(half[1])) / 2
    expected = squeezed - squeezed.gather(1, seen.predicted[:, None])
    torch.testing.assert_close(squeezed_odds(model, seen, torch.tensor(0.5))[0], expected)


def test_squeezing_stops_where_enough_clean_images_keep_their_label() -> None:
    smooth, grainy = spots(200), spots(200)
    grain = (torch.rand(grainy.images.shape, generator=torch.Generator().manual_seed(5)) > 0.5).float()
    grainy = Samples(0.6 * grainy.images + 0.4 * grain, grainy.labels, grainy.classes)
    assert float(Squeezing(keep=0.5).fit(Brightness(), smooth).amount) == 1
    assert float(Squeezing(keep=0.9).fit(Brightness(), grainy).amount) < 1
    assert float(Squeezing(keep=0.999).fit(Brightness(), grainy).amount) == 0.125


def test_the_score_is_the_largest_sum_over_the_other_classes() -> None:
    model, clean = Brightness(), spots(300)
    scorer = Squeezing(keep=0.1).fit(model, clean)
    fresh = spots(5, seed=1).images
    with torch.no_grad():
        seen = trace(model, fresh)
        odds, scores = squeezed_odds(model, seen, torch.tensor(1.0)), scorer(fresh)
    for i, c in enumerate(seen.predicted.tolist()):
        found = [sum(float((odds[t, i, z] - scorer.mean[t, c, z]) / scorer.std[t, c, z]) for t in (0, 1)) for z in range(3) if z != c]
        assert float(scores[i]) == pytest.approx(max(found), rel=1e-4, abs=1e-4)


def test_units_are_those_of_clean_images_of_the_same_answer() -> None:
    model, clean = Brightness(), spots(300)
    scorer = Squeezing(keep=0.1).fit(model, clean)
    seen = trace(model, clean.images)
    own = squeezed_odds(model, seen, torch.tensor(1.0))[:, seen.predicted == 1]
    torch.testing.assert_close(scorer.mean[:, 1], own.mean(1))
    torch.testing.assert_close(scorer.std[:, 1], own.std(1).clamp_min(1e-3))
    alone = Squeezing(keep=0.1, least=300).fit(model, clean)  # no class has so many: all are judged together
    torch.testing.assert_close(alone.mean[:, 0], alone.mean[:, 2])


def test_answers_that_hang_on_single_pixels_are_seen() -> None:
    model, clean, fresh = Brightness(), spots(300), spots(200, seed=1)
    scorer = Squeezing().fit(model, clean)
    peppered = torch.maximum(fresh.images, (torch.rand(fresh.images.shape, generator=torch.Generator().manual_seed(2)) > 0.8).float())
    with torch.no_grad():
        usual, strange = scorer(fresh.images), scorer(peppered)
    assert auroc(torch.cat([usual, strange]), torch.arange(400) >= 200) > 0.9


@pytest.mark.parametrize(
    ("model", "count", "said"), [(Brightness(), 19, "at least 20 images, got 19"), (Brightness(1), 30, "at least 2 logits")]
)
def test_what_cannot_be_judged_is_refused(model: nn.Module, count: int, said: str) -> None:
    clean = spots(count)
    with pytest.raises(ValueError, match=said):
        Squeezing().fit(model, clean)


def test_fields_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="keep must"):
        Squeezing(keep=1.0)
    with pytest.raises(ValueError, match="least must"):
        Squeezing(least=1)
