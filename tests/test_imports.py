"""What `import diffjax` costs, and which floor may import which."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "diffjax"

# Lowest first; a module may import its own floor and those below.
FLOORS = [
    {"errors", "schedules", "thresholds", "noise", "devices"},
    {"launch"},
    {"timesteps", "process"},
    {"steps"},
    {"samplers"},
    {"sampling"},
    {"guidance", "likelihood", "latents", "editing"},
    {"models"},
    {"losses", "viz"},
    {"data", "tasks"},
    {"training", "evaluation", "interop"},
    {"report"},
]


def test_import_is_light():
    heavy = ["tensorflow", "torch", "matplotlib", "flax", "optax", "orbax", "grain", "sklearn", "scipy.linalg"]
    heavy += ["PIL", "diffrax"]
    code = (
        "import jax, sys; before = set(sys.modules); import diffjax; "
        f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_submodules_come_when_asked_for():
    code = "import diffjax as dj; dj.models.UNet(); assert 'models' in dir(dj); dj.nothing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip().splitlines()[-1] == "AttributeError: module 'diffjax' has no attribute 'nothing'"


def test_nothing_imports_a_floor_above_its_own():
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for imported in _diffjax_imports(path):
            assert level[imported] <= level[room], f"{path} imports {imported}"


def _diffjax_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "diffjax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffjax."):
            yield node.module.split(".")[1]
        assert not (isinstance(node, ast.Import) and any("experiments" in alias.name for alias in node.names))
