"""Four published networks written again in plain PyTorch: their state dicts and their numbers, and no more.

`pesser`, `openai`, `abarankab` and `sr3` each hold one network, a `TINY` configuration of it for tests, and its published
configurations by name. `state_dict()` has the original's keys, order and shapes, and `forward` computes what the original
does, in the dtype of the weights: the originals keep sinusoids, and OpenAI's normalisation and softmax, in float32 always.
`parts` is what they share. All are NCHW.

The files that the originals save:
  pesser     the network's state dict; ermongroup's own runs save a list [state dict, optimizer, epoch, step, EMA dict],
             keys of the first with `module.` before them
  openai     the network's state dict
  abarankab  the state dict of its `GaussianDiffusion`: the network twice (`model.`, `ema_model.`), and buffers
  sr3        the state dict of its `GaussianDiffusion`: the network once (`denoise_fn.`), and buffers
"""

from torch_reference.unets.parts import num_parameters, randomised

__all__ = ["num_parameters", "randomised"]
