"""Does the fast writer of JSON write what Python's own encoder writes?"""

from __future__ import annotations

import json.encoder
from decimal import Decimal
from typing import Any

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from hypothesis import given
from hypothesis import strategies as st

from cq.jsontext import writer

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals()
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.floats()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("allows_nan", [True, False])
@given(value=VALUES)
def test_it_writes_and_refuses_what_the_encoder_does(
    value: Any, is_ascii: bool, allows_nan: bool
) -> None:
    encoder = DjangoJSONEncoder(ensure_ascii=is_ascii, allow_nan=allows_nan)

    assert _said(writer(encoder), value) == _said(encoder.encode, value)


def _said(encode: Any, value: Any) -> Any:
    try:
        return encode(value)
    except ValueError as error:
        return type(error)


def test_what_is_no_json_goes_to_the_encoders_default() -> None:
    write = writer(DjangoJSONEncoder())

    assert write({"a": [Decimal("1.50")]}) == '{"a": ["1.50"]}'
    with pytest.raises(TypeError, match="not JSON serializable"):
        write([object()])


@pytest.mark.parametrize("keep", [list, tuple, lambda inner: {"self": inner}])
def test_a_value_that_contains_itself_is_refused_before_much_of_it_is_written(keep: Any) -> None:
    value: dict[str, Any] = {"rows": "x" * 1_000_000}
    value["kept"] = keep([value])

    with pytest.raises(ValueError, match="Circular reference"):
        writer(DjangoJSONEncoder())(value)
    # A part of it is met again: what is remembered of a value ends with it.
    with pytest.raises(ValueError, match="Circular reference"):
        writer(DjangoJSONEncoder())([value["kept"]])


def for_encoders_only(markers: Any, *given: Any) -> Any:
    if markers is None:
        raise TypeError("markers")
    return MADE(markers, *given)


MADE = json.encoder.c_make_encoder  # type: ignore[attr-defined]


@pytest.mark.parametrize("made", [None, for_encoders_only])
def test_without_that_machinery_the_encoder_does_it_all(
    monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    monkeypatch.setattr(json.encoder, "c_make_encoder", made)

    assert writer(DjangoJSONEncoder())({"a": [1, "ü"]}) == '{"a": [1, "\\u00fc"]}'
