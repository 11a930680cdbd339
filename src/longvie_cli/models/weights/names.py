"""Names of parameters: the released LongVie and Wan files' and ours, translated both ways.

Ours are those of the modules of diffusers (`WanTransformer3DModel`, `AutoencoderKLWan`) and
transformers (`UMT5EncoderModel`, `CLIPVisionModel`) plus the control names of
`LongVieTransformer3DModel`. Each table is a list of pairs (released, ours) of dotted prefixes;
`{n}` stands for a number, and several names of ours for a released tensor that holds them stacked
(spec 2.1-2.3; encoders: names as in the public Wan 2.1 code, `wan/modules/t5.py` and `clip.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

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

_TEXT_ENCODER = [
    ("token_embedding", "shared"),
    ("norm", "encoder.final_layer_norm"),
    *(
        (f"blocks.{{n}}.{released}", f"encoder.block.{{n}}.layer.{ours}")
        for released, ours in [
            ("norm1", "0.layer_norm"),
            *((f"attn.{name}", f"0.SelfAttention.{name}") for name in "qkvo"),
            ("pos_embedding.embedding", "0.SelfAttention.relative_attention_bias"),
            ("norm2", "1.layer_norm"),
            # wi_0 is the one that passes through the activation.
            ("ffn.gate.0", "1.DenseReluDense.wi_0"),
            ("ffn.fc1", "1.DenseReluDense.wi_1"),
            ("ffn.fc2", "1.DenseReluDense.wo"),
        ]
    ),
]

_QKV = tuple(f"encoder.layers.{{n}}.self_attn.{name}_proj" for name in "qkv")
_IMAGE_ENCODER: list[tuple[str, str | tuple[str, ...]]] = [
    ("visual.patch_embedding", "embeddings.patch_embedding"),
    ("visual.cls_embedding", "embeddings.class_embedding"),
    ("visual.pos_embedding", "embeddings.position_embedding.weight"),
    ("visual.pre_norm", "pre_layrnorm"),
    ("visual.post_norm", "post_layernorm"),
    ("visual.transformer.{n}.attn.to_qkv", _QKV),
    *(
        (f"visual.transformer.{{n}}.{released}", f"encoder.layers.{{n}}.{ours}")
        for released, ours in [
            ("norm1", "layer_norm1"),
            ("attn.proj", "self_attn.out_proj"),
            ("norm2", "layer_norm2"),
            ("mlp.0", "mlp.fc1"),
            ("mlp.2", "mlp.fc2"),
        ]
    ),
]

# What trainers and loggers put in front of the names.
_WRAPPERS = r"(?:(?:module|pipe|dual_controller|control|dit)\.)+"


class WeightNameError(KeyError):
    """A parameter name that the translation table does not know."""


class NameMap:
    """Translates parameter names of one kind of file, both ways, and shapes with them.

    Args:
        pairs: (released, ours) prefixes; `{n}` stands for a number. `ours` may be several names:
            the released tensor holds theirs one after the other along its first axis.
        wrappers: Pattern of prefixes that a released name may carry besides.
        ignored: Pattern of released tensors that our models have no use for.
        leading_ones: How many axes of size 1 the release puts before those of a tensor of ours.
    """

    # A second name under which one of ours may appear in a file, with the same values.
    aliases: Mapping[str, str] = {}

    def __init__(
        self,
        pairs: Iterable[tuple[str, str | tuple[str, ...]]],
        *,
        wrappers: str = _WRAPPERS,
        ignored: str | None = None,
        leading_ones: Mapping[str, int] | None = None,
    ) -> None:
        several = [(old, (new,) if isinstance(new, str) else new) for old, new in pairs]
        self._to_ours = dict(several)
        self._to_released = {name: (old,) for old, new in several for name in new}
        self._parts = {
            name: (index, len(new)) for _, new in several for index, name in enumerate(new)
        }
        self._wrappers = re.compile(f"^{wrappers}")
        self._ignored = None if ignored is None else re.compile(ignored)
        self._leading_ones = leading_ones or {}

    def parts(self, name: str) -> tuple[str, ...]:
        """Return our names of what a released tensor holds, wrapper prefixes removed.

        Raises:
            WeightNameError: no such parameter.
        """
        return _translate(self._wrappers.sub("", name), self._to_ours)

    def to_ours(self, name: str) -> str:
        """Return our one name of a released parameter, wrapper prefixes removed.

        Raises:
            WeightNameError: no such parameter, or one that holds several of ours.
        """
        parts = self.parts(name)
        if len(parts) > 1:
            raise WeightNameError(name)
        return parts[0]

    def to_released(self, name: str) -> str:
        """Return the released name of one of our parameters.

        Raises:
            WeightNameError: no such parameter.
        """
        return _translate(name, self._to_released)[0]

    def owns(self, name: str) -> bool:
        """Return whether one of our parameter names belongs to this kind of file."""
        return _find(name, self._to_released) is not None

    def ignores(self, name: str) -> bool:
        """Return whether a released tensor is one that our models knowingly do without."""
        return self._ignored is not None and self._ignored.search(name) is not None

    def released_shape(self, name: str, shape: Iterable[int]) -> tuple[int, ...]:
        """Return the released shape of the tensor that holds one of ours, of the given shape."""
        first, *rest = shape
        _, count = self._part(name)
        return (1,) * self._leading_ones.get(name, 0) + (first * count, *rest)

    def take(self, name: str, released: Tensor) -> Tensor:
        """Return a view on what belongs to our parameter `name` in a released tensor."""
        index, count = self._part(name)
        values = released.reshape(released.shape[self._leading_ones.get(name, 0) :])
        return values.chunk(count)[index] if count > 1 else values

    def release(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under their released names and in their released shapes.

        Raises:
            WeightNameError: one of the names is unknown.
        """
        held: dict[str, list[tuple[int, Tensor]]] = {}
        for name, tensor in tensors.items():
            shape = (1,) * self._leading_ones.get(name, 0) + tuple(tensor.shape)
            part = (self._part(name)[0], tensor.reshape(shape))
            held.setdefault(self.to_released(name), []).append(part)
        return {
            name: parts[0][1]
            if len(parts) == 1
            else torch.cat([tensor for _, tensor in sorted(parts, key=lambda part: part[0])])
            for name, parts in held.items()
        }

    def _part(self, name: str) -> tuple[int, int]:
        """Return which part of how many our parameter is of its released tensor."""
        for candidate, _, _ in _candidates(name):
            if candidate in self._parts:
                return self._parts[candidate]
        return 0, 1


