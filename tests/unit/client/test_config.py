"""File, environment, arguments: the last wins, and whatever is wrong is told by its key."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, model_validator

from preceptor_client.config import ConfigError, dump_config, load_config


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    rate: float = 1.0
    name: str | None = "inner"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = 1
    sizes: list[int] = []
    weights: dict[str, float] = {}
    inner: Inner = Inner()


def load(file: Path | None = None, *overrides: str) -> Outer:
    return load_config(Outer, file, overrides, env_prefix="TEST_PRECEPTOR_")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_nothing_given_means_the_defaults() -> None:
    assert load() == Outer()


def test_an_empty_file_means_the_defaults(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert load(file) == Outer()


layer = st.none() | st.integers(-5, 5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(in_file=layer, in_environment=layer, in_arguments=layer)
def test_arguments_win_over_the_environment_which_wins_over_the_file(
    file: Path, in_file: int | None, in_environment: int | None, in_arguments: int | None
) -> None:
    file.write_text("" if in_file is None else f"steps: {in_file}\ninner: {{rate: {in_file}}}\n")
    overrides = [] if in_arguments is None else [f"--steps={in_arguments}", f"--inner.rate={in_arguments}"]
    with pytest.MonkeyPatch.context() as patch:
        if in_environment is not None:
            patch.setenv("TEST_PRECEPTOR_STEPS", str(in_environment))
            patch.setenv("TEST_PRECEPTOR_INNER__RATE", str(in_environment))
        config = load(file, *overrides)
    given = [value for value in (in_arguments, in_environment, in_file) if value is not None]
    assert config.steps == (given[0] if given else 1)
    assert config.inner.rate == (given[0] if given else 1.0)
    assert config.inner.name == "inner", "setting one key of a section leaves the others"


values = st.builds(
    Outer,
    steps=st.integers(),
    sizes=st.lists(st.integers()),
    weights=st.dictionaries(st.text(st.characters(categories=["Ll"]), min_size=1), st.floats(allow_nan=False)),
    inner=st.builds(Inner, rate=st.floats(allow_nan=False), name=st.none() | st.text()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=values)
@example(config=Outer(inner=Inner(name="\x85")))
@example(config=Outer(inner=Inner(name="a\u2028 b\r\n\ufeff é")))
def test_what_is_dumped_loads_back_as_it_was(file: Path, config: Outer) -> None:
    file.write_text(dump_config(config), encoding="utf-8")
    assert load(file) == config


def test_overrides_are_yaml_and_a_later_one_wins() -> None:
    config = load(
        None, "--sizes=[1, 2]", "--weights={a: 0.5}", "--weights.b=2", "--inner.name=null", "--steps=1", "--steps=9"
    )
    assert config == Outer(sizes=[1, 2], weights={"a": 0.5, "b": 2}, inner=Inner(name=None), steps=9)


def test_numbers_are_read_as_people_write_them() -> None:
    assert load(None, "--inner.rate=1e-5").inner.rate == 1e-5


@pytest.mark.parametrize(
    "override", ["steps=3", "--steps", "--=3", "--steps=[1", "--inner.name=\tx: {", "--inner..rate=1", "--.steps=1"]
)
def test_an_unreadable_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError, match="override") as caught:
        load(None, override)
    assert repr(override) in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_override_can_break_the_loader(text: str) -> None:
    for override in (f"--inner.name={text}", text):
        with suppress(ConfigError):
            assert isinstance(load(None, override), Outer)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("--steps=many", "steps: Input should be a valid integer.*found: 'many'"),
        ("--inner.speed=1", "inner.speed: there is no such key"),
        ("--inner=3", "inner: Input should be"),
        ("--inner.rate.more=3", "inner.rate: Input should be a valid number"),
    ],
)
def test_a_wrong_value_is_told_by_key_and_what_was_found(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(None, override)


class Range(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


@pytest.mark.parametrize(
    ("values", "told"), [("{low: 2, high: 1}", "low is above high"), ("low: 2", "high: is missing")]
)
def test_what_several_keys_or_a_missing_one_do_wrong_is_told_without_the_section(
    file: Path, values: str, told: str
) -> None:
    file.write_text(values)
    with pytest.raises(ConfigError) as caught:
        load_config(Range, file, env_prefix="TEST_PRECEPTOR_")
    assert str(caught.value) == f"{file} does not hold:\n  {told}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.yaml: No such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "told"), [(b"a: [1", "is not YAML"), (b"\xff\xfe\xff", "is not YAML"), (b"- 1", "a list")]
)
def test_a_file_that_is_no_mapping_is_told(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load(file)


def test_a_wrong_environment_variable_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PRECEPTOR_SIZES", "[1")
    with pytest.raises(ConfigError, match="TEST_PRECEPTOR_"):
        load()


def test_what_a_file_includes_comes_below_it_in_order_from_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "base.yaml").write_text("steps: 1\nsizes: [1]\ninner: {rate: 1, name: base}\n")
    (tmp_path / "parts" / "one.yaml").write_text("include: ../base.yaml\nsteps: 2\ninner: {rate: 2}\n")
    (tmp_path / "two.yaml").write_text("inner: {rate: 3}\n")
    file = tmp_path / "run.yaml"
    file.write_text("include: [parts/one.yaml, two.yaml]\nsteps: 4\n")
    assert load(file) == Outer(steps=4, sizes=[1], inner=Inner(rate=3, name="base"))
    over = f"--include={tmp_path / 'base.yaml'}"
    assert load(file, over) == Outer(steps=1, sizes=[1], inner=Inner(rate=1, name="base"))
    assert load(file, over, "--steps=9").steps == 9


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("include: run.yaml", r"run\.yaml includes itself: run\.yaml -> run\.yaml"),
        (
            "include: other.yaml",
            r"run\.yaml includes itself: run\.yaml -> other\.yaml -> run\.yaml",
        ),
        ("include: nowhere.yaml", r"cannot read the configuration .*nowhere\.yaml: No such file"),
        ("include: {a: b}", r"run\.yaml: include takes the path of a YAML file, or a list of them"),
    ],
)
def test_what_cannot_be_included_is_told(written: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(written)
    (tmp_path / "other.yaml").write_text("include: run.yaml")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "run.yaml")
