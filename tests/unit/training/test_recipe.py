"""The whole recipe at toy size: from worlds to a preset folder that the engine loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_recipe import TOY

from longvie_cli.engine.loader import load_pipeline
from longvie_cli.engine.memory import models_of_folder, prepare_models, trace_activations
from longvie_cli.models.block_autoencoder import CODE
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Sampling
from longvie_cli.training.checkpoints import finished_checkpoints
from longvie_cli.training.loop import averaged_weights
from longvie_cli.training.tiny.adopt import adopt_preset, adopted_stages
from longvie_cli.training.tiny.autoencoder import (
    coded_autoencoder,
    fit_autoencoder_code,
    load_autoencoder,
    train_decoder,
)
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.depth import train_depth_estimator
from longvie_cli.training.tiny.export import export_preset
from longvie_cli.training.tiny.extracted import extract_library
from longvie_cli.training.tiny.flights import (
    FlightLibrary,
    depth_picture,
    render_flight,
    render_library,
)
from longvie_cli.training.tiny.latents import LatentLibrary, encode_library
from longvie_cli.training.tiny.prompts import (
    PALETTE_WORDS,
    TIME_WORDS,
    WEATHER_WORDS,
    look_labels,
    paraphrase,
)
from longvie_cli.training.tiny.scenes import render_scenes
from longvie_cli.training.tiny.sketches import load_sketcher, train_sketcher, write_library
from longvie_cli.training.tiny.text import (
    build_text_encoder,
    load_text_encoder,
    train_text_encoder,
)
from longvie_cli.training.tiny.transformer import (
    TransformerTraining,
    build_transformer,
    channel_weights,
    train_transformer,
    weighted_error,
)
from longvie_cli.worlds import EVALUATION_SEED_START
from longvie_cli.worlds.looks import PALETTES, TIMES_OF_DAY, WEATHERS, random_look
from small_models import small_vae


@pytest.mark.slow
def test_every_stage_runs_and_the_exported_preset_makes_a_clip(tmp_path: Path) -> None:
    render_library(TOY, tmp_path, worker=0, num_workers=1)
    fit_autoencoder_code(TOY, tmp_path)
    autoencoder = load_autoencoder(TOY, tmp_path)
    encode_library(TOY, tmp_path, worker=0, num_workers=1)
    library = LatentLibrary.load(tmp_path / "latents")
    assert len(library.captions) == TOY.num_flights * TOY.looks_per_flight
    assert library.looks["video"].shape[1:] == (16, 2, 6, 8)

    train_text_encoder(TOY, tmp_path)
    training = TransformerTraining(TOY, library, autoencoder, build_text_encoder(TOY))
    before = {key: value.clone() for key, value in training.transformer.state_dict().items()}
    train_transformer(TOY, training, tmp_path, stage="still")
    train_transformer(TOY, training, tmp_path, stage="clip")
    after = training.transformer.state_dict()
    for name in ("blocks.0.attn1.to_q.weight", "control_proj_out.0.weight"):
        assert not torch.equal(before[name], after[name]), f"{name} was not trained"
    render_scenes(TOY, tmp_path, worker=0, num_workers=1)
    train_depth_estimator(TOY, tmp_path)
    train_decoder(TOY, tmp_path)

    out = tmp_path / "tiny"
    export_preset(TOY, tmp_path, out)
    record = json.loads((out / "TRAINING.json").read_text())
    assert record["settings"]["num_flights"] == TOY.num_flights
    preset = Preset.model_validate_json((out / "preset.json").read_bytes())
    models = prepare_models(models_of_folder(out), Sampling.of(preset))
    assert trace_activations(models, preset).decode > 5 * 48 * 64 * 3 * 4
    pipeline = load_pipeline(preset, weights=out, device="cpu", dtype="float32")
    control = np.zeros((5, 48, 64, 3), np.uint8)
    frames = pipeline(
        "snow", control[0], control, control, history=control, num_inference_steps=1
    ).frames
    assert frames.shape == (5, 48, 64, 3)
    assert frames.dtype == np.uint8

    _goes_on_from_the_preset(tmp_path, out)


def _goes_on_from_the_preset(folder: Path, preset: Path) -> None:
    again = folder / "again"
    again.mkdir()
    (again / "flights").symlink_to(folder / "flights")
    adopt_preset(TOY, preset, again)
    assert adopted_stages(again) == ("code", "text", "still")
    shipped = load_file(preset / "vae" / "diffusion_pytorch_model.safetensors")
    adopted = load_autoencoder(TOY, again)
    assert adopted.config.latents_mean == load_autoencoder(TOY, folder).config.latents_mean
    for name, value in adopted.state_dict().items():
        assert torch.equal(value, shipped[name].float())
    # Rounded, the code would no longer be a projection.
    for name in CODE:
        assert shipped[name].dtype == torch.float32
        assert torch.equal(shipped[name], coded_autoencoder(TOY, folder).get_parameter(name))

    train_decoder(TOY, again)
    trained = load_autoencoder(TOY, again).state_dict()
    for name in CODE:
        assert torch.equal(trained[name], adopted.get_parameter(name)), f"{name} was trained"
    assert not torch.equal(trained["proj_out_after.weight"], adopted.proj_out_after.weight)
    export_preset(TOY, again, folder / "second")
    record = json.loads((folder / "second" / "TRAINING.json").read_text())
    assert record["adopted"]["by"]["settings"]["num_flights"] == TOY.num_flights


def test_a_preset_with_another_autoencoder_gives_no_code(tmp_path: Path) -> None:
    small_vae().save_config(tmp_path / "vae")
    with pytest.raises(ValueError, match="no block code"):
        adopt_preset(TOY, tmp_path, tmp_path)


def test_the_transformer_of_the_recipe_carries_every_latent_channel() -> None:
    config = TinyTraining()
    embedding = build_transformer(config).patch_embedding.weight.flatten(1)
    carried = embedding[:, : 4 * config.latent_channels]
    # Orthonormal columns: the noise comes through unchanged.
    assert torch.allclose(carried.T @ carried, torch.eye(carried.shape[1]), atol=1e-5)
    assert embedding.isfinite().all()


def test_what_is_known_counts_less_and_zero_trust_is_the_plain_error() -> None:
    velocity, target = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    plain = torch.nn.functional.mse_loss(velocity, target)
    alike = torch.ones(3, 1, 1, 1)
    everywhere = torch.ones(2, 1, 4, 5, 6)
    assert torch.allclose(weighted_error(velocity, target, alike, torch.zeros(1), 0.1), plain)
    assert torch.allclose(weighted_error(velocity, target, alike, everywhere, 0.1), plain)
    trust = torch.zeros(2, 1, 4, 5, 6)
    trust[..., :3] = 1
    unknown = torch.nn.functional.mse_loss(velocity[..., 3:], target[..., 3:])
    assert torch.allclose(weighted_error(velocity, target, alike, trust, 0.0), unknown)
    known = torch.nn.functional.mse_loss(velocity[..., :3], target[..., :3])
    expected = (0.1 * known + unknown) / 1.1
    assert torch.allclose(weighted_error(velocity, target, alike, trust, 0.1), expected)


def test_channels_count_as_their_errors_show_in_the_picture() -> None:
    # Decoding multiplies a channel by its deviation, so an error shows by the square of it.
    std = [3.0, 1.0, 0.5]
    assert channel_weights(std, 0.0).flatten().tolist() == [1, 1, 1]
    shown = channel_weights(std, 1.0).flatten()
    assert torch.allclose(shown, 3 * torch.tensor([9, 1, 0.25]) / 10.25)
    velocity, target = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    picture = ((velocity - target) * torch.tensor(std).view(3, 1, 1, 1)).square().mean()
    error = weighted_error(velocity, target, channel_weights(std, 1.0), torch.zeros(1), 1.0)
    assert torch.allclose(error, picture / (10.25 / 3))


def test_reserved_seeds_are_never_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reserved"):
        render_flight(TOY, EVALUATION_SEED_START, tmp_path / "flight.safetensors")


def test_depth_pictures_are_dark_where_it_is_near() -> None:
    disparity = np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(1, 16, 16)
    picture = depth_picture(disparity, np.random.default_rng(0))
    assert picture.dtype == np.uint8
    assert picture[0, 0, 0] > picture[0, -1, -1]
    assert bool((np.diff(picture.reshape(-1).astype(int)) <= 0).all())


def test_paraphrases_name_what_their_labels_say() -> None:
    rng = np.random.default_rng(1)
    for seed in range(200):
        look = random_look(seed)
        text, named = paraphrase(look, rng)
        labels = look_labels(look, named)
        for word, shown, table in (
            (look.palette, named[0], PALETTE_WORDS),
            (look.time_of_day, named[1], TIME_WORDS),
            (look.weather, named[2], WEATHER_WORDS),
        ):
            if shown:
                assert any(phrase in text.lower() for phrase in table[word])
        assert [label > 0 for label in labels] == list(named)


def test_paraphrases_know_every_look() -> None:
    assert set(PALETTE_WORDS) == set(PALETTES)
    assert set(TIME_WORDS) == set(TIMES_OF_DAY)
    assert set(WEATHER_WORDS) == set(WEATHERS)


@pytest.mark.slow
def test_the_library_reads_flights_of_its_own_size(tmp_path: Path) -> None:
    render_library(TOY, tmp_path, worker=0, num_workers=1)
    library = FlightLibrary(tmp_path / "flights", TOY)
    example = library.example(library.paths()[0], 1, np.random.default_rng(0))
    assert example.rgb.shape == (TOY.sequence_frames, 48, 64, 3)
    assert example.depth.shape == (TOY.sequence_frames, 48, 64)
    assert example.tracks.shape == (TOY.num_frames, 48, 64, 3)
    assert example.tracks.any()
    assert example.caption


CARRIED = TOY.model_copy(
    update={
        "num_frames": 9,
        "image_condition": "carried",
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "level_share": 0.8,
        "level_weights": (0.4, 0.2, 0.2, 0.2),
        "partial_frames": 1,
        "clip_steps": 30,
        "clip_batch": 2,
        "transformer_learning_rate": 3e-3,
        "sketch_frames": 2,
        "sketch_steps": 40,
        "sketch_batch": 4,
        "sketch_learning_rate": 3e-3,
    }
)


def _carried_training(folder: Path) -> TransformerTraining:
    torch.manual_seed(1)
    return TransformerTraining(
        CARRIED,
        LatentLibrary.load(folder / "latents"),
        load_autoencoder(CARRIED, folder),
        build_text_encoder(CARRIED),
    )


@pytest.mark.slow
def test_training_on_carried_conditions_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    render_library(CARRIED, tmp_path, worker=0, num_workers=1)
    fit_autoencoder_code(CARRIED, tmp_path)
    load_autoencoder(CARRIED, tmp_path)
    train_depth_estimator(CARRIED.model_copy(update={"scene_share": 0.0}), tmp_path)
    extract_library(CARRIED, tmp_path, worker=0, num_workers=1)
    assert 0 < len(list((tmp_path / "extracted").iterdir())) < CARRIED.num_flights
    write_library(CARRIED, tmp_path, worker=0, num_workers=1)
    train_text_encoder(CARRIED, tmp_path)
    train_sketcher(CARRIED, tmp_path, load_text_encoder(CARRIED, tmp_path))
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "sketch" / "losses.jsonl").read_text().splitlines()
    ]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    encode_library(CARRIED, tmp_path, worker=0, num_workers=1)
    library = LatentLibrary.load(tmp_path / "latents")
    assert library.looks["carried"].shape == library.looks["video"].shape
    assert library.flights["confidence"].shape[1:] == (4, *library.looks["video"].shape[2:])
    assert bool((library.flights["confidence"][:, :, 0] == 1).all())
    # The first latent is the first frame either way; later ones are nearer to the truth.
    video, image = library.looks["video"].float(), library.looks["image"].float()
    carried = library.looks["carried"].float()
    assert torch.allclose(carried[:, :, 0], image[:, :, 0], atol=0.02)
    assert (carried - video)[:, :, 1:].square().mean() < (image - video)[:, :, 1:].square().mean()

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        train_transformer(CARRIED, _carried_training(tmp_path), folder, stage="still")
    train_transformer(CARRIED, _carried_training(tmp_path), whole, stage="clip")
    for _ in range(2):
        train_transformer(
            CARRIED, _carried_training(tmp_path), broken, stage="clip", stop_after_seconds=0.5
        )
    train_transformer(CARRIED, _carried_training(tmp_path), broken, stage="clip")
    one, other = (
        averaged_weights(finished_checkpoints(path / "clip" / "checkpoints")[-1])
        for path in (whole, broken)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())

    def error(training: TransformerTraining) -> float:
        with torch.no_grad():
            losses = [
                training.compute_loss(
                    torch.Generator().manual_seed(seed), frames=torch.arange(3), batch=4
                )[0]
                for seed in range(6)
            ]
        return float(torch.stack(losses).mean())

    trained = _carried_training(tmp_path)
    before = error(trained)
    train_transformer(CARRIED, trained, whole, stage="clip")
    assert error(trained) < 0.97 * before

    (whole / "sketch").symlink_to(tmp_path / "sketch")
    export_preset(CARRIED, whole, tmp_path / "tiny")
    preset = Preset.model_validate_json((tmp_path / "tiny" / "preset.json").read_bytes())
    assert (preset.image_condition, preset.num_inference_steps) == ("carried", 4)
    pipeline = load_pipeline(preset, weights=tmp_path / "tiny", device="cpu", dtype="float32")
    assert pipeline.config.image_condition == "carried"
    assert list(pipeline.config.track_grid) == [4, 4]
    trained, shipped = load_sketcher(CARRIED, tmp_path), pipeline.sketcher
    assert shipped is not None
    for name, value in trained.state_dict().items():
        assert torch.equal(value.bfloat16().float(), shipped.state_dict()[name]), name
    adopt_preset(CARRIED, tmp_path / "tiny", tmp_path / "again", ("code", "sketch"))
    assert adopted_stages(tmp_path / "again") == ("code", "sketch")
    for name, value in load_sketcher(CARRIED, tmp_path / "again").state_dict().items():
        assert torch.equal(value, shipped.state_dict()[name])


def test_latents_without_carried_frames_are_refused() -> None:
    library = LatentLibrary({}, {}, torch.empty(0), torch.empty(0), [], [])
    with pytest.raises(ValueError, match="no carried frames"):
        TransformerTraining(CARRIED, library, None, build_text_encoder(CARRIED))  # type: ignore[arg-type]


def test_noise_levels_are_those_of_the_sampler() -> None:
    training = object.__new__(TransformerTraining)
    training.config = CARRIED.model_copy(update={"level_share": 1.0})
    levels = training._noise_levels(400, torch.Generator().manual_seed(0))
    assert {round(float(level), 6) for level in levels} == {1.0, 0.9, 0.75, 0.5}
    training.config = CARRIED
    some = training._noise_levels(400, torch.Generator().manual_seed(0))
    share = sum(round(float(level), 6) in (1.0, 0.9, 0.75, 0.5) for level in some) / 400
    assert 0.7 < share < 0.9
