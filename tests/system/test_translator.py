"""Laws of translating lines: one out for one in, whatever is in them and whatever stands beside them."""

import math
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt import Translator
from mt.checkpoint import load_checkpoint
from mt.config import DecodeConfig, ModelConfig
from mt.data.prepared import open_prepared
from mt.data.tokenizer import BOS, EOS
from mt.errors import CheckpointError, DataError, UsageError
from mt.evaluate.bleu import bleu
from mt.model.transformer import Transformer
from mt.run_folder import find_checkpoint
from mt.translate.alignment import agreement_by_layer, alignments
from mt.translate.decoding import NEVER, decoding_batches, forced_log_probabilities
from mt.translate.search import Hypothesis
from mt.translate.segments import segments_of, split_line


@pytest.fixture(scope="session")
def sources(toy_text: Path) -> list[str]:
    lines = [(toy_text / f"{split}.en").read_text().splitlines() for split in ("valid", "train")]
    odd = ["", "a", "the old man sleeps and the woman runs here now at home .", " ", "naïve 東京 🙂 text"]
    return [*odd, *lines[0], *lines[1][::9]]


def opened(run: Path, **decode: object) -> Translator:
    return Translator(run, device="cpu", decode={"max_extra": 8, **decode})


def test_every_line_has_one_translation_and_blank_ones_stay_empty(toy_run: Path, sources: list[str]) -> None:
    translations = opened(toy_run)(sources)
    assert [not line.strip() for line in sources] == [not text for text in translations]
    assert opened(toy_run)([]) == []
    assert opened(toy_run)(["", " \t", "\u2003"]) == ["", "", ""]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=30), max_size=6))
@settings(max_examples=30, deadline=None)
def test_any_unicode_goes_in_and_each_line_comes_out_as_one(toy_run: Path, lines: list[str]) -> None:
    translations = opened(toy_run, beam=2, max_extra=5)(lines)
    assert len(translations) == len(lines)
    assert not any("\n" in text for text in translations)


def test_lines_come_from_any_iterable_and_what_is_none_is_refused_in_a_sentence(toy_run: Path) -> None:
    translator = opened(toy_run, beam=1)
    lines = ["a dog runs here .", "a man"]
    assert translator(line for line in lines) == translator(tuple(lines)) == translator(lines)
    assert translator.n_best([]) == []
    assert translator.score([], []) == []
    with pytest.raises(UsageError, match=r"list of lines.*this is one string"):
        translator("a dog runs here .")
    with pytest.raises(UsageError, match="line 2: is NoneType, not a string"):
        translator(["a dog", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="1 sources and 2 targets"):
        translator.score(["a"], ["b", "c"])


def test_a_giant_line_is_refused_by_its_number_before_it_is_encoded(toy_run: Path) -> None:
    """To encode ten million characters would take 500 MB, 50 for each."""
    translator = opened(toy_run)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"^line 8: more than 1,000,000 characters in one line; put one sentence"):
        translator.n_best(["a dog", "x" * 10_000_000], first=7)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_half_a_character_is_read_as_its_replacement(toy_run: Path) -> None:
    translator = opened(toy_run)
    assert translator(["a man \ud800 runs"]) == translator(["a man \ufffd runs"])


@pytest.mark.parametrize(
    "decode",
    [
        {"beam": 1},
        {"beam": 4},
        {"beam": 4, "penalty": "length", "alpha": 1.0},
        {"beam": 4, "groups": 2},
        {"sample": True},
        {"beam": 1, "precision": "int8"},
        {"beam": 4, "precision": "int8"},
    ],
    ids=["greedy", "beam 4", "mean", "diverse", "sampled", "greedy, int8", "beam 4, int8"],
)
def test_a_translation_depends_on_no_neighbour(toy_run: Path, sources: list[str], decode: dict[str, object]) -> None:
    """Not in float32 or int8, whatever the batch size, to the last bit of the score; a sample keeps its line number."""
    together = opened(toy_run, **decode).n_best(sources)
    for batch_tokens in (20, 60):
        apart = opened(toy_run, **decode, batch_tokens=batch_tokens).n_best(sources)
        assert [found[0].text for found in apart] == [found[0].text for found in together]
        assert [found[0].score for found in apart] == [found[0].score for found in together]
    alone = [opened(toy_run, **decode).n_best([line], first=number)[0] for number, line in enumerate(sources[:9], 1)]
    assert alone == together[:9]
    if not decode.get("sample"):
        backwards = opened(toy_run, **decode)(sources[::-1])[::-1]
        assert backwards == [found[0].text for found in together]


