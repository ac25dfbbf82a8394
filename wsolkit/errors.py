"""The one exception family of the kit, for everything a user can put right."""

from collections.abc import Iterable
from difflib import get_close_matches


class WsolkitError(Exception):
    """Something the user can put right: the message says what was received, what was expected, what to do."""


class RecipeError(WsolkitError):
    """A recipe, option or parameter that is unknown, of the wrong type or out of range."""


class DataError(WsolkitError):
    """Data that is missing, incomplete or cannot be decoded."""


class CheckpointError(WsolkitError):
    """A checkpoint that is not ours, cut short, or does not fit the recipe."""


class TrainingError(WsolkitError):
    """A training run that cannot go on."""


class NotInProfileError(RecipeError):
    """An experiment whose data set or backbone has no stand-in in the chosen profile, though another profile has."""


def unknown(kind: str, received: object, known: Iterable[str]) -> RecipeError:
    """The error for a name outside a fixed set: what was received, the nearest known name, all known names.

    Args:
        kind: what the name stands for, in the singular (``"dataset"``).
        received: the value that was given.
        known: every valid name.

    Returns:
        An error to raise.
    """
    names = sorted(known)
    begun = [name for name in names if received and name.startswith(str(received))]
    near = begun or get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return RecipeError(f"Unknown {kind} {received!r}.{hint} Known: {', '.join(names) or 'none'}.")
