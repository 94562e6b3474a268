"""ᾱ by index, as S0, S3 and S4 share it."""

import torch


def linear_betas(num_timesteps=1000, start=1e-4, end=0.02, *, float32_schedule=False):
    """β in equal steps, float64 `[T]`; with the fault, rounded to float32 as torch.linspace makes them."""
    dtype = torch.float32 if float32_schedule else torch.float64
    return torch.linspace(start, end, num_timesteps, dtype=dtype).double()


class AlphaBars:
    """ᾱ at integer indices -1 … T-1 (1 at -1), float64 0-d tensors.

    float32_schedule: β, α and ᾱ rounded to float32 on the way. 1 - ᾱ is then exact for a ᾱ that is not.
    """

    def __init__(self, betas, *, float32_schedule=False):
        dtype = torch.float32 if float32_schedule else torch.float64
        self.betas = torch.as_tensor(betas).to(dtype)
        self.table = torch.cumprod(1 - self.betas, 0).double()

    def __len__(self):
        return len(self.table)

    def __getitem__(self, t):
        return self.table.new_ones(()) if t == -1 else self.table[t]

    def beta(self, t):
        """β_t."""
        return self.betas[t].double()


def filled(x, t):
    """t for each sample: `int64[B]`."""
    return torch.full((len(x),), int(t), dtype=torch.int64)
