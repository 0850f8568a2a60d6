"""The processes that train one model together: who they are, which samples each works on, how they agree.

All of them hold the same weights.  Each works on its samples of a batch, and the gradients of the parts are added up;
what a run does depends on its batches alone and not on how many processes share them.

`torch.nn.parallel.DistributedDataParallel` in place of `ProcessGroup.all_reduce` gives the same losses, but in more
lines: it wants the loss as the ``forward`` of a module, takes the plain mean where shares of a batch differ in size,
and fails inside ``backward``, where a lost process cannot be told from a lack of memory.  All else here would stay.
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
"""Variables that hold the number of processes, that of this one, and its number on this machine."""
TIMEOUT_S = 1800
"""How long processes wait for one another."""


@dataclass(frozen=True)
class ProcessGroup:
    """One of ``size`` processes, and what it does together with the others.

    The methods that exchange something are called by all processes, in the same order.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    """Number of this process on its machine."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ProcessGroup:
        """This process among those that torchrun or srun started; alone without them.

        Raises
        ------
        UsageError : variables that are missing or no numbers.
        """
        for names in LAUNCHERS:
            if names[0] in environment:
                size, rank, local = (read_number(environment, name) for name in names)
                if not 0 <= rank < size:
                    raise UsageError(
                        f"{names[1]}: {rank} is given, but there are {size} processes ({names[0]}) from 0 on"
                    )
                return cls(rank, size, local)
        return SINGLE

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
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
        bounds = [batch * rank // self.size for rank in (self.rank, self.rank + 1)]
        return bounds[0], bounds[1] - bounds[0]

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

    def gather(self, row: Sequence[float]) -> Tensor:
        """The rows of all processes, (size, len(row)) float64.

        Raises
        ------
        ResourceError : another process is gone.
        """
        import torch
        from torch import distributed

        mine = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        with explain_lost_process(self):
            distributed.all_gather(rows, mine)
        return torch.stack(rows)

    def weighted_mean(self, figures: Mapping[str, float], weight: float) -> dict[str, float]:
        """The figures of the whole batch, from those that every process has of its share.

        Parameters
        ----------
        figures : name -> mean over this process's samples; the names are the same in all processes.
        weight : share of the batch's samples that this process has; the weights of all add up to 1.
        """
        if self.alone:
            return dict(figures)
        row = [weight * value for value in figures.values()]
        return dict(zip(figures, self.gather(row).sum(0).tolist(), strict=True))

    def maximum(self, number: int) -> int:
        """The largest of a number that every process has."""
        return number if self.alone else int(self.gather([number]).max())

    def broadcast(self, message: bytes) -> bytes:
        """The message of the first process; those of the others are ignored.

        Raises
        ------
        ResourceError : another process is gone.
        """
        import torch
        from torch import distributed

        if self.alone:
            return message
        box = [message]
        with explain_lost_process(self):
            distributed.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, of any shape, as (out, in, 3, 3), by its sum over all processes, in one message.

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
        with explain_lost_process(self):
            distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


SINGLE = ProcessGroup()
"""A process that trains alone."""


def read_number(environment: Mapping[str, str], name: str) -> int:
    """A variable of the environment as a number.

    Raises
    ------
    UsageError : it is missing or no whole number.
    """
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"{name}: {text!r} is given, but a whole number is needed; start with torchrun or srun")
    return int(text)


def rendezvous(environment: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT: those that are given, else the first node of SLURM's step and a port of its own.

    Raises
    ------
    UsageError : neither is there.
    """
    given = {name: environment[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in environment}
    node = first_node(environment.get("SLURM_STEP_NODELIST", ""))
    if len(given) < 2 and not node:
        raise UsageError("MASTER_ADDR, MASTER_PORT: not given; start with torchrun or srun, which set them")
    # A port of the step's own, so that two trainings of one user do not meet on a node.
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return {"MASTER_ADDR": node, "MASTER_PORT": str(20_000 + (job * 16 + step) % 12_000)} | given


def first_node(nodes: str) -> str:
    """The first of SLURM's list, as ``gpu[03-07,9]-ib,login``: gpu03-ib."""
    match = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^\[,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


@contextmanager
def connect(group: ProcessGroup) -> Iterator[None]:
    """Connect the processes with each other: gradients over NCCL on GPUs, over gloo on CPUs, all else over gloo.

    After a failure the connections are left to the end of this process, which the others notice at once.

    Raises
    ------
    UsageError : nothing says where to meet. ResourceError : the others do not come.
    """
    import torch
    from torch import distributed

    if group.alone:
        yield
        return
    os.environ.update(rendezvous(os.environ))
    both = torch.cuda.is_available() and distributed.is_nccl_available()
    with explain_lost_process(group):
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if both else "gloo",
            rank=group.rank,
            world_size=group.size,
            timeout=timedelta(seconds=TIMEOUT_S),
        )
    yield
    distributed.destroy_process_group()


@contextmanager
def explain_lost_process(group: ProcessGroup) -> Iterator[None]:
    """Turn the failure of an exchange into one sentence.

    Raises
    ------
    ResourceError : another process is gone.
    """
    try:
        yield
    except RuntimeError as problem:
        reason = str(problem).splitlines()[0]
        raise ResourceError(
            f"process {group.rank}: one of the {group.size} processes is gone ({reason}); "
            "the same command goes on from the last state"
        ) from None
