"""The recipe of the embedded model at a size for tests."""

from __future__ import annotations

from longvie_cli.training.tiny.config import TinyTraining

TOY = TinyTraining(
    height=48,
    width=64,
    num_frames=5,
    history_frames=5,
    track_columns=4,
    track_rows=4,
    num_flights=2,
    looks_per_flight=2,
    latent_channels=16,
    code_batches=1,
    autoencoder_width=32,
    autoencoder_layers=1,
    autoencoder_batch=1,
    autoencoder_crop=32,
    text_width=64,
    text_layers=1,
    text_steps=2,
    text_batch=2,
    image_width=64,
    num_layers=2,
    num_attention_heads=2,
    ffn_dim=64,
    num_control_layers=1,
    control_num_attention_heads=1,
    control_ffn_dim=64,
    still_steps=2,
    still_batch=2,
    clip_steps=3,
    clip_batch=1,
    decoder_steps=2,
    num_scenes=2,
    depth_steps=1,
    depth_batch=1,
    image_condition="first_frame",
    level_share=0.0,
    partial_frames=0,
)
