"""Where the arithmetic is done: which device, in which number format, on how many threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tickwork.contract.outcomes import OperatorError

if TYPE_CHECKING:
    import torch

_NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of /proc/cpuinfo (x86; arm64): elsewhere bfloat16 is emulated, and slower than float32."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that has been tried out."""

    torch_device: torch.device
    dtype: torch.dtype
    """The fast format of matrix products: bfloat16, float16 on a GPU for products of stored vectors, or float32."""
    threads: int

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.torch_device.type == "cuda"


def open_device(kind: Literal["cpu", "gpu"], threads: int = 0, dtype: str = "auto") -> Device:
    """Try the device `kind` out and give it; `threads` 0 takes the free cores.

    There is no falling back: OperatorError says why a GPU that was asked for cannot be used.
    """
    import torch

    threads = threads or free_cores()
    torch.set_num_threads(threads)
    if kind == "gpu":
        _try_gpu()
        return Device(torch.device("cuda"), torch.float32 if dtype == "float32" else torch.bfloat16, threads)
    fast = torch.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and has_native_bf16()) else torch.float32
    return Device(torch.device("cpu"), fast, threads)


def _try_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        build = "this build of torch is for CPUs" if not torch.version.cuda else "the driver offers no GPU"
        raise OperatorError(f"--gpu: no usable GPU: {build}. Use --cpu, or install torch for this GPU")
    try:
        # A build that lacks this GPU's architecture only fails when something runs.
        probe = torch.ones(16, 16, device="cuda", dtype=torch.bfloat16)
        if float((probe @ probe).sum()) != 16.0**3:
            raise OperatorError("--gpu: the GPU computes wrong results")
    except RuntimeError as error:
        raise OperatorError(f"--gpu: the GPU cannot be used: {str(error).splitlines()[0]}") from error


def has_native_bf16() -> bool:
    """Whether this processor has instructions for bfloat16 products."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return not _NATIVE_BF16.isdisjoint(flags.split())


def free_cores() -> int:
    """The cores this process may use less those that were busy in the last minute; at least 1.

    Threads that share a core with others wait for each other at every step: two on one free core are slower than one.
    """
    return max(1, len(os.sched_getaffinity(0)) - round(os.getloadavg()[0]))
