"""The weights of every head, computed beside the model: what figures 3 to 5 of the paper show."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mt.model.attention import attention_weights, look_ahead_mask
from mt.model.layout import layout_of
from mt.model.transformer import Transformer


@dataclass(frozen=True)
class AttentionMaps:
    """Weights by layer, sentence and head; each row, what one position gives to all it attends to, sums to 1.

    The rows of padding mean nothing.
    """

    encoder_LBHSS: Tensor  # self-attention of the source
    decoder_LBHTT: Tensor  # self-attention of the target
    cross_LBHTS: Tensor  # from the target to the source


@torch.inference_mode()
def attention_maps(model: Transformer, source_BS: Tensor, input_BT: Tensor) -> AttentionMaps:
    """All attention weights of padded sentence pairs, each target starting with BOS."""
    encoder, decoder, cross = [], [], []
    memory = model.encode(source_BS)
    layout = layout_of(source_BS)
    x_ND = model.embed_all(source_BS, layout)
    for encoder_layer in model.encoder:
        q_BHSK, k_BHSK, _ = encoder_layer.self_attention.project(x_ND, layout)
        encoder.append(attention_weights(q_BHSK, k_BHSK, layout.mask))
        x_ND = encoder_layer(x_ND, layout)
    layout, look_ahead = layout_of(input_BT), look_ahead_mask(input_BT.size(1), input_BT.device)
    x_ND = model.embed_all(input_BT, layout)
    for index, layer in enumerate(model.decoder):
        q_BHTK, k_BHTK, _ = layer.self_attention.project(x_ND, layout)
        decoder.append(attention_weights(q_BHTK, k_BHTK, look_ahead))
        attended_ND = layer.after_self_attention(x_ND, layer.self_attention(x_ND, layout, causal=True))
        q_BHTK = layer.cross_attention.project(attended_ND, layout)
        cross.append(attention_weights(q_BHTK, memory.keys[index], memory.mask))
        x_ND = layer(x_ND, layout, memory, index)
    return AttentionMaps(torch.stack(encoder), torch.stack(decoder), torch.stack(cross))
