"""Laws of the few sizes that batches have while translating; what of torch is private and may go."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mt.config import BatchConfig, Config, DecodeConfig
from mt.device import (
    bfloat16_is_quick,
    choose_device,
    choose_precision,
    down_to_kernel_size,
    keep_few_kernels,
    share_cores,
    up_to_kernel_size,
    warning_of,
)
from mt.train.resume import settled
from mt.translate.opening import fitted

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
    assert down_to_kernel_size(rows) <= rows <= up_to_kernel_size(rows) <= 1.125 * rows
    for size in (down_to_kernel_size(rows), up_to_kernel_size(rows)):
        assert down_to_kernel_size(size) == up_to_kernel_size(size) == size


@given(st.integers(1, 10**6))
def test_a_beam_of_four_keeps_a_size_a_size(rows: int) -> None:
    assert up_to_kernel_size(4 * down_to_kernel_size(rows)) == 4 * down_to_kernel_size(rows)


def test_there_are_few_sizes() -> None:
    assert len({up_to_kernel_size(rows) for rows in range(4096)}) == 81


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_every_number_of_rows() -> None:
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 120  # 340 MiB without the few sizes


# Without the first six the slower way is taken, so none of them needs an upper bound on torch's version.
PRIVATE = {
    "torch._int_mm",
    "torch.cpu._is_amx_tile_supported",
    "torch.cpu._is_avx512_bf16_supported",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported",
    "torch.ops.mkldnn._linear_pointwise",
    "torch.ops.mkldnn._reorder_linear_weight",
    "torch.fx.experimental._config",
    "torch._dynamo",
    "torch._foreach_lerp_",
}


def test_the_private_functions_of_torch_are_these_and_are_there() -> None:
    package = Path(__file__).parents[2] / "mt"
    code = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    called = set(re.findall(r"torch(?:\.\w+)*\._[a-z]\w*", code))
    asked = {f"{module}.{name}" for module, name in re.findall(r"_ask\((torch[\w.]*), \"(\w+)\"\)", code)}
    assert called | asked == PRIVATE
    for name in PRIVATE:
        where, _, function = name.rpartition(".")
        module = torch
        for part in where.split(".")[1:]:
            module = getattr(module, part)
        assert hasattr(module, function), name


def test_a_run_on_cuda_leaves_cudnn_attention_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    torch.backends.cuda.enable_cudnn_sdp(True)
    assert choose_device("auto") == torch.device("cuda")
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    assert torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]


def test_a_gpu_takes_a_whole_update_at_once_and_larger_batches_of_translations() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [settled(Config(), device).batch.micro_tokens for device in (gpu, cpu)] == [25_000, 8_192]
    assert [fitted(DecodeConfig(), None, device).batch_tokens for device in (gpu, cpu)] == [32_000, 4_096]
    chosen = Config(batch=BatchConfig(micro_tokens=500), decode=DecodeConfig(batch_tokens=700))
    assert {settled(chosen, device).batch.micro_tokens for device in (gpu, cpu)} == {500}
    assert {fitted(chosen.decode, 300, device).batch_tokens for device in (gpu, cpu)} == {700}


def test_precision_auto_is_bfloat16_only_where_that_is_quick() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == (torch.bfloat16 if bfloat16_is_quick(cpu) else torch.float32)
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert bool(warning_of("bfloat16", cpu)) != bfloat16_is_quick(cpu)
    assert warning_of("float32", cpu) == ""


@pytest.mark.parametrize(
    ("amx", "cpu_name", "float16", "quick"),
    [
        (True, "Intel Xeon", True, True),
        (False, "Intel Xeon", True, False),  # hidden by a virtual machine: measured, half the speed of float32
        (False, "Intel Xeon", False, True),  # older than AMX
        (False, "AMD EPYC", False, True),
        (False, "AMD EPYC", True, True),
    ],
)
def test_an_intel_cpu_whose_amx_is_hidden_is_not_quick_in_bfloat16(
    amx: bool, cpu_name: str, float16: bool, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"cpu_name": cpu_name, "avx512_fp16": float16}
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert bfloat16_is_quick(torch.device("cpu")) == quick


@pytest.mark.parametrize(
    ("chosen", "found"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, None)],
)
def test_threads_wait_briefly_unless_the_user_says_otherwise(
    chosen: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    share_cores(5_000)
    assert os.environ.get("GOMP_SPINCOUNT") == found


@pytest.mark.parametrize(("given", "found"), [("", "256"), ("9", "9")])
def test_training_keeps_few_kernels_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str, found: str
) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", given)
    if not given:
        monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    keep_few_kernels()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == found