@pytest.mark.slow
@pytest.mark.real_text
@pytest.mark.parametrize("beam", [1, 4])
def test_a_real_models_translations_depend_on_no_neighbour(real_run: Path, real_text: Path, beam: int) -> None:
    """1,000 sentences at batch 1, 7, 64 and by tokens, float32."""
    lines = (real_text / "multi30k" / "test_2016_flickr.en").read_text(encoding="utf-8").splitlines()
    translator = opened(real_run, beam=beam)
    expected = translator(lines)
    for size in (1, 7, 64):
        found = [text for start in range(0, len(lines), size) for text in translator(lines[start : start + size])]
        assert found == expected, size


def test_bfloat16_gives_nearly_the_same_probabilities(toy_run: Path, toy_text: Path) -> None:
    sources, targets = ((toy_text / f"test.{language}").read_text().splitlines() for language in ("en", "de"))
    exact, rough = (opened(toy_run, precision=name).score(sources, targets) for name in ("float32", "bfloat16"))
    assert [found.score for found in rough] != [found.score for found in exact]
    assert [found.score for found in rough] == pytest.approx([found.score for found in exact], rel=0.05)
    assert all(opened(toy_run, precision="bfloat16")(sources))


@pytest.mark.slow
@pytest.mark.real_text
@pytest.mark.parametrize("beam", [1, 4])
def test_a_real_models_score_is_that_of_float32_in_fewer_bits(real_run: Path, real_text: Path, beam: int) -> None:
    text = [real_text / "multi30k" / f"test_2016_flickr.{language}" for language in ("en", "de")]
    sources, references = (path.read_text(encoding="utf-8").splitlines() for path in text)
    exact, *rough = (
        bleu(opened(real_run, beam=beam, max_extra=50, precision=name)(sources), references).value
        for name in ("float32", "bfloat16", "int8")
    )
    assert rough == pytest.approx([exact, exact], abs=0.3)


def test_greedy_search_in_int8_finds_what_a_beam_of_one_finds(toy_run: Path, sources: list[str]) -> None:
    translator = opened(toy_run, beam=1, precision="int8")
    assert [found[0].text for found in translator.n_best(sources)] == translator(sources)


def test_a_translator_sent_to_another_process_opens_the_same_weights_there(
    toy_run: Path, tmp_path: Path, sources: list[str]
) -> None:
    """Data sets send what they map; by its bytes they know whether they have mapped with it before."""
    shutil.copytree(toy_run, tmp_path / "run")
    translator = opened(tmp_path / "run", beam=2)
    sent = pickle.dumps(translator)
    assert sent == pickle.dumps(opened(tmp_path / "run", beam=2)) != pickle.dumps(opened(tmp_path / "run", beam=3))
    assert pickle.loads(sent)(sources) == translator(sources)
    assert len(sent) < 2_000
    manifest = find_checkpoint(tmp_path / "run") / "MANIFEST.json"
    manifest.write_text(f"{manifest.read_text()} ")
    with pytest.raises(CheckpointError, match="has other weights here"):
        pickle.loads(sent)
    with pytest.raises(TypeError, match="models in memory cannot be sent"):
        pickle.dumps(Translator.of(translator.models, translator.tokenizers, translator.decode))


