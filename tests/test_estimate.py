"""Estimates: by the closest relative that was ever done."""

from __future__ import annotations

import pytest

from grid_plans import cells_of
from mithridate.bench.cell import Cell
from mithridate.bench.estimate import Estimator


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    return cells_of(tmp_path_factory.mktemp("plan"), threats='["badnets", "blend", "detector_pgd:eps=0.2"]')


def _first(cells: list[Cell], **wanted: object) -> Cell:
    return next(cell for cell in cells if all(cell.config.get(name) == value for name, value in wanted.items()))


def test_what_was_done_before_tells_most_of_its_closest_kin(cells: list[Cell]) -> None:
    kde, screen = _first(cells, role="detector"), _first(cells, role="screen")
    estimator = Estimator(())
    assert estimator.seconds(kde) < estimator.seconds(cells[0]), "a guess, as nothing was ever done"
    estimator.learn(kde.kind, {**kde.config, "dataset": "gtsrb"}, 40.0)
    assert (estimator.seconds(kde), estimator.seconds(screen)) == (40.0, 40.0)
    for seconds in (1.0, 3.0, 2.0):
        estimator.learn(kde.kind, kde.config, seconds)
    assert estimator.seconds(kde) == 2.0, "the median of its very own"


def test_a_trainer_takes_as_long_as_what_made_the_victim_until_one_was_seen(cells: list[Cell]) -> None:
    victim, trainer, repair = cells[0], _first(cells, role="trainer"), _first(cells, role="repair")
    estimator = Estimator(())
    estimator.learn(repair.kind, repair.config, 5.0)
    assert estimator.seconds(trainer) == 5.0
    estimator.learn(victim.kind, victim.config, 700.0)
    assert estimator.seconds(trainer) == 700.0 and estimator.seconds(repair) == 5.0
    estimator.learn(trainer.kind, {**trainer.config, "defense": "abl"}, 900.0)
    assert estimator.seconds(trainer) == 900.0 and estimator.seconds(victim) == 700.0


def test_cards_that_are_no_result_tell_nothing(cells: list[Cell]) -> None:
    row = {"kind": "victim", "config": cells[0].config, "seconds": {"all": 9.0}, "status": "done"}
    assert Estimator([row]).seconds(cells[0]) == 9.0
    assert Estimator([row | {"status": "dead"}, row | {"seconds": {}}]).seconds(cells[0]) == Estimator(()).seconds(cells[0])
