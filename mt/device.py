"""Where tensors live and in which precision products run."""

import ctypes
import platform

import torch

from mt.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def choose_device(name: str) -> torch.device:
    """The device meant by `auto`, `cpu`, `cuda` or `mps`.

    Raises UsageError when it is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name):
        raise UsageError(f"train.device={name}: torch finds no such device here; use auto or cpu")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of matrix products meant by `auto`, `float32` or `bfloat16`; auto is bfloat16 where it is quicker."""
    if name == "auto":
        quick = (
            torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and _cpu_has_bfloat16()
        )
        return torch.bfloat16 if quick else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def settle() -> None:
    """Let the C library keep freed memory: asking the kernel for the same pages each update costs about 7% on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
