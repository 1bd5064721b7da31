"""Where tensors live, in which precision products run, and on how many rows at once."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import TYPE_CHECKING

from mt.errors import UsageError

if TYPE_CHECKING:  # torch is imported by whoever calls
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_NO_MEMORY = (
    *("out of memory", "Invalid buffer size"),  # CUDA, Triton, Apple's GPUs; the second is theirs too
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
    *("not enough memory", "can't allocate memory", "bad_alloc"),  # the CPU's allocators
)


def choose_device(name: str) -> torch.device:
    """The device meant by `auto`, `cpu`, `cuda` or `mps`. Raises UsageError when there is none."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name):
        raise UsageError(f"device {name}: torch finds no such device here; use auto or cpu")
    if name == "cuda":
        # On Hopper torch tries cuDNN's attention first, which plans for tens of milliseconds for each new exact shape.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of matrix products meant by `auto`, `float32`, `bfloat16` or `int8`; auto: bfloat16 where it is quicker.

    Raises UsageError for int8 on anything but a CPU.
    """
    import torch

    if name == "auto":
        return torch.bfloat16 if bfloat16_is_quick(device) else torch.float32
    if name == "int8" and device.type != "cpu":
        raise UsageError(f"precision int8 is for CPUs, and this is {device.type}: take bfloat16, or --device cpu")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}[name]


def bfloat16_is_quick(device: torch.device) -> bool:
    """Whether the hardware computes products in bfloat16 itself, faster than in float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not onednn_takes_bfloat16():
        return False
    if _ask(torch.cpu, "_is_amx_tile_supported"):
        return True
    return _ask(torch.cpu, "_is_avx512_bf16_supported") and not _misses_its_amx()


def _misses_its_amx() -> bool:
    """Whether this is an Intel CPU built with AMX that a virtual machine hides.

    Its other bfloat16 products have half the speed of float32; those of AMD have twice that speed. What tells the
    CPUs with AMX from the ones before is float16.
    """
    import torch

    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(found.get("cpu_name", "")).startswith("Intel") and bool(found.get("avx512_fp16"))


def onednn_takes_bfloat16() -> bool:
    """Whether oneDNN has bfloat16 kernels here; ONEDNN_MAX_CPU_ISA may forbid what the CPU has."""
    import torch

    return _ask(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")


def _ask(module: object, name: str) -> bool:
    """The answer of a private function of torch; False, which is always safe, where a later torch lacks it."""
    return bool(getattr(module, name, lambda: False)())


def warning_of(precision: str, device: torch.device) -> str:
    """A warning for who chose a precision that is slow here; empty for any other."""
    if precision != "bfloat16" or device.type == "mps" or bfloat16_is_quick(device):
        return ""
    unit = "CPU" if device.type == "cpu" else "GPU"
    return f"bfloat16 is slower than precision float32 on this {unit}, up to several times"


def total_memory(device: torch.device) -> int:
    """Bytes of memory that a device has, free or not."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or on the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory: asking the kernel for the same pages each update costs about 7% on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def keep_few_kernels() -> None:
    """Let a CPU keep some updates' kernels, not the last 1,024; call before the first product of the process.

    In bfloat16 attention has one for each shape of a batch, and few shapes come back. Lying between freed memory, they
    also keep it in pieces too small to be used again. What the user has set stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")


# How often a waiting thread looks before it sleeps: the fewest that lose nothing on a quiet machine. scripts/README.md
# has the figures. The products of training are longer.
TRAINING_SPINS, DECODING_SPINS = 3_000, 10_000


def share_cores(spins: int) -> None:
    """Let threads that wait for each other sleep soon; call before torch is imported.

    libgomp's threads would keep their cores for milliseconds in waiting, and so hold up the very threads they wait for
    where another process needs a core too. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(spins))


def repeat_exactly(device: torch.device) -> None:
    """Let a GPU compute the same bits each time, as a CPU does; call before the first product of the process.

    Without it, gradients of attention and of repeated rows are summed in a varying order.
    """
    if device.type == "cuda":
        import torch.utils.deterministic

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it for cuBLAS
        torch.use_deterministic_algorithms(True)
        # By default this mode also fills all newly allocated memory, which takes time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def up_to_kernel_size(rows: int) -> int:
    """The number of rows rounded up to one of a few sizes, by at most an eighth.

    A CPU builds and keeps a kernel for each number of rows: a millisecond and 0.6 MiB for every shape of weights. A
    batch job would otherwise have hundreds of numbers.
    """
    return down_to_kernel_size(rows + _step(rows) - 1)


def down_to_kernel_size(rows: int) -> int:
    """The number of rows rounded down to one of the same sizes."""
    return rows - rows % _step(rows)


def _step(rows: int) -> int:
    return 1 << max(0, rows.bit_length() - 4)
