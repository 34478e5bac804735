"""Plans: what they say, what they may not say, and the cells that come of them."""

from __future__ import annotations

import ast
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from grid_plans import SMALL, cells_of, write_plan
from mithridate import bench
from mithridate.bench import code, grid
from mithridate.bench.cell import Cell
from mithridate.bench.ready import check
from mithridate.bench.victims import dataset_of
from mithridate.errors import BadFile, BadSpec
from mithridate.methods import parse
from mithridate.report.grid_published import published

GRIDS = sorted((Path(__file__).parents[1] / "grids").glob("*.toml"))


def _by(cells: list[Cell], **wanted: object) -> list[Cell]:
    return [cell for cell in cells if all(cell.config.get(name) == value for name, value in wanted.items())]


def test_every_defense_meets_every_threat_that_concerns_it(tmp_path: Path) -> None:
    cells = cells_of(tmp_path)
    victims = [cell for cell in cells if cell.kind == "victim"]
    assert [(v.config["attack"], v.config["dose"].get("rate")) for v in victims] == [(None, None), ("badnets", 0.1), ("badnets", 0.15)]
    judged = Counter((cell.config["role"], cell.config["evasion"] is None) for cell in cells if cell.kind == "judgment")
    assert judged == {
        ("none", True): 3,
        ("detector", True): 3,
        ("detector", False): 2,
        ("screen", True): 3,
        ("inspector", True): 3,
        ("repair", True): 3,
        ("trainer", True): 3,
    }


def test_a_data_set_can_have_a_trainer_of_its_own(tmp_path: Path) -> None:
    two = {"datasets": '["digits", "mnist"]'}
    plain = {cell.key: cell.config["dataset"] for cell in cells_of(tmp_path, **two)}
    own = cells_of(tmp_path, **two, trainers='{ mnist = "plain:epochs=2" }')
    assert {(cell.config["dataset"], cell.config["trainer"]) for cell in own} == {
        ("digits", "plain:epochs=12,lr=0.05"),
        ("mnist", "plain:epochs=2"),
    }
    assert {plain[cell.key] for cell in own if cell.key in plain} == {"digits"}
    with pytest.raises(BadSpec, match="trainers must name data sets among digits, got 'gtsrb'"):
        cells_of(tmp_path, trainers='{ gtsrb = "plain" }')


def _folder(place: Path) -> Path:
    """Class folders with images of two sizes."""
    for i in range(20):
        path = place / "photos" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + i % 2, 12), (10 * i, 0, 0)).save(path)
    return place / "photos"


def test_images_of_differing_sizes_are_resized_where_the_plan_says_to_what(tmp_path: Path) -> None:
    datasets = f'["{_folder(tmp_path)}"]'
    with pytest.raises(ValueError, match="size"):
        check(cells_of(tmp_path, datasets=datasets))
    cells = cells_of(tmp_path, datasets=datasets, size="[9, 8]")
    assert {tuple(cell.config["size"]) for cell in cells} == {(9, 8)}
    assert dataset_of(cells[0].config).test.images.shape[2:] == (9, 8)
    assert all("size" not in cell.config for cell in cells_of(tmp_path))


def test_cells_come_after_the_ones_they_need(tmp_path: Path) -> None:
    seen: set[str] = set()
    for cell in cells_of(tmp_path, defenses='["neural_cleanse+aft"]'):
        assert set(cell.needs.values()) <= seen
        seen.add(cell.key)


def test_defenses_run_on_the_clean_twin_too(tmp_path: Path) -> None:
    clean = _by(cells_of(tmp_path), attack=None, evasion=None)
    assert {cell.config.get("defense") for cell in clean if cell.kind == "judgment"} >= {"none", "kde", "aft:epochs=2"}


def test_a_planter_is_not_asked_about_training_data(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, threats='["input_aware:epochs=1", "adap_patch"]')
    roles = {cell.config["role"] for cell in cells if cell.kind == "judgment" and (cell.config["attack"] or "").startswith("input_aware")}
    assert roles == {"none", "detector", "inspector", "repair"}


