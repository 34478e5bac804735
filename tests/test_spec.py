"""One configuration, four spellings."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import mithridate.methods  # noqa: F401  fills the registry
from mithridate import roles
from mithridate.defenses.detectors.kde import KDE
from mithridate.errors import BadSpec, MithridateError
from mithridate.spec import brief, build, find, from_dict, make, parse, to_dict, to_spec, with_flags
from mithridate.threats.evasion.pgd import PGD
from mithridate.threats.triggers.badnets import BadNets


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Every kind of field."""

    count: int = 3
    share: float = 0.5
    on: bool = False
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    layers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    limit: float | None = None


NAME = Sample.__module__.rpartition(".")[2]


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    roles.REGISTRY[NAME] = roles.Entry(NAME, "detector", Sample, (), "nothing", "none")
    yield
    del roles.REGISTRY[NAME]


WORDS = st.text("abcxyz._-/@0123456789 é", min_size=1).map(str.strip).filter(bool)
FLOATS = st.floats(allow_nan=False)
METHODS = st.builds(
    Sample,
    count=st.integers(), share=FLOATS, on=st.booleans(), name=WORDS, kind=st.sampled_from(["a", "b"]),
    layers=st.lists(WORDS.filter(lambda word: " " not in word)).map(tuple),
    sizes=st.lists(st.integers()).map(tuple), limit=st.none() | FLOATS,
)  # fmt: skip


@given(METHODS)
def test_every_spelling_gives_the_method_back(method: Sample) -> None:
    assert parse(to_spec(method)) == method
    assert from_dict(to_dict(method)) == method
    if not method.layers and method.sizes == (1, 2):
        flags = [f"--d.{item}" for item in to_spec(method).partition(":")[2].split(",") if item]
        assert parse(with_flags(NAME, flags, "d")) == method


NESTED = st.recursive(WORDS.filter(lambda word: word == word.strip()), lambda inner: st.lists(inner, min_size=1).map(
    lambda words: to_spec(Sample(layers=tuple(words)))
), max_leaves=6)  # fmt: skip


@given(st.lists(NESTED).map(tuple))
def test_specifications_may_hold_specifications(layers: tuple[str, ...]) -> None:
    method = Sample(layers=layers, count=4, limit=0.5)
    assert parse(to_spec(method)) == method
    assert from_dict(to_dict(method)) == method


def test_nested_specifications_need_brackets_for_their_commas_only() -> None:
    assert parse(f"{NAME}:layers=a,kde:least=3,count=4") == Sample(layers=("a", "kde:least=3"), count=4)
    assert parse(f"{NAME}:layers=[kde:least=3,layer=fc],a,count=4") == Sample(layers=("kde:least=3,layer=fc", "a"), count=4)
    assert to_spec(Sample(layers=("kde:least=3,layer=fc", "a"))) == f"{NAME}:layers=[kde:least=3,layer=fc],a"
    assert parse(f"{NAME}:layers=[a]") == parse(f"{NAME}:layers=a")


@given(METHODS.filter(lambda m: -(2**63) <= m.count < 2**63 and all(-(2**63) <= n < 2**63 for n in m.sizes)))
def test_toml_holds_a_method(method: Sample) -> None:
    assert from_dict(tomllib.loads(tomli_w.dumps(to_dict(method)))) == method


@given(st.text())
def test_any_text_is_a_method_or_one_clear_error(text: str) -> None:
    try:
        assert parse(text) is not None
    except BadSpec as error:
        assert str(error)


def test_specifications_are_short() -> None:
    assert to_spec(KDE()) == "kde"
    assert to_spec(KDE(bandwidth=0.5, layer="fc")) == "kde:layer=fc,bandwidth=0.5"
    assert to_spec(Sample(on=True, layers=("a", "b"), count=1)) == f"{NAME}:count=1,on=true,layers=a,b"
    assert parse("kde") == KDE() and parse("kde:") == KDE()
    assert parse("kde: bandwidth = 0.5 ,layer=fc") == KDE(bandwidth=0.5, layer="fc")
    assert parse("pgd:norm=l2,step=none").step is None
    assert parse(f"{NAME}:layers=a,b@input,count=4") == Sample(layers=("a", "b@input"), count=4)
    assert to_dict(KDE()) == {"method": "kde", "least": 5, "reference": 4000}


@pytest.mark.parametrize(
    "text", ["abl", "abl@quick:flip=true", "abl@published:isolation_epochs=4", "abl:epochs=30,gate=false", "kde:least=3"]
)
def test_people_read_the_names_of_presets(text: str) -> None:
    assert brief(to_spec(parse(text))) == text


def test_what_no_method_is_called_is_shown_as_it_is() -> None:
    assert brief("gone:epochs=3") == "gone:epochs=3" and brief("kde:gone=3") == "kde:gone=3"
    assert brief("neural_cleanse+aft:epochs=1") == "neural_cleanse+aft:epochs=1"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("1", True), ("false", False), ("no", False), ("0", False)])
