"""The command line: `python -m vgeo --help`."""

import argparse
import os
import sys


def main(arguments=None):
    parser = argparse.ArgumentParser(
        "vgeo", description="Visual geo-localization: the study, its data and its starting weights."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute every notebook of the study for a profile")
    data = commands.add_parser(
        "data", help="render or check a profile's data sets and say what they are"
    )
    train = commands.add_parser(
        "train",
        help="every training of a profile; started by torchrun, several processes share each",
    )
    evaluate = commands.add_parser(
        "evaluate",
        help="train, describe, search and re-rank for every table, which is all of a run but its notebooks",
    )
    data.add_argument("--profile", default="city", help="smoke, city (default) or paper")
    data.add_argument(
        "--check",
        action="store_true",
        help="say in seconds what is in the folder (default: this one), what is missing and where to ask for it, from names alone",
    )
    for command in (run, data, train, evaluate):
        command.add_argument(
            "--data",
            metavar="FOLDER",
            help="a folder with sf-xs, tokyo-xs and tokyo-night instead of the rendered city",
        )
    for command in (run, train, evaluate):
        command.add_argument("profile", help="smoke, city or paper")
        command.add_argument(
            "--image-size",
            type=int,
            metavar="N",
            help="pixels of the square images instead of the profile's",
        )
        command.add_argument(
            "--seeds",
            type=int,
            metavar="N",
            help="repeat every training N times: the claims ledger then uses their spread",
        )
    pretrain = commands.add_parser(
        "pretrain", help="train the starting weights in vgeo/weights again, from nothing"
    )
    pretrain.add_argument(
        "--real",
        metavar="FOLDER",
        help="photographs to score on as well: a folder with database and queries_v1",
    )
    convert = commands.add_parser(
        "convert",
        help="make a .pth checkpoint of CosPlace's or the report's authors into weights files of ours",
    )
    convert.add_argument("checkpoint", help="the .pth file")
    convert.add_argument("folder", help="where model.safetensors and what else is in it goes")
    locate = commands.add_parser(
        "locate",
        help="say where photos were taken, from photos whose position is known, and draw a map",
    )
    locate.add_argument(
        "photos",
        help="a folder of photos with positions (EXIF GPS, @...@ names, or a CSV of file,lat,lon in it), or the CSV",
    )
    locate.add_argument(
        "queries", nargs="+", metavar="query", help="a photo, or a folder of photos"
    )
    locate.add_argument(
        "--weights",
        metavar="FILE",
        help="a .safetensors of ours or a .pth of CosPlace's instead of the packaged ResNet18",
    )
    locate.add_argument(
        "--out",
        metavar="FOLDER",
        default="located",
        help="where locations.csv, locations.geojson and map.html go (default: located)",
    )
    options = parser.parse_args(arguments)
    if os.environ.get("RANK", "0") != "0":  # torchrun's: not the first process, the one that speaks
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w")

    from vgeo.errors import (  # what follows takes seconds to import: not before the arguments are right
        VgeoError,
        printable,
    )

    try:
        if options.command == "run":
            from vgeo.kept import nothing_new

            asked = (options.profile, options.data, options.image_size, options.seeds)
            if not nothing_new(*asked):
                from vgeo.run import run_study

                run_study(*asked)
        elif options.command in ("train", "evaluate"):
            from vgeo.run import ahead

            ahead(
                options.profile,
                options.data,
                options.image_size,
                options.seeds,
                options.command == "evaluate",
            )
        elif options.command == "data" and options.check:
            from vgeo.layout import check
            from vgeo.profiles import profile

            lines, complete = check(options.data or ".", profile(options.profile))
            print("\n".join(lines))
            sys.exit(0 if complete else 1)
        elif options.command == "data":
            from vgeo.study import Study

            print("\n".join(Study(options.profile, options.data).identities().values()))
        elif options.command == "locate":
            from vgeo.locate import locate

            locate(options.photos, options.queries, options.weights, options.out)
        elif options.command == "convert":
            from vgeo.checkpoints import convert

            print("\n".join(convert(options.checkpoint, options.folder)))
        else:
            from vgeo.pretrain import pretrain
            from vgeo.profiles import ROOT

            pretrain(ROOT / "results" / "cache", options.real)
    except VgeoError as error:
        sys.exit(f"vgeo: {error}")
    except (
        OSError
    ) as error:  # a full disk, a folder that can't be written, a file in a folder's place
        sys.exit(
            "vgeo: "
            + printable(
                f"{error.filename or 'a file'}: {error.strerror or error}: free some space, or correct the folder or its permissions"
            )
        )
    except KeyboardInterrupt:
        sys.exit("vgeo: stopped; the same command goes on from here")


if __name__ == "__main__":
    main()
