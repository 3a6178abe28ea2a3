import pytest

from parity.frameworks.build import default_memory_format
from parity.spec.conventions import TORCH
from parity.spec.resnet import resnet_spec


@pytest.mark.parametrize(
    ("width", "dtype", "memory_format"),
    [
        (64, "float32", "channels_last"),
        (16, "float32", "channels_last"),
        (15, "float32", "channels_first"),
        (2, "float32", "channels_first"),
        (64, "float64", "channels_first"),
    ],
)
def test_only_wide_float32_nets_are_channels_last(width, dtype, memory_format):
    spec = resnet_spec(
        f"resnet8:width={width}",
        conventions=TORCH.conventions,
        in_channels=1,
        input_size=(6, 6),
        classes=2,
    )

    assert default_memory_format(spec, dtype) == memory_format
