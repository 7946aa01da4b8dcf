"""Descriptors of images: one forward pass each."""

import numpy as np
import torch
from tqdm.auto import tqdm

from vgeo.datasets import load_batches
from vgeo.models import normalise


def device():
    """The accelerator when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(model, paths, size, scale=1.0, brightness=1.0, batch_size=32, progress=None):
    """Descriptors, float32 (len(paths), D), of image files in their order; the model runs in evaluation mode where it lies.

    size: images are resized to round(size * scale) pixels, both sides; None keeps their own size and batches equal ones. brightness
    multiplies the pixel values (0 to 255, rounded) before they are normalised. progress: words before a bar, or None for no bar.
    """
    where = next(model.parameters()).device
    was_training = model.training
    model.eval().to(memory_format=torch.channels_last)
    found = None
    try:
        with torch.inference_mode(), tqdm(total=len(paths), desc=progress, unit=" images", disable=progress is None, leave=False) as bar:
            for indices, images in load_batches(paths, batch_size, size and round(size * scale)):
                images = images.to(where)
                if brightness != 1.0:
                    images = (images.float() * brightness).round().clamp(0, 255).to(torch.uint8)
                batch = model(normalise(images).contiguous(memory_format=torch.channels_last)).cpu().numpy()
                found = np.empty((len(paths), batch.shape[1]), np.float32) if found is None else found
                found[indices] = batch
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return found
