"""Inputs and outputs: which files are meant, and what the outputs are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciresdiff.errors import InputError, ResourceError, UsageError
from sciresdiff.jobs import inputs
from sciresdiff.run import batch


def touch(folder: Path, *names: str) -> list[Path]:
    """Empty files of these names."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_an_extension_in_brackets_is_part_of_an_input(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.fits")
    (found,) = inputs.find_inputs([f"{path}[SCI,2]"])
    (task,) = inputs.name_outputs([found], f"{tmp_path}/out/", [], lambda path: 2)
    assert task.target == tmp_path / "out" / "a_SCI2_x2.fits"
    inputs.check_source(task.source)
    with pytest.raises(UsageError, match="is the input itself"):
        inputs.name_outputs([found], str(path), [], lambda path: 2)


def test_every_input_is_taken_once(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.fits")
    assert len(inputs.find_inputs([str(path), str(tmp_path), str(tmp_path / "*.fits")])) == 1


def test_planes_beside_a_tiff_are_no_inputs(tmp_path: Path) -> None:
    planes = [f"a_{name}.tif" for name in ("err", "support", "trust", "var", "draws")]
    touch(tmp_path, "a.tif", *planes, ".hidden.fits", "notes.txt")
    assert [item.path.name for item in inputs.find_inputs([str(tmp_path)])] == ["a.tif"]


def test_files_that_a_companion_names_are_not_images_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a_0.ome.tif", "a_1.ome.tif", "b.ome.tif")
    names = "".join(f'<UUID FileName="a_{c}.ome.tif">urn:uuid:{c}</UUID>' for c in range(2))
    (tmp_path / "a.companion.ome").write_text(f"<OME><Image><Pixels>{names}</Pixels></Image></OME>")
    found = inputs.find_inputs([str(tmp_path)])
    assert [item.path.name for item in found] == ["a.companion.ome", "b.ome.tif"]
    tasks = inputs.name_outputs(found, f"{tmp_path}/out/", [str(tmp_path)], lambda path: 2)
    assert [task.target.name for task in tasks if task.target] == ["a_x2.ome.tif", "b_x2.ome.tif"]


def test_a_store_is_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.ome.zarr/zarr.json", "a.ome.zarr/0/c/0", "b.fits")
    store = tmp_path / "a.ome.zarr"
    assert [item.path.name for item in inputs.find_inputs([str(tmp_path)], recursive=True)] == ["a.ome.zarr", "b.fits"]
    found = inputs.find_inputs([str(store)])
    (task,) = inputs.name_outputs(found, f"{tmp_path}/c.ome.zarr", [str(store)], lambda path: 2)
    assert task.target == tmp_path / "c.ome.zarr"
    with pytest.raises(UsageError, match=r"a\.ome\.zarr exists|exists"):
        inputs.check_target(store, overwrite=False)
    inputs.check_target(store, overwrite=True)


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(InputError, match="no image"):
        inputs.find_inputs(["-"], stdin=["", "# nothing"])


@pytest.mark.parametrize(
    ("codes", "expected"), [([], 0), ([0, 0], 0), ([0, 3, 2], 3), ([5, 4], 5), ([5, 1, 3], 1)], ids=str
)
def test_the_worst_code(codes: list[int], expected: int) -> None:
    assert batch.worst_code(codes) == expected


def test_a_failed_allocation_in_torch_is_a_resource() -> None:
    error = batch.as_error(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert isinstance(error, ResourceError)
    assert batch.as_error(RuntimeError("shape mismatch")) is None


def test_outputs_that_would_share_a_file_beside_them_are_refused(tmp_path: Path) -> None:
    def placed(*names: str) -> list[batch.Task]:
        return inputs.name_outputs(
            [inputs.Found(tmp_path / name) for name in names], f"{tmp_path}/out/", names, lambda path: 2
        )

    with pytest.raises(UsageError, match=r"would both become .*a_x2\.tif, or share a file beside it"):
        placed("a.ome.tif", "a.tif")
    assert len(placed("a.fits", "a.tif")) == 2
