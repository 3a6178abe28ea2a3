"""Which of a model's parameters are trained, by canonical name."""

from torch import nn


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return `layer path.slot`, such as `stem.bn.weight`, and parameter, in the model's order."""
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]
