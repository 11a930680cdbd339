"""The settings of the embedded model's training: sizes, optimisation, seeds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from longvie_cli.timeline import ClipGeometry


class TinyTraining(BaseModel):
    """Everything that decides what `python -m longvie_cli.training.tiny` makes.

    Sizes are in pixels, frames or tokens; `*_steps` are optimiser steps. The values are stored in
    `TRAINING.json` beside the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 20261123

    # Geometry of a clip. 192x112 is 24x14 latents a frame at the autoencoder's 8x8x4, and 12x7
    # tokens in patches of 2x2.
    height: int = 112
    width: int = 192
    num_frames: int = 33
    fps: int = 16
    history_frames: int = 8
    track_columns: int = 14
    track_rows: int = 14

    # Flights: one geometry, one camera path, seen under `looks_per_flight` looks.
    num_flights: int = 600
    looks_per_flight: int = 4

    # Share of the flights whose controls are those that the tool extracts from one of their looks.
    extracted_share: float = 0.5

    # Sketcher: frames a flight it learns from, and examples a step, quarters of frames.
    sketch_frames: int = 6
    sketch_steps: int = 1500
    sketch_batch: int = 96
    sketch_learning_rate: float = 1.5e-3

    # Autoencoder. `code_shares` are those of the kinds of pictures that the code is fitted to, in
    # their second moments: track boxes have so much more contrast that a hundredth counts.
    latent_channels: int = 48
    code_shares: dict[str, float] = {"video": 0.94, "depth": 0.05, "tracks": 0.01}
    code_batches: int = 100
    code_edge_weight: float = 1.0
    # Of each latent channel's deviation, this power is taken off; 1 would whiten.
    code_whitening: float = 0.5
    autoencoder_width: int = 192
    autoencoder_layers: int = 4
    autoencoder_batch: int = 4
    autoencoder_crop: int = 96
    latent_noise: float = 0.02
    decoder_steps: int = 12000
    decoder_passes: int = 2
    decoder_learning_rate: float = 1e-3

    # Text encoder: bytes into a small UMT5.
    max_text_tokens: int = 160
    text_width: int = 192
    text_layers: int = 4
    text_steps: int = 900
    text_batch: int = 32

    # Image encoder: a small CLIP vision tower.
    image_size: int = 64
    image_patch: int = 16
    image_width: int = 128
    image_layers: int = 3

    # Transformer.
    token_patch: int = 2
    num_layers: int = 6
    num_attention_heads: int = 5
    attention_head_dim: int = 64
    ffn_dim: int = 1024
    num_control_layers: int = 3
    control_num_attention_heads: int = 2
    control_ffn_dim: int = 512
    flow_shift: float = 3.0
    still_steps: int = 150
    still_batch: int = 16
    clip_steps: int = 1000
    clip_batch: int = 4
    transformer_learning_rate: float = 1e-3
    # What the transformer sees of the first frame: the preset's `image_condition`. Of the clips
    # with an image so many are shown it carried, the rest as `first_frame`, which is what a
    # generation without controls has (0.92 in the trials of docs/experiments.md).
    image_condition: Literal["first_frame", "carried"] = "carried"
    carried_share: float = 0.92
    # Weight in the loss of latents that the sampler keeps of the carried frames anyway.
    known_weight: float = 0.1
    # Share of the loss that weighs each latent channel as its error shows in the picture, the rest
    # weighs all alike. Alone the latter spends itself on detail that nothing determines, and the
    # colours of neighbouring tokens fall apart (docs/experiments.md).
    picture_weight: float = 0.3
    # Steps of the sampler whose noise levels training dwells on, and guidance it samples with:
    # so many of the examples have one of these levels, drawn by `level_weights` (first step first),
    # the others any. The trials of docs/experiments.md chose these.
    num_inference_steps: int = 4
    guidance_scale: float = 1.0
    level_share: float = 0.8
    level_weights: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    # Latent frames of a clip trained on besides the first, in a row from anywhere; until this share
    # of the steps, whole clips after it. 0: whole clips, after a first quarter of half ones. On the
    # CPU 4 of 9 take 0.31 s where 9 take 0.79 (docs/experiments.md).
    partial_frames: int = 4
    partial_until: float = 0.9
    # Autocast of training on the CPU: without AMX bfloat16 multiplies 2.2 to 4 times as fast as
    # float32 (docs/experiments.md); where it is emulated, turn it off.
    autocast: bool = True
    # Blocks compiled by torch.compile: steps of one core take 0.65 of the time, after a minute of
    # compiling (docs/experiments.md); wants a C++ compiler.
    compiled: bool = False
    ema_decay: float = 0.999

    # Depth estimator. Of its examples so many are made scenes, not landscapes.
    num_scenes: int = 2000
    scene_share: float = 0.5
    depth_steps: int = 1200
    depth_batch: int = 8

    @property
    def geometry(self) -> ClipGeometry:
        """The clip length and fps of the preset."""
        return ClipGeometry(self.num_frames, self.fps)

    @property
    def sequence_frames(self) -> int:
        """Frames rendered for one example: a history tail and a clip that share one frame."""
        return self.history_frames + self.num_frames - 1
