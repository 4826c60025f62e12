"""VALUE's tasks against the record: frames, queries, scores, losses."""

from dataclasses import replace

import pytest
import torch

from config.groups import Channel
from config.model_config import ModelConfig
from data.batch import QueryBatch
from data.loader import ItemKey
from data.tvc import TargetClips, open_captions
from data.vcmr import CorpusQueries, MomentDataset, collate_moments
from data.video import collate_videos
from data.video_pool import numbered_videos, video_pool
from data.videoQA import EventDataset, QuestionDataset
from data.violin import SingleStatementDataset
from data.vocabulary import Vocabulary
from model.checkpoint import load_weights
from model.decoding import DecodingSettings
from model.ranking_loss import RankingLoss
from model.tvc import HeroForTvc
from model.vcmr import HeroForVcmr, MomentSchedule
from model.videoQA import HeroForVideoQA
from model.violin import HeroForStatements
from model.vr import HeroForVr
from tests.support.recorded import assert_recorded, placed
from tests.support.recorded_value import WIDE, WIDE_SIZE, ValueWorld, recorded_ids
from utils.errors import UserError
from utils.files import write_json

pytestmark = [pytest.mark.golden_value, pytest.mark.device]

CORPUS = {"yc2r": "yc2", "vatex_en_r": "vatex"}
STEPS = 16  # tokens of a recorded caption
HEAD = "violin_pred_head.linear_1.weight"
VARIANTS = [WIDE, Channel.SUB_ONLY, Channel.VIDEO_ONLY]


@pytest.fixture(scope="module")
def value(golden_value) -> ValueWorld:
    return ValueWorld(golden_value)


@pytest.fixture(scope="module")
def model(value) -> HeroForVcmr:
    return value.model(HeroForVcmr)


def variant(value, model, name, corpus, context=1):
    """Videos and model of a row of the record."""
    if name == WIDE:
        wide = value.model(HeroForVcmr, WIDE_SIZE)
        return value.videos(corpus, context, version=WIDE), wide
    return value.videos(corpus, context, Channel(name)), model


@pytest.mark.parametrize(
    ("kind", "corpus", "name", "context"),
    [
        ("repr/yc2", "yc2", "video_sub", 1),
        ("repr/vatex", "vatex", "video_sub", 1),
        ("repr/sub_only/vlep", "vlep", "sub_only", 0),
        *((f"repr/{name}/yc2", "yc2", name, 1) for name in VARIANTS),
    ],
)
@torch.no_grad()
def test_frame_embeddings(value, model, value_recorded, kind, corpus, name, context):
    videos, model = variant(value, model, name, corpus, context)
    vids = recorded_ids(value_recorded, kind)
    items = [videos.source(vid) for vid in vids]
    together = model.encode_videos(placed(collate_videos(items))).split(
        [i.num_frames for i in items]
    )
    for vid, item, frames in zip(vids, items, together, strict=True):
        alone = model.encode_videos(placed(collate_videos([item])))
        assert_recorded(alone, value_recorded[f"{kind}/{vid}"], vid)
        assert_recorded(frames, value_recorded[f"{kind}/{vid}"], vid)
        subtitles = sum(subtitle.positions for subtitle in item.subtitles)
        assert videos.source.positions(vid) == subtitles


def split_queries(value, task) -> QueryBatch:
    queries = CorpusQueries(value.texts(f"{task}_val"), raw_ids=False)
    return placed(queries.collate([queries[number] for number in range(len(queries))]))


@pytest.mark.parametrize("task", CORPUS)
@torch.no_grad()
def test_query_vectors(value, model, value_recorded, task):
    queries = split_queries(value, task)
    assert sorted(queries.qids) == sorted(recorded_ids(value_recorded, f"query/{task}"))
    for qid, vector in zip(queries.qids, model.encode_queries(queries), strict=True):
        assert_recorded(vector, value_recorded[f"query/{task}/{qid}"], qid)


