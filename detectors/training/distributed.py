"""Data-parallel training that reproduces the steps of a single process.

Each process computes its shard of the batch. Batch norm statistics, the normalisation of the loss and the
gradients are combined exactly, so the weights equal those of a single process up to rounding.
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

TIMEOUT = timedelta(minutes=60)
"""How long a process waits for the others in a collective; the main process may validate in the meantime."""


class ProcessGroup:
    """Process group with rank and size; with size 1 all collectives return their input."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def is_main(self) -> bool:
        """Whether this process logs, validates and saves."""
        return self.rank == 0

    def shard(self, count: int) -> range:
        """Returns this process's contiguous part of `count` indices; part sizes differ by at most one."""
        edges = [count * rank // self.size for rank in (self.rank, self.rank + 1)]
        return range(*edges)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sums `values` over all processes, in place, and returns them.

        Raises MoteError if another process is gone or does not answer within `TIMEOUT`.
        """
        if self.size > 1:
            try:
                dist.all_reduce(values)
            except RuntimeError as error:  # of both backends, for a closed connection and for a timeout
                reason = str(error).partition("\n")[0]
                raise MoteError(f"process {self.rank} of the run lost the others: {reason}") from error
        return values

    def all_gather(self, values: Sequence[float], device: torch.device) -> Tensor:
        """Returns the n values of every process, (size, n) float64 on the CPU. Raises as `all_reduce`."""
        rows = torch.zeros(self.size, len(values), dtype=torch.float64, device=device)
        rows[self.rank] = torch.tensor(values, dtype=torch.float64)
        return self.all_reduce(rows).cpu()

    def all_reduce_gradients(self, model: nn.Module) -> None:
        """Sums the gradients over all processes.

        All processes run the same graph, so the same parameters have gradients. Raises as `all_reduce`.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = self.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


@contextmanager
def init_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Joins the process group that `torchrun` describes in the environment; without it a group of size 1.

    Raises MoteError if the processes cannot connect to each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MoteError(f"the {size} processes of the run cannot connect to each other: {error}") from error
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """Returns `name`, with 'auto' and 'cuda' resolved to the GPU of this process if there are several."""
    local_rank = os.environ.get("LOCAL_RANK")
    several = local_rank is not None and os.environ.get("WORLD_SIZE", "1") != "1"
    if several and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{local_rank}"
    return name


def require_clip_per_process(batch: int, group: ProcessGroup) -> None:
    """Raises UsageError if a batch has fewer clips than there are processes."""
    if batch < group.size:
        raise UsageError(
            f"schedule.batch = {batch} leaves some of {group.size} processes without a clip; "
            f"expected {group.size} or more"
        )


def require_same_step(step: int, group: ProcessGroup, device: torch.device) -> None:
    """Raises UsageError if the processes did not load the same checkpoint."""
    steps = group.all_gather([step], device).flatten().tolist()
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes would resume from steps {', '.join(f'{step:.0f}' for step in steps)}; "
            "expected record.output to be one folder that all of them share"
        )


class _AllReduce(torch.autograd.Function):
    """Differentiable sum over all processes: its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx, values: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return group.all_reduce(values.clone())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_reduce(gradient.clone()), None


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of all processes' batches.

    Parameters, buffers and evaluation mode are those of `nn.BatchNorm2d`. `nn.SyncBatchNorm` is not used
    because it runs on GPUs only.
    """

    _group: ProcessGroup

    @classmethod
    def convert(cls, plain: nn.BatchNorm2d, group: ProcessGroup) -> SyncBatchNorm:
        """Returns the synchronised form of `plain`, which shares its tensors."""
        norm = cls(plain.num_features, eps=plain.eps, momentum=plain.momentum)
        norm._parameters, norm._buffers = plain._parameters, plain._buffers
        norm.training = plain.training
        norm._group = group
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape and dtype."""
        if not self.training:
            return super().forward(x)
        # Means and variances are combined, not sums of squares: those cancel if the mean is large.
        pixels = x.float().transpose(0, 1).flatten(1)  # (C, B·H·W)
        size = pixels.new_full((1,), pixels.shape[1])
        rows = pixels.new_zeros(self._group.size, 2 * self.num_features + 1)
        is_own = torch.arange(self._group.size, device=x.device) == self._group.rank
        own = torch.cat([pixels.mean(dim=1), pixels.var(dim=1, unbiased=False), size])
        rows = _AllReduce.apply(torch.where(is_own[:, None], own, rows), self._group)  # (processes, 2C + 1)
        means, variances, counts = rows.split([self.num_features, self.num_features, 1], dim=1)
        total = counts.sum()
        mean = (means * counts).sum(dim=0) / total
        variance = ((variances + (means - mean).square()) * counts).sum(dim=0) / total
        self._update_running_statistics(mean.detach(), variance.detach() * total / (total - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        centred = x.float() - mean[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Updates the running statistics by those of a batch: mean and unbiased variance, (C,) each."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def convert_sync_batchnorm(model: nn.Module, group: ProcessGroup) -> None:
    """Replaces each batch norm by a `SyncBatchNorm` if there are several processes.

    The names in the state dict stay the same.
    """
    if group.size == 1:
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm.convert(child, group))
