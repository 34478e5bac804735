"""How defenses are judged: against stubs whose right answers are known."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from grid_plans import cells_of
from mithridate import bench
from mithridate.bench import worker
from mithridate.bench.cell import Cell
from mithridate.bench.protocol import Protocol
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.reporting import Learned
from mithridate.roles import REGISTRY, Entry, Verdict

THREATS = '["badnets:size=4", "pgd:eps=0.3,steps=5", "detector_pgd:eps=0.3,steps=5", { method = "blend:alpha=0.01", rates = [0.02] }]'


class CornerScorer(nn.Module):
    """Sees the checker grid of `badnets:size=4` in the corner, or, if told to, sees nothing at all."""

    differentiable: ClassVar[bool] = False

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, images: Tensor) -> Tensor:
        seen = (images[:, 0, -4:, -4:].flatten(1) > 0.9).float().sum(1)
        return 0 * seen if self.blind else seen


@dataclass(frozen=True, kw_only=True)
class CornerWatch:
    """Detector and screen by what is in the corner."""

    blind: bool = False

    def fit(self, model: nn.Module, clean: Samples, **_: Any) -> CornerScorer:
        return CornerScorer(self.blind)

    def screen(self, model: nn.Module, samples: Samples, **_: Any) -> Tensor:
        return CornerScorer(self.blind)(samples.images / 255 if samples.images.dtype == torch.uint8 else samples.images)


@dataclass(frozen=True, kw_only=True)
class Teller:
    """Inspector that always says the same."""

    infected: bool = True
    target: int = 0

    def inspect(self, model: nn.Module, clean: Samples, **_: Any) -> Verdict:
        return Verdict(
            self.infected, self.target if self.infected else None, 0.01, torch.zeros(10), {"mask": torch.ones(10, 1, 2, 2)}, "said"
        )


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """Repair that gives the model back, or breaks."""

    broken: bool = False
    needs_verdict: bool = False

    def repair(self, model: nn.Module, samples: Samples, *, verdict: Verdict | None = None, **_: Any) -> nn.Module:
        if self.broken:
            raise RuntimeError("it\nbroke")
        if self.needs_verdict and (verdict is None or verdict.evidence["mask"].shape != (10, 1, 2, 2)):
            raise RuntimeError("no verdict came")
        return model


@dataclass(frozen=True, kw_only=True)
class Sorter:
    """Trainer that learns nothing, and holds what carries the grid, and the last image, for poisoned."""

    def train(self, model: nn.Module, samples: Samples, **_: Any) -> nn.Module:
        return self.learn(model, samples).model

    def learn(self, model: nn.Module, samples: Samples, **_: Any) -> Learned:
        suspicion = CornerWatch().screen(model, samples)
        held = suspicion > 4
        held[-1] = True
        return Learned(model.eval(), suspicion, held, torch.stack([held.float(), 2 * held.float()]), ("one", "two"))


STUBS = {
    "sorter": ("trainer", Sorter),
    "corner_watch": ("detector", CornerWatch),
    "corner_screen": ("screen", CornerWatch),
    "teller": ("inspector", Teller),
    "nothing": ("repair", Nothing),
}


@pytest.fixture(scope="module", autouse=True)
def _stubs() -> Iterator[None]:
    """The stubs in the registry, each under a module of its name, as methods are."""
    for name, (role, method) in STUBS.items():
        own = types.new_class(method.__name__, (method,), exec_body=lambda body, name=name: body.update(__module__=name))
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(vars(sys.modules[__name__]))
        REGISTRY[name] = Entry(name, role, own, (), "", "")  # type: ignore[arg-type]
    yield
    for name in STUBS:
        del REGISTRY[name], sys.modules[name]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Cell, Card]]:
    """Every card of a grid of stubs."""
    folder = tmp_path_factory.mktemp("judged")
    defenses = [
        *("corner_watch", "corner_watch:blind=true", "corner_screen", "teller", "teller:target=3", "teller:infected=false"),
        *("nothing", "nothing:broken=true", "teller+nothing:needs_verdict=true", "plain:epochs=1", "sorter"),
    ]
    cells = cells_of(
        folder,
        trainer='"plain:epochs=12,lr=0.05"',
        defenses=json.dumps(defenses),
        threats=THREATS,
        waived="{ rates = 'a test' }",
        rates="[0.1]",
    )
    store = bench.Store(folder / "store")
    for cell in cells:
        worker.work(store.folder, [cell])
    return [(cell, store.read(cell.key)) for cell in cells]


def _card(judged: list[tuple[Cell, Card]], attack: str | None, defense: str, evasion: str | None = None) -> Card:
    found = [card for cell, card in judged if _is(cell, attack, defense, evasion)]
    assert len(found) == 1
    return found[0]


def _is(cell: Cell, attack: str | None, defense: str, evasion: str | None) -> bool:
    config = cell.config
    return (
        cell.kind == "judgment"
        and (config["attack"] or "clean").partition(":")[0] == (attack or "clean")
        and config["defense"] == defense
        and (config["evasion"] or "").partition(":")[0] == (evasion or "")
    )


def test_a_detector_that_knows_the_trigger_is_perfect(judged: list[tuple[Cell, Card]]) -> None:
    found = _card(judged, "badnets", "corner_watch").metrics
    assert found["tpr"][0] == 1.0
    assert found["auroc"] == 1.0
    assert found["fpr"][0] < 0.05
    assert 0.8 < found["successful"][0] <= 1


def test_what_is_caught_and_what_is_let_through_add_up(judged: list[tuple[Cell, Card]]) -> None:
    for found in (_card(judged, "badnets", "corner_watch").metrics, _card(judged, None, "corner_watch", "pgd").metrics):
        assert found["residual_asr"][0] == pytest.approx(found["successful"][0] * (1 - found["tpr"][0]))
        assert found["tpr_5"][0] >= found["tpr"][0]
        assert found["fpr_5"][0] >= found["fpr"][0]


def test_a_blind_detector_finds_nothing(judged: list[tuple[Cell, Card]]) -> None:
    found = _card(judged, "badnets", "corner_watch:blind=true").metrics
    assert found["tpr"][0] == found["fpr"][0] == 0.0
    assert found["auroc"] == 0.5


def test_on_a_clean_model_a_detector_has_false_alarms_only(judged: list[tuple[Cell, Card]]) -> None:
    assert set(_card(judged, None, "corner_watch").metrics) == {"fpr", "fpr_5"}


def test_adversarial_examples_count_when_they_fool(judged: list[tuple[Cell, Card]]) -> None:
    for evasion in ("pgd", "detector_pgd"):
        card = _card(judged, None, "corner_watch", evasion)
        assert card.metrics["successful"][0] > 0.3
        assert {"tpr", "tpr_all", "auroc"} <= set(card.metrics)


def test_a_screen_that_knows_the_trigger_ranks_all_poison_first(judged: list[tuple[Cell, Card]]) -> None:
    found = _card(judged, "badnets", "corner_screen").metrics
    assert found["auroc"] > 0.999
    assert found["precision_top"][0] == 1.0


@pytest.mark.parametrize(
    ("defense", "infected", "clean"), [("teller", True, False), ("teller:target=3", False, False), ("teller:infected=false", False, True)]
)
def test_an_inspector_is_right_when_verdict_and_class_are(
    judged: list[tuple[Cell, Card]], defense: str, infected: bool, clean: bool
) -> None:
    assert _card(judged, "badnets", defense).metrics["right"] is infected
    assert _card(judged, None, defense).metrics["right"] is clean


def test_a_repair_that_does_nothing_changes_nothing(judged: list[tuple[Cell, Card]]) -> None:
    found = _card(judged, "badnets", "nothing").metrics
    for name in ("clean_accuracy", "clean_accuracy_attacked", "asr", "recovered_accuracy", "robust fgsm:eps=0.1"):
        assert found[name] == found[f"{name}_before"]
    assert found["der"] == 0.5
    assert found["asr_reactivated"][0] > 0.8
    assert found["asr_reactivated_twin"][0] < found["asr_reactivated"][0]


def test_a_repair_gets_the_verdict_it_was_promised(judged: list[tuple[Cell, Card]]) -> None:
    assert _card(judged, "badnets", "teller+nothing:needs_verdict=true").status == "done"


def test_what_breaks_leaves_a_card_that_says_why(judged: list[tuple[Cell, Card]]) -> None:
    card = _card(judged, "badnets", "nothing:broken=true")
    assert (card.status, card.reason) == ("failed", "RuntimeError: it broke")


def test_a_dead_attack_is_called_dead_and_no_defense_is_run_on_it(judged: list[tuple[Cell, Card]]) -> None:
    undefended = _card(judged, "blend", "none")
    assert undefended.status == "dead"
    assert "success rate" in undefended.reason
    assert "asr" in undefended.metrics
    for defense in ("corner_watch", "nothing:broken=true", "teller+nothing:needs_verdict=true"):
        card = _card(judged, "blend", defense)
        assert (card.status, card.metrics) == ("dead", {})


def test_the_undefended_card_holds_the_floor_and_the_cost(judged: list[tuple[Cell, Card]]) -> None:
    found = _card(judged, "badnets", "none").metrics
    assert found["asr_twin"][0] < 0.3 < 0.85 < found["asr"][0]
    assert abs(found["accuracy_cost"]) < 0.1
    assert "asr" not in _card(judged, None, "none").metrics


def test_a_trainer_is_compared_with_the_victim(judged: list[tuple[Cell, Card]]) -> None:
    found = _card(judged, "badnets", next(c.config["defense"] for c, _ in judged if c.config.get("role") == "trainer")).metrics
    assert found["clean_accuracy"] != found["clean_accuracy_before"]
    assert 0 <= found["der"] <= 1


def test_what_a_trainer_says_it_saw_is_judged(judged: list[tuple[Cell, Card]]) -> None:
    card, clean = _card(judged, "badnets", "sorter"), _card(judged, None, "sorter")
    assert card.metrics["said"] == "one; two"
    share, precision, recall = (card.metrics[name][0] for name in ("isolated", "isolated_precision", "isolated_recall"))
    assert recall == 1 and 0.95 < precision < 1 and share * precision == pytest.approx(0.1, rel=0.01)
    assert clean.metrics["isolated"][0] == pytest.approx(share * (1 - precision), abs=0.002)
    assert clean.metrics["isolated_precision"][0] == 0 and "isolated_recall" not in clean.metrics
    assert card.curves["loss_poisoned"] == [1, 2] and 0 < card.curves["loss_others"][0] < 0.01
    assert clean.curves["loss_poisoned"] == [] and clean.metrics["clean_accuracy"] == card.metrics["clean_accuracy"]


def test_every_card_says_what_it_cost(judged: list[tuple[Cell, Card]]) -> None:
    for cell, card in judged:
        if card.status == "done":
            assert card.seconds["all"] > 0
            assert card.cost["peak_memory"] > 10**7
            if cell.kind == "judgment" and cell.config["role"] not in ("none", "trainer"):
                assert card.cost["forwards"] >= 0
            else:
                assert "forwards" not in card.cost, "nothing is counted where the victim is not asked"


def test_fit_calibration_and_test_images_are_disjoint() -> None:
    images = torch.arange(600).float().div(1000).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    parts = Protocol(fit=200, calibration=150, test=100).split(Samples(images, torch.zeros(600, dtype=torch.int64), ("a", "b")), seed=3)
    seen = [set(part.images[:, 0, 0, 0].tolist()) for part in (parts.fit, parts.calibration, parts.test)]
    assert [len(each) for each in seen] == [200, 150, 100]
    assert len(set.union(*seen)) == 450
    with pytest.raises(ValueError, match="must hold more than fit"):
        Protocol(fit=500, calibration=150).split(Samples(images, torch.zeros(600, dtype=torch.int64), ("a", "b")), seed=0)


def test_a_crafted_triggers_poison_is_kept_with_its_victim(tmp_path: Path) -> None:
    from mithridate.bench import victims

    threats = '["trojan_nn:surrogate_epochs=1,steps=5", "adap_patch"]'
    cells = cells_of(
        tmp_path,
        threats=threats,
        trainer='"plain:epochs=1"',
        defenses='["spectral_signature"]',
        rates="[0.1]",
        waived="{ rates = 'a test' }",
    )
    cell = next(cell for cell in cells if (cell.config["attack"] or "").startswith("trojan_nn"))
    store = bench.Store(tmp_path / "store")
    assert worker.work(store.folder, [cell])[0].status == "done"
    kept, truth = victims.training_set(victims.load(store.files(cell.key), cell.config), cell.config)
    (store.files(cell.key) / victims.POISON).unlink()
    again, same = victims.training_set(victims.load(store.files(cell.key), cell.config), cell.config)
    assert torch.equal(kept.images, again.images)
    assert torch.equal(kept.labels, again.labels)
    assert truth is not None and same is not None
    assert torch.equal(truth.poisoned, same.poisoned)
    assert (store.files(cell.key) / victims.LOOK).read_bytes().startswith(b"\x89PNG")
