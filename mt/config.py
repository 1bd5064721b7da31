"""The configuration: frozen sections whose defaults are the paper's base model.

Order of precedence: defaults, then the YAML file, then `section.key=value` from the command line.
Section numbers in comments point into "Attention Is All You Need" (Vaswani et al., 2017).
Each key is marked Recipe, Noted or Free: whether it may change when a stopped run goes on.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mt.data_config import FIGURES, DataConfig
from mt.setting_types import Free, Noted, Recipe, Section


class ModelConfig(Section):
    """The Transformer (section 3; sizes from table 3)."""

    encoder_layers: Recipe[int] = Field(6, ge=1)  # 3.1, N
    decoder_layers: Recipe[int] = Field(6, ge=1)  # 3.1, N
    d_model: Recipe[int] = Field(512, ge=2)  # 3.1, width of every sublayer's output
    heads: Recipe[int] = Field(8, ge=1)  # 3.2.2, h; each has d_k = d_model / h
    d_ff: Recipe[int] = Field(2048, ge=1)  # 3.3, inner width of the feed-forward network
    dropout: Recipe[float] = Field(0.1, ge=0, lt=1)  # 5.4, residual dropout: sublayer outputs and embedding sums
    attention_dropout: Recipe[float] = Field(0.0, ge=0, lt=1)  # of attention weights; the paper has none
    activation_dropout: Recipe[float] = Field(0.0, ge=0, lt=1)  # within the feed-forward network; the paper has none
    positions: Recipe[Literal["sinusoidal", "learned", "rotary"]] = "sinusoidal"  # 3.5; learned: table 3, row E
    max_positions: Recipe[int] = Field(512, ge=2)  # with learned positions: the longest sentence, EOS counted
    norm: Recipe[Literal["post", "pre"]] = "post"  # 3.1: after the residual; pre: before each sublayer, and at the end
    activation: Recipe[Literal["relu", "gelu", "silu", "swiglu"]] = "relu"  # 3.3; swiglu has a third matrix
    embeddings: Recipe[Literal["tied", "decoder", "separate"]] = "tied"  # 3.4: one matrix; decoder: the source's apart
    output_bias: Recipe[bool] = False  # 3.4 has none; OPUS-MT's models have one
    recurrence: Recipe[Literal["none", "fixed", "adaptive"]] = "none"  # a stack is one layer, applied N times or ...
    halt_threshold: Recipe[float] = Field(0.99, gt=0, lt=1)  # ... adaptive: until a piece's chances to halt reach this

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} cannot be divided among {self.heads} heads")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} must be even: positions come in sine and cosine pairs")
        if self.recurrence != "none" and self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} must be even: steps come in sine and cosine pairs")
        if self.positions == "rotary" and self.d_model // self.heads % 2:
            width = self.d_model // self.heads
            raise ValueError(f"heads of {width} dimensions must be even: rotary positions turn pairs of dimensions")
        return self

    @property
    def longest(self) -> int | None:
        """The pieces of the longest sentence that the model has positions for, EOS counted; None: any length."""
        return self.max_positions if self.positions == "learned" else None

    def parameters(self, vocab_size: int, source_vocab_size: int | None = None) -> int:
        """The number of weights of a model of these sizes; without `source_vocab_size` it is `vocab_size`."""
        d, square = self.d_model, self.d_model**2 + self.d_model  # a linear layer from d to d, and its bias
        inner = 2 if self.activation == "swiglu" else 1
        feed_forward = inner * (d + 1) * self.d_ff + self.d_ff * d + d
        encoder = self.distinct(self.encoder_layers) * (4 * square + feed_forward + 2 * 2 * d)
        decoder = self.distinct(self.decoder_layers) * (8 * square + feed_forward + 3 * 2 * d)
        source = vocab_size if source_vocab_size is None else source_vocab_size
        rows = vocab_size + {"tied": 0, "decoder": source, "separate": source + vocab_size}[self.embeddings]
        rows += self.max_positions if self.positions == "learned" else 0
        others = (vocab_size if self.output_bias else 0) + (2 * 2 * d if self.norm == "pre" else 0)
        halting = 2 * (d + 1) if self.recurrence == "adaptive" else 0
        return rows * d + others + encoder + decoder + halting

    def distinct(self, layers: int) -> int:
        """How many of a stack's layers have weights of their own: all, or one that is applied so many times."""
        return layers if self.recurrence == "none" else 1


