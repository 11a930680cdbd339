"""The LongVie 2 transformer: a Wan image-to-video DiT with two control branches and history.

What it adds to diffusers' `WanTransformer3DModel` (arXiv 2512.13604; behaviour of the release):

    latents, dense, sparse, history --- one shared patch embedding
    history tokens in front of the clip's tokens; rotary time counts through both
    dense and sparse tokens -> half-width streams with blocks of their own, time from 0
    after main block i: clip tokens += out_i(dense stream + sparse stream)
    history tokens dropped before the output layer

Letters in shapes: B batch, N tokens of the clip, D width, C control width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

# ModelMixin is unused here, but diffusers looks for it among this module's names when a pipeline
# folder names the class below.
from diffusers import ModelMixin, WanTransformer3DModel  # noqa: F401
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from longvie_cli.models.attention import LongVieAttnProcessor
from longvie_cli.models.embeddings import RotaryPositions, SinusoidalTimesteps


class LongVieTransformer3DModel(WanTransformer3DModel):
    """Predicts the velocity of a clip's latents under dense and sparse control, with history.

    Without controls and history it computes exactly what the `WanTransformer3DModel` of the same
    weights does. The control branches start as the identity: their input and output linears
    are zero.

    Args (beyond those of `WanTransformer3DModel`):
        num_control_layers: Main blocks followed by a control addition, counted from the first.
        control_num_attention_heads: Heads of a control block; the head size is the main one.
        control_ffn_dim: Feed-forward width of a control block.
        text_tokens: Text tokens of every prompt, padding included (512 in LongVie 2).
    """

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 36,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = 1280,
        added_kv_proj_dim: int | None = 5120,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        num_control_layers: int = 12,
        control_num_attention_heads: int = 20,
        control_ffn_dim: int = 6912,
        text_tokens: int = 512,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        if not 0 <= num_control_layers <= num_layers:
            raise ValueError(
                f"num_control_layers must be 0 to {num_layers}, not {num_control_layers}"
            )
        dim = num_attention_heads * attention_head_dim
        control_dim = control_num_attention_heads * attention_head_dim
        self.rope = RotaryPositions(attention_head_dim)
        self.condition_embedder.timesteps_proj = SinusoidalTimesteps(freq_dim)

        self.dense_proj_in = nn.Linear(dim, control_dim)
        self.sparse_proj_in = nn.Linear(dim, control_dim)
        self.control_text_proj = nn.Linear(dim, control_dim)
        self.control_time_proj = nn.Linear(dim, control_dim)
        self.dense_blocks, self.sparse_blocks = (
            nn.ModuleList(
                WanTransformerBlock(
                    control_dim,
                    control_ffn_dim,
                    control_num_attention_heads,
                    qk_norm,
                    cross_attn_norm,
                    eps,
                    None if added_kv_proj_dim is None else control_dim,
                )
                for _ in range(num_control_layers)
            )
            for _ in range(2)
        )
        self.control_proj_out = nn.ModuleList(
            nn.Linear(control_dim, dim) for _ in range(num_control_layers)
        )
        for linear in (self.dense_proj_in, self.sparse_proj_in, *self.control_proj_out):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.set_attn_processor(LongVieAttnProcessor(text_tokens))

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        dense: Tensor | None = None,
        sparse: Tensor | None = None,
        history: Tensor | None = None,
        depth_strength: float = 1.0,
        track_strength: float = 1.0,
        clip_frames: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Return the velocity [B, out_channels, frames, height, width] of the clip.

        Args:
            hidden_states: [B, in_channels, frames, height, width]: noisy latents, mask and image
                condition latents, joined on channels.
            timestep: [B] or [1], 0..1000. Its type is that of the sinusoidal features.
            encoder_hidden_states: [B, text_tokens, text_dim], zero rows past the prompt's end.
            encoder_hidden_states_image: [B, image tokens, image_dim].
            dense: Depth control, shaped as `hidden_states`; None or scale 0 skips its branch.
            sparse: Track control, likewise.
            history: [B, in_channels, history frames, height, width], oldest frame first.
            depth_strength: Strength of the dense control, 0 or more; 1 as trained.
            track_strength: Strength of the sparse control.
            clip_frames: [frames], which latent frames of a clip are given, to train on a part of
                it; those from 0 on where None.
            return_dict: False returns a tuple.
            attention_kwargs: `scale` sets the strength of loaded LoRA adapters.
        """
        if encoder_hidden_states.shape[1] != self.config.text_tokens:
            raise ValueError(
                f"encoder_hidden_states has {encoder_hidden_states.shape[1]} text tokens, "
                f"but this model reads exactly {self.config.text_tokens}; pad with zero rows"
            )
        # 1. Tokens: history in front, positions counting through
        clip_tokens, grid = self._tokens(hidden_states)
        tokens, num_history_tokens = clip_tokens, 0
        rotary_emb = clip_rotary_emb = self.rope(grid, tokens.device, clip_frames)
        if history is not None:
            history_tokens, (history_frames, *_) = self._tokens(history)
            tokens = torch.cat((history_tokens, clip_tokens), dim=1)
            num_history_tokens = history_tokens.shape[1]
            frames = None
            if clip_frames is not None:
                frames = torch.cat((torch.arange(history_frames), history_frames + clip_frames))
            rotary_emb = self.rope((history_frames + grid[0], *grid[1:]), tokens.device, frames)

        # 2. Time, text and image
        temb, timestep_proj, context, image_context = self.condition_embedder(
            timestep, encoder_hidden_states, encoder_hidden_states_image
        )
        timestep_proj = timestep_proj.unflatten(1, (6, -1))
        if image_context is not None:
            context = torch.cat((image_context, context), dim=1)

        # 3. The active control streams [B, N, C], and what their blocks are told
        scales = {"dense": depth_strength, "sparse": track_strength}
        streams = self._control_streams({"dense": dense, "sparse": sparse}, scales)
        if streams:
            control_context = self.control_text_proj(context)
            control_timestep_proj = self.control_time_proj(timestep_proj)

        # 4. Blocks; the first ones are each followed by their control addition
        for index, block in enumerate(self.blocks):
            tokens = self._run(block, tokens, context, timestep_proj, rotary_emb)
            if streams and index < self.config.num_control_layers:
                for name, blocks in (("dense", self.dense_blocks), ("sparse", self.sparse_blocks)):
                    if name in streams:
                        streams[name] = self._run(
                            blocks[index],
                            streams[name],
                            control_context,
                            control_timestep_proj,
                            clip_rotary_emb,
                        )
                addition = self._control_addition(index, streams, scales)
                # Only the clip is steered: nothing is added to the history tokens.
                tokens = tokens + F.pad(addition, (0, 0, num_history_tokens, 0))

        # 5. Output layer on the clip's tokens alone
        shift, scale = (self.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        tokens = tokens[:, num_history_tokens:]
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        velocity = self._unpatchify(self.proj_out(tokens), grid)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def _tokens(self, latents: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Return tokens [B, N, D], frame-major, then row, then column, and the token grid."""
        patches = self.patch_embedding(latents)
        frames, rows, columns = patches.shape[2:]
        # Under autocast the embedding is bfloat16; the residual stream keeps the weights' type.
        tokens = patches.flatten(2).transpose(1, 2).to(self.patch_embedding.weight.dtype)
        return tokens.contiguous(), (frames, rows, columns)

    def _unpatchify(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Return [B, channel, frames, height, width] from [B, N, patch * channel]."""
        patch = self.config.patch_size
        patches = patches.reshape(-1, *grid, *patch, self.config.out_channels)
        latents = patches.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return latents.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *args)
        return block(*args)

    def _control_streams(
        self, controls: dict[str, Tensor | None], scales: dict[str, float]
    ) -> dict[str, Tensor]:
        """Return the tokens [B, N, C] of each control that is given and not scaled to nothing."""
        proj_in = {"dense": self.dense_proj_in, "sparse": self.sparse_proj_in}
        streams = {}
        for name, latents in controls.items():
            if latents is not None and scales[name] > 0:
                tokens, _ = self._tokens(latents)
                streams[name] = proj_in[name](tokens).to(tokens.dtype)
        return streams

    def _control_addition(
        self, index: int, streams: dict[str, Tensor], scales: dict[str, float]
    ) -> Tensor:
        """Return what is added to the clip's tokens [B, N, D] after main block `index`."""
        # Half of the output bias belongs to each branch, so that the addition is linear in both
        # scales: the release's sum at (1, 1), nothing at (0, 0).
        strength = sum(scales[name] for name in streams) / 2
        combined = sum(stream * (scales[name] / strength) for name, stream in streams.items())
        return self.control_proj_out[index](combined) * strength
