"""What is used as it was given and shown without its secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from preceptor_client.config import ConfigError, describe, dump_config, load_config
from preceptor_client.masking import REVEALED, MaskedUrl, Secret, shown

passwords = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="/@:!"), min_size=8)


class Settings(BaseModel):
    url: MaskedUrl = "redis://h:1/0"
    key: Secret | None = None


GIVEN = Settings.model_validate({"url": "redis://u:hunter2@h:1/0?sentinel_password=hunter3&db=1", "key": "hunter4"})


@given(password=passwords, query=st.booleans())
def test_a_password_is_never_shown(password: str, query: bool) -> None:
    url = f"redis://u:{password}@h:1/0" + (f"?sentinel_password={password}&db=1" if query else "")
    assert password not in shown(url)
    assert shown(url).startswith("redis://u:***@h:1/0")


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://ann@h:1/0?username=ann&db=",
        "unix:///run/r.sock?db=1",
        "redis+sentinel://a:1,b:2/main/0",
        "http://h:8002/v1?a=b%20c",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert shown(url) == url
    assert Settings(url=url).model_dump(mode="json")["url"] == url


def test_what_is_written_holds_no_secret() -> None:
    assert "hunter" not in dump_config(GIVEN)
    assert "hunter" not in GIVEN.model_dump_json()
    assert GIVEN.model_dump(mode="json") == {
        "url": "redis://u:***@h:1/0?sentinel_password=***&db=1",
        "key": "***",
    }
    assert Settings().model_dump(mode="json") == {"url": "redis://h:1/0", "key": None}


def test_another_process_of_the_program_gets_them_all() -> None:
    assert Settings.model_validate_json(GIVEN.model_dump_json(context=REVEALED)) == GIVEN
    assert Settings.model_validate(GIVEN.model_dump()) == GIVEN


@pytest.mark.parametrize(
    "written", [{"url": "redis://:***@h"}, {"url": "redis+sentinel://h/m?sentinel_password=***"}, {"key": "***"}]
)
def test_what_was_left_out_has_to_be_given_again(written: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"left out when it was written.*give it again") as caught:
        Settings.model_validate(written)
    assert describe(caught.value).strip().startswith(next(iter(written)))


def test_a_wrong_value_is_told_without_the_secrets_around_it() -> None:
    class Outer(BaseModel):
        steps: int
        inner: Settings

    for override in ("--inner.key=hunter2", "--inner={url: 'redis://:hunter2@h'}", "--inner='redis://:hunter2@h'"):
        with pytest.raises(ConfigError, match="steps: is missing") as caught:
            load_config(Outer, None, [override], env_prefix="TEST_PRECEPTOR_")
        assert "hunter" not in str(caught.value)