class BatchConfig(Section):
    """How sentences are grouped (section 5.1)."""

    tokens: Recipe[int] = Field(25_000, ge=16)  # per update over all processes, on each side, padding counted
    micro_tokens: Noted[int] = Field(
        0, ge=0
    )  # per forward pass; sets memory, not what an update sees; 0: a whole update on a GPU, 8,192 elsewhere
    multiple: Noted[int] = Field(1, ge=1)  # of passes in an update; 8: the same dropout masks on 1 to 8 processes


class OptimConfig(Section):
    """Adam and its rate (section 5.3)."""

    name: Recipe[Literal["adam", "adamw", "muon"]] = "adam"  # 5.3; muon: for the layers' matrices, AdamW for the rest
    weight_decay: Recipe[float] = Field(0.0, ge=0)  # apart from the gradient, but with adam in it (L2)
    beta1: Recipe[float] = Field(0.9, ge=0, lt=1)  # 5.3
    beta2: Recipe[float] = Field(0.98, ge=0, lt=1)  # 5.3
    eps: Recipe[float] = Field(1e-9, gt=0)  # 5.3
    schedule: Recipe[Literal["paper", "constant", "linear", "stable"]] = "paper"  # 5.3; with --init-from: constant
    warmup: Recipe[int] = Field(4_000, ge=1)  # 5.3, updates in which the rate rises; with --init-from 100, unless given
    scale: Recipe[float] = Field(1.0, gt=0)  # the paper's rate is multiplied by this
    rate: Recipe[float] = Field(
        1e-4, gt=0
    )  # after the warm-up; constant keeps it, linear falls from it to 0 at train.updates, stable near its end
    decay: Recipe[float] = Field(0.2, ge=0, le=1)  # share of train.updates in which a stable rate falls to 0
    clip_norm: Recipe[float] = Field(0.0, ge=0)  # a gradient of larger norm is scaled down to it; 0: never (paper)


class Stage(Section):
    """A change of the training text or of the rate in the course of a run; what it leaves out stays as it was."""

    update: int | None = Field(None, ge=0)  # begins after so many updates, or ...
    epoch: int | None = Field(None, ge=0)  # ... after so many epochs
    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field({})  # by the name of an input of data.train
    scale: float | None = Field(None, gt=0)  # the rate of optim.schedule is multiplied by this

    @model_validator(mode="after")
    def _begins_and_changes(self) -> Self:
        if (self.update is None) == (self.epoch is None):
            raise ValueError("give exactly one of update, epoch: after how many of them the stage begins")
        if not self.weights and self.scale is None:
            raise ValueError("changes nothing: give weights, scale, or both")
        return self

    @property
    def begin(self) -> tuple[str, int]:
        """What it counts, update or epoch, and how many of them are done when it begins."""
        return ("epoch", self.epoch) if self.epoch is not None else ("update", self.update or 0)


