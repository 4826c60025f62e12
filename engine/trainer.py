"""The training loop, the same for all tasks.

A task provides a model whose ``forward(batch)`` returns named losses, the weights of those losses,
an endless loader, and a validation function.

On a GPU the host runs ahead of the device. Within a step it waits for the device only where the
fp16 gradient scaler reads whether a gradient overflowed, and in every exchange of Horovod
(torch.distributed waits on the device, and exchanges lengths on the host). Between steps it waits
where losses are logged (``log_steps``), weights are saved and splits are validated.
"""

import signal
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from config.groups import TrainingOptions
from data.loader import TrainLoader
from engine.endings import log_summary
from engine.restore import (
    load_restore_point,
    random_states,
    save_restore_point,
    save_tensors,
    set_random_states,
)
from engine.run import Run, on_main
from optim.build import build_optimizer
from optim.gradients import clip_gradients, drop_gradients, fill_gradients
from optim.schedule import learning_rate_at, set_learning_rates
from optim.state import load_optimizer_state, optimizer_state
from utils.distributed import GradientReducer, broadcast_parameters, broadcast_state
from utils.errors import UserError
from utils.host_copy import HostCopy
from utils.logger import LOGGER, MetricsWriter
from utils.runtime import release_memory
from utils.signals import Stopped, answered_signals, postponed_signals, received_signal
from utils.tensor_files import copied_once, infinite_weights
from utils.timing import StepClock


@dataclass
class Task:
    """What a training script passes to the engine.

    Attributes:
        name: for messages.
        model: ``model(batch)`` → named scalar losses (B, …), on the device already.
        loader: training batches of this rank, on the device, with ``ids`` of their items.
        loss_weights: factor of every loss, by name.
        validate: metrics by name; may write files into the run's ``results/``.
        set_step: called with (optimizer steps done, accumulation step) before every batch.
        gradient_factors: by name of a loss, a factor on its gradient only, not on the logged loss;
            1 where absent.
        loss_scale: name of the loss scale that fp16 uses for a batch; the same for all batches of
            an optimizer step.
    """

    name: str
    model: nn.Module
    loader: TrainLoader
    loss_weights: Mapping[str, float]
    validate: Callable[[int], Mapping[str, float | str]]
    set_step: Callable[[int, int], None] = lambda step, micro_step: None
    gradient_factors: Mapping[str, float] = field(default_factory=dict)
    loss_scale: Callable[[Any], str] = lambda batch: ""


@dataclass
class RunningMeans:
    """Means since the last logged step, kept as sums on the device until they are logged."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] += 1

    def take_means(self) -> dict[str, float]:
        """Return means by name and reset them."""
        means = {name: total.item() / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means


@dataclass
class StepRecord:
    """Items and losses of one optimizer step.

    Attributes:
        ids: of all items.
        losses: unweighted losses by name, for every batch.
        totals: weighted sum of the losses, for every batch.
    """

    ids: list[str] = field(default_factory=list)
    losses: list[dict[str, Tensor]] = field(default_factory=list)
    totals: list[Tensor] = field(default_factory=list)


class FiniteGuard:
    """Stops a run whose loss or gradient is no longer finite.

    On a GPU the result is read one step later, when it is on the host already, so that the host
    does not wait for the device.
    """

    def __init__(self, task: str, lag: int) -> None:
        self.task = task
        self.lag = lag
        self.pending: list[tuple[int, StepRecord, HostCopy]] = []

    def watch(self, step: int, record: StepRecord, norm: Tensor) -> None:
        """Queue the check of a step's losses and gradient norm; check those that are due."""
        values = torch.stack([value.detach().float() for value in (*record.totals, norm)])
        self.pending.append((step, record, HostCopy(torch.isfinite(values).all())))
        while len(self.pending) > self.lag:
            self._check_oldest()

    def flush(self) -> None:
        """Check all that is pending, before anything is saved."""
        while self.pending:
            self._check_oldest()

    def _check_oldest(self) -> None:
        step, record, finite = self.pending.pop(0)
        if not finite.read():
            names = sorted(set().union(*record.losses))
            raise UserError(
                f"loss ({', '.join(names)}) or gradient is not finite at step "
                f"{step} of task {self.task}; its batch holds {', '.join(record.ids)}: look at "
                "their features and targets, or lower learning_rate"
            )


