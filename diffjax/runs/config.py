"""The schema of a config: every field with its type, range, default and description.

A config is an `ml_collections.ConfigDict` of sections. A config file sets only what it changes, and `resolve.resolve`
fills in the rest. A section that names a registered entry (`schedule.name`, `sample.sampler`, …) also holds the options
of that entry, which are read off its definition (`fields.options`); so the options of a section depend on the name.
"""

from collections.abc import Mapping
from types import NoneType
from typing import NamedTuple

from diffjax import data, losses, models, samplers, schedules, thresholds, timesteps
from diffjax.fields import Field
from diffjax.registry import Registry
from diffjax.samplers.network_times import NETWORK_TIMES
from diffjax.tasks.base import TASKS
from diffjax.training import optimizers, timestep_sampling


class Named(NamedTuple):
    """A field whose value names an entry of a registry; the options of the entry are fields of the same section."""

    registry: Registry
    given: tuple[str, ...] = ()
    """The parameters of an entry that the library passes itself."""
    plain: tuple[type, ...] = ()
    """The types of values that are used as they are, not as the name of an entry."""
    words: tuple[str, ...] = ()
    """The strings that are allowed besides the names of entries."""


class Section(NamedTuple):
    """A section of the config."""

    doc: str
    fields: Mapping[str, "Field | Section"]
    named: Mapping[str, Named] = {}
    optional: bool = False
    """Whether the whole section may be None, which is then its default."""


_RANGE = tuple[float, float]

DEGRADATION = Section(
    "How the condition of a restoration task is made from an image.",
    {
        "kinds": Field(
            tuple[str, ...],
            (),
            "The degradations, one of which is sampled for each example; (): the source provides the conditions.",
            choices=data.degradations.KINDS,
        ),
        "sigma": Field(_RANGE, (1.0, 1.0), "The range of a Gaussian blur's σ, in pixels.", low=0.0, high=1e3),
        "length": Field(_RANGE, (9.0, 9.0), "The range of a motion blur's length, in pixels.", low=0.0, high=1e3),
        "angle": Field(_RANGE, (0.0, 180.0), "The range of a motion blur's angle, in degrees.", low=-360.0, high=360.0),
        "radius": Field(_RANGE, (2.0, 2.0), "The range of a defocus blur's radius, in pixels.", low=0.0, high=1e3),
        "noise": Field(
            _RANGE, (0.0, 0.0), "The range of the standard deviation of noise added after a blur.", low=0.0, high=255.0
        ),
        "factor": Field(int, 4, "The factor by which bicubic and area reduce an image.", low=2, high=64),
    },
)

DATA = Section(
    "Where the images come from, and how each is prepared.",
    {
        "source": Field(str, "digits", "The source of images.", choices=data.SOURCES),
        "image_shape": Field(
            tuple[int, int, int], (8, 8, 1), "The height, width and channels of a prepared image.", low=1, high=16384
        ),
        "classes": Field(
            tuple[int, ...] | None,
            None,
            "The labels of the images that are used, renumbered from 0 in this order; None: all.",
            low=0,
        ),
        "crop_box": Field(
            tuple[int, int, int, int] | None,
            None,
            "The top, left, height and width of a box that is cut out of each image first; None: the whole image.",
            low=0,
        ),
        "resize": Field(
            str,
            "exact",
            "How an image is brought to its shape: not at all (exact), by a black border (pad), by cropping (crop), or "
            "by scaling until it covers the shape, then cropping (cover).",
            choices=data.images.RESIZES,
        ),
        "crop": Field(str, "center", "The position of a crop.", choices=data.images.CROPS),
        "resample": Field(str, "bicubic", "The filter that scales images.", choices=data.images.RESAMPLES),
        "random_flip": Field(bool, False, "Whether images are mirrored left to right with probability ½."),
        "random_rot90": Field(bool, False, "Whether images are rotated by 0, 90, 180 or 270 degrees at random."),
        "degradation": DEGRADATION,
        "holdout": Field(float, 0.0, "The share of images that is held out of training.", low=0.0, below=1.0),
        "cache_in_memory": Field(bool, False, "Whether decoded images are kept in memory."),
        "on_device": Field(
            bool, False, "Whether the whole data set is kept on the devices, and batches are sampled there."
        ),
        "num_workers": Field(
            int, 0, "Processes that read and prepare images; 0: threads of the training process.", low=0, high=256
        ),
    },
    {"source": Named(data.SOURCES)},
)

