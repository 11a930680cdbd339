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

import math
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

# ModelMixin is unused here, but diffusers looks for it among this module's names when a pipeline
# folder names the class below.
from diffusers import ModelMixin, WanTransformer3DModel  # noqa: F401
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from longvie_cli.kernels.kernel_set import KernelSet, RotaryTables
from longvie_cli.models.attention import (
    CrossContext,
    LongVieAttnProcessor,
    cross_keys,
    padding_as_few_tokens,
)
from longvie_cli.models.block import LongVieBlock
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.models.embeddings import RotaryPositions, SinusoidalTimesteps
from longvie_cli.parallel.ulysses import SequenceParallel, TokenShares


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

    Attributes:
        kernels: Computes what lies between the matrix products; set by `use_kernels`.
        parallel: The processes that share an evaluation; set by `use_parallel`.
        compiled: Whether the blocks are, see `engine.compilation`: with a clip's context they are
            then given tensors alone, and prompts keep all their padding, so that all are as long.
    """

    _no_split_modules: ClassVar[list[str]] = ["LongVieBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["LongVieBlock"]
    # That of diffusers' Wan model knows neither history nor control streams: see `use_parallel`.
    _cp_plan = None

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
        self.blocks: nn.ModuleList = nn.ModuleList(map(LongVieBlock.of, self.blocks))
        self.rope = RotaryPositions(attention_head_dim)
        self.condition_embedder.timesteps_proj = SinusoidalTimesteps(freq_dim)

        self.dense_proj_in = nn.Linear(dim, control_dim)
        self.sparse_proj_in = nn.Linear(dim, control_dim)
        self.control_text_proj = nn.Linear(dim, control_dim)
        self.control_time_proj = nn.Linear(dim, control_dim)
        self.dense_blocks, self.sparse_blocks = (
            nn.ModuleList(
                LongVieBlock(
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
        self.set_attn_processor(LongVieAttnProcessor())
        self.kernels = KernelSet()
        self.parallel: SequenceParallel | None = None
        self.compiled = False

    def use_kernels(self, kernels: KernelSet) -> None:
        """Make all blocks compute by a kernel set."""
        self.kernels = kernels
        for block in self._all_blocks():
            block.kernels = kernels

    def use_parallel(self, parallel: SequenceParallel) -> None:
        """Share every evaluation with other processes, which are given the same arguments.

        Each returns the whole velocity. Not for training.
        """
        self.parallel = parallel

    def pack_projections(self) -> None:
        """Put the weights of each self-attention's queries, keys and values into one memory.

        With a clip's context they are one matrix product, and so need not be joined for it. Of
        use where the weights stay on their device; nothing is computed differently.
        """
        for block in self._all_blocks():
            block.pack()

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
        clip: ClipContext | None = None,
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
            clip: Keeps, over the evaluations of one clip, what they have in common; the result is
                the same up to rounding. Not for training, and for one strength of adapters.
        """
        if encoder_hidden_states.shape[1] != self.config.text_tokens:
            raise ValueError(
                f"encoder_hidden_states has {encoder_hidden_states.shape[1]} text tokens, "
                f"but this model reads exactly {self.config.text_tokens}; pad with zero rows"
            )
        assert clip is None or not torch.is_grad_enabled(), "what is kept has no gradients"
        assert self.parallel is None or not torch.is_grad_enabled(), "an exchange has no gradients"
        kept = ClipContext() if clip is None else clip
        # 1. Tokens: history in front, positions counting through. Of several processes each goes on
        # with its own
        tokens, grid = kept.share(
            "tokens", (hidden_states, history), lambda: self._joined(hidden_states, history, kept)
        )
        history_frames = self._token_frames(history)
        shares, clip_shares = self._shares(history_frames, grid)
        num_clip_tokens = math.prod(grid) if shares is None else shares.own_clip
        num_history_tokens = tokens.shape[1] - num_clip_tokens
        rotary_emb, clip_rotary_emb = kept.keep(
            ("rotary", grid, history_frames),
            (clip_frames,),
            lambda: self._positions(grid, history_frames, tokens.device, clip_frames, shares),
        )

        # 2. Time, text and image, and the active control streams [B, N, C]
        temb, timestep_proj = kept.share(
            "time", (timestep,), lambda: self._time(timestep, encoder_hidden_states.dtype)
        )
        context = kept.keep(
            "context",
            (encoder_hidden_states, encoder_hidden_states_image),
            lambda: self._context(
                encoder_hidden_states,
                encoder_hidden_states_image,
                kept,
                fewer=clip is not None and not self.compiled,
            ),
            versions=kept.evaluations,
        )
        scales = {"dense": depth_strength, "sparse": track_strength}
        streams = self._control_streams({"dense": dense, "sparse": sparse}, scales, kept)
        if streams:
            control_context = kept.keep(
                "control context",
                (context.text, context.image),
                lambda: self._control_context(context, kept),
                versions=kept.evaluations,
            )
            control_timestep_proj = kept.share(
                "control time", (timestep_proj,), lambda: self.control_time_proj(timestep_proj)
            )

        # 3. Blocks; the first ones are each followed by their control addition
        addition = None
        for index, block in enumerate(self.blocks):
            is_last = index + 1 == len(self.blocks)
            tokens = self._run(
                block,
                tokens,
                context,
                timestep_proj,
                rotary_emb,
                addend=addition,
                addend_start=num_history_tokens,
                # Behind the last block nothing reads the history tokens.
                query_start=num_history_tokens if clip is not None and is_last else 0,
                clip=clip,
                is_first=index == 0,
                shares=shares,
            )
            addition = None
            if streams and index < self.config.num_control_layers:
                for name, blocks in (("dense", self.dense_blocks), ("sparse", self.sparse_blocks)):
                    if name in streams:
                        streams[name] = self._run(
                            blocks[index],
                            streams[name],
                            control_context,
                            control_timestep_proj,
                            clip_rotary_emb,
                            clip=clip,
                            is_first=index == 0,
                            shares=clip_shares,
                        )
                addition = self._control_addition(index, streams, scales)
                if clip is None or is_last:
                    # Only the clip is steered: nothing is added to the history tokens. With a
                    # clip's context the next block adds it, where it reads the tokens anyway.
                    unsteered = tokens.shape[1] - num_clip_tokens
                    tokens = tokens + F.pad(addition, (0, 0, unsteered, 0))
                    addition = None

        # 4. Output layer on the clip's tokens alone
        shift, scale = (self.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        tokens = tokens[:, -num_clip_tokens:]
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        velocity = self._unpatchify(self.proj_out(tokens), grid, shares)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def _all_blocks(self) -> Iterator[LongVieBlock]:
        blocks: Any = (self.blocks, self.dense_blocks, self.sparse_blocks)
        return chain(*blocks)

    def _joined(
        self, hidden_states: Tensor, history: Tensor | None, kept: ClipContext
    ) -> tuple[Tensor, tuple[int, int, int]]:
        """Return the tokens [B, N, D] of history and clip, and the token grid of the clip."""
        tokens, grid = self._tokens(hidden_states)
        tokens = self._own(tokens)
        if history is None:
            return tokens, grid
        history_tokens = kept.keep(
            "history", (history,), lambda: self._own(self._tokens(history)[0])
        )
        return torch.cat((history_tokens, tokens), dim=1), grid

    def _positions(
        self,
        grid: tuple[int, int, int],
        history_frames: int,
        device: torch.device,
        clip_frames: Tensor | None,
        shares: TokenShares | None,
    ) -> tuple[RotaryTables, RotaryTables]:
        """Return the rotary tables of history and clip, and of the clip as controls count it."""
        cos, sin = self.rope(grid, device, clip_frames)
        clip_tables = self._own(cos), self._own(sin)
        if not history_frames:
            return clip_tables, clip_tables
        num_frames, rows, columns = grid
        frames = None
        if clip_frames is not None:
            frames = torch.cat((torch.arange(history_frames), history_frames + clip_frames))
        cos, sin = self.rope((history_frames + num_frames, rows, columns), device, frames)
        tables = (cos, sin) if shares is None else (shares.own(cos), shares.own(sin))
        return tables, clip_tables

    def _time(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, D] and the modulations [B, 6, D] of timesteps [B]."""
        embedder = self.condition_embedder
        features = embedder.timesteps_proj(timestep)
        stored = next(embedder.time_embedder.parameters()).dtype
        temb = embedder.time_embedder(features.to(stored)).to(dtype)
        return temb, embedder.time_proj(embedder.act_fn(temb)).unflatten(1, (6, -1))

    def _context(
        self, prompt_embeds: Tensor, image_embeds: Tensor | None, kept: ClipContext, *, fewer: bool
    ) -> CrossContext:
        """Return what the main blocks read; with `fewer` padding is not repeated."""
        embedder, bias = self.condition_embedder, None
        if fewer:
            prompt_embeds, bias = padding_as_few_tokens(prompt_embeds)
        text = embedder.text_embedder(prompt_embeds)
        if image_embeds is None:
            return CrossContext(text, text_bias=bias)
        image = kept.keep("image", (image_embeds,), lambda: embedder.image_embedder(image_embeds))
        if self.config.added_kv_proj_dim is not None:
            return CrossContext(text, image, bias)
        # A model without projections of its own for the image reads it as further text.
        if bias is not None:
            bias = F.pad(bias, (image.shape[1], 0))
        return CrossContext(torch.cat((image, text), dim=1), text_bias=bias)

    def _control_context(self, context: CrossContext, kept: ClipContext) -> CrossContext:
        """Return what the control blocks read."""
        text, image = context.text, context.image
        if image is None:
            return CrossContext(self.control_text_proj(text), text_bias=context.text_bias)
        joined = self.control_text_proj(torch.cat((image, text), dim=1))
        projected, text = joined.split((image.shape[1], text.shape[1]), dim=1)
        # One tensor for all prompts, so that its keys and values are those of all.
        image = kept.keep("control image", (image,), lambda: projected)
        return CrossContext(text, image, context.text_bias)

    def _tokens(self, latents: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Return tokens [B, N, D], frame-major, then row, then column, and the token grid."""
        patches = self.patch_embedding(latents)
        frames, rows, columns = patches.shape[2:]
        # Under autocast the embedding is bfloat16; the residual stream keeps the weights' type.
        tokens = patches.flatten(2).transpose(1, 2).to(self.patch_embedding.weight.dtype)
        return tokens.contiguous(), (frames, rows, columns)

    def _token_frames(self, latents: Tensor | None) -> int:
        return 0 if latents is None else latents.shape[2] // self.config.patch_size[0]

    def _shares(
        self, history_frames: int, grid: tuple[int, int, int]
    ) -> tuple[TokenShares | None, TokenShares | None]:
        """Return how the tokens of history and clip, and those of a control, lie over processes."""
        if self.parallel is None:
            return None, None
        num_frames, rows, columns = grid
        frame = rows * columns
        clip = num_frames * frame
        return self.parallel.shares(history_frames * frame, clip), self.parallel.shares(0, clip)

    def _own(self, tokens: Tensor) -> Tensor:
        """Return this process's stretch of [B, N, ..]; all of it where it works alone."""
        return tokens if self.parallel is None else self.parallel.own(tokens)

    def _unpatchify(
        self, patches: Tensor, grid: tuple[int, int, int], shares: TokenShares | None
    ) -> Tensor:
        """Return [B, channel, frames, height, width] of this process's [B, N, patch * channel]."""
        if shares is not None:
            patches = shares.whole_clip(patches)
        patch = self.config.patch_size
        patches = patches.reshape(-1, *grid, *patch, self.config.out_channels)
        latents = patches.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return latents.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _run(
        self,
        block: Any,
        tokens: Tensor,
        context: CrossContext,
        temb: Tensor,
        rotary_emb: RotaryTables,
        *,
        clip: ClipContext | None,
        is_first: bool,
        **options: Any,
    ) -> Tensor:
        options["as_one"] = clip is not None
        if clip is not None and self.compiled:
            # What is kept is looked up here: in a graph nothing can be.
            keys = cross_keys(block.attn2, context, clip)
            if is_first and clip.evaluations > 1:
                tokens, update = clip.share(
                    (block, "self-attention"),
                    (tokens, temb),
                    lambda: block.attend(tokens, temb, rotary_emb, **options),
                )
                return block(tokens, keys, temb, rotary_emb, attended=(tokens, update))
            return block(tokens, keys, temb, rotary_emb, **options)
        options |= {"clip": clip, "is_first": is_first}
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(
                partial(block, **options), tokens, context, temb, rotary_emb
            )
        return block(tokens, context, temb, rotary_emb, **options)

    def _control_streams(
        self, controls: dict[str, Tensor | None], scales: dict[str, float], kept: ClipContext
    ) -> dict[str, Tensor]:
        """Return the tokens [B, N, C] of each control that is given and not scaled to nothing."""
        proj_in = {"dense": self.dense_proj_in, "sparse": self.sparse_proj_in}

        def stream(name: str, latents: Tensor) -> Tensor:
            tokens = self._own(self._tokens(latents)[0])
            return proj_in[name](tokens).to(tokens.dtype)

        return {
            name: kept.keep(name, (latents,), partial(stream, name, latents))
            for name, latents in controls.items()
            if latents is not None and scales[name] > 0
        }

    def _control_addition(
        self, index: int, streams: dict[str, Tensor], scales: dict[str, float]
    ) -> Tensor:
        """Return what is added to the clip's tokens [B, N, D] after main block `index`."""
        # Half of the output bias belongs to each branch, so that the addition is linear in both
        # scales: the release's sum at (1, 1), nothing at (0, 0).
        strength = sum(scales[name] for name in streams) / 2
        combined = sum(stream * (scales[name] / strength) for name, stream in streams.items())
        return self.control_proj_out[index](combined) * strength
