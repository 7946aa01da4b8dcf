"""Which files of a folder are photos: by their endings, or by their content where these are odd."""

import os

from vgeo.errors import VgeoError, say
from vgeo.photos.images import open_image, undecodable, why

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k"),
)
# What a file of any other ending is opened as. Pillow's other formats are no photos.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF", "JPEG2000")
# Files of other programs that may begin as photos do: copies, parts of downloads, thumbnails.
COPIES = ("_original", "~", ".bak", ".tmp", ".part", ".crdownload", ".download", ".thm", ".db")
# Folders in which other programs keep small copies of photos, or deleted ones.
OTHERS = {
    *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "__macosx"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found", "recently deleted"),
    *("trash", "thumbnails", "thumbs", "_thumbs", "cache", "ipod photo cache", "node_modules"),
}
OTHER_STARTS = ("appdata_",)  # Nextcloud's
OTHER_ENDINGS = (".lrdata", ".lrlibrary", ".cocatalog", ".aplibrary")


def photo_files(folder: str) -> tuple[list[str], dict[str, str]]:
    """The photos at any depth below a folder, in sorted order, and what is left out.

    A file whose ending is in SUFFIXES is a photo without being opened. A file of another ending is
    one if it begins as one of FORMATS does. Files and folders of other programs are neither photos
    nor left out: names that begin with a dot, COPIES, OTHERS, OTHER_STARTS, OTHER_ENDINGS. A line
    counts such folders.

    Returns
    -------
    The paths of the photos, and {path: why} of the photos that no installed library decodes, the
    folders that can't be listed, and the links that lead back to a folder that they lie in.

    Raises
    ------
    VgeoError : the folder itself can't be listed.
    """
    paths, unread = [], []
    left_out: dict[str, str] = {}

    def leave_out(error: OSError) -> None:
        fault = unlistable(error)
        if error.filename == folder:
            raise fault
        left_out[error.filename] = why(fault, error.filename)

    for parent, folders, names in os.walk(folder, onerror=leave_out, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        others = [name for name in folders if _of_other_programs(parent, name)]
        unread += [os.path.join(parent, name) for name in others]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        back = [name for name in links if _leads_back(os.path.join(parent, name), folder)]
        for name in back:
            reason = "leads back to a folder that it lies in: remove the link"
            left_out[os.path.join(parent, name)] = reason
        folders[:] = [name for name in folders if name not in {*others, *back}]
        for name in names:
            path, lower = os.path.join(parent, name), name.lower()
            if name.startswith(".") or lower.endswith(COPIES):
                continue
            if reason := undecodable(path):
                left_out[path] = reason
            elif lower.endswith(SUFFIXES) or _begins_as_a_photo(path):
                paths.append(path)
    if unread:
        say(
            f"{folder}: {len(unread)} folders are not read, such as {min(unread)}: other programs "
            "give these names, rename those that hold photos"
        )
    return sorted(paths), left_out


def _leads_back(link: str, top: str) -> bool:
    """Whether a link leads to a folder that was walked through from `top` on, or to one above."""
    target = os.path.join(os.path.realpath(link), "")
    above = os.path.dirname(link)
    while True:
        if os.path.join(os.path.realpath(above), "").startswith(target):
            return True
        if len(above) <= len(top):
            return False
        above = os.path.dirname(above)


def _of_other_programs(parent: str, folder: str) -> bool:
    lower = folder.lower()
    if lower in OTHERS or lower.startswith(OTHER_STARTS) or lower.endswith(OTHER_ENDINGS):
        return True
    return lower != "originals" and parent.lower().endswith(".photoslibrary")  # Apple's


def _begins_as_a_photo(path: str) -> bool:
    try:
        open_image(path, FORMATS).close()
    except Exception:  # whatever Pillow raises on bytes that are no photo, or what can't be opened
        return False
    return True


def unlistable(error: OSError) -> VgeoError:
    """The VgeoError for a folder whose files can't be listed."""
    return VgeoError(
        f"{error.filename}: can't be listed ({error.strerror}): correct its permissions or "
        "remove it"
    )


def refuse(skipped: dict[str, str], count: int) -> None:
    """Raises a VgeoError that names the first skipped photo of `count`, if there is one."""
    for path, reason in skipped.items():
        raise VgeoError(f"{path}: {reason} ({len(skipped)} of {count} photos can't be used)")
