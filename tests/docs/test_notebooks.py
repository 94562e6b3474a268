"""The notebooks run, and are committed with what they show."""

import os
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

SMALL = {
    "anatomy_of_a_sampler": {"count": 100},
    "ddim_table1_small": {"num": 70, "counts": (5, 10)},
    "ddpm_to_ddim": {"num_steps": 70},
    "learned_sampler": {"num": 70, "count": 8, "num_steps": 2},
    "posterior_of_a_blurred_image": {"num": 2, "samples_each": 4, "num_steps": 5, "others": ("ddrm",)},
    "weights_and_diffusers": {"steps": 5},
    "your_own_sampler_and_network": {"num_steps": 8},
}
"""Values for the names of the cell that is tagged "parameters", with which a notebook runs quickly."""


def code(path, changed):
    """The code of a notebook, with other values of its parameters."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    sources = [cell.source for cell in cells]
    (place,) = [n for n, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert all(f"{name} =" in sources[place] or f"{name}, " in sources[place] for name in changed)
    sources[place] += "".join(f"\n{name} = {value!r}" for name, value in changed.items())
    return "\n\n".join(sources)


@pytest.fixture
def own_scope(monkeypatch):
    """Leaves nothing registered, and no figure open."""
    from diffjax.samplers import SAMPLERS

    monkeypatch.chdir(ROOT)
    before = dict(SAMPLERS)
    yield {"__name__": "notebook"}
    for name in set(SAMPLERS) - set(before):
        SAMPLERS._entries.pop(name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code(path, own_scope):
    if path.stem == "weights_and_diffusers":
        pytest.importorskip("diffusers", reason="diffusers is not installed (the extra parity)")
    exec(compile(code(path, SMALL[path.stem]), path.name, "exec"), own_scope)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed(path):
    cells = nbformat.read(path, 4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any(output.output_type == "stream" for output in outputs)
    assert path.stat().st_size < 700_000
    assert f"colab.research.google.com/github/diffjax/diffjax/blob/main/docs/notebooks/{path.name}" in cells[0].source
    assert f"notebooks/{path.name}" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_as_it_stands(path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    assert "JAX_PLATFORMS" in os.environ
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
