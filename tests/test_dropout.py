"""Thinned models are what dropout makes of a model, one mask for all inputs; their variance is the textbook's, and KDE adds it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.defenses.detectors.kde import KDE
from mithridate.nn.dropout import dropouts, log_variance, thinned
from mithridate.nn.taps import trace_all


def net(p: float = 0.5) -> nn.Module:
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 3))
    torch.random.set_rng_state(torch_state)
    return model.eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def clean(count: int) -> Samples:
    return Samples(images(count), torch.arange(count) % 3)


def test_a_mask_drops_and_scales_alike_for_every_input() -> None:
    model, ones = nn.Sequential(nn.Dropout(0.75)).eval(), torch.ones(5, 4000)
    with thinned(model, 3):
        made = model(ones)
    assert set(made.unique().tolist()) == {0.0, 4.0}
    assert torch.equal(made, made[:1].expand(5, -1))
    assert float(made.mean()) == pytest.approx(1, abs=4 * (3 / 4000) ** 0.5)
    assert torch.equal(model(ones), ones), "no hook stays"


def test_whole_channels_are_dropped_where_the_model_does_so() -> None:
    model = nn.Sequential(nn.Dropout2d(0.5)).eval()
    with thinned(model, 0):
        made = model(torch.ones(2, 64, 3, 3))
    assert torch.equal(made.amax((2, 3)), made.amin((2, 3)))
    assert 10 < int((made[0, :, 0, 0] == 0).sum()) < 54


def test_variance_is_that_of_the_probabilities_over_thinned_models() -> None:
    model, x = net(), images(6)
    rows = []
    for seed in (1, 2, 3):
        with thinned(model, seed), torch.no_grad():
            rows.append(model(x).softmax(1))
    stack = torch.stack(rows)
    expected = (stack.square().sum(2).mean(0) - stack.mean(0).square().sum(1)).log()  # Feinman et al., section 3.2
    torch.testing.assert_close(log_variance(model, x, (1, 2, 3)), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_variance(model, x[:2], (1, 2, 3)), expected[:2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_density_and_uncertainty_are_added() -> None:
    model, known = net(), clean(60)
    state = torch.random.get_rng_state()
    plain, both = KDE().fit(model, known), KDE(uncertainty=8).fit(model, known)
    assert torch.equal(state, torch.random.get_rng_state())
    fresh = images(20, seed=1)
    seen = trace_all(model, fresh, both.layers)
    variance = log_variance(model, fresh, both.seeds.tolist())
    mean, std = both.doubt[:, seen.predicted]
    torch.testing.assert_close(both.score(seen), plain.score(seen) + (variance - mean) / std)
    assert torch.equal(both(fresh), KDE(uncertainty=8).fit(model, known)(fresh)), "the same seed, the same scores"
    own = log_variance(model, known.images, both.seeds.tolist())[trace_all(model, known).predicted == int(seen.predicted[0])]
    if len(own) >= 5:
        assert float(both.doubt[0, seen.predicted[0]]) == pytest.approx(float(own.mean()), abs=1e-4)


@pytest.mark.parametrize("model", [net(0.0), nn.Sequential(nn.Flatten(), nn.Linear(16, 3))])
def test_a_model_without_dropout_has_no_uncertainty(model: nn.Module) -> None:
    assert not dropouts(model)
    with pytest.raises(ValueError, match="uncertainty must be None for a model without dropout, got 8"):
        KDE(uncertainty=8).fit(model, clean(30))
    with pytest.raises(ValueError, match="uncertainty must"):
        KDE(uncertainty=1)
