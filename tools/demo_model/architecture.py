"""The demonstration model's configuration: everything an E2B has, at a thousandth of its size."""

from __future__ import annotations

from transformers import Gemma4Config, Gemma4ForConditionalGeneration

HIDDEN = 128
AUDIO_HIDDEN = 128
VISION_HIDDEN = 64
LAYER_TYPES = ["sliding_attention", "sliding_attention", "full_attention"] * 2


def config(vocab_size: int, special_ids: dict[str, int]) -> Gemma4Config:
    """6 decoder layers (S S F S S F, the last 3 KV-shared and double wide), 3 conformer and 2 vision layers."""
    return Gemma4Config(
        text_config={
            "vocab_size": vocab_size,
            "vocab_size_per_layer_input": vocab_size,
            "hidden_size": HIDDEN,
            "intermediate_size": 256,
            "num_hidden_layers": len(LAYER_TYPES),
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "global_head_dim": 64,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "layer_types": LAYER_TYPES,
            "sliding_window": 256,
            "max_position_embeddings": 8192,
            "final_logit_softcapping": 30.0,
            "pad_token_id": special_ids["<pad>"],
            "bos_token_id": special_ids["<bos>"],
            "eos_token_id": special_ids["<eos>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "position_embedding_size": 512,
            "use_clipped_linears": True,
        },
        audio_config={
            "hidden_size": AUDIO_HIDDEN,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            # transformers sizes the projection by channels[0] // 4; the real number is mels // 4, so it must be 128
            "subsampling_conv_channels": [128, 16],
            "output_proj_dims": AUDIO_HIDDEN,
            "use_clipped_linears": True,
        },
        image_token_id=special_ids["<|image|>"],
        video_token_id=special_ids["<|video|>"],
        audio_token_id=special_ids["<|audio|>"],
        boi_token_id=special_ids["<|image>"],
        eoi_token_id=special_ids["<image|>"],
        boa_token_id=special_ids["<|audio>"],
        eoa_token_index=special_ids["<audio|>"],
        tie_word_embeddings=True,
    )


def build(vocab_size: int, special_ids: dict[str, int]) -> Gemma4ForConditionalGeneration:
    """A fresh model, float32. Linears start at 1/sqrt(width) instead of 0.02: at this width 0.02 trains far slower."""
    import torch
    from transformers.models.gemma4.modeling_gemma4 import Gemma4ClippableLinear

    model = Gemma4ForConditionalGeneration(config(vocab_size, special_ids))
    for module in model.modules():
        if isinstance(module, Gemma4ClippableLinear):
            # Bounds are measured at export; until then they are infinite, and clamping costs a fifth of a step.
            module.use_clipped_linears = False
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    torch.nn.init.normal_(model.model.language_model.embed_tokens.weight, std=HIDDEN**-0.5)
    torch.nn.init.normal_(model.model.language_model.embed_tokens_per_layer.weight, std=16**-0.5)
    torch.nn.init.normal_(model.model.vision_tower.patch_embedder.position_embedding_table, std=0.02)
    return model
