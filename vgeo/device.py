"""The device, its precision, this process's share of the work, and named random streams.

torchrun starts several processes, on one machine or on many that see the same folders. Hugging Face
Accelerate connects them through torch.distributed (NCCL between GPUs, gloo between CPUs). A process
that was started alone has the whole of every share, and the calls here cost nothing.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from vgeo.errors import VgeoError

# The number of every purpose that random numbers are drawn for: two purposes never share numbers.
STREAMS = {
    "class order": 0,
    "image of a class": 1,
    "second image of a class": 2,
    "GeoWarp's photos": 3,
    "candidate pairs": 4,
    "night photos": 5,
    "photos of lessons": 6,
    "order of lessons": 7,
}


@cache
def processes() -> PartialState:
    """Accelerate's state of this process, connected to the others where torchrun started several.

    The time-out is a day, because the others wait while the first one searches or validates.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


def device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    return torch.device(processes().device)


@cache
def precision() -> str:
    """The precision of convolutions: "bf16" or "float32".

    "bf16" is chosen where the processor multiplies bfloat16 matrices in hardware. Emulated bfloat16
    is many times slower than float32.
    """
    if torch.cuda.is_available():
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        able = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if able else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Convolutions and matrix products on the device in a precision that `precision()` names."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def numpy_stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The random numbers for a purpose of STREAMS, and for `numbers` such as an iteration's."""
    return np.random.default_rng([seed, STREAMS[purpose], *numbers])


def torch_stream(seed: int, iteration: int) -> torch.Generator:
    """The random numbers, on the CPU, of one iteration of a training."""
    return torch.Generator().manual_seed(iteration_seed(seed, iteration))


def iteration_seed(seed: int, iteration: int) -> int:
    """A seed of its own for every iteration: a resumed training needs no generator's state."""
    return seed * 1_000_003 + iteration


@dataclass(frozen=True)
class Share:
    """One process's share: of every `count` rows, batches or pairs the one with number `index`."""

    index: int = 0
    count: int = 1

    def of(self, rows: Any) -> Any:
        """The rows index, index + count, ... of a sequence or an array."""
        return rows[self.index :: self.count]

    def rand(self, *shape: int, generator: torch.Generator) -> torch.Tensor:
        """torch.rand(shape): the numbers that this share's rows (dimension 1) have in the whole."""
        whole = torch.rand(shape[0], shape[1] * self.count, *shape[2:], generator=generator)
        return whole[:, self.index :: self.count]

    def check(self, size: int, what: str) -> None:
        """Raises VgeoError where `size` can't be divided into equal shares."""
        if size % self.count:
            raise VgeoError(
                f"{what} {size}: {self.count} processes can't have equal shares of it: start a "
                "number of processes that divides it"
            )


WHOLE = Share()


def share() -> Share:
    """The share of this process."""
    return Share(processes().process_index, processes().num_processes)


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return bool(processes().is_main_process)


def wait_for_all() -> None:
    """Returns when all processes have called it."""
    processes().wait_for_everyone()


def from_first(value: Any) -> Any:
    """The first process's value, a plain one such as a number or a str, in all processes."""
    return broadcast_object_list([value])[0] if processes().num_processes > 1 else value


def gathered(rows: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other, in all processes."""
    return list(gather_object(rows))
