"""Knowing when memory ran out, and making room again."""

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or on the CPU."""
    words = ("not enough memory", "can't allocate memory", "bad_alloc")  # of the CPU's allocators
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def release(device: torch.device) -> None:
    """Give back what torch keeps for reuse, so that pieces of another size find room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
