"""Speed of decoding beside Hugging Face's generate and CTranslate2: same weights, sentences, batches and lengths.

    python scripts/benchmarks/decode.py --size small --beam 4
    python scripts/benchmarks/decode.py --ckpt runs/multi30k --input text.en --beam 1

Without --ckpt the weights are random and every output has the length of the longest source of its batch. The systems
take turns, window by window, so that what else the machine does hits all alike; the peers run as they come. Tokens are
output pieces, EOS counted; the limit is the products of a decoding step's weights alone, at the first batch's size.
transformers and ctranslate2 are measured where they are installed.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import System, start
from torch import Tensor

from mt.checkpoint import load_checkpoint
from mt.config import ModelConfig
from mt.data.tokenizer import BOS, EOS, PAD, Tokenizer
from mt.device import keep_freed_memory
from mt.model.inference import PackedLinear, inference_model
from mt.model.transformer import Transformer
from mt.run_folder import find_checkpoint
from mt.translate.beam import BeamSearch, beam_search, gnmt_penalty
from mt.translate.decoding import Decoding, GreedyDecoding, pad, pad_sources
from mt.translate.search import Bounds, greedy_search

SIZES = {
    "small": (ModelConfig(d_model=256, heads=4, d_ff=1024, encoder_layers=3, decoder_layers=3), 8_000),
    "base": (ModelConfig(), 32_000),
}
MAX_EXTRA = 50

# Decodes a batch of sources, without EOS, into as many outputs, without EOS.
Decode = Callable[[list[list[int]]], list[list[int]]]


def main() -> None:
    options = parsed_options()
    systems = [
        start(name, make, options)
        for name, (make, needs) in SYSTEMS.items()
        if all(importlib.util.find_spec(package) for package in needs)
    ]
    outputs = {system.name: system.ask(None)[1] for system in systems}  # warms up too
    for _ in range(options.windows):
        for system in systems:
            seconds, found = system.ask(None)
            system.rates.append(sum(len(output) + 1 for output in found) / seconds)
    torch.set_num_threads(options.threads)
    model, batches = task(options)
    report(systems, outputs, product_limit(model, batches[0], options.beam))


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--ckpt", type=Path, help="a trained run in place of random weights; needs --input")
    parser.add_argument("--input", type=Path, help="sentences to translate, with --ckpt")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=5)
    return parser.parse_args()


def task(options: argparse.Namespace) -> tuple[Transformer, list[list[list[int]]]]:
    """The model, in evaluation mode, and batches of sources, without EOS: the same in every process."""
    torch.manual_seed(1)
    if options.ckpt:
        checkpoint = load_checkpoint(find_checkpoint(options.ckpt))
        tokenizer = Tokenizer(checkpoint.tokenizer)
        model = Transformer(checkpoint.config.model, len(tokenizer))
        model.load_state_dict(checkpoint.weights)
        lines = options.input.read_text(encoding="utf-8").split("\n")[: options.sentences]
        sources = tokenizer.encode([line for line in lines if line])
    else:
        config, vocab_size = SIZES[options.size]
        model = Transformer(config, vocab_size)
        sources = random_sources(options.sentences, vocab_size)
    sources.sort(key=len, reverse=True)
    return model.eval(), [sources[first : first + options.batch] for first in range(0, len(sources), options.batch)]


def random_sources(count: int, vocab_size: int) -> list[list[int]]:
    """Sources of WMT-like lengths: log-normal, mean 28 pieces."""
    lengths = torch.empty(count).log_normal_(3.2, 0.5).clamp(3, 120).int().tolist()
    return [torch.randint(4, vocab_size, (length,)).tolist() for length in lengths]


def report(systems: list[System], outputs: dict[str, list[list[int]]], limit: float) -> None:
    """Print each system's tokens/s: the median of the windows, their spread, its share of the limit, and memory."""
    ours = systems[0]
    print(f"{'':<22}{'tokens/s':>10}{'lowest':>9}{'highest':>9}{'of limit':>10}{'mt is':>8}{'same':>7}{'peak GiB':>10}")
    for system in systems:
        median = statistics.median(system.rates)
        pairwise = statistics.median(a / b for a, b in zip(ours.rates, system.rates, strict=True))
        pairs = list(zip(outputs[system.name], outputs[ours.name], strict=True))
        same = sum(left == right for left, right in pairs) / len(pairs)
        print(
            f"{system.name:<22}{median:>10,.0f}{min(system.rates):>9,.0f}{max(system.rates):>9,.0f}"
            f"{median / limit:>10.0%}{pairwise:>7.2f}x{same:>7.0%}{system.end():>10.2f}"
        )
    print(f"{'products alone':<22}{limit:>10,.0f}")