@pytest.mark.parametrize(
    ("kind", "task", "name"),
    [
        *((f"q2v/{task}", task, "video_sub") for task in CORPUS),
        *((f"q2v/{name}/yc2r", "yc2r", name) for name in VARIANTS),
    ],
)
@torch.no_grad()
def test_video_scores(value, model, value_recorded, kind, task, name):
    """The pool and its numbers are the same for every channel."""
    videos, model = variant(value, model, name, CORPUS[task])
    db = value.texts(f"{task}_val")
    _, numbers = video_pool("val", db, videos.subtitles, videos.source, required=True)
    indices = videos.subtitles.side("vid2dur_idx.json")["val"]
    assert numbers == {vid: index for vid, (_, index) in indices.items()}
    video = placed(collate_videos([videos.source(vid) for vid in sorted(numbers)]))
    queries = split_queries(value, task)
    assert sorted(queries.qids) == sorted(recorded_ids(value_recorded, kind))
    frames = model.encode_videos(video)
    scores = model.video_scores(model.encode_queries(queries), frames, video.layout)
    for qid, row in zip(queries.qids, scores, strict=True):
        assert_recorded(row, value_recorded[f"{kind}/{qid}"], qid)


@pytest.mark.parametrize("task", CORPUS)
def test_pools_of_splits_without_videos(value, task, tmp_path, caplog):
    """And of one that the file lacks, or without the file."""
    videos = value.videos(CORPUS[task])
    table = videos.subtitles.side("vid2dur_idx.json")
    known = videos.features.id2nframe
    split = "test" if task == "yc2r" else "test_public"
    db = value.texts(f"{task}_{split}")
    assert not (db.has_side("query2video.json") or db.has_side("video_ids.json"))
    pool = numbered_videos(split, db, videos.subtitles, known, required=True)
    assert pool.numbers == {vid: index for vid, (_, index) in table[split].items()}
    names = ", ".join(table)
    with pytest.raises(UserError, match=f"has no split 'dev'; it has {names}"):
        numbered_videos("dev", db, videos.subtitles, known, required=True)
    write_json(tmp_path / "other.json", {"dev": table[split]})
    pool = numbered_videos("dev", db, None, known, required=True, indices=tmp_path / "other.json")
    assert len(pool.numbers) == len(table[split]) and pool.file == tmp_path / "other.json"
    train = value.texts(f"{task}_train")
    named = numbered_videos("train", train, None, known, required=True).numbers
    assert named == {vid: sorted(known).index(vid) for vid in named} != {}
    assert "which no server reads" in caplog.text


@pytest.mark.parametrize("hard", ["", "_hard"])
@pytest.mark.parametrize("form", ["hinge", "lse"])
@pytest.mark.parametrize("task", CORPUS)
def test_ranking_losses(value, value_recorded, task, form, hard):
    schedule = MomentSchedule(
        RankingLoss(form, 0.1),
        hard_start_steps=[0] if hard else [],
        hard_pool_sizes=[2] if hard else [],
        hard_weights=[10.0] if hard else [],
    )
    model = value.model(HeroForVr, schedule=schedule).train()
    videos = value.videos(CORPUS[task], context=1)
    data = MomentDataset(value.texts(f"{task}_train"), videos.source)
    place = {ids[0]: number for number, ids in enumerate(data.groups)}
    qids = value.expected_json("batches")[task]
    losses = model(placed(collate_moments([data[ItemKey(place[qid])] for qid in qids])))
    weighted = torch.stack([10 * losses["neg_ctx"], 10 * losses["neg_q"]])
    assert_recorded(weighted, value_recorded[f"vr_loss/{task}/{form}{hard}"])


def dataset(value, cls, task, split, channel=Channel.VIDEO_SUB, context=0, training=False):
    corpus = "vlep" if task == "vlep" else "tv"
    videos = value.videos(corpus, context, channel)
    return cls(value.texts(f"{task}_{split}"), videos.source, training=training)


def both_ways(model, data):
    """Every item's answers, alone and in one batch with all others."""
    items = [data[number] for number in range(len(data))]
    together = model.answer(placed(data.collate(items)))
    for number, id_ in enumerate(data.ids):
        yield id_, model.answer(placed(data.collate([items[number]]))), 0
        yield id_, together, number


@pytest.mark.parametrize("channel", Channel)
@torch.no_grad()
def test_which_event_comes_next(value, value_recorded, channel):
    data = dataset(value, EventDataset, "vlep", "dev", channel)
    kind = "vlep/logits" if channel == Channel.VIDEO_SUB else f"vlep/logits_{channel}"
    assert sorted(data.ids) == sorted(recorded_ids(value_recorded, kind))
    for id_, answers, row in both_ways(value.model(HeroForVideoQA), data):
        assert_recorded(answers.scores[row], value_recorded[f"{kind}/{id_}"], id_)
        if channel == Channel.VIDEO_SUB:
            loss = value_recorded[f"vlep/loss/{id_}"].reshape(())
            assert_recorded(answers.losses["qa"][row], loss, id_)