class Trainer:
    """Trains a :class:`Task`: restores, steps, validates and saves.

    Attributes:
        steps_done: optimizer steps since the start of the run, restored ones included.
        unvalidated: the restore point was written before the validation of its step.
        stopping: a rank received a signal: this step is the last one.
        means: of losses and gradient norm since the last logged step.
        rate: learning rate of the last step.
        writer: of metrics; None on ranks that write nothing.
    """

    def __init__(self, task: Task, run: Run[TrainingOptions]) -> None:
        self.task, self.options, self.comm, self.folder = task, run.options, run.comm, run.folder
        self.steps_done = 0
        self.unvalidated = self.stopping = False
        self.metrics: dict[str, float | str] = {}
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(task.model, run.options)
        self.precision = run.precision
        self.accumulation, self.emulated_ranks = run.accumulation, run.emulated_ranks
        broadcast_parameters(run.comm, task.model)
        self.reducer = GradientReducer(run.comm, self.parameters)
        self.means = RunningMeans()
        self.clock = StepClock(run.device)
        fp16 = self.precision.mode == "fp16"  # there an overflow skips the step
        self.guard = None if fp16 else FiniteGuard(task.name, lag=int(run.device.type == "cuda"))
        self._restore()
        self.writer: MetricsWriter | None = None
        if run.comm.is_main:
            self.writer = MetricsWriter(run.folder.log, self.steps_done, self.unvalidated)

    def train(self) -> dict[str, float | str]:
        """Train to ``num_train_steps`` and return the last validation's metrics.

        Raises:
            Stopped: a rank received SIGINT or SIGTERM, and a restore point is written.
        """
        try:
            with postponed_signals():
                self._train()
        finally:
            if self.writer:
                self.writer.close()
            self.folder.release()
        if self.comm.is_main:
            log_summary(self.folder, self.options)
        return self.metrics

    def _train(self) -> None:
        total = self.options.num_train_steps
        if self.comm.is_main and self.steps_done >= total and not self.unvalidated:
            LOGGER.info(
                "%s is finished, all %d steps are done; to train on, start it again with more of "
                "them: --num_train_steps %d --allow_changed_options",
                *(self.folder.path, self.steps_done, 2 * self.steps_done),
            )
        quiet = not self.comm.is_main
        with tqdm(total=total, initial=self.steps_done, disable=quiet, desc=self.task.name) as bar:
            if self.unvalidated:
                self._finish_step()
            while self.steps_done < total:
                if self.step():
                    bar.update()
                    self._after_step(bar)
                if self.stopping:
                    self._save_restore_point()
                    raise Stopped(received_signal() or signal.SIGTERM, self._how_to_resume())

    def _how_to_resume(self) -> str:
        return f"{self.folder.restore} is of step {self.steps_done}: the same command resumes there"

    def step(self) -> StepRecord | None:
        """Take one optimizer step over all accumulation batches.

        Returns:
            Its record; None if fp16 overflowed and the step was skipped.
        """
        self.task.model.train()
        drop_gradients(self.optimizer)
        record = StepRecord()
        for micro_step in range(self.accumulation):
            last = micro_step == self.accumulation - 1
            with self.clock.phase("data"):
                batch = next(self.task.loader)
            self.task.set_step(self.steps_done, micro_step)
            self.precision.choose_scale(self.task.loss_scale(batch))
            with nullcontext() if last else self.reducer.accumulate():
                self._forward_backward(batch, record)
        with self.clock.phase("reduce"):
            # Exchanged with the gradients, so that all ranks stop after the same step.
            self.stopping = self.reducer.finish(stop=received_signal() is not None)
        with self.clock.phase("optimizer"):
            stepped = self._update(record)
        self.steps_done += stepped
        self.comm.step = self.steps_done
        return record if stepped else None

    def _update(self, record: StepRecord) -> bool:
        """Clip gradients and step the optimizer; False if fp16 overflowed."""
        fill_gradients(self.optimizer)
        self.precision.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, self.options.grad_norm)
        if self.guard:
            self.guard.watch(self.steps_done + 1, record, norm)
        self._set_learning_rate(self.steps_done + 1)
        stepped = self.precision.step(self.optimizer)
        if stepped:
            self.means.add("grad_norm", norm)
            for losses, total in zip(record.losses, record.totals, strict=True):
                for name, loss in losses.items():
                    self.means.add(f"loss/{name}", loss)
                self.means.add("loss/total", total)
        return stepped

    def _set_learning_rate(self, step: int) -> None:
        given = self.options
        self.rate = learning_rate_at(step, given.learning_rate, given.warmup, given.num_train_steps)
        set_learning_rates(self.optimizer, self.rate)

    def _forward_backward(self, batch: Any, record: StepRecord) -> None:
        with self.clock.phase("forward"), self.precision.autocast():
            losses = self.task.model(batch)
            weighted = {name: self.task.loss_weights[name] * x for name, x in losses.items()}
            factors = self.task.gradient_factors
            differentiated = sum(factors.get(name, 1.0) * x for name, x in weighted.items())
            total = sum(weighted.values()).detach()
        with self.clock.phase("backward"):
            # Accumulation steps are summed but ranks averaged, emulated ones too.
            self.precision.backward(differentiated / self.emulated_ranks)
        record.ids += batch.ids
        record.losses.append({name: loss.detach() for name, loss in losses.items()})
        record.totals.append(total)

    def _due(self, every: int) -> bool:
        return self.steps_done % every == 0 or self.steps_done == self.options.num_train_steps

    def _after_step(self, bar: tqdm) -> None:
        options = self.options
        if self._due(options.log_steps):
            bar.set_postfix(loss=f"{self._log_progress():.3f}")
        self.unvalidated = self._due(options.valid_steps)
        if self.unvalidated or self._due(options.save_steps):
            self._save_checkpoint()  # first: a validation that fails does not lose the weights
        if self.stopping:
            return
        if self.unvalidated:
            self._save_restore_point()  # for the same reason
        self._finish_step()

    def _finish_step(self) -> None:
        if self.unvalidated:
            with answered_signals(self._how_to_resume()):
                self._validate()
            self.unvalidated = False
        if self._due(self.options.restore_steps):
            self._save_restore_point()

    def _log_progress(self) -> float:
        """Write the means since the last logged step and return that of the total loss."""
        steps = self.means.counts["grad_norm"]
        values = self.means.take_means() | self.clock.take_means(steps)
        values["learning_rate"] = self.rate
        if self.precision.mode == "fp16":
            scales = self.precision.loss_scales.items()
            values |= {f"loss_scale/{name}" if name else "loss_scale": x for name, x in scales}
        self._write(values)
        return values["loss/total"]

    def _write(self, metrics: Mapping[str, float | str]) -> None:
        if self.writer:
            self.writer.write(self.steps_done, metrics)

    def _validate(self) -> None:
        self.task.model.eval()
        with torch.no_grad(), self.precision.autocast():
            metrics = self.task.validate(self.steps_done)
        release_memory()  # its batches are larger than those of training
        # Plain numbers: a restore point is read with weights_only, which takes no NumPy scalars.
        self.metrics = {k: v if isinstance(v, str) else float(v) for k, v in metrics.items()}
        self._write({f"valid/{name}": value for name, value in self.metrics.items()})
        losses = [f"{k} {v:.4f}" for k, v in self.metrics.items() if k.startswith("loss/")]
        shown = f": {', '.join(losses)}" if losses else ""
        LOGGER.info("validated after step %d%s", self.steps_done, shown)

    def _save_checkpoint(self) -> None:
        if self.guard:
            self.guard.flush()

        def save() -> None:
            state = copied_once(self.task.model.state_dict(), Tensor.cpu)
            save_tensors(self.folder.checkpoint(self.steps_done), state)

        on_main(self.comm, save)

    def _save_restore_point(self) -> None:
        if self.guard:
            self.guard.flush()
        generators = self.comm.all_gather_object(random_states())
        # All ranks wait while rank 0 writes: if one ended, its launcher would end the others.
        on_main(self.comm, lambda: save_restore_point(self.folder, self._state(generators)))

    def _state(self, generators: list[dict]) -> dict[str, Any]:
        return {
            "step": self.steps_done,
            "validated": not self.unvalidated,
            "metrics": self.metrics,
            "model": self.task.model.state_dict(),
            "optimizer": optimizer_state(self.task.model, self.optimizer),
            "precision": self.precision.state_dict(),
            "loader": self.task.loader.state_dict(),  # the same on all ranks
            "random": generators,
            "running": [self.means.sums, dict(self.means.counts)],
        }

    def _restore(self) -> None:
        # Rank 0 reads it for all: hosts need not share the folder.
        state = load_restore_point(self.folder) if self.comm.is_main else None
        state = broadcast_state(self.comm, state)
        if state is None:
            return
        try:
            self._load_state(state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"{self.folder.resumed_from} does not fit this run ({reason}): move it away, or "
                "choose another --output_dir"
            ) from error
        except UserError as error:
            raise UserError(f"{self.folder.resumed_from}: {error}") from None
        LOGGER.info("restored %s after step %d", self.folder.path, self.steps_done)

    def _load_state(self, state: dict[str, Any]) -> None:
        self.steps_done, self.metrics = state["step"], state["metrics"]
        self.comm.step = self.steps_done
        self.unvalidated = not state.get("validated", True)
        _load_restored(self.task.model, state["model"])
        load_optimizer_state(self.task.model, self.optimizer, state["optimizer"])
        self._set_learning_rate(self.steps_done)
        self.precision.load_state_dict(state["precision"])
        if not state["loader"]:
            raise ValueError("it holds no place in the data")
        self.task.loader.load_state_dict(state["loader"])
        sums, counts = state["running"]
        self.means.sums = {k: v.to(self.parameters[0].device) for k, v in sums.items()}
        self.means.counts.update(counts)
        if len(state["random"]) == self.comm.size:
            set_random_states(state["random"][self.comm.rank])
        else:
            LOGGER.warning(
                "the restore point is of %d ranks, now there are %d: dropout draws again, batches "
                "continue with the same item",
                *(len(state["random"]), self.comm.size),
            )


def _load_restored(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a restore point's weights.

    Raises:
        UserError: the model has other weights, after a change of options; or they are not finite.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    restored = {name: tuple(value.shape) for name, value in weights.items()}
    differing = [name for name in shapes | restored if shapes.get(name) != restored.get(name)]
    if differing:
        first = differing[0]
        raise UserError(
            f"the restore point is of a model of other sizes ({len(differing)} weights differ; "
            f"{first}: restore point {restored.get(first)}, model {shapes.get(first)}): resume "
            "with its model_config and max_clip_len, or start a new run from --checkpoint"
        )
    if infinite := infinite_weights(weights):
        raise UserError(
            f"{len(infinite)} weights of the restore point are not finite, such as {infinite[0]}: "
            "the run had diverged; start a new one from an earlier --checkpoint"
        )
    model.load_state_dict(weights)
