"""What every test runs under: no network, no user's home, and the annotations of boxtune enforced."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Read when the libraries are imported, so set before any of them is; processes that tests start inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Workers that each take every core for torch are slower together than one alone.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

if importlib.util.find_spec("triton") is not None:
    # Triton compiles the source of its kernels, and finds another where their types are checked.
    kernels = Path(__file__).resolve().parents[1] / "src" / "boxtune" / "finetune" / "kernels.py"
    spec = importlib.util.spec_from_file_location("boxtune.finetune.kernels", kernels)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])

# Must stand before the first import of boxtune. Enforces `Float[np.ndarray, "n 4"]` and every other annotation.
install_import_hook("boxtune", "runtime_types.checked")

# Repeatable, and no clock: a busy machine must not turn a test red.
settings.register_profile(
    "boxtune", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("boxtune")

pytest_plugins = ["models"]

LONGEST = (
    "test_several_ranks", "test_run", "test_run_families", "test_probe", "test_faults", "test_healthy",
    "test_todays_traps", "test_sharding", "test_pretrain", "test_quicken", "test_scoring", "test_ranks",
)  # fmt: skip
"""Files that take a minute or more begin first: a long one at the end would leave the other workers with nothing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others as they were."""
    items.sort(key=lambda item: LONGEST.index(name) if (name := item.path.stem) in LONGEST else len(LONGEST))


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh folder for everything that boxtune keeps between runs (`BOXTUNE_CACHE`), never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXTUNE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """What is there when a file begins is not looked through again by the garbage collector.

    All that torch and transformers bring takes it 0.4 s, and each training ends by asking for it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository; skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data")
    return SHARED_DATA


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
