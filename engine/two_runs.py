"""Two runs of VALUE that are evaluated together: one reads frames only, one subtitles only."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from config.config import parse_options
from config.evaluation import EvalOptions, TvcInferenceOptions
from config.groups import Channel
from config.storage import require_reachable
from config.value import parse_name
from data.prepare.work import script_parser
from engine.run import Run, finished_run, start_evaluation
from utils.errors import UserError

STREAMS = (Channel.VIDEO_ONLY, Channel.SUB_ONLY)
ENDING = "_two_stream"  # of the results' folder, within the run that reads frames

OptionsT = TypeVar("OptionsT", bound=EvalOptions | TvcInferenceOptions, covariant=True)
ReadT = TypeVar("ReadT", bound=EvalOptions | TvcInferenceOptions)


@dataclass(frozen=True)
class TwoRuns(Generic[OptionsT]):
    """Options of both runs."""

    video: OptionsT
    sub: OptionsT
    task: str  # name of the data set in the results' folder

    @staticmethod
    def parse(options_class: type[ReadT], argv: list[str] | None) -> "TwoRuns[ReadT]":
        """Read ``--{video,sub}_only_model_dir``, ``--{video,sub}_only_checkpoint`` (or
        ``…_ckpt_step``), and for both the options of a script that evaluates one run.

        A task may be ``{data set}_{channel}``.

        Raises:
            UserError: as :func:`config.config.parse_options`, or a run is none of VALUE's, or they
                are of two data sets and none is given.
        """
        words = sys.argv[1:] if argv is None else argv
        parser = script_parser("Two runs, one of each channel; further options hold for both:")
        parser.add_help = False
        for channel in STREAMS:
            parser.add_argument(f"--{channel}_model_dir", required=True)
            names = f"--{channel}_checkpoint", f"--{channel}_ckpt_step"
            parser.add_argument(*names, required=True)
        parser.add_argument("--task")
        if {"-h", "--help"} & set(words):
            parser.print_help()
            parse_options(options_class, ["--help"])
        given, rest = parser.parse_known_args(words)
        task = given.task
        with suppress(ValueError):
            task = task and parse_name(task)[0]
        rest += ["--task", task] if task else []

        def read(channel: Channel, *more: str) -> ReadT:
            folder = getattr(given, f"{channel}_model_dir")
            checkpoint = getattr(given, f"{channel}_checkpoint")
            own = [f"--{options_class.RUN_FOLDER}", folder, "--checkpoint", checkpoint]
            return parse_options(options_class, [*more, *rest, "--channel", channel.value, *own])

        sub = read(Channel.SUB_ONLY)
        # The database has the indices of videos too; a run without subtitles may not name it.
        subtitles = ["--sub_txt_db", sub.sub_txt_db] if sub.sub_txt_db else []
        video = read(Channel.VIDEO_ONLY, *subtitles)
        if video.task != sub.task:
            raise UserError(
                f"the two runs are of {video.task} and of {sub.task}: name the data set for both "
                "(--task)"
            )
        return TwoRuns(video, sub, given.task or video.task)

    def start(self) -> tuple[Run[OptionsT], Run[OptionsT]]:
        """Set up the evaluation of both runs."""
        require_reachable(self.sub, self.sub.storage)
        video = start_evaluation(self.video)
        return video, finished_run(self.sub, video.comm, video.device)

    def folder(self, run: Run[OptionsT], split: str) -> Path:
        """Return the folder of the results."""
        return run.folder.path / f"results_{self.task}_{split}{ENDING}"
