"""Photos as tensors: one decoded photo, batches of them, and a quick check of many files."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pillow_heif
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vgeo.device import WHOLE, Share
from vgeo.errors import VgeoError, printable, result

AHEAD = 3  # batches that are decoded before they are asked for
MOST_PIXELS = 300_000_000  # of one photo: phones take 200 million
# Photos that no installed library decodes, unless they are JPEGs under such a name. Of a camera's
# raw file, most of which are TIFFs, Pillow decodes a thumbnail only.
UNDECODABLE = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
    *(".x3f", ".jxl"),
)
FilePath = str | os.PathLike[str]

pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = None  # Pillow warns from 89 million pixels on; open_image has MOST_PIXELS


def open_image(path: FilePath, formats: tuple[str, ...] | None = None) -> Image.Image:
    """A photo that Pillow or pillow-heif recognises, by its content and not by its name.

    No pixel is decoded.

    Parameters
    ----------
    formats : names that Pillow gives to file formats, None for all.

    Raises
    ------
    Exception : whatever the libraries raise, DecompressionBombError above MOST_PIXELS,
        UnidentifiedImageError where the file is `undecodable`.
    """
    image = Image.open(path, formats=formats)
    if reason := undecodable(path):
        image.close()
        raise UnidentifiedImageError(reason)
    if image.format == "EPS":  # Pillow would run Ghostscript on it
        image.close()
        raise UnidentifiedImageError("is PostScript, a program")
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"{image.width} x {image.height}")
    return image


def undecodable(path: FilePath) -> str:
    """Why a file whose ending is in UNDECODABLE can't be decoded, "" for any other and a JPEG."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in UNDECODABLE or _is_jpeg(path):
        return ""
    return f"can't be decoded ({ending}): export it as JPEG"


def _is_jpeg(path: FilePath) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(3) == b"\xff\xd8\xff"
    except OSError:
        return False