def test_a_detector_is_not_asked_about_attacks_it_learned_from(tmp_path: Path) -> None:
    told = {"threats": '["badnets", "pgd:eps=0.1", "cw", "detector_pgd:eps=0.1"]'}
    told["defenses"] = '["lid", "lid:supervised=true", "unified:detectors=kde,[lid:supervised=true]", "unified:detectors=kde,lid"]'
    asked = Counter((cell.config["defense"], cell.config["evasion"]) for cell in cells_of(tmp_path, **told) if cell.config.get("evasion"))
    assert {defense for defense, evasion in asked if evasion == "pgd:eps=0.1"} == {"lid", "unified:detectors=kde,lid"}
    assert Counter(evasion for _, evasion in asked) == {"pgd:eps=0.1": 2, "cw": 4, "detector_pgd:eps=0.1": 4}


def test_the_victims_own_trainer_is_no_further_defense(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, defenses='["plain:epochs=12,lr=0.05", "kde"]')
    assert {cell.config["role"] for cell in cells if cell.kind == "judgment"} == {"none", "detector"}


def test_a_pattern_means_all_methods_that_match(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, threats='["adap_*"]')
    assert {cell.config["attack"] for cell in cells} == {None, "adap_blend", "adap_patch"}


def test_a_threat_may_have_rates_and_a_dose_of_its_own(tmp_path: Path) -> None:
    threats = '[{ method = "badnets", rates = [0.3], target = "all-to-all" }, { method = "adap_patch", sources = [1, 2] }]'
    cells = [cell for cell in cells_of(tmp_path, threats=threats) if cell.kind == "victim"]
    assert [cell.config["dose"] for cell in cells] == [
        {},
        {"target": "all-to-all", "rate": 0.3},
        {"target": 0, "sources": [1, 2], "rate": 0.1},
        {"target": 0, "sources": [1, 2], "rate": 0.15},
    ]


def test_a_size_takes_the_place_of_the_defaults(tmp_path: Path) -> None:
    plan = bench.read(write_plan(tmp_path), "half")
    assert plan.rates == (0.1,)
    assert plan.waived == {"rates": "a test"}
    assert len(bench.cells(plan)) < len(bench.cells(bench.read(write_plan(tmp_path))))


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("datasets", "[]", "datasets must hold at least one entry"),
        ("datasets", "", "datasets must be given"),
        ("rates", "[0.1]", "rates must hold at least two poison rates"),
        ("rates", "['a']", "rates.0"),
        ("seeds", "3", "seeds"),
        ("threat", "['badnets']", "no entry 'threat'; did you mean threats"),
        ("threats", "['badnets']", "threats must hold an adaptive attack"),
        ("threats", "['bad_nets', 'adap_patch']", "'bad_nets' is unknown; did you mean badnets"),
        ("threats", "['kde', 'adap_patch']", "'kde' is a detector"),
        ("threats", "['zz*']", "pattern 'zz*' matches no trigger"),
        ("threats", "[{ method = 'badnets', rate = [0.1] }]", "did you mean rates"),
        ("defenses", "['badnets']", "'badnets' is a trigger"),
        ("defenses", "['kde:bandwith=3']", "did you mean bandwidth"),
        ("defenses", "['kde+aft']", "inspector 'kde' is unknown"),
        ("waived", "{ seeds = 'no' }", "waived must name rules among rates, adaptive, got 'seeds'"),
        ("protocol.calibration", "20", "calibration must be at least 99"),
    ],
)
def test_a_bad_plan_is_refused_in_one_clear_line(tmp_path: Path, entry: str, value: str, said: str) -> None:
    text = SMALL.replace("calibration = 110\n", "calibration = 20\n") if "." in entry else SMALL
    changes = {} if "." in entry else {entry: value}
    with pytest.raises((BadSpec, ValueError), match=said.replace("[", r"\[").replace("*", r"\*")) as caught:
        cells_of(tmp_path, text, **changes)
    assert "\n" not in str(caught.value)


def test_what_is_no_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"none\.toml: not a plan"):
        bench.read(tmp_path / "none.toml")
    with pytest.raises(BadSpec, match="size 'big' is unknown; known: half"):
        bench.read(write_plan(tmp_path), "big")


def test_one_changed_field_changes_only_what_depends_on_it(tmp_path: Path) -> None:
    before, after = (
        cells_of(tmp_path),
        cells_of(tmp_path, defenses=SMALL.partition("defenses = ")[2].partition("\n")[0].replace("kde", "kde:least=6")),
    )
    changed = {cell.key for cell in before} ^ {cell.key for cell in after}
    assert changed
    assert all(cell.config["role"] == "detector" for cell in [*before, *after] if cell.key in changed)
    victims = {cell.key for cell in before if cell.kind == "victim"}
    longer = cells_of(tmp_path, trainer='"plain:epochs=9"')
    assert victims.isdisjoint(cell.key for cell in longer)


