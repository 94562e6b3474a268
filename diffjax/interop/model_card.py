"""The model card of an exported network: what it is, how it was trained, how it is sampled."""

import json
from typing import Any

from diffjax.runs import Run, resolve

_PRIVATE = ("path", "data_dir", "predictor_workdir", "teacher")
"""Fields that name folders of the machine that trained."""

_CARD = """---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [diffusion, ddpm, ddim, jax, diffjax]
---

# {title}

A denoising diffusion network of {num_params:,} parameters for images of {shape}, written by diffjax {version}.

```python
import diffusers

pipeline = diffusers.{pipeline}.from_pretrained("{name}")
```

```python
import diffjax as dj

run = dj.interop.load("{name}")
images = run.sample(16, seed=0)  # uint8 [16, {shape_list}]
```

## Protocol

| | |
|---|---|
| parameters | {parameters}{step} |
| data | {data} |
| noise schedule | {schedule} |
| trained to predict | {target} |
| sampled by | {sample} |

The whole config:

```json
{config}
```
"""


def text(run: Run, *, name: str, pipeline: str) -> str:
    """Returns the card of a run, in Markdown.

    Args:
      run: the run that is exported.
      name: the repository, or the name of the folder.
      pipeline: the class of diffusers that loads it.
    """
    from diffjax import __version__

    config = run.config
    return _CARD.format(
        title=name.rpartition("/")[2],
        name=name,
        version=__version__,
        pipeline=pipeline,
        num_params=run.num_params,
        shape="×".join(map(str, run.image_shape)),
        shape_list=", ".join(map(str, run.image_shape)),
        parameters=run.parameters,
        step="" if run.step is None else f" at step {run.step:,}",
        data=_section(config.data, "source", "dataset", "image_shape"),
        schedule=_section(config.schedule),
        target=config.train.get("target", "eps"),
        sample=_section(config.sample, "sampler", "num_steps", "timestep_spacing", "eta", "variance", "clip"),
        config=json.dumps(_public(resolve.to_dict(config)), indent=1, default=list),
    )


def _section(section, *names: str) -> str:
    """Returns the fields of a section that are set, as "name=value, …"."""
    found = resolve.to_dict(section)
    chosen = {name: found[name] for name in names if name in found} if names else found
    return ", ".join(f"{name}={value}" for name, value in chosen.items() if value is not None) or "unknown"


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config without the fields that name folders."""
    fields = {name: value for name, value in config.items() if name not in _PRIVATE}
    return {name: _public(value) if isinstance(value, dict) else value for name, value in fields.items()}