class TrainConfig(Section):
    """The training run (sections 5.2, 5.4 and 6.1)."""

    dir: Free[Path] = Path("runs/base")  # where the run is kept
    updates: Noted[int] = Field(100_000, ge=1)  # 5.2; training ends here, or earlier by one of the next three
    epochs: Noted[int] = Field(0, ge=0)  # when the data have been seen this often; 0: no such end
    hours: Noted[float] = Field(0.0, ge=0)  # after this much training, all its sessions together; 0: no such end
    patience: Noted[int] = Field(0, ge=0)  # after this many validations in a row without a new best; 0: no such end
    best: Recipe[str] = "bleu"  # what decides: bleu or loss of the first validation set, NAME or NAME.loss of another
    label_smoothing: Recipe[float] = Field(0.1, ge=0, lt=1)  # 5.4
    consistency: Recipe[Literal["none", "rdrop", "simcut"]] = "none"  # also train two passes over a batch to agree
    consistency_weight: Recipe[float] = Field(5.0, ge=0)  # of their divergence; 5 is usual for rdrop, 3 for simcut
    stages: Recipe[tuple[Stage, ...]] = ()  # changes of the weights of data.train, or of the rate, as the run goes on
    ponder: Recipe[float] = Field(0.01, ge=0)  # with model.recurrence=adaptive: what each step of a piece costs
    average: Noted[int] = Field(5, ge=1)  # 6.1: "averaging the last 5 checkpoints"
    ema: Recipe[float] = Field(0.0, ge=0, lt=1)  # decay of a moving average of the weights, saved as the model; 0: none
    bpe_dropout: Recipe[float] = Field(0.0, ge=0, lt=1)  # chance that a merge is skipped, in training only; 0: none
    noise: Recipe[float] = Field(0.0, ge=0, le=1)  # share of source sentences with slips, in training only; 0: none
    checkpoint_every: Noted[int] = Field(1_500, ge=1)  # updates; each is validated; about the 10 minutes of section 6.1
    keep: Free[int] = Field(5, ge=1)  # newest checkpoints kept, beside the best
    keep_every: Free[int] = Field(0, ge=0)  # updates; checkpoints at its multiples are kept for good; 0: none
    save_every: Free[int] = Field(0, ge=0)  # updates; also saved at its multiples, without a validation; 0: no
    log_every: Free[int] = Field(100, ge=1)  # updates
    tensorboard: Free[bool] = False  # write TensorBoard events beside metrics.jsonl; needs the tensorboard extra
    device: Noted[Literal["auto", "cpu", "cuda", "mps"]] = "auto"  # auto: cuda, else mps, else cpu
    precision: Recipe[Literal["auto", "float32", "bfloat16"]] = "auto"  # of products; weights stay float32
    residual: Recipe[Literal["float32", "bfloat16"]] = "float32"  # what layers hand on; bfloat16 where products are
    compile: Noted[bool] = False  # fuse what is not a matrix product, for a GPU: a minute's compiling at each start
    deterministic: Noted[bool] = True  # on a GPU: the same bits each time, as on a CPU, so that resuming is exact
    shard: Free[Literal["none", "optimizer"]] = "none"  # optimizer: each process has a share of Adam's state
    recompute: Free[bool] = False  # compute activations again in the backward pass: less memory, a third more work

    @model_validator(mode="after")
    def _average_is_kept(self) -> Self:
        if self.keep < self.average:
            raise ValueError(f"keep {self.keep} is less than average {self.average}: what is averaged must be kept")
        return self

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> Self:
        for index, stage in enumerate(self.stages):
            unit, begin = stage.begin
            before_unit, before = self.stages[index - 1].begin if index else (unit, -1)
            end = self.updates if unit == "update" else self.epochs or begin + 1
            if unit != before_unit:
                raise ValueError(f"stages.{index}: the stages before count by {before_unit}: count by one in all")
            if begin <= before:
                raise ValueError(f"stages.{index}.{unit}: {begin} does not come after {before}, the stage before")
            if begin >= end:
                raise ValueError(f"stages.{index}.{unit}: the run ends before {begin}: train.{unit}s is {end}")
        return self

    def stage_at(self, update: int, epoch: int) -> int:
        """How many of the stages have begun where so many updates and epochs are done."""
        done = {"update": update, "epoch": epoch}
        return sum(done[unit] >= begin for unit, begin in (stage.begin for stage in self.stages))

    def scale_of(self, stage: int) -> float:
        """What the rate is multiplied by when so many of the stages have begun."""
        return ([1.0] + [one.scale for one in self.stages[:stage] if one.scale is not None])[-1]


