"""Which versions of a model may be deleted: old ones that nothing still needs."""

from contextlib import suppress
from typing import NamedTuple

from .. import TamisError
from .store import Store


class Pruning(NamedTuple):
    """Versions that may go, oldest first, with their bytes; and those that stay, each with the reason."""

    surplus: dict[str, int]
    kept: dict[str, str]


def pruning(store: Store, name: str, keep: int) -> Pruning:
    """All but the newest `keep` versions may go, at least 1.

    The current version stays, with the one that a rollback makes current and the one that it was judged against; and a
    version in shadow, with the one that it is compared with. Raises NoModel, BadBundle or StoreUnusable.
    """
    if keep < 1:
        raise ValueError(f"expected to keep at least 1 version, got {keep}")
    current, versions, log = store.current(name), store.versions(name), store.log(name)
    why = dict.fromkeys(versions[-keep:], f"among the newest {keep}")
    for version in versions:
        if log.stage(version) == "shadow":
            why[version] = "in shadow"
            why.setdefault(_parent(store, name, version) or version, f"{version} is judged against it")
    why.setdefault(_parent(store, name, current) or current, f"{current} was judged against it")
    why[store.previous(name) or current] = "a rollback makes it current"
    why[current] = "current"
    surplus = {version: _bytes(store, name, version) for version in versions if version not in why}
    return Pruning(surplus, {version: why[version] for version in versions if version in why})


def _parent(store: Store, name: str, version: str) -> str | None:
    with suppress(TamisError):  # a damaged bundle needs no parent
        return store.manifest(name, version)["parent"]
    return None


def _bytes(store: Store, name: str, version: str) -> int:
    return sum(path.lstat().st_size for path in (store.root / name / version).rglob("*") if path.is_file())
