"""What `locate` writes: a table, GeoJSON, and a map that is one HTML file and needs no network."""

import base64
import io
import json
import math

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from vgeo.errors import printable
from vgeo.photos.images import image_shape, load_image

THUMBNAIL = 160  # pixels, the longer side


def write_locations(folder, found):
    """Writes a table of `locate.locations` as `locations.csv` and, a point a photo, longitude first, as `locations.geojson` (RFC 7946)."""
    names = {column: found[column].map(printable) for column in ("file", "best_match")}
    found = found.assign(**names)
    found.to_csv(folder / "locations.csv", index=False)
    points = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row.lon, row.lat]},
            "properties": {
                "file": row.file,
                "confidence": None if math.isnan(row.confidence) else row.confidence,
                "best_match": row.best_match,
            },
        }
        for row in found.itertuples()
    ]
    (folder / "locations.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": points}, indent=1) + "\n"
    )


def write_map(path, index, found, answers, words, shown=5):
    """Writes the map: every position of the index, every answer, and for each its photo beside its first `shown` matches.

    index: a `locate.Index`; found: a table of `locate.locations`; answers: the `locate.Answers` it was made of; words: how the confidence was
    calibrated. Positions are metres east and south of the map's corner: north is up.
    """
    every = np.concatenate([index.xy, answers.xy])
    low, high = every.min(0), every.max(0)
    middle, size = (low + high) / 2, 1.08 * (high - low) + 20.0
    size = np.maximum(size, size[::-1] / 2)  # a street's map is twice as wide as it is high
    low, high = middle - size / 2, middle + size / 2
    flat = lambda xy: np.round(np.stack([xy[:, 0] - low[0], high[1] - xy[:, 1]], 1), 1)  # noqa: E731
    dots, at = flat(index.xy), flat(answers.xy)

    photos = {}  # path: {id, data, width, height}: one copy of a photo, however many answers show it

    def photo(path):
        if path not in photos:
            photos[path] = {"id": f"p{len(photos)}", **thumbnail(path)}
        return photos[path]

    places = []
    for i, row in enumerate(found.itertuples()):
        matches = [
            {
                "photo": photo(index.photos["path"].iloc[k]),
                "name": printable(index.photos["path"].iloc[k]).rsplit("/", 1)[-1],
                "similarity": float(alike),
                "metres": float(np.linalg.norm(index.xy[k] - answers.xy[i])),
                "x": float(dots[k, 0]),
                "y": float(dots[k, 1]),
            }
            for k, alike in zip(answers.rows[i, :shown], answers.similarity[i, :shown])
        ]
        places.append(
            {
                "id": f"q{i + 1}",
                "photo": photo(row.file),
                "name": printable(row.file).rsplit("/", 1)[-1],
                "lat": row.lat,
                "lon": row.lon,
                "percent": None if math.isnan(row.confidence) else round(100 * row.confidence),
                "x": float(at[i, 0]),
                "y": float(at[i, 1]),
                "matches": matches,
            }
        )
    width, height = (high - low).tolist()
    environment = Environment(
        loader=PackageLoader("vgeo.locate"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page = environment.get_template("map.html").render(
        places=places,
        photos=list(photos.values()),
        dots="".join(f"M{x:g} {y:g}h0" for x, y in np.unique(dots, axis=0)),
        count=len(index.photos),
        width=width,
        height=height,
        words=words,
    )
    path.write_text(page, encoding="utf-8")


def thumbnail(path):
    """A photo as {"data": a data URI of a JPEG, "width", "height": pixels, the longer at most THUMBNAIL}."""
    height, width = image_shape(path)
    height, width = (
        max(1, round(side * min(1, THUMBNAIL / max(height, width)))) for side in (height, width)
    )
    file = io.BytesIO()
    Image.fromarray(load_image(path, (height, width)).permute(1, 2, 0).numpy()).save(
        file, "JPEG", quality=70
    )
    return {
        "data": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
        "width": width,
        "height": height,
    }
