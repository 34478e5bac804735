"""Engines: whoever does the cells, and whatever dies meanwhile, the same cards come of it."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from grid_plans import cells_of, write_plan
from mithridate import bench
from mithridate.bench.cell import Cell
from mithridate.bench.engines import Lost, Receipt, local, open_engine
from mithridate.bench.finished import finished
from mithridate.bench.perform import failed
from mithridate.bench.processes import devices
from mithridate.bench.run import ATTEMPTS, State, unwatched
from mithridate.bench.store import Store
from mithridate.bench.worker import pack, unpack
from mithridate.cli.main import main
from mithridate.errors import BadSpec, MissingExtra, MithridateError

VARYING = ("seconds", "versions", "hardware", "commit")
TINY = {
    "trainer": '"plain:epochs=4,lr=0.05"',
    "rates": "[0.1]",
    "threats": '["badnets"]',
    "defenses": '["kde", "neural_cleanse:steps=5+aft:epochs=1", "plain:epochs=1"]',
    "robustness": "[]",
    "waived": '{ rates = "a test", adaptive = "a test" }',
}


def told(store: Store) -> dict[str, Any]:
    """What a store says, without what depends on the clock and the machine: cards, and names of files."""
    found = {}
    for key in sorted(store.keys()):
        card = dataclasses.asdict(store.read(key))
        card["cost"].pop("peak_memory", None)
        files = sorted(pack(store.files(key)))
        found[key] = {name: value for name, value in card.items() if name not in VARYING} | {"files": files}
    return found


def same(one: Store, other: Store) -> bool:
    """Whether two stores hold the same results."""
    return told(one) == told(other)


def run(cells: Sequence[Cell], store: Store, engine: str = "local", watch: Callable[[State], None] = unwatched, **options: Any) -> State:
    with open_engine(engine, store.folder, **options) as opened:
        return bench.run(cells, store, opened, watch=watch)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    return cells_of(tmp_path_factory.mktemp("plan"), **TINY)


@pytest.fixture(scope="module")
def undisturbed(cells: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert run(cells, store, workers=1).counts["failed"] == 0
    assert len(store.keys()) == len(cells)
    return store


def once(after: int, act: Callable[[], object]) -> Callable[[State], None]:
    """A watch that acts when so many cells are finished and others run."""
    left = [act]

    def watch(state: State) -> None:
        if left and state.running and len(state.finished) >= after:
            left.pop()()

    return watch


def gone(pid: int, within: float = 10) -> bool:
    """Whether a process is no more, or only waits to be counted out."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.1)
    return False


def kill_a_worker() -> None:
    """The first of this process's own; it counts as killed when it is."""
    victim = multiprocessing.active_children()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)


def test_a_killed_worker_changes_nothing(cells: list[Cell], undisturbed: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    state = run(cells, store, workers=2, watch=once(2, kill_a_worker))
    assert same(store, undisturbed)
    assert state.counts["failed"] == 0 and not multiprocessing.active_children()


def test_files_that_are_gone_are_made_again_where_a_cell_has_to_read_them(cells: list[Cell], undisturbed: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in undisturbed.keys():  # noqa: SIM118 - not a dict
        store.write(key, undisturbed.read(key))  # cards alone
    assert finished(cells, store) == store.keys()
    repair = next(cell for cell in cells if cell.config.get("role") == "repair" and cell.config["attack"] is not None)
    store.forget(repair.key)
    wanted = {repair.key, *repair.needs.values()}
    assert store.keys() | wanted == undisturbed.keys() and finished(cells, store) == undisturbed.keys() - wanted
    state = run(cells, store, workers=1)
    assert {receipt.key for receipt in state.finished} == wanted and state.cached == len(cells) - len(wanted)
    again, before = told(store), told(undisturbed)
    assert again.keys() == before.keys() and all(again[key] == before[key] for key in wanted)


def test_a_finished_grid_says_how_its_cells_ended(cells: list[Cell], undisturbed: Store) -> None:
    ended = [undisturbed.read(cell.key).status for cell in cells]
    assert "dead" in ended
    assert run(cells, undisturbed, workers=1).counts == {status: ended.count(status) for status in ("done", "dead", "failed")}


def test_cards_of_victims_are_enough_to_judge_a_trainer(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, **TINY | {"trainer": '"plain:epochs=20,lr=0.05"', "defenses": '["kde", "plain:epochs=1"]'})
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "cards")
    run(cells, whole, workers=1)
    for key in whole.keys():  # noqa: SIM118 - not a dict
        store.write(key, whole.read(key))
    trainer, detector = (
        next(cell for cell in cells if cell.config.get("role") == role and "twin" in cell.needs) for role in ("trainer", "detector")
    )
    store.forget(trainer.key)
    assert [receipt.key for receipt in run(cells, store, workers=1).finished] == [trainer.key]
    again, before = store.read(trainer.key), whole.read(trainer.key)
    assert again.status == "done" and again.metrics == before.metrics
    store.forget(detector.key)  # the trainer's run left folders, which are no victims
    assert finished(cells, store) == whole.keys() - {detector.key, *detector.needs.values()}


DRIVER = """
import pickle, sys
from pathlib import Path
from mithridate import bench
from mithridate.bench.engines import open_engine

if __name__ == "__main__":
    cells, store = pickle.loads(Path(sys.argv[1]).read_bytes()), bench.Store(Path(sys.argv[2]))
    with open_engine("local", store.folder, workers=1) as engine:
        bench.run(cells, store, engine)
"""


def test_a_killed_driver_takes_its_workers_along_and_the_next_run_goes_on(cells: list[Cell], undisturbed: Store, tmp_path: Path) -> None:
    script, told_cells, store = tmp_path / "driver.py", tmp_path / "cells.pkl", Store(tmp_path / "store")
    script.write_text(DRIVER)
    told_cells.write_bytes(pickle.dumps(cells))
    driver = subprocess.Popen([sys.executable, script, told_cells, store.folder])
    while len(store.keys()) < 3 and driver.poll() is None:
        time.sleep(0.05)
    workers = [int(pid) for pid in Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()]
    driver.kill()
    driver.wait()
    assert workers and all(gone(pid) for pid in workers)
    before = len(store.keys())
    assert before < len(cells)
    assert run(cells, store, workers=1).cached == before
    assert same(store, undisturbed)


def test_an_error_outside_ends_the_workers_at_once(cells: list[Cell], tmp_path: Path) -> None:
    def stop(state: State) -> None:
        if state.finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cells, Store(tmp_path), workers=1, watch=stop)
    assert not multiprocessing.active_children()


