"""The fingerprint of a method's code: what decides whether its finished cells still stand.

It covers the method's own file and what that file takes from `threats`, `defenses` and `analysis`, however indirectly. Comments,
docstrings and layout do not count. The core below (training loop, models, data) is not covered: a change there would
undo every number at once, so it is `CORE` that says when it does.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CORE = 1  # raise it when the core, the judge or the protocol changes what cells come to
SHARED = ("mithridate.threats.", "mithridate.defenses.", "mithridate.analysis.")


def fingerprint(method: Any) -> str:
    """16 hex digits that change with the code of a method and of what it shares with its siblings."""
    digest = hashlib.sha256()
    for module in sorted(_reached(type(method).__module__)):
        digest.update(f"{module} {_digest(module)}".encode())
    return digest.hexdigest()[:16]


@functools.cache
def _reached(module: str) -> frozenset[str]:
    """A module, and the shared ones that it imports, directly or not."""
    found, waiting = {module}, [module]
    while waiting:
        for name in _imports(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return frozenset(found)


@functools.cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(name for node in ast.walk(_tree(module)) for name in _named(node) if name.startswith(SHARED))


def _named(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (name for alias in node.names if (name := _module(f"{node.module}.{alias.name}")))
        yield node.module


@functools.cache
def _module(name: str) -> str:
    """The name, if there is such a module; else nothing."""
    try:
        return name if name.startswith(SHARED) and importlib.util.find_spec(name) else ""
    except ModuleNotFoundError:
        return ""


@functools.cache
def _digest(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _tree(module: str) -> ast.Module:
    found = importlib.util.find_spec(module)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        return ast.Module(body=[], type_ignores=[])
    return ast.parse(Path(found.origin).read_bytes())