def product_limit(model: Transformer, batch: list[list[int]], beam: int) -> float:
    """Tokens a second if a decoding step were the matrix products of its weights and nothing else."""
    c, rows = model.config, len(batch) * beam
    shapes = [(c.d_model, 3 * c.d_model), *[(c.d_model, c.d_model)] * 3, (c.d_model, c.d_ff), (c.d_ff, c.d_model)]
    shapes = [shape for _ in range(c.decoder_layers) for shape in shapes] + [(c.d_model, model.vocab_size)]
    products = [(PackedLinear(torch.randn(out, width), None), torch.randn(rows, width)) for width, out in shapes]

    def step() -> None:
        for product, x_ND in products:
            product(x_ND)

    with torch.inference_mode():
        step()
        start = time.perf_counter()
        for _ in range(5):
            step()
    return len(batch) * 5 / (time.perf_counter() - start)


# --- The systems -------------------------------------------------------------------------------------------------


def over_batches(decode: Decode, batches: list[list[list[int]]]) -> Callable[[None], list[list[int]]]:
    return lambda _: [output for batch in batches for output in decode(batch)]


def make_ours(options: argparse.Namespace) -> Callable[[None], list[list[int]]]:
    """As `mt translate` sets itself up."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    model, batches = task(options)
    return over_batches(ours(inference_model(model, torch.float32), options.beam, not options.ckpt), batches)


def make_hugging_face(options: argparse.Namespace) -> Callable[[None], list[list[int]]]:
    torch.set_num_threads(options.threads)
    model, batches = task(options)
    return over_batches(hugging_face(marian_twin(model), options.beam, not options.ckpt), batches)


def make_ctranslate(options: argparse.Namespace) -> Callable[[None], list[list[int]]]:
    model, batches = task(options)
    with tempfile.TemporaryDirectory() as folder:
        decode = ctranslate(marian_twin(model), Path(folder), options.beam, not options.ckpt, options.threads)
    return over_batches(decode, batches)


SYSTEMS: dict[str, tuple[Callable[..., Callable[[None], list[list[int]]]], tuple[str, ...]]] = {
    "mt": (make_ours, ()),
    "Hugging Face generate": (make_hugging_face, ("transformers",)),
    "CTranslate2 float32": (make_ctranslate, ("transformers", "ctranslate2")),
}


def ours(model: Transformer, beam: int, forced: bool) -> Decode:
    device = model.device

    def decode(batch: list[list[int]]) -> list[list[int]]:
        source_BS = pad_sources(batch).to(device)
        lengths_B = [len(batch[0]) + 1] * len(batch) if forced else [len(source) + MAX_EXTRA + 1 for source in batch]
        bounds = Bounds(BOS, EOS, torch.tensor(lengths_B, device=device), shortest=len(batch[0]) if forced else 0)
        with torch.inference_mode():
            if beam == 1:
                return greedy_search(GreedyDecoding([model], source_BS, 1), bounds)
            found = beam_search(Decoding([model], source_BS, beam), bounds, BeamSearch(beam, gnmt_penalty(0.6)))
        return [hypotheses[0].ids for hypotheses in found]

    return decode


def marian_twin(model: Transformer):
    """The same network as Hugging Face's MarianMTModel.

    Marian puts all sines before all cosines: with the dimensions of d_model put in that order everywhere, the network
    computes the same.
    """
    from transformers import MarianConfig, MarianMTModel

    c = model.config
    config = MarianConfig(
        vocab_size=model.vocab_size,
        d_model=c.d_model,
        encoder_layers=c.encoder_layers,
        decoder_layers=c.decoder_layers,
        encoder_attention_heads=c.heads,
        decoder_attention_heads=c.heads,
        encoder_ffn_dim=c.d_ff,
        decoder_ffn_dim=c.d_ff,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        forced_eos_token_id=None,
        decoder_start_token_id=BOS,
        max_position_embeddings=1024,
    )
    twin = MarianMTModel(config).eval()
    order = torch.cat([torch.arange(0, c.d_model, 2), torch.arange(1, c.d_model, 2)])
    with torch.no_grad():
        twin.model.shared.weight.copy_(model.embedding.weight[:, order])
        for ours_layer, theirs in zip(model.encoder, twin.model.encoder.layers, strict=True):
            copy_layer(ours_layer, theirs, order)
        for ours_layer, theirs in zip(model.decoder, twin.model.decoder.layers, strict=True):
            copy_layer(ours_layer, theirs, order)
            cross, theirs_cross = ours_layer.cross_attention, theirs.encoder_attn
            copy_linear(theirs_cross.q_proj, cross.q.weight[:, order], cross.q.bias)
            for part, projection in enumerate((theirs_cross.k_proj, theirs_cross.v_proj)):
                copy_linear(projection, cross.kv.weight.chunk(2)[part][:, order], cross.kv.bias.chunk(2)[part])
            copy_linear(theirs_cross.out_proj, cross.out.weight[order], cross.out.bias[order])
            copy_linear(theirs.encoder_attn_layer_norm, *norm_of(ours_layer.after_cross_attention, order))
    return twin


def copy_layer(ours_layer, theirs, order: Tensor) -> None:
    attention, feed_forward = ours_layer.self_attention, ours_layer.feed_forward
    projections = (theirs.self_attn.q_proj, theirs.self_attn.k_proj, theirs.self_attn.v_proj)
    for part, projection in enumerate(projections):
        copy_linear(projection, attention.qkv.weight.chunk(3)[part][:, order], attention.qkv.bias.chunk(3)[part])
    copy_linear(theirs.self_attn.out_proj, attention.out.weight[order], attention.out.bias[order])
    copy_linear(theirs.self_attn_layer_norm, *norm_of(ours_layer.after_self_attention, order))
    copy_linear(theirs.fc1, feed_forward.w1.weight[:, order], feed_forward.w1.bias)
    copy_linear(theirs.fc2, feed_forward.w2.weight[order], feed_forward.w2.bias[order])
    copy_linear(theirs.final_layer_norm, *norm_of(ours_layer.after_feed_forward, order))


def norm_of(residual, order: Tensor) -> tuple[Tensor, Tensor]:
    return residual.norm.weight[order], residual.norm.bias[order]


def copy_linear(module, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)
    module.bias.copy_(bias)


def hugging_face(twin, beam: int, forced: bool) -> Decode:
    def decode(batch: list[list[int]]) -> list[list[int]]:
        source_BS = pad([[*source, EOS] for source in batch]).to(twin.device)
        length = len(batch[0])
        with torch.inference_mode():
            found = twin.generate(
                input_ids=source_BS,
                attention_mask=(source_BS != PAD).long(),
                num_beams=beam,
                do_sample=False,
                early_stopping=False,
                length_penalty=1.0 if beam > 1 else None,
                max_new_tokens=length + 1 if forced else length + MAX_EXTRA,
                min_new_tokens=length + 1 if forced else None,
            )
        return [up_to_eos(ids[1 : length + 1 if forced else None]) for ids in found.tolist()]

    return decode


def up_to_eos(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS)] if EOS in ids else ids


def ctranslate(twin, folder: Path, beam: int, forced: bool, threads: int) -> Decode:
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    twin.config.normalize_before = twin.config.normalize_embedding = False
    spec = BartLoader().get_model_spec(twin)
    names = ["<pad>", "<s>", "</s>", "<unk>", *map(str, range(4, twin.config.vocab_size))]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.decoder_start_token = "<s>"
    spec.validate()
    spec.optimize()
    (folder / "model").mkdir()
    spec.save(str(folder / "model"))
    translator = ctranslate2.Translator(
        str(folder / "model"), device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
    )

    def decode(batch: list[list[int]]) -> list[list[int]]:
        length = len(batch[0])
        found = translator.translate_batch(
            [[*(names[piece] for piece in source), "</s>"] for source in batch],
            beam_size=beam,
            length_penalty=0.6,
            max_batch_size=len(batch),
            max_decoding_length=length if forced else length + MAX_EXTRA,
            min_decoding_length=length if forced else 1,
        )
        return [
            [names.index(name) if name.startswith("<") else int(name) for name in one.hypotheses[0]] for one in found
        ]

    return decode


if __name__ == "__main__":
    main()
