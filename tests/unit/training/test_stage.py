"""A training stage: resuming changes nothing, averages are what is shipped."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from longvie_cli.training.optimizers import muon_views
from longvie_cli.training.trainer import load_average, run_stage, warmup_cosine


def _network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(32, 40), nn.Tanh(), nn.Linear(40, 32))


def _train(network: nn.Module, folder: Path, **options: object) -> None:
    def compute_loss(
        step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        batch = torch.randn(4, 32, generator=generator)
        return (network(batch) - batch.flip(-1)).square().mean(), {
            "batch_mean": float(batch.mean())
        }

    run_stage(
        "toy",
        folder,
        modules={"network": network},
        num_steps=6,
        learning_rate=1e-2,
        compute_loss=compute_loss,
        seed=5,
        muon=True,
        **options,  # type: ignore[arg-type]
    )


def test_a_stage_stopped_after_every_step_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    _train(_network(), whole)
    for _ in range(6):
        _train(_network(), broken, stop_after_seconds=0.0)
    first, second = _network(), _network()
    assert load_average(whole, "toy", {"network": first}) == 6
    assert load_average(broken, "toy", {"network": second}) == 6
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(first.parameters()), next(_network().parameters()))


def test_muon_gets_hidden_matrices_on_the_same_memory() -> None:
    modules = nn.ModuleDict(
        {
            "conv": nn.Conv3d(32, 32, 3),
            "narrow": nn.Linear(8, 64),
            "patch_embedding": nn.Linear(64, 64),
        }
    )
    ((parameter, matrix),) = muon_views({"model": modules})
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

    with pytest.raises(FloatingPointError, match="gradient"):
        run_stage(
            "toy",
            tmp_path,
            modules={"network": network},
            num_steps=1,
            learning_rate=1.0,
            compute_loss=compute_loss,
            seed=1,
        )


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
    (tmp_path / "alone").mkdir()
    _train(alone, tmp_path / "alone")
    for name, value in first.items():
        assert torch.equal(value, second[name])
        # Each process draws examples of its own: together they see others than one alone.
        assert not torch.equal(value, alone.state_dict()[name])
