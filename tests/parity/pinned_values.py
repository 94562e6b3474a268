"""The values that diffusers pins in its own scheduler tests: one record for each full loop.

They are facts of `tests/schedulers/test_scheduler_*.py` of diffusers; all start from numbered samples and call one
network, which `pinned_loops` has. Where a test has a value for each kind of device, that of the CPU is here.
"""

from pinned_record import Pinned, records

LINEAR = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
LINEAR_1100 = LINEAR | {"num_train_timesteps": 1100}
SCALED_LINEAR = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
MIDPOINT = LINEAR | {
    "solver_order": 2,
    "prediction_type": "epsilon",
    "thresholding": False,
    "sample_max_value": 1.0,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}
ALPHA_ONE = {"set_alpha_to_one": True, "beta_start": 0.01}
ALPHA_FIRST = {"set_alpha_to_one": False, "beta_start": 0.01}
V = {"prediction_type": "v_prediction"}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
KARRAS = {"use_karras_sigmas": True}
THRESHOLDED = {"thresholding": True, "dynamic_thresholding_ratio": 0.87, "sample_max_value": 0.5}
NOISED = {"start": 8, "noised": True}
MULTISTEP, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
DEIS, UNIPC = "DEISMultistepScheduler", "UniPCMultistepScheduler"

