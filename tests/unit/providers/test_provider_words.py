from pathlib import Path

import pytest

from headstart_service.domain.errors import StartupError
from headstart_service.providers.words import Source, default_words

TEN = ["ocean", "forest", "river", "mist", "rain", "moss", "coast", "valley", "storm", "harvest"]


def write(path: Path, content: bytes) -> Path:
    file = path / "words.txt"
    file.write_bytes(content)
    return file


def test_default_words_are_plain_and_distinct() -> None:
    words = default_words(5000)
    assert len(words) == len(set(words)) == 5000
    assert all(w.isalpha() and 3 <= len(w) <= 25 and w == w.lower() for w in words)
    assert words[:2] == ["the", "and"]
    assert default_words(100) == words[:100], "the most frequent come first"


def test_default_words_are_no_names_or_brands() -> None:
    words = set(default_words())
    assert len(words) == 30_000
    assert words >= {"winter", "music", "walks", "went", "cities", "children"}
    names = {"coldplay", "london", "jennifer", "toyota", "netflix", "chicago", "obama", "january"}
    assert not names & words


def test_own_words_are_normalised_and_each_is_kept_once(tmp_path: Path) -> None:
    lines = ["\ufeffCafe\u0301", "  OCEAN\r", "", "café", "rock-'n'-roll", "o\u2019clock", *TEN]
    words = Source.file(write(tmp_path, "\n".join(lines).encode())).words()
    assert words == ["café", "ocean", "rock-'n'-roll", "o\u2019clock", *TEN[1:]]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"two words", "must be one word of letters"),
        (b"c3po", "must be one word of letters"),
        (b"--", "must be one word of letters"),
        (b"a\tb", "must be one word of letters"),
        (b"\xff\xfe", "must be UTF-8"),
        (b"x" * 65, "must be 1 to 64 characters, is 65"),
    ],
)
def test_a_bad_line_is_named_with_its_rule(tmp_path: Path, line: bytes, rule: str) -> None:
    file = write(tmp_path, b"\n".join([b"ocean", line]))
    with pytest.raises(StartupError) as caught:
        Source.file(file).words()
    assert f"{file}, line 2: {rule}" in str(caught.value)


def test_too_few_words_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "\n".join([*TEN[:9], "Ocean"]).encode())
    with pytest.raises(StartupError, match="must have 10 or more different words, has 9"):
        Source.file(file).words()


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"cannot read the words of .*: No such file"):
        Source.file(tmp_path / "nothing")


def test_a_source_is_named_after_its_content(tmp_path: Path) -> None:
    file = write(tmp_path, "\n".join(TEN).encode())
    first = Source.file(file)
    assert first.words() == TEN
    assert first.name == Source.file(file).name
    file.write_bytes(file.read_bytes() + b"\nother")
    assert first.name != Source.file(file).name
    assert Source.frequent().name == "wordfreq en 30000, hunspell en_US"
