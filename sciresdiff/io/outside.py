"""Files that an image names or links to, and whether they lie in its own folder.

An image may say that its pixels are in another file, and one from a stranger may name any file of this machine, whose
content would then stand in the output. Such a file is read only where it lies in the image's folder, or below it, or
where the user says that it may lie elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from sciresdiff.errors import InputError

OPTION = "--allow-outside"
"""The option that allows it."""


def leads_outside(folder: Path, name: str) -> bool:
    """Whether a file name, as an image states it, leads out of a folder: it is absolute, or climbs with ``..``.

    **Links in the folder are not looked through**: they were made by somebody who may write there.
    """
    home = os.path.abspath(folder)
    return not Path(os.path.normpath(os.path.join(home, name))).is_relative_to(home)


def refuse_outside(path: Path, name: str) -> None:
    """Refuse an image that names a file outside its folder.

    Raises
    ------
    InputError
        Always; call it where the file would be read.
    """
    raise InputError(
        f"{path}: its pixels are said to lie in {name}, outside its folder; if you trust who made it, give {OPTION}"
    )


def refuse_links(folder: Path) -> None:
    """Refuse an image that is a folder, and in which a link leads out of it.

    Raises
    ------
    InputError
        There is one.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(home):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                refuse_outside(folder, str(path.relative_to(home)))
