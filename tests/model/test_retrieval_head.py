"""Another retrieval head: training, validation and the search of a corpus follow it."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import eval_vcmr
import train_vcmr
from config.model_config import ModelConfig
from data.stores.lmdb_io import TextDb
from data.vcmr import CorpusQueries, MomentDataset, collate_moments
from data.video import collate_videos
from model.checkpoint import load_checkpoint
from model.layers import set_dropout
from model.ranking_loss import PADDED_LOGIT, RankingLoss
from model.vcmr import HeroForVcmr, MomentSchedule
from tests.support.rankings import assert_same_ranking
from tests.support.recorded import recorded_source
from tests.support.tvr_runs import train_and_evaluate
from utils.files import read_json

pytestmark = pytest.mark.golden

WEIGHTS = {"neg_ctx": 8.0, "neg_q": 6.0, "st_ed": 0.5}
MARGIN = 0.2


class AnotherHead(HeroForVcmr):
    """A video scores by the mean over its frames; spans come of two layers with a ReLU between."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.span_hidden = nn.Conv1d(1, 3, 5, padding=2)
        self.span_output = nn.Conv1d(3, 2, 3, padding=1)

    def pool_scores(self, cosines, mask):
        return (cosines * mask).sum(dim=-1) / mask.sum(dim=-1)

    def span_logits(self, similarities, mask):
        x = similarities.reshape(-1, 1, similarities.shape[-1])
        real = mask.expand(similarities.shape).reshape(x.shape)
        hidden = self.span_hidden(x * real).relu() * real
        logits = self.span_output(hidden).masked_fill(~real, PADDED_LOGIT)
        start, end = logits.unbind(dim=1)
        return start.view(similarities.shape), end.view(similarities.shape)


class BruteForce:
    """The same head on one query and one video at a time, in float64: no padding, no mask."""

    def __init__(self, model, queries, source):
        self.model, self.queries, self.source = model, queries, source
        self.vectors, self.frames = {}, {}

    def vector(self, qid):
        if qid not in self.vectors:
            batch = self.queries.collate([self.queries[self.queries.ids.index(qid)]])
            self.vectors[qid] = self.model.encode_queries(batch)[0]
        return self.vectors[qid]

    def video(self, vid):
        if vid not in self.frames:
            self.frames[vid] = self.model.encode_videos(collate_videos([self.source(vid)]))
        return self.frames[vid].double()

    def score(self, qid, vid):
        """Mean cosine."""
        vector = self.vector(qid).double()
        cosines = [torch.dot(vector, x) / vector.norm() / x.norm() for x in self.video(vid)]
        return float(sum(cosines)) / len(cosines)

    def logits(self, qid, vid):
        """Start and end, (2, T)."""
        query = self.model.span_queries(self.vector(qid)).double()
        first, second = self.model.span_hidden, self.model.span_output
        x = F.pad(self.video(vid) @ query, (2, 2)).unfold(0, 5, 1)  # (T, 5)
        hidden = (x @ first.weight[:, 0].double().T + first.bias.double()).relu()  # (T, 3)
        x = F.pad(hidden, (0, 0, 1, 1)).unfold(0, 3, 1)  # (T, 3, 3)
        weight, bias = second.weight.double(), second.bias.double()
        return torch.einsum("thk,chk->ct", x, weight) + bias[:, None]

    def losses(self, qids, targets):
        """``neg_ctx``, ``neg_q`` and ``st_ed`` of each query; a batch has each with its video."""
        vids = [self.queries.video_of[qid] for qid in qids]
        scores = [[self.score(qid, vid) for vid in vids] for qid in qids]
        found = []
        for n, (qid, target) in enumerate(zip(qids, targets, strict=True)):
            others = [m for m in range(len(qids)) if m != n]
            start, end = self.logits(qid, vids[n]).log_softmax(dim=1)
            hinges = (
                [max(0.0, MARGIN + scores[n][m] - scores[n][n]) for m in others],
                [max(0.0, MARGIN + scores[m][n] - scores[n][n]) for m in others],
            )
            means = [sum(hinge) / len(others) for hinge in hinges]
            found.append((*means, -float(start[target[0]] + end[target[1]])))
        return dict(zip(("neg_ctx", "neg_q", "st_ed"), map(list, zip(*found)), strict=True))

    def moments(self, qid, vid, options):
        """{(start, end) in seconds: product of the probabilities}."""
        start, end = self.logits(qid, vid).softmax(dim=1)
        shortest, beyond = options["min_pred_l"], options["max_pred_l"]
        interval = options["vfeat_interval"]
        return {
            (a * interval, (b + 1) * interval): float(start[a] * end[b])
            for a in range(len(start))
            for b in range(a + shortest, min(a + beyond, len(start)))
        }

    def results(self, video2idx, options):
        """The results file."""
        lists = {"VCMR": [], "SVMR": [], "VR": []}
        for place, qid in enumerate(self.queries.ids):
            scores = {vid: self.score(qid, vid) for vid in video2idx}
            weights = {vid: math.exp(options["q2c_alpha"] * s) for vid, s in scores.items()}
            ranked = sorted(weights, key=lambda vid, weights=weights: -weights[vid])
            ranked = ranked[: options["max_vcmr_video"]]
            own = {self.queries.video_of[qid]: 1.0}
            searched = {"VCMR": {vid: weights[vid] for vid in ranked}, "SVMR": own}
            found = {"VR": [[video2idx[vid], 0, 0, weights[vid]] for vid in ranked]}
            for task, videos in searched.items():
                rows = [
                    [video2idx[vid], *times, weight * probability]
                    for vid, weight in videos.items()
                    for times, probability in self.moments(qid, vid, options).items()
                ]
                found[task] = sorted(rows, key=lambda row: -row[3])[: options["max_after_nms"]]
            desc_id = self.queries[place][1].desc_id
            for task, rows in found.items():
                lists[task].append({"desc_id": desc_id, "desc": "", "predictions": rows})
        return {"video2idx": video2idx} | lists


