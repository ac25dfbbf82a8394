"""Exceptions of the kit, for everything that a user can put right."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from textwrap import shorten


class WsolkitError(Exception):
    """Something the user can put right: the message says what was received, what was expected, what to do next."""


class RecipeError(WsolkitError):
    """A recipe, option or parameter that is unknown, of the wrong type or out of range."""


class DataError(WsolkitError):
    """Data that is missing, incomplete or cannot be decoded."""


class CheckpointError(WsolkitError):
    """A checkpoint that is not ours, cut short, or does not fit the recipe."""


class TrainingError(WsolkitError):
    """A training run that cannot go on."""


class NotInProfileError(RecipeError):
    """An experiment whose data set or backbone has no stand-in in the chosen profile, but in another."""


LONGEST = 600
"""Characters of another library's error that are shown."""


@contextmanager
def turned_into(kind: type[WsolkitError], what: str, advice: str, *caught: type[Exception]) -> Iterator[None]:
    """Turn another library's error inside the block into one of the kit's: what failed, why, and what to do next.

    Errors of the kit pass.

    Args:
        kind: of the error that is raised.
        what: what failed, so that a colon and the reason can follow.
        advice: one sentence or more.
        caught: the errors that are turned; all if none are named, since damaged files can raise anything.

    Raises:
        WsolkitError: of that kind.
    """
    kinds = caught or (Exception,)
    try:
        yield
    except WsolkitError:
        raise
    except kinds as error:
        raise kind(f"{what}: {reason(error, what)}. {advice}") from error


def reason(error: Exception, known: str = "") -> str:
    """What another library's error says, in one line, cut where it is long.

    Its type stands before what may be nothing but a name; and after what the system says the file, if it is not known.
    """
    kind, file = type(error).__name__, getattr(error, "filename", None)
    said = getattr(error, "strerror", None) or str(error)
    if isinstance(error, LookupError | AttributeError):
        said = f"{kind}: {said}"
    if file is not None and str(file) not in known:
        said += f": {file}"
    return shorten(said.strip().rstrip("."), LONGEST) or kind


FEW = 24
"""Known names that an error lists, all of them or the first; with a suggestion, half as many."""

ALIKE = 0.75
"""How alike the beginning of a longer name must be to be suggested, as `difflib` measures it."""


def require_known(kind: str, received: object, known: Collection) -> None:
    """Make sure that a name is in a fixed set.

    Raises:
        RecipeError: from `unknown`.
    """
    if received not in known:
        raise unknown(kind, received, map(str, known))


def unknown(kind: str, received: object, known: Iterable[str]) -> RecipeError:
    """The error for a name outside a fixed set: what was received, the nearest known name, the known names.

    Args:
        kind: what the name stands for, in the singular (``"dataset"``).
        received: the value that was given.
        known: every valid name.

    Returns:
        An error to raise.
    """
    names = sorted(set(known))
    near = nearest(str(received), names)
    if near and len(names) > FEW // 2:
        return RecipeError(f"Unknown {kind} {received!r}. Did you mean {near!r}?")
    hint = f" Did you mean {near!r}?" if near else ""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return RecipeError(f"Unknown {kind} {received!r}.{hint} Known: {', '.join(names[:FEW]) or 'none'}{more}.")


def nearest(received: str, known: Iterable[str]) -> str | None:
    """The name that begins so, or is most like it as a whole, or begins most like it; None if none does."""
    names = sorted(known)
    same = [name for name in names if name.lower() == received.lower()]
    begun = same or [name for name in names if received and name.startswith(received)]
    beginnings = {name[: len(received)]: name for name in reversed(names)}
    like = get_close_matches(received, beginnings, n=1, cutoff=ALIKE)
    near = begun or get_close_matches(received, names, n=1) or [beginnings[each] for each in like]
    return near[0] if near else None
