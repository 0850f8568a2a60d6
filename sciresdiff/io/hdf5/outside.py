"""What an HDF5 file reads of other files: external links, external storage and virtual datasets, refused or allowed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py

from sciresdiff.errors import InputError
from sciresdiff.io.outside import leads_outside, refuse_outside

MOST_LINKS = 16
"""Soft links that may lead to one another."""


def refuse_linked(path: Path, file: Any, name: str, followed: int = 0) -> None:
    """Refuse a name in a file that leads into a file outside its folder.

    Looked at before it is followed: to open a pipe or a device would be harm already.

    Parameters
    ----------
    path : Path
        The file.
    file : h5py.File
        The same, open.
    name : str
        Of a dataset, from the root.
    followed : int
        Soft links on the way to here.

    Raises
    ------
    InputError
        It does, or soft links lead in a circle.
    """
    if followed > MOST_LINKS:
        raise InputError(f"{path}: links to {name!r} lead in a circle")
    parts = [part for part in name.split("/") if part]
    for count in range(1, len(parts) + 1):
        here = "/".join(parts[:count])
        link = file.get(here, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            if leads_outside(path.parent, link.filename):
                refuse_outside(path, link.filename)
            return  # the other file lies in the folder; what it links to in turn is refused by h5py's own reading
        if isinstance(link, h5py.SoftLink):
            target = link.path if link.path.startswith("/") else "/".join([*parts[: count - 1], link.path])
            return refuse_linked(path, file, "/".join([target, *parts[count:]]), followed + 1)


def refuse_stored(path: Path, data: Any) -> None:
    """Refuse a dataset whose pixels lie in files outside the folder.

    Parameters
    ----------
    path : Path
        The file.
    data : h5py.Dataset
        The dataset.

    Raises
    ------
    InputError
        They do, whether as external storage or as parts of a virtual dataset.
    """
    for name, *_ in data.external or ():  # relative to the folder that the program runs in
        if leads_outside(path.parent, os.path.abspath(os.fsdecode(name))):
            refuse_outside(path, os.fsdecode(name))
    for part in data.virtual_sources() if data.is_virtual else ():
        beside = path.parent / part.file_name
        there = part.file_name if beside.exists() else os.path.abspath(part.file_name)  # in the library's order
        if part.file_name != "." and leads_outside(path.parent, there):
            refuse_outside(path, part.file_name)
