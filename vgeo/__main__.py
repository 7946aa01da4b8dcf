"""The command line: `python -m vgeo --help`."""

import argparse
import json
import os
import sys
from contextlib import ExitStack, redirect_stdout

EXAMPLES = """examples:
  vgeo locate holiday/ IMG_0815.jpg
      where IMG_0815.jpg was taken, by the photos with GPS in holiday/; then open located/map.html
  vgeo locate streets.csv new/ --near 37.77,-122.42 --radius 500 --k 3
      three matches for each photo in new/, only from photos within 500 m of a place
  vgeo locate streets.csv --index streets.vgeo; vgeo locate streets.vgeo new/ --json
      an index as one file; then, here or elsewhere, answers for another program
"""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command. A mistake that a person can correct ends the process with one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--near" in words[:-1]:  # argparse takes a latitude below 0 for an option
        at = words.index("--near")
        words[at : at + 2] = [f"--near={words[at + 1]}"]
    options = _parser().parse_args(words)
    from vgeo.errors import VgeoError, printable

    try:
        with ExitStack() as stack:
            if os.environ.get("RANK", "0") != "0":  # started by torchrun: only the first speaks
                os.environ["TQDM_DISABLE"] = "1"
                stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            options.call(options)
    except VgeoError as error:
        sys.exit(f"vgeo: {error}")
    except BrokenPipeError:  # such as `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        reason = f"{error.filename or 'a file'}: {error.strerror or error}"
        advice = "free some space, or correct the folder or its permissions"
        sys.exit(f"vgeo: {printable(f'{reason}: {advice}')}")
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] == "vgeo":
            raise
        sys.exit(
            f"vgeo: this command needs {error.name}, which `pip install .` alone does not bring: "
            "call pip install '.[study]' in a clone"
        )
    except KeyboardInterrupt:
        sys.exit("vgeo: stopped; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    """Each command's arguments, and under `call` the function that does it."""
    parser = argparse.ArgumentParser(
        "vgeo", description="Visual geo-localization: the study, its data and its starting weights."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, call, help):
        new = commands.add_parser(name, help=help, description=help)
        new.set_defaults(call=call)
        return new

    study = [
        command("run", _run, "execute every notebook of the study for a profile"),
        command("train", _train, "make every training of a profile; torchrun starts several"),
        command("evaluate", _evaluate, "compute all of a run but its notebooks"),
    ]
    for each in study:
        each.add_argument("profile", help="smoke, city or paper")
        _add_data(each)
        size = "pixels of the square images, instead of the profile's"
        each.add_argument("--image-size", type=int, metavar="N", help=size)
        repeat = "repeat every training N times: a verdict then needs them all to agree"
        each.add_argument("--seeds", type=int, metavar="N", help=repeat)
        weights = "start all backbones from ImageNet's weights, downloaded once"
        each.add_argument("--start", choices=["imagenet"], help=weights)

    data = command("data", _data, "render or check a profile's data sets and say what they are")
    data.add_argument("--profile", default="city", help="smoke, city (default) or paper")
    check = "say from file names, in seconds, what is in the folder and what is missing"
    data.add_argument("--check", action="store_true", help=check)
    _add_data(data)

    pretrain = command("pretrain", _pretrain, "train the starting weights anew, from nothing")
    names = "resnet18 or efficientnet_v2_s (default: both)"
    pretrain.add_argument("backbones", nargs="*", metavar="backbone", help=names)
    pretrain.add_argument(
        "--out", metavar="FOLDER", help="where they go (default: runs/pretrained of the clone)"
    )
    real = "photographs to score on as well: a folder with database and queries_v1"
    pretrain.add_argument("--real", metavar="FOLDER", help=real)

    convert = command("convert", _convert, "convert a .pth of CosPlace's or the original's authors")
    convert.add_argument("checkpoint", help="the .pth file")
    convert.add_argument("folder", help="where model.safetensors and what else is in it goes")

    locate = command("locate", _locate, "say where photos were taken, and draw a map")
    locate.formatter_class = argparse.RawDescriptionHelpFormatter
    locate.epilog = EXAMPLES
    photos = "photos with positions: a folder (EXIF GPS, @...@ names, or a CSV of file,lat,lon)"
    locate.add_argument("photos", help=f"{photos}, the CSV, or a file that --index wrote")
    locate.add_argument("queries", nargs="*", metavar="query", help="a photo or a folder of photos")
    files = "where locations.csv, locations.geojson and map.html go (default: located)"
    locate.add_argument("--out", metavar="FOLDER", default="located", help=files)
    answers = "print the answers as one JSON document; other lines go to the standard error"
    locate.add_argument("--json", action="store_true", help=answers)
    matches = "print the first N matches of each photo, and show as many on the map (default: 5)"
    locate.add_argument("--k", type=int, metavar="N", help=matches)
    place = "search only photos near a place in degrees, such as 37.77,-122.42; needs --radius"
    locate.add_argument("--near", type=_place, metavar="LAT,LON", help=place)
    locate.add_argument("--radius", type=float, metavar="M", help="how near, in metres")
    file = "write the index as one file, which can be given in place of photos, here or elsewhere"
    locate.add_argument("--index", metavar="FILE", help=file)
    strict = "refuse photos that can't be used, instead of skipping them"
    locate.add_argument("--strict", action="store_true", help=strict)
    weights = "a .safetensors of ours or a checkpoint of CosPlace's (.pth, .pt, .ckpt), instead of "
    weights += "the packaged model"
    locate.add_argument("--weights", metavar="FILE", help=weights)
    model = "a published model instead, such as cosplace-r50-2048 or megaloc, downloaded once"
    locate.add_argument("--model", metavar="NAME", help=model)
    yes = "let the model's own code run without being asked"
    locate.add_argument("--yes", action="store_true", help=yes)

    release = command("release", _release, "make the released results from a finished run")
    release.add_argument("run", help="the folder of the run, such as runs/city")
    release.add_argument("--out", metavar="FOLDER", help="the released one (default: results/NAME)")
    return parser


def _place(text: str) -> tuple[float, float]:
    """Latitude and longitude of "37.77,-122.42"."""
    try:
        lat, lon = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not LAT,LON, such as 37.77,-122.42"
        ) from None
    return lat, lon


