"""Noise levels, Euler steps and the training table against the released code."""

from __future__ import annotations

from functools import cache

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from longvie_cli.models.flow_matching import TrainingNoise, unshifted_sigmas, velocity_target

from .golden import Golden, difference, numbered, read_golden

# The same float32 formulas: a few roundings of numbers up to 1, and of timesteps up to 1000.
SIGMA_LIMIT = 3e-7
TIMESTEP_LIMIT = 3e-4
STATE_LIMIT = 1e-5


@cache
def cases() -> Golden:
    return read_golden("scheduler_cases")


def scheduler(num_inference_steps: int) -> FlowMatchEulerDiscreteScheduler:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=cases().config["shift"])
    scheduler.set_timesteps(sigmas=unshifted_sigmas(num_inference_steps))
    return scheduler


def test_inference_levels() -> None:
    names = numbered(cases(), r"infer\d+")
    assert names
    for name in names:
        ours = scheduler(int(name.removeprefix("infer")))
        assert difference(ours.sigmas[:-1], cases()[f"{name}.sigmas"]) <= SIGMA_LIMIT
        assert ours.sigmas[-1] == 0
        assert difference(ours.timesteps, cases()[f"{name}.timesteps"]) <= TIMESTEP_LIMIT
        rounded = ours.timesteps.bfloat16().float()
        assert difference(rounded, cases()[f"{name}.timesteps_bf16"].float()) == 0


def test_euler_trajectories() -> None:
    names = numbered(cases(), r"traj\d+")
    assert names
    for name in names:
        ours = scheduler(int(name.removeprefix("traj")))
        state = cases()["traj.start"]
        for timestep, expected in zip(ours.timesteps, cases()[f"{name}.states"], strict=True):
            velocity = cases()["traj.A"] * state + (timestep / 1000) * cases()["traj.B"]
            state = ours.step(velocity, timestep, state, return_dict=False)[0]
            size = max(1.0, expected.abs().max().item())
            assert difference(state, expected) <= STATE_LIMIT * size


def training_noise() -> TrainingNoise:
    config = cases().config
    return TrainingNoise(config["shift"], config["num_train_timesteps"])


def test_training_table() -> None:
    (name,) = numbered(cases(), r"train\d+")
    table = training_noise()
    assert difference(table.sigmas, cases()[f"{name}.sigmas"]) <= SIGMA_LIMIT
    assert difference(table.timesteps, cases()[f"{name}.timesteps"]) <= TIMESTEP_LIMIT
    assert difference(table.weights, cases()[f"{name}.weights"]) <= 1e-5
    every = torch.arange(cases().config["num_train_timesteps"])
    selected = table.entries(every, torch.bfloat16)
    assert torch.equal(selected, cases()[f"{name}.bf16_timestep_selected_id"])
    assert torch.equal(table.entries(every, torch.float32), every)


def test_training_noise_target_and_weight() -> None:
    table = training_noise()
    clean, noise = cases()["traj.start"], cases()["train.noise"]
    entries = cases()["train.add_noise_ids"]
    for entry, expected in zip(entries, cases()["train.add_noise"], strict=True):
        noisy = table.add_noise(clean, noise, entry.view(1))
        assert difference(noisy, expected.view_as(noisy)) <= STATE_LIMIT
    assert difference(velocity_target(clean, noise), cases()["train.target"]) == 0
    assert difference(table.weights[entries], cases()["train.weight_at_ids"]) <= 1e-5
