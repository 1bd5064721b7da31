"""Neither an update nor a decoding step waits for the device, so a GPU always has work before it.

Shown on torch's `meta` device, which computes nothing: it takes every branch that is not the CPU's, and it raises
where a value is read, by `item`, `tolist`, `nonzero` or a boolean index. Refused here is what else would wait: tensors
made of Python values, and copies between devices.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from helpers import first_batches, started, with_settings
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mt.config import Config, ModelConfig
from mt.data.feed import cut_batch
from mt.distributed import World
from mt.model.transformer import Transformer
from mt.train.exchange import GradientExchange
from mt.train.learner import Learner
from mt.train.loss import make_loss
from mt.train.update import take_update
from mt.translate.beam import BeamSearch, beam_search, gnmt_penalty
from mt.translate.decoding import Decoding, GreedyDecoding, pad_sources
from mt.translate.sampling import Sampling, sample_search
from mt.translate.search import Bounds, greedy_search

META = torch.device("meta")
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor)
SORTING = tuple(
    getattr(torch.ops.aten, name)
    for kind in ("scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "index_copy")
    for name in (kind, f"{kind}_")
)
STEPS = 26


class _NoTensorsFromValues(TorchFunctionMode):
    """Refuses to make tensors of another device than the CPU from Python values, and to index them with lists."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in MAKERS:
            assert result.device.type == "cpu", f"{function.__name__} makes a tensor of Python values"
        if function in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device.type != "cpu":
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list) for part in index), "an index is made of a list"
        return result


class _NoCopiesBetweenDevices(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses them, but for those to the device that nobody waits for: an update's batches.

    In deterministic mode also what then copies inside torch's kernels for CUDA (`_scatter_via_index_put`), or may look
    whether indices are in range (`wrapIndexOnce`).
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.are_deterministic_algorithms_enabled():
            assert function.overloadpacket not in SORTING, f"{function} waits in deterministic mode"
        result = function(*args, **kwargs)
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor) and each.dim()]
        if len({tensor.device.type for tensor in tensors}) > 1:
            allowed = (
                function is torch.ops.aten._to_copy.default and result.device == META and kwargs.get("non_blocking")
            )
            assert allowed, f"{function} copies between devices"
        return result


@contextmanager
def waiting_refused() -> Iterator[None]:
    with _NoTensorsFromValues(), _NoCopiesBetweenDevices():  # type: ignore[no-untyped-call]
        yield


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda x: torch.tensor([1], device=META), AssertionError, "makes a tensor of Python values"),
        (lambda x: x[[0, 1]], AssertionError, "an index is made of a list"),
        (lambda x: x.copy_(torch.ones(2)), AssertionError, "copies between devices"),
        (lambda x: torch.ones(2).to(META), AssertionError, "copies between devices"),
        (lambda x: x.to("cpu"), NotImplementedError, "Cannot copy out of meta tensor"),
        (lambda x: x.tolist(), NotImplementedError, "Cannot copy out of meta tensor"),
        (lambda x: x[x > 0], NotImplementedError, "nonzero"),
        (lambda x: float(x.sum()), RuntimeError, r"item\(\) cannot be called on meta tensors"),
        (lambda x: bool((x > 0).all()), RuntimeError, r"item\(\) cannot be called on meta tensors"),
    ],
)
def test_what_waits_is_refused(work: Callable[[Tensor], object], error: type[Exception], message: str) -> None:
    x = torch.ones(2, device=META)
    with waiting_refused(), pytest.raises(error, match=message):
        work(x)


# --- An update ---------------------------------------------------------------------------------------------------


class _Two(World):
    """The first of two processes; the other has the same gradients as none."""

    def sum(self, tensor: Tensor) -> None:
        pass

    def start_sum(self, tensor: Tensor) -> Callable[[], None]:
        return lambda: None

    def max(self, number: int) -> int:
        return number


