"""Build a task's model from the options of a run."""

from typing import Any, TypeVar

from config.evaluation import RunOptions
from config.groups import ModelOptions, TrainingOptions
from config.shared_model import SharedModel
from engine.run import Run
from model.apex_norm import use_fused_layer_norm
from model.checkpoint import (
    Build,
    feature_width,
    load_checkpoint,
    read_state_dict,
    without_values,
)
from model.embed import grow_rows
from model.hero import FEATURE_SIZE, HeroModel
from model.layers import set_activation_checkpointing, set_dropout
from model.roberta import load_roberta_checkpoint
from utils.logger import LOGGER

ModelT = TypeVar("ModelT", bound=HeroModel)


def build_for_training(
    cls: type[ModelT],
    run: Run[TrainingOptions],
    feature_size: int,
    longest: int,
    **arguments: Any,
) -> ModelT:
    """Return a model on the run's device, initialized as its options say.

    Args:
        cls: the task's model.
        run: its options give ``checkpoint``, ``dropout``, ``max_clip_len``.
        feature_size: width D of the frame features.
        longest: frames of the longest video.
        arguments: further arguments of ``cls``.

    Raises:
        UserError: the checkpoint cannot be used.
    """

    def build(width: int) -> ModelT:
        return cls(run.model_config, width, **arguments)

    model = build(feature_size)
    _initialise(model, run.options, build)
    set_dropout(model, run.options.dropout)
    set_activation_checkpointing(model, run.options.activation_checkpointing)
    return _finish(model, run, longest)


def build_for_evaluation(
    cls: type[ModelT],
    run: Run[RunOptions],
    feature_size: int | None,
    longest: int,
    **arguments: Any,
) -> ModelT:
    """Return the run's ``checkpoint`` as a model in evaluation mode.

    Arguments are those of :func:`build_for_training`; ``feature_size`` None is the checkpoint's.

    Raises:
        UserError: the checkpoint lacks weights of the model, or cannot be used.
    """

    def build(width: int) -> ModelT:
        return cls(run.model_config, width, **arguments)

    path = run.folder.find_checkpoint(run.evaluated.name)
    state = read_state_dict(path)
    with without_values():  # no random weights are drawn
        model = build(feature_size or feature_width(state) or FEATURE_SIZE)
    load_checkpoint(model, path, build, state=state).require_complete(path)
    return _finish(model, run, longest).eval()


def _initialise(model: HeroModel, options: ModelOptions, build: Build) -> None:
    if not options.checkpoint:
        LOGGER.info("no checkpoint: random weights")
    elif options.load_partial_pretrained:
        load_roberta_checkpoint(model, options.checkpoint, options.skip_layer_loading)
    else:
        shared = SharedModel.find(options.checkpoint)
        path = shared.weights if shared else options.checkpoint
        load_checkpoint(model, path, build, options.reinit_feature_layers)


def _finish(model: ModelT, run: Run[TrainingOptions | RunOptions], longest: int) -> ModelT:
    frames = model.v_encoder.f_encoder.img_embeddings.position_embeddings
    limit = run.options.max_clip_len
    # A subtitle may cover all frames of its video.
    grow_rows(frames, longest if limit < 0 else limit)
    model = model.to(run.device)
    if run.options.apex:
        use_fused_layer_norm(model)
    return model