def test_workers_that_die_as_they_begin_are_no_fault_of_the_cells(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "_serve", sys.exit)  # which takes no such arguments
    with pytest.raises(MithridateError, match="__main__"):
        run(cells, Store(tmp_path), workers=1)
    assert not Store(tmp_path).keys()
    assert "TypeError" in capfd.readouterr().err


def test_a_trainer_gets_several_processes(tmp_path: Path) -> None:
    changes = TINY | {"trainer": '"plain:epochs=1,devices=2"', "defenses": '["kde"]'}
    victim = cells_of(tmp_path, **changes)[0]
    assert victim.kind == "victim" and devices(victim) == 2
    store = Store(tmp_path)
    run([victim], store, workers=1)
    card = store.read(victim.key)
    assert card.status == "done", card.reason
    assert card.config["trainer"] == "plain:epochs=1,devices=2"
    assert {"model.safetensors", "card.json"} <= pack(store.files(victim.key)).keys()


def test_one_of_several_processes_that_fails_fails_the_cell(tmp_path: Path) -> None:
    changes = TINY | {"trainer": '"plain:epochs=1,devices=2,lr=1e30"', "defenses": '["kde"]'}
    store, victim = Store(tmp_path), cells_of(tmp_path, **changes)[0]
    run([victim], store, workers=1)
    assert store.read(victim.key).status == "failed"
    assert "loss must stay finite" in store.read(victim.key).reason


class Killing:
    """An engine whose worker dies of one cell, whatever goes with it."""

    def __init__(self, store: Store, deadly: str) -> None:
        self.store, self.deadly, self.slots, self.handful = store, deadly, 1, 1e9
        self.submitted: list[int] = []

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        self.submitted.append(len(cells))
        future: Future[list[Receipt]] = Future()
        if self.deadly in {cell.key for cell in cells}:
            future.set_exception(Lost("a worker died"))
            return future
        for cell in cells:
            self.store.write(cell.key, dataclasses.replace(failed(cell, ""), status="done"))
        future.set_result([Receipt(cell.key, "done", "", 0.0) for cell in cells])
        return future


def test_what_a_worker_dies_of_takes_no_other_cell_along(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, **TINY | {"rates": "[0.05, 0.1, 0.15, 0.2]"})
    deadly = next(cell for cell in reversed(cells) if cell.config.get("defense") == "kde")
    engine = Killing(Store(tmp_path), deadly.key)
    state = bench.run(cells, engine.store, engine)  # type: ignore[arg-type]
    assert state.counts == {"done": len(cells) - 1, "dead": 0, "failed": 1}
    assert f"{ATTEMPTS} times" in engine.store.read(deadly.key).reason
    assert max(engine.submitted) > 1, "tiny cells go several at once"


