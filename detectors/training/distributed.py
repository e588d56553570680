"""Training on several processes that together take the steps of one.

Each process computes its part of the batch. What joins the parts, batch norm statistics, the normalisation of
the loss and the gradients, is exact, so the weights are those of one process up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.system.errors import MoteError, UsageError

PATIENCE = timedelta(minutes=60)
"""How long a process waits for the others: longer than the first one measures, not for ever."""


class ProcessGroup:
    """The processes of a run, and this one's place among them; a world of one talks to nobody."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process is the one that logs, measures and saves."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` places, neighbours side by side, parts as equal as can be."""
        edges = [count * rank // self.size for rank in (self.rank, self.rank + 1)]
        return range(*edges)

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over all processes, in place. Raises MoteError when another one is gone."""
        if self.size > 1:
            try:
                dist.all_reduce(values)
            except RuntimeError as error:  # of both backends, for a closed connection and for a timeout
                reason = str(error).partition("\n")[0]
                raise MoteError(f"process {self.rank} of the run lost the others: {reason}") from error
        return values

    def gather(self, values: Sequence[float], device: torch.device) -> Tensor:
        """The numbers of all processes, (size, n) float64 on the CPU."""
        rows = torch.zeros(self.size, len(values), dtype=torch.float64, device=device)
        rows[self.rank] = torch.tensor(values, dtype=torch.float64)
        return self.sum(rows).cpu()

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients over all processes; those run the same graph, so the same ones are there."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


@contextmanager
def init_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The world that `torchrun` started this process in, or a world of one.

    Several processes meet by the variables that `torchrun` sets. Raises MoteError when they do not find each
    other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise MoteError(f"the {size} processes of the run do not find each other: {error}") from error
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def own_device(name: str) -> str:
    """`name`, where 'auto' and 'cuda' stand for the GPU that belongs to this process of several."""
    place = os.environ.get("LOCAL_RANK")
    several = place is not None and os.environ.get("WORLD_SIZE", "1") != "1"
    if several and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{place}"
    return name


def require_parts(batch: int, world: ProcessGroup) -> None:
    """Raise UsageError where a batch has fewer clips than there are processes."""
    if batch < world.size:
        raise UsageError(
            f"schedule.batch = {batch} leaves some of {world.size} processes without a clip; "
            f"expected {world.size} or more"
        )


def require_same_step(step: int, world: ProcessGroup, device: torch.device) -> None:
    """Raise UsageError where the processes have not found the same checkpoint."""
    steps = world.gather([step], device).flatten().tolist()
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes would go on from steps {', '.join(f'{step:.0f}' for step in steps)}; "
            "expected record.output to be one folder that all of them see"
        )


class _Sum(torch.autograd.Function):
    """Sum over all processes whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx, values: Tensor, world: ProcessGroup) -> Tensor:
        ctx.world = world
        return world.sum(values.clone())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum(gradient.clone()), None


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes; parameters, buffers and evaluation are the plain one's.

    torch's own SyncBatchNorm runs on GPUs alone.
    """

    @classmethod
    def of(cls, plain: nn.BatchNorm2d, world: ProcessGroup) -> SyncBatchNorm:
        """In place of `plain`, sharing its tensors."""
        norm = cls(plain.num_features, eps=plain.eps, momentum=plain.momentum)
        norm._parameters, norm._buffers = plain._parameters, plain._buffers
        norm.training, norm._world = plain.training, world
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape and type."""
        if not self.training:
            return super().forward(x)
        # Means and variances are joined, not sums of squares: those cancel where the mean is large.
        pixels = x.float().transpose(0, 1).flatten(1)  # (C, B·H·W)
        size = pixels.new_full((1,), pixels.shape[1])
        rows = pixels.new_zeros(self._world.size, 2 * self.num_features + 1)
        place = torch.arange(self._world.size, device=x.device) == self._world.rank
        own = torch.cat([pixels.mean(dim=1), pixels.var(dim=1, unbiased=False), size])
        rows = _Sum.apply(torch.where(place[:, None], own, rows), self._world)  # (processes, 2C + 1)
        means, variances, counts = rows.split([self.num_features, self.num_features, 1], dim=1)
        total = counts.sum()
        mean = (means * counts).sum(dim=0) / total
        variance = ((variances + (means - mean).square()) * counts).sum(dim=0) / total
        self._remember(mean.detach(), variance.detach() * total / (total - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        centred = x.float() - mean[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Take the statistics of a batch into the running ones."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def join_batch_norms(model: nn.Module, world: ProcessGroup) -> None:
    """Put a `SyncBatchNorm` in place of each batch norm; the names of the state dict stay the same."""
    if world.size == 1:
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm.of(child, world))
