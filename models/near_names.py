"""The name that somebody probably meant, for the end of an error."""

from collections.abc import Collection
from difflib import get_close_matches


def did_you_mean(name: str, known: Collection[str], alike: float = 0.6) -> str:
    """The known name that is spelt most like this one, as the end of an error; '' if none is `alike`, 1 for the same.

    >>> did_you_mean("Fat ", ["fat", "water"])
    "; did you mean 'fat'?"
    """
    plain = {one.lower(): one for one in reversed(list(known))}
    near = get_close_matches(name.strip().lower()[:80], plain, 1, alike)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""
