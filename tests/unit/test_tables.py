"""Results as text and as dictionaries: everything there, columns straight, JSON without complaint."""

import json
from dataclasses import asdict

from mt.evaluate.analysis import analyse
from mt.evaluate.bleu import scores
from mt.evaluate.significance import compare, largest_differences
from mt.evaluate.tables import analysis_table, comparison_table, difference_table, score_dicts, score_table

REFERENCES = ["Der Hund bellt laut im Hof.", "Die Katze schläft auf dem Sofa.", "Es regnet heute sehr stark."]
BETTER = ["Der Hund bellt laut im Hof.", "Die Katze schläft auf dem Bett.", "Es regnet heute sehr stark."]
WORSE = ["Der Hund bellt im Hof.", "Die Katze schläft auf dem Sofa.", ""]


def test_a_score_table_has_values_intervals_and_signatures() -> None:
    found = scores(BETTER, REFERENCES, confidence=20)
    table = score_table(found)
    for score, line in zip(found, table.split("\n")[: len(found)], strict=True):
        assert line.startswith(score.name)
        assert f"{score.value:.2f} {score.mean:.2f} ± {score.half_width:.2f} {score.signature}" in " ".join(
            line.split()
        )
    assert table.split("\n")[4] == f"BLEU: {found[0].detail}"


def test_without_intervals_their_column_is_left_out() -> None:
    found = scores(BETTER, REFERENCES)
    assert f"{found[3].value:.2f}  nrefs" in score_table(found)


def test_scores_of_a_run_survive_json() -> None:
    found = scores(BETTER, REFERENCES, confidence=20)
    rows = json.loads(json.dumps(score_dicts(found, "news en-de, 3 sentences", "average of 5")))
    assert [row["value"] for row in rows] == [score.value for score in found]
    assert rows[0]["testset"] == "news en-de, 3 sentences"


def test_comparisons_survive_json_and_show_every_system() -> None:
    found = compare({"better": BETTER, "worse": WORSE}, REFERENCES, resamples=20, trials=20)
    assert json.loads(json.dumps([asdict(one) for one in found]))[0]["systems"][0]["system"] == "better"
    table = comparison_table(found)
    assert table.count("baseline") == 4
    assert all(one.bootstrap_signature in table and one.randomization_signature in table for one in found)


def test_differences_stand_one_above_the_other() -> None:
    gains, losses = largest_differences(BETTER, WORSE, REFERENCES, sources=["a dog", "a cat", "rain"])
    lines = difference_table(gains, losses, "better.txt", "worse.txt").split("\n")
    start = lines.index("line 2")
    assert [line.split()[0] for line in lines[start + 1 : start + 5]] == [
        "source",
        "reference",
        "better.txt",
        "worse.txt",
    ]
    translations = [BETTER[1], WORSE[1]]
    assert [line[-len(text) :] for line, text in zip(lines[start + 3 :], translations, strict=False)] == translations
    assert "nowhere" in difference_table([], [], "a", "b")


def test_an_analysis_names_the_lines() -> None:
    table = analysis_table(analyse(WORSE, REFERENCES))
    assert [line.split() for line in table.split("\n")][:2] == [
        ["exactly", "right", "1", "33.3%", "line", "2"],
        ["empty", "1", "33.3%", "line", "3"],
    ]
    assert "0-10" in table