class SameNames(NameMap):
    """The names of files that are laid out as our modules are: those of diffusers.

    Args:
        names: All that such a file holds.
        wrappers: Pattern of prefixes that a name may carry besides.
        ignored: Pattern of tensors that our models have no use for.
        aliases: Second names under which one may appear, with the same values.
    """

    def __init__(
        self,
        names: Collection[str],
        *,
        wrappers: str = "",
        ignored: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.aliases = aliases or {}
        main = [(name, name) for name in names if name not in self.aliases]
        # Last, so that a name of ours translates to itself and not to its alias.
        super().__init__(main, wrappers=wrappers, ignored=ignored)
        self._to_ours |= {alias: (name,) for alias, name in self.aliases.items()}


DIT_NAMES = NameMap(_DIT)
CONTROL_NAMES = NameMap(_CONTROL)
TEXT_ENCODER_NAMES = NameMap(_TEXT_ENCODER)
IMAGE_ENCODER_NAMES = NameMap(
    _IMAGE_ENCODER,
    # The file is a whole CLIP: its text tower, temperature and projection are not for Wan.
    ignored=r"^(?:module\.)?(?:textual\.|log_scale$|visual\.head(?:\.|$))",
    leading_ones={"embeddings.class_embedding": 2, "embeddings.position_embedding.weight": 1},
)


def diffusers_transformer_names(names: Collection[str]) -> SameNames:
    """Return the names of a diffusers Wan transformer that holds `names`.

    The hub's carries 40 query norms for the image tokens that no class reads (spec 2.3).
    """
    return SameNames(names, ignored=r"\.norm_added_q\.weight$")


def transformers_text_encoder_names(names: Collection[str]) -> SameNames:
    """Return the names of a `UMT5EncoderModel` file, whose token embedding may appear twice."""
    return SameNames(names, aliases={"encoder.embed_tokens.weight": "shared.weight"})


def transformers_image_encoder_names(names: Collection[str]) -> SameNames:
    """Return the names of a `CLIPVisionModel` file, with or without the prefix of older versions.

    Older versions also saved the position indices, which are no weights.
    """
    return SameNames(names, wrappers=r"(?:vision_model\.)?", ignored=r"embeddings\.position_ids$")


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

Table = Mapping[str, tuple[str, ...]]


def _candidates(name: str) -> Iterable[tuple[str, str, str]]:
    """Yield (table entry, its number, leaf): the entries under which a whole name may be listed."""
    stem, _, leaf = name.rpartition(".")
    for prefix, suffix in ((name, ""), (stem, f".{leaf}")):
        yield prefix, "", suffix
        # The first number is the block's; later ones (`ffn.0`) are part of the layer's name.
        number = _NUMBER.search(prefix)
        if number:
            generic = f"{prefix[: number.start()]}{{n}}{prefix[number.end() :]}"
            yield generic, number.group(), suffix


def _find(name: str, table: Table) -> tuple[str, ...] | None:
    """Return the translation of a whole name, or None; the leaf (`weight`, `bias`) is kept."""
    for candidate, digits, suffix in _candidates(name):
        if candidate in table:
            return tuple(entry.replace("{n}", digits) + suffix for entry in table[candidate])
    return None


def _translate(name: str, table: Table) -> tuple[str, ...]:
    translated = _find(name, table)
    if translated is None:
        raise WeightNameError(name)
    return translated