DDIM = {
    "full_loop_no_noise": {"sum": 172.0067, "mean": 0.223967},
    "full_loop_with_v_prediction": {"config": V, "sum": 52.5302, "mean": 0.0684},
    "full_loop_with_set_alpha_to_one": {"config": ALPHA_ONE, "sum": 149.8295, "mean": 0.1951},
    "full_loop_with_no_set_alpha_to_one": {"config": ALPHA_FIRST, "sum": 149.0784, "mean": 0.1941},
    "full_loop_with_noise": NOISED | {"sum": 354.5418, "mean": 0.4616},
}
DDIM_INVERSE = {
    "full_loop_no_noise": {"sum": 671.6816, "mean": 0.8746},
    "full_loop_with_v_prediction": {"config": V, "sum": 1394.2185, "mean": 1.8154},
    "full_loop_with_set_alpha_to_one": {"config": ALPHA_ONE, "sum": 539.9622, "mean": 0.7031},
    "full_loop_with_no_set_alpha_to_one": {"config": ALPHA_FIRST, "sum": 542.6722, "mean": 0.7066},
}
DDPM = {
    "full_loop_no_noise": {"sum": 258.9606, "mean": 0.3372},
    "full_loop_with_v_prediction": {"config": V, "sum": 202.0296, "mean": 0.2631},
    "full_loop_with_noise": {"start": 998, "noised": True, "draws": range(1), "sum": 387.9466, "mean": 0.5051},
}
DDPM_CONFIG = LINEAR | {"variance_type": "fixed_small", "clip_sample": True}
DRAWN = {"noise": "generator", "seed": 0}
ONE_BATCH = {"kind": "batch", "noise": "", "seed": None, "draws": ()}
PNDM = {
    "full_loop_no_noise": {"sum": 198.1318, "mean": 0.2580},
    "full_loop_with_v_prediction": {"config": V, "sum": 67.3986, "mean": 0.0878},
    "full_loop_with_set_alpha_to_one": {"config": ALPHA_ONE, "sum": 230.0399, "mean": 0.2995},
    "full_loop_with_no_set_alpha_to_one": {"config": ALPHA_FIRST, "sum": 186.9482, "mean": 0.2434},
}
MULTI = {
    "full_loop_no_noise": {"mean": 0.3301},
    "full_loop_with_noise": {"start": 5, "noised": True, "sum": 318.4111, "mean": 0.4146},
    "full_loop_no_noise_thres": {"config": THRESHOLDED, "mean": 1.1364},
    "full_loop_with_v_prediction": {"config": V, "mean": 0.2251},
    "full_loop_with_karras_and_v_prediction": {"config": V | KARRAS, "mean": 0.2096},
    "full_loop_with_lu_and_v_prediction": {"config": V | {"use_lu_lambdas": True}, "mean": 0.1554},
    "switch": {"through": (SINGLESTEP, UNIPC, DEIS, MULTISTEP), "mean": 0.3301},
}
MULTI_INVERSE = {
    "full_loop_no_noise": {"mean": 0.7047},
    "full_loop_no_noise_thres": {"config": THRESHOLDED, "mean": 19.8933},
    "full_loop_with_v_prediction": {"config": V, "mean": 1.5194},
    "full_loop_with_karras_and_v_prediction": {"config": V | KARRAS, "mean": 1.7833, "mean_atol": 2e-3},
    "switch": {"through": (MULTISTEP, "DPMSolverMultistepInverseScheduler"), "mean": 0.7047},
}
SINGLE = {
    "full_loop_no_noise": {"mean": 0.2791},
    "full_loop_with_karras": {"config": KARRAS, "mean": 0.2248},
    "full_loop_with_v_prediction": {"config": V, "mean": 0.1453},
    "full_loop_with_karras_and_v_prediction": {"config": V | KARRAS, "mean": 0.0649},
    "full_loop_with_noise": {"start": 5, "noised": True, "sum": 269.2187, "mean": 0.3505},
    "full_uneven_loop": {"num_steps": 50, "start": 3, "mean": 0.2574},
    "switch": {"through": (DEIS, MULTISTEP, UNIPC, SINGLESTEP), "mean": 0.2791},
}
DEIS_TESTS = {
    "full_loop_no_noise": {"mean": 0.23916},
    "full_loop_with_v_prediction": {"config": V, "mean": 0.091},
    "full_loop_with_noise": NOISED | {"sum": 315.3016, "mean": 0.41054},
    "switch": {"through": (SINGLESTEP, MULTISTEP, UNIPC, DEIS), "mean": 0.23916},
}
UNIPC_SWITCH = {"through": (SINGLESTEP, DEIS, MULTISTEP, UNIPC)}
UNIPC_TESTS = {
    "full_loop_no_noise": {"mean": 0.2464},
    "full_loop_with_karras": {"config": KARRAS, "mean": 0.2925},
    "full_loop_with_v_prediction": {"config": V, "mean": 0.1014},
    "full_loop_with_karras_and_v_prediction": {"config": V | KARRAS, "mean": 0.1966},
    "full_loop_with_noise": NOISED | {"sum": 315.5757, "mean": 0.4109},
    "switch": UNIPC_SWITCH | {"mean": 0.2464},
}
UNIPC_1D = {
    "full_loop_no_noise": {"mean": 0.2441},
    "full_loop_with_karras": {"config": KARRAS, "mean": 0.2898},
    "full_loop_with_v_prediction": {"config": V, "mean": 0.1014},
    "full_loop_with_karras_and_v_prediction": {"config": V | KARRAS, "mean": 0.1944},
    "full_loop_with_noise": NOISED | {"sum": 39.0870, "mean": 0.4072},
    "switch": UNIPC_SWITCH | {"mean": 0.2441},
}
UNIPC_CONFIG = LINEAR | {"solver_order": 2, "solver_type": "bh2"} | SIGMA_MIN
EDM_MULTI = {
    "full_loop_no_noise": {"mean": 0.0001},
    "full_loop_with_noise": {"start": 5, "noised": True, "sum": 8.1661, "mean": 0.0106},
    "full_loop_no_noise_thres": {"config": THRESHOLDED, "mean": 0.0080},
    "full_loop_with_v_prediction": {"config": V, "mean": 0.0092},
}
EDM_CONFIG = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "num_train_timesteps": 1000,
    "solver_order": 2,
    "prediction_type": "epsilon",
    "thresholding": False,
    "sample_max_value": 1.0,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": False,
    "euler_at_final": False,
    "final_sigmas_type": "sigma_min",
}
EDM_EULER = {
    "full_loop_no_noise": {"sum": 34.1855, "mean": 0.044},
    "full_loop_device": {"sum": 34.1855, "mean": 0.044},
}
IN_SIGMA = {"scaled_start": True, "scaling": "state"}
EULER = {
    "full_loop_no_noise": {"sum": 10.0807, "mean": 0.0131},
    "full_loop_with_v_prediction": {"config": V, "sum": 0.0002, "mean": 2.2676e-06},
    "full_loop_device": {"sum": 10.0807, "mean": 0.0131},
    "full_loop_device_karras_sigmas": {"config": KARRAS, "sum": 124.52299499511719, "mean": 0.16213932633399963},
    "full_loop_with_noise": NOISED | {"sum": 57062.9297, "mean": 74.3007},
}
EULER_ANCESTRAL = {
    "full_loop_no_noise": {"sum": 152.3192, "mean": 0.1983},
    "full_loop_with_v_prediction": {"config": V, "sum": 108.4439, "mean": 0.1412},
    "full_loop_device": {"sum": 152.3192, "mean": 0.1983},
    "full_loop_with_noise": NOISED | {"sum": 56163.0508, "mean": 73.1290, "draws": range(2)},
}
HEUN = {
    "full_loop_no_noise": {"sum": 0.1233, "mean": 0.0002},
    "full_loop_with_v_prediction": {"config": V, "sum": 4.6934e-07, "mean": 6.1112e-10},
    "full_loop_device": {"sum": 0.1233, "mean": 0.0002},
    "full_loop_device_karras_sigmas": {
        "config": KARRAS,
        "sum": 0.00015,
        "mean": 1.9869554535034695e-07,
        "mean_atol": 1e-2,
    },
    "full_loop_with_noise": {"start": 16, "noised": True, "sum": 75074.8906, "mean": 97.7538},
}
KDPM2 = {
    "full_loop_no_noise": {"sum": 20.4125, "mean": 0.0266},
    "full_loop_with_v_prediction": {"config": V, "sum": 4.6934e-07, "mean": 6.1112e-10},
    "full_loop_device": {"sum": 20.4125, "mean": 0.0266},
    "full_loop_with_noise": {"start": 16, "noised": True, "sum": 70408.4062, "mean": 91.6776},
}
KDPM2_ANCESTRAL = {
    "full_loop_no_noise": {"sum": 13979.9433, "mean": 18.2030, "mean_atol": 5e-3},
    "full_loop_with_v_prediction": {"config": V, "sum": 331.8133, "mean": 0.4320},
    "full_loop_device": {"sum": 13979.9433, "sum_atol": 1e-1, "mean": 18.2030},
    "full_loop_with_noise": {
        "start": 16,
        "noised": True,
        "draws": (1,),
        "sum": 93087.3437,
        "mean": 121.2074,
        "mean_atol": 5e-3,
    },
}
LMS = {
    "full_loop_no_noise": {"sum": 1006.388, "mean": 1.31},
    "full_loop_with_v_prediction": {"config": V, "sum": 0.0017, "mean": 2.2676e-06},
    "full_loop_device": {"sum": 1006.388, "mean": 1.31},
    "full_loop_device_karras_sigmas": {"config": KARRAS, "sum": 3812.9927, "sum_atol": 2e-2, "mean": 4.9648},
    "full_loop_with_noise": NOISED | {"sum": 27663.6895, "mean": 36.0204},
}
SDE = {
    "full_loop_no_noise": {"sum": 162.52383422851562, "mean": 0.211619570851326},
    "full_loop_with_v_prediction": {"config": V, "sum": 119.8487548828125, "mean": 0.1560530662536621},
    "full_loop_device": {"sum": 162.52383422851562, "mean": 0.211619570851326},
    "full_loop_device_karras_sigmas": {
        "config": KARRAS,
        "sum": 170.3135223388672,
        "mean": 0.23003872730981811,
        "mean_atol": 1e-2,
    },
}
SA = {
    "full_loop_no_noise": {"sum": 337.394287109375, "mean": 0.43931546807289124},
    "full_loop_with_v_prediction": {"config": V, "sum": 193.1467742919922, "mean": 0.2514931857585907},
    "full_loop_device": {"sum": 337.394287109375, "mean": 0.43931546807289124},
    "full_loop_device_karras_sigmas": {
        "config": KARRAS,
        "sum": 837.2554931640625,
        "mean": 1.0901764631271362,
        "mean_atol": 1e-2,
    },
}
UNCLIP = {
    "full_loop": {"num_steps": None, "sum": 252.2682495, "mean": 0.3284743, "draws": range(999)},
    "full_loop_skip_timesteps": {"num_steps": 25, "sum": 258.2044983, "mean": 0.3362038, "draws": range(24)},
}
UNCLIP_CONFIG = {
    "num_train_timesteps": 1000,
    "variance_type": "fixed_small_log",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
}
LCM = {
    "full_loop_onestep": {"num_steps": 1, "sum": 18.7097, "mean": 0.0244},
    "full_loop_multistep": {"sum": 197.7616, "mean": 0.2575, "draws": range(9)},
}
TCD = {
    "full_loop_onestep_deter": {"num_steps": 1, "sum": 29.8715, "mean": 0.0389},
    "full_loop_multistep_deter": {"sum": 181.2040, "mean": 0.2359},
}
CONSISTENCY = {
    "full_loop_no_noise_onestep": {"num_steps": 1, "sum": 192.7614, "mean": 0.2510},
    "full_loop_no_noise_multistep": {
        "num_steps": None,
        "timesteps": (106, 0),
        "draws": range(2),
        "sum": 347.6357,
        "mean": 0.4527,
    },
    "full_loop_with_noise": NOISED | {"draws": range(2), "sum": 763.9186, "mean": 0.9947},
}
SCORE_VE = {"full_loop_no_noise": {"sum": 14372758528.0, "mean": 18714530.0}}

