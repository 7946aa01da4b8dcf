"""Photos as tensors: every kind of image, resizing, what can't be read, batches."""

import os
import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from vgeo.device import Share
from vgeo.photos.exif import read_exif
from vgeo.photos.images import AHEAD, check_images, image_shape, load_batches, load_image


def photo(path, side=16, seed=0, **options):
    """A smooth random photo, written to `path`; its pixels as (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    image.save(path, **options)
    return np.asarray(image)


def pixels(path, size=None):
    return load_image(path, size).permute(1, 2, 0).numpy()


# One photo


def test_every_kind_of_image_becomes_rgb(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "sixteen.tif")
    for name in ("grey.png", "sixteen.png", "sixteen.tif"):
        image = load_image(tmp_path / name)
        assert image.dtype == torch.uint8 and image.shape == (3, 16, 16) and image.is_contiguous()
        assert (image.numpy() == ramp).all()

    colours = photo(tmp_path / "rgb.png")
    no_black = np.zeros_like(colours[..., :1])
    cmyk = np.concatenate([255 - colours, no_black], -1)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert np.abs(pixels(tmp_path / "cmyk.jpg").astype(int) - colours).max() <= 8

    alpha = np.where(ramp[..., None] < 128, 0, 255).astype(np.uint8)
    Image.fromarray(np.concatenate([colours, alpha], -1)).save(tmp_path / "alpha.png")
    white = np.where(alpha == 0, 255, colours)
    assert (pixels(tmp_path / "alpha.png") == white).all()
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff")
    assert pixels(tmp_path / "palette.png").tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 2), (6, -1), (8, 1), (9, 0)])
def test_photos_stand_upright(tmp_path, orientation, turn, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[:10, :15] = 255, 0, 0
    file = tmp_path / f"x{suffix}"
    Image.fromarray(stored).save(file, exif=exif)
    upright = np.rot90(stored, turn)
    assert (pixels(file) == upright).all()
    assert image_shape(file) == upright.shape[:2]
    small = pixels(file, 10)
    assert small[2, 2].tolist() == upright[4, 5].tolist()
    assert small[7, 7].tolist() == upright[15, 15].tolist()
    Image.fromarray(upright).save(tmp_path / "y.png")
    [(_, batch)] = load_batches([file, tmp_path / "y.png"], 2, None)
    assert torch.equal(batch[0], batch[1])


def test_resizing_is_antialiased_also_where_a_jpeg_is_decoded_smaller(tmp_path):
    photo(tmp_path / "x.png", side=256)
    photo(tmp_path / "x.jpg", side=256, quality=95, subsampling=0)
    full = load_image(tmp_path / "x.png")[None].float()
    options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    expected = torch.nn.functional.interpolate(full, (32, 32), **options)[0]
    for name in ("x.png", "x.jpg"):
        assert (load_image(tmp_path / name, 32).float() - expected).abs().max() <= 6
    # A board finer than the small image can show becomes grey.
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    assert (load_image(tmp_path / "board.png", 32).float() - 127.5).abs().max() <= 2
    assert load_image(tmp_path / "x.jpg", (20, 30)).shape == (3, 20, 30)


def test_unreadable_images(tmp_path, refused, monkeypatch):
    good = tmp_path / "good.jpg"
    photo(good, side=64)
    photo(tmp_path / "good.png", side=64)
    bad = {
        tmp_path / "empty.jpg": b"",
        tmp_path / "text.jpg": b"no image\n" * 99,
        tmp_path / "tiny.jpg": b"x",
    }
    for suffix in (".jpg", ".png"):
        content = good.with_suffix(suffix).read_bytes()
        bad[tmp_path / f"cut{suffix}"] = content[: len(content) * 2 // 3]
        bad[tmp_path / f"last{suffix}"] = content[:-2]
        bad[tmp_path / f"head{suffix}"] = content[:20]
    for path, content in bad.items():
        path.write_bytes(content)
        if path.name != "last.png":  # all of its pixels are there
            refused(partial(load_image, path), path, ": ", " or ")
            check = partial(check_images, [good, path, path])
            refused(check, path, "(2 of 3 images can't be read)")
    for read in (load_image, image_shape, lambda path: check_images([path])):
        refused(partial(read, tmp_path / "none.jpg"), "none.jpg: there is no such image")
        refused(partial(read, tmp_path / "empty.jpg"), "empty.jpg: is empty (0 bytes)")
    refused(lambda: list(load_batches([good, tmp_path / "empty.jpg"], 1, 8)), "is empty (0 bytes)")
    refused(lambda: list(load_batches([good, tmp_path / "text.jpg"], 1, None)), "is not an image")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    refused(lambda: load_image(tmp_path / "float.tif"), "float.tif", "save it as 8-bit RGB")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "phone.png")  # beyond Pillow's own limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(tmp_path / "phone.png", 8).shape == (3, 8, 8)
    Image.new("L", (8, 8)).save(tmp_path / "whole.bmp")
    check_images([good, tmp_path / "good.png", tmp_path / "whole.bmp"])
    monkeypatch.setattr("vgeo.photos.images.MOST_PIXELS", 63)
    refused(lambda: load_image(tmp_path / "whole.bmp"), "whole.bmp", "too many pixels (8 x 8)")


def test_an_odd_orientation_is_none(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    short, undefined = b"\x00\x03\x00\x00\x00\x01\x00\x06", b"\x00\x07\x00\x00\x00\x01\x06\x00"
    written = exif.tobytes().replace(short, undefined)
    Image.new("RGB", (30, 20)).save(tmp_path / "x.jpg", exif=written)
    assert Image.open(tmp_path / "x.jpg").getexif()[ExifTags.Base.Orientation] == b"\x06"
    assert image_shape(tmp_path / "x.jpg") == load_image(tmp_path / "x.jpg").shape[1:] == (20, 30)


def test_postscript_is_no_photo_and_is_not_run(tmp_path, refused, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", pytest.fail)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    photo = (tmp_path / "x.eps").rename(tmp_path / "x.jpg")
    for read in (load_image, image_shape):
        refused(partial(read, photo), photo, "is not an image")


def test_the_thumbnail_of_a_raw_file_is_no_photo(tmp_path, refused):
    """Raw files of cameras are TIFF files whose first image is a thumbnail."""
    raw = tmp_path / "x.DNG"
    photo(raw, format="TIFF")
    for read in (load_image, image_shape, read_exif, lambda path: check_images([path])):
        refused(partial(read, raw), f"{raw}: can't be decoded (.dng): export it as JPEG")
    refused(lambda: check_images([raw]), "can't be decoded (.dng)")
    photo(raw, format="JPEG")
    check_images([raw])
    assert image_shape(raw) == load_image(raw).shape[1:]
    refused(lambda: load_image(tmp_path / "none.dng"), "there is no such image")


# Batches


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Photos of two sizes."""
    folder = tmp_path_factory.mktemp("mixed")
    sides = [8, 12, 8, 8, 12, 12, 8, 8, 12, 8, 12]
    paths = [folder / f"{i}.png" for i in range(len(sides))]
    for i, path in enumerate(paths):
        photo(path, sides[i], seed=i)
    return paths