def test_a_further_defense_trains_no_victim(tmp_path: Path) -> None:
    finished = {cell.key for cell in cells_of(tmp_path, defenses='["kde"]')}
    further = [cell for cell in cells_of(tmp_path, defenses='["kde", "aft", "neural_cleanse+aft"]') if cell.key not in finished]
    assert len(further) == 3 * 3
    assert all(cell.kind == "judgment" for cell in further)


def test_another_seed_is_another_repetition(tmp_path: Path) -> None:
    one, two = cells_of(tmp_path), cells_of(tmp_path, seeds="[0, 1]")
    assert len(two) == 2 * len(one)
    assert {cell.key for cell in one} < {cell.key for cell in two}


def test_ones_own_images_are_part_of_the_key(tmp_path: Path) -> None:
    keys = []
    for data in (b"one", b"two"):
        (tmp_path / "own.npz").write_bytes(data)
        keys.append(cells_of(tmp_path, datasets=f'["{tmp_path / "own.npz"}"]')[0].key)
        _forget()
    assert keys[0] != keys[1]


def _with_source(monkeypatch: pytest.MonkeyPatch, module: str, change: tuple[str, str]) -> None:
    """Pretend that the source of a module reads otherwise."""
    plain = code._tree

    def changed(name: str) -> ast.Module:
        text = ast.unparse(plain(name))
        assert name != module or change[0] in text
        return ast.parse(text.replace(*change)) if name == module else plain(name)

    monkeypatch.setattr(code, "_tree", changed)
    _forget()


@pytest.fixture(autouse=True)
def _fresh_fingerprints() -> Iterator[None]:
    """What one test makes of the sources is forgotten before the next."""
    yield
    _forget()


def _forget() -> None:
    for cached in (code._reached, code._imports, code._module, code._digest, grid._content):
        cached.cache_clear()


def test_a_change_of_a_methods_code_runs_only_its_cells_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {cell.key: cell for cell in cells_of(tmp_path)}
    _with_source(monkeypatch, "mithridate.defenses.detectors.kde", ("0.001", "0.002"))
    after = {cell.key: cell for cell in cells_of(tmp_path)}
    gone = [cell for key, cell in before.items() if key not in after]
    assert gone
    assert all(cell.config["defense"] == "kde" for cell in gone)


def test_a_change_of_shared_code_reaches_every_method_that_uses_it() -> None:
    reached = code._reached("mithridate.defenses.screens.spectral_signature")
    assert "mithridate.analysis.spectral" in reached
    assert not any(name.startswith("mithridate.nn") for name in reached)


def test_docstrings_are_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    method = parse("kde")
    before = code.fingerprint(method)
    _with_source(monkeypatch, "mithridate.defenses.detectors.kde", ("Kernel density of the predicted class", "Something else"))
    assert code.fingerprint(method) == before


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", ["small", "paper"])
def test_the_papers_plans_are_sound(path: Path, size: str) -> None:
    plan = bench.read(path, size)
    cells = bench.cells(plan)
    assert len(published(plan.published)) == len(plan.published), "what others found can be shown beside ours"
    assert len(cells) > 20
    assert len({cell.key for cell in cells}) == len(cells)


def test_the_plan_in_the_docs_is_sound(tmp_path: Path) -> None:
    text = (GRIDS[0].parents[1] / "docs" / "bench.md").read_text()
    (tmp_path / "grid.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    whole, small = (bench.cells(bench.read(tmp_path / "grid.toml", size)) for size in (None, "small"))
    assert len(whole) == 3 * len(small)


def test_there_is_a_plan_for_every_paper_and_two_of_our_own() -> None:
    assert {path.stem for path in GRIDS} == {"core", "detection", "jin2020", "pud2024", "abl2021", "linf2020", "mmd2021"}
    for path in GRIDS:
        for told in tomllib.loads(path.read_text()).get("published", []):
            assert told["source"] in ("published", "independent")
            assert told["where"]


def test_a_hundred_thousand_cells_are_planned_in_seconds(tmp_path: Path) -> None:
    seeds = str(list(range(400)))  # a tenth of the cells, in ten times the share of the time, for busy machines
    begun = time.process_time()
    cells = cells_of(tmp_path, seeds=seeds)
    assert len(cells) == 400 * 23
    assert time.process_time() - begun < 10
