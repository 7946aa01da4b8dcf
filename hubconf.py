"""For torch.hub: `torch.hub.load("path/to/the/clone", "resnet18", source="local")` returns a model that describes photos."""

dependencies = ["torch", "torchvision", "safetensors"]


def resnet18(weights="city"):
    """GeoModel in evaluation mode: normalised images (B, 3, H, W) -> descriptors (B, 512) of unit length (`vgeo.models`).

    weights: "city", the package's starting weights; "imagenet", with a random head; or a file: .safetensors of a training of ours, or .pth
    of CosPlace's or the report's authors.
    """
    return _model("resnet18", weights)


def efficientnet_v2_s(weights="city"):
    """As `resnet18`, with EfficientNetV2-S."""
    return _model("efficientnet_v2_s", weights)


def _model(backbone, weights):
    from vgeo.checkpoints import read_pth
    from vgeo.errors import VgeoError
    from vgeo.models import build

    if not str(weights).endswith(".pth"):
        return build(backbone, weights).eval()
    found, model, *_ = read_pth(weights)
    if found != backbone:
        raise VgeoError(f"{weights}: is of a {found}, not {backbone}: call {found}")
    return model
