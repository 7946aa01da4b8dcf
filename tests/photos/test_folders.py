"""Which files are photos: by ending and by content; other programs' files are not."""

import os
import shutil

import pytest
from PIL import Image

from vgeo.photos.folders import photo_files
from vgeo.photos.tables import read_photos

PLACE = (37.77, -122.42)


def test_images_are_listed_at_any_depth(tmp_path, refused):
    for name in ("b.jpg", "a/c.PNG", "a/b/d.tiff", "a/._c.PNG", "readme.txt", "a/jpg", "e.DNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a" / "b")
    paths, left_out = photo_files(str(tmp_path))
    listed = [os.path.relpath(path, tmp_path) for path in paths]
    assert listed == ["a/b/d.tiff", "a/c.PNG", "b.jpg", "elsewhere/d.tiff"]
    assert left_out == {str(tmp_path / "e.DNG"): "can't be decoded (.dng): export it as JPEG"}
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found, left_out = photo_files(str(tmp_path))
    assert found == paths and "leads back" in left_out[str(tmp_path / "a" / "loop")]
    none = str(tmp_path / "none")
    refused(lambda: photo_files(none), none, "can't be listed")


def test_a_folder_that_can_t_be_listed_is_left_out(tmp_path, monkeypatch):
    for name in ("a.jpg", "locked/b.jpg", "open/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = os.scandir

    def scandir(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    paths, left_out = photo_files(str(tmp_path))
    assert [os.path.basename(path) for path in paths] == ["a.jpg", "c.jpg"]
    assert left_out.keys() == {str(tmp_path / "locked")}
    assert "can't be listed (Permission denied)" in left_out[str(tmp_path / "locked")]


@pytest.mark.parametrize("inside", ["", "x/y"])
def test_links_between_two_folders_are_a_loop(tmp_path, inside):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a / inside, b):
        folder.mkdir(parents=True, exist_ok=True)
    (a / "0.jpg").touch()
    (a / inside / "b").symlink_to(b)
    assert len(photo_files(str(a))[0]) == 1
    for name, target in (("a", a), ("top", "/")):
        (b / name).symlink_to(target)
        paths, left_out = photo_files(str(a))
        assert paths == [str(a / "0.jpg")]
        assert left_out.keys() == {str(a / inside / "b" / name)}
        (b / name).unlink()


@pytest.mark.parametrize(
    "name, kind",
    [
        ("a.HEIC", "HEIF"),
        ("a.avif", "AVIF"),
        ("a.heic", "JPEG"),  # as an export of an album writes them
        ("a.jpe", "JPEG"),
        ("a.jfif", "JPEG"),
        ("a.photo", "JPEG"),
        ("a.DNG", "JPEG"),  # as a photo app may name its copies
        ("a", "PNG"),
        ("a.jp2", "JPEG2000"),
        ("a.gif", "GIF"),
    ],
)
def test_every_image_is_a_photo_whatever_its_ending(tmp_path, make_photos, name, kind):
    (path,) = make_photos(tmp_path, [PLACE], kind="exif", stem="x")
    with Image.open(path) as image:
        held = kind in ("HEIF", "AVIF", "JPEG", "PNG")
        options = {"exif": image.getexif().tobytes()} if held else {}
        image.save(tmp_path / name, kind, **options)
    path.unlink()
    assert photo_files(str(tmp_path)) == ([str(tmp_path / name)], {})
    if held:
        assert read_photos(tmp_path).zone == 10


def test_albums_of_apple_and_nextcloud_are_read_without_their_small_copies(tmp_path):
    names = ("x.photoslibrary/originals/1/a.jpg", "y/b.jpg")
    small = ("x.photoslibrary/resources/derivatives/a.jpg", "y/appdata_oc1/preview/b.jpg")
    for name in (*names, *small):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert photo_files(str(tmp_path))[0] == [str(tmp_path / name) for name in names]


def test_files_of_other_programs_are_no_photos(tmp_path, make_photos, capsys):
    (path,) = make_photos(tmp_path, [PLACE], kind="exif")
    for other in (
        *("@eaDir/x.jpg/SYNOFILE_THUMB_XL.jpg", ".thumbnails/1.jpg", "#recycle/1.jpg"),
        *("$RECYCLE.BIN/1.jpg", "__MACOSX/1.jpg", "Previews.lrdata/1.jpg", "thumbs/1.jpg"),
        *("000.jpg_original", "000.jpg~", "000.THM", "Thumbs.db", "000.jpg.part"),
    ):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / other)
    for name in ("000.jpg.json", "000.xmp", "desktop.ini", "000.MOV"):
        (tmp_path / name).write_text("BM: not a photo")
    assert photo_files(str(tmp_path)) == ([str(path)], {})
    words = f"{tmp_path}: 6 folders are not read, such as {tmp_path / '#recycle'}: "
    assert words in (said := capsys.readouterr().out) and said.count("\n") == 1
    # A folder that is given itself is read, whatever its name.
    assert photo_files(str(tmp_path / "thumbs"))[0] == [str(tmp_path / "thumbs/1.jpg")]