def another_model(options, **arguments):
    torch.manual_seed(0)
    return AnotherHead(ModelConfig.from_json(options["model_config"]), **arguments)


@pytest.mark.parametrize("training", [True, False])
def test_losses_are_those_of_the_head(tvr_options, world, training):
    """Means in training, sums in validation; of videos of several lengths."""
    schedule = MomentSchedule(ranking=RankingLoss("hinge", margin=MARGIN))
    model = another_model(tvr_options, schedule=schedule)
    load_checkpoint(model, tvr_options["checkpoint"])
    set_dropout(model, 0.0)
    model.train(training)
    queries, source = TextDb(tvr_options["val_query_txt_db"]), recorded_source(world)
    data = MomentDataset(queries, source)
    batch = collate_moments([data[place] for place in range(6)])
    assert len(set(batch.video.frame_lens.tolist())) > 1
    losses = model(batch)
    with torch.no_grad():
        plain = BruteForce(model, CorpusQueries(queries), source)
        wanted = plain.losses(batch.ids, batch.targets.tolist())
    for name, values in wanted.items():
        found, total = losses[name].sum().item(), sum(values)
        assert found == pytest.approx(total / len(values) if training else total, rel=1e-4), name
    if training:
        sum(losses.values()).backward()
        for layer in (model.span_hidden, model.span_output):
            assert layer.weight.grad.abs().sum() > 0
        assert model.video_st_predictor.weight.grad is None


def test_a_run_validates_and_evaluates_the_head_that_it_trains(
    tvr_options, world, tmp_path, monkeypatch
):
    monkeypatch.setattr(train_vcmr, "HeroForVcmr", AnotherHead)
    task = dataclasses.replace(eval_vcmr.MOMENTS, model_class=AnotherHead)
    monkeypatch.setattr(eval_vcmr, "main", task.evaluate)
    changes = {"margin": MARGIN, "learning_rate": 0.01, "val_batch_size": 100}
    changes |= {f"lw_{name}": weight for name, weight in WEIGHTS.items()}
    changes |= {"vcmr_eval_q_batch_size": 4, "vcmr_eval_video_batch_size": 3}
    run, metrics = train_and_evaluate(tvr_options | changes, tmp_path)

    models = {step: another_model(tvr_options).eval() for step in (1, 2)}
    for step, model in models.items():
        path = run / "ckpt" / f"model_step_{step}.pt"
        load_checkpoint(model, path).require_complete(path)
    for name in ("span_hidden", "span_output"):
        before, after = (getattr(models[step], name).weight for step in (1, 2))
        assert not torch.equal(before, after)

    options = read_json(run / "log" / "hps.json")
    queries, source = TextDb(tvr_options["val_query_txt_db"]), recorded_source(world)
    data = MomentDataset(queries, source)
    targets = {data[place].ids[0]: data[place].targets[0] for place in range(len(data))}
    with torch.no_grad():
        plain = BruteForce(models[2], CorpusQueries(queries), source)
        losses = plain.losses(list(targets), list(targets.values()))
        found = read_json(run / "results_val" / "results_2_all.json")
        wanted = plain.results(found["video2idx"], options)
    for name, values in losses.items():
        mean = WEIGHTS[name] * sum(values) / len(values)
        assert metrics[f"loss/{name}"] == pytest.approx(mean, rel=1e-4), name
    assert_same_ranking(found, wanted)
    assert_same_ranking(read_json(run / "results" / "results_2_all.json"), wanted)