SCHEDULE = Section(
    "The noise schedule.",
    {
        "name": Field(str, "linear", "The schedule.", choices=schedules.SCHEDULES),
        "zero_terminal_snr": Field(
            bool, False, "Whether √ᾱ is rescaled so that it ends at 0 (Lin et al. 2024); needs another target than eps."
        ),
    },
    {"name": Named(schedules.SCHEDULES)},
)

MODEL = Section(
    "The network.",
    {"name": Field(str, "unet", "The network.", choices=models.NETWORKS)},
    {"name": Named(models.NETWORKS, given=("out_channels",))},
)

TASK = Section(
    "What the network is trained for.",
    {"name": Field(str, "generation", "The task.", choices=TASKS)},
    {"name": Named(TASKS)},
)

OPTIMIZER = Section(
    "The optimizer and its learning rate.",
    {
        "name": Field(str, "adam", "The optimizer.", choices=optimizers.OPTIMIZERS),
        "learning_rate": Field(float, 2e-4, "The peak learning rate.", above=0.0, high=1e9),
        "warmup_steps": Field(int, 0, "Steps over which the learning rate rises linearly from 0.", low=0),
        "lr_schedule": Field(
            str,
            "constant",
            "The learning rate after the warm-up: constant, or falling to 0 at the last step (cosine).",
            choices=optimizers.LR_SCHEDULES,
        ),
        "grad_clip_norm": Field(
            float | None, 1.0, "The global norm to which gradients are clipped; None: unclipped.", above=0.0, high=1e9
        ),
    },
    {"name": Named(optimizers.OPTIMIZERS, given=("rate",))},
)

TRAIN = Section(
    "The objective and the training loop.",
    {
        "steps": Field(int, 100_000, "The total number of optimizer steps.", low=1),
        "batch_size": Field(int, 128, "Images per step, over all devices and processes.", low=1, high=2**24),
        "target": Field(
            str,
            "eps",
            "What the network predicts; flow: the velocity ε - x_0 of rectified flow; edm: the F of EDM's network.",
            choices=losses.TARGETS,
        ),
        "sigma_data": Field(
            float,
            0.5,
            "σ_data of the target and the weighting edm: the standard deviation of the images in [-1, 1].",
            low=1e-3,
            high=1e3,
        ),
        "loss_norm": Field(str, "l2", "The norm of the prediction's error.", choices=losses.NORMS),
        "huber_delta": Field(float, 1.0, "The error at which the huber norm turns linear.", above=0.0, high=1e6),
        "loss_weighting": Field(
            str, "simple", "The weight of the loss by timestep, a function of the SNR.", choices=losses.WEIGHTINGS
        ),
        "vlb_weight": Field(
            float,
            0.0,
            "λ of L_hybrid (0.001 in Improved DDPM): above 0 the network also learns a learned_range variance.",
            low=0.0,
            high=1e6,
        ),
        "timestep_sampling": Field(
            str, "uniform", "How the timesteps of a batch are sampled.", choices=timestep_sampling.TIMESTEP_SAMPLINGS
        ),
        "offset_noise": Field(
            float, 0.0, "The strength of noise that is constant over each channel of an image.", low=0.0, high=1e3
        ),
        "label_dropout": Field(
            float, 0.0, "The probability that a label is dropped, for classifier-free guidance.", low=0.0, below=1.0
        ),
        "grad_accumulation_steps": Field(
            int, 1, "Micro-batches in which a device computes the gradient of its share.", low=1, high=2**16
        ),
        "shard_optimizer": Field(
            bool,
            False,
            "Whether each device keeps only its share of the optimizer's state and of the averages (ZeRO stage 1).",
        ),
        "steps_per_call": Field(int, 1, "Optimizer steps in one call of the compiled step.", low=1, high=2**16),
        "ema_decays": Field(
            tuple[float, ...],
            (0.9999,),
            "The decays of the exponential moving averages of the parameters; samples use the first.",
            low=0.0,
            below=1.0,
            length=(1, 16),
        ),
        "max_nonfinite_steps": Field(
            int, 10, "Steps in a row whose loss or gradient may be non-finite; such a step changes nothing.", low=0
        ),
        "log_every": Field(int, 100, "Steps between two entries of the metrics.", low=1),
        "sample_every": Field(int, 10_000, "Steps between two sample grids.", low=1),
        "checkpoint_every": Field(int, 5_000, "Steps between two checkpoints.", low=1),
        "max_to_keep": Field(int, 2, "The number of newest checkpoints that are kept.", low=1),
        "final_pictures": Field(bool, True, "Whether training ends with pictures, sampled as config.sample says."),
        "wandb": Field(str | None, None, "The Weights & Biases project to report to, or None."),
    },
    {
        "loss_weighting": Named(losses.WEIGHTINGS, given=losses.GIVEN),
        "timestep_sampling": Named(timestep_sampling.TIMESTEP_SAMPLINGS, given=timestep_sampling.GIVEN),
    },
)