def test_eight_threads_may_translate_at_once(toy_run: Path, sources: list[str]) -> None:
    """Some lines are longer than the table of positions is at first."""
    translator = opened(toy_run, max_source=900, max_extra=1)
    parts = [[*sources[start::8], "the old dog sleeps . " * (10 * start)] for start in range(8)] * 3
    expected = [translator(part) for part in parts]
    fresh = opened(toy_run, max_source=900, max_extra=1)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fresh, parts)) == expected


def test_translating_leaves_the_model_in_evaluation(toy_run: Path) -> None:
    translator = opened(toy_run)
    translator(["a dog runs here ."])
    assert not any(module.training for model in translator.models for module in model.modules())


def test_n_best_is_sorted_and_scored_as_forced_decoding_scores(toy_run: Path, sources: list[str]) -> None:
    translator = opened(toy_run, beam=5)
    lines = [line for line in sources if line.strip()]
    compared = 0
    for line, found in zip(lines, translator.n_best(lines, 5), strict=True):
        assert [t.score for t in found] == sorted((t.score for t in found), reverse=True)
        for translation in found:
            (forced,) = translator.score([line], [translation.text])
            # The search may have spelt the same words with other pieces.
            if forced.log_probability == pytest.approx(translation.log_probability, abs=1e-3):
                assert forced.score == pytest.approx(translation.score, abs=1e-5)
                compared += 1
    assert compared > 60


def test_a_text_found_in_two_segmentations_is_listed_once_with_the_better_score(toy_run: Path) -> None:
    translator = opened(toy_run)
    tokenizer = translator.tokenizers.target
    (whole,) = next(ids for word in ("ein", "Hund", "der") if len(ids := tokenizer.encode([word])[0]) == 1)
    word = tokenizer.decode([[whole]])[0]
    single = {text: piece for piece, (text,) in enumerate(map(tokenizer.decode, [[[i]] for i in range(4, 320)]), 4)}
    cuts = [
        [single[word[:cut]], single[word[cut:]]] for cut in range(1, len(word)) if {word[:cut], word[cut:]} <= {*single}
    ]
    parts = next(cut for cut in cuts if tokenizer.decode([cut]) == [word])
    (segment,) = segments_of(["a dog"], translator.encoder, translator.decode)
    outputs = [Hypothesis(ids, score, score) for ids, score in ((parts, -1.0), ([whole, whole], -2.0), ([whole], -3.0))]
    (found,) = translator._translations([segment], [outputs])
    assert [(one.text, one.score) for one in found] == [
        (word, -1.0),
        (tokenizer.decode([[whole, whole]])[0], -2.0),
    ]


def test_an_n_best_list_is_filled_up_from_the_rest_of_the_beam(toy_run: Path, sources: list[str]) -> None:
    few, all_of_them = (opened(toy_run, beam=8).n_best(sources, count) for count in (3, 8))
    assert few == [found[:3] for found in all_of_them]
    assert all(len({one.text for one in found}) == len(found) for found in all_of_them)


@torch.inference_mode()
def score_errors(translator: Translator, lines: list[str]) -> Iterator[tuple[float, float]]:
    """How far each hypothesis's score, and its log-probability a piece, are from what forced decoding alone gives."""
    segments = segments_of(lines, translator.encoder, translator.decode)
    for segment, hypotheses in zip(
        segments, translator._search(segments, translator.decode.beam, scored=True), strict=True
    ):
        for hypothesis in hypotheses:
            (logps,) = forced_log_probabilities(translator.models, [segment.ids], [hypothesis.ids])
            expected, length = math.fsum(logps), len(logps)
            score = expected / ((5 + length) / 6) ** translator.decode.alpha
            yield abs(hypothesis.score - score), abs(hypothesis.log_probability - expected) / length


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_is_what_forced_decoding_gives_the_same_pieces(
    toy_run: Path, sources: list[str], dtype: torch.dtype
) -> None:
    trained = opened(toy_run)
    checkpoint = load_checkpoint(find_checkpoint(toy_run))
    model = Transformer(checkpoint.config.model, len(trained.tokenizers.target)).eval()
    model.load_state_dict(checkpoint.weights)
    translator = Translator.of([model.to(dtype)], trained.tokenizers, trained.decode)
    errors = list(score_errors(translator, sources))
    assert len(errors) > 60
    assert max(score for score, _ in errors) < 1e-5
    assert max(logp for _, logp in errors) < 1e-6