BETAS_CLIPPED = LINEAR | {"clip_sample": True}
BATCH_OF_DDIM = {"batch_step_no_noise": {"kind": "batch", "sum": 1147.7904, "mean": 0.4982}}
BATCH_OF_DDPM = {"batch_step_no_noise": ONE_BATCH | {"sum": 1153.1833, "mean": 0.5005}}
RANDOM_STEPS = DRAWN | {"num_steps": None, "draws": range(999)}
RECORDS: list[Pinned] = [
    *records("ddim", "DDIMScheduler", BETAS_CLIPPED, DDIM),
    *records("ddim_inverse", "DDIMInverseScheduler", BETAS_CLIPPED, DDIM_INVERSE),
    *records("ddim_parallel", "DDIMParallelScheduler", BETAS_CLIPPED, DDIM | BATCH_OF_DDIM),
    *records("ddpm", "DDPMScheduler", DDPM_CONFIG, DDPM, **RANDOM_STEPS),
    *records("ddpm_parallel", "DDPMParallelScheduler", DDPM_CONFIG, DDPM | BATCH_OF_DDPM, **RANDOM_STEPS),
    *records("pndm", "PNDMScheduler", LINEAR, PNDM),
    *records(
        "ipndm",
        "IPNDMScheduler",
        {"num_train_timesteps": 1000},
        {"full_loop_no_noise": {"mean": 2540529.0, "mean_atol": 10.0}},
        passes=2,
    ),
    *records("deis", DEIS, LINEAR | {"solver_order": 2}, DEIS_TESTS),
    *records(
        "dpm_multi",
        MULTISTEP,
        MIDPOINT | SIGMA_MIN | {"lower_order_final": False, "euler_at_final": False},
        MULTI,
    ),
    *records(
        "dpm_multi_inverse",
        "DPMSolverMultistepInverseScheduler",
        MIDPOINT | {"lower_order_final": False},
        MULTI_INVERSE,
    ),
    *records("dpm_single", SINGLESTEP, MIDPOINT | SIGMA_MIN, SINGLE),
    *records("unipc", UNIPC, UNIPC_CONFIG, UNIPC_TESTS),
    *records("unipc_1d", UNIPC, UNIPC_CONFIG, UNIPC_1D, shape=(4, 3, 8)),
    *records("sasolver", "SASolverScheduler", LINEAR_1100, SA, **IN_SIGMA, **DRAWN, draws=range(10)),
    *records(
        "dpm_sde",
        "DPMSolverSDEScheduler",
        LINEAR_1100 | {"noise_sampler_seed": 0},
        SDE,
        **IN_SIGMA,
        noise="brownian",
        seed=0,
        draws=range(18),
    ),
    *records("euler", "EulerDiscreteScheduler", LINEAR_1100, EULER, **IN_SIGMA),
    *records(
        "euler_ancestral",
        "EulerAncestralDiscreteScheduler",
        LINEAR_1100,
        EULER_ANCESTRAL,
        **IN_SIGMA,
        **DRAWN,
        draws=range(10),
    ),
    *records("heun", "HeunDiscreteScheduler", LINEAR_1100, HEUN, **IN_SIGMA),
    *records("kdpm2_discrete", "KDPM2DiscreteScheduler", LINEAR_1100, KDPM2, **IN_SIGMA),
    *records(
        "kdpm2_ancestral",
        "KDPM2AncestralDiscreteScheduler",
        LINEAR_1100,
        KDPM2_ANCESTRAL,
        **IN_SIGMA,
        **DRAWN,
        draws=range(1, 18, 2),
    ),
    *records("lms", "LMSDiscreteScheduler", LINEAR_1100, LMS, **IN_SIGMA),
    *records(
        "edm_euler",
        "EDMEulerScheduler",
        {"num_train_timesteps": 256, "sigma_min": 0.002, "sigma_max": 80.0},
        EDM_EULER,
        scaled_start=True,
        scaling="network",
        sum_atol=1e-3,
    ),
    *records("edm_dpmsolver_multistep", "EDMDPMSolverMultistepScheduler", EDM_CONFIG, EDM_MULTI),
    *records("unclip", "UnCLIPScheduler", UNCLIP_CONFIG, UNCLIP, **DRAWN),
    *records("lcm", "LCMScheduler", SCALED_LINEAR, LCM, **DRAWN, sum_atol=1e-3),
    *records("tcd", "TCDScheduler", SCALED_LINEAR, TCD, sum_atol=1e-3),
    *records(
        "consistency_model",
        "CMStochasticIterativeScheduler",
        {"num_train_timesteps": 201, "sigma_min": 0.002, "sigma_max": 80.0},
        CONSISTENCY,
        scaled_start=True,
        scaling="network",
        **DRAWN,
    ),
    *records(
        "score_sde_ve",
        "ScoreSdeVeScheduler",
        {"num_train_timesteps": 2000, "snr": 0.15, "sigma_min": 0.01, "sigma_max": 1348, "sampling_eps": 1e-5},
        SCORE_VE,
        kind="corrected",
        num_steps=3,
        **DRAWN,
        draws=range(6),
        sum_atol=143727.58528,
        mean_atol=187.1453,
    ),
]
"""All of them: 110 full loops, 2 batched steps, and the loop of a score network with corrections."""
