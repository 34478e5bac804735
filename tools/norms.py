"""Print the norms of this code base and fail when one gets worse.

`python tools/norms.py` compares with the ratchet file `tools/norms.json`; `--update` writes today's values into it.
A number fails when it is beyond its limit, or worse than both its aim and the ratchet. Import time is noisy: only its limit counts.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
RATCHET = Path(__file__).with_suffix(".json")
WINDOW = 6
SHARED = ("stamping", "searching")  # folders of `threats` that hold what methods have in common
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Norm:
    """One row of the table: what is measured, what we aim at, and what is never accepted."""

    name: str
    aim: float
    limit: float
    more_is_better: bool = False
    noisy: bool = False

    def worse(self, value: float, than: float) -> bool:
        """Whether `value` is worse than `than`."""
        return value < than if self.more_is_better else value > than

    def complaint(self, value: float, before: float | None) -> str:
        """Why the value is not accepted, or nothing."""
        if self.worse(value, self.limit):
            return "beyond the limit"
        if before is None or self.noisy or not self.worse(value, self.aim) or not self.worse(value, before):
            return ""
        return f"worse than {before:g}"


NORMS = (
    Norm("longest method file, lines", 100, 150),
    Norm("longest core file, lines", 200, 300),
    Norm("function body, median lines", 8, 12),
    Norm("function body, most lines", 50, 50),
    Norm("most parameters below cli", 4, 6),
    Norm("typed parameters and results, %", 100, 100, more_is_better=True),
    Norm("public docstrings, %", 100, 100, more_is_better=True),
    Norm("import cycles", 0, 0),
    Norm("bare except", 0, 0),
    Norm("print below cli", 0, 0),
    Norm("star imports", 0, 0),
    Norm("duplicated lines, %", 2, 5),
    Norm("import beyond torch, s", 0.1, 0.3, noisy=True),
    Norm("test lines per source line", 0.6, 0.5, more_is_better=True),
)


@dataclass(frozen=True)
class Measured:
    """A value and the place that made it so, if there is one."""

    value: float
    where: str = ""


class Source:
    """One Python file of the package, parsed.

    Args:
        path: the file.
        package: folder of the top-level package, as in `src/mithridate`.
    """

    def __init__(self, path: Path, package: Path) -> None:
        self.place = path.relative_to(package.parent)
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        parts = self.place.with_suffix("").parts
        self.module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def lines(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    @property
    def is_method(self) -> bool:
        """Whether it holds one method: a file two folders down in `threats` or `defenses`, and not what methods share."""
        parts = self.place.parts
        return len(parts) == 4 and parts[1] in ("threats", "defenses") and parts[2] not in SHARED and parts[-1] != "__init__.py"

    @property
    def in_cli(self) -> bool:
        """Whether it belongs to the command line, the one place that prints."""
        return self.place.parts[1] == "cli"

    @cached_property
    def functions(self) -> list[Function]:
        """All functions and methods, nested ones too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    def at(self, node: ast.AST) -> str:
        """`file:line` of a node."""
        return f"{self.place}:{getattr(node, 'lineno', 0)}"


def read(package: Path) -> list[Source]:
    """Every Python file of a package."""
    return [Source(path, package) for path in sorted(package.rglob("*.py"))]


def measure(package: Path, tests: Path) -> dict[str, Measured]:
    """Everything but the import time, by the names in `NORMS`."""
    sources = read(package)
    return {
        "longest method file, lines": _longest([s for s in sources if s.is_method]),
        "longest core file, lines": _longest([s for s in sources if not s.is_method]),
        **_functions(sources),
        "public docstrings, %": _documented(sources),
        "import cycles": _cycles(sources),
        "bare except": _count(sources, lambda s, node: isinstance(node, ast.ExceptHandler) and node.type is None),
        "print below cli": _count(sources, lambda s, node: not s.in_cli and _is_print(node)),
        "star imports": _count(sources, lambda s, node: isinstance(node, ast.ImportFrom) and node.names[0].name == "*"),
        "duplicated lines, %": _duplicated(sources),
        "test lines per source line": _test_ratio(sources, tests),
    }


def _longest(sources: list[Source]) -> Measured:
    longest = max(sources, key=lambda s: s.lines, default=None)
    return Measured(longest.lines, str(longest.place)) if longest else Measured(0)


def _functions(sources: list[Source]) -> dict[str, Measured]:
    places = [(s.at(f), f) for s in sources for f in s.functions]
    bodies = [(size, where) for where, f in places if (size := _body_lines(f))]
    most, where = max(bodies, default=(0, ""))
    parameters, crowded = max(((len(_parameters(f)), s.at(f)) for s in sources if not s.in_cli for f in s.functions), default=(0, ""))
    slots = [(annotation is not None, where) for where, f in places for annotation in _annotations(f)]
    return {
        "function body, median lines": Measured(statistics.median(size for size, _ in bodies) if bodies else 0),
        "function body, most lines": Measured(most, where),
        "most parameters below cli": Measured(parameters, crowded),
        "typed parameters and results, %": _share(slots),
    }


