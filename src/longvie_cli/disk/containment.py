"""Names that documents give stay in the folder they are given in."""

from __future__ import annotations

import os
from pathlib import Path


def is_inside(folder: Path, path: Path) -> bool:
    """Return whether a path, every link on its way followed, lies in a folder.

    In the hub's cache the files of a snapshot are links to the blobs beside it, which belong to it.
    """
    try:
        place, reached = folder.resolve(), path.resolve()
        blobs = [up.parent / "blobs" for up in place.parents if up.name == "snapshots"]
        return any(reached.is_relative_to(part) for part in (place, *blobs))
    except (OSError, RuntimeError, ValueError):
        return False  # a loop of links, or no path at all


def named_in(folder: Path, name: str) -> Path:
    """Return the path that a document lying in `folder` names.

    An absolute name, or one that begins with `~`, is what its writer wanted; where there is no such
    user, `~x` is a name like another, as in a shell. A relative one may not lead out of the folder,
    neither by `..` nor through a link.

    Raises:
        ValueError: It does, or is no name.
    """
    if "\0" in name:
        raise ValueError("it holds a NUL character")
    path = Path(os.path.expanduser(name))
    if path.is_absolute():
        return path
    if not is_inside(folder, folder / path):
        raise ValueError("it leads out of the folder it is named in; write the absolute path")
    return folder / path
