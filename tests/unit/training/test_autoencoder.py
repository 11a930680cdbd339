"""The autoencoder's stages at toy size, and the gate that judges them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import toy_recipe

from longvie_cli.models.autoencoders import VideoAutoencoder
from longvie_cli.settings.presets import preset_folder
from longvie_cli.training.tiny.autoencoder import (
    coded_autoencoder,
    fit_autoencoder_code,
    latent_scale,
    load_autoencoder,
    picture_loss,
    train_decoder,
    unrolled_loss,
)
from longvie_cli.training.tiny.block_code import edge_metric, principal_code
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import FlightLibrary, render_library
from longvie_cli.training.tiny.gate import (
    KINDS,
    Reading,
    cell_borders,
    edge_correlation,
    gate_is_open,
    judged_clips,
    load_for_gate,
    main,
    read_passes,
    table,
)
from small_models import small_vae

TOY = toy_recipe.TOY.model_copy(
    update={"looks_per_flight": 1, "latent_channels": 24, "code_batches": 2, "decoder_steps": 6}
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work folder with flights and a code."""
    folder = tmp_path_factory.mktemp("work")
    render_library(TOY, folder, worker=0, num_workers=1)
    fit_autoencoder_code(TOY, folder)
    return folder


def _beside(work: Path, folder: Path) -> Path:
    """Return a new work folder with the same flights and code."""
    folder.mkdir()
    for name in ("flights", "code.safetensors"):
        (folder / name).symlink_to(work / name)
    return folder


