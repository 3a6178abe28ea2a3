"""Recurrent layers and attention as PyTorch users wrap them."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name PyTorch's own documentation uses


class PickedRecurrent(nn.Module):
    """An `nn.LSTM` or `nn.GRU`, and what is taken of its outputs."""

    def __init__(self, kind: str, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        layer = nn.LSTM if kind == "lstm" else nn.GRU
        self.layer = layer(
            width,
            settings["units"],
            num_layers=settings["layers"],
            batch_first=True,
            bidirectional=settings["bidirectional"],
        )
        self.take = settings["take"]
        self.swaps_directions = bool(settings.get("swaps_directions"))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence, its end, or its first or last step."""
        sequence, hidden = self.layer(x)
        last = hidden[0] if isinstance(hidden, tuple) else hidden
        is_both = self.layer.bidirectional
        picked: Tensor = {
            "sequence": lambda: sequence,
            "end": lambda: torch.cat([last[-2], last[-1]], dim=1) if is_both else last[-1],
            "last_step": lambda: sequence[:, -1],
            "first_step": lambda: sequence[:, 0],
        }[self.take]()
        return torch.cat(picked.chunk(2, -1)[::-1], dim=-1) if self.swaps_directions else picked


class Attention(nn.Module):
    """Self-attention: `nn.MultiheadAttention`, or projections and a product written out."""

    def __init__(self, width: int, settings: Mapping[str, Any], style: str | None) -> None:
        super().__init__()
        self.heads, self.causal = settings["heads"], settings["causal"]
        self.scale = settings.get("scale")
        self.style = "manual" if self.scale is not None and style != "sdpa" else style or "module"
        if self.style == "module":
            self.attention = nn.MultiheadAttention(width, self.heads, batch_first=True)
            return
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def slots(self) -> dict[str, str]:
        """Return the slot of `nn.MultiheadAttention` that each array of this module holds."""
        if self.style == "module":
            names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
            return {f"attention.{name}": name for name in names}
        return {
            "qkv.weight": "in_proj_weight",
            "qkv.bias": "in_proj_bias",
            "out.weight": "out_proj.weight",
            "out.bias": "out_proj.bias",
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention of a sequence `(n, t, c)` to itself."""
        steps = x.shape[1]
        ahead = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
        if self.style == "module":
            mask = ahead if self.causal else None
            outputs = self.attention(x, x, x, need_weights=False, attn_mask=mask)
            return cast("Tensor", outputs[0])
        parts = self.qkv(x).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if self.style == "sdpa":
            mixed = F.scaled_dot_product_attention(
                query, key, value, is_causal=self.causal, scale=self.scale
            )
        else:
            scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
            scores = query @ key.transpose(-2, -1) * scale
            if self.causal:
                scores = scores.masked_fill(ahead, float("-inf"))
            mixed = scores.softmax(-1) @ value
        return cast("Tensor", self.out(mixed.transpose(1, 2).flatten(2)))
