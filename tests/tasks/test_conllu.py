"""CoNLL-U files: what is in them, what is wrong with them, and any damage to them."""

import random
from pathlib import Path

import pytest

from circuits.errors import FileFormatError
from circuits.tasks import Sentence, read_conllu

GOOD = """\
# sent_id = one
# text = Mia doesn't see it.
1\tMia\tMia\tPROPN\t_\t_\t4\tnsubj\t_\t_
2-3\tdoesn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdoes\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
4\tsee\tsee\tVERB\t_\t_\t0\troot\t_\t_
4.1\tseen\tsee\tVERB\t_\t_\t_\t_\t4:dep\t_
5\tit\tit\tPRON\t_\t_\t4\tobj\t_\tSpaceAfter=No
6\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_

# newpar
1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet:def\t_\t_
3\tchien\tchien\tNOUN\t_\t_\t0\troot\t_\tSpaceAfter=No
4\t!\t!\tPUNCT\t_\t_\t3\tpunct\t_\t_
"""


def read(tmp_path: Path, text: str | bytes) -> tuple[Sentence, ...]:
    path = tmp_path / "some.conllu"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_conllu(path)


def test_words_their_places_and_their_heads(tmp_path: Path):
    first, second = read(tmp_path, GOOD)
    assert (first.text, first.name) == ("Mia doesn't see it.", "one")
    assert [first.text[word.start : word.end] for word in first.words] == ["Mia", "does", "n't", "see", "it", "."]
    assert [word.head for word in first.words] == [3, 3, 3, None, 3, 3]
    assert [word.relation for word in first.words] == ["nsubj", "aux", "advmod", "root", "obj", "punct"]
    assert first.words[3].tag == "VERB"
    assert (second.text, second.name) == ("du chien!", "")
    assert [(word.form, word.start, word.end) for word in second.words][:3] == [("de", 0, 2), ("le", 0, 2), ("chien", 3, 8)]


def test_line_ends_a_byte_order_mark_and_a_missing_last_line_are_no_matter(tmp_path: Path):
    plain = read(tmp_path, GOOD)
    assert read(tmp_path, GOOD.replace("\n", "\r\n")) == plain
    assert read(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()) == plain
    assert read(tmp_path, GOOD.rstrip("\n")) == plain and read(tmp_path, "\n\n" + GOOD + "\n\n") == plain


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("see\tsee\t", "see\t", "line 7: 9 columns between tabs; expected 10"),
        ("4\tsee", "5\tsee", "line 7: the word number is '5'; expected 4"),
        ("4\tsee", "04\tsee", "line 7: the word number is '04'; expected 4"),
        ("4\tnsubj", "7\tnsubj", "line 3: the head is word 7 of a sentence of 6"),
        ("4\tnsubj", "_\tnsubj", "line 3: the head is '_'; expected a word's number"),
        ("4\tnsubj", "0\tnsubj", "line 3: the sentence that begins here has 2 roots"),
        ("4\tnsubj", "1\tnsubj", "line 3: following heads from word 1 never ends at the root"),
        ("2-3\tdoesn't", "3-4\tdoesn't", "line 4: the multiword token 3-4 does not begin at word 2"),
        ("2-3\tdoesn't", "2-9\tdoesn't", "line 4: the multiword token reaches past the last word, 6"),
        ("2-3\tdoesn't", "2-7\tdoesn't", "line 4: the multiword token reaches past the last word, 6"),
        ("3\tn't", "3-4" + 9 * "\t_" + "\n3\tn't", "line 6: the multiword token 3-4 does not begin at word 3"),
        ("4.1\tseen", "5.1\tseen", "line 8: the empty node 5.1 comes after word 4"),
        ("text = Mia doesn't", "text = Mia does not", "line 4: the text goes on with"),
        ("see it.\n1", "see it. Yes\n1", "line 10: the text goes on with"),
        ("5\tit", "# text = it\n5\tit", "line 9: a comment inside a sentence"),
        ("\tPROPN\t", "\t\t", "line 3: column 4 is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, words: str):
    assert old in GOOD
    with pytest.raises(FileFormatError, match="some.conllu: " + words.replace("(", r"\(")) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(FileFormatError, match="No such file"):
        read_conllu(tmp_path / "missing.conllu")
    with pytest.raises(FileFormatError, match="holds no sentence"):
        read(tmp_path, "# text = nothing\n\n")
    with pytest.raises(FileFormatError, match="not UTF-8 text: byte 3"):
        read(tmp_path, b"1\tA\xff")


def test_any_damage_gives_sentences_or_the_typed_error(tmp_path: Path):
    rng, good, refused = random.Random(0), GOOD.encode(), 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 30)]
            elif kind == 2:
                data[at:at] = rng.choice([b"\t", b"\n", b"1-2", b"0", b"\x00", b"#", "\u2028".encode(), b"999999999999"])
            else:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randint(1, 60)]
        try:
            for sentence in read(tmp_path, bytes(data)):
                for number, word in enumerate(sentence.words):
                    assert 0 <= word.start < word.end <= len(sentence.text)
                    assert word.head is None or (0 <= word.head < len(sentence.words) and word.head != number)
        except FileFormatError as error:
            refused += 1
            assert str(error).startswith(str(tmp_path)) and len(str(error).splitlines()) == 1
    assert 100 < refused < 300
