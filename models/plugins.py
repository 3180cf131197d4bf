"""What outside packages add by entry points: kinds of models, pre-treatments and drift detectors.

Their names are read from the installed packages at the first use of a name that Tamis does not have itself; a package
is imported when one of its own names is used. docs/in-and-out.md shows a package.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .. import BadBundle, BadSettings
from .near_names import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

MODELS, PRETREATMENTS, DETECTORS = "tamis.models", "tamis.pretreatments", "tamis.detectors"


@lru_cache(maxsize=8)
def _declared(group: str) -> dict[str, list[EntryPoint]]:
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for one in sorted(entry_points(group=group), key=_package):
        found.setdefault(one.name, []).append(one)
    return found


def _package(one: EntryPoint) -> str:
    """
    >>> from importlib.metadata import EntryPoint
    >>> _package(EntryPoint("huber", "acme.models:Huber", "tamis.models"))
    'acme'
    """
    return f"{one.dist.name} {one.dist.version}" if one.dist is not None else one.module.split(".")[0]


def names(group: str) -> list[str]:
    """The names that outside packages declare in a group."""
    return list(_declared(group))


def load(group: str, name: str, taken: Collection[str]) -> Any:
    """What a package declares under this name, imported.

    Args:
        taken: the names that Tamis has itself.

    Raises BadSettings: two packages declare the name, or Tamis has it itself; or the package cannot be imported.
    """
    first, *others = _declared(group)[name]
    if others or name in taken:
        rivals = [*(["Tamis itself"] if name in taken else []), *map(_package, (first, *others))]
        raise BadSettings(f"{' and '.join(rivals)} both have the name {name!r} in {group}: uninstall one, or rename it")
    try:
        return first.load()
    except Exception as error:
        raise BadSettings(
            f"plug-in {_package(first)}: {first.value}, its {name!r} in {group}, cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def find(group: str, name: str, own: Mapping[str, Any], what: str, base: type, attribute: str) -> Any:
    """What Tamis has under a name; or the class that a package declares, of this base, whose attribute is that name.

    Raises ValueError for an unknown name, naming the known ones; BadSettings as in `load`, and for another class.
    """
    if name in own:
        return own[name]
    if name not in _declared(group):
        known = [*own, *_declared(group)]
        raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    made = load(group, name, own)
    is_class = isinstance(made, type) and issubclass(made, base)
    if not is_class or getattr(made, attribute, None) != name:
        got = f"{attribute} {getattr(made, attribute, None)!r}" if is_class else repr(made)
        raise BadSettings(
            f"plug-in {_package(_declared(group)[name][0])}: expected as {name!r} in {group} a subclass of "
            f"{base.__module__}.{base.__name__} with {attribute} {name!r}, got {got:.200}"
        )
    return made


def used(kinds: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Group -> names, to "group:name" -> package and version, of those from outside: for a bundle's manifest."""
    return {
        f"{group}:{name}": _package(_declared(group)[name][0])
        for group, wanted in kinds.items()
        for name in dict.fromkeys(wanted)
        if name in _declared(group)
    }


def require(needed: Mapping[str, str]) -> None:
    """Raises BadBundle where a bundle needs what no installed package declares; `needed` is as `used` gave it."""
    for key, package in needed.items():
        group, _, name = key.partition(":")
        if name not in _declared(group):
            raise BadBundle(
                f"it needs {name!r} in {group}, not installed here: install the package it came from, {package}"
            )