@torch.no_grad()
def test_two_channels_of_events_averaged(value, value_recorded):
    model = value.model(HeroForVideoQA)
    sets = [
        dataset(value, EventDataset, "vlep", "dev", channel)
        for channel in (Channel.VIDEO_ONLY, Channel.SUB_ONLY)
    ]
    assert sorted(sets[0].ids) == sorted(recorded_ids(value_recorded, "vlep/two_stream"))
    for number, id_ in enumerate(sets[0].ids):
        streams = [model.answer(placed(data.collate([data[number]]))).scores[0] for data in sets]
        mean = torch.stack(streams).softmax(dim=-1).mean(dim=0)
        assert_recorded(mean, value_recorded[f"vlep/two_stream/{id_}"], id_)


def test_spans_of_events_teach_nothing_by_default(value):
    """Whatever they say: the span head's gradient is zero, the others' that of the choice alone."""
    data = dataset(value, EventDataset, "vlep", "train", training=True)
    batch = placed(data.collate([data[number] for number in range(len(data))]))
    assert (batch.spans >= 0).any()
    gradients = []
    for spans in (batch.spans, torch.full_like(batch.spans, -1)):
        model = value.model(HeroForVideoQA).train()
        losses = model(replace(batch, spans=spans, counts=batch.counts | {"st_ed": len(spans)}))
        (losses["qa"] + 0.0 * losses["st_ed"]).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        if name.startswith("st_ed_"):
            assert not gradient.any()
        elif gradient is not None:
            torch.testing.assert_close(gradient, gradients[1][name], atol=1e-7, rtol=0)


@torch.no_grad()
def test_single_statements(value, value_recorded):
    data = dataset(value, SingleStatementDataset, "violin", "val", context=2)
    assert sorted(data.ids) == sorted(recorded_ids(value_recorded, "violin/logit"))
    for id_, answers, row in both_ways(value.model(HeroForStatements), data):
        logit, loss = (value_recorded[f"violin/{kind}/{id_}"] for kind in ("logit", "loss"))
        assert_recorded(answers.scores[row : row + 1], logit.reshape(1), id_)
        assert_recorded(answers.losses["violin"][row], loss.reshape(()), id_)


def test_a_statement_comes_alone_in_training(value):
    data = dataset(value, SingleStatementDataset, "violin", "train", training=True)
    assert [data[number].ids for number in range(len(data))] == [[id_] for id_ in data.ids]


def test_statements_read_the_names_of_either_head(value):
    model = value.model(HeroForStatements)
    state = {name.replace("qa_p", "violin_p"): w for name, w in model.state_dict().items()}
    assert "violin_pool.weight" in state and "qa_pool.weight" not in state
    other = HeroForStatements(ModelConfig.from_json(value.expected / "model_finetune.json"))
    report = load_weights(other, state)
    assert not (report.new_heads or report.missing or report.unexpected)
    assert "violin_pool.weight → qa_pool.weight" in report.renamed
    torch.testing.assert_close(other.qa_pred_head.linear_1.weight, state[HEAD])
    both = state | {HEAD.replace("violin", "qa"): torch.ones_like(state[HEAD])}
    report = load_weights(other, both)
    assert (other.qa_pred_head.linear_1.weight == 1).all() and report.unexpected == [HEAD]


@torch.no_grad()
def test_questions(value, value_recorded):
    data = dataset(value, QuestionDataset, "tvqa", "val")
    assert sorted(data.ids) == sorted(recorded_ids(value_recorded, "tvqa/logits"))
    for id_, answers, row in both_ways(value.model(HeroForVideoQA), data):
        assert_recorded(answers.scores[row], value_recorded[f"tvqa/logits/{id_}"], id_)
        losses = torch.stack([answers.losses[name][row] for name in ("qa", "st_ed")])
        assert_recorded(losses, value_recorded[f"tvqa/loss/{id_}"], id_)


@pytest.mark.parametrize("cls", [HeroForVcmr, HeroForVideoQA])
def test_weight_names_are_the_contract(value, cls):
    contract = value.expected_json("state_dict_keys")[cls.__name__]["parameters"]
    own = value.model(cls).state_dict()
    assert {name: list(weight.shape) for name, weight in own.items()} == contract


def caption_sets(value, corpus, *names, channel=Channel.VIDEO_SUB, max_txt_len=-1):
    databases = [value.world / "txt_db" / f"{name}.db" for name in names]
    videos = value.videos(corpus, context=1, channel=channel)
    return open_captions(databases, videos.source, max_txt_len=max_txt_len)


