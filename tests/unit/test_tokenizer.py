"""The joint BPE: lossless for any text, the same every time, and clear about what it cannot do."""

import io
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.data.tokenizer import BOS, EOS, LONGEST_LEARNT, PAD, UNK, Tokenizer, train_tokenizer
from mt.errors import DataError

TEXT = "the a cat dog house träumt läuft über Straße großer Baum sees small green walks Haus und then heute"

any_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))


def sentences(count: int = 400) -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices(TEXT.split(), k=8)) + "." for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(sentences(), 340)


@settings(max_examples=500, deadline=None)
@given(any_line)
def test_any_line_survives_encoding_and_decoding(tokenizer: Tokenizer, line: str) -> None:
    assert tokenizer.decode(tokenizer.encode([line])) == [line]


@given(st.lists(any_line, max_size=5))
def test_lines_do_not_influence_each_other(tokenizer: Tokenizer, lines: list[str]) -> None:
    ids = [tokenizer.encode([line])[0] for line in lines]
    assert tokenizer.encode(lines) == ids
    assert tokenizer.decode(ids) == [tokenizer.decode([sentence])[0] for sentence in ids]


@given(st.lists(st.integers(0, 339), max_size=50))
def test_any_ids_decode_to_one_line(tokenizer: Tokenizer, ids: list[int]) -> None:
    (line,) = tokenizer.decode([ids])
    assert "\n" not in line


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "  two  spaces  ",
        "tab\tand\x00nul",
        "\u2581 the mark of sentencepiece",
        "\ue000 \ue0001 \ue000\u2581",
        "U+2028\u2028 U+0085\x85 CR\r",
        "\ufeffBOM",
        "emoji 👩‍👩‍👧 and e\u0301 and é",
        "ﬁ ½ \u3000 \u00a0",
        "<s></s><pad><unk><0x41>",
    ],
)
def test_what_other_tokenizers_change_stays(tokenizer: Tokenizer, line: str) -> None:
    assert tokenizer.decode(tokenizer.encode([line])) == [line]


def test_encoding_adds_no_special_ids(tokenizer: Tokenizer) -> None:
    ids = {index for line in tokenizer.encode([*sentences(50), "<s> </s> <unk> <pad>"]) for index in line}
    assert ids.isdisjoint({PAD, BOS, EOS, UNK})


def test_decoding_ends_at_eos_and_leaves_out_special_ids(tokenizer: Tokenizer) -> None:
    cat, dog = (ids[0] for ids in tokenizer.encode(["cat", "dog"]))
    outputs = [[BOS, cat, PAD, UNK, EOS, dog, EOS], [], [EOS, dog], [cat, PAD, PAD]]
    assert tokenizer.decode(outputs) == ["cat", "", "", "cat"]


def test_same_sentences_make_the_same_tokenizer() -> None:
    first, second = train_tokenizer(sentences(), 340), train_tokenizer(sentences(), 340)
    assert first.model_bytes == second.model_bytes
    assert first.fingerprint == second.fingerprint


def test_fingerprint_tells_vocabularies_apart(tokenizer: Tokenizer) -> None:
    assert tokenizer.fingerprint != train_tokenizer(sentences(), 320).fingerprint


def test_vocabulary_has_the_asked_size(tokenizer: Tokenizer) -> None:
    assert len(tokenizer) == 340


def test_tokenizer_is_rebuilt_from_its_bytes(tokenizer: Tokenizer) -> None:
    again = Tokenizer(tokenizer.model_bytes)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(sentences()) == tokenizer.encode(sentences())


def test_threads_encode_alike(tokenizer: Tokenizer) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(tokenizer.encode, [sentences()] * 8))
    assert results == [tokenizer.encode(sentences())] * 8


def test_pieces_join_to_the_line(tokenizer: Tokenizer) -> None:
    assert "".join(tokenizer.pieces(tokenizer.encode(["the small cat"])[0])).replace("\u2581", " ") == " the small cat"


def test_words_and_bytes_are_told_from_other_pieces(tokenizer: Tokenizer) -> None:
    (word,), spelt = tokenizer.encode(["cat"])[0], tokenizer.encode(["猫"])[0]
    assert tokenizer.starts_word(word)
    assert not tokenizer.is_byte(word)
    assert [tokenizer.is_byte(index) for index in spelt] == [False, True, True, True]


# --- Symbols --------------------------------------------------------------------------------------------------------

SYMBOLS = ["<bt>", ">>deu<<", "aa", "<b", 'x,"y', "t>", "\u27e61\u27e7"]
symbol_like_line = st.lists(
    st.sampled_from([*SYMBOLS, *"<>bt a2\u27e61\u27e7", "\ue000", "\u2581", "\ue0002", "\ue000<bt>"])
).map("".join)


@pytest.fixture(scope="module")
def with_symbols() -> Tokenizer:
    return train_tokenizer([*sentences(), "a <bt> between"], 360, SYMBOLS)


