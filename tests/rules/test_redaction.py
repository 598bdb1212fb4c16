"""Are secrets hidden, and is everything else still readable?"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cq.redaction import MASK, is_secret, mask, mask_text, secret_values


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "DB_PASSWORD",
        "userPassword",
        "passwd",
        "client-secret",
        "APIKey",
        "api_key",
        "apikey",
        "x-api-key",
        "access_tokens",
        "OAuthToken",
        "Authorization",
        "Set-Cookie",
        "aws.credentials",
        "privateKey",
        "private key",
        "password2",
    ],
)
def test_a_key_with_a_secret_word_is_secret(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "secretary",
        "tokenize",
        "are_fun",
        "key",
        "api",
        "keyboard",
        "author",
        "",
        "密码",
    ],
)
def test_a_key_that_only_resembles_a_secret_word_is_shown(key: str) -> None:
    assert not is_secret(key)


def test_extra_words_are_secret_in_every_spelling() -> None:
    extra = ["ssn", "cardNumber"]

    secret = [is_secret(key, extra) for key in ("ssn", "customer_SSN", "card_number", "cardnumber")]
    shown = [is_secret(key, extra) for key in ("card", "number", "assn")]

    assert secret == [True] * 4
    assert shown == [False] * 3


def test_values_below_secret_keys_are_masked_at_any_depth() -> None:
    value = {
        "user": "ada",
        "auth": [{"password": "hunter2", "attempts": 3}],
        "credentials": {"name": "ada", "pin": "1234"},
    }

    masked = mask(value)

    assert masked == {
        "user": "ada",
        "auth": [{"password": MASK, "attempts": 3}],
        "credentials": MASK,
    }
    assert value["credentials"] == {"name": "ada", "pin": "1234"}


@pytest.mark.parametrize("plain", [512, 0.25, True, False, None])
def test_numbers_and_booleans_are_shown_below_secret_keys(plain: float | bool | None) -> None:
    assert mask({"tokens": plain}) == {"tokens": plain}


def test_a_very_deep_value_is_masked_rather_than_overflowing_the_stack() -> None:
    value: object = "deep secret"
    for _ in range(100_000):
        value = [value]

    assert MASK in repr(mask(value))
    assert secret_values(value) == []


def test_secret_values_are_the_texts_that_mask_hides() -> None:
    value = {"password": "hunter2", "n": 1, "token": ["abcdef", {"x": "ghijkl"}], "user": "ada"}

    assert secret_values(value) == ["hunter2", "abcdef", "ghijkl"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2 ok", f"password={MASK} ok"),
        ('{"api_key": "abc def", "n": 1}', f'{{"api_key": "{MASK}", "n": 1}}'),
        (r"{'userPassword': 'x\'y', 'a': 1}", f"{{'userPassword': '{MASK}', 'a': 1}}"),
        ('msg="login password=hunter2 failed"', f'msg="login password={MASK} failed"'),
        ("Authorization: Basic dXNlcjpwdw==", f"Authorization: {MASK}"),
        ("got Bearer abc.def-ghi there", f"got Bearer {MASK} there"),
        ("Cookie: a=b; c=d\nnext", f"Cookie: {MASK}\nnext"),
        ("redis://ada:hunter2@host:6379/0", f"redis://ada:{MASK}@host:6379/0"),
        ('x={\\"token\\": \\"abcd\\"}', f'x={{\\"token\\": \\"{MASK}\\"}}'),
        ('environ["DB_PASSWORD"] = "x y"', f'environ["DB_PASSWORD"] = "{MASK}"'),
        ("f(password=pw, x=1)", f"f(password={MASK}, x=1)"),
        ('password="unclosed and cut o', f'password="{MASK}'),
        ("password: 1234", f"password: {MASK}"),
        ("api key: zzz", f"api key: {MASK}"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", f"a {MASK} b"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, expected: str) -> None:
    assert mask_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "12 rows in 3 ms",
        "max_tokens=512, tokens: 3",
        "token=None password: False",
        "secretary=bob",
        "https://example.org/a:b",
        "SyntaxError: invalid syntax",
        "the password was changed",
    ],
)
def test_texts_without_secrets_stay_as_they_are(text: str) -> None:
    assert mask_text(text) == text


def test_given_values_are_masked_wherever_they_stand() -> None:
    text = "could not log in with hunter2long (hunter2), nor 'it\\'s me'"

    masked = mask_text(text, values=["hunter2", "hunter2long", "it's me", "in"])

    assert masked == f"could not log in with {MASK} ({MASK}), nor 'it\\'s me'"
    assert mask_text(r"said 'a\nb c'", values=["a\nb c"]) == f"said '{MASK}'"


def test_extra_words_are_masked_in_texts() -> None:
    assert mask_text("iban=DE89 3704", extra=["iban"]) == f"iban={MASK} 3704"
    assert mask_text("iban=DE89 3704") == "iban=DE89 3704"


@given(
    st.lists(
        st.sampled_from(
            [
                *("password", "token", "cookie", "authorization", "Bearer ", "a", "1", MASK),
                *("=", ":", '"', "'", "\\", " ", "\n", "{", "[", "://", "@"),
                "-----BEGIN PRIVATE KEY-----",
            ]
        ),
        max_size=30,
    ).map("".join)
)
def test_masking_twice_changes_nothing(text: str) -> None:
    once = mask_text(text)

    assert mask_text(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "a=",
        "token=",
        'password="',
        'password="\\"',
        "password",
        "password ",
        "://",
        "-----BEGIN PRIVATE KEY-----",
        "bearer ",
        "token_",
        "token-",
        "secret[(",
        "token" + " " * 5000,
        "cookie:'",
        "password='\\",
        "A1",
    ],
)
def test_a_megabyte_of_hostile_text_is_masked_in_linear_time(piece: str) -> None:
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    started = time.process_time()

    mask_text(text, values=["hunter2"])
    is_secret(text)

    assert time.process_time() - started < 3
