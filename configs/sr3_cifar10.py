r"""Super-resolution of CIFAR-10, 8×8 → 32×32, from an npz file with x_train (uint8 [50000, 32, 32, 3]).

    diffjax train --config sr3_cifar10 --workdir runs/sr3_cifar10 \
        --config.data.path=FILE
    diffjax train --config sr3_cifar10 --workdir runs/regression_cifar10 \
        --config.data.path=FILE --config.task.name=regression --config.train.loss_norm=l2 --config.train.steps=400 \
        --config.optimizer.warmup_steps=100
    diffjax classifier --config sr3_cifar10 --config.data.path=FILE \
        --config.data.label_key=y_train --out CLASSIFIER --data image_key=x_test,label_key=y_test
    diffjax restore --workdir runs/sr3_cifar10 --search 25 --num 100 --extractor CLASSIFIER
    diffjax restore --workdir runs/sr3_cifar10 --data image_key=x_test,label_key= --num 500 \
        --extractor CLASSIFIER --compare runs/regression_cifar10 --sample num_steps=100 \
        --sample num_steps=25,schedule.num_timesteps=25,schedule.beta_start=0.01,schedule.beta_end=0.3163

990,227 parameters; 2,500 steps took 34 minutes on two CPU cores (1.4 a second where nothing else runs), the 400 steps
of the regression 20 minutes on one core that was shared. PSNR, SSIM, consistency and Fréchet distance (in the features
of a classifier of 66 % accuracy) on 500 test images: bicubic 21.18, 0.583, 57.9, 10.84; regression 22.52, 0.681, 3.8,
5.01; SR3 in 100 steps 20.49, 0.577, 5.5, 1.12; in 25 steps, on the schedule that --search found with training images,
20.87, 0.600, 4.5, 1.54. PSNR, SSIM and consistency on the first 64 of them: SR3 in 2000 steps
(schedule=,num_steps=2000) 19.95, 0.545, 6.7; in 100 steps 20.18, 0.558, 5.4; regression 22.23, 0.664, 3.7.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("sr3_fashion_mnist")
    config.update(
        {
            "data": {
                "path": "data/cifar10.npz",
                "image_shape": (32, 32, 3),
                "resize": "exact",
                "random_flip": True,
            },
            "train": {"steps": 2500},
        }
    )
    return config
