"""The network: a backbone, GeM pooling and a linear layer describe an image (CosPlace).

References
----------
Berton, Masone, Caputo, "Rethinking visual geo-localization for large-scale applications", CVPR
2022.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vgeo.errors import VgeoError
from vgeo.models import lite0
from vgeo.models.weights import CITY_WEIGHTS, imagenet_state, load_weights, weights_hash

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(NamedTuple):
    """A network that makes feature maps.

    Attributes
    ----------
    make : makes it with random weights.
    imagenet : the state dict of such a network with ImageNet weights.
    channels : of its last feature map.
    trunk : stages of eight that `freeze` freezes.
    """

    make: Callable[[], nn.Module]
    imagenet: Callable[[nn.Module], dict[str, Tensor]]
    channels: int
    trunk: int


def _torchvision(url: str) -> Callable[[nn.Module], dict[str, Tensor]]:
    return lambda net: imagenet_state(url)


BACKBONES = {
    # frozen up to layer2
    "resnet18": Backbone(
        zoo.resnet18, _torchvision(zoo.ResNet18_Weights.IMAGENET1K_V1.url), 512, 6
    ),
    # frozen up to the blocks of stride 16
    "efficientnet_v2_s": Backbone(
        zoo.efficientnet_v2_s,
        _torchvision(zoo.EfficientNet_V2_S_Weights.IMAGENET1K_V1.url),
        1280,
        6,
    ),
    # frozen up to the first group of blocks of stride 16: 8 of 16 blocks
    "efficientnet_lite0": Backbone(
        partial(lite0.Lite0, IMAGENET_MEAN, IMAGENET_STD), lite0.imagenet_state, lite0.CHANNELS, 5
    ),
    # frozen up to layer2; the study has no row with it: it is for published weights
    "resnet50": Backbone(
        zoo.resnet50, _torchvision(zoo.ResNet50_Weights.IMAGENET1K_V2.url), 2048, 6
    ),
}
DIM = 512  # numbers in a descriptor


def normalise(images: Tensor) -> Tensor:
    """RGB images, uint8 (B, 3, H, W), 0 to 255, as float32 with ImageNet's mean and deviation.

    Raises
    ------
    VgeoError : the images are not uint8, for example because they are normalised already.
    """
    if images.dtype != torch.uint8:
        raise VgeoError(
            f"images are {images.dtype}, not uint8: normalise them once, from the values 0 to 255"
        )
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1) * 255
    return images.float().sub_(mean).div_(std)


class L2Norm(nn.Module):
    """Divides by the L2 norm over dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        return F.normalize(x, dim=1)


class GeM(nn.Module):
    """Generalised mean over the positions, mean(x^p)^(1/p) with p learned.

    References
    ----------
    Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", PAMI
    2019, eq. 3.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 1, 1)."""
        return x.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3), keepdim=True).pow(1 / self.p)


class Depthwise(nn.Conv2d):
    """A depthwise convolution that processors train fast under autocast too.

    In bfloat16, or with the channels last, torch's gradient of a depthwise convolution is slow on
    processors. In float32 with the channels first an EfficientNetV2-S trains 1.36 times as fast.
    Without a gradient bfloat16 is faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h, w)."""
        trains = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if x.device.type != "cpu" or not (trains and torch.is_autocast_enabled("cpu")):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            maps = super().forward(x.float().contiguous())
        return maps.contiguous(memory_format=torch.channels_last)


