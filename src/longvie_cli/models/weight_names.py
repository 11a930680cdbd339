"""Names of parameters: the released LongVie and Wan files' and ours, translated both ways.

Ours are those of diffusers' modules (`WanTransformer3DModel`, `AutoencoderKLWan`) plus the
control names of `LongVieTransformer3DModel`. Each table is a list of pairs (released, ours) of
dotted prefixes; `{n}` stands for a number (spec 2.1-2.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BLOCK = [
    ("modulation", "scale_shift_table"),
    # Names swap: the released norm1 and norm2, and our norm1 and norm3, hold no weights.
    ("norm3", "norm2"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    *((f"self_attn.{name}", f"attn1.to_{name}") for name in "qkv"),
    *((f"cross_attn.{name}", f"attn2.to_{name}") for name in "qkv"),
    ("self_attn.o", "attn1.to_out.0"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("self_attn.norm_q", "attn1.norm_q"),
    ("self_attn.norm_k", "attn1.norm_k"),
    ("cross_attn.norm_q", "attn2.norm_q"),
    ("cross_attn.norm_k", "attn2.norm_k"),
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    ("cross_attn.norm_k_img", "attn2.norm_added_k"),
]

_DIT = [
    ("patch_embedding", "patch_embedding"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("head.head", "proj_out"),
    ("head.modulation", "scale_shift_table"),
    *((f"blocks.{{n}}.{released}", f"blocks.{{n}}.{ours}") for released, ours in _BLOCK),
]

_CONTROL = [
    ("control_initial_combine_linear_dense", "dense_proj_in"),
    ("control_initial_combine_linear_sparse", "sparse_proj_in"),
    ("control_text_linear", "control_text_proj"),
    ("control_t_mod", "control_time_proj"),
    ("control_combine_linears.{n}", "control_proj_out.{n}"),
    *(
        (f"control_blocks_{branch}.{{n}}.{released}", f"{branch}_blocks.{{n}}.{ours}")
        for branch in ("dense", "sparse")
        for released, ours in _BLOCK
    ),
]

_VAE_RESIDUAL = [
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
]
_VAE_RESAMPLE = [("resample.1", "resample.1"), ("time_conv", "time_conv")]

_VAE = [
    ("conv1", "quant_conv"),
    ("conv2", "post_quant_conv"),
    *(
        (f"{half}.{released}", f"{half}.{ours}")
        for half in ("encoder", "decoder")
        for released, ours in [
            ("conv1", "conv_in"),
            ("head.0", "norm_out"),
            ("head.2", "conv_out"),
            *((f"middle.0.{r}", f"mid_block.resnets.0.{o}") for r, o in _VAE_RESIDUAL),
            *((f"middle.2.{r}", f"mid_block.resnets.1.{o}") for r, o in _VAE_RESIDUAL),
            *(
                (f"middle.1.{name}", f"mid_block.attentions.0.{name}")
                for name in ("norm", "to_qkv", "proj")
            ),
        ]
    ),
    *(
        (f"encoder.downsamples.{{n}}.{released}", f"encoder.down_blocks.{{n}}.{ours}")
        for released, ours in _VAE_RESIDUAL + _VAE_RESAMPLE
    ),
]

# What trainers and loggers put in front of the names.
_WRAPPERS = re.compile(r"^(?:(?:module|pipe|dual_controller|control|dit)\.)+")


class WeightNameError(KeyError):
    """A parameter name that the translation table does not know."""


class NameMap:
    """Translates parameter names of one kind of file, both ways.

    Args:
        pairs: (released, ours) prefixes; `{n}` stands for a number.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = list(pairs)
        self._to_ours = {released: ours for released, ours in pairs}
        self._to_released = {ours: released for released, ours in pairs}

    def to_ours(self, name: str) -> str:
        """Return our name of a released parameter, wrapper prefixes removed.

        Raises:
            WeightNameError: no such parameter.
        """
        return _translate(_WRAPPERS.sub("", name), self._to_ours)

    def to_released(self, name: str) -> str:
        """Return the released name of one of our parameters.

        Raises:
            WeightNameError: no such parameter.
        """
        return _translate(name, self._to_released)

    def owns(self, name: str) -> bool:
        """Return whether one of our parameter names belongs to this kind of file."""
        return _find(name, self._to_released) is not None


DIT_NAMES = NameMap(_DIT)
CONTROL_NAMES = NameMap(_CONTROL)


def vae_names(num_levels: int, num_res_blocks: int) -> NameMap:
    """Return the names of a Wan VAE.

    The released decoder counts its upsampling layers in one list; ours nests them by level, each
    of `num_res_blocks + 1` residual blocks and, but for the last level, one resampler.

    Args:
        num_levels: Entries of `dim_mult`.
        num_res_blocks: Residual blocks of an encoder level.
    """
    pairs = list(_VAE)
    released_index = 0
    for level in range(num_levels):
        layers = [(f"resnets.{block}", _VAE_RESIDUAL) for block in range(num_res_blocks + 1)]
        if level < num_levels - 1:
            layers.append(("upsamplers.0", _VAE_RESAMPLE))
        for layer, table in layers:
            pairs += (
                (
                    f"decoder.upsamples.{released_index}.{released}",
                    f"decoder.up_blocks.{level}.{layer}.{ours}",
                )
                for released, ours in table
            )
            released_index += 1
    return NameMap(pairs)


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def _find(name: str, table: dict[str, str]) -> str | None:
    """Return the translation of a whole name, or None; the leaf (`weight`, `bias`) is kept."""
    stem, _, leaf = name.rpartition(".")
    for prefix, suffix in ((name, ""), (stem, f".{leaf}")):
        # The first number is the block's; later ones (`ffn.0`) are part of the layer's name.
        number = _NUMBER.search(prefix)
        candidates = [(prefix, "")]
        if number:
            generic = f"{prefix[: number.start()]}{{n}}{prefix[number.end() :]}"
            candidates.append((generic, number.group()))
        for candidate, digits in candidates:
            if candidate in table:
                return table[candidate].replace("{n}", digits) + suffix
    return None


def _translate(name: str, table: dict[str, str]) -> str:
    translated = _find(name, table)
    if translated is None:
        raise WeightNameError(name)
    return translated
