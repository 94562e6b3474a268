"""The PyTorch side of the benchmarks: diffusers' network with the same weights, its calls, samples and steps."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import torch

from benchmarks.subject import Subject
from diffjax import interop

EMA_DECAY = 0.9999

diffusers.utils.logging.set_verbosity_error()


class Network:
    """diffusers' UNet2DModel, channels-last, on the same kind of device, in the same dtype."""

    def __init__(self, of: Subject, *, compiled: bool = False):
        self.of, self.device = of, _device(of)
        self.dtype = getattr(torch, of.run.network.dtype.name)
        self.name = f"PyTorch {torch.__version__.partition('+')[0]}{', compiled' * compiled}"
        with tempfile.TemporaryDirectory() as folder:
            path = interop.export(Path(folder) / "net", of.run)
            self.unet = diffusers.UNet2DModel.from_pretrained(path, subfolder="unet", local_files_only=True)
            self.ddim_scheduler = diffusers.DDIMScheduler.from_pretrained(path, subfolder="scheduler")
        self.unet = self.unet.to(self.device, memory_format=torch.channels_last)
        self.compiled = compiled

    def call(self, x: np.ndarray, t: np.ndarray) -> Callable[[], torch.Tensor]:
        """Returns a function that makes one network call."""
        net, x, t = self._asked(), self._images(x), torch.tensor(t).to(self.device)

        @torch.inference_mode()
        def call():
            return self._done(net(x, t).sample)

        return call

    def ddim(self, x: np.ndarray, steps: int) -> Callable[[], torch.Tensor]:
        """Returns a function that samples like diffusers' DDIMPipeline from given noise, η = 0, without pictures."""
        net, start = self._asked(), self._images(x)
        self.ddim_scheduler.set_timesteps(steps)

        @torch.inference_mode()
        def sample():
            x = start
            for t in self.ddim_scheduler.timesteps:
                eps = net(x, t).sample
                x = self.ddim_scheduler.step(eps, t, x, eta=0.0, use_clipped_model_output=True).prev_sample
            return self._done(x)

        return sample

    def trainer(self, images: np.ndarray) -> Callable[[], torch.Tensor]:
        """Returns a function that trains one step: fused Adam, clipped gradient, EMA by one call for all tensors."""
        options, unet = self.of.config.optimizer, self.unet.float().train()
        net = torch.compile(unet) if self.compiled else unet
        params = list(unet.parameters())
        average = [p.detach().clone() for p in params]
        optimizer = torch.optim.Adam(params, lr=options.learning_rate, fused=True)
        alpha_bars = torch.tensor(self.of.run.schedule.alpha_bars, dtype=torch.float32, device=self.device)
        images = torch.tensor(images, device=self.device).permute(0, 3, 1, 2)

        def step():
            x0 = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            t = torch.randint(len(alpha_bars), (len(x0),), device=self.device)
            noise = torch.randn_like(x0)
            level = alpha_bars[t][:, None, None, None]
            with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
                eps = net(level.sqrt() * x0 + (1 - level).sqrt() * noise, t).sample
            loss = (eps.float() - noise).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.grad_clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(params, options.grad_clip_norm)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, params, 1 - EMA_DECAY)
            return self._done(loss)

        return step

    def to_numpy(self, x: torch.Tensor) -> np.ndarray:
        """Converts `[B, C, H, W]` on the device to NumPy `[B, H, W, C]`."""
        return x.float().permute(0, 2, 3, 1).cpu().numpy()

    def _asked(self):
        net = self.unet.to(self.dtype).eval()
        return torch.compile(net) if self.compiled else net

    def _images(self, x: np.ndarray) -> torch.Tensor:
        x = torch.tensor(x, device=self.device, dtype=self.dtype).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    def _done(self, result: torch.Tensor) -> torch.Tensor:
        _wait(self.device)
        return result


def kernels(side: int, count: int, of: Subject) -> dict[str, Callable[[], torch.Tensor]]:
    """Returns functions: a product of `side`×`side` matrices, and `count` floats read and written."""
    device, dtype = _device(of), getattr(torch, of.run.network.dtype.name)
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    x = torch.zeros(count, device=device)

    def waited(function):
        result = function()
        _wait(device)
        return result

    return {"torch_product": lambda: waited(lambda: a @ b), "torch_copy": lambda: waited(lambda: x + 1)}


def _device(of: Subject) -> str:
    """Returns the kind of JAX's device; sets PyTorch to use all cores and, on a GPU, TF32 like JAX by default."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")
    return "cuda" if of.device.platform == "gpu" else "cpu"


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