@pytest.mark.parametrize("world", [World(), _Two(size=2)], ids=["one process", "two processes"])
@pytest.mark.parametrize(
    ("train", "model", "unpadded"),
    [
        ({}, {}, False),
        ({}, {}, True),
        ({"recompute": True}, {"positions": "rotary"}, False),
        ({"consistency": "rdrop"}, {"positions": "rotary"}, True),
        ({"consistency": "rdrop"}, {"positions": "learned"}, False),
        ({"consistency": "simcut"}, {"recurrence": "fixed"}, False),
        ({}, {"recurrence": "adaptive"}, False),
    ],
)
def test_an_update_waits_for_nothing(
    toy_config: Config, train: dict[str, Any], model: dict[str, Any], unpadded: bool, world: World
) -> None:
    """With dropout, clipping and a moving average; the optimiser is torch's own affair."""
    config = with_settings(toy_config, optim={"clip_norm": 1.0}, train={"ema": 0.9, **train}, model=model)
    learner, _, prepared = started(config)
    on_meta = learner.model.to(META)
    on_meta.unpadded = unpadded
    learner = Learner(
        config=config,
        model=on_meta,
        exchange=GradientExchange(on_meta.parameters(), world),
        optimizer=torch.optim.SGD(on_meta.parameters(), foreach=True),
        loss=make_loss(config),
        precision=torch.float32,
        ema=[parameter.detach().clone() for parameter in on_meta.parameters()],
    )
    updates = [cut_batch(prepared.train, rows, config.batch) for rows in first_batches(prepared.train, config)[:2]]
    torch.use_deterministic_algorithms(True)  # as in a run on a GPU
    try:
        with waiting_refused():
            for update, batches in enumerate(updates, 1):
                record = take_update(learner, batches, update)
    finally:
        torch.use_deterministic_algorithms(False)
    assert record["loss"].device == record["gradient_norm"].device == META


# --- A decoding step ---------------------------------------------------------------------------------------------


class _EnoughStepsError(Exception):
    """The search has gone on for as long as the test wants."""


class _NoneHasFinished(TorchFunctionMode):
    """Answers who looks which sentences have finished, as a tensor without values cannot; counts how often."""

    looks = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.nonzero:
            self.looks += 1
            return torch.zeros(0, args[0].dim(), dtype=torch.int64)
        return function(*args, **(kwargs or {}))


class _Watched(Decoding):
    """Notes after which steps somebody looks whether sentences have finished."""

    def __init__(self, models: Sequence[Transformer], source_BS: Tensor, width: int) -> None:
        super().__init__(models, source_BS, width)
        self.looks: list[int] = []
        self.refused = ExitStack()

    def step(self, ids_BW: Tensor) -> Tensor:
        if not self.caches[0].length:  # a search may begin by waiting
            self.refused.enter_context(waiting_refused())
        return super().step(ids_BW)

    def compact(self, finished_B: Tensor) -> Tensor | None:
        steps = self.caches[0].length
        if steps == STEPS:
            raise _EnoughStepsError
        with _NoneHasFinished() as answers:
            staying = super().compact(finished_B)
        self.looks += [steps] * answers.looks
        return staying


class _WatchedGreedy(_Watched, GreedyDecoding):
    pass


BOUNDS = Bounds(1, 3, [20, 50, 30], shortest=30, prefix_BP=torch.full((3, 5), 7, device=META), device=META)
SEEDS = [(1, line) for line in range(3)]
BEAM = BeamSearch(4, gnmt_penalty(0.6), count=2)
GROUPS = BeamSearch(4, gnmt_penalty(0.6), groups=2, diversity=0.5)
SEARCHES: dict[str, tuple[type[_Watched], int, Callable[[Decoding], object]]] = {
    "greedy": (_WatchedGreedy, 1, lambda model: greedy_search(model, BOUNDS)),
    "beam": (_Watched, 4, lambda model: beam_search(model, BOUNDS, BEAM)),
    "diverse": (_Watched, 4, lambda model: beam_search(model, BOUNDS, GROUPS)),
    "sampling": (_Watched, 2, lambda model: sample_search(model, BOUNDS, Sampling(), SEEDS, 2)),
    "sampling, top k": (_Watched, 2, lambda model: sample_search(model, BOUNDS, Sampling(top_k=5), SEEDS, 2)),
    "sampling, top p": (_Watched, 2, lambda model: sample_search(model, BOUNDS, Sampling(top_p=0.9), SEEDS, 2)),
}


@pytest.mark.parametrize(
    ("name", "models", "settings"),
    [
        *((name, models, {}) for name in SEARCHES for models in (1, 2)),
        *(("beam", 1, {"positions": positions}) for positions in ("rotary", "learned")),
        *(("beam", 1, {"recurrence": recurrence}) for recurrence in ("fixed", "adaptive")),
    ],
)
def test_a_search_waits_for_the_device_only_at_each_eighth_step(
    name: str, models: int, settings: dict[str, Any]
) -> None:
    kind, width, search = SEARCHES[name]
    sizes = {"d_model": 16, "heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 2}
    config = ModelConfig.model_validate({**sizes, **settings})
    ensemble = [Transformer(config, 60).eval().to(META) for _ in range(models)]
    decoding = kind(ensemble, pad_sources([[5, 6], [5, 6, 7], [5]]), width)
    with decoding.refused, pytest.raises(_EnoughStepsError):
        search(decoding)
    assert decoding.looks == list(range(8, STEPS, 8))
