"""How the peers of time_to_quality.py train and decode; it starts this file in a Python that has the peer.

    PYTHON quality_peers.py {huggingface,joeynmt} {train,decode} WORK RUN [KEY=VALUE ...]

KEY is a field of Seq2SeqTrainingArguments, or SECTION.KEY of a JoeyNMT config. JoeyNMT's environment need not have mt:
nothing of mt is imported for it. Both read text that mt has cut, so their pieces are mt's, one for one.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

Settings = dict[str, Any]

STOPPED = 130
BATCH = 64  # sentences decoded together
MAX_EXTRA = 50  # output pieces beyond the source's, as mt has it
PAD, EOS, UNK = 0, 2, 3  # mt's ids, which marian_model takes over
NO_LABEL = -100  # what Hugging Face's loss skips


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what they run in the background
    system, step, work, run, *given = sys.argv[1:]
    settings = {key: value_of(value) for key, _, value in (setting.partition("=") for setting in given)}
    try:
        STEPS[system, step](Path(work).absolute(), Path(run).absolute(), settings)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_task(work: Path) -> Settings:
    task: Settings = json.loads((work / "task.json").read_text(encoding="utf-8"))
    return task


def read_lines(work: Path, name: str) -> list[str]:
    return (work / "text" / name).read_text(encoding="utf-8").removesuffix("\n").split("\n")


def write_whole(path: Path, text: str) -> None:
    """As mt.files.write_whole, where there may be no mt."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


