"""A SAM of transformers with random weights, small enough for a test."""

from pathlib import Path

import torch

__all__ = ["write_toy"]

SIDE, PATCH, WIDTH = 64, 8, 32


def write_toy(folder: Path) -> None:
    """A folder that transformers' mask generation loads."""
    from transformers import SamConfig, SamImageProcessor, SamModel

    torch.manual_seed(0)
    vision = {
        "hidden_size": WIDTH, "output_channels": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
        "patch_size": PATCH, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": WIDTH // 2,
    }  # fmt: skip
    prompts = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": PATCH, "mask_input_channels": 4}
    decoder = {
        "hidden_size": WIDTH, "mlp_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
    }  # fmt: skip
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    half = {"height": SIDE // 2, "width": SIDE // 2}
    processor = SamImageProcessor(
        size={"longest_edge": SIDE}, pad_size=square, mask_size={"longest_edge": SIDE // 2}, mask_pad_size=half
    )
    processor.save_pretrained(folder)
