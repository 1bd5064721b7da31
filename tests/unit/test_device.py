"""Laws of the few sizes that batches have while translating, and what they are for."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.device import rounded_down, rounded_up

# A kernel takes 0.6 MiB.
MEASURE = """
import torch
from mt.model.inference import PackedLinear

def resident_mib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024

layer, x = PackedLinear(torch.randn(64, 64), None), torch.randn(600, 64)
before = resident_mib()
with torch.inference_mode():
    for rows in range(1, 601):
        layer(x[:rows])
print(resident_mib() - before)
"""


@given(st.integers(0, 10**6))
def test_a_size_is_near_and_its_own_next(rows: int) -> None:
    assert rounded_down(rows) <= rows <= rounded_up(rows) <= 1.125 * rows
    for size in (rounded_down(rows), rounded_up(rows)):
        assert rounded_down(size) == rounded_up(size) == size


@given(st.integers(1, 10**6))
def test_a_beam_of_four_keeps_a_size_a_size(rows: int) -> None:
    assert rounded_up(4 * rounded_down(rows)) == 4 * rounded_down(rows)


def test_there_are_few_sizes() -> None:
    assert len({rounded_up(rows) for rows in range(4096)}) == 81


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_every_number_of_rows() -> None:
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 120  # 340 MiB without the few sizes
