"""How is an exception put into words that can be stored and shown?"""

from __future__ import annotations

from django.conf import settings

from . import conf, fingerprints, redaction
from .outcomes import Problem

MESSAGE_LENGTH = 4_000


def of(error: BaseException) -> Problem:
    """*error* bounded, masked and encodable, with the fingerprint of its cause.

    It never raises, whatever the exception's own ``__str__`` does.
    """
    name = fingerprints.exception_name(error)
    said = reason(error)
    frames = fingerprints.frames(error.__traceback__, _project_root())
    own = fingerprints.deepest_own_frame(frames)
    where = fingerprints.frame_label(own) if own else ""
    kind = type(error).__name__
    return Problem(
        exception=name[:255],
        message=f"{kind}: {said}" if said else kind,
        traceback=_masked(fingerprints.traceback_text(error)),
        frames=[{**frame, "code": _masked(frame["code"])} for frame in frames],
        frame=where[:500],
        fingerprint=fingerprints.fingerprint(name, said, where),
    )


def reason(error: BaseException) -> str:
    """What *error* says, ready to be stored as the reason of an end."""
    return _masked(fingerprints.error_message(error))[:MESSAGE_LENGTH]


def _masked(text: str) -> str:
    return redaction.mask_text(fingerprints.clean(text), conf.get().redact)


def _project_root() -> str:
    return str(getattr(settings, "BASE_DIR", ""))
