"""Measures that need a trained network, and why they are left out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# What VBench (github.com/Vchitect/VBench) computes each of its dimensions with, and the files it
# keeps of it in its cache.
_VBENCH = {
    "aesthetic_quality": (
        "CLIP ViT-L/14 and LAION's aesthetic head",
        ("clip_model/ViT-L-14.pt", "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"),
    ),
    "imaging_quality": ("MUSIQ", ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",)),
    "subject_consistency": ("DINO ViT-B/16", ("dino_model/dino_vitbase16_pretrain.pth",)),
    "background_consistency": ("CLIP ViT-B/32", ("clip_model/ViT-B-32.pt",)),
    "dynamic_degree": ("RAFT", ("raft_model/models/raft-things.pth",)),
}
PERCEPTUAL = "reference.perceptual"
_LPIPS_FILES = ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth")


def skipped_dimensions(environment: Mapping[str, str]) -> dict[str, str]:
    """Return why each VBench dimension is left out, by its name there.

    Args:
        environment: The process environment: it may say where VBench's cache is.
    """
    cache = Path(environment.get("VBENCH_CACHE_DIR") or _home_cache(environment) / "vbench")
    reasons = {}
    for name, (network, files) in _VBENCH.items():
        missing = [file for file in files if not (cache / file).is_file()]
        if missing:
            reasons[name] = (
                f"VBench computes it with {network}; {missing[0]} is not in its cache, and nothing "
                "is downloaded."
            )
        else:
            reasons[name] = f"the weights of {network} are here, but longvie does not run it yet."
    return reasons


def skipped_perceptual(environment: Mapping[str, str]) -> str:
    """Return why no perceptual distance is computed.

    Args:
        environment: The process environment: it may say where torch's cache is.
    """
    home = Path(environment.get("TORCH_HOME") or _home_cache(environment) / "torch")
    if any((home / "hub" / "checkpoints" / name).is_file() for name in _LPIPS_FILES):
        return "the networks of LPIPS are here, but longvie does not run them yet."
    return (
        "a perceptual distance needs a trained network (LPIPS: AlexNet or VGG16); none is in "
        "torch's cache, and nothing is downloaded."
    )


def _home_cache(environment: Mapping[str, str]) -> Path:
    named = environment.get("XDG_CACHE_HOME")
    return Path(named) if named else Path(os.path.expanduser("~")) / ".cache"