@pytest.mark.parametrize("size, scale", [(6, 1), (None, 1), (None, 1.7), (6, 1.7)])
def test_batches_equal_single_loads(mixed, size, scale):
    batches = list(load_batches(mixed, 3, size, workers=2, scale=scale))
    order = np.concatenate([rows for rows, _ in batches])
    assert sorted(order) == list(range(len(mixed))) and max(map(len, batches)) <= 3
    assert size is None or list(order) == list(range(len(mixed)))
    for rows, images in batches:
        assert rows.dtype == np.int64 and images.dtype == torch.uint8 and len(images) == len(rows)
        for row, image in zip(rows, images, strict=True):
            own = load_image(mixed[row]).shape[1:]
            target = size or tuple(round(side * scale) for side in own)
            assert torch.equal(image, load_image(mixed[row], target))
    assert list(load_batches([], 3, size)) == []


@pytest.mark.parametrize("size", [6, None])
def test_the_shares_of_the_batches_are_all_of_them(mixed, size):
    whole = [rows.tolist() for rows, _ in load_batches(mixed, 2, size)]
    for index in range(3):
        share = load_batches(mixed, 2, size, share=Share(index, 3))
        assert [rows.tolist() for rows, _ in share] == whole[index::3]


def test_batches_read_ahead_a_little_and_stop_with_their_consumer(tmp_path):
    photo(tmp_path / "x.png")
    before, opened = threading.active_count(), []

    class Counted(os.PathLike):
        def __fspath__(self):
            opened.append(1)
            return str(tmp_path / "x.png")

    batches = load_batches([Counted() for _ in range(1000)], 4, 8, workers=2)
    assert opened == []
    next(batches)
    batches.close()
    assert threading.active_count() == before and 4 <= len(opened) <= 4 * (AHEAD + 1) * 2
