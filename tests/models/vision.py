"""Tiny vision transformers of every family that is opened, with random weights, saved as a hub would hold them."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "patch_size": 8,
}
_TEXT = {**_SIZES, "vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1}

BEFORE = {
    "vit": ("<class>",),
    "deit": ("<class>", "<distillation>"),
    "beit": ("<class>",),
    "dinov2": ("<class>",),
    "dinov2_with_registers": ("<class>", *(f"<register {at}>" for at in (1, 2, 3))),
    "dinov3_vit": ("<class>", *(f"<register {at}>" for at in (1, 2, 3))),
    "ijepa": (),
    "vit_msn": ("<class>",),
    "mlcd_vision_model": ("<class>",),
    "clip_vision_model": ("<class>",),
    "siglip_vision_model": (),
    "clip": ("<class>",),
    "siglip": (),
}
"""What stands before the patches, by the type of the model that is saved."""
CLASSIFIERS = ("vit", "dinov2")
"""Of them, those that are saved with a head."""
CLASSES = ("cat", "dog", "owl")


def save_tiny(model_type: str, folder: Path, *, image_size: int = 32) -> Path:
    """A model that reads 4 × 4 patches of a picture of 32 × 32 pixels, with its image processor."""
    torch.manual_seed(3)
    _model(model_type, image_size).save_pretrained(folder)
    processor = hf.CLIPImageProcessor(
        size={"height": 32, "width": 32},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor.save_pretrained(folder)
    return folder


def striped(width: int = 48, height: int = 40) -> Image.Image:
    """A picture of no one colour, of another shape than the models'."""
    red = torch.linspace(0, 255, width).expand(height, -1)
    green = torch.linspace(255, 0, height)[:, None].expand(-1, width)
    pixels = torch.stack([red, green, (red * 7) % 256], -1)
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def _model(model_type: str, image_size: int) -> Any:
    if model_type in ("clip", "siglip"):
        vision = {**_SIZES, "image_size": image_size}
        config = hf.AutoConfig.for_model(model_type, text_config=_TEXT, vision_config=vision)
        return hf.AutoModel.from_config(config)
    options: dict[str, Any] = {**_SIZES, "image_size": image_size}
    if BEFORE[model_type][-1:] == ("<register 3>",):
        options["num_register_tokens"] = 3
    if model_type not in CLASSIFIERS:
        return hf.AutoModel.from_config(hf.AutoConfig.for_model(model_type, **options))
    options["id2label"] = dict(enumerate(CLASSES))
    config = hf.AutoConfig.for_model(model_type, **options)
    return hf.AutoModelForImageClassification.from_config(config)
