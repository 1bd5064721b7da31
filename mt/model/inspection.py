"""The weights of every head, computed beside the model: what figures 3 to 5 of the paper show."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mt.model.attention import attention_weights, look_ahead_mask
from mt.model.layout import whole_layout
from mt.model.transformer import Transformer


@dataclass(frozen=True)
class AttentionMaps:
    """Weights by layer and head; each row, what one position gives to all it attends to, sums to 1."""

    encoder_LHSS: Tensor  # self-attention of the source
    decoder_LHTT: Tensor  # self-attention of the target
    cross_LHTS: Tensor  # from the target to the source


@torch.inference_mode()
def attention_maps(model: Transformer, source_S: Tensor, input_T: Tensor) -> AttentionMaps:
    """All attention weights of one sentence pair, the target starting with BOS."""
    encoder, decoder, cross = [], [], []
    memory = model.encode(source_S[None])
    layout = whole_layout(1, len(source_S))
    x_SD = model.embed(source_S, layout.positions(source_S.device), layout.length)
    for encoder_layer in model.encoder:
        q_BHSK, k_BHSK, _ = encoder_layer.self_attention.project(x_SD, layout)
        encoder.append(attention_weights(q_BHSK, k_BHSK)[0])
        x_SD = encoder_layer(x_SD, layout)
    layout, look_ahead = whole_layout(1, len(input_T)), look_ahead_mask(len(input_T), input_T.device)
    x_TD = model.embed(input_T, layout.positions(input_T.device), layout.length)
    for index, layer in enumerate(model.decoder):
        q_BHTK, k_BHTK, _ = layer.self_attention.project(x_TD, layout)
        decoder.append(attention_weights(q_BHTK, k_BHTK, look_ahead)[0])
        attended_TD = layer.after_self_attention(x_TD, layer.self_attention(x_TD, layout, causal=True))
        q_BHTK = layer.cross_attention.project(attended_TD, layout)
        cross.append(attention_weights(q_BHTK, memory.keys[index])[0])
        x_TD = layer(x_TD, layout, memory, index)
    return AttentionMaps(torch.stack(encoder), torch.stack(decoder), torch.stack(cross))
