"""Search your own videos in a browser: the service and its page, on this machine alone.

python serve_search.py --index INDEX --port 8000

Then open http://127.0.0.1:8000. docs/SEARCH.md has the HTTP interface, and how to put the service
behind a reverse proxy. Changes that index_videos.py makes to the index are loaded while it runs.
"""

import argparse
import re

from utils.runtime import share_memory  # before PyTorch

# isort: split
from data.prepare.work import script_parser
from search.engine import MomentSearch
from search.server import listen, serve
from search.service import SearchService, make_app
from utils.errors import UserError, run_main

_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--index", required=True, metavar="FOLDER", help="what index_videos.py made")
    add("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    add(
        "--allowed_host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names, without port, that a proxy forwards requests to, besides localhost",
    )
    add("--run", help="the run whose model made the index, if it has moved")
    add("--checkpoint", help="its step, or the exported model")
    add("--toker", help="its tokenizer, where the run has none")
    add("--device", default="cpu", help="where the model computes (default: %(default)s)")
    options = parser.parse_args(argv)
    if not 0 <= options.port < 65536:
        raise UserError(f"--port {options.port} must be from 0 to 65535")
    for name in options.allowed_host:
        if not _NAME.fullmatch(name):
            raise UserError(f"--allowed_host {name!r} must be a name of a host, such as a.example")
    return options


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal comes."""
    options = _parse(argv)
    share_memory()
    listener = listen(options.port)
    engine = MomentSearch.open(
        options.index,
        run=options.run,
        checkpoint=options.checkpoint,
        toker=options.toker,
        device=options.device,
    )
    engine.warm_up()
    service = SearchService(engine, options.device)
    address = "http://{}:{}".format(*listener.getsockname())
    count = len(engine.films)
    films = "1 film" if count == 1 else f"{count} films"

    def announce() -> None:
        print(f"{films}: {address} (Ctrl-C ends it)", flush=True)

    serve(make_app(service, options.allowed_host), listener, announce)


if __name__ == "__main__":
    run_main(main)
