"""The network: a torchvision backbone, GeM pooling and a linear layer make one unit descriptor per image (CosPlace)."""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vgeo.errors import VgeoError
from vgeo.models.weights import CITY_WEIGHTS, _imagenet_state, load_weights, weights_hash

BACKBONES = {  # name: (constructor, ImageNet weights, channels of the last feature map)
    "resnet18": (
        torchvision.models.resnet18,
        torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
        512,
    ),
    "efficientnet_v2_s": (
        torchvision.models.efficientnet_v2_s,
        torchvision.models.EfficientNet_V2_S_Weights.IMAGENET1K_V1,
        1280,
    ),
}


DIM = 512  # numbers of a descriptor


TRUNK = 6  # stages: ResNet18 up to layer2 (stride 8), EfficientNetV2-S up to the sixth of its eight blocks (stride 16)


IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


class L2Norm(nn.Module):
    """Divides by the L2 norm over dimension 1."""

    def forward(self, x):
        return F.normalize(x, dim=1)


class GeM(nn.Module):
    """Generalised mean, mean(x^p)^(1/p), p learned: (B, C, H, W) -> (B, C, 1, 1) (Radenovic et al., 2019, eq. 3)."""

    def __init__(self, p=3.0, eps=1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, x):
        return x.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3), keepdim=True).pow(1 / self.p)


class GeoModel(nn.Module):
    """Backbone and head, with the parameter names of the public CosPlace code; make it with `build`.

    The backbone is a sequence of eight `stages`; the first six, the trunk, are what `freeze` freezes.
    """

    def __init__(self, backbone_name, net, channels, dim):
        super().__init__()
        self.backbone_name = backbone_name
        self.backbone = nn.Sequential(*list(net.children())[:-2])  # without pooling and classifier
        self.aggregation = nn.Sequential(
            L2Norm(), GeM(), nn.Flatten(), nn.Linear(channels, dim), L2Norm()
        )
        self.frozen = False

    @property
    def stages(self):
        return self.backbone if self.backbone_name == "resnet18" else self.backbone[0]

    def features(self, images, stages=None):
        """Feature map (B, C, h, w) after so many stages, or all, of float images as `forward` takes them."""
        return self.stages[:stages](images)

    def trunk(self, images):
        """What the frozen stages make of float images (B, 3, H, W): (B, C, h, w). Equal in all models that share a start."""
        return self.features(images, TRUNK)

    def upper(self, trunk):
        """Feature map (B, C, H / 32, W / 32, rounded up) from the trunk's."""
        return self.stages[TRUNK:](trunk)

    def head(self, features):
        """Descriptors (B, dim) from the last feature map, float32 of unit length.

        Under autocast only the backbone runs in the lower precision: descriptors are compared by distances that are
        small beside its rounding.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.aggregation(features.float())

    def forward(self, images):
        """Descriptors (B, dim), float32 of unit length, of `normalise`d images (B, 3, H, W)."""
        return self.head(self.upper(self.trunk(images)))

    def train(self, mode=True):
        """As nn.Module's; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.stages[:TRUNK].eval()
        return self


def build(backbone, weights=None, dim=DIM):
    """The model for `backbone` ("resnet18" or "efficientnet_v2_s") with descriptors of `dim` numbers, in training mode.

    weights: None, random; "city", the weights that come with the package; "imagenet", torchvision's for the
    backbone and a random head; or the path of a file that `save_weights` wrote. Raises VgeoError for an unknown
    backbone, weights that do not fit and ImageNet weights that can be neither found nor downloaded.
    """
    if backbone not in BACKBONES:
        raise VgeoError(f"unknown backbone {backbone!r}: use one of {', '.join(BACKBONES)}")
    constructor, imagenet, channels = BACKBONES[backbone]
    state = _imagenet_state(imagenet.url) if weights == "imagenet" else None
    net = constructor()
    if state:
        net.load_state_dict(state)
    model = GeoModel(backbone, net, channels, dim)
    if weights == "city":
        load_weights(model, CITY_WEIGHTS / f"{backbone}.safetensors")
    elif weights not in (None, "imagenet"):
        load_weights(model, weights)
    return model


def freeze(model):
    """Stop the training of the trunk, as CosPlace does: what it learned on ImageNet is kept.

    ResNet18 trains `layer3`, `layer4` and the head; EfficientNetV2-S the last two blocks of `features` and the
    head. Unlike the original, the trunk's BatchNorm keeps its statistics too: the same image then has the same trunk
    features in every model that started alike, and they are computed once for all of them.
    """
    model.frozen = True
    model.stages[:TRUNK].requires_grad_(False)
    model.train(model.training)


def trunk_hash(model):
    """SHA-256 of the trunk: models that share it share the trunk features of an image."""
    return weights_hash(model.stages[:TRUNK])


def normalise(images):
    """uint8 images (B, 3, H, W) in RGB, 0 to 255 -> float32 with ImageNet's mean and deviation, on the same device."""
    if images.dtype != torch.uint8:
        raise VgeoError(
            f"images are {images.dtype}, not uint8: normalise them once, from the values 0 to 255"
        )
    mean, std = (
        torch.tensor(x, device=images.device).view(3, 1, 1) * 255
        for x in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return images.float().sub_(mean).div_(std)
