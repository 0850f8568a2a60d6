"""The processes that train one model together: who they are, what each one does, how they agree.

All of them hold the same weights.  Each works on its samples of a batch, and the gradients of the parts are added up;
what a run does depends on its batches alone and not on how many processes share them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sciresdiff.errors import ResourceError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "LOCAL_RANK"),  # torchrun
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),  # srun; in a batch script itself there is no step
)
"""Variables that tell the number of processes, that of this one, and its number on this machine."""
PATIENCE_S = 1800
"""How long processes wait for one another."""


@dataclass(frozen=True)
class World:
    """One of ``size`` processes."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Number of this process on its machine."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def share(self, batch: int) -> tuple[int, int]:
        """First and number of the samples of a batch that this process works on; they differ by one at most.

        Raises
        ------
        UsageError : there are fewer samples than processes.
        """
        if batch < self.size:
            raise UsageError(
                f"--recipe: [loop] batch = {batch}, but {self.size} processes need a sample each; "
                "start fewer processes, or give a larger batch"
            )
        cuts = [batch * rank // self.size for rank in (self.rank, self.rank + 1)]
        return cuts[0], cuts[1] - cuts[0]

    def device(self, name: str) -> torch.device:
        """The device of ``--device``; of several GPUs each process has its own.

        Raises
        ------
        UsageError : a device that is not there, or one GPU for several processes.
        """
        import torch

        from sciresdiff.restoration.model import device_of

        device = device_of(name)
        if self.alone or device.type != "cuda":
            return device
        if name not in ("auto", "cuda"):
            raise UsageError(f"--device: {name} is one GPU for {self.size} processes; give cuda, or start one process")
        count = torch.cuda.device_count()
        if self.local >= count > 1:
            raise UsageError(f"--device: process {self.local} of this machine has no GPU, there are {count}")
        return torch.device("cuda", self.local % count)  # where the launcher shows each process its own, it is cuda:0

    def table(self, row: Sequence[float]) -> Tensor:
        """The rows of all processes, (size, len(row)) float64.

        Raises
        ------
        ResourceError : another process is gone.
        """
        import torch
        from torch import distributed

        mine = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        with together(self):
            distributed.all_gather(rows, mine)
        return torch.stack(rows)

    def mean(self, figures: Mapping[str, float], weight: float) -> dict[str, float]:
        """The figures of all processes, each weighted by the share of the batch that they come from."""
        if self.alone:
            return dict(figures)
        row = [weight * value for value in figures.values()]
        return dict(zip(figures, self.table(row).sum(0).tolist(), strict=True))

    def most(self, number: int) -> int:
        """The largest of a number that every process has."""
        return number if self.alone else int(self.table([number]).max())

    def told(self, message: bytes) -> bytes:
        """What the first process says, which all of them hear.

        Raises
        ------
        ResourceError : another process is gone.
        """
        import torch
        from torch import distributed

        if self.alone:
            return message
        length = int(self.table([len(message)])[0, 0])
        if not length:
            return b""
        said = torch.zeros(length, dtype=torch.uint8)
        if self.first:
            said[:] = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        with together(self):
            distributed.broadcast(said, 0)
        return said.numpy().tobytes()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message.

        Raises
        ------
        ResourceError : another process is gone.
        """
        import torch
        from torch import distributed

        tensors = list(tensors)
        if self.alone or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with together(self):
            distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


ALONE = World()


def world(environment: Mapping[str, str] = os.environ) -> World:
    """This process among those that torchrun or srun started; alone without them.

    Raises
    ------
    UsageError : variables that are missing or no numbers.
    """
    for names in LAUNCHERS:
        if names[0] in environment:
            size, rank, local = (counted(environment, name) for name in names)
            if not 0 <= rank < size:
                raise UsageError(f"{names[1]}: {rank} is given, but there are {size} processes ({names[0]}) from 0 on")
            return World(rank, size, local)
    return ALONE


def counted(environment: Mapping[str, str], name: str) -> int:
    """A variable of the environment as a number."""
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"{name}: {text!r} is given, but a whole number is needed; start with torchrun or srun")
    return int(text)


def meeting(environment: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT: those that are given, else the first node of SLURM's step and a port of its own.

    Raises
    ------
    UsageError : neither is there.
    """
    given = {name: environment[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in environment}
    node = first_node(environment.get("SLURM_STEP_NODELIST", ""))
    if len(given) < 2 and not node:
        raise UsageError("MASTER_ADDR, MASTER_PORT: not given; start with torchrun or srun, which tell them")
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return {"MASTER_ADDR": node, "MASTER_PORT": str(20_000 + (job * 16 + step) % 12_000)} | given


def first_node(nodes: str) -> str:
    """The first of SLURM's list, as ``gpu[03-07,9]-ib,login``: gpu03-ib."""
    match = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^\[,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


@contextmanager
def joined(world: World) -> Iterator[None]:
    """The processes connected with each other: gradients over NCCL on GPUs, over gloo on CPUs, words over gloo.

    After a failure the connections are left to the end of this process, which the others hear of at once.

    Raises
    ------
    UsageError : nothing says where to meet. ResourceError : the others do not come.
    """
    import torch
    from torch import distributed

    if world.alone:
        yield
        return
    os.environ.update(meeting(os.environ))
    both = torch.cuda.is_available() and distributed.is_nccl_available()
    with together(world):
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if both else "gloo",
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=PATIENCE_S),
        )
    yield
    distributed.destroy_process_group()


@contextmanager
def together(world: World) -> Iterator[None]:
    """Something that all processes do; where one is gone it is said so."""
    try:
        yield
    except RuntimeError as problem:
        reason = str(problem).splitlines()[0]
        raise ResourceError(
            f"process {world.rank}: one of the {world.size} processes is gone ({reason}); "
            "the same command goes on from the last state"
        ) from None
