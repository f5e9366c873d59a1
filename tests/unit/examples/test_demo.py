"""The headline demo's people, figures and picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from random import Random

from examples.bridging_web.inputs import refused
from examples.bridging_web.people import CLUES, LONGEST, players, typing_time
from examples.bridging_web.plot import plot
from examples.bridging_web.submits import Submit, headline, quantile, table
from headstart_service.pipelines.bridging.inputs import BridgingInputs
from headstart_service.providers.words import default_words


def test_nine_of_ten_people_take_the_times_that_the_seed_observed():
    random = Random(7)
    times = [typing_time(random, ["abcdef"] * 5) for _ in range(10_000)]
    assert 0.87 < sum(30 <= each <= 120 for each in times) / len(times) < 0.93
    assert 50 < quantile(times, 0.5) < 65
    assert max(times) <= LONGEST


def test_players_come_within_the_time_and_play_games_that_nobody_refuses():
    coming = list(players(60, 30.0, Random(3), default_words(CLUES)))
    assert Counter(each.recipient for each in coming) == {"haiku": 30, "human": 30}
    assert all(0 <= moment <= 30 for each in coming for moment in each.comes)
    assert all(len(clues) == 5 for each in coming for clues in each.clues)
    assert all(each.clues[0] != each.clues[1] for each in coming)
    again = list(players(60, 30.0, Random(3), default_words(CLUES)))
    assert coming == again


def test_no_player_types_what_would_be_refused():
    forms = [word + end for word in ("rain", "stone", "cloud", "wind") for end in ("", "s", "y")]
    words = [*forms, "harbour", "violin", "engine", "candle", "moss"]
    for each in players(40, 1.0, Random(3), words):
        game = {"anchor": each.anchor, "target": each.target, "recipient_type": each.recipient}
        for clues in each.clues:
            assert refused(BridgingInputs.model_validate(game), list(clues)) == []


def _submits() -> list[Submit]:
    return [
        Submit(recipient, head_start, typed, 0.004 if head_start else 3.0, {source: 5})
        for typed in (20.0, 40.0, 130.0)
        for recipient in ("haiku", "human")
        for head_start, source in ((True, "ready"), (False, "live"))
    ]


def test_the_table_has_the_waits_of_each_kind_of_game_by_typing_time():
    lines = table(_submits(), "Haiku").splitlines()
    (haiku,) = [line for line in lines if line.startswith("against Haiku")]
    assert haiku.split()[2:] == ["all", "3", *["3.00", "s"] * 3, *["4.0", "ms"] * 3]
    assert [line.split()[:2] for line in lines if " 1  " in line] == [
        ["<", "30"],
        ["30-60", "s"],
        [">", "120"],
    ] * 2
    assert "of 30 parts at submit: 30 ready, 0 waited for" in lines[-1]


def test_the_headline_compares_the_medians_of_games_against_the_language_model():
    found = headline([*_submits(), Submit("human", False, 9.0, 90.0, {})], "Haiku")
    assert found == (
        "People who played against Haiku waited 3.00 s without a head start, 4.0 ms with one."
    )


def test_the_headline_needs_both_kinds_of_games():
    ahead = [each for each in _submits() if each.head_start]
    assert "nothing to compare" in headline(ahead, "Haiku")


def test_quantiles_are_values_that_were_measured():
    assert [quantile(range(1, 101), q) for q in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert quantile([7.0], 0.99) == 7.0


def test_the_plot_has_a_dot_for_every_submit_and_survives_any_name():
    picture = ET.fromstring(plot(_submits(), "<Haiku & co>", 1.0))
    svg = "{http://www.w3.org/2000/svg}"
    dots = picture.findall(f"{svg}circle")
    assert len(dots) == 12
    slow = [float(dot.get("cy")) for dot in dots if "live" in dot.get("class")]
    fast = [float(dot.get("cy")) for dot in dots if "ahead" in dot.get("class")]
    assert max(slow) < min(fast), "a longer wait stands higher"