class DecodeConfig(Section):
    """Beam search (section 6.1)."""

    beam: Free[int] = Field(4, ge=1)  # 6.1, width; 1 is greedy
    penalty: Free[Literal["gnmt", "length", "none"]] = "gnmt"  # log-probability / ((5 + |Y|) / 6) ** alpha, or ...
    alpha: Free[float] = Field(0.6, ge=0)  # ... / |Y| ** alpha, or the log-probability as it is
    max_extra: Noted[int] = Field(50, ge=1)  # 6.1: output at most input length + 50
    max_length: Noted[int | None] = Field(None, ge=1)  # pieces; output at most this long as well
    min_length: Noted[int] = Field(0, ge=0)  # pieces
    groups: Free[int] = Field(1, ge=1)  # diverse beam search: the beam is cut into so many groups that ...
    diversity: Free[float] = Field(0.5, ge=0)  # ... pay this for each piece that an earlier group has just chosen
    sample: Noted[bool] = False  # draw each piece at random instead of searching for the best output
    temperature: Noted[float] = Field(1.0, gt=0)  # of sampling: below 1 is more careful, above 1 more varied
    top_k: Noted[int] = Field(0, ge=0)  # sample from the k likeliest pieces only; 0 means all
    top_p: Noted[float] = Field(1.0, gt=0, le=1)  # sample from the likeliest pieces that make up this probability
    seed: Noted[int] = Field(1, ge=0)  # of sampling
    protect: Noted[bool] = True  # with data.protect: what it names is replaced and put back in translation, too
    long_lines: Noted[Literal["split", "cut"]] = "split"  # lines of more than `max_source` pieces: at sentence ends
    max_source: Noted[int] = Field(256, ge=1)  # pieces
    batch_tokens: Free[int] = Field(0, ge=0)  # source pieces decoded together; 0: 32,000 on a GPU, 4,096 elsewhere
    precision: Free[Literal["float32", "bfloat16", "int8"]] = "float32"  # of weights and products; int8 on a CPU
    shortlist: Free[str] = "no"  # only pieces that a source can need: yes (as mt shortlist wrote), or a file
    alignment_layer: Free[int] = Field(0, ge=0)  # decoder layer that alignments are read from; 0: the one measured best

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.beam % self.groups:
            raise ValueError(f"a beam of {self.beam} cannot be cut into {self.groups} groups of one size")
        if self.sample and self.groups > 1:
            raise ValueError("sample and groups exclude each other: sampling has no beam")
        if self.max_length is not None and self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is more than max_length {self.max_length}")
        return self


class Config(Section):
    """Everything a run depends on."""

    seed: Recipe[int] = Field(1, ge=0)  # every random choice of training comes from it; data.seed is that of preparing
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()

    @model_validator(mode="after")
    def _vocabularies_have_embeddings(self) -> Self:
        if self.data.vocab == "separate" and self.data.tokenizer is None and self.model.embeddings == "tied":
            raise ValueError(
                "data.vocab separate numbers the pieces of each language in its own way, but model.embeddings tied has "
                "one matrix for both: set model.embeddings=decoder, or separate"
            )
        return self

    @model_validator(mode="after")
    def _shares_can_be_stepped_on(self) -> Self:
        if self.train.shard == "optimizer" and self.optim.name == "muon":
            raise ValueError(
                "train.shard optimizer cuts matrices into shares, but optim.name muon steps on whole ones: set "
                "optim.name=adamw, or train.shard=none"
            )
        return self

    @model_validator(mode="after")
    def _best_is_there(self) -> Self:
        if self.train.best not in self._bests:
            raise ValueError(f"train.best: {self.train.best} is none of {', '.join(self._bests)}")
        return self

    @model_validator(mode="after")
    def _stages_weigh_what_is_there(self) -> Self:
        known = {source.name: source.weight for source in self.data.train if source.name is not None}
        for index, stage in enumerate(self.train.stages):
            for name, weight in stage.weights.items():
                where = f"train.stages.{index}.weights.{name}"
                if name not in known:
                    names = ", ".join(known) or "none has one yet, such as {prefix: corpus/train, name: news}"
                    raise ValueError(f"{where}: no input of data.train has this name ({names})")
                least = min(source.weight for source in self.data.train if source.name == name)
                if least < 1 and weight not in (0, least):
                    raise ValueError(
                        f"{where}: a weight of {least:g} in data.train leaves some of its pairs out for good: "
                        "put 1 there, and this weight into a stage that begins at update 0"
                    )
            if not any(self.weights(index + 1)):
                raise ValueError(f"train.stages.{index}.weights: leaves no text to train on")
        return self

    def weights(self, stage: int) -> tuple[float, ...]:
        """The weight of each input of data.train when so many of the stages have begun."""
        changed = {name: weight for one in self.train.stages[:stage] for name, weight in one.weights.items()}
        return tuple(changed.get(source.name or "", source.weight) for source in self.data.train)

    @property
    def best(self) -> tuple[str, str]:
        """What decides which checkpoint is best: the folder of a validation set, and one of FIGURES."""
        return self._bests[self.train.best]

    @property
    def _bests(self) -> dict[str, tuple[str, str]]:
        """What each value that `train.best` can have means; a figure alone is that of the first set."""
        folders = self.data.valid_folders
        choices = {figure: (folders[0], figure) for figure in FIGURES}
        for folder in folders if folders != ["valid"] else []:
            name = folder.removeprefix("valid/")
            choices |= {name: (folder, FIGURES[0])} | {f"{name}.{figure}": (folder, figure) for figure in FIGURES}
        return choices
