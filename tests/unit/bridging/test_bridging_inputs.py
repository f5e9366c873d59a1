import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headstart_service.domain.errors import InvalidRequest
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.pipelines.bridging.inputs import BridgingInputs, normalise

GAME = {"anchor": "ocean", "target": "forest", "recipient_type": "human"}


def violations(**changes: Any) -> dict[str, str]:
    raw = {name: value for name, value in (GAME | changes).items() if value is not ...}
    with pytest.raises(InvalidRequest) as caught:
        BRIDGING.plan(raw, "bridging")
    return {v.field.removeprefix("bridging."): v.description for v in caught.value.violations}


def accepted(**changes: Any) -> BridgingInputs:
    return BridgingInputs.model_validate(GAME | changes)


def test_counts_have_defaults() -> None:
    inputs = accepted()
    assert (inputs.clue_count, inputs.null_sample_count) == (5, 100)


def test_words_are_normalised() -> None:
    inputs = accepted(anchor="  Deep \u00a0\u2003 BLUE  Cafe\u0301 ", target="ΣΊΣΥΦΟΣ")
    assert inputs.anchor == "deep blue café"
    assert inputs.target == "σίσυφος"


def test_lower_case_letters_compose_where_capitals_have_no_composed_form() -> None:
    assert normalise("J\u030c") == "\u01f0"


def test_every_violation_is_reported_at_once() -> None:
    found = violations(
        anchor="", target="a\tb", recipient_type="dog", clue_count=1000, null_sample_count=0, x=1
    )
    assert found == {
        "anchor": "must be 1 to 64 characters, is 0",
        "target": "must not contain control characters",
        "recipient_type": "must be human or haiku",
        "clue_count": "must be 1 to 50, is 1000",
        "null_sample_count": "must be 1 to 10000, is 0",
        "x": "is not an input of this pipeline",
    }


def test_equal_words_are_reported_at_target_together_with_the_rest() -> None:
    found = violations(target=" OCEAN", clue_count=0)
    assert found == {
        "target": "must differ from anchor, both are 'ocean'",
        "clue_count": "must be 1 to 50, is 0",
    }


def test_missing_fields_are_required() -> None:
    found = violations(anchor=..., target=..., recipient_type=...)
    assert found == {
        "anchor": "is required",
        "target": "is required",
        "recipient_type": "must be human or haiku",
    }


@pytest.mark.parametrize("recipient", [None, "", "Human", 1, [], {}])
def test_other_recipients_are_refused(recipient: Any) -> None:
    assert violations(recipient_type=recipient) == {"recipient_type": "must be human or haiku"}


@pytest.mark.parametrize(
    "text", ["a\nb", "\tocean", "ocean\r", "o\u200bcean", "a\u2028b", "a\x00", "\ud800a", "a\u00ad"]
)
def test_control_and_format_characters_are_refused(text: str) -> None:
    assert violations(anchor=text) == {"anchor": "must not contain control characters"}


@pytest.mark.parametrize("text", ["1984", "--", "❤"])
def test_a_word_needs_a_letter(text: str) -> None:
    assert violations(anchor=text) == {"anchor": f"must have at least one letter, is {text!r}"}


def test_a_word_has_64_characters_at_most() -> None:
    assert accepted(anchor="  " + "a" * 64 + "  ").anchor == "a" * 64
    assert violations(anchor="a" * 65) == {"anchor": "must be 1 to 64 characters, is 65"}


@pytest.mark.parametrize(("given_", "is_"), [(5.0, 5), (1, 1), (50.0, 50)])
def test_whole_floats_count_as_integers(given_: float, is_: int) -> None:
    count = accepted(clue_count=given_).clue_count
    assert (count, type(count)) == (is_, int)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5.5, "must be a whole number, 1 to 50, is 5.5"),
        (float("nan"), "must be a whole number, 1 to 50, is nan"),
        (float("inf"), "must be a whole number, 1 to 50, is inf"),
        ("5", "must be a whole number, 1 to 50, is '5'"),
        (True, "must be a whole number, 1 to 50, is true"),
        (None, "must be a whole number, 1 to 50, is null"),
        ([5], "must be a whole number, 1 to 50, is a list"),
        ({"a": 1}, "must be a whole number, 1 to 50, is an object"),
        (51, "must be 1 to 50, is 51"),
        (-1.0, "must be 1 to 50, is -1"),
        (1e300, "must be 1 to 50, is about 2^997"),
        pytest.param(10**5000, "must be 1 to 50, is about 2^16610", id="a huge one"),
    ],
)
def test_counts_are_whole_and_in_range(value: Any, said: str) -> None:
    assert violations(clue_count=value) == {"clue_count": said}


def test_messages_and_paths_repeat_little_of_the_input() -> None:
    found = violations(anchor="9" * 64, clue_count="x" * 1000, **{"y" * 1000: 1, "a\nb{c}": 1})
    assert all(len(field) <= 40 and len(said) <= 90 for field, said in found.items())
    assert all(field.isprintable() and said.isprintable() for field, said in found.items())


@pytest.mark.parametrize("value", [None, 5.0, True, [], {}])
def test_words_are_text(value: Any) -> None:
    assert violations(anchor=value)["anchor"].startswith("must be text, is ")


def test_inputs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        accepted().anchor = "sea"  # type: ignore[misc]  # the point of the test


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text(max_size=70), st.text(max_size=70), st.integers(-5, 60), st.floats(-5, 20_000))
def test_what_is_accepted_is_accepted_again_unchanged(
    anchor: str, target: str, clues: int, samples: float
) -> None:
    raw = GAME | {
        "anchor": anchor,
        "target": target,
        "clue_count": clues,
        "null_sample_count": samples,
    }
    try:
        first = BridgingInputs.model_validate(raw)
    except ValidationError:
        return
    assert BridgingInputs.model_validate(first.model_dump()) == first
    assert BridgingInputs.model_validate_json(first.model_dump_json()) == first
    assert first.anchor != first.target
    for word in (first.anchor, first.target):
        assert 1 <= len(word) <= 64
        assert any(c.isalpha() for c in word)
        assert word == word.strip()


def test_a_word_of_megabytes_is_refused_before_anybody_waits_for_its_normalisation() -> None:
    # Python would sort these marks for an hour.
    word = "e" + "\u0301\u0323" * 1_000_000
    with pytest.raises(ValidationError, match="must be 1 to 64 characters, is 2000001"):
        BridgingInputs.model_validate({"anchor": word, "target": "b", "recipient_type": "human"})
