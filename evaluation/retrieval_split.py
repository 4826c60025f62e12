"""A split to search: its videos, its queries, its ground truth."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from config.evaluation import CorpusEvalOptions
from config.groups import BatchOptions, Channel, MomentEvalOptions
from config.training import RetrievalOptions
from config.value import SetOptions
from data.annotations import read_lines
from data.batch import QueryBatch
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
    """A split's pool of videos, and the queries to search it for.

    Args:
        name: of the split, as in ``vid2dur_idx.json``.
        queries: its query database.
        videos: its videos.
        run: batch sizes, ranks, folder.
        settings: which lists to make. Results of video retrieval alone identify queries by strings,
            as its published files do. There, and without subtitles, the pool are the videos of the
            queries, numbered by their sorted names; VALUE's are those of the file of indices.

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
        self.name, self.queries, self.videos = name, queries, videos
        self.run, self.settings = run, settings
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
        """With ``only_available``, drop queries whose own video is missing; return their ids."""
        corpus, source, total = self.corpus, self.videos.source, len(self.corpus.ids)
        left_out = set()
        if source.only_available:
            own = ((qid, self.video_of.get(qid)) for qid in corpus.ids)
            left_out = {qid for qid, vid in own if vid is not None and vid not in source}
        corpus.ids = [qid for qid in corpus.ids if qid not in left_out]
        self.coverage = Coverage(
            f"{self.queries.path} ({self.name})",
            "queries",
            (len(self.video2idx), len(pool.numbers)),
            (len(corpus.ids), total),
        )
        self.coverage.log(source.only_available)
        if not corpus.ids:
            raise UserError(f"no query of {self.queries.path} is about a video that is available")
        return left_out

    def evaluate(
        self,
        model: MomentRetrievalModel,
        checkpoint: str | int,
        folder: Path | None = None,
        others: Sequence[Stream] = (),
    ) -> dict[str, float | str]:
        """Search, write results (and metrics where the split has ground truth) on rank 0.

        Args:
            checkpoint: for the files' names.
            folder: where to write; default: ``results_{split}`` of the run.
            others: models whose weights and probabilities are averaged with this one's.

        Returns:
            Metrics as ``TASK/name`` (by VALUE's rules with ``TASK/AveR``), NMS variants as
            ``TASK_nms_{thd}/name``; empty without ground truth.
        """
        options = self.run.options
        searched = self.settings.searched_videos > 0
        moments = options if searched and isinstance(options, MomentEvalOptions) else None
        files = ResultsFiles(
            folder or self.run.folder.path / f"results_{self.name}",
            Path(str(checkpoint)).stem,
            moments.nms_thd if moments else -1,
            self.name if options.VALUE else None,
        )
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
            by_type=moments is not None and moments.eval_with_query_type,
        )
        return {
            f"{task}{ending}/{name}": value
            for ending, tasks in metrics.items()
            for task, values in tasks.items()
            for name, value in values.items()
        }

    def ground_truth(self) -> list[dict[str, Any]] | None:
        """Return annotation lines to score with, as ``desc_id`` and ``vid_name`` of the database.

        Lines of queries without a video are left out. None if no query has one.
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
        """Return weighted mean losses, where there is ground truth, and the metrics of
        :meth:`evaluate`, which writes into ``results/``."""
        losses: dict[str, float] = {}
        options = self.run.options
        if isinstance(options, BatchOptions) and query_videos(self.queries):
            batches = evaluation_batches(
                self._items,
                collate_moments,
                options.val_batch_size,
                self.run,
                f"{self.name} losses",
            )
            losses = mean_losses(model, batches, weights, self.run.comm)
        label = split_label(self.name, step)
        return losses | self.evaluate(model, label, self.run.folder.results)

    @cached_property
    def _items(self) -> MomentDataset:
        """Items to compute losses of."""
        return MomentDataset(self.queries, self.videos.source)

    def stream(self, model: MomentRetrievalModel) -> Stream:
        """Return the model and batches of the split's videos."""
        data = CorpusVideos(list(self.video2idx), self.videos.source)
        size, progress = self.run.options.vcmr_eval_video_batch_size, f"{self.name} videos"
        return Stream(model, evaluation_batches(data, collate_videos, size, self.run, progress))

    def _query_batches(self) -> Iterator[QueryBatch]:
        size, progress = self.run.options.vcmr_eval_q_batch_size, f"{self.name} queries"
        return evaluation_batches(self.corpus, self.corpus.collate, size, self.run, progress)
