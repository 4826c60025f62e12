"""Sentences that are typed in, and the videos there are to search for them."""

from collections.abc import Sequence

from data.batch import QueryBatch
from data.bpe_tokenizer import BpeTokenizer
from data.sources import VideoData
from data.tokenize import encode_texts, normalize_query
from data.vcmr import query_tokens
from data.video import collate_texts
from utils.errors import UserError, brief


def check_sentences(sentences: Sequence[str]) -> None:
    """Refuse what describes nothing.

    Raises:
        UserError: a sentence is empty, or no text.
    """
    for sentence in sentences:
        if not sentence.strip():
            raise UserError("--query is empty; describe a moment in a sentence")
        if not sentence.isascii() and sentence.encode("utf-8", "replace").decode() != sentence:
            raise UserError(f"--query {brief(sentence)} is no UTF-8 text; type it again")


def sentence_queries(sentences: Sequence[str], tokenizer: BpeTokenizer, cls_id: int) -> QueryBatch:
    """Sentences as queries "0", "1", …

    Args:
        cls_id: the token ``<s>``.

    Raises:
        UserError: one is empty.
    """
    check_sentences(sentences)
    encoded = encode_texts(tokenizer, [normalize_query(sentence) for sentence in sentences])
    texts = [query_tokens(ids, {"CLS": cls_id}) for ids in encoded]
    ids = [str(number) for number in range(len(sentences))]
    return QueryBatch(ids, [*ids], [None] * len(ids), collate_texts(texts))


def searchable_videos(videos: VideoData) -> list[str]:
    """Videos with features and, where subtitles are read, in the subtitle database.

    Raises:
        UserError: there are none.
    """
    with_features = list(videos.features.keys())
    if videos.subtitles is None:
        return with_features
    both = [vid for vid in with_features if vid in videos.subtitles]
    if not both:
        raise UserError(
            f"{videos.features.path} and {videos.subtitles.path} have no video in common; do they "
            "belong together?"
        )
    return both
