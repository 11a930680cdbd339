"""A training stage: resuming changes nothing, averages are what is shipped."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from longvie_cli.errors import ResumableError
from longvie_cli.training.optimizers import muon_views
from longvie_cli.training.tiny.stage import (
    StageSettings,
    load_stage,
    run_stage,
    stage_losses,
    warmup_cosine,
)


def _network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(32, 40), nn.Tanh(), nn.Linear(40, 32))


def _train(network: nn.Module, folder: Path, *, stop_after_seconds: float | None = None) -> int:
    def compute_loss(
        step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        batch = torch.randn(4, 32, generator=generator)
        return (network(batch) - batch.flip(-1)).square().mean(), {
            "batch_mean": float(batch.mean())
        }

    return run_stage(
        "toy",
        folder,
        {"network": network},
        compute_loss,
        StageSettings(6, 1e-2, 5, muon=True),
        stop_after_seconds=stop_after_seconds,
    )


def test_a_stage_stopped_after_every_step_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert _train(_network(), whole) == 6
    steps = [_train(_network(), broken, stop_after_seconds=0.0) for _ in range(6)]
    assert steps == [1, 2, 3, 4, 5, 6]
    first, second = _network(), _network()
    load_stage(whole, "toy", {"network": first})
    load_stage(broken, "toy", {"network": second})
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(first.parameters()), next(_network().parameters()))
    told, again = stage_losses(whole)["toy"], stage_losses(broken)["toy"]
    assert told["steps"] == 6
    assert told["first"]["loss"] == again["first"]["loss"] > 0
    assert told["last"]["batch_mean"] == again["last"]["batch_mean"]


def test_a_stage_ends_with_the_average_in_its_modules(tmp_path: Path) -> None:
    network, stored = _network(), _network()
    _train(network, tmp_path)
    load_stage(tmp_path, "toy", {"network": stored})
    for ours, theirs in zip(network.parameters(), stored.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_muon_gets_hidden_matrices_on_the_same_memory() -> None:
    modules = nn.ModuleDict(
        {
            "conv": nn.Conv3d(32, 32, 3),
            "narrow": nn.Linear(8, 64),
            "patch_embedding": nn.Linear(64, 64),
        }
    )
    ((parameter, matrix),) = muon_views(dict(modules.named_parameters()))
    assert parameter is modules["conv"].weight
    assert matrix.shape == (32, 32 * 27)
    with torch.no_grad():
        matrix.fill_(2.0)
    assert bool((parameter == 2.0).all())


def test_a_gradient_that_is_not_finite_ends_the_stage(tmp_path: Path) -> None:
    network = _network()

    def compute_loss(
        step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        return network(torch.full((1, 32), torch.inf)).sum(), {}

    with pytest.raises(ResumableError, match="gradient"):
        run_stage("toy", tmp_path, {"network": network}, compute_loss, StageSettings(1, 1.0, 1))


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [warmup_cosine(step, 1000) for step in range(1000)]
    assert factors[0] == 0.01
    assert max(factors) == factors[99] == 1.0
    assert factors[-1] < 0.03
    assert factors[99:] == sorted(factors[99:], reverse=True)


def _train_in_a_group(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    network = _network()
    _train(network, folder)
    distributed.destroy_process_group()
    torch.save(network.state_dict(), folder / f"{rank}.pt")


@pytest.mark.slow
def test_processes_that_train_together_end_with_the_same_weights(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_train_in_a_group, args=(rank, tmp_path)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = _network()
    _train(alone, tmp_path / "alone")
    for name, value in first.items():
        assert torch.equal(value, second[name])
        # Each process draws examples of its own: together they see others than one alone.
        assert not torch.equal(value, alone.state_dict()[name])
