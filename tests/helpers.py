"""Configurations, commands, processes and waiting for tests.

Processes of a world are forked, so that torch is imported once; each really trains, and can really be killed.
"""

import bz2
import functools
import gc
import gzip
import importlib
import io
import lzma
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import sentencepiece

from mt.config import Config
from mt.console import Console
from mt.data.batches import Rows, plan_batches
from mt.data.corpus import ORIGIN, Corpus
from mt.data.feed import cut_batch
from mt.data.prepare import prepare
from mt.data.prepared import Prepared
from mt.data.tokenizer import BOS, EOS, PAD, UNK
from mt.data.vocabulary import Tokenizers
from mt.device import choose_device
from mt.distributed import ALONE, World
from mt.errors import MtError
from mt.train.learner import Learner, make_learner
from mt.train.progress import Progress
from mt.train.resume import start_or_resume
from mt.train.update import take_update

FORKED_MT = Path(__file__).with_name("forked_mt.py")
PATIENCE = 300  # seconds; what is waited for takes a few on a quiet machine


def wait_until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, f"what was waited for did not happen within {PATIENCE} s"
        time.sleep(0.002)


def with_settings(config: Config, **sections: dict[str, Any]) -> Config:
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)


@functools.cache
def _forking() -> tuple["subprocess.Popen[str]", str]:
    """The process that forks commands, which ends with this one, and where it is called."""
    server = subprocess.Popen([sys.executable, FORKED_MT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def forked_mt() -> list[str]:
    """What stands for `python -m mt` wherever it begins does not matter: it is there at once."""
    return [sys.executable, "-IS", str(FORKED_MT), _forking()[1]]


def mt(*arguments: object, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `mt ARGUMENTS` as a process of its own; its stdin is `text`, where a lone surrogate stands for a byte."""
    command = [*forked_mt(), *map(str, arguments)]
    return subprocess.run(
        command, input=text, capture_output=True, check=False, encoding="utf-8", errors="surrogateescape"
    )


def mt_in_terminal(*arguments: object, ctrl_c_after: str = "", times: int = 1) -> tuple[int, str]:
    """Run `mt ARGUMENTS` in a terminal of 80 columns; its exit status, and all that the terminal was sent.

    ctrl_c_after: as soon as this text has been shown, Ctrl-C is typed so many times.
    """
    child, terminal = pty.fork()
    if not child:
        os.environ.update(COLUMNS="80", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "mt", *map(str, arguments)])
    shown, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            shown += os.read(terminal, 4096) if select.select([terminal], [], [], 0.05)[0] else b""
        except OSError:  # nobody is left who could write
            break
        if ctrl_c_after and ctrl_c_after.encode() in shown:
            ctrl_c_after = ""
            for _ in range(times):
                os.write(terminal, b"\x03")
                time.sleep(0.02)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def started(config: Config, init_from: Path | None = None, world: World = ALONE) -> tuple[Learner, Progress, Prepared]:
    """A learner where its run stands, new or resumed, beside its data."""
    console = Console(quiet=True)
    prepared = prepare(config, console)
    sizes = len(prepared.tokenizers.target), len(prepared.tokenizers.source)
    learner = make_learner(config, sizes[0], choose_device(config.train.device), sizes[1], world)
    return learner, start_or_resume(learner, prepared, console, world, init_from), prepared


def prepared_in_memory(corpus: Corpus, tokenizers: Tokenizers, inputs_N: Sequence[int] = ()) -> Prepared:
    """A training corpus as if it lay in a folder; inputs_N: the entry of data.train that each pair was read from."""
    inputs_N = inputs_N or [0] * len(corpus)
    places = [(index, line) for line, index in enumerate(inputs_N, 1)]
    origins = np.array(places, dtype=ORIGIN)
    manifest: dict[str, Any] = {"sources": {"train": [{} for _ in range(max(inputs_N) + 1)]}}
    return Prepared(Path(), tokenizers, corpus, origins, valid={}, manifest=manifest, fingerprint="", lock=io.BytesIO())


def first_batches(corpus: Corpus, config: Config, epoch: int = 0) -> list[Rows]:
    """The batches of an epoch, in their order."""
    return plan_batches(corpus.lengths(), config.batch.tokens, config.seed, epoch)


def losses_of_updates(learner: Learner, corpus: Corpus, batches: list[Rows], done: int = 0) -> list[float]:
    """Take an update on each batch, after so many that are done; returns their losses."""
    cut = [cut_batch(corpus, rows, learner.config.batch) for rows in batches]
    losses = [take_update(learner, passes, update)["loss"] for update, passes in enumerate(cut, done + 1)]
    return [float(loss) for loss in losses]


def fork(work: Callable[[], None], errors: Path | None = None, **environment: str) -> int:
    """Start `work` in a process of its own; returns its id. What it says on stderr goes to `errors`."""
    child = os.fork()
    if child:
        return child
    status = 1
    gc.freeze()  # what other tests left behind may own threads, which are not here: to collect it would abort
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(errors or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.environ.update(environment)
        work()
        status = 0
    except MtError as error:
        os.write(2, f"mt: {error}\n".encode())
        status = error.exit_status
    except SystemExit as left:
        status = int(left.code or 0)
    except BaseException as error:
        os.write(2, repr(error).encode())
    finally:
        sys.stderr.flush()
        os._exit(status)


def fork_world(size: int, work: Callable[[], None], errors: Path | None = None) -> list[int]:
    """Start `work` in the processes of one world; returns their ids by rank."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    ranks = [str(rank) for rank in range(size)]
    return [fork(work, errors, **address, RANK=rank, LOCAL_RANK=rank) for rank in ranks]


def statuses(children: list[int], seconds: float = PATIENCE) -> list[int]:
    """Wait for processes to end; exit statuses, negative for the signal that ended one."""
    deadline = time.monotonic() + seconds
    found: dict[int, int] = {}
    while len(found) < len(children):
        for child in set(children) - set(found):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                found[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for child in set(children) - set(found):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            raise AssertionError(f"{len(children) - len(found)} processes did not end within {seconds} s")
        time.sleep(0.005)
    return [found[child] for child in children]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def captured(pattern: str, text: str) -> str:
    """What the first group of a pattern holds where it first occurs, as it must; "." stands for line feeds too."""
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None, f"{pattern!r} is not in {text[:300]!r}"
    return match[1]


def children_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def compress_zst(data: bytes) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(data, asbytes=True))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": compress_zst,
}


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write a text file, and the folder that it lies in; gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def unigrams_numbered_alike(*languages: list[str]) -> list[bytes]:
    """A unigram model of each language, as OPUS-MT has them: all have the pieces of all, but use their own alone."""
    proto: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    special = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "unk_id": UNK}
    settings: dict[str, Any] = {
        "model_type": "unigram",
        "vocab_size": 60,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        **special,
    }
    other = functools.partial(proto.ModelProto.SentencePiece, score=0.0, type=proto.ModelProto.SentencePiece.UNUSED)
    models = []
    for sentences in languages:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=model, **settings)
        models.append(proto.ModelProto.FromString(model.getvalue()))
    texts = list(dict.fromkeys(piece.piece for model in models for piece in model.pieces))
    for model in models:
        own = {piece.piece: piece for piece in model.pieces}
        pieces = [own.get(text) or other(piece=text) for text in texts]
        del model.pieces[:]
        model.pieces.extend(pieces)
        model.trainer_spec.vocab_size = len(pieces)
    return [model.SerializeToString() for model in models]