@pytest.mark.slow
def test_the_code_is_fitted_once_and_is_a_projection(work: Path) -> None:
    autoencoder = coded_autoencoder(TOY, work)
    for kind in ("first", "after"):
        analysis = autoencoder.get_parameter(f"analysis_{kind}")
        synthesis = autoencoder.get_parameter(f"synthesis_{kind}")
        # Float32 sums of up to 768 products of values up to one.
        assert torch.allclose(analysis @ synthesis, torch.eye(TOY.latent_channels), atol=1e-5)
    assert min(autoencoder.config.latents_std) > 0
    before = (work / "code.safetensors").read_bytes()
    fit_autoencoder_code(TOY.model_copy(update={"seed": 1}), work)
    assert (work / "code.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_heavier_edge_metric_keeps_more_of_the_edges(work: Path) -> None:
    pixels = torch.stack(
        [
            FlightLibrary(work / "flights", TOY).autoencoder_pixels(
                np.random.default_rng(seed), 1, 32, kind="video"
            )
            for seed in range(24)
        ]
    )
    cells = torch.nn.functional.unfold(pixels[:, :, 0], 8, stride=8).movedim(1, -1).flatten(0, 1)
    moments = cells.double().T @ cells.double()
    plain, heavy = edge_metric(8, 1, 0.0), edge_metric(8, 1, 10.0)

    def lost(metric: torch.Tensor, judge: torch.Tensor) -> float:
        analysis, synthesis = principal_code(moments, metric, 12)
        error = cells.double() - cells.double() @ analysis.T @ synthesis.T
        return float((error @ judge * error).sum())

    assert lost(heavy, heavy) < lost(plain, heavy)
    assert lost(plain, plain) < lost(heavy, plain)


def test_without_training_the_decoder_is_the_linear_code(work: Path) -> None:
    autoencoder = load_autoencoder(TOY, work)
    latents = torch.randn(1, TOY.latent_channels, 2, 6, 8)
    with torch.no_grad():
        whole = autoencoder.decode_unclamped(latents)
        first, after = autoencoder.details(latents)
    assert not first.any()
    assert not after.any()
    again = autoencoder.encode(whole).latent_dist.mean
    assert torch.allclose(again, latents, atol=1e-4)


def test_half_whitened_latents_bear_errors_best() -> None:
    deviation = torch.tensor([13.0, 5.0, 1.0, 0.3, 0.1])

    def error_of_a_tenth(whitening: float) -> float:
        scale = latent_scale(deviation, whitening)
        assert (deviation / scale).square().mean() == pytest.approx(1, rel=1e-5)
        return float((0.1 * scale).square().sum())

    # The same whether nothing or all is taken off: an error of a tenth of the whole.
    assert error_of_a_tenth(0.0) == pytest.approx(error_of_a_tenth(1.0), rel=1e-5)
    assert error_of_a_tenth(0.5) < 0.7 * error_of_a_tenth(1.0)
    assert error_of_a_tenth(0.5) < min(error_of_a_tenth(0.4), error_of_a_tenth(0.6))


def test_steps_lower_the_loss(work: Path) -> None:
    torch.manual_seed(0)
    autoencoder = coded_autoencoder(TOY, work)
    library = FlightLibrary(work / "flights", TOY)
    rng = np.random.default_rng(0)
    pixels = torch.stack([library.autoencoder_pixels(rng, 5, 48, kind="video") for _ in range(2)])

    def loss() -> torch.Tensor:
        draws = torch.Generator().manual_seed(0)
        return unrolled_loss(autoencoder, pixels, draws, passes=2, latent_noise=0.0)[0]

    before = loss().item()
    optimizer = torch.optim.Adam([p for p in autoencoder.parameters() if p.requires_grad], 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.98 * before


def test_passes_are_taken_of_moved_pictures(work: Path) -> None:
    autoencoder = coded_autoencoder(TOY, work)
    pixels = torch.rand(1, 3, 5, 48, 48) * 2 - 1
    draws = torch.Generator().manual_seed(0)
    loss, readings = unrolled_loss(autoencoder, pixels, draws, passes=3, latent_noise=0.0)
    assert len(readings) == 3
    assert readings[0] > readings[1] > readings[2], "every pass on other cells loses some more"
    assert loss.isfinite()


def test_a_resumed_decoder_is_the_unbroken_one_bit_for_bit(work: Path, tmp_path: Path) -> None:
    unbroken = train_decoder(TOY, _beside(work, tmp_path / "unbroken"))
    broken = _beside(work, tmp_path / "broken")
    train_decoder(TOY, broken, stop_after_seconds=0)
    resumed = train_decoder(TOY, broken)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert resumed.proj_out_after.weight.any(), "nothing was learnt"


def test_the_loss_sees_edges_and_means() -> None:
    truth = torch.zeros(1, 3, 1, 16, 16)
    noise = 0.1 * torch.ones(16, 16)
    noise[::2] *= -1
    even = picture_loss(truth + 0.1, truth)
    rough = picture_loss(truth + noise, truth)
    assert float(even) == pytest.approx(0.1 + 0.05)
    # Rows of alternate sign: differences of 0.2 down the columns, no mean, nothing halved.
    assert float(rough) == pytest.approx(0.1 + 1.5 * 0.2)


def test_edges_compare_what_is_where() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 255, (2, 32, 32, 3), np.uint8)
    assert edge_correlation(truth, truth) == pytest.approx(1)
    assert abs(edge_correlation(truth[:, ::-1].copy(), truth)) < 0.2
    assert np.isnan(edge_correlation(truth, np.zeros_like(truth)))


def test_borders_of_cells_are_seen() -> None:
    truth = np.full((1, 32, 32, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 20, (4, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    cells = truth + levels[None, ..., None]
    noise = truth + rng.integers(0, 20, truth.shape, np.uint8)
    assert cell_borders(cells, truth) > 100
    assert cell_borders(noise, truth) == pytest.approx(1, abs=0.15)


def test_the_gate_opens_for_what_is_good_enough_alone() -> None:
    def reading(**changes: object) -> Reading:
        values: dict[str, object] = dict(
            world=1, kind="colour", still=True, passes=10, moved=False,
            psnr=31.0, edge=0.9, shift=0.1, borders=1.0,
        )  # fmt: skip
        return Reading(**(values | changes))  # type: ignore[arg-type]

    assert gate_is_open([reading()])
    assert not gate_is_open([reading(), reading(still=False, edge=0.84)])
    assert not gate_is_open([reading(passes=1, edge=0.89)])
    assert not gate_is_open([reading(shift=1.1)])
    assert not gate_is_open([reading(passes=30, psnr=29.9)])
    # A flat picture has no edges to lose; controls and moved pictures are told, not asked.
    assert gate_is_open([reading(edge=float("nan")), reading(kind="tracks", edge=0.1)])
    assert gate_is_open([reading(), reading(moved=True, edge=0.1)])


@pytest.mark.slow
def test_any_autoencoder_can_be_read(work: Path) -> None:
    clips = {7: judged_clips(TOY, 1_000_000_101, 5)}
    candidates: tuple[VideoAutoencoder, ...] = (load_autoencoder(TOY, work), small_vae())
    readings = [read_passes(each, clips, passes=(1, 2)) for each in candidates]
    for found in readings:
        assert len(found) == len(KINDS) * 2 * 2
    assert readings[0][0].psnr > readings[1][0].psnr + 10
    # The same cells again: the second pass changes next to nothing.
    once, _, twice, _ = readings[0][:4]
    assert (once.passes, twice.passes, once.still, twice.still) == (1, 2, True, True)
    assert abs(once.psnr - twice.psnr) < 0.5
    moved = read_passes(candidates[0], clips, passes=(2,), kinds=("colour",), moved=True)
    assert moved[0].psnr < twice.psnr
    lines = table(readings[0] + moved).splitlines()
    assert len(lines) == 2 + 2 * 2 * len(KINDS) + 2
    assert "colour, first frame, moved | 2 |" in lines[4] + lines[5] + lines[6] + lines[7]


@pytest.mark.slow
def test_the_gate_is_a_command(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import longvie_cli.training.tiny.gate as gate

    load_autoencoder(TOY, work).save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(gate, "TinyTraining", lambda: TOY)
    monkeypatch.setattr(gate, "WORLDS", gate.WORLDS[:1])
    monkeypatch.setattr(
        "sys.argv", ["gate", str(tmp_path / "vae"), "--frames", "5", "--json", str(tmp_path / "r")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr().out
    assert ("The gate opens." in out) == (ended.value.code == 0)
    assert '"borders"' in (tmp_path / "r").read_text()


@pytest.mark.slow
def test_the_next_autoencoder_is_let_through() -> None:
    """What the coming embedded model is made of, kept until a transformer is trained on it."""
    autoencoder = load_for_gate(preset_folder("tiny") / "vae")
    clips = {1_000_000_101: judged_clips(TinyTraining(), 1_000_000_101, 5)}
    readings = read_passes(autoencoder, clips, passes=(1, 10), kinds=("colour",))
    assert len(readings) == 4 and gate_is_open(readings)
