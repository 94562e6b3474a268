"""The cost of `import diffjax`, and the direction of imports between the layers of the package."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "diffjax"

# The lowest layer first; a module may import from its own layer and from those below.
LAYERS = [
    {"errors", "files", "buckets", "state_dicts", "registry", "fields", "noise", "devices", "prediction"},
    {"compilation_cache", "json_files", "continuous_time", "schedules", "thresholds"},
    {"timesteps", "process"},
    {"steps", "parameterization", "guidance"},
    {"samplers"},
    {"loop", "sampling"},
    {"likelihood", "latents", "editing"},
    {"losses", "learn"},
    {"models", "data"},
    {"inverse"},
    {"viz"},
    {"tasks"},
    {"training"},
    {"metrics"},
    {"runs"},
    {"interop"},
    {"sweeps"},
    {"report"},
    {"cli"},
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


def test_commands_start_without_other_frameworks():
    """Even where they are installed: PyTorch alone takes 2 s."""
    heavy = ["tensorflow", "torch", "matplotlib", "diffusers", "sklearn", "google.cloud.storage"]
    code = (
        "import importlib, sys; from diffjax.cli.main import COMMANDS, module_of\n"
        "for name in COMMANDS: importlib.import_module(module_of(name))\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_submodules_are_imported_on_first_use():
    code = "import diffjax as dj; dj.models.UNet(); assert 'models' in dir(dj); dj.nothing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip().splitlines()[-1] == "AttributeError: module 'diffjax' has no attribute 'nothing'"


def test_no_module_imports_a_layer_above_its_own():
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        for imported in _diffjax_imports(path):
            assert level[imported] <= level[module], f"{path} imports {imported}"


def _diffjax_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "diffjax":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffjax."):
            yield node.module.split(".")[1]
        assert not (isinstance(node, ast.Import) and any("experiments" in alias.name for alias in node.names))