def test_booleans(text: str, value: bool) -> None:
    assert parse(f"{NAME}:on={text}").on is value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kdee", "method 'kdee' is unknown; did you mean kde"),
        ("", "method '' is unknown; known: .*kde"),
        ("zzzzzz", "known: .*badnets.*pgd"),
        ("kde:bandwith=1", "kde has no field 'bandwith'; did you mean bandwidth"),
        ("kde:zzz=1", "kde has no field 'zzz'; known: layer, bandwidth, least"),
        ("kde:bandwidth", "'kde:bandwidth': expected field=value, got 'bandwidth'"),
        ("kde:least=x", "kde: .*'x'"),
        ("kde:least=1.5", "kde: .*'1.5'"),
        ("kde:bandwidth=-1", "kde: bandwidth must be positive and finite, got -1.0"),
        ("badnets:corner=middle", "badnets: .*expected one of bottom-right.*got 'middle'"),
        (f"{NAME}:on=maybe", "expected true or false, got 'maybe'"),
        (f"{NAME}:sizes=1,x", "invalid literal"),
    ],
)
def test_errors_name_what_is_wrong_and_hint(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said) as error:
        parse(text)
    assert isinstance(error.value, ValueError) and isinstance(error.value, MithridateError)


def test_roles_are_asked_for() -> None:
    assert parse("kde", "detector") == KDE()
    with pytest.raises(BadSpec, match="evasion 'kde' is unknown"):
        parse("kde", "evasion")
    assert [e.name for e in find("pg*", "evasion")] == ["pgd"] and {e.role for e in find("*", "evasion")} == {"evasion"}
    assert {e.name for e in find("b[la]*")} == {"badnets", "blend"}
    assert find("nothing*") == []
    order = [e.role for e in find()]
    assert order == sorted(order, key=["trigger", "planter", "evasion", "trainer", "screen", "detector", "inspector", "repair"].index)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"bandwidth": 1}, r"a method table needs a 'method' name, got \['bandwidth'\]"),
        ({"method": 3}, "needs a 'method' name"),
        ({"method": "kde", "least": 2.5}, "kde: .*expected an int, got 2.5"),
        ({"method": "kde", "least": [1]}, "kde: "),
        ({"method": "kde", "bandwidth": {"a": 1}}, "kde: "),
        ({"method": NAME, "layers": 5}, f"{NAME}: "),
        ({"method": NAME, "on": "x"}, "expected true or false, got 'x'"),
    ],
)
def test_tables_that_make_no_sense(table: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        from_dict(table)


def test_tables_keep_their_types() -> None:
    assert from_dict({"method": "pgd", "steps": 3, "eps": 1, "restarts": 2.0}) == PGD(steps=3, eps=1.0, restarts=2)
    given = {"method": "kde", "bandwidth": 0.5}
    from_dict(given)
    assert given == {"method": "kde", "bandwidth": 0.5}, "the table is not eaten"


def test_flags_add_to_and_win_over_a_specification() -> None:
    flags = ["--out", "x", "--detector.bandwidth", "0.5", "--detector.layer=fc", "--trigger.size", "2"]
    assert parse(with_flags("kde", flags, "detector")) == KDE(bandwidth=0.5, layer="fc")
    assert parse(with_flags("kde:bandwidth=9,least=3", flags, "detector")) == KDE(bandwidth=0.5, layer="fc", least=3)
    assert with_flags("kde", ["--out", "x"], "detector") == "kde"
    assert parse(with_flags("badnets", flags, "trigger")) == BadNets(size=2)
    assert parse(with_flags("pgd", ["--evasion.random-start", "true"], "evasion")) == PGD(random_start=True)
    assert with_flags("a", ["--p.x", "-3"], "p") == "a:x=-3"
    for missing in (["--detector.layer"], ["--detector.layer", "--detector.least", "3"]):
        with pytest.raises(BadSpec, match=r"--detector.layer needs a value"):
            with_flags("kde", missing, "detector")


def test_make_and_build_take_plain_values() -> None:
    assert make("kde", {"bandwidth": "0.5"}) == make("kde", {"bandwidth": 0.5}) == KDE(bandwidth=0.5)

    @dataclass(frozen=True)
    class Strange:
        what: complex = 0j

    with pytest.raises(BadSpec, match="strange: .*fields of type .* cannot be set from text"):
        build(Strange, {"what": "1"}, "strange")


def test_presets_give_fields_that_others_go_before() -> None:
    Sample.presets = {"small": {"count": 1, "kind": "b"}}  # type: ignore[attr-defined]
    try:
        assert parse(f"{NAME}@small") == Sample(count=1, kind="b")
        assert parse(f"{NAME}@small:count=7,on=true") == Sample(count=7, kind="b", on=True)
        assert from_dict({"method": f"{NAME}@small", "share": 0.1}) == Sample(count=1, kind="b", share=0.1)
        assert parse(with_flags(f"{NAME}@small", ["--d.count", "2"], "d")) == Sample(count=2, kind="b")
        assert to_spec(parse(f"{NAME}@small")) == f"{NAME}:count=1,kind=b", "a preset is gone once it is read"
        with pytest.raises(BadSpec, match=f"{NAME} has no preset 'smal'; did you mean small?"):
            parse(f"{NAME}@smal")
    finally:
        del Sample.presets  # type: ignore[attr-defined]
    with pytest.raises(BadSpec, match="kde has no preset 'small'$"):
        parse("kde@small")
    with pytest.raises(BadSpec, match="detector 'nothing' is unknown"):
        parse("nothing@small", "detector")
