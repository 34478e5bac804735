"""`mithridate bench` as people use it, on the embedded digits."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grid_plans import write_plan
from mithridate.bench import Store
from mithridate.cli.main import main

MINI = """
title = "mini"
datasets = ["digits"]
models = ["lenet"]
trainer = "plain:epochs=2,lr=0.05"
rates = [0.1]
waived = { rates = "a test", adaptive = "a test" }
threats = ["badnets"]
defenses = ["spectral_signature", "kde:least=400"]

[protocol]
fit = 150
calibration = 110
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of `mithridate ARGUMENTS` in this process."""
    monkeypatch.setattr(sys, "argv", ["mithridate", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The plan and the store of a finished grid, run in processes of its own."""
    folder = tmp_path_factory.mktemp("grid")
    plan = write_plan(folder, MINI)
    command = [sys.executable, "-c", "from mithridate.cli.main import main; main()", "bench", "run", plan, "--workers", "1"]
    finished = subprocess.run(
        [*map(str, command), "--store", str(folder / "store"), "--watch", str(folder / "watch.html")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert "8 of 8 cells" in finished.stderr
    return plan, folder / "store"


def test_a_run_leaves_a_card_for_every_cell_and_a_page(done: tuple[Path, Path]) -> None:
    plan, store = done
    rows = list(Store(store).rows())
    assert len(rows) == 8
    assert {"done", "failed"} <= {row["status"] for row in rows}
    page = (plan.parent / "watch.html").read_text()
    assert "8 of 8 cells" in page
    assert "least" in page
    assert 'http-equiv="refresh"' not in page


def test_a_failed_cell_is_a_card_with_its_reason(done: tuple[Path, Path]) -> None:
    failed = [row for row in Store(done[1]).rows() if row["status"] == "failed"]
    assert failed
    assert all("clean must hold at least 400 images, got 150" in row["reason"] for row in failed)


def test_a_second_run_does_nothing(done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plan, store = done
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.json")}
    assert run(monkeypatch, "bench", "run", plan, "--store", store, "--workers", 1) == 0
    assert "8 of them from before" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.json")} == before


def test_the_overview_knows_what_is_done(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, store = done
    assert run(monkeypatch, "bench", "plan", plan, "--store", store) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["all", "8", "8", "0", "0.0"]
    assert run(monkeypatch, "bench", "plan", plan, "--store", store.parent / "elsewhere") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["all", "8", "0", "8"]


def test_retry_forgets_failed_cells_only(done: tuple[Path, Path], tmp_path: Path) -> None:
    from mithridate import bench
    from mithridate.cli.grids import forget_failed

    shutil.copytree(done[1], tmp_path / "store")
    store = Store(tmp_path / "store")
    forget_failed(bench.cells(bench.read(done[0])), store)
    assert {row["status"] for row in store.rows()} <= {"done", "dead"}
    assert 0 < len(store.keys()) < 8


def test_rows_are_of_the_cards_that_are_there_now(done: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(done[1], tmp_path / "store")
    store = Store(tmp_path / "store")
    before = {row["key"]: row for row in store.rows()}
    failed = next(key for key, row in before.items() if row["status"] == "failed")
    other = next(key for key, row in before.items() if row["status"] != "failed")
    store.forget(failed)
    store.write(failed, store.read(other))  # as a retry does
    store.forget(other)
    with (tmp_path / "store" / ".index.jsonl").open("a") as index:
        index.write('["cut sho\n3\n[1, 2]\n')
    now = {row["key"]: row for row in store.rows()}
    assert now.keys() == before.keys() - {other}
    assert now[failed]["status"] == before[other]["status"]
    (tmp_path / "store" / ".index.jsonl").unlink()
    assert {row["key"]: row for row in store.rows()} == now


def test_questions_are_answered_in_sql(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    question = "SELECT attack, rate, asr, asr_low FROM cards WHERE kind = 'victim' AND attack IS NOT NULL"
    assert run(monkeypatch, "bench", "query", done[1], question, "--csv") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head == "attack,rate,asr,asr_low"
    assert row.startswith("badnets,0.1,")
    assert run(monkeypatch, "bench", "query", done[1], "SELECT * FROM read_csv('/etc/passwd')") == 2
    assert run(monkeypatch, "bench", "query", done[1], "SELEC 1") == 2
    assert all(line.startswith("mithridate: query: ") for line in capsys.readouterr().err.splitlines())


def test_the_table_goes_into_parquet(done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run(monkeypatch, "bench", "query", done[1], "--parquet", tmp_path / "cards.parquet") == 0
    table = parquet.read_table(tmp_path / "cards.parquet")
    assert table.num_rows == 8
    assert {"key", "attack", "clean_accuracy", "seconds_all", "peak_memory"} <= set(table.column_names)


def test_merging_is_copying(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = [tmp_path / "a", tmp_path / "b"]
    for i, key in enumerate(sorted(Store(done[1]).keys())):
        part = Store(halves[i % 2])
        part.write(key, Store(done[1]).read(key))
    assert run(monkeypatch, "bench", "merge", tmp_path / "whole", *halves, halves[0]) == 0
    assert Store(tmp_path / "whole").keys() == Store(done[1]).keys()
    assert capsys.readouterr().err.splitlines()[-1].startswith("0 cards from")


def test_victims_made_before_are_adopted(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ("infect", "--dataset", "digits", "--model", "lenet", "--epochs", 2, "--trainer.lr", 0.05, "--quiet")
    assert run(monkeypatch, *made, "--trigger", "badnets", "--rate", 0.1, "--out", tmp_path / "victims" / "one") == 0
    assert run(monkeypatch, *made, "--trigger", "badnets", "--rate", 0.2, "--out", tmp_path / "victims" / "two") == 0
    assert run(monkeypatch, "bench", "adopt", done[0], tmp_path / "victims", "--store", tmp_path / "store") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "1 victims adopted"
    (key,) = Store(tmp_path / "store").keys()
    mine, theirs = Store(tmp_path / "store").read(key), Store(done[1]).read(key)
    assert mine.metrics == theirs.metrics
    assert mine.config == theirs.config
    assert (Store(tmp_path / "store").files(key) / "look.png").read_bytes() == (Store(done[1]).files(key) / "look.png").read_bytes()


def test_a_pack_runs_elsewhere_without_training_again(done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan, store = done
    assert run(monkeypatch, "bench", "pack", plan, "--store", store, "--out", tmp_path / "parts") == 0
    parts = sorted((tmp_path / "parts").glob("pack.*"))
    assert all(part.stat().st_size <= 60 * 10**6 for part in parts)
    there = tmp_path / "there"
    there.mkdir()
    (there / "whole.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    shutil.unpack_archive(there / "whole.tar", there, filter="data")
    assert Store(there / "store").keys() == Store(store).keys()
    measured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # the copy is not to be measured
    environment = measured | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    finished = subprocess.run(
        ["bash", "go.sh", "1", "--workers", "1"], cwd=there, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "8 of them from before" in finished.stderr


def test_a_run_stops_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_plan(tmp_path, MINI, trainer='"plain:epochs=5000,lr=0.05"')
    begun = time.monotonic()
    assert run(monkeypatch, "bench", "run", plan, "--store", tmp_path / "store", "--workers", 1, "--minutes", 0.3) == 0
    assert 15 < time.monotonic() - begun < 60
    assert "0 of 8 cells (none), 0 of them from before" in capsys.readouterr().err
    assert len(list((tmp_path / "store").rglob("checkpoint.safetensors"))) == 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "PLAN", "--engine", "clowd"), "engine 'clowd' is unknown; known: local, slurm, ray"),
        (("run", "PLAN", "--minutes", "0"), "minutes must be positive, got 0"),
        (("run", "PLAN", "--workers", "0"), "workers must be at least 1, got 0"),
        (("run", "PLAN", "--slice", "3/2"), "slice must be i/n with 1 <= i <= n, such as 1/4, got '3/2'"),
        (("run", "none.toml"), "none.toml: not a plan"),
        (("plan", "PLAN", "--size", "big"), "size 'big' is unknown"),
        (("query", "nowhere"), "nowhere: no cards in it"),
        (("merge", "here", "nowhere"), "nowhere: no cards in it"),
        (("adopt", "PLAN", "nowhere"), "nowhere: no victim of mithridate infect in it"),
    ],
)
def test_wrong_use_gets_one_clear_line(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = write_plan(tmp_path, MINI)
    assert run(monkeypatch, "bench", *(str(plan) if each == "PLAN" else each for each in arguments)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("mithridate: ")
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "run"])
def test_images_too_few_for_the_protocol_are_named_before_any_training(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_plan(tmp_path, MINI.replace("fit = 150", "fit = 1000"))
    assert run(monkeypatch, "bench", command, plan, "--store", tmp_path / "store") == 2
    assert "protocol: test set must hold more than fit + calibration = 1110 images, got 500 in digits" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_plan_can_be_read_where_the_images_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MITHRIDATE_DATA", str(tmp_path / "nothing"))
    plan = write_plan(tmp_path, MINI.replace('"digits"', '"gtsrb"'))
    assert run(monkeypatch, "bench", "plan", plan, "--store", tmp_path / "store") == 0


def test_slices_share_the_victims_and_cover_the_grid(done: tuple[Path, Path]) -> None:
    from mithridate import bench
    from mithridate.cli.grids import sliced

    cells = bench.cells(bench.read(done[0]))
    parts = [sliced(cells, f"{i}/2") for i in (1, 2)]
    assert {cell.key for part in parts for cell in part} == {cell.key for cell in cells}
    for part in parts:
        keys = {cell.key for cell in part}
        assert all(set(cell.needs.values()) <= keys for cell in part)


def test_a_card_read_from_json_says_what_it_is(done: tuple[Path, Path]) -> None:
    for path in (done[1] / "cards").rglob("*.json"):
        told = json.loads(path.read_text())
        assert told["kind"] in ("victim", "judgment")
        assert told["versions"]["torch"]
