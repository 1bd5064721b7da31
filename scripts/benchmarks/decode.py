#!/usr/bin/env python
"""Speed of decoding beside Hugging Face's generate and CTranslate2: same weights, sentences, batches and lengths.

mt and CTranslate2 are measured in float32 and in 8 bits.

    scripts/benchmarks/decode.py --size small --beam 4
    scripts/benchmarks/decode.py --ckpt runs/multi30k --input text.en --beam 1

Without --ckpt the weights are random and every output has the length of the longest source of its batch. Each system
has a process of its own, and they take turns, so that what else the machine does hits all alike; the peers run as they
come. Tokens are output pieces, EOS counted; the limit is the products of a decoding step's weights alone, at the first
batch's size. transformers and ctranslate2 are measured where they are installed.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import LIMIT, SIZES, Size, chosen, machine, marian_model, random_corpus, report, start
from torch import Tensor, nn

from mt.checkpoint import load_checkpoint
from mt.data.tokenizer import BOS, EOS, PAD
from mt.data.vocabulary import Tokenizers
from mt.device import keep_freed_memory
from mt.model.inference import PackedLinear, inference_model, largest_exact_weight
from mt.model.layers import DecoderLayer, EncoderLayer, Residual
from mt.model.transformer import Transformer
from mt.run_folder import find_checkpoint
from mt.translate.beam import BeamSearch, beam_search, gnmt_penalty
from mt.translate.decoding import INT8_MULTIPLE, Decoding, GreedyDecoding, pad, pad_sources
from mt.translate.search import Bounds, greedy_search

MAX_EXTRA = 50
LIMIT_STEPS = 20

Sequences = list[list[int]]
Decode = Callable[[Sequences], Sequences]  # a batch of sources into as many outputs, all without EOS


def main() -> None:
    options = parse_options()
    what = options.ckpt or options.size
    print(f"{what}, beam {options.beam}, batches of {options.batch}, {options.threads} threads; {machine()}")
    names = chosen(SYSTEMS, options.systems)
    systems = [start(name, make_system, name, options) for name in names]
    outputs = {system.name: system.ask("outputs")[1] for system in systems}  # warms up too
    systems.append(start(LIMIT, make_products, options))
    for _ in range(options.windows):
        for system in systems:
            system.take_turn("tokens")
    report(systems)
    for name in names[1:]:
        same = sum(left == right for left, right in zip(outputs[name], outputs["mt"], strict=True))
        print(f"{name}: {same / len(outputs['mt']):.0%} of the outputs are the same as mt's")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--ckpt", type=Path, help="a trained run in place of random weights; needs --input")
    parser.add_argument("--input", type=Path, help="sentences to translate, with --ckpt")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=5, help="turns that each system has")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, help="those beside mt; by default all")
    options = parser.parse_args()
    if bool(options.ckpt) != bool(options.input):
        parser.error("--ckpt and --input go together")
    return options


def task(options: argparse.Namespace) -> tuple[Transformer, list[Sequences]]:
    """The model, in evaluation mode, and batches of sources, without EOS: the same in every process."""
    torch.manual_seed(1)
    if options.ckpt:
        checkpoint = load_checkpoint(find_checkpoint(options.ckpt))
        tokenizers = Tokenizers.read(checkpoint.tokenizers)
        model = Transformer(checkpoint.config.model, len(tokenizers.target), len(tokenizers.source))
        model.load_state_dict(checkpoint.weights)
        lines = options.input.read_text(encoding="utf-8").split("\n")[: options.sentences]
        sources = tokenizers.source.encode([line for line in lines if line])
    else:
        size = SIZES[options.size]
        model = Transformer(size.model, size.vocabulary)
        sources = random_sources(options.sentences, size.vocabulary)
    sources.sort(key=len, reverse=True)
    return model.eval(), [sources[first : first + options.batch] for first in range(0, len(sources), options.batch)]


def random_sources(count: int, vocabulary: int) -> Sequences:
    """The sources of a random corpus, without EOS."""
    source = random_corpus(count, vocabulary).source
    return [source[row][:-1].tolist() for row in range(count)]


def make_system(name: str, options: argparse.Namespace) -> Callable[[str], Sequences | int]:
    """A system that decodes all batches, and answers with the `outputs` or with the number of their `tokens`."""
    torch.set_num_threads(options.threads)
    if name.startswith("mt"):
        keep_freed_memory()  # as `mt translate` does
    model, batches = task(options)
    decode = SYSTEMS[name](model, options)

    def answer(wanted: str) -> Sequences | int:
        outputs = [output for batch in batches for output in decode(batch)]
        return outputs if wanted == "outputs" else sum(len(output) + 1 for output in outputs)

    return answer


def make_products(options: argparse.Namespace) -> Callable[[str], int]:
    """The matrix products of decoding steps with their weights, and nothing else; answers with the tokens they give."""
    torch.set_num_threads(options.threads)
    model, batches = task(options)
    c, rows = model.config, len(batches[0]) * options.beam
    shapes = [(c.d_model, 3 * c.d_model), *[(c.d_model, c.d_model)] * 3, (c.d_model, c.d_ff), (c.d_ff, c.d_model)]
    shapes = [shape for _ in range(c.decoder_layers) for shape in shapes] + [(c.d_model, model.vocab_size)]
    products = [(PackedLinear(torch.randn(out, width), None), torch.randn(rows, width)) for width, out in shapes]

    @torch.inference_mode()
    def answer(_: str) -> int:
        for _step in range(LIMIT_STEPS):
            for product, x_ND in products:
                product(x_ND)
        return len(batches[0]) * LIMIT_STEPS

    answer("")  # builds the kernels
    return answer


# --- The systems -------------------------------------------------------------------------------------------------


def ours(model: Transformer, options: argparse.Namespace) -> Decode:
    return our_decoding(inference_model(model, torch.float32), options.beam, forced=not options.ckpt)


def ours_int8(model: Transformer, options: argparse.Namespace) -> Decode:
    if not largest_exact_weight():
        raise SystemExit("torch has no exact products of 8-bit numbers on this CPU; name other --systems")
    return our_decoding(inference_model(model, torch.int8), options.beam, not options.ckpt, INT8_MULTIPLE)


def hugging_face(model: Transformer, options: argparse.Namespace) -> Decode:
    return hugging_face_decoding(marian_twin(model), options.beam, forced=not options.ckpt)


def ctranslate(model: Transformer, options: argparse.Namespace) -> Decode:
    return ctranslate_decoding(marian_twin(model), "float32", options)


def ctranslate_int8(model: Transformer, options: argparse.Namespace) -> Decode:
    return ctranslate_decoding(marian_twin(model), "int8", options)


SYSTEMS: dict[str, Callable[[Transformer, argparse.Namespace], Decode]] = {
    "mt": ours,
    "mt int8": ours_int8,
    "Hugging Face generate": hugging_face,
    "CTranslate2 float32": ctranslate,
    "CTranslate2 int8": ctranslate_int8,
}


def our_decoding(model: Transformer, beam: int, forced: bool, multiple: int = 1) -> Decode:
    """multiple: what sources are padded to."""
    device = model.device

    def decode(batch: Sequences) -> Sequences:
        source_BS = pad_sources(batch, multiple)
        lengths_B = [len(batch[0]) + 1] * len(batch) if forced else [len(source) + MAX_EXTRA + 1 for source in batch]
        bounds = Bounds(BOS, EOS, lengths_B, shortest=len(batch[0]) if forced else 0, device=device)
        with torch.inference_mode():
            if beam == 1:
                return greedy_search(GreedyDecoding([model], source_BS, 1), bounds)
            found = beam_search(Decoding([model], source_BS, beam), bounds, BeamSearch(beam, gnmt_penalty(0.6)))
        return [hypotheses[0].ids for hypotheses in found]

    return decode


def marian_twin(model: Transformer) -> Any:
    """The same network as Hugging Face's MarianMTModel.

    Marian puts all sines before all cosines: with the dimensions of d_model put in that order everywhere, the network
    computes the same.
    """
    c = model.config
    twin = marian_model(Size(c, model.vocab_size)).eval()
    order = torch.cat([torch.arange(0, c.d_model, 2), torch.arange(1, c.d_model, 2)])
    with torch.no_grad():
        twin.model.shared.weight.copy_(model.embedding.weight[:, order])
        for ours_layer, theirs in zip(model.encoder, twin.model.encoder.layers, strict=True):
            copy_layer(ours_layer, theirs, order)
        for decoder_layer, theirs in zip(model.decoder, twin.model.decoder.layers, strict=True):
            copy_layer(decoder_layer, theirs, order)
            cross, theirs_cross = decoder_layer.cross_attention, theirs.encoder_attn
            copy_linear(theirs_cross.q_proj, cross.q.weight[:, order], cross.q.bias)
            for part, projection in enumerate((theirs_cross.k_proj, theirs_cross.v_proj)):
                copy_linear(projection, cross.kv.weight.chunk(2)[part][:, order], cross.kv.bias.chunk(2)[part])
            copy_linear(theirs_cross.out_proj, cross.out.weight[order], cross.out.bias[order])
            copy_linear(theirs.encoder_attn_layer_norm, *norm_of(decoder_layer.after_cross_attention, order))
    return twin


def copy_layer(ours_layer: EncoderLayer | DecoderLayer, theirs: Any, order: Tensor) -> None:
    attention, feed_forward = ours_layer.self_attention, ours_layer.feed_forward
    projections = (theirs.self_attn.q_proj, theirs.self_attn.k_proj, theirs.self_attn.v_proj)
    for part, projection in enumerate(projections):
        copy_linear(projection, attention.qkv.weight.chunk(3)[part][:, order], attention.qkv.bias.chunk(3)[part])
    copy_linear(theirs.self_attn.out_proj, attention.out.weight[order], attention.out.bias[order])
    copy_linear(theirs.self_attn_layer_norm, *norm_of(ours_layer.after_self_attention, order))
    copy_linear(theirs.fc1, feed_forward.w1.weight[:, order], feed_forward.w1.bias)
    copy_linear(theirs.fc2, feed_forward.w2.weight[order], feed_forward.w2.bias[order])
    copy_linear(theirs.final_layer_norm, *norm_of(ours_layer.after_feed_forward, order))


def norm_of(residual: Residual, order: Tensor) -> tuple[Tensor, Tensor]:
    return residual.norm.weight[order], residual.norm.bias[order]


def copy_linear(module: nn.Linear | nn.LayerNorm, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)
    module.bias.copy_(bias)


def hugging_face_decoding(twin: Any, beam: int, forced: bool) -> Decode:
    def decode(batch: Sequences) -> Sequences:
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


def ctranslate_decoding(twin: Any, compute_type: str, options: argparse.Namespace) -> Decode:
    """compute_type: of its weights, too."""
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    twin.config.normalize_before = twin.config.normalize_embedding = False
    spec = BartLoader().get_model_spec(twin)
    names = ["<pad>", "<s>", "</s>", "<unk>", *map(str, range(4, twin.config.vocab_size))]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.decoder_start_token = "<s>"
    spec.validate()
    spec.optimize("int8" if compute_type == "int8" else None)
    forced = not options.ckpt
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        translator = ctranslate2.Translator(
            folder, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=options.threads
        )

    def decode(batch: Sequences) -> Sequences:
        length = len(batch[0])
        found = translator.translate_batch(
            [[*(names[piece] for piece in source), "</s>"] for source in batch],
            beam_size=options.beam,
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