@pytest.mark.slow
@pytest.mark.real_text
@pytest.mark.parametrize(
    ("text", "tolerance"), [("multi30k/test_2016_flickr.en", 1e-5), ("newstest/newstest2014.en", 2e-5)]
)
def test_a_real_models_scores_are_what_forced_decoding_gives_the_same_pieces(
    real_run: Path, real_text: Path, text: str, tolerance: float
) -> None:
    """200 captions, and 200 sentences of news of up to 149 pieces, 4 hypotheses each.

    Log-probabilities are added up in float32, so that a sum of hundreds has an error of its own.
    """
    lines = (real_text / text).read_text(encoding="utf-8").split("\n")[:200]
    errors = list(score_errors(Translator(real_run, device="cpu"), lines))
    assert len(errors) == 800
    assert max(score for score, _ in errors) < tolerance
    assert max(logp for _, logp in errors) < 1e-6


@torch.inference_mode()
def test_scores_are_those_of_a_plain_forward_pass_and_ignore_padding(toy_run: Path) -> None:
    translator = opened(toy_run)
    sources, targets = ["the old dog sleeps here .", "a man", ""], ["der alte Hund schläft hier .", "", "ein Mann"]
    for source, target, found in zip(sources, targets, translator.score(sources, targets), strict=True):
        (source_ids,) = translator.tokenizers.source.encode([source])
        (target_ids,) = translator.tokenizers.target.encode([target])
        logits_TV = translator.models[0](torch.tensor([[*source_ids, EOS]]), torch.tensor([[BOS, *target_ids]]))[0]
        logits_TV[:, list(NEVER)] = -torch.inf
        expected = logits_TV.log_softmax(-1)[range(len(target_ids) + 1), [*target_ids, EOS]]
        assert found.log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)
        assert found.log_probability == pytest.approx(float(expected.sum()), abs=1e-4)
        assert len(found.pieces) == len(found.log_probabilities)


def test_the_score_of_a_given_translation_depends_on_no_neighbour(toy_run: Path, sources: list[str]) -> None:
    translator = opened(toy_run)
    targets = sources[::-1]
    together = translator.score(sources, targets)
    assert together == [
        translator.score([source], [target])[0] for source, target in zip(sources, targets, strict=True)
    ]


def test_an_ensemble_of_one_model_twice_is_that_model(toy_run: Path, sources: list[str]) -> None:
    one = opened(toy_run).n_best(sources)
    two = Translator(toy_run, toy_run, device="cpu", decode={"max_extra": 8}).n_best(sources)
    assert [found[0].text for found in one] == [found[0].text for found in two]
    assert [found[0].score for found in one] == pytest.approx([found[0].score for found in two], abs=1e-4)


@torch.inference_mode()
def test_an_ensemble_takes_the_mean_of_the_probabilities(toy_run: Path) -> None:
    checkpoints = [toy_run / "checkpoints" / f"step-{update:08d}" for update in (60, 120)]
    sources, targets = ["a dog runs here ."], ["ein Hund rennt hier ."]
    apart = [Translator(path, device="cpu").score(sources, targets)[0].log_probabilities for path in checkpoints]
    (together,) = Translator(*checkpoints, device="cpu").score(sources, targets)
    expected = [math.log((math.exp(left) + math.exp(right)) / 2) for left, right in zip(*apart, strict=True)]
    assert together.log_probabilities == pytest.approx(expected, abs=1e-5)


def test_a_forced_prefix_starts_the_translation(toy_run: Path) -> None:
    translator = opened(toy_run)
    lines, prefixes = (
        ["a dog runs here .", "a man sleeps now .", "a man sings there ."],
        ["eine Frau", "", "ein Mann singt"],
    )
    for prefix, found in zip(prefixes, translator.n_best(lines, 2, prefixes=prefixes), strict=True):
        assert all(translation.text.startswith(prefix) for translation in found)
    assert translator.n_best(lines, prefixes=prefixes)[1] == translator.n_best(lines[1:2])[0]