class GeoModel(nn.Module):
    """Backbone and head, with the parameter names of the public CosPlace code; made by `build`.

    The backbone is a sequence of eight `stages`. The first of them are the trunk, which `freeze`
    freezes (`Backbone.trunk`); the others are the upper stages.
    """

    def __init__(self, backbone_name: str, net: nn.Module, channels: int, dim: int):
        super().__init__()
        self.backbone_name = backbone_name
        self.backbone = nn.Sequential(*list(net.children())[:-2])  # without pooling and classifier
        for module in self.backbone.modules():
            if type(module) is nn.Conv2d and module.groups > 1:
                module.__class__ = Depthwise  # the same weights under the same names
        self.aggregation = nn.Sequential(
            L2Norm(), GeM(), nn.Flatten(), nn.Linear(channels, dim), L2Norm()
        )
        self.frozen, self.keeps_statistics = False, False

    @property
    def frozen_stages(self) -> int:
        """How many of the stages are the trunk."""
        return BACKBONES[self.backbone_name].trunk

    @property
    def stages(self) -> nn.Sequential:
        """The backbone's eight stages."""
        return cast(
            nn.Sequential,
            self.backbone if self.backbone_name.startswith("resnet") else self.backbone[0],
        )

    def features(self, images: Tensor, stages: int | None = None) -> Tensor:
        """The feature map after so many stages, or all: (B, 3, H, W) -> (B, C, h, w)."""
        return self.stages[:stages](images)

    def trunk(self, images: Tensor) -> Tensor:
        """The trunk's feature map, equal in all models that share a start and froze the trunk."""
        return self.features(images, self.frozen_stages)

    def upper(self, trunk: Tensor) -> Tensor:
        """The last feature map from the trunk's."""
        return self.stages[self.frozen_stages :](trunk)

    def head(self, maps: Tensor) -> Tensor:
        """Descriptors from the last feature map: (B, C, h, w) -> float32 (B, dim) of unit length.

        The head runs in float32 under autocast too: descriptors are compared by distances that are
        small beside bfloat16's rounding.
        """
        with torch.autocast(maps.device.type, enabled=False):
            return self.aggregation(maps.float())

    def forward(self, images: Tensor) -> Tensor:
        """`normalise`d images (B, 3, H, W) -> descriptors, float32 (B, dim) of unit length."""
        # ResNets (B, 128 or 512, H/8, W/8); EfficientNets (B, 160 or 80, H/16, W/16)
        trunk = self.trunk(images)
        # ResNets (B, 512 or 2048, H/32, W/32); EfficientNets (B, 1280, H/32, W/32)
        maps = self.upper(trunk)
        return self.head(maps)  # (B, dim)

    def train(self, mode: bool = True) -> "GeoModel":
        """As nn.Module's; what `freeze` froze stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.stages[: self.frozen_stages].eval()
        if self.keeps_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def build(backbone: str, weights: str | PathLike | None = None, dim: int = DIM) -> GeoModel:
    """A model in training mode, on the CPU.

    Parameters
    ----------
    backbone : a name of BACKBONES.
    weights : None (random), "city" (the package's starting weights, for ResNet18 and
        EfficientNetV2-S), "imagenet" (the backbone's, with a random head), or a file that
        `save_weights` wrote.
    dim : numbers in a descriptor.

    Raises
    ------
    VgeoError : the backbone is unknown or has no such weights, the weights do not fit, or
        ImageNet's can be neither found nor downloaded.
    """
    if backbone not in BACKBONES:
        raise VgeoError(f"unknown backbone {backbone!r}: use one of {', '.join(BACKBONES)}")
    if weights == "city":
        weights = _packaged(backbone)
    made = BACKBONES[backbone]
    net = made.make()
    if weights == "imagenet":
        net.load_state_dict(made.imagenet(net))
    model = GeoModel(backbone, net, made.channels, dim)
    return model if weights in (None, "imagenet") else load_weights(model, weights)


def _packaged(backbone: str) -> Path:
    """The file of the package's starting weights for a backbone.

    Raises
    ------
    VgeoError : the package has none for it.
    """
    files = {name: CITY_WEIGHTS / f"{name}.safetensors" for name in BACKBONES}
    if not files[backbone].exists():
        others = " and ".join(name for name, file in files.items() if file.exists())
        raise VgeoError(
            f'{backbone} has no packaged weights "city", as {others} have: start from "imagenet"'
        )
    return files[backbone]


def freeze(model: GeoModel, keep_statistics: bool = False) -> None:
    """Stops the training of the trunk, as CosPlace does, which keeps what it learned on ImageNet.

    A ResNet then trains layer3, layer4 and the head; EfficientNetV2-S its last two blocks and the
    head; EfficientNet-Lite0 its last three stages and the head. Unlike in the original, the trunk's
    BatchNorm keeps its statistics too. An image then has the same trunk features in every model
    from one start, and they are computed once for all.

    Parameters
    ----------
    keep_statistics : whether BatchNorm keeps its statistics in the upper stages too.
    """
    model.frozen, model.keeps_statistics = True, keep_statistics
    model.stages[: model.frozen_stages].requires_grad_(False)
    model.train(model.training)


def trunk_hash(model: GeoModel) -> str:
    """SHA-256 of the trunk's weights: models with one hash have the same trunk features."""
    return weights_hash(model.stages[: model.frozen_stages])


Network = TypeVar("Network", bound=nn.Module)


def folded(model: Network) -> Network:
    """A copy for evaluation alone, with each BatchNorm folded into the convolution before it.

    The outputs are the model's in evaluation mode, but for float32's rounding. The copy has the
    channels last in memory. `model` does not change. The copy has other weights than the model, so
    take `weights_hash` of the model. A model that was folded before is returned as it is.

    A BatchNorm is folded in a `GeoModel` and in an `nn.Sequential`, where a module runs on the
    output of the one listed before it. Other modules may run in another order and stay as they are.
    """
    if getattr(model, "is_folded", False):
        return model
    copied = deepcopy(model).eval()
    blocks: list[nn.Module] = []
    for part in copied.modules():
        if isinstance(part, GeoModel):
            blocks += part.modules()
        elif isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
            blocks.append(part)
    for block in blocks:
        children = list(block.named_children())
        for (_, layer), (after, norm) in zip(children, children[1:]):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layer.weight, layer.bias = fuse_conv_bn_weights(
                    layer.weight,
                    layer.bias,
                    norm.running_mean,  # type: ignore[arg-type]
                    norm.running_var,  # type: ignore[arg-type]
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
                # timm's BatchNormAct2d has the activation in it
                setattr(block, after, getattr(norm, "act", nn.Identity().eval()))
    copied.is_folded = True  # type: ignore[assignment]
    return copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
