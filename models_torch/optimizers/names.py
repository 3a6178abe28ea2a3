"""Which of a model's arrays are trained and which are carried, by canonical name."""

from torch import Tensor, nn


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return `layer path.slot`, such as `stem.bn.weight`, and parameter, in the model's order."""
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def running_buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return `layer path.slot`, such as `stem.bn.running_var`, and buffer, in the model's order."""
    return [(name, value) for name, value in model.named_buffers() if value.is_floating_point()]