def _body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [a for i, a in enumerate(every) if i or a.arg not in ("self", "cls")]


def _annotations(function: Function) -> list[ast.expr | None]:
    stars = [a for a in (function.args.vararg, function.args.kwarg) if a]
    return [*(a.annotation for a in [*_parameters(function), *stars]), function.returns]


def _documented(sources: list[Source]) -> Measured:
    found = [(ast.get_docstring(node) is not None, s.at(node)) for s in sources for node in _public(s.tree)]
    return _share(found)


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[Definition | ast.Module]:
    """The module itself unless it is empty, and its public classes, functions and methods."""
    if isinstance(parent, ast.Module) and parent.body:
        yield parent
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def _share(found: list[tuple[bool, str]]) -> Measured:
    missing = [where for good, where in found if not good]
    share = 100 * (1 - len(missing) / len(found)) if found else 100.0
    return Measured(round(share, 1) if share < 99.9 or not missing else 99.9, ", ".join(missing[:3]))


def _count(sources: list[Source], matches: Callable[[Source, ast.AST], bool]) -> Measured:
    places = [s.at(node) for s in sources for node in ast.walk(s.tree) if matches(s, node)]
    return Measured(len(places), ", ".join(places[:3]))


def _is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def _cycles(sources: list[Source]) -> Measured:
    """Import cycles, counted by breaking one edge of each until none is left."""
    modules = {s.module for s in sources}
    graph = {s.module: {target for target in _imported(s.tree, modules) if target != s.module} for s in sources}
    found: list[str] = []
    while cycle := _one_cycle(graph):
        found.append(" > ".join(cycle))
        graph[cycle[1]].discard(cycle[0])
    return Measured(len(found), ", ".join(found[:3]))


def _one_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """Names of our own modules that a tree imports; imports for type checkers only do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from (name for name in [full if full in modules else node.module] if name in modules)
        else:
            yield from _imported(node, modules)


def _duplicated(sources: list[Source]) -> Measured:
    """Share of code lines inside a window of six that occurs more than once in the package."""
    texts = [(s, _code_lines(s)) for s in sources]
    windows = Counter(tuple(lines[i : i + WINDOW]) for _, lines in texts for i in range(len(lines) - WINDOW + 1))
    shares: list[tuple[int, str]] = []
    for source, lines in texts:
        inside = {i + k for i in range(len(lines) - WINDOW + 1) if windows[tuple(lines[i : i + WINDOW])] > 1 for k in range(WINDOW)}
        shares.append((len(inside), str(source.place)))
    total = sum(len(lines) for _, lines in texts)
    worst = [f"{place} ({count})" for count, place in sorted(shares, reverse=True)[:3] if count]
    return Measured(round(100 * sum(count for count, _ in shares) / max(total, 1), 1), ", ".join(worst))


def _code_lines(source: Source) -> list[str]:
    """Lines without blanks, comments, imports and docstrings, stripped."""
    skipped: set[int] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            skipped.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = enumerate(source.text.splitlines(), start=1)
    return [line.strip() for number, line in lines if number not in skipped and line.strip() and not line.strip().startswith("#")]


def _test_ratio(sources: list[Source], tests: Path) -> Measured:
    written = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests.rglob("*.py"))
    return Measured(round(written / max(sum(s.lines for s in sources), 1), 2))


def import_seconds(repeats: int = 3) -> Measured:
    """Seconds that the package and its full registry add to `import torch`, the best of a few fresh processes."""
    code = "import time, torch; start = time.process_time(); import mithridate; mithridate.find(); print(time.process_time() - start)"
    times = [float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) for _ in range(repeats)]
    return Measured(round(min(times), 3))


def judge(measured: Mapping[str, Measured], ratchet: Mapping[str, float]) -> list[str]:
    """Print the table and return one complaint for each number that is not accepted."""
    complaints = []
    print(f"{'norm':<34}{'value':>8}{'aim':>8}{'limit':>8}{'ratchet':>9}")
    for norm in NORMS:
        if norm.name not in measured:
            continue
        found, before = measured[norm.name], ratchet.get(norm.name)
        complaint = norm.complaint(found.value, before)
        kept = "-" if before is None else f"{before:g}"
        print(
            f"{norm.name:<34}{found.value:>8g}{norm.aim:>8g}{norm.limit:>8g}{kept:>9}  {' '.join(filter(None, (complaint, found.where)))}"
        )
        if complaint:
            complaints.append(f"{norm.name}: {found.value:g} is {complaint} ({found.where})")
    return complaints


def main() -> int:
    """Run as a script: 0 when every norm holds, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write today's values into the ratchet file")
    measured = measure(ROOT / "src" / "mithridate", ROOT / "tests") | {"import beyond torch, s": import_seconds()}
    if parser.parse_args().update:
        values = {norm.name: measured[norm.name].value for norm in NORMS if not norm.noisy}
        RATCHET.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    complaints = judge(measured, json.loads(RATCHET.read_text(encoding="utf-8")) if RATCHET.exists() else {})
    print(*complaints, sep="\n", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