def test_a_prefix_longer_than_any_sentence_is_refused_before_the_work(toy_run: Path) -> None:
    """A beam of four took 5 s a line to read 2,200 pieces of prefix one by one."""
    done: list[int] = []
    with pytest.raises(DataError, match=r"^prefix of line 2: [\d,]+ pieces, more than decode\.max_source=256"):
        opened(toy_run).n_best(["a dog", "a man"], prefixes=["", "ein Hund " * 200], advance=done.append)
    assert not done
    (found,) = opened(toy_run, beam=2).n_best(["a dog"], prefixes=["ein Hund " * 20])
    assert found[0].text.startswith("ein Hund " * 19)


def test_lengths_are_bounded_on_both_sides(toy_run: Path) -> None:
    lines = ["a dog runs here .", "a man"]
    for beam in (1, 3):
        short = opened(toy_run, beam=beam, max_length=2)
        assert all(len(ids) <= 2 for ids in short.tokenizers.target.encode(short(lines)))
        longer = opened(toy_run, beam=beam, min_length=30)
        segments = segments_of(lines, longer.encoder, longer.decode)
        assert all(len(found[0].ids) >= 30 for found in longer._search(segments, 1, scored=True))


def test_with_learned_positions_long_lines_are_split_outputs_bounded_and_long_targets_not_scored(toy_run: Path) -> None:
    tokenizers = opened(toy_run).tokenizers
    config = ModelConfig(
        d_model=16, heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, positions="learned", max_positions=12
    )
    model = Transformer(config, len(tokenizers.target)).eval()
    translator = Translator.of([model], tokenizers, DecodeConfig())
    assert (translator.decode.max_source, translator.decode.max_length) == (11, 11)
    long = "a man runs here . " * 9
    (found,) = translator.n_best([long])
    assert "translated in" in found[0].note
    decoding = translator._search(
        segments_of(["a man runs here ."], translator.encoder, translator.decode), 1, scored=True
    )
    assert len(decoding[0][0].ids) == 11, "an untrained model goes on as long as it may"
    with pytest.raises(DataError, match=r"line 8: \d+ pieces, EOS counted, but the model has learned 12 positions"):
        translator.score(["a man", long], ["ein Mann", "ein Mann"], first=7)
    with pytest.raises(UsageError, match="min_length 12 is more than max_length 11"):
        Translator.of([model], tokenizers, DecodeConfig(min_length=12))


def test_sampling_is_repeatable_and_follows_its_seed(toy_run: Path, sources: list[str]) -> None:
    first = opened(toy_run, sample=True, temperature=2.0)(sources)
    assert opened(toy_run, sample=True, temperature=2.0)(sources) == first
    assert opened(toy_run, sample=True, temperature=2.0, seed=2)(sources) != first
    assert opened(toy_run, sample=True, top_k=1)(sources) == opened(toy_run, beam=1)(sources)


def test_alignments_come_from_the_layer_that_validation_measured_or_the_user_names(toy_run: Path) -> None:
    translator = opened(toy_run)
    layers, pairs = len(translator.models[0].decoder), [("the old dog sleeps here .", "der alte Hund schläft hier .")]
    checkpoint = load_checkpoint(find_checkpoint(toy_run))
    assert translator.alignment_layer == checkpoint.state["alignment_layer"]
    prepared = open_prepared(checkpoint.config.data.dir)
    agreement_L = agreement_by_layer(translator.models[0], prepared.valid["valid"], prepared.word_model)
    assert len(agreement_L) == layers > 1
    assert agreement_L[translator.alignment_layer - 1] == max(agreement_L) > 0
    by_layer = [opened(toy_run, alignment_layer=layer) for layer in range(1, layers + 1)]
    assert [named.alignment_layer for named in by_layer] == list(range(1, layers + 1))
    found = [alignments(named, pairs) for named in by_layer]
    assert alignments(translator, pairs) == found[translator.alignment_layer - 1]
    with pytest.raises(UsageError, match=r"decode\.alignment_layer 9: the decoder has \d layers"):
        opened(toy_run, alignment_layer=9)