def test_symbols_are_pieces_of_the_vocabulary(with_symbols: Tokenizer) -> None:
    assert list(with_symbols.symbols) == SYMBOLS
    assert [with_symbols.tag_id(symbol) for symbol in SYMBOLS] == list(with_symbols.symbols.values())
    assert len(with_symbols) == 360
    assert not with_symbols.symbols.keys() & with_symbols.text_pieces.keys()


@settings(max_examples=500, deadline=None)
@given(any_line | symbol_like_line)
def test_no_text_makes_a_symbol_and_any_text_survives(with_symbols: Tokenizer, line: str) -> None:
    (ids,) = with_symbols.encode([line])
    assert not set(ids) & set(with_symbols.symbols.values())
    assert with_symbols.decode([ids]) == [line]


@settings(deadline=None)
@given(st.lists(symbol_like_line, min_size=1, max_size=5), st.lists(st.sampled_from(SYMBOLS[-1:]), max_size=4))
def test_numbered_symbols_are_whole_wherever_they_stand(
    with_symbols: Tokenizer, texts: list[str], symbols: list[str]
) -> None:
    parts = [part for pair in zip(texts, symbols, strict=False) for part in pair] + texts[-1:]
    parts = parts if len(parts) % 2 else parts[:-1]
    (ids,) = with_symbols.encode_with_symbols([parts])
    expected = [with_symbols.symbols[symbol] for symbol in parts[1::2]]
    assert [index for index in ids if index in with_symbols.symbols.values()] == expected
    assert with_symbols.decode([ids]) == ["".join(parts)]


def test_text_without_symbols_is_encoded_as_ever(tokenizer: Tokenizer) -> None:
    assert not tokenizer.symbols
    assert tokenizer.pieces(tokenizer.encode(["aa <bt>"])[0])[-3:] != ["<bt>"]
    assert tokenizer.model_bytes == train_tokenizer(sentences(), 340, ()).model_bytes


def test_an_unknown_tag_names_those_there_are(tokenizer: Tokenizer, with_symbols: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"^the tokenizer has no symbol <de>; it has <bt>, >>deu<<, aa, "):
        with_symbols.tag_id("<de>")
    with pytest.raises(DataError, match=r"^the tokenizer has no symbol the; it has none$"):
        tokenizer.tag_id("the")


def test_tags_of_another_programs_tokenizer_are_found() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        vocab_size=45,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        user_defined_symbols=[">>deu<<", ">>nld<<"],
        minloglevel=2,
    )
    tokenizer = Tokenizer(model.getvalue())
    assert tokenizer.tag_id(">>nld<<") == 5
    assert tokenizer.pieces(tokenizer.encode(["the >>deu<< cat"])[0]).count(">>deu<<") == 1  # text as before
    with pytest.raises(DataError, match=r"no symbol >>fra<<; it has >>deu<<, >>nld<<$"):
        tokenizer.tag_id(">>fra<<")


def test_documents_teach_what_their_sentences_teach() -> None:
    whole = "  ".join([" ".join(sentences()), *sentences()] * 3)
    assert len(whole.encode()) > 3 * LONGEST_LEARNT
    document, apart = train_tokenizer([whole], 320), train_tokenizer(whole.split("  "), 320)
    assert set(document.vocabulary) == set(apart.vocabulary)


def test_a_document_without_spaces_is_learnt_from() -> None:
    assert len(train_tokenizer(["語言" * 5_000], 264)) == 264


# --- What cannot be made --------------------------------------------------------------------------------------------


def test_vocabulary_too_large_for_the_text_names_the_largest_that_fits() -> None:
    with pytest.raises(DataError, match=r"data\.vocab_size 5000 is too high.*set it to \d+ or less") as error:
        train_tokenizer(sentences(), 5000)
    largest = int(str(error.value).split()[-3])
    assert len(train_tokenizer(sentences(), largest)) == largest


def test_vocabulary_too_small_for_the_characters_names_the_smallest_that_fits() -> None:
    with pytest.raises(DataError, match=r"data\.vocab_size 100 is too low.*set it to \d+ or more") as error:
        train_tokenizer(sentences(), 100)
    smallest = int(str(error.value).split()[-3])
    assert len(train_tokenizer(sentences(), smallest)) == smallest


def test_no_sentences_are_refused() -> None:
    with pytest.raises(DataError, match="no text to learn from"):
        train_tokenizer([], 300)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(DataError, match="not a sentencepiece model"):
        Tokenizer(b"something else")


def test_a_tokenizer_with_other_special_ids_is_refused() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_writer=model, model_type="bpe", vocab_size=60, minloglevel=2
    )
    with pytest.raises(DataError, match=r"are \(-1, 1, 2, 0\), but \(0, 1, 2, 3\) are needed"):
        Tokenizer(model.getvalue())


def test_training_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer(sentences(), 300)
    assert capfd.readouterr() == ("", "")
