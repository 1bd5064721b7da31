"""Attention made visible: the weights are the model's own, and the page draws them in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mt.console import Console
from mt.data.tokenizer import BOS, EOS
from mt.errors import UsageError
from mt.model.attention import join_heads, split_heads
from mt.translate.attention import Attention, alignments, attention_of, write_attention
from mt.translate.job import Job, run_job
from mt.translate.translator import Translator

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "a <script>document.title='owned'</script> & \"quoted\" </script><img src=x onerror=alert(1)> man"
PAIRS = [("the old dog sleeps at home .", "der alte Hund schläft zu Hause ."), (NASTY, "ein </script> Mann & \u2028")]


@pytest.fixture(scope="session")
def translator(toy_run: Path) -> Translator:
    return Translator(toy_run, device="cpu", decode={"max_extra": 8, "beam": 2})


def one_attention(translator: Translator, source: str, target: str) -> Attention:
    (found,) = attention_of(translator, [(source, target)])
    return found


def one_alignment(translator: Translator, source: str, target: str) -> str:
    (found,) = alignments(translator, [(source, target)])
    return found


@torch.inference_mode()
def test_the_weights_are_those_the_model_itself_uses(translator: Translator) -> None:
    """Weights times values, joined and projected, are what the attention layers put out."""
    (model,) = translator.models
    source_S, input_T = (torch.tensor(ids) for ids in translator.tokenizer.encode(["the old dog", "der alte Hund"]))
    source_S, input_T = torch.cat([source_S, torch.tensor([EOS])]), torch.cat([torch.tensor([BOS]), input_T])
    outputs: dict[str, list[torch.Tensor]] = {"encoder": [], "decoder": [], "cross": []}
    inputs: dict[str, list[torch.Tensor]] = {"encoder": [], "decoder": []}

    def remember(kind: str):  # type: ignore[no-untyped-def]
        def hook(module, given, out):  # type: ignore[no-untyped-def]
            outputs[kind].append(out)
            if kind != "cross":
                inputs[kind].append(given[0])

        return hook

    handles = [layer.self_attention.register_forward_hook(remember("encoder")) for layer in model.encoder]
    handles += [layer.self_attention.register_forward_hook(remember("decoder")) for layer in model.decoder]
    handles += [layer.cross_attention.register_forward_hook(remember("cross")) for layer in model.decoder]
    model(source_S[None], input_T[None])
    for handle in handles:
        handle.remove()
    maps, memory = model.attention_maps(source_S[None], input_T[None]), model.encode(source_S[None])
    for index, layer in enumerate(model.decoder):
        expected = layer.cross_attention.out(join_heads(maps.cross[index] @ memory.values[index]))
        torch.testing.assert_close(outputs["cross"][index], expected[0], rtol=0, atol=1e-5)
    for kind, layers, weights in (
        ("encoder", model.encoder, maps.encoder),
        ("decoder", model.decoder, maps.decoder),
    ):
        for index, layer in enumerate(layers):
            attention = layer.self_attention
            v_BHSK = split_heads(attention.qkv(inputs[kind][index][None]).chunk(3, dim=-1)[2], attention.heads)
            expected = attention.out(join_heads(weights[index] @ v_BHSK))
            torch.testing.assert_close(outputs[kind][index], expected[0], rtol=0, atol=1e-5)


def test_rows_sum_to_one_and_no_target_looks_ahead(translator: Translator) -> None:
    for source, target in PAIRS:
        found = one_attention(translator, source, target)
        for weights in (found.cross_LHTS, found.encoder_LHSS, found.decoder_LHTT):
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), rtol=0, atol=1e-5)
        assert found.decoder_LHTT.triu(1).abs().max() == 0
        assert found.cross_LHTS.shape[2:] == (len(found.target_pieces), len(found.source_pieces))


@pytest.mark.parametrize(
    "source", ["a man runs here .", "\u2581", "a  double   space", " led", "naïve 東京 🙂 x", "a \ud800"]
)
def test_alignments_number_words_of_both_sides(translator: Translator, source: str) -> None:
    target = "ein Mann  rennt\u00a0hier ."
    links = [tuple(map(int, link.split("-"))) for link in one_alignment(translator, source, target).split()]
    assert [target_word for _, target_word in links] == list(range(len([word for word in target.split(" ") if word])))
    assert all(0 <= source_word < len([word for word in source.split(" ") if word]) for source_word, _ in links)
    assert one_alignment(translator, "", target) == one_alignment(translator, source, " ") == ""


def test_neighbours_change_nothing(translator: Translator) -> None:
    pairs = [
        *PAIRS,
        ("", "x"),
        ("a man", "ein Mann"),
        ("the dog sleeps here .", "der Hund"),
        ("🙂", "ein Hund rennt ."),
    ]
    assert alignments(translator, pairs) == [one_alignment(translator, *pair) for pair in pairs]
    together = attention_of(translator, PAIRS)
    for found, pair in zip(together, PAIRS, strict=True):
        alone = one_attention(translator, *pair)
        for kind in ("cross_LHTS", "encoder_LHSS", "decoder_LHTT"):
            torch.testing.assert_close(getattr(found, kind), getattr(alone, kind), rtol=0, atol=1e-6)


def test_the_json_holds_every_layer_and_head(translator: Translator, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_attention(translator, PAIRS, path, with_self=True)
    for record, (source, target) in zip(json.loads(path.read_text(encoding="utf-8")), PAIRS, strict=True):
        assert (record["source"], record["target"]) == (source, target)
        for kind, rows, columns in (
            ("cross", "target_pieces", "source_pieces"),
            ("encoder_self", "source_pieces", "source_pieces"),
            ("decoder_self", "input_pieces", "input_pieces"),
        ):
            shape = torch.tensor(record[kind]).shape
            assert shape == (2, 4, len(record[rows]), len(record[columns])), kind
    write_attention(translator, PAIRS, path, with_self=False)
    assert not {"encoder_self", "decoder_self"} & set(json.loads(path.read_text(encoding="utf-8"))[0])


def test_a_job_writes_attention_and_alignments(translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a man runs here .\n\na dog .\n")
    job = Job(inputs=(tmp_path / "in",), outputs=(tmp_path / "out",), alignments=True, attention=tmp_path / "page.html")
    run_job(translator, job, Console(quiet=True))
    rows = [line.split("\t") for line in (tmp_path / "out").read_text().split("\n")[:-1]]
    assert rows[1] == ["", ""]
    assert rows[0][1] == one_alignment(translator, "a man runs here .", rows[0][0])
    assert "a man runs here ." in (tmp_path / "page.html").read_text()


def test_an_ensemble_has_no_single_attention_and_a_job_says_so_before_its_work(toy_run: Path, tmp_path: Path) -> None:
    ensemble = Translator(toy_run, toy_run, device="cpu")
    with pytest.raises(UsageError, match="attention is that of one model"):
        attention_of(ensemble, [("a", "b")])
    (tmp_path / "in").write_text("a dog .\n")
    job = Job(inputs=(tmp_path / "in",), outputs=(tmp_path / "out",))
    for wish in ({"attention": tmp_path / "page.html"}, {"alignments": True}):
        with pytest.raises(UsageError, match="attention is that of one model"):
            run_job(ensemble, replace(job, **wish), Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_folder_that_is_not_there_is_said_before_the_work(translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a dog .\n")
    job = Job(inputs=(tmp_path / "in",), outputs=(tmp_path / "out",), attention=tmp_path / "no" / "page.html")
    with pytest.raises(UsageError, match=r"page\.html: there is no folder"):
        run_job(translator, job, Console(quiet=True))
    assert not (tmp_path / "out").exists()


# --- In a browser ------------------------------------------------------------------------------------------------


@pytest.fixture
def page(translator: Translator, tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    write_attention(translator, PAIRS, path, with_self=True)
    return path


def browse(page: Path, *options: str) -> str:
    if BROWSER is None:
        pytest.skip("needs Chromium")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def after(page: Path, script: str) -> str:
    """The document once a script has acted on the page as a person would."""
    acted = page.with_name("acted.html")
    html = page.read_text(encoding="utf-8")
    acted.write_text(html.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return browse(acted, "--dump-dom")


def test_the_page_asks_for_nothing(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert set(re.findall(r"https?://[^\s'\"<]+", html)) == {"http://www.w3.org/2000/svg"}


def test_the_page_draws_a_cell_for_each_weight_and_shows_text_as_text(page: Path) -> None:
    dom = after(page, "")
    records = json.loads(re.search(r'id="weights">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])
    cells = len(records[0]["cross"][0][0]) * len(records[0]["cross"][0][0][0])
    assert dom.count('class="cell"') == cells
    assert dom.count('class="line"') > 0
    assert "<title>Attention</title>" in dom
    assert "&lt;script&gt;document.title='owned'&lt;/script&gt;" in dom
    assert "<img" not in dom


def test_layer_head_and_sentence_can_be_chosen_and_weights_read(page: Path) -> None:
    choose = """
      const set = (id, value) => { const select = document.getElementById(id); select.value = value
        select.dispatchEvent(new Event('change')) }
      set('pair', '1'); set('kind', 'decoder_self'); set('layer', '1'); set('head', '3')
      document.querySelector('.hit[data-row="2"][data-column="1"]').dispatchEvent(new Event('pointerenter'))
    """
    dom = after(page, choose)
    record = json.loads(re.search(r'id="weights">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])[1]
    weight = record["decoder_self"][1][3][2][1]
    readout = re.search(r'<output id="readout">(.*?)</output>', dom)[1]
    assert readout.endswith(f"{weight:.4f}")
    assert dom.count('class="cell"') == len(record["input_pieces"]) ** 2


def test_the_page_can_be_photographed(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browse(page, f"--screenshot={picture}", "--window-size=1300,800")
    assert picture.stat().st_size > 10_000
