"""Patterns: a name, or a prefix followed by one star, which stands for one character or more.

One star, only at the end, because then "which pattern wins" has an answer anyone can give: the exact name, else the
longest prefix.
"""

from collections.abc import Iterable


def fault(pattern: str) -> str:
    """Why the text is no pattern, "" when it is one."""
    if not pattern:
        return "is empty: give a name, a prefix ending in `*`, or `*`"
    if "*" in pattern[:-1]:
        return "may have one `*`, and only at its end"
    return ""


def matches(pattern: str, name: str) -> bool:
    """Whether the name is what the pattern says."""
    if pattern.endswith("*"):
        return len(name) >= len(pattern) and name.startswith(pattern[:-1])
    return name == pattern


def best(patterns: Iterable[str], name: str) -> str | None:
    """The pattern that stands for the name: itself, else the longest prefix; None when there is none."""
    return max((p for p in patterns if matches(p, name)), key=lambda p: (not p.endswith("*"), len(p)), default=None)
