"""Real engines on the reference model. Slow to import, so one launcher and one baseline serve a whole session."""

from pathlib import Path

import pytest

from steelyard.engines import Deployment, serve
from steelyard.engines.process import close_launchers

WEIGHTS = Path(__file__).resolve().parents[2] / "reference_model" / "weights"
ARGS = {"dtype": "bfloat16", "max_num_seqs": 4, "max_model_len": 512}


@pytest.fixture(scope="session")
def deploy():
    """A deployment of the reference model; keywords change it, `args` are added to the usual ones."""
    pytest.importorskip("vllm")
    if not (WEIGHTS / "config.json").is_file():
        pytest.skip("the reference model has no weights yet")

    def made(arm="baseline", args=None, engine="vllm", **changes):
        values = {
            "arm": arm, "engine": engine, "model_name": "reference", "weights": str(WEIGHTS),
            "tokenizer": str(WEIGHTS), "chat_template": None, "args": {**ARGS, **(args or {})}, "url": None,
            # One thread: two that wait for each other actively crawl on a machine that others use too.
            "env": {"OMP_NUM_THREADS": "1"},
            "device": "cpu", "weights_digest": "w", "tokenizer_digest": "t", "template_digest": None,
            "max_answer_wait_s": 30.0,
        }  # fmt: skip
        return Deployment(**(values | changes))

    return made


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    """Logs and `STEELYARD_HOME` of the session."""
    folder = tmp_path_factory.mktemp("engine_real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEELYARD_HOME", str(folder / "home"))
        yield folder
        close_launchers(idle_only=False)


@pytest.fixture(scope="session")
def baseline(deploy, state):
    """The one engine that most tests share. Whoever freezes it thaws it."""
    with serve(deploy(), run_log_dir=state, start_timeout_s=120) as engine:
        yield engine
