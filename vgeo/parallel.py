"""Several processes as one: each has a GPU, or some cores, and a share of every batch; their results are those of one process.

torchrun starts them, on one machine or on many that see the same folders. Hugging Face Accelerate's PartialState tells each which one it is
and connects them through torch.distributed (NCCL between GPUs, gloo between CPUs); it leaves the training loop alone, where Lightning Fabric
wants to wrap models and optimizers, of which several train here together. A process that was started alone is all of them: nothing here
then costs anything.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import nn

from vgeo.errors import VgeoError


@cache
def state():
    """Accelerate's PartialState of this process. The others may wait for long while one of them searches."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


def device():
    """This process's accelerator when there is one, else the CPU."""
    return state().device


@dataclass(frozen=True)
class Part:
    """Of every `count` rows, batches or pairs the one with number `index`."""

    index: int = 0
    count: int = 1

    def of(self, rows):
        """This part of a sequence: rows index, index + count, ..."""
        return rows[self.index::self.count]

    def rand(self, *shape, generator):
        """torch.rand(shape) for this part's rows, dimension 1: the numbers that they have in the whole."""
        whole = torch.rand(shape[0], shape[1] * self.count, *shape[2:], generator=generator)
        return whole[:, self.index::self.count]

    def check(self, size, what):
        """Raises VgeoError where a batch of `size` has no equal parts."""
        if size % self.count:
            raise VgeoError(f"{what} {size}: {self.count} processes can't have equal shares of it: start as many as divide it")


WHOLE = Part()


def part():
    """The share of this process."""
    return Part(state().process_index, state().num_processes)


def first():
    """Is this the process that writes?"""
    return state().is_main_process


def wait():
    """Returns when all processes are here."""
    state().wait_for_everyone()


def told(value):
    """The first process's value, a plain one, in all of them."""
    return broadcast_object_list([value])[0] if state().num_processes > 1 else value


def gathered(rows):
    """The lists of all processes, one after the other."""
    return gather_object(rows)


def mean(tensor):
    """Of each element over the processes."""
    return reduce(tensor, "mean") if state().num_processes > 1 else tensor


def average_gradients(optimizers):
    """Of everything that they train, over the processes: then the step is that of the whole batch, whose parts are of equal size."""
    if state().num_processes > 1:
        gradients = [p.grad for optimizer in optimizers for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        whole = mean(torch.cat([gradient.flatten() for gradient in gradients]))  # one message, not one for each tensor
        for gradient, averaged in zip(gradients, whole.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(averaged.view_as(gradient))


class _Mean(torch.autograd.Function):
    """`mean` with its gradient: what every process's result owes to this one's tensor."""

    @staticmethod
    def forward(ctx, tensor):
        return mean(tensor)

    @staticmethod
    def backward(ctx, gradient):
        return mean(gradient)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of the batches of all processes. torch's SyncBatchNorm is for GPUs alone."""

    def forward(self, images):
        if not self.training:
            return super().forward(images)
        x = images.float()
        centre = _Mean.apply(x.mean((0, 2, 3)))
        x = x - centre[:, None, None]
        variance = _Mean.apply(x.square().mean((0, 2, 3)))
        with torch.no_grad():
            n = x.numel() // x.shape[1] * state().num_processes
            self.num_batches_tracked += 1
            self.running_mean.lerp_(centre, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


def share_statistics(module):
    """Makes every BatchNorm2d in the module a SharedBatchNorm2d of the same parameters; in a process alone, nothing. Returns the module."""
    if state().num_processes > 1:
        for each in module.modules():
            if type(each) is nn.BatchNorm2d:
                each.__class__ = SharedBatchNorm2d  # same parameters, buffers and names; the forward pass alone differs
    return module
