"""A world written by hand, without files: a few videos with subtitles, and a tiny model."""

import numpy as np

from config.model_config import ModelConfig
from data.video import SubtitleSource
from model.layers import set_dropout
from model.pretrain import HeroForPretraining
from utils.decoding import check

WIDTH = 6
CLS, PAD, SEP, MASK = 0, 1, 2, 90
V_RANGE = [10, 90]
BLOCK = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
}


class MemoryTextDb(dict):
    """Records by video, with the meta of a subtitle database."""

    path = "subtitles.db"
    meta = {"CLS": CLS, "SEP": SEP, "MASK": MASK, "v_range": V_RANGE}  # noqa: RUF012

    def read(self, vid, kind):
        return check(self[vid], kind)


class MemoryFeatures:
    """Random features (T, 6) per video."""

    path, interval, width = "features", 1.5, WIDTH

    def __init__(self, id2nframe, max_clip_len=-1):
        self.id2nframe, self.max_clip_len = id2nframe, max_clip_len

    def __getitem__(self, vid):
        rng = np.random.default_rng([*vid.encode()])
        features = rng.standard_normal((self.id2nframe[vid], WIDTH)).astype(np.float32)
        return features[: self.max_clip_len] if self.max_clip_len >= 0 else features


def make_source(videos, context=0, max_clip_len=-1):
    """A subtitle source.

    Args:
        videos: {vid: (number of frames, [(tokens, frames), …])}.
        context: previous subtitles whose text stands in front.
        max_clip_len: cut of the videos.
    """
    db = MemoryTextDb()
    for vid, (_, subtitles) in videos.items():
        db[vid] = {
            "input_ids": [list(tokens) for tokens, _ in subtitles],
            "unique_sub2frames": [[n, list(frames)] for n, (_, frames) in enumerate(subtitles)],
        }
    id2nframe = {vid: count for vid, (count, _) in videos.items()}
    return SubtitleSource(db, MemoryFeatures(id2nframe, max_clip_len), context)


def small_model(**arguments):
    """A model for these videos, without dropout."""
    text = BLOCK | {"vocab_size": 100}
    config = ModelConfig.from_dict({"f_config": text, "c_config": BLOCK, "q_config": text})
    model = HeroForPretraining(config, WIDTH, **arguments)
    set_dropout(model, 0.0)
    return model.train()


IMAGES = "v_encoder.f_encoder.img_embeddings."


OF_WIDTH = {
    f"{IMAGES}img_linear.weight": 1,
    f"{IMAGES}img_LayerNorm.weight": 0,
    f"{IMAGES}img_LayerNorm.bias": 0,
    f"{IMAGES}mask_embedding.weight": 1,
    "v_encoder.frame_transform.LayerNorm.weight": 0,
    "v_encoder.frame_transform.LayerNorm.bias": 0,
    "v_encoder.frame_transform.net.1.weight": 1,
    "v_encoder.feat_regress.net.3.weight": 0,
    "v_encoder.feat_regress.net.3.bias": 0,
    "v_encoder.mask_embedding.weight": 1,
}
