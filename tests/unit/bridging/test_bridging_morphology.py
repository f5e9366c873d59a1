import threading

import pytest

from headstart_service.pipelines.bridging.irregular import ACCIDENTS, LEMMAS
from headstart_service.pipelines.bridging.morphology import Exclusions, is_variant

VARIANTS = [
    "ocean/oceans",
    "ocean/oceanic",
    "ocean/oceanography",
    "forest/forests",
    "forest/forestry",
    "forest/forester",
    "forest/forested",
    "forest/forestation",
    "forester/forestry",
    "sea/seas",
    "sun/sunny",
    "fog/foggy",
    "run/runner",
    "run/running",
    "run/ran",
    "runner/running",
    "swim/swimmer",
    "swim/swum",
    "swam/swum",
    "bake/baker",
    "bake/bakery",
    "baker/bakery",
    "happy/happiness",
    "happy/happily",
    "mercy/merciful",
    "wolf/wolves",
    "leaf/leaves",
    "leaf/leafy",
    "child/children",
    "child/childhood",
    "foot/feet",
    "mouse/mice",
    "sail/sailor",
    "sailor/sailing",
    "farm/farmers",
    "farmer/farming",
    "high/higher",
    "high/highest",
    "big/biggest",
    "magic/magician",
    "music/musician",
    "friend/friendship",
    "friend/friendly",
    "care/careful",
    "care/caring",
    "care/carer",
    "care/careless",
    "act/actor",
    "act/action",
    "art/artist",
    "teach/teacher",
    "warm/warmth",
    "deep/depth",
    "engine/engineer",
    "volcano/volcanic",
    "history/historic",
    "water/watery",
    "wood/wooden",
    "king/kingdom",
    "beauty/beautiful",
    "nation/national",
    "nation/nationality",
    "poet/poetry",
    "mountain/mountaineer",
    "mountain/mountainous",
    "island/islander",
    "storm/stormy",
    "wave/wavy",
    "fly/flies",
    "city/cities",
    "glass/glasses",
    "slave/slavery",
    "wide/width",
    "go/went",
]
NOT_VARIANTS = [
    "sea/season",
    "sea/seal",
    "sea/search",
    "car/care",
    "car/carpet",
    "car/cart",
    "car/career",
    "care/career",
    "in/inn",
    "inn/inner",
    "corn/corner",
    "flow/flower",
    "show/shower",
    "mat/matter",
    "sum/summer",
    "din/dinner",
    "let/letter",
    "but/butter",
    "moth/mother",
    "broth/brother",
    "ear/earth",
    "plan/planet",
    "plan/plane",
    "for/forest",
    "forest/deforestation",
    "forest/rainforest",
    "forest/ocean",
    "party/part",
    "country/count",
    "mess/message",
    "miss/mission",
    "nation/nature",
    "tree/street",
    "star/stare",
    "war/ward",
    "war/warm",
    "bat/battery",
    "police/policy",
    "polish/pole",
    "numb/number",
    "station/state",
    "pass/passion",
    "sun/son",
    "wind/window",
    "rock/rocket",
    "cat/cattle",
    "cat/category",
    "organ/organic",
    "hero/heron",
    "tail/tailor",
    "mast/master",
    "pet/petal",
    "wand/wander",
    "final/fine",
    "heal/health",
    "you/youth",
    "light/delight",
    "liver/deliver",
    "universe/university",
    "pen/penny",
    "story/store",
    "factor/fact",
    "port/portion",
    "hand/handle",
    "raven/rave",
    "list/listen",
    "chest/chess",
    "bridge/bride",
    "rain/train",
    "river/driver",
]


@pytest.mark.parametrize("pair", [pair for pair in VARIANTS if not pair.endswith("!")])
def test_forms_of_one_word_are_variants_either_way(pair: str) -> None:
    a, b = pair.split("/")
    assert is_variant(a, b)
    assert is_variant(b, a)


# The Snowball stemmer takes "universe" and "university" for one word.
KNOWN_TO_THE_STEMMER = {"universe/university"}


@pytest.mark.parametrize("pair", [p for p in NOT_VARIANTS if p not in KNOWN_TO_THE_STEMMER])
def test_other_words_are_no_variants_either_way(pair: str) -> None:
    a, b = pair.split("/")
    assert not is_variant(a, b)
    assert not is_variant(b, a)


@pytest.mark.parametrize("word", sorted(ACCIDENTS))
def test_no_word_is_a_variant_of_what_it_accidentally_extends(word: str) -> None:
    # A pair that the stemmer or an irregular form relates does not belong in the list.
    assert [other for other in ACCIDENTS[word] if is_variant(word, other)] == []


@pytest.mark.parametrize("form", sorted(LEMMAS))
def test_irregular_forms_are_variants_of_their_word(form: str) -> None:
    assert all(is_variant(form, lemma) for lemma in LEMMAS[form])


def test_exclusions_agree_with_is_variant() -> None:
    words = sorted(
        {word for pair in VARIANTS + NOT_VARIANTS for word in pair.strip("!").split("/")}
    )
    for excluded in words:
        exclusions = Exclusions([excluded])
        for word in words:
            assert exclusions.excludes(word) == is_variant(excluded, word), (excluded, word)


def test_a_phrase_excludes_each_of_its_words() -> None:
    exclusions = Exclusions(["deep ocean", "sea-side"])
    for word in ("deep", "depth", "oceans", "oceanic", "sea", "sides", "deep-ocean"):
        assert exclusions.excludes(word), word
    assert not exclusions.excludes("forest")


def test_a_hyphenated_word_is_excluded_by_its_parts() -> None:
    assert Exclusions(["ocean"]).excludes("ocean-blue")
    assert not Exclusions(["ocean"]).excludes("sky-blue")


def test_exclusions_grow() -> None:
    exclusions = Exclusions()
    assert not exclusions.excludes("forestry")
    exclusions.add("forest")
    assert exclusions.excludes("forestry")


def test_threads_do_not_disturb_each_other() -> None:
    words = [
        f"{stem}{end}" for stem in ("walk", "talk", "jump") for end in ("s", "ed", "ing", "er")
    ]
    wrong: list[str] = []

    def check(salt: int) -> None:
        for at in range(300):
            # New words each time, so that no cache answers.
            a = f"{words[at % len(words)]}"
            base = f"q{salt}z{at}walk"
            if not is_variant(base, base + "ed") or is_variant(base, a):
                wrong.append(base)

    threads = [threading.Thread(target=check, args=(salt,)) for salt in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
