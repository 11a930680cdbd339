"""A picture to the embeddings the transformer reads; needs only the image encoder."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModel

from longvie_cli.media.frames import pixels_from_frames

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def encode_picture(
    image_encoder: CLIPVisionModel, image: np.ndarray | None, device: torch.device
) -> Tensor:
    """Return the image tokens [1, tokens, image_dim] of a frame uint8 [height, width, 3].

    The whole picture is squeezed to the encoder's square, aspect not kept (spec 1.4). None
    stands for a mid-grey picture.
    """
    size = image_encoder.config.image_size
    if image is None:
        pixels = torch.zeros(1, 3, size, size, device=device)
    else:
        pixels = pixels_from_frames(image[None])[:, 0][None].to(device)
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False)
    mean, std = (pixels.new_tensor(value).view(1, 3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    normalised = ((pixels + 1) / 2 - mean) / std
    states = image_encoder(normalised.to(image_encoder.dtype), output_hidden_states=True)
    return states.hidden_states[-2]
