"""TODO: photos.images."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from vgeo.device import WHOLE
from vgeo.errors import VgeoError, result

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def image_paths(folder: str) -> list[str]:
    """The image files at any depth below `folder`, sorted."""

    def unreadable(error):
        raise VgeoError(
            f"{error.filename}: can't be listed ({error.strerror}): correct its permissions or remove it"
        )

    paths = []
    for where, below, names in os.walk(folder, onerror=unreadable, followlinks=True):
        for link in filter(os.path.islink, (os.path.join(where, name) for name in below)):
            if f"{os.path.realpath(where)}/".startswith(f"{os.path.realpath(link)}/"):
                raise VgeoError(f"{link}: leads back to a folder that it lies in: remove the link")
        paths += [
            os.path.join(where, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and name[0] != "."
        ]  # "._x.jpg": what macOS leaves beside x.jpg
    return sorted(paths)


def one_line(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def load_image(path, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """One photo as uint8 (3, H, W) RGB, 0 to 255, upright by its EXIF orientation.

    size: resized to size x size or to (height, width), bilinear with antialiasing. Grey, palette, CMYK and 16-bit images become 8-bit RGB;
    what is transparent becomes white. Raises VgeoError naming a file that is missing, empty, cut off, not an image,
    or too large.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    try:
        with Image.open(path) as image:
            if size:
                side = 2 * max(height, width)  # both ways: what is drafted is not yet upright
                image.draft("RGB", (side, side))  # a JPEG decodes at 1/2 to 1/8, still 2 x size
            image.load()
            image = as_rgb(ImageOps.exif_transpose(image))
        if size:
            image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except Exception as error:  # Pillow raises almost anything on damaged bytes
        raise unreadable_image(path, error) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray(
            ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        )
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known white")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def unreadable_image(path, error) -> VgeoError:
    if isinstance(error, FileNotFoundError):
        return VgeoError(f"{path}: there is no such image: correct the path")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return VgeoError(f"{path}: is empty (0 bytes): copy it again or remove it")
    if isinstance(error, UnidentifiedImageError):
        return VgeoError(
            f"{path}: is not an image that Pillow can read: save it as JPEG or PNG, or remove it"
        )
    if isinstance(error, Image.DecompressionBombError):
        return VgeoError(
            f"{path}: has too many pixels ({one_line(error)}): save it smaller or remove it"
        )
    return VgeoError(
        f"{path}: can't be decoded ({one_line(error)}): copy it again, save it as 8-bit RGB, or remove it"
    )


def check_images(paths) -> None:
    """Raises one VgeoError that counts the unreadable images and names the first; quick, for the start of long work.

    A file that starts and ends as a JPEG or PNG does is taken as whole, since one that was cut off has lost its end;
    any other is decoded. Damage between a right start and a right end is left to `load_image`.
    """
    paths = list(paths)

    def problem(path):
        try:
            with open(path, "rb") as file:
                start = file.read(4)
                file.seek(-4, os.SEEK_END)
                end = file.read()
            if (start[:3], end[2:]) == (b"\xff\xd8\xff", b"\xff\xd9") or (start, end) == (
                b"\x89PNG",
                b"\xaeB`\x82",
            ):
                return None
            load_image(path)
        except VgeoError as error:
            return error
        except OSError as error:
            return unreadable_image(path, error)

    with ThreadPoolExecutor() as pool:
        problems = [error for error in pool.map(problem, paths) if error]
    if problems:
        raise VgeoError(f"{problems[0]} ({len(problems)} of {len(paths)} images can't be read)")


def load_batches(
    paths,
    batch_size: int,
    size: int | None,
    workers: int | None = None,
    scale: float = 1.0,
    part=WHOLE,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yields `(indices, images)`: int64 (B,) places in `paths` and uint8 (B, 3, H, W), each as `load_image` gives it.

    With a size, the batches are `paths` in order. With size None each batch holds images of one height and width, their
    own times `scale`, and the sizes follow each other in the order of their first images. workers: threads, by default one a core; they
    decode up to three batches ahead of the consumer and end when it stops. part: of the batches, for one of several processes. Raises
    `load_image`'s errors.
    """
    paths, ahead = list(paths), deque()
    pool = ThreadPoolExecutor(workers or os.cpu_count())

    def next_batch():
        batch, images = ahead.popleft()
        return batch, torch.stack(
            [result(image, paths[index]) for index, image in zip(batch, images)]
        )

    try:
        groups = {}
        for index, shape in enumerate(
            [size] * len(paths) if size else pool.map(image_shape, paths)
        ):
            groups.setdefault(shape, []).append(index)
        batches = [
            (shape, group[start : start + batch_size])
            for shape, group in groups.items()
            for start in range(0, len(group), batch_size)
        ]
        for shape, batch in part.of(batches):
            target = size or (None if scale == 1 else tuple(round(side * scale) for side in shape))
            ahead.append(
                (
                    np.array(batch),
                    [pool.submit(load_image, paths[index], target) for index in batch],
                )
            )
            if len(ahead) > 3:
                yield next_batch()
        while ahead:
            yield next_batch()
    finally:
        pool.shutdown(cancel_futures=True)


def image_shape(path) -> tuple[int, int]:
    """(height, width) as `load_image` will return it, from the header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
    except Exception as error:  # as in load_image
        raise unreadable_image(path, error) from error
    return (width, height) if turned else (height, width)
