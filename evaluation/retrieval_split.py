"""One split to search: its videos, its queries, what is known to be right."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from config.evaluation import CorpusEvalOptions
from config.groups import BatchOptions, Channel, MomentEvalOptions
from config.training import RetrievalOptions
from config.value import SetOptions
from data.annotations import read_lines
from data.batch import QueryBatch, VideoBatch
from data.coverage import Coverage
from data.loader import evaluation_batches
from data.moments import warn_of_single_moments
from data.run_features import channel_of
from data.sources import VideoData
from data.stores.lmdb_io import TextDb
from data.stores.records import TruthLine
from data.vcmr import CorpusQueries, CorpusVideos, MomentDataset, collate_moments
from data.video import collate_videos
from data.video_pool import VideoPool, check_own_videos, query_videos, video_pool
from engine.run import Run, on_main
from engine.validation import mean_losses, split_label
from evaluation.corpus import Stream, evaluate_corpus
from evaluation.ranking import SearchSettings
from evaluation.results import ResultsFiles, save_results
from model.vcmr import MomentRetrievalModel
from utils.decoding import check
from utils.errors import UserError
from utils.logger import LOGGER
from utils.names import find_name, get_name, names_of_task


class RetrievalSplit:
    """Searches a split's pool of videos for its queries.

    Args:
        name: of the split, as ``vid2dur_idx.json`` has it.
        queries: its query database.
        videos: where its videos are.
        run: batch sizes, ranks, folder.
        settings: what to list. Results of video retrieval alone name queries by strings, as its
            published files do. There, and without subtitles, the videos that the queries name are
            searched, numbered by their sorted names; VALUE's are those of the file of indices.

    Raises:
        UserError: no videos are named, the feature database lacks some, or no query is about one
            that is searched.
    """

    def __init__(
        self,
        name: str,
        queries: TextDb,
        videos: VideoData,
        run: Run[RetrievalOptions | SetOptions | CorpusEvalOptions],
        settings: SearchSettings,
    ) -> None:
        self.name = name
        self.queries = queries
        self.videos = videos
        self.run = run
        self.settings = settings
        moments = settings.searched_videos > 0
        own_indices = moments and channel_of(run.options.task) != Channel.VIDEO_ONLY
        pool, self.video2idx = video_pool(
            name,
            queries,
            videos.subtitles,
            videos.source,
            own_indices,
            required=run.options.VALUE,
            indices=getattr(run.options, "vid2dur_idx", None),
        )
        self.video_of = query_videos(queries, videos.features.id2nframe)
        self.corpus = CorpusQueries(queries, moments, self.video_of)
        self.left_out = self._leave_out(pool)
        check_own_videos(queries.path, self.corpus.ids, self.video_of, pool)
        self.truth = self.ground_truth()

    def _leave_out(self, pool: VideoPool) -> set[str]:
        """Leave out the queries whose own video is not there, where that is asked for.

        Returns:
            Their ids.
        """
        corpus, source, gone = self.corpus, self.videos.source, set()
        if source.only_available:
            named = ((qid, self.video_of.get(qid)) for qid in corpus.ids)
            gone = {qid for qid, vid in named if vid is not None and vid not in source}
        total = len(corpus.ids)
        corpus.ids = [qid for qid in corpus.ids if qid not in gone]
        self.coverage = Coverage(
            f"{self.queries.path} ({self.name})",
            "queries",
            (len(self.video2idx), len(pool.numbers)),
            (len(corpus.ids), total),
        )
        self.coverage.log(source.only_available)
        if not corpus.ids:
            raise UserError(f"no query of {self.queries.path} is about a video that is available")
        return gone

    def evaluate(
        self,
        model: MomentRetrievalModel,
        checkpoint: str | int,
        folder: Path | None = None,
        others: Sequence[Stream] = (),
    ) -> dict[str, float | str]:
        """Search, write results (and metrics where the split has ground truth) on rank 0.

        Args:
            model: of the task.
            checkpoint: for the files' names.
            folder: where to; None = ``results_{split}`` of the run.
            others: models that answer together with this one.

        Returns:
            Metrics as ``TASK/name`` (``TASK/AveR`` of VALUE's among them), NMS variants as
            ``TASK_nms_{thd}/name``; empty without ground truth.
        """
        files = self._files(checkpoint, folder)
        on_main(self.run.comm, files.check)
        with self.run.precision.autocast():
            results = evaluate_corpus(
                [self.stream(model), *others],
                self._query_batches(),
                self.settings,
                self.run.comm,
                self.video2idx,
                self.corpus.ids,
            )
        if not self.run.comm.is_main:
            return {}
        self.coverage.warn_of_metrics()
        metrics = save_results(
            results | self.coverage.mark(),
            files,
            self.truth,
            by_type=self._moments is not None and self._moments.eval_with_query_type,
        )
        return {
            f"{task}{ending}/{name}": value
            for ending, tasks in metrics.items()
            for task, values in tasks.items()
            for name, value in values.items()
        }

    @property
    def _moments(self) -> MomentEvalOptions | None:
        """What is said of moments, where they are searched."""
        options = self.run.options
        if isinstance(options, MomentEvalOptions) and self.settings.searched_videos > 0:
            return options
        return None

    def _files(self, checkpoint: str | int, folder: Path | None) -> ResultsFiles:
        return ResultsFiles(
            folder or self.run.folder.path / f"results_{self.name}",
            Path(str(checkpoint)).stem,
            self._moments.nms_thd if self._moments else -1,
            self.name if self.run.options.VALUE else None,
        )

    def ground_truth(self) -> list[dict[str, Any]] | None:
        """Annotation lines to score with, by ``desc_id`` and ``vid_name`` as the database has them.

        Lines of queries without a video are left out. None where no query has one.
        """
        if not self.video_of:
            LOGGER.info("no metrics: the queries of %s name no video", self.queries.path)
            return None
        names, known = names_of_task(self.run.options.task), set(self.corpus.ids)

        def read(line: dict) -> dict[str, Any] | None:
            check(line, TruthLine)
            qid = get_name(line, *names.ids)
            if qid in self.left_out:
                return None
            own = self.video_of.get(qid) if qid in known else find_name(line, *names.videos)
            return None if own is None else line | {"desc_id": qid, "vid_name": own}

        path = self.queries.path / "query_data.jsonl"
        lines = (line.read(read) for line in read_lines(path))
        truth = [line for line in lines if line is not None]
        if self.run.options.task.startswith("didemo"):
            warn_of_single_moments((line.get("ts") for line in truth), path)
        return truth

    def validate(
        self, model: MomentRetrievalModel, weights: Mapping[str, float], step: int
    ) -> dict[str, float | str]:
        """Weighted mean losses of the split's queries where it has ground truth, then
        :meth:`evaluate` into ``results/``."""
        losses = self._losses(model, weights) if query_videos(self.queries) else {}
        label = split_label(self.name, step)
        return losses | self.evaluate(model, label, self.run.folder.results)

    @cached_property
    def _items(self) -> MomentDataset:
        """What losses are computed of."""
        return MomentDataset(self.queries, self.videos.source)

    def _losses(
        self, model: MomentRetrievalModel, weights: Mapping[str, float]
    ) -> dict[str, float]:
        options = self.run.options
        if not isinstance(options, BatchOptions):
            raise TypeError("losses are computed in training alone")
        size, progress = options.val_batch_size, f"{self.name} losses"
        batches = evaluation_batches(self._items, collate_moments, size, self.run, progress)
        return mean_losses(model, batches, weights, self.run.comm)

    def stream(self, model: MomentRetrievalModel) -> Stream:
        """The split's videos, and the model that reads them."""
        return Stream(model, self._video_batches())

    def _video_batches(self) -> Iterator[VideoBatch]:
        data = CorpusVideos(list(self.video2idx), self.videos.source)
        size = self.run.options.vcmr_eval_video_batch_size
        return evaluation_batches(data, collate_videos, size, self.run, f"{self.name} videos")

    def _query_batches(self) -> Iterator[QueryBatch]:
        size = self.run.options.vcmr_eval_q_batch_size
        queries = self.corpus
        return evaluation_batches(queries, queries.collate, size, self.run, f"{self.name} queries")
