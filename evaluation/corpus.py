"""Evaluate retrieval models on a corpus: videos are encoded once, queries batch by batch."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.batch import QueryBatch, VideoBatch
from evaluation.ranking import CorpusIndex, SearchSettings
from evaluation.results import QueryPredictions, Results, assemble_results
from evaluation.two_streams import AveragedIndex
from model.vcmr import MomentRetrievalModel
from utils.distributed import Communicator
from utils.errors import UserError
from utils.tensor_files import infinite_weights


@dataclass
class Stream:
    """A model, and this rank's share of its input; shares may overlap, and may be empty."""

    model: MomentRetrievalModel
    videos: Iterable[VideoBatch]


def evaluate_corpus(
    streams: Sequence[Stream],
    query_batches: Iterable[QueryBatch],
    settings: SearchSettings,
    comm: Communicator,
    video2idx: Mapping[str, int],
    qids: Sequence[str],
) -> Results:
    """Search the corpus for all queries of a split.

    Encoding runs under the caller's autocast, if any; ranking is always float32. All ranks take
    part and all return the same results, those of a single process. A query whose own video is
    unknown, or not in the pool, has no list of SVMR.

    Args:
        streams: one, or several whose weights and probabilities are averaged.
        query_batches: this rank's share.
        settings: which lists to make.
        comm: the ranks.
        video2idx: the pool, in the order that breaks ties, and each video's index in the results.
        qids: all queries of the split, in its order.

    Raises:
        UserError: the embeddings or scores are not finite.
        KeyError: a video of the pool is in no rank's share.
        ValueError: a query of ``qids`` is in no rank's share.
    """
    models = [stream.model for stream in streams]
    with ExitStack() as modes:
        for model in models:
            modes.enter_context(_evaluation_mode(model))
        indices = [_encode_corpus(each.model, each.videos, comm, video2idx) for each in streams]
        index: CorpusIndex | AveragedIndex = indices[0]
        if len(indices) > 1:
            index = AveragedIndex(indices, settings.q2c_alpha)
        predictions = list(_search(models, index, query_batches, settings, video2idx))
    parts = comm.all_gather_object(predictions)
    return assemble_results(video2idx, parts, qids, settings.tasks)


@contextmanager
def _evaluation_mode(model: MomentRetrievalModel) -> Iterator[None]:
    """Disable dropout and gradients; restore the model's mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _device(model: MomentRetrievalModel) -> torch.device:
    return next(model.parameters()).device


def _encode_corpus(
    model: MomentRetrievalModel,
    batches: Iterable[VideoBatch],
    comm: Communicator,
    video2idx: Mapping[str, int],
) -> CorpusIndex:
    """Encode this rank's videos and index those of all ranks."""
    vids, lengths, encoded = [], [], []
    for batch in batches:
        vids += batch.vids
        lengths += batch.frame_lens.tolist()
        encoded.append(model.encode_videos(batch.to(_device(model))).float())
    shares = comm.all_gather_object((vids, lengths, encoded[0].shape[1] if encoded else 0))
    width = max(width for *_, width in shares)
    own = torch.cat(encoded) if encoded else torch.empty(0, width, device=_device(model))
    encoded.clear()
    if not own.isfinite().all():
        raise not_finite(model, vids, own.split(lengths))
    videos: dict[str, Tensor] = {}
    for (share_vids, share_lengths, _), frames in zip(shares, comm.all_gather_parts(own)):
        videos |= zip(share_vids, frames.split(share_lengths))
    corpus = {vid: videos[vid] for vid in video2idx}
    return CorpusIndex(corpus, model.pool_scores, model.span_probabilities)


def not_finite(
    model: MomentRetrievalModel, vids: Sequence[str], encoded: Sequence[Tensor]
) -> UserError:
    """Return the error of encoded videos (T, H) that have NaN or infinite values."""
    if infinite := infinite_weights(model.state_dict()):
        return UserError(
            f"the model's weights hold NaN or infinite values, such as {infinite[0]}; take an "
            "earlier checkpoint"
        )
    vid = next(vid for vid, frames in zip(vids, encoded) if not frames.isfinite().all())
    return UserError(
        f"video {vid!r} is encoded as values that are not finite: its features hold NaN or huge "
        "values (scripts/check_data.py finds them), or --fp16 overflowed (then try --bf16)"
    )


def _search(
    models: Sequence[MomentRetrievalModel],
    index: CorpusIndex | AveragedIndex,
    batches: Iterable[QueryBatch],
    settings: SearchSettings,
    video2idx: Mapping[str, int],
) -> Iterator[QueryPredictions]:
    """Rank videos and moments for every query of this rank."""
    indices = np.array([video2idx[vid] for vid in index.video_ids])
    for batch in batches:
        vids = batch.vids or [None] * len(batch.qids)
        own = [vid if vid in index.position else None for vid in vids]
        lists = _search_batch(models, index, batch, own, settings)
        for number, (qid, desc_id, vid) in enumerate(zip(batch.qids, batch.desc_ids, own)):
            predictions = {
                task: tables[number]
                for task, tables in lists.items()
                if task != "SVMR" or vid is not None
            }
            for table in predictions.values():
                table[:, 0] = indices[table[:, 0].astype(np.int64)]
            yield QueryPredictions(qid, desc_id, predictions)


def _search_batch(
    models: Sequence[MomentRetrievalModel],
    index: CorpusIndex | AveragedIndex,
    batch: QueryBatch,
    own: Sequence[str | None],
    settings: SearchSettings,
) -> dict[str, list[np.ndarray]]:
    """Return lists by task; that of SVMR is undefined for a query whose own video is unknown."""
    device = _device(models[0])
    vectors = [model.encode_queries(batch.to(device)) for model in models]
    span_queries = true_videos = None
    if set(settings.tasks) != {"VR"}:
        pairs = zip(models, vectors, strict=True)
        span_queries = [model.span_queries(vector).float() for model, vector in pairs]
    if any(own):
        positions = [0 if vid is None else index.position[vid] for vid in own]
        true_videos = torch.tensor(positions, device=device)
    else:
        tasks = tuple(task for task in settings.tasks if task != "SVMR")
        settings = dataclasses.replace(settings, tasks=tasks)
    with torch.autocast(device.type, enabled=False):
        queries = [vector.float() for vector in vectors]
        if isinstance(index, AveragedIndex):
            return index.search(queries, settings, span_queries, true_videos)
        spans = span_queries[0] if span_queries else None
        return index.search(queries[0], settings, spans, true_videos)
