"""The page of results says what the cards say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import abl_tables
import detector_tables
import grid_tables
import published_tables
import results_docs
from mithridate.bench import Store
from mithridate.calibrate import threshold
from mithridate.card import Card

Row = Mapping[str, Any]


def test_the_pages_are_up_to_date() -> None:
    results, readme = results_docs.ROOT / "results", results_docs.README.read_text("utf-8")
    assert results_docs.PAGE.read_text("utf-8") == results_docs.page(results), "run python tools/results_docs.py"
    assert readme == results_docs.readme(readme, results), "run python tools/results_docs.py"


def test_a_card_becomes_a_row_and_a_wrong_verdict_stands_out(tmp_path: Path) -> None:
    repair = {"clean_accuracy_before": 0.9, "clean_accuracy_after": 0.8}
    metrics = {"true_target": 3, "infected": False, "target": None, "right": False, "p_value": 0.25, "truth": None, "repair": repair}
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits" / "one.json").write_text(json.dumps({"config": {"model": "missed"}, "metrics": metrics, "seconds": {"all": 90}}))
    assert "| missed | class 3 | not infected | **no** | 0.25 | 90.0% | 80.0% | - | - | - | - | - | - | 1.5 |" in results_docs.page(
        tmp_path
    )


def test_a_dead_attack_stands_out_beside_its_twin(tmp_path: Path) -> None:
    (tmp_path / "victims").mkdir()
    shared = {"dataset": "d", "architecture": "a", "trainer": {"epochs": 3}, "seed": 0, "target": 0}
    cards = [
        ({"trigger": None, "rate": 0}, {"clean_accuracy": [0.9, 0.89, 0.91]}),
        ({"trigger": "sig", "rate": 0.05, "clean_label": True}, {"clean_accuracy": [0.84, 0.8, 0.9], "asr": [0.5, 0.4, 0.6]}),
        ({"trigger": "tact", "rate": 0.1, "sources": [1], "target": [1, 0]}, {"clean_accuracy": [0.9, 0.8, 1], "asr": [0.99, 0.9, 1]}),
    ]
    for i, (config, metrics) in enumerate(cards):
        (tmp_path / "victims" / f"{i}.json").write_text(json.dumps({"config": shared | config, "metrics": metrics, "seconds": {}}))
    page = results_docs.page(tmp_path)
    assert (
        "| d | a | 3 | `sig` (clean label) | 0.05 | 84.0% [80.0%, 90.0%] | 6.0 | 50.0% [40.0%, 60.0%] | - | - | **dead** (ASR, cost) |"
        in page
    )
    assert "| `tact` (all-to-all; sources 1) | 0.1 | 90.0% [80.0%, 100.0%] | 0.0 | 99.0% [90.0%, 100.0%] | - | - | yes |" in page
    assert "| none (clean twin) | - | 90.0% [89.0%, 91.0%] | - | - | - | - | - |" in page


def _judged(attack: str | None, defense: str, role: str, status: str = "done", **metrics: object) -> Row:
    config = {"dataset": "d", "model": "m", "attack": attack, "dose": {"rate": 0.1} if attack else {}, "evasion": None}
    return {"kind": "judgment", "status": status, "config": config | {"defense": defense, "role": role}, "metrics": metrics}


def test_a_grids_table_shows_the_dead_and_the_failed_and_averages_neither() -> None:
    def share(value: float) -> list[float]:
        return [value, 0.0, 1.0]

    model = {"clean_accuracy": share(0.9), "asr": share(1.0)}
    rows = [
        _judged(None, "none", "none", clean_accuracy=share(0.95)),
        _judged(None, "kde", "detector", fpr=share(0.02)),
        _judged("sig", "none", "none", **model),
        _judged("sig", "none", "none", clean_accuracy=share(0.8), asr=share(0.9)),  # a second seed
        _judged("sig", "kde", "detector", tpr=share(0.75), fpr=share(0.01), successful=share(1)),
        _judged("blend", "none", "none", **model),
        _judged("blend", "kde", "detector", "failed"),
        _judged("wanet", "none", "none", "dead", **model),
        _judged("wanet", "kde", "detector", "dead"),
    ]
    ((title, heads, body),) = grid_tables.tables(rows)
    assert title == "d m"
    assert heads == ["threat", "rate", "`none`", "`kde`"]
    assert body == [
        ["none (clean twin)", "-", "95.0", "2.0"],
        ["`blend`", "0.1", "90.0 / 100.0", "**failed**"],
        ["`sig`", "0.1", "85.0 ± 7.1 / 95.0 ± 7.1 (n = 2)", "75.0 at 1.0"],
        ["`wanet`", "0.1", "**dead** (90.0 / 100.0)", "**dead**"],
        ["mean over 1 of 3", "0.1", "85.0 / 95.0", "75.0 at 1.0"],
    ]


def test_a_column_with_a_gap_has_no_mean_and_takes_none_from_the_others() -> None:
    def model(attack: str, defense: str, asr: float) -> Row:
        return _judged(attack, defense, "trainer", clean_accuracy=[0.9, 0, 1], asr=[asr, 0, 1])

    rows = [model("sig", "plain", 1.0), model("blend", "plain", 0.5), model("sig", "abl", 0.25)]
    ((_, _, body),) = grid_tables.tables(rows)
    assert body[-1] == ["mean over 2 of 2", "0.1", "-", "90.0 / 75.0"]


def test_a_grids_summary_names_each_defenses_worst_attack_and_counts_the_living_only() -> None:
    def backdoor(attack: str | None, clean_accuracy: float, asr: float | None, status: str = "done") -> Row:
        found = {"clean_accuracy": [clean_accuracy, 0, 1]} | ({} if asr is None else {"asr": [asr, 0, 1]})
        return _judged(attack, "aft", "repair", status, **found)

    rows = [
        backdoor(None, 0.9, None),
        backdoor("sig", 0.8, 0.25),
        backdoor("blend", 0.9, 0.75),
        backdoor("wanet", 0.1, 1.0, "dead"),
        _judged(None, "inspect", "inspector", right=False),
        _judged("sig", "inspect", "inspector", right=True),
        _judged("blend", "inspect", "inspector", right=False),
        _judged("sig", "kde", "detector", tpr=[0.5, 0, 1], fpr=[0.01, 0, 1]),
        _judged("blend", "kde", "detector", tpr=[0.25, 0, 1], fpr=[0.03, 0, 1]),
    ]
    heads, body = grid_tables.summary(rows)
    assert heads == ["defense", "d m: mean", "d m: worst", "d m: clean twin"]
    assert body == [
        ["`aft`", "85.0 / 50.0 (n = 2)", "90.0 / 75.0 (`blend` 0.1)", "90.0"],
        ["`kde`", "37.5 at 2.0 (n = 2)", "25.0 at 3.0 (`blend` 0.1)", "-"],
        ["`inspect`", "1 of 2 (n = 2)", "**no** (`blend` 0.1)", "**no**"],
    ]


def test_detectors_are_ranked_over_backdoors_and_adversarial_examples_together() -> None:
    def seen(threat: str, auroc: float, tpr: float, status: str = "done", *, evasion: bool = False) -> Row:
        rates = {"tpr": [tpr, 0, 1], "fpr": [0.01, 0, 1], "tpr_5": [2 * tpr, 0, 1], "fpr_5": [0.06, 0, 1]}
        row = _judged(None if evasion else threat, "kde", "detector", status, auroc=auroc, **rates)
        row["config"].update({"evasion": threat} if evasion else {})
        return row

    rows = [
        _judged(None, "kde", "detector", fpr=[0.02, 0, 1], fpr_5=[0.05, 0, 1]),  # false alarms only
        seen("sig", 1.0, 0.5),
        seen("sig", 0.9, 0.3),  # a second seed
        seen("pgd", 0.55, 0.2, evasion=True),
        seen("wanet", 0.0, 0.0, "dead"),
    ]
    heads, body = grid_tables.detectors(rows)
    assert len(heads) == len(body[0])
    assert body == [["d", "m", "`kde`", "2", "0.750", "0.550 (`pgd`)", "30.0 at 1.0", "60.0 at 6.0"]]


def test_only_what_is_between_the_markers_of_the_readme_is_written(tmp_path: Path) -> None:
    begin = results_docs.BEGIN.format("core")
    text = f"before {begin}stale{results_docs.END} after"
    written = results_docs.readme(text, tmp_path)
    assert "stale" not in written
    assert written.startswith(f"before {begin}\n")
    assert written.endswith(f"\n{results_docs.END} after")
    assert results_docs.readme(written, tmp_path) == written


def test_a_stale_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_docs, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(results_docs, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"{results_docs.BEGIN.format('core')}stale{results_docs.END}")
    monkeypatch.setattr("sys.argv", ["results_docs.py", "--check"])
    assert results_docs.main() == 1
    monkeypatch.setattr("sys.argv", ["results_docs.py"])
    assert results_docs.main() == 0
    monkeypatch.setattr("sys.argv", ["results_docs.py", "--check"])
    assert results_docs.main() == 0


def _write(folder: Path, name: str, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"config": config, "metrics": metrics, "seconds": {}, "hardware": "h"}))


def test_seeds_of_the_papers_setting_become_means_with_their_ends(tmp_path: Path) -> None:
    for seed, auroc in enumerate((0.9, 1.0)):
        judged = {"auroc": auroc, "tpr_5": [auroc / 2, 0, 1]}
        found = {"fpr_5": [0.05, 0, 1], "backdoor": judged, "adversarial": judged, "mutants": {"mean": 20.0 + seed, "of": 100}}
        _write(tmp_path / "detectors", str(seed), {"dataset": "d"}, {"asr": [1.0, 0, 1], "mutation": found})
    lines = list(detector_tables.jin(tmp_path))
    assert "| d | 2 | `mutation` | 0.950 [0.900, 1.000] | 47.5 | 0.950 [0.900, 1.000] | 47.5 | 5.0 | 20 |" in lines


def test_what_detectors_cost_is_told_with_its_misses(tmp_path: Path) -> None:
    _write(
        tmp_path / "speed", "a", {}, {"lid_k20": {"times_faster_than": {"brute_force": [0.5, 0.25, 0.75]}}, "guard": {"peak_bytes": 2**29}}
    )
    _write(tmp_path / "speed", "b", {}, {"lid_k20": {"times_the_bare_pass": {"lid": [1.25, 1.0, 1.5]}}})
    lines = list(detector_tables.costs(tmp_path))
    assert "| lid k20 | brute force | 0.5 [0.25, 0.75] |" in lines
    assert "| `lid_k20` | lid | 1.25 [1, 1.5] |" in lines
    assert "| `guard` | 0.50 |" in lines


def test_what_is_isolated_and_unlearned_is_told(tmp_path: Path) -> None:
    clean = {"lowest": {"count": 5, "precision": 0.0, "recall": None}, "isolated": {"count": 0, "precision": None, "recall": None}}
    _write(tmp_path / "abl", "a", {"attack": "clean", "rate": 0.1, "loss": "lga", "epochs": 5}, clean)
    state = {"clean_accuracy": 0.8, "clean_accuracy_others": 0.75, "asr": 0.005}
    _write(tmp_path / "abl", "b", {}, {"before": state | {"asr": 1.0}, "bounded": {"kept": state, "epochs": [state, state]}})
    costs = {"times_plain_training": {"joint": [1.2, 1.1, 1.3]}, "pass_times_faster_than_published": [7, 6, 8]}
    _write(tmp_path / "speed", "abl", {"precision": "fp32"}, costs)
    lines = list(abl_tables.abl(tmp_path))
    assert "| `abl:unlearn=joint`, times plain training | 1.20 [1.10, 1.30] |" in lines
    assert "| pass that isolates, in fp32, times faster than one image at a time | 7.00 [6.00, 8.00] |" in lines
    assert "| `clean` | - | lga | 5 | 0.0% | 0 | - | - |" in lines
    assert "| before | 0 | 80.0% / 75.0% | 100.00% |" in lines
    assert "| bounded | 2 | 80.0% / 75.0% | 0.50% |" in lines


def test_false_positive_rates_are_held_against_what_few_calibration_images_allow() -> None:
    def card(one: float, five: float) -> Row:
        config = {"role": "detector", "protocol": {"calibration": 500, "test": 4000}}
        return {"status": "done", "config": config, "metrics": {"fpr": [one, 0, 1], "fpr_5": [five, 0, 1]}}

    rows = [card(0.01, 0.05), card(0.02, 0.07), card(0.022, 0.074), card(0.002, 0.03)]
    assert "2 of 4 at an asked 1%, 2 of 4 at an asked 5%" in grid_tables.realised(rows)
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(300):
        known, test = torch.rand(500, generator=generator), torch.rand(4000, generator=generator)
        drawn.append(card(*(float((test > threshold(known, asked).cut).float().mean()) for asked in (0.01, 0.05))))
    hits = [int(part.split(" of ")[0].split()[-1]) for part in grid_tables.realised(drawn).split(": ")[-1].split(",")]
    assert all(270 < count < 300 for count in hits), hits
    assert grid_tables.realised([]) == ""


def test_what_trainers_of_a_grid_isolate_is_told(tmp_path: Path) -> None:
    about = {"dataset": "d", "attack": "badnets", "dose": {"rate": 0.1}, "defense": "abl"}
    curves = {"loss_poisoned": [0.4, 0.0123], "loss_others": [2.0, 1.5]}
    found = {"isolated": [0.1, 0, 1], "isolated_precision": [0.955, 0, 1], "isolated_recall": [0.9, 0, 1]}
    store = Store(tmp_path)
    store.write("a" * 24, Card(kind="judgment", config=about, metrics=found, curves=curves))
    clean = Card(
        kind="judgment", config=about | {"attack": None, "dose": {}}, metrics={"isolated": [0, 0, 1]}, curves=curves | {"loss_poisoned": []}
    )
    store.write("b" * 24, clean)
    store.write("c" * 24, Card(kind="judgment", config=about, metrics={"asr": [0, 0, 1]}))
    assert abl_tables.isolated(store)[1] == [
        ["d", "none", "-", "`abl`", "0.0", "-", "-", "-", "2 1.5"],
        ["d", "`badnets`", "0.1", "`abl`", "10.0", "95.5", "90.0", "0.4 0.012", "2 1.5"],
    ]


def test_numbers_of_others_stand_beside_the_cells_that_come_closest(tmp_path: Path) -> None:
    told = 'paper = "P"\ndataset = "d"\nmodel = "m"\nattack = "badnets"\nrate = 0.1\nmetric = "asr"\nwhere = "t. 1"\n'
    number = f'[[published]]\nsource = "published"\n{told}value = 0.03\ndefense = '
    lines = ["datasets", "models", "threats", "defenses"]
    plan = tmp_path / "plan.toml"
    plan.write_text('title = "x"\n' + "".join(f'{name} = ["badnets"]\n' for name in lines) + f'{number}"abl"\n{number}"none"\n')

    def card(key: str, defense: str, asr: float, status: str = "done", seed: int = 0) -> Row:
        config = dict.fromkeys(("images", "trainer", "evasion", "robustness", "protocol")) | {"dataset": "d", "model": "m", "seed": seed}
        config |= {"attack": "badnets:size=2", "dose": {"rate": 0.1}, "defense": defense, "role": "trainer"}
        kind = {"key": key * 24, "kind": "judgment", "status": status, "reason": "", "versions": {}, "hardware": "", "commit": ""}
        return kind | {"config": config, "metrics": {"asr": [asr, 0, 1]}, "seconds": {}, "cost": {}}

    rows = [card("a", "abl:epochs=2", 0.2), card("b", "abl:epochs=2", 0.4, seed=1), card("c", "abl:epochs=3", 0.9, "failed")]
    rows += [card("d", "abl:epochs=3", 0.5, seed=1), card("e", "plain", 1.0)]
    page = list(published_tables.others(plan, rows))
    assert page[-3:-1] == [
        "| P, published (t. 1) | d | m | `badnets` | 0.1 | `abl` | asr | 0.030 | 0.300 (n = 2) `abl:epochs=2`; 0.500 `abl:epochs=3` | - |",
        "| P, published (t. 1) | d | m | `badnets` | 0.1 | `none` | asr | 0.030 | - | - |",
    ]
    assert list(published_tables.others(tmp_path / "none.toml", rows)) == []


def test_what_is_left_without_the_poison_is_a_row(tmp_path: Path) -> None:
    metrics = {
        "clean_accuracy": [0.85, 0.84, 0.86],
        "clean_accuracy_attacked": [0.84, 0.83, 0.85],
        "asr": [0.01, 0.005, 0.02],
        "images": 45000,
    }
    config = {"trigger": "sig:delta=40", "rate": 0.05, "clean_label": True}
    Card(kind="without poison", config=config, metrics=metrics, seconds={}).write(tmp_path / "abl" / "without-sig.json")
    rows = [line for line in abl_tables.abl(tmp_path) if line.startswith("| `sig")]
    assert rows == ["| `sig:delta=40` (clean label) | 0.05 | 45,000 | 85.0% [84.0%, 86.0%] | 84.0% [83.0%, 85.0%] | 1.0% [0.5%, 2.0%] |"]
