"""A real server: what it answers is what the model says in memory, whatever happens on the way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import serving

pytestmark = pytest.mark.slow


def test_transformers_serve_under_faults(tmp_path: Path) -> None:
    """bench/serving.py in small: every image once, the broken ones reported, no text in another's place."""
    missing = [name for name in serving.NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (pip install transformers[serving])")
    adapter = serving.write_model(tmp_path)
    server = serving.RealServer(tmp_path / "model", None, tmp_path / "serve.log")
    server.start()
    try:
        server.wait()
        row, texts = serving.run(server, adapter, num_images=100, at_once=2, share=0.2, restart=False)
    finally:
        server.kill()
    assert (row["came once"], row["answered"], row["reported"], row["reported rightly"]) == (100, 99, 1, 1)
    assert "failed (500: CUDA error)" in row["a reason"]
    assert row["requests"] - row["repeats"] == 100 and row["repeats"] >= 10
    assert len(row["harm"]) >= 5 and row["different texts"] > 90
    places = sorted(texts)[::10]
    assert serving.say_in_memory(adapter, tmp_path / "model", places) == {place: texts[place] for place in places}
