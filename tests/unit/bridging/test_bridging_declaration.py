import subprocess
import sys

from headstart_service.pipelines.bridging import BRIDGING

HEAVY = {"numpy", "torch", "snowballstemmer", "anthropic", "sentence_transformers", "transformers"}


def test_declaring_and_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys; from headstart_service.pipelines.bridging import BRIDGING;"
        "BRIDGING.plan({'anchor': 'a', 'target': 'b', 'recipient_type': 'haiku'}, 'x');"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_a_human_game_has_no_haiku_steps() -> None:
    game = {"anchor": "ocean", "target": "forest"}
    human = BRIDGING.plan(game | {"recipient_type": "human"}, "").steps
    haiku = BRIDGING.plan(game | {"recipient_type": "haiku"}, "").steps
    assert set(human) == {"embed_endpoints", "lexical_bridge", "null_samples"}
    assert set(haiku) - set(human) == {"haiku_bridge", "haiku_embeddings"}
    assert {name: haiku[name] for name in human} == human, "shared steps are to be reused"


def test_more_null_samples_change_only_their_own_step() -> None:
    game = {"anchor": "ocean", "target": "forest", "recipient_type": "haiku"}
    few = BRIDGING.plan(game, "").steps
    many = BRIDGING.plan(game | {"null_sample_count": 200}, "").steps
    assert {name for name in few if few[name] != many[name]} == {"null_samples"}


def test_only_the_endpoints_are_required() -> None:
    assert [s.name for s in BRIDGING.steps if s.required] == ["embed_endpoints"]


def test_the_steps_need_these_providers() -> None:
    assert BRIDGING.providers() == {"embedder", "vocabulary", "scan", "language_model"}
