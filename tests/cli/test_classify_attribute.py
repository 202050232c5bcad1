"""`circuits classify attribute`: words with marks or colours, its files, and what it refuses."""

import json
from pathlib import Path

from circuits.cli.text import weighed_words
from circuits.uses import WordAttributions
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line


def test_words_are_marked_written_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = "We saw it on Friday . The plot was\x1b[31m fine ."
    answer = command("classify", "attribute", text, "--method", "direct", "--count", 40, "--draws", 1, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"words.json", "words.csv", "words.png"}
    assert (
        "direct attribution, 1 texts" in answer.out
        and ("[++]" in answer.out or "[--]" in answer.out)
        and "\x1b" not in answer.out
    )
    found = WordAttributions.load(out / "words.json")
    assert found.texts == (text,) and found.worst is not None and found.worst < 1e-3
    again = command("classify", "attribute", "--open", out / "words.json", "--out", tmp_path / "again", "--json")
    said = json.loads(again.out)
    assert said["method"] == "direct" and len(said["words"]) == len(text.split()) and len(said["removed"]) == 3
    for options, words in (
        (("--method", "lime"), "method 'lime'"),
        (("--explain", "both"), "--explain both: expected prediction, or label"),
        (("--method", "gradient", "--baseline", "pad"), "baseline 'pad'"),
    ):
        check_one_line(command("classify", "attribute", *options, "--out", tmp_path / "none"), words)
    assert not (tmp_path / "none").exists()


def test_marks_and_colours_say_how_much_and_which_way() -> None:
    words, numbers = ["great", "fine", "of", "dull", "<b>\x1b[31m"], [3.0, 1.5, 0.1, -3.0, -1.2]
    plain = weighed_words(words, numbers, colours=False)
    assert plain == "great[++] fine[+] of dull[--] <b>\ufffd[31m[-]"
    coloured = weighed_words(words, numbers, colours=True)
    assert "\x1b[34m\x1b[1m\x1b[7mgreat\x1b[0m" in coloured and "\x1b[31m\x1b[1mdull" not in coloured and " of " in coloured
    assert weighed_words(["a", "b"], [0.0, 0.0], colours=False) == "a b"
    assert len(weighed_words(["word"] * 60, [1.0] * 60, colours=False).splitlines()) > 4