def test_a_checkpoint_that_does_not_say_aligns_by_the_last_of_two_layers(toy_run: Path) -> None:
    """Those of earlier versions."""
    trained = opened(toy_run)
    assert Translator.of(trained.models, trained.tokenizers, trained.decode).alignment_layer == 2


class TestLongLines:
    def test_a_short_line_is_left_alone(self, toy_run: Path) -> None:
        encoder = opened(toy_run).encoder
        line = "a dog . a man ."
        (whole,) = split_line(line, encoder, 1000)
        assert encoder.tokenizers.source.decode([whole.ids]) == [line]

    def test_parts_end_at_sentence_ends(self, toy_run: Path) -> None:
        encoder = opened(toy_run).encoder
        parts = [part.ids for part in split_line("the dog sleeps . the man runs here . " * 30, encoder, 40)]
        assert all(len(part) <= 40 for part in parts)
        assert all(text.endswith(" .") for text in encoder.tokenizers.source.decode(parts))

    @given(st.text(st.sampled_from("ab .!?。\u3000é🙂"), max_size=200), st.integers(1, 30))
    @settings(max_examples=50, deadline=None)
    def test_nothing_but_space_is_lost(self, toy_run: Path, line: str, limit: int) -> None:
        encoder = opened(toy_run).encoder
        parts = split_line(line, encoder, limit)
        assert all(0 < len(part.ids) <= limit for part in parts)
        pieces = [piece for part in parts for piece in part.ids]
        assert "".join(encoder.tokenizers.source.decode([pieces])[0].split()) == "".join(line.split())

    @pytest.mark.parametrize("how", ["split", "cut"])
    def test_ten_thousand_words_survive(self, toy_run: Path, how: str) -> None:
        lines = ["the old dog sleeps here . " * 1700, "a dog runs here .", "x" * 30_000]
        translator = opened(toy_run, beam=1, long_lines=how, max_source=60)
        found = translator.n_best(lines)
        assert found[1][0].text == translator(lines[1:2])[0]
        assert not found[1][0].note
        assert all(found[index][0].note for index in (0, 2))
        if how == "split":
            ids = [part.ids for part in split_line(lines[0], translator.encoder, 60)]
            parts = translator.tokenizers.source.decode(ids)
            assert len(parts) > 200
            assert found[0][0].text == " ".join(translator(parts))

    def test_the_parts_of_a_long_line_keep_their_ranks(self, toy_run: Path) -> None:
        (found,) = opened(toy_run, beam=3, max_source=20).n_best(["a dog runs here . " * 5], 3)
        assert len(found) == 3
        assert [t.score for t in found] == sorted((t.score for t in found), reverse=True)


@pytest.mark.parametrize("max_tokens", [1, 10, 64])
def test_every_row_is_decoded_once_within_the_budget(max_tokens: int) -> None:
    lengths = [5, 1, 64, 3, 3, 9, 0, 31]
    batches = decoding_batches(lengths, max_tokens)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= max_tokens


def test_impossible_settings_are_named(toy_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"decode\.beam.*greater than or equal to 1"):
        opened(toy_run, beam=0)
    with pytest.raises(UsageError, match="beam of 4 cannot be cut into 3 groups"):
        opened(toy_run, groups=3)
    with pytest.raises(UsageError, match=r"decode\.width"):
        opened(toy_run, width=3)
    with pytest.raises(UsageError, match="beam of at least 9"):
        opened(toy_run).n_best(["a"], 9)
    with pytest.raises(CheckpointError, match="no such run"):
        Translator(tmp_path / "nowhere")


def test_importing_the_package_imports_no_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys, mt; assert 'torch' not in sys.modules"], check=True)
