import pytest

from parity.frameworks.build import default_memory_format
from parity.spec.conventions import TORCH
from parity.spec.resnet import resnet_spec


@pytest.mark.parametrize(
    ("width", "dtype", "device", "memory_format"),
    [
        (64, "float32", "cpu", "channels_last"),
        (16, "float32", "cpu", "channels_last"),
        (15, "float32", "cpu", "channels_first"),
        (2, "float32", "cpu", "channels_first"),
        (64, "float64", "cpu", "channels_first"),
        (64, "float64", "cuda", "channels_first"),
        (64, "mixed_bfloat16", "cpu", "channels_first"),
        (64, "mixed_bfloat16", "cuda", "channels_last"),
        (64, "mixed_float16", "cuda:1", "channels_last"),
    ],
)
def test_only_wide_nets_that_gain_by_it_are_channels_last(width, dtype, device, memory_format):
    spec = resnet_spec(
        f"resnet8:width={width}",
        conventions=TORCH.conventions,
        in_channels=1,
        input_size=(6, 6),
        classes=2,
    )

    assert default_memory_format(spec, dtype, device=device) == memory_format