@pytest.mark.parametrize(
    ("task", "corpus", "names"),
    [
        ("yc2c", "yc2", ["yc2r_train"]),
        ("vatex_en_c", "vatex", ["vatex_en_r_train", "vatex_en_r_val"]),
        ("tvc", "tv", ["tvc_train"]),
    ],
)
@torch.no_grad()
def test_token_losses(value, value_recorded, task, corpus, names):
    model = value.model(HeroForTvc, label_smoothing=0.1)
    data = caption_sets(value, corpus, *names)
    items = [data[number] for number in range(len(data))]
    keys = [item.video.vid if task == "tvc" else item.ids[0] for item in items]
    assert sorted(keys) == sorted(recorded_ids(value_recorded, f"{task}/token_loss"))
    alone = [model(placed(data.collate([item])))["caption"] for item in items]
    for key, losses in zip(keys, alone, strict=True):
        assert_recorded(losses, value_recorded[f"{task}/token_loss/{key}"], key)
    together = model(placed(data.collate(items)))["caption"]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-4, rtol=1e-5)


def test_longer_captions_are_left_out(value):
    for name, recorded in value.expected_json("caption_items").items():
        corpus = name.partition("_")[0].replace("yc2r", "yc2")
        data = caption_sets(value, corpus, name, max_txt_len=recorded["max_txt_len"])
        assert [id_ for _, id_, _ in data.items] == recorded["ids"]
        assert len(data) == len(recorded["ids"])


def written(value, model, name, corpus, channel=Channel.VIDEO_SUB, batch_size=1):
    """Greedy captions of all clips of a file, by clip."""
    whole = corpus != "tv"
    videos = value.videos(corpus, context=1, channel=channel)
    data = TargetClips(value.annotation(name), videos.source, whole_videos=whole)
    vocabulary = Vocabulary.of(videos.subtitles, str(value.world / "toker"))
    settings = DecodingSettings(vocabulary.begin, vocabulary.end, vocabulary.known_ids, STEPS)
    texts = {}
    for first in range(0, len(data), batch_size):
        chosen = range(first, min(first + batch_size, len(data)))
        batch = placed(data.collate([data[number] for number in chosen]))
        rows = model.generate(batch.video, batch.clips, settings)
        texts |= {str(data.lines[p]["clip_id"]): row for p, row in zip(batch.indices, rows)}
    return texts


@pytest.mark.parametrize(
    ("key", "corpus", "channel"),
    [
        ("yc2c", "yc2", Channel.VIDEO_SUB),
        ("vatex_en_c", "vatex", Channel.VIDEO_SUB),
        ("tvc", "tv", Channel.VIDEO_SUB),
        ("yc2c", "yc2", Channel.VIDEO_ONLY),
        ("yc2c", "yc2", Channel.SUB_ONLY),
    ],
)
def test_greedy_captions(value, key, corpus, channel):
    greedy = value.expected_json("greedy")
    recorded = greedy[key] if channel == Channel.VIDEO_SUB else greedy[f"{key}_{channel}"]
    model = value.model(HeroForTvc)
    for batch_size in (1, 3):
        texts = {}
        for file in sorted((value.world / "ann").glob(f"{key}_*_release.jsonl")):
            texts |= written(value, model, file.stem, corpus, channel, batch_size)
        assert {clip_id: texts[clip_id] for clip_id in recorded} == recorded != {}


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize("task", ["yc2r", "vlep", "violin", "yc2c"])
def test_every_channel_trains_every_task(value, task, channel):
    if task == "yc2r":
        cls, videos = HeroForVr, value.videos("yc2", channel=channel)
        data, collate = MomentDataset(value.texts("yc2r_train"), videos.source), collate_moments
    elif task == "yc2c":
        cls, data = HeroForTvc, caption_sets(value, "yc2", "yc2r_train", channel=channel)
        collate = data.collate
    else:
        of_events = task == "vlep"
        cls = HeroForVideoQA if of_events else HeroForStatements
        items = EventDataset if of_events else SingleStatementDataset
        data = dataset(value, items, task, "train", channel, training=True)
        collate = data.collate
    model = value.model(cls).train()
    sum(model(placed(collate([data[0], data[1], data[2]]))).values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    encoder = "v_encoder.f_encoder."
    assert gradients[f"{encoder}embeddings.word_embeddings.weight"].any()
    of_frames = gradients[f"{encoder}img_embeddings.img_linear.weight"]
    assert of_frames.any() == (channel != Channel.SUB_ONLY)
    assert gradients["v_encoder.frame_transform.net.1.bias"].any()
