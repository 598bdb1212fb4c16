"""How does a value become JSON text without the encoder's machinery made anew each time?"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

_SCALARS = frozenset({str, int, float, bool, type(None)})


def writer(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """Return what writes the same as ``encoder.encode``, flat values in half of the time or less.

    Flat are a list or a dict of scalars, as the arguments of most calls. *encoder* must not indent.
    """
    # `JSONEncoder.iterencode` makes one of these for each call, and throws it away. It has no
    # public name: where there is none, or it takes something else, the encoder does it all.
    make = getattr(json.encoder, "c_make_encoder", None)
    try:
        chunks = make and make(
            None,  # no memory of what a value stands in: that would be one call's alone
            encoder.default,
            encode_basestring_ascii if encoder.ensure_ascii else encode_basestring,
            None,  # no indent
            encoder.key_separator,
            encoder.item_separator,
            encoder.sort_keys,
            encoder.skipkeys,
            encoder.allow_nan,
        )
    except TypeError:
        chunks = None
    if chunks is None:
        return encoder.encode

    def write(value: Any) -> str:
        kind = type(value)
        inner = value if kind is list else value.values() if kind is dict else None
        # Without that memory one that contains itself would be written until the stack ends.
        if inner is None or not _SCALARS.issuperset(map(type, inner)):
            return encoder.encode(value)
        return "".join(chunks(value, 0))

    return write
