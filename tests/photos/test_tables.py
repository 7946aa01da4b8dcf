"""Data sets: names and tables, photos of every kind, classes, positives, and the words for what is wrong."""

import itertools
import math
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Geod, Transformer

from vgeo.photos.images import check_images, load_batches, load_image
from vgeo.photos.places import cosplace_classes, open_dataset, positives
from vgeo.photos.names import format_name, parse_name
from vgeo.photos.tables import read_photos
from vgeo.errors import VgeoError


def photo(path, side=16, seed=0, **how):
    """A smooth random photo, written to `path`; its pixels as (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    image.save(path, **how)
    return np.asarray(image)


def named(folder, east, north, heading=0.0, pano="p", zone=10):
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / format_name(east, north, zone, "S", pano, heading, 201704)
    path.touch()
    return path


def refused(call, *words):
    """Asserts that `call` raises a VgeoError of one line with these words."""
    with pytest.raises(VgeoError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


# Names

text = st.text(st.sampled_from("abzAZ09-_ ."), max_size=8)
months = st.integers(1990, 2030).flatmap(
    lambda year: st.sampled_from([0, *range(100 * year + 1, 100 * year + 13)])
)
places = st.tuples(
    st.floats(200_000, 800_000), st.floats(3_600_000, 4_400_000), st.integers(1, 60)
)  # band S


@settings(deadline=None)
@given(places, text, st.one_of(st.just(math.nan), st.floats(0, 359.99)), months, text)
def test_names_come_back_and_agree_with_epsg(place, pano, heading, month, note):
    east, north, zone = place
    name = format_name(east, north, zone, "S", pano, heading, month, note=note)
    fields = parse_name(name)
    assert abs(fields["utm_east"] - east) <= 0.0051 and abs(fields["utm_north"] - north) <= 0.0051
    exact = {"zone": zone, "letter": "S", "pano": pano, "month": month, "note": note}
    assert {key: fields[key] for key in exact} == exact
    assert fields["heading"] == pytest.approx(heading, abs=0.0051, nan_ok=True)
    lat, lon = Transformer.from_crs(f"EPSG:{32600 + zone}", "EPSG:4326").transform(east, north)
    assert fields["lat"] == pytest.approx(lat, abs=6e-6) and fields["lon"] == pytest.approx(
        lon, abs=6e-6
    )
    # Written again, the fields give the same name.
    again = format_name(fields["utm_east"], fields["utm_north"], heading=fields["heading"], **exact)
    assert again == name


def test_names_are_padded_as_the_originals():
    tail = {"pano": "p", "heading": 0, "month": 202011}
    name = "@0552400.47@4173551.91@10@S@037.70771@-122.40552@p@@0@@@@202011@@.jpg"
    assert format_name(552400.47, 4173551.91, 10, "S", **tail) == name
    assert "@035.65576@0139.69881@" in format_name(382216.21, 3946548.54, 54, "S", **tail)
    # South of the equator on its zone's central meridian, where the scale is 0.9996 exactly.
    arc = Geod(ellps="WGS84").inv(153, 0, 153, -3)[2]
    assert "@-03.00000@0153.00000@" in format_name(500_000, 1e7 - 0.9996 * arc, 56, "M", **tail)


def test_a_name_without_heading_and_month_with_jpg_within():
    fields = parse_name(
        "some/folder/@0382216.21@3946548.54@54@S@035.65576@0139.69881@00441.jpg@@@@@@@@.jpg"
    )
    assert math.isnan(fields["heading"]) and fields["month"] == 0 and fields["pano"] == "00441.jpg"


@pytest.mark.parametrize(
    "written, heading", [("-90", 270), ("360", 0), ("359.999999", 0), ("0", 0), ("359.5", 359.5)]
)
def test_headings_lie_in_one_turn(written, heading):
    name = f"@0552400.47@4173551.91@10@S@037.70771@-122.40552@p@@{written}@@@@@@.jpg"
    assert parse_name(name)["heading"] == heading


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("@0552400.47", "", "the name is not @utm_east@"),
        ("@0552400.47@4173551.91", "@nan@4173551.91", "utm_east is 'nan'"),
        ("4173551.91", "inf", "utm_north is 'inf'"),
        ("0552400.47", "", "utm_east is ''"),
        ("0552400.47", "5552400.47", "out of range"),
        ("@10@", "@61@", "zone 61"),
        ("@S@", "@I@", "letter 'I'"),
        ("@120@", "@361@", "heading 361"),
        ("@120@", "@east@", "heading is 'east'"),
        ("202011", "202013", "month 202013"),
        (".jpg", ".txt", "the name is not"),
    ],
)
def test_bad_names(old, new, word):
    name = "@0552400.47@4173551.91@10@S@037.70771@-122.40552@p@@120@@@@202011@@.jpg"
    parse_name(name)
    refused(lambda: parse_name(name.replace(old, new)), name.replace(old, new), word)


# Tables


def test_csv_forms_equal_the_names(tmp_path):
    rng = np.random.default_rng(0)
    for i, (east, north) in enumerate(
        rng.uniform([551_000, 4_170_000], [553_000, 4_172_000], (30, 2))
    ):
        named(tmp_path / "names" / "ab"[i % 2], east, north, heading=12.25 * i, pano=str(i))
    (tmp_path / "names" / "a" / "._x.jpg").touch()
    (tmp_path / "names" / "readme.txt").touch()
    table = read_photos(tmp_path / "names")
    assert (
        list(table.columns) == ["path", "utm_east", "utm_north", "heading", "month"]
        and len(table) == 30
    )
    assert [str(kind) for kind in table.dtypes] == ["str", "float64", "float64", "float32", "int32"]
    assert list(table["path"]) == sorted(table["path"]) and (table["month"] == 201704).all()
    assert table.attrs == {"root": str(tmp_path / "names"), "zone": 10, "south": False}

    files = table.assign(
        file=[path.removeprefix(str(tmp_path) + "/") for path in table["path"]]
    ).sample(frac=1)
    back = Transformer.from_crs("EPSG:32610", "EPSG:4326")
    files["lat"], files["lon"] = back.transform(files["utm_east"], files["utm_north"])
    files[["file", "utm_east", "utm_north", "heading", "month"]].to_csv(
        tmp_path / "list.csv", index=False
    )
    pd.testing.assert_frame_equal(read_photos(tmp_path), table, check_exact=False, rtol=1e-12)
    files[["file", "lat", "lon"]].to_csv(tmp_path / "list.csv", index=False, encoding="utf-8-sig")
    from_degrees = read_photos(tmp_path / "list.csv")
    assert from_degrees.attrs["zone"] == 10
    assert from_degrees["heading"].isna().all() and (from_degrees["month"] == 0).all()
    metres = ["utm_east", "utm_north"]
    np.testing.assert_allclose(from_degrees[metres], table[metres], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "lons, zone",
    [([5.9, 6.2], 32), ([5.7, 6.2], 31), ([179.9, -179.8], 1), ([-180.0], 1), ([180.0], 1)],
)
def test_one_zone_for_a_list_across_its_border(tmp_path, lons, zone):
    for i in range(len(lons)):
        (tmp_path / f"{i}.jpg").touch()
    lines = [f"{i}.jpg,-45,{lon}" for i, lon in enumerate(lons)]
    (tmp_path / "list.csv").write_text("\n".join(["file,lat,lon", *lines]))
    table = read_photos(tmp_path)
    assert (table.attrs["zone"], table.attrs["south"]) == (zone, True)
    east, north = Transformer.from_crs("EPSG:4326", f"EPSG:{32700 + zone}").transform(
        [-45] * len(lons), lons
    )
    np.testing.assert_allclose(
        table[["utm_east", "utm_north"]], np.stack([east, north], 1), atol=1e-3
    )


@pytest.mark.parametrize(
    "content, words",
    [
        ("", ["must name the columns"]),
        ("file,lat\na.jpg,1", ["'file,lat'", "must name the columns"]),
        ("file;lat;lon\na.jpg;1;2", ["must name the columns"]),
        ("file,lat,lon", ["holds no photos"]),
        ("file,lat,lat,lon\na.jpg,1,1,2", ["lat is there twice"]),
        ("file,lat,lon\na.jpg,1", ["line 2", "2 values for 3 columns"]),
        ("file,lat,lon\nb.jpg,1,2", ["line 2 (b.jpg)", "no such file"]),
        ("file,lat,lon\na.jpg,nan,2", ["line 2 (a.jpg)", "lat is 'nan'"]),
        ("file,lat,lon\na.jpg,1,", ["line 2 (a.jpg)", "lon is ''"]),
        ("file,lat,lon\na.jpg,-122.4,37.7", ["line 2 (a.jpg)", "swap"]),
        ("file,lat,lon\na.jpg,1,2\n\na.jpg,1,2", ["line 4 (a.jpg)", "line 2"]),
        ("file,lat,lon\na.jpg,37,-122\nc.jpg,37,122", ["a.jpg", "from the mean"]),
        ("file,utm_east,utm_north\na.jpg,4173551,552400", ["line 2 (a.jpg)", "out of range"]),
        ("file,lat,lon,heading\na.jpg,1,2,400", ["line 2 (a.jpg)", "heading 400"]),
        ("file,lat,lon,month\na.jpg,1,2,2017", ["line 2 (a.jpg)", "month 2017"]),
        (b"\xff\xfe\x00f", ["UTF-8"]),
    ],
)
def test_bad_lists(tmp_path, content, words):
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: read_photos(tmp_path, "photos"), tmp_path, *words)


def test_bad_folders(tmp_path):
    refused(
        lambda: read_photos(tmp_path / "none", "queries"),
        tmp_path / "none",
        "no such folder of queries",
    )
    refused(lambda: read_photos(tmp_path, "queries"), tmp_path, "holds no queries")
    (tmp_path / "x.txt").touch()
    refused(lambda: read_photos(tmp_path / "x.txt"), tmp_path / "x.txt", "is a file")
    (tmp_path / "x.PNG").touch()
    refused(lambda: read_photos(tmp_path), tmp_path / "x.PNG", "is empty")
    (tmp_path / "x.PNG").unlink()
    one, two = named(tmp_path, 552_400, 4_173_551), named(tmp_path, 552_400, 4_173_551, zone=54)
    refused(lambda: read_photos(tmp_path), one, two, "zone 54 north")
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    refused(lambda: read_photos(tmp_path), "2 CSV files (a.csv, b.csv)")


# Photos


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
    cmyk = np.concatenate(
        [255 - colours, np.zeros_like(colours[..., :1])], -1
    )  # no black: c = 255 - r
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert (
        np.abs(
            load_image(tmp_path / "cmyk.jpg").permute(1, 2, 0).numpy().astype(int) - colours
        ).max()
        <= 8
    )

    alpha = np.where(ramp[..., None] < 128, 0, 255).astype(np.uint8)
    Image.fromarray(np.concatenate([colours, alpha], -1)).save(tmp_path / "alpha.png")
    white = np.where(alpha == 0, 255, colours)
    assert (load_image(tmp_path / "alpha.png").permute(1, 2, 0).numpy() == white).all()
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff")
    assert load_image(tmp_path / "palette.png").permute(1, 2, 0).tolist() == [
        [[255, 255, 255], [40, 50, 60]]
    ]


@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_photos_stand_upright(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[:10, :15] = 255, 0, 0
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    upright = np.rot90(stored, turn)
    assert (load_image(tmp_path / "x.png").permute(1, 2, 0).numpy() == upright).all()
    small = load_image(tmp_path / "x.png", 10).permute(1, 2, 0).numpy()
    assert (
        small[2, 2].tolist() == upright[4, 5].tolist()
        and small[7, 7].tolist() == upright[15, 15].tolist()
    )
    Image.fromarray(upright).save(tmp_path / "y.png")
    [(_, batch)] = load_batches(
        [tmp_path / "x.png", tmp_path / "y.png"], 2, None
    )  # one size, by the headers too
    assert torch.equal(batch[0], batch[1])


def test_resizing_is_antialiased_also_through_draft(tmp_path):
    photo(tmp_path / "x.png", side=256)
    photo(tmp_path / "x.jpg", side=256, quality=95, subsampling=0)
    full = load_image(tmp_path / "x.png")[None].float()
    expected = torch.nn.functional.interpolate(
        full, (32, 32), mode="bilinear", antialias=True, align_corners=False
    )[0]
    for name in ("x.png", "x.jpg"):
        assert (load_image(tmp_path / name, 32).float() - expected).abs().max() <= 6
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(
        np.uint8
    )  # finer than the small image can show: grey
    Image.fromarray(checks).save(tmp_path / "checks.png")
    assert (load_image(tmp_path / "checks.png", 32).float() - 127.5).abs().max() <= 2


def test_unreadable_images(tmp_path, monkeypatch):
    good = tmp_path / "good.jpg"
    photo(good, side=64)
    photo(tmp_path / "good.png", side=64)
    bad = {}
    for suffix in (".jpg", ".png"):
        content = good.with_suffix(suffix).read_bytes()
        for name, part in {
            "cut": content[: len(content) * 2 // 3],
            "last": content[:-2],
            "head": content[:20],
        }.items():
            bad[tmp_path / (name + suffix)] = part
    bad |= {
        tmp_path / "empty.jpg": b"",
        tmp_path / "text.jpg": b"no image\n" * 99,
        tmp_path / "tiny.jpg": b"x",
    }
    for path, content in bad.items():
        path.write_bytes(content)
        if path.name != "last.png":  # all of its pixels are there
            refused(lambda: load_image(path), path, ": ", " or ")
            refused(lambda: check_images([good, path, path]), path, "(2 of 3 images can't be read)")
    refused(
        lambda: load_image(tmp_path / "none.jpg"), tmp_path / "none.jpg", "there is no such image"
    )
    refused(
        lambda: check_images([tmp_path / "none.jpg"]),
        tmp_path / "none.jpg",
        "there is no such image",
    )
    refused(lambda: load_image(tmp_path / "empty.jpg"), "is empty (0 bytes)")
    refused(lambda: list(load_batches([good, tmp_path / "empty.jpg"], 1, 8)), "is empty (0 bytes)")
    refused(lambda: list(load_batches([good, tmp_path / "text.jpg"], 1, None)), "is not an image")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    refused(lambda: load_image(tmp_path / "float.tif"), "float.tif", "save it as 8-bit RGB")
    Image.new("L", (8, 8)).save(tmp_path / "whole.bmp")
    check_images([good, tmp_path / "good.png", tmp_path / "whole.bmp"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(lambda: load_image(good), good, "too many pixels")


def test_batches_equal_single_loads(tmp_path):
    sides = [8, 12, 8, 8, 12, 12, 8, 8, 12, 8, 12]
    paths = [tmp_path / f"{i}.png" for i in range(len(sides))]
    for i, path in enumerate(paths):
        photo(path, sides[i], seed=i)
    for size in (6, None):
        batches = list(load_batches(paths, 3, size, workers=2))
        order = np.concatenate([indices for indices, _ in batches])
        assert (
            sorted(order) == list(range(len(paths)))
            and max(len(indices) for indices, _ in batches) == 3
        )
        assert size is None or list(order) == list(range(len(paths)))
        for indices, images in batches:
            assert images.dtype == torch.uint8 and len(images) == len(indices)
            for index, image in zip(indices, images):
                assert torch.equal(image, load_image(paths[index], size))
    assert list(load_batches([], 3, 6)) == []
    for indices, images in load_batches(paths, 3, None, scale=1.7):  # of their own size
        for index, image in zip(indices, images):
            height, width = load_image(paths[index]).shape[1:]
            assert torch.equal(
                image, load_image(paths[index], (round(1.7 * height), round(1.7 * width)))
            )


def test_batches_read_ahead_a_little_and_stop_with_their_consumer(tmp_path, monkeypatch):
    photo(tmp_path / "x.png")
    before, loaded = threading.active_count(), []
    monkeypatch.setattr(
        "vgeo.datasets.load_image", lambda path, size: loaded.append(path) or load_image(path, size)
    )
    batches = load_batches([tmp_path / "x.png"] * 1000, 4, 8, workers=2)
    next(batches)
    batches.close()
    assert threading.active_count() == before and 4 <= len(loaded) <= 16


# Classes and positives


def as_table(rows, heading=True):
    table = pd.DataFrame(rows, columns=["utm_east", "utm_north", "heading"]).astype(
        {"heading": "f4"}
    )
    table.insert(0, "path", [f"{i}.jpg" for i in range(len(table))])
    return table


# A few streets, so that classes are large enough to be kept, and exact borders.
spots = st.one_of(st.integers(0, 12).map(lambda i: 500_000.0 + 10 * i), st.floats(500_000, 500_120))
views = st.one_of(st.integers(0, 11).map(lambda i: 30.0 * i), st.floats(0, 359.9))
images = st.lists(st.tuples(spots, spots, views), min_size=1, max_size=40)


def naive_classes(rows, cell, angle, n, l, min_images):
    """CosPlace section 3 with dicts: the members of each class of the largest group."""
    classes = {}
    for i, (east, north, heading) in enumerate(rows):
        key = (
            math.floor(east / cell),
            math.floor(north / cell),
            math.floor(float(np.float32(heading)) / angle),
        )
        classes.setdefault(key, set()).add(i)
    groups = {}
    for (e, nn, h), members in classes.items():
        if len(members) >= min_images:
            groups.setdefault((e % n, nn % n, h % l), []).append(members)
    if not groups:
        return None, []
    best = min(groups, key=lambda group: (-len(groups[group]), group))
    return best, groups[best]


@settings(deadline=None, max_examples=60)
@given(
    images, st.sampled_from([1, 2, 5]), st.sampled_from([1, 2, 3]), st.integers(1, 3), st.randoms()
)
def test_classes_and_groups(rows, n, l, min_images, random):
    how = {"cell": 10.0, "angle": 30.0, "n": n, "l": l, "min_images": min_images}
    group, members = naive_classes(rows, **how)
    if group is None:
        refused(lambda: cosplace_classes(as_table(rows), **how), "lower min_images")
        return
    kept = cosplace_classes(as_table(rows), **how)
    assert kept.attrs["group"] == group and kept.attrs["classes"] == len(members)
    assert sorted(set(kept["label"])) == list(range(len(members)))
    found = {label: set(rows_["path"]) for label, rows_ in kept.groupby("label")}
    assert sorted(map(sorted, found.values())) == sorted(
        sorted(f"{i}.jpg" for i in them) for them in members
    )

    for _, one in kept.groupby("label"):
        assert (
            np.ptp(one["utm_east"]) < 10
            and np.ptp(one["utm_north"]) < 10
            and np.ptp(one["heading"]) < 30
        )
    for a, b in itertools.combinations(kept.itertuples(), 2):
        if a.label != b.label:
            apart = max(abs(a.utm_east - b.utm_east), abs(a.utm_north - b.utm_north))
            turn = abs((a.heading - b.heading + 180) % 360 - 180)
            same_cell = (a.utm_east // 10, a.utm_north // 10) == (
                b.utm_east // 10,
                b.utm_north // 10,
            )
            assert turn >= (l - 1) * 30 - 1e-3 if same_cell else apart >= (n - 1) * 10 - 1e-6

    mixed = as_table(rows).sample(frac=1, random_state=random.randrange(1000))
    again = cosplace_classes(mixed, **how)
    assert dict(zip(again["path"], again["label"])) == dict(zip(kept["path"], kept["label"]))


def test_classes_need_headings_and_sense():
    table = as_table([(5e5, 5e5, math.nan), (5e5, 5e5, 0)])
    refused(lambda: cosplace_classes(table), "0.jpg", "has no heading")
    refused(lambda: cosplace_classes(table, cell=0), "cell 0", "must be positive")


@settings(deadline=None, max_examples=60)
@given(images, images, st.floats(0, 60))
def test_positives_against_brute_force(queries, database, radius):
    queries, database = as_table(queries), as_table(database)
    for query, found in zip(
        queries.itertuples(), positives(queries, database, radius), strict=True
    ):
        squares = (database["utm_east"] - query.utm_east) ** 2 + (
            database["utm_north"] - query.utm_north
        ) ** 2
        assert (
            found.dtype == np.int64
            and found.tolist() == np.flatnonzero(squares <= radius**2).tolist()
        )


def test_the_radius_is_included():
    found = positives(
        as_table([(500_000, 0, 0)]),
        as_table([(500_015, 20, 0), (500_025.01, 0, 0), (499_975, 0, 0)]),
    )
    assert [rows.tolist() for rows in found] == [[0, 2]]


def test_retrieval_set(tmp_path):
    for place in ("one", "two"):
        for i in range(4):
            named(tmp_path / place / "database", 552_000 + 30 * i, 4_173_000, pano=str(i))
        named(tmp_path / place / "queries", 552_010, 4_173_000)
        named(tmp_path / place / "queries", 552_600, 4_173_000)
    folders = [
        (tmp_path / place / "queries", tmp_path / place / "database") for place in ("one", "two")
    ]
    one, two = (open_dataset("toy", *pair) for pair in folders)
    assert [rows.tolist() for rows in one.positives] == [[0, 1], []]
    assert str(one.identity).startswith(
        "toy: 2 queries, 4 database images, 1 queries without a positive, file list "
    )
    assert one.identity == two.identity  # the same files elsewhere
    named(tmp_path / "two" / "database", 553_000, 4_173_000)
    assert open_dataset("toy", *folders[1]).identity.files != one.identity.files

    far, tokyo, database = tmp_path / "far", tmp_path / "tokyo", folders[0][1]
    named(far, 552_000, 4_174_000)
    named(tokyo, 552_000, 4_173_000, zone=54)
    refused(lambda: open_dataset("toy", far, database), "no query in", far, "1000 m away")
    refused(lambda: open_dataset("toy", tokyo, database), tokyo, "54 north")