SAMPLE = Section(
    "How the trained network is sampled.",
    {
        "sampler": Field(str, "ddim", "The sampler.", choices=samplers.SAMPLERS),
        "num_steps": Field(int, 50, "S, the number of steps.", low=1),
        "timestep_spacing": Field(
            str, "trailing", "The rule that spaces the steps over the timesteps.", choices=timesteps.SPACINGS
        ),
        "network_times": Field(
            str,
            "exact",
            "On a grid between the timesteps, when the network is called: at the times of the levels (exact), at whole "
            "timesteps (nearest, floor), or where σ̄ is linear in t (linear_sigma); _at_starts: the first call of a "
            "step alone.",
            choices=NETWORK_TIMES,
        ),
        "schedule": SCHEDULE._replace(
            doc="Another schedule to sample on, for networks conditioned on the noise level; None: that of training.",
            optional=True,
        ),
        "clip": Field(
            float | str | None,
            "auto",
            "The bound to which x̂0 is clipped: ± a number; auto: the range of the data; dynamic, or an import path: a "
            "threshold function; None: no clipping.",
            above=0.0,
            high=1e6,
        ),
        "guidance_scale": Field(
            float | None,
            None,
            "s of classifier-free guidance: 0 is unconditional, 1 conditional, > 1 guided; None: no guidance.",
            low=0.0,
            high=1e6,
        ),
        "guidance_interval": Field(
            tuple[float, float] | None,
            None,
            "The noise levels √((1-ᾱ)/ᾱ), low and high, between which the network is guided; None: all.",
            low=0.0,
            allow_inf=True,
        ),
        "guidance_rescale": Field(
            float, 0.0, "φ of Lin et al. 2023: rescaling to the unguided standard deviation.", low=0.0, high=1.0
        ),
    },
    {
        "sampler": Named(samplers.SAMPLERS, given=("schedule", "grid")),
        "timestep_spacing": Named(timesteps.SPACINGS, given=("schedule", "num_timesteps", "num_steps")),
        "clip": Named(thresholds.THRESHOLDS, plain=(int, float, NoneType), words=("auto",)),
    },
)

SCHEMA = Section(
    "An experiment.",
    {
        "seed": Field(int, 0, "The seed of everything that is sampled.", low=0, high=2**32 - 1),
        "imports": Field(
            tuple[str, ...], (), "Folders, besides Python's own, that are searched for modules named in import paths."
        ),
        "task": TASK,
        "data": DATA,
        "schedule": SCHEDULE,
        "model": MODEL,
        "optimizer": OPTIMIZER,
        "train": TRAIN,
        "sample": SAMPLE,
    },
)