def test_a_card_that_a_power_cut_left_empty_is_none(cells: list[Cell], undisturbed: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.merge(undisturbed)
    store.card_path(cells[-1].key).write_bytes(b"")
    assert cells[-1].key not in store and len(store.keys()) == len(cells) - 1
    assert run(cells, store, workers=1).cached == len(cells) - 1
    assert same(store, undisturbed)


def test_folders_travel_as_bytes(tmp_path: Path) -> None:
    files = {"card.json": b"{}", "deep/down.bin": bytes(range(256))}
    unpack(files, tmp_path / "there")
    assert pack(tmp_path / "there") == files and pack(tmp_path / "nowhere") == {}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes of one processor on this machine."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    node = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    made = Cluster(initialize_head=True, head_node_args=node | {"_system_config": quick})
    for _ in range(2):
        made.add_node(**node)
    yield made
    ray.shutdown()
    made.shutdown()


def test_ray_gives_the_same_cards_while_a_node_dies(cells: list[Cell], undisturbed: Store, tmp_path: Path, cluster: Any) -> None:
    doomed = min(cluster.worker_nodes, key=lambda node: node.node_id)
    store = Store(tmp_path)
    state = run(cells, store, "ray", once(2, lambda: cluster.remove_node(doomed, allow_graceful=False)), address=cluster.address)
    assert state.counts["failed"] == 0
    assert same(store, undisturbed)


def test_ray_on_this_machine_alone(cells: list[Cell], undisturbed: Store, tmp_path: Path) -> None:
    ray, store = pytest.importorskip("ray"), Store(tmp_path)
    run(cells[:3], store, "ray", workers=1)
    assert not ray.is_initialized()
    whole = told(undisturbed)
    assert told(store) == {cell.key: whole[cell.key] for cell in cells[:3]}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_no_ray_cluster_at_the_address(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(BadSpec, match=f"address '{address}': no Ray cluster answers"):
        open_engine("ray", tmp_path, address=address)


@pytest.mark.filterwarnings("ignore:Exception ignored in.*DEBUG_:pytest.PytestUnraisableExceptionWarning")  # submitit leaves logs open
def test_submitit_gives_the_same_cards(cells: list[Cell], undisturbed: Store, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    store = Store(tmp_path)
    run(cells[:3], store, "slurm", cluster="local", workers=1)
    run(cells, store, "slurm", cluster="debug", workers=1)
    assert same(store, undisturbed)
    assert not list((tmp_path / "work" / "slurm").iterdir()), "logs stay only where something was lost"


def test_a_job_that_was_killed_is_lost(tmp_path: Path) -> None:
    pytest.importorskip("submitit")

    def result() -> None:
        raise RuntimeError("Job 7 has not produced any output (state: TIMEOUT)")

    job, future = types.SimpleNamespace(job_id=7, paths=types.SimpleNamespace(stderr="7.err"), result=result), Future[list[Receipt]]()
    with open_engine("slurm", tmp_path, cluster="debug") as engine:
        engine._collect(job, future)  # type: ignore[attr-defined]
    with pytest.raises(Lost, match="job 7 was lost, see 7.err.*TIMEOUT"):
        future.result()
    assert list((tmp_path / "work" / "slurm").iterdir())


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("loca", {}, "engine 'loca' is unknown; known: local, slurm, ray"),
        ("local", {"wrokers": 2}, "engine local has no option 'wrokers', got 2; known: workers"),
        ("local", {"address": "auto"}, "engine local has no option 'address', got 'auto'; known: workers"),
        ("local", {"workers": 0}, "workers must be at least 1, got 0"),
        ("ray", {"workers": 0}, "workers must be at least 1, got 0"),
        ("ray", {"gpus": -1}, "gpus must be at least 0, got -1"),
        ("slurm", {"minutes": 0}, "minutes must be at least 1, got 0"),
        ("slurm", {"workers": -3}, "workers must be at least 1, got -3"),
        ("slurm", {"cluster": "pbs"}, "cluster 'pbs' is unknown; known: slurm, local, debug"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(engine: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((BadSpec, ValueError)) as raised:
        open_engine(engine, tmp_path, **options)
    assert str(raised.value) == message


def test_no_slurm_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadSpec, match="cluster 'slurm' cannot be reached from here"):
        open_engine("slurm", tmp_path)


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_missing_packages(engine: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed: pip install 'mithridate\[grid\]'"):
        open_engine(engine, tmp_path)


def test_the_command_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["mithridate", "bench", "run", str(write_plan(tmp_path, **TINY)), "--engine", "ray", "--store", str(tmp_path), "--quiet"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "mithridate: ray is not installed: pip install 'mithridate[grid]'\n"
