"""One exception for everything that a user can mend, and the sentence that helps him do it."""

import difflib
from collections.abc import Iterable


class DerainzooError(Exception):
    """Says what was expected, what was found and what to do; the command line prints it without a traceback."""


def closest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that look most like `name`, best first (letter case does not count)."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.5)
    return [by_lower[f] for f in found]


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> DerainzooError:
    """An error for a name that does not exist: the close ones first, then all there are."""
    known = sorted(known)
    close = closest(name, known)
    guess = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    listing = f" There are: {', '.join(known)}." if known else f" There is no {kind} at all."
    return DerainzooError(f"unknown {kind} '{name}'.{guess}{listing}{' ' + hint if hint else ''}")