def _add_data(command: argparse.ArgumentParser) -> None:
    sets = "a folder with sf-xs, tokyo-xs and tokyo-night, instead of the rendered city"
    command.add_argument("--data", metavar="FOLDER", help=sets)


# Each command imports what it needs: torch and pandas take seconds.


def _asked(options):
    return options.profile, options.data, options.image_size, options.seeds, options.start


def _run(options):
    from vgeo.runner.unchanged import nothing_new

    asked = _asked(options)
    if not nothing_new(*asked):
        from vgeo.runner.run import run_study

        run_study(*asked)


def _train(options, evaluates=False):
    from vgeo.runner.run import compute

    compute(*_asked(options), evaluates)


def _evaluate(options):
    _train(options, evaluates=True)


def _data(options):
    if options.check:
        from vgeo.photos.layout import check
        from vgeo.study.profiles import profile

        wanted = profile(options.profile)
        lines, complete = check(options.data or ".", wanted.counts, wanted.classes)
        print("\n".join(lines))
        sys.exit(0 if complete else 1)
    from vgeo.study.study import Study

    print("\n".join(Study(options.profile, options.data).data.identities().values()))


def _pretrain(options):
    from vgeo.study.pretrain import MADE, pretrain

    pretrain(tuple(options.backbones) or MADE, options.out, options.real)


def _convert(options):
    from vgeo.models.convert import convert

    print("\n".join(convert(options.checkpoint, options.folder)))


def _locate(options):
    from vgeo.locate.command import locate

    with ExitStack() as stack:
        if options.json:
            stack.enter_context(redirect_stdout(sys.stderr))
        found = locate(
            options.photos,
            options.queries,
            options.weights,
            options.out,
            strict=options.strict,
            model=options.model,
            yes=options.yes,
            k=options.k,
            near=options.near,
            radius=options.radius,
            index_file=options.index,
        )
    if options.json:
        print(json.dumps(found, indent=1))


def _release(options):
    from vgeo.runner.release import release

    print(f"{release(options.run, options.out)}: released")


if __name__ == "__main__":
    main()