class Stopwatch:
    """Seconds of training and target tokens, written down with each checkpoint once that is whole."""

    def __init__(self, run: Path) -> None:
        self._path = run / "times.json"
        self.noted: list[dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else []
        last = self.noted[-1] if self.noted else {"update": 0, "seconds": 0.0, "tokens": 0}
        self.update, self.seconds, self.tokens = last["update"], last["seconds"], last["tokens"]
        self._since = math.inf

    def go(self) -> None:
        self._since = time.perf_counter()

    def stand(self) -> None:
        self.seconds += max(0.0, time.perf_counter() - self._since)
        self._since = math.inf

    def note(self, update: int) -> None:
        self.update = update
        self.noted.append({"update": update, "seconds": self.seconds, "tokens": self.tokens})
        write_whole(self._path, json.dumps(self.noted))

    def is_over(self, hours: float) -> bool:
        return 0 < hours * 3600 <= self.seconds


def undecoded(run: Path) -> list[tuple[int, Path]]:
    """Updates whose checkpoints have no output yet, and where each is to be written."""
    outputs = [(record["update"], run / "outputs" / f"{record['update']}.pieces") for record in Stopwatch(run).noted]
    return [(update, output) for update, output in outputs if not output.exists()]


# --- Hugging Face: MarianMTModel, trained by Seq2SeqTrainer ------------------------------------------------------


def read_ids(work: Path, name: str) -> list[list[int]]:
    """Sentences as ids with EOS."""
    ids = {piece: index for index, piece in enumerate(read_lines(work, "vocabulary"))}
    return [[*(ids[piece] for piece in line.split()), EOS] for line in read_lines(work, name)]


def padded(sentences: list[list[int]], filler: int = PAD) -> Any:
    import torch

    longest = max(map(len, sentences))
    return torch.tensor([sentence + [filler] * (longest - len(sentence)) for sentence in sentences])


def huggingface_arguments(task: Settings, run: Path, bf16: bool) -> Settings:
    return {
        "output_dir": str(run / "checkpoints"),
        "use_cpu": True,
        "bf16": bf16,  # its mixed precision, where the CPU multiplies bfloat16 itself: a fifth less CPU time an update
        # It counts sentences, not tokens: as many as an update of mt has on the average, like lengths together.
        "per_device_train_batch_size": task["sentences"],
        "train_sampling_strategy": "group_by_length",
        # Its AdamW and its clipping as they come. Rate and beta2 are the paper's, and so the schedule: its defaults
        # (5e-5 falling to 0, 0.999) are for fine-tuning, and a fall to 0 would need an end that is known beforehand.
        "learning_rate": task["rate"],
        "lr_scheduler_type": "inverse_sqrt",
        "warmup_steps": task["warmup"],
        "adam_beta2": 0.98,
        "label_smoothing_factor": task["label_smoothing"],
        "max_steps": task["updates"],
        "save_steps": task["every"],
        "logging_steps": 100,
        "seed": task["seed"],
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,  # of a datasets.Dataset, which this is not
    }


def train_huggingface(work: Path, run: Path, settings: Settings) -> None:
    import torch
    from common import Size, marian_model
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, set_seed

    from mt.config import ModelConfig
    from mt.device import bfloat16_is_quick

    task, watch = read_task(work), Stopwatch(run)
    source, target = (read_ids(work, f"train.{task[side]}") for side in ("src", "tgt"))
    pairs = [{"input_ids": ids, "labels": labels} for ids, labels in zip(source, target, strict=True)]
    set_seed(task["seed"])
    model = marian_model(Size(ModelConfig(**task["model"]), len(read_lines(work, "vocabulary"))))

    def collated(batch: list[dict[str, list[int]]]) -> Settings:
        """What DataCollatorForSeq2Seq makes, which wants a tokenizer of Hugging Face's own."""
        ids_BS = padded([pair["input_ids"] for pair in batch])
        labels_BT = padded([pair["labels"] for pair in batch], NO_LABEL)
        inputs_BT = model.prepare_decoder_input_ids_from_labels(labels_BT)
        mask_BS = (ids_BS != PAD).long()
        return {"input_ids": ids_BS, "attention_mask": mask_BS, "decoder_input_ids": inputs_BT, "labels": labels_BT}

    class Trainer(Seq2SeqTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Settings, *rest: Any) -> Any:
            watch.tokens += int((inputs["labels"] != NO_LABEL).sum())
            return super().training_step(model, inputs, *rest)

    class Timed(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.go()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if control.should_save:
                watch.stand()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.note(state.global_step)
            control.should_training_stop = control.should_training_stop or watch.is_over(task["hours"])
            watch.go()

    bf16 = bfloat16_is_quick(torch.device("cpu"))
    arguments = Seq2SeqTrainingArguments(**{**huggingface_arguments(task, run, bf16), **settings})
    trainer = Trainer(model, arguments, collated, pairs, callbacks=[Timed()])
    newest = run / "checkpoints" / f"checkpoint-{watch.update}"
    trainer.train(resume_from_checkpoint=str(newest) if watch.update else None)


def decode_huggingface(work: Path, run: Path, settings: Settings) -> None:
    import torch
    from transformers import MarianMTModel

    sources, pieces = read_ids(work, f"valid.{read_task(work)['src']}"), read_lines(work, "vocabulary")
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    for update, output in undecoded(run):
        model = MarianMTModel.from_pretrained(run / "checkpoints" / f"checkpoint-{update}").eval()
        found = {}
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            ids_BS = padded([sources[row] for row in rows])
            longest, mask_BS = ids_BS.shape[1] + MAX_EXTRA, (ids_BS != PAD).long()
            with torch.inference_mode():
                output_BT = model.generate(ids_BS, attention_mask=mask_BS, num_beams=1, max_new_tokens=longest)
            for row, ids in zip(rows, output_BT.tolist(), strict=True):  # after EOS there is padding alone
                found[row] = " ".join(pieces[index] for index in ids if index > UNK)
        write_whole(output, "".join(f"{found[row]}\n" for row in range(len(sources))))


# --- JoeyNMT -----------------------------------------------------------------------------------------------------


def joeynmt_config(work: Path, run: Path, settings: Settings) -> Settings:
    """Its own configs/iwslt14_deen_sp.yaml of version 2, but for what the task and the comments say."""
    task = read_task(work)
    shape = task["model"]
    width, dropout = shape["d_model"], shape["dropout"]
    side = {"level": "word", "voc_file": str(work / "text" / "vocabulary")}  # its words are pieces that are cut already
    sources = read_lines(work, f"valid.{task['src']}")
    stack = {
        "type": "transformer",
        "num_heads": shape["heads"],
        "embeddings": {"embedding_dim": width, "scale": True, "dropout": dropout},
        "hidden_size": width,
        "ff_size": shape["d_ff"],
        "dropout": dropout,
        "layer_norm": "post",
    }
    training = {
        "optimizer": "adam",
        # The paper's peak rate, warm-up and betas: its own (2e-4, 4,000, 0.999) belong to a width of 512 and 8,192
        # tokens. Its transformer_small.yaml has these betas and this warm-up.
        "adam_betas": [0.9, 0.98],
        "scheduling": "warmupinversesquareroot",
        "learning_rate": task["rate"],
        "learning_rate_warmup": task["warmup"],
        "learning_rate_min": 1e-8,
        "normalization": "tokens",
        "label_smoothing": task["label_smoothing"],
        # It shuffles without regard to length and counts padding: so many that an update has mt's real tokens.
        "batch_type": "token",
        "batch_size": task["padded"],
        "epochs": 1_000_000,  # until the updates or hours are over
        "updates": task["updates"],
        "validation_freq": task["every"],
        "logging_freq": math.gcd(100, task["every"]),
    }
    longest = max(len(line.split()) for line in sources) + 1 + MAX_EXTRA
    config = {
        "name": "time_to_quality",
        "model_dir": str(run / "checkpoints"),
        "use_cuda": False,  # and float32, all it has on a CPU
        "random_seed": task["seed"],
        "data": {
            "train": str(work / "text" / "train"),
            "dev": str(work / "text" / "valid"),
            "src": {"lang": task["src"], **side},
            "trg": {"lang": task["tgt"], **side},
        },
        "training": training,
        "testing": {"beam_size": 1, "batch_size": BATCH, "max_output_length": longest, "eval_metrics": []},
        "model": {
            "initializer": "xavier_normal",
            "embed_initializer": "xavier_normal",
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": {**stack, "num_layers": shape["encoder_layers"]},
            "decoder": {**stack, "num_layers": shape["decoder_layers"]},
        },
    }
    for key, value in settings.items():
        *sections, last = key.split(".")
        place: Settings = config
        for section in sections:
            place = place[section]
        place[last] = value
    return config


def train_joeynmt(work: Path, run: Path, settings: Settings) -> None:
    from joeynmt.config import parse_global_args
    from joeynmt.helpers_for_ddp import get_logger
    from joeynmt.prediction import prepare
    from joeynmt.training import TrainManager

    watch, hours = Stopwatch(run), read_task(work)["hours"]

    class Timed(TrainManager):  # type: ignore[misc]
        """Saves where it would validate, as its checkpoints are decoded later."""

        def _validate(self, valid_data: Any) -> None:
            self._save_checkpoint(False, math.nan)
            self.stats.is_max_update = self.stats.is_max_update or watch.is_over(hours)

        def _save_checkpoint(self, new_best: bool, score: float) -> None:
            watch.stand()
            if self.stats.steps > watch.update:  # at the end it saves once more
                super()._save_checkpoint(new_best, score)
                watch.tokens = self.stats.total_tokens
                watch.note(self.stats.steps)
            watch.go()

    config, folder = joeynmt_config(work, run, settings), run / "checkpoints"
    folder.mkdir(exist_ok=True)
    if watch.update:
        config["training"]["load_model"] = str(folder / f"{watch.update}.ckpt")
    get_logger("", log_file=str(folder / "train.log"))
    args = parse_global_args(config, rank=0, mode="train")
    model, train_data, valid_data, _ = prepare(args, rank=0, mode="train")
    about = {"model": model, "model_dir": args.model_dir, "device": args.device, "autocast": args.autocast}
    manager = Timed(rank=0, **about, seed=args.seed, train_args=args.train, dev_args=args.test)
    watch.go()
    manager.train_and_validate(train_data=train_data, valid_data=valid_data)
    if not manager.stats.is_max_update:  # Ctrl-C, which it takes for an end like any other
        raise KeyboardInterrupt


def decode_joeynmt(work: Path, run: Path, settings: Settings) -> None:
    from joeynmt.config import parse_global_args, set_validation_args
    from joeynmt.prediction import predict, prepare

    for update, output in undecoded(run):
        config = joeynmt_config(work, run, settings)
        config["testing"]["load_model"] = str(run / "checkpoints" / f"{update}.ckpt")
        args = parse_global_args(config, rank=0, mode="test")
        model, _, data, _ = prepare(args, rank=0, mode="test")
        greedy = set_validation_args(args.test)
        lines = predict(model, data, args.device, n_gpu=0, args=greedy, autocast=args.autocast)[2]
        write_whole(output, "".join(f"{line}\n" for line in lines))


STEPS = {
    ("huggingface", "train"): train_huggingface,
    ("huggingface", "decode"): decode_huggingface,
    ("joeynmt", "train"): train_joeynmt,
    ("joeynmt", "decode"): decode_joeynmt,
}


if __name__ == "__main__":
    main()
