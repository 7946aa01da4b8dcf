"""How bright the rendered city is and how hard its queries are: what it was tuned by.

    python benchmarks/city.py [NIGHT]

Streets are of a seed that no profile uses. city_brightness.csv has means over the queries of the
Tokyo-like district by day, at sunset and at night, beside the same of its database. NIGHT is a
folder of real night photos, which get a row. city_poses.csv has R@1 and R@5 of ResNet18's starting
weights for queries that stand and look off the database's crops by more and less. Both are written
to benchmarks/results.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.city import cameras, write
from vgeo.device import device
from vgeo.models.convert import open_model
from vgeo.models.weights import CITY_WEIGHTS
from vgeo.photos.images import load_image
from vgeo.photos.places import open_dataset
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.search import search
from vgeo.study.profiles import PROFILES

RESULTS = Path(__file__).parent / "results"
SEED = 931
# Deviations from the crop: metres east and north, degrees.
POSES = (0.0, 0.0), (0.8, 4.0), (1.5, 4.0), (0.8, 8.0), (3.0, 15.0)


def brightness(what, paths, size):
    """Means over photos: of the pixel value, of quantiles of it, of shares of the pixels."""
    rows = []
    for path in paths:
        image = load_image(path, size).numpy().astype(float)
        grey = image.mean(0)
        row = {"mean": grey.mean()}
        row |= {f"{q} % quantile": np.percentile(grey, q) for q in (5, 25, 50, 75, 95)}
        row["saturated, %"] = 100 * (image.max(0) >= 250).mean()
        row["below 16, %"] = 100 * (grey < 16).mean()
        row["upper fifth, median"] = np.median(grey[: len(grey) // 5])
        rows.append(row | {"red / blue": image[0].mean() / image[2].mean()})
    return {"photos": what, "count": len(rows)} | pd.DataFrame(rows).mean().to_dict()


def main(night=None):
    plan = replace(PROFILES["city"].city, seed=SEED)
    model = open_model(CITY_WEIGHTS / "resnet18.safetensors")[0].to(device()).eval()
    with tempfile.TemporaryDirectory() as folder:
        root, size, rows, own = Path(folder), plan.size, [], (cameras.ASIDE, cameras.TURN)
        database = root / "database"
        database.mkdir()
        write.write_part(write.database_photos, database, plan, "test", 0)
        described = describe(model, read_photos(database).paths, size)
        for aside, turn in POSES:
            cameras.ASIDE, cameras.TURN = aside, turn
            queries = root / f"{aside:g} {turn:g}"
            queries.mkdir()
            more = plan.test_queries, 1, ("day",)
            write.write_part(write.query_photos, queries, plan, "test", 0, *more)
            data = open_dataset("city", queries, database)
            found = search(described, describe(model, data.queries.paths, size), 5)[0]
            hits = first_hit(found, data.positives)
            row = {"metres aside": aside, "degrees turned": turn, "queries": len(hits)}
            rows.append(row | {"R@1": recall(hits, 1), "R@5": recall(hits, 5)})
            print(rows[-1], flush=True)
        cameras.ASIDE, cameras.TURN = own
        pd.DataFrame(rows).round(1).to_csv(RESULTS / "city_poses.csv", index=False)

        tokyo, lit = root / "tokyo", tuple(write.LIGHTS)
        tokyo.mkdir()
        write.write_part(write.database_photos, tokyo, plan, "tokyo", 0)
        rows = [brightness("database", read_photos(tokyo).paths[::5], size)]
        for kind in lit:
            queries = root / kind
            queries.mkdir()
            more = plan.tokyo_places, 1, (kind,)
            write.write_part(write.query_photos, queries, plan, "tokyo", 0, *more)
            rows.append(brightness(kind, read_photos(queries).paths, size))
        if night:
            rows.append(brightness("real night", sorted(Path(night).glob("*.jpg")), size))
        table = pd.DataFrame(rows).round(2)
        print(table.to_string())
        table.to_csv(RESULTS / "city_brightness.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