def load_image(path: FilePath, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """One photo as uint8 (3, H, W), RGB, upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB. Transparent pixels become white.

    Parameters
    ----------
    size : the side, or (height, width), that the photo is resized to, bilinear with antialiasing.

    Raises
    ------
    VgeoError : the file is missing, empty, cut off, not an image, or has too many pixels.
    """
    sides = (size, size) if isinstance(size, int) else size
    try:
        with open_image(path) as file:
            if sides:  # a JPEG decodes faster at 1/2 to 1/8, here to twice the size or more
                most = 2 * max(sides)  # both ways, because the photo is not yet upright
                file.draft("RGB", (most, most))
            file.load()
            image = _as_rgb(ImageOps.exif_transpose(file))
        if sides:
            image = image.resize(sides[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    except Exception as error:  # Pillow raises almost anything on damaged bytes
        raise unreadable_image(path, error) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        pixels = (np.asarray(image).astype(np.uint32) + 128) // 257
        image = Image.fromarray(pixels.astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known white")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def image_shape(path: FilePath) -> tuple[int, int]:
    """(height, width) of what `load_image` will return, read from the header alone."""
    try:
        with open_image(path) as image:
            width, height = image.size
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            # Pillow gives a TIFF's sides as they will be
            turned = orientation in (5, 6, 7, 8) and image.format != "TIFF"
    except Exception as error:  # as in load_image
        raise unreadable_image(path, error) from error
    return (width, height) if turned else (height, width)


def unreadable_image(path: FilePath, error: Exception) -> VgeoError:
    """The VgeoError for an image file that raised `error` when it was read."""
    if isinstance(error, FileNotFoundError):
        reason = "there is no such image: correct the path"
    elif os.path.isfile(path) and os.path.getsize(path) == 0:
        reason = "is empty (0 bytes): copy it again or remove it"
    elif unread := undecodable(path):
        reason = unread
    elif isinstance(error, UnidentifiedImageError):
        reason = "is not an image that Pillow can read: save it as JPEG or PNG, or remove it"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"has too many pixels ({one_line(error)}): save it smaller or remove it"
    else:
        reason = (
            f"can't be decoded ({one_line(error)}): copy it again, save it as 8-bit RGB, or "
            "remove it"
        )
    return VgeoError(f"{path}: {reason}")


def one_line(error: Exception) -> str:
    """The error's message in one line, its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def check_images(paths: Iterable[FilePath]) -> None:
    """Raises one VgeoError that counts the unreadable images and names the first.

    It is quick, for the start of long work. A file that begins and ends as a JPEG or PNG does is
    taken as whole, because a file that was cut off has lost its end. Any other file is decoded.
    Damage between a right beginning and a right end is left to `load_image`.
    """
    paths = list(paths)
    for path, reason in (bad := unreadable(paths)):
        raise VgeoError(f"{path}: {reason} ({len(bad)} of {len(paths)} images can't be read)")


def problem(path: FilePath) -> VgeoError | None:
    """Why an image can't be read, None where `check_images` takes it."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(-4, os.SEEK_END)
            end = file.read()
        jpeg = start[:3] == b"\xff\xd8\xff" and end[2:] == b"\xff\xd9"
        png = start == b"\x89PNG" and end == b"\xaeB`\x82"
        if not (jpeg or png) or undecodable(path):
            load_image(path, 1)  # all pixels are decoded, the tensor is small
    except VgeoError as error:
        return error
    except OSError as error:
        return unreadable_image(path, error)
    return None


def unreadable(
    paths: Iterable[FilePath], test: Callable[[FilePath], VgeoError | None] = problem
) -> list[tuple[str, str]]:
    """[(path, why)] of the images that a test, run by threads, finds something wrong with."""
    paths = list(paths)
    with ThreadPoolExecutor() as pool:
        errors = zip(paths, pool.map(test, paths), strict=True)
        return [(os.fspath(path), why(error, path)) for path, error in errors if error]


def why(error: VgeoError, path: object) -> str:
    """What a VgeoError says of a file, without the file's name in front."""
    return str(error).removeprefix(f"{printable(path)}: ")


def load_batches(
    paths: Iterable[FilePath],
    batch_size: int,
    size: int | None,
    workers: int | None = None,
    scale: float = 1.0,
    share: Share = WHOLE,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yields batches of photos, decoded by threads up to AHEAD batches before they are asked for.

    With a size, the batches are the photos in the order of `paths`. Without one, the photos of a
    batch have one height and width, and sizes follow each other in the order of their first photos.

    Parameters
    ----------
    size : the side that photos are resized to, None for each photo's own size times `scale`.
    workers : threads, by default one for each core. They end when the consumer stops.
    share : which of the batches to yield, where several processes divide them.

    Yields
    ------
    rows : int64 (B,), the photos' places in `paths`.
    images : uint8 (B, 3, H, W), see `load_image`.

    Raises
    ------
    VgeoError : as `load_image` does.
    """
    paths = list(paths)
    ahead: deque[tuple[list[int], list[Future[torch.Tensor]]]] = deque()
    pool = ThreadPoolExecutor(workers or os.cpu_count())

    def decoded() -> tuple[np.ndarray, torch.Tensor]:
        rows, futures = ahead.popleft()
        images = [result(future, paths[row]) for future, row in zip(futures, rows, strict=True)]
        return np.array(rows), torch.stack(images)

    def scaled(height: int, width: int) -> tuple[int, int] | None:
        return None if scale == 1 else (round(height * scale), round(width * scale))

    try:
        groups: dict[Any, list[int]] = {}
        for row, shape in enumerate([size] * len(paths) if size else pool.map(image_shape, paths)):
            groups.setdefault(shape, []).append(row)
        batches = [
            (size or scaled(*shape), group[start : start + batch_size])
            for shape, group in groups.items()
            for start in range(0, len(group), batch_size)
        ]
        for target, rows in share.of(batches):
            images = [pool.submit(load_image, paths[row], target) for row in rows]
            ahead.append((rows, images))
            if len(ahead) > AHEAD:
                yield decoded()
        while ahead:
            yield decoded()
    finally:
        pool.shutdown(cancel_futures=True)
