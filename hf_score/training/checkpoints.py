"""`CheckpointedTrainer`: `transformers.Trainer` whose checkpoints are loaded strictly and hold what a method adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel, TimmWrapperForImageClassification, Trainer
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from ..errors import ModelError
from ..files import write_bytes
from ..models import checkpoint_state
from .base_config import BaseConfig
from .convergence import converged_checkpoint

__all__ = ["CheckpointedTrainer"]


class CheckpointedTrainer(Trainer):
    """`Trainer`, whose checkpoints lose nothing: a method's own tensors lie beside the optimizer's, and weights that
    a checkpoint lacks are an error."""

    args: BaseConfig  # type: ignore[assignment]
    #: How results, plans and tables call the method; it names the file of `extra_state` too.
    name: ClassVar[str]

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs beside weights and optimizer: override it with `load_extra_state`."""
        return {}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `extra_state` gave when the checkpoint was saved, on the trainer's device."""

    @property
    def has_extra_state(self) -> bool:
        """Whether a checkpoint holds an `extra_state`."""
        return type(self).extra_state is not CheckpointedTrainer.extra_state

    def _extra_state_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"{self.name}_state.safetensors"

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Keep `extra_state` beside the optimizer's."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.has_extra_state and self.args.should_save:
            tensors = {name: value.detach().cpu().contiguous() for name, value in self.extra_state().items()}
            write_bytes(self._extra_state_file(output_dir), save(tensors))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The counterpart of `_save_optimizer_and_scheduler`."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not self.has_extra_state:
            return
        path = self._extra_state_file(checkpoint)
        if not path.is_file():
            raise ModelError(f"{path} is missing: resume from a checkpoint that {type(self).__name__} saved.")
        self.load_extra_state(load_file(path, device=str(self.args.device)))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """`Trainer.train`; from a checkpoint whose training had converged (`patience`), its best weights."""
        found = get_last_checkpoint(self.args.output_dir or ".") if resume_from_checkpoint is True else None
        found = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else found
        state = converged_checkpoint(found, self.args) if found else None
        if found is None or state is None:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        self.state = state
        assert self.model is not None
        self._move_model_to_device(self.model, self.args.device)
        if self.has_extra_state:
            self.load_extra_state(load_file(self._extra_state_file(found), device=str(self.args.device)))
        self._load_best_model()
        return TrainOutput(state.global_step, 0.0, {})

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save a timm model by timm's names, and leave no pickle beside the weights: `training_args.bin` holds local
        paths, and nobody should load it."""
        if isinstance(self.model, TimmWrapperForImageClassification):
            state_dict = checkpoint_state(self.model, state_dict)
        super()._save(output_dir, state_dict=state_dict)
        if self.args.should_save:
            (Path(output_dir or self.args.output_dir or ".") / "training_args.bin").unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load strictly: the base class loses renamed ViT keys silently (transformers#43701, #48805)."""
        if self._is_plain_checkpoint(resume_from_checkpoint):
            self._load_strictly(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """Load strictly, for the same reason."""
        best = self.state.best_model_checkpoint
        if best is not None and self._is_plain_checkpoint(best):
            self._load_strictly(best)
        else:
            super()._load_best_model()

    def _is_plain_checkpoint(self, folder: str) -> bool:
        sharded_training = self.is_fsdp_enabled or self.is_deepspeed_enabled
        plain = isinstance(self.model, PreTrainedModel) and (Path(folder) / "config.json").is_file()
        return plain and not sharded_training

    def _load_strictly(self, folder: str) -> None:
        assert isinstance(self.model, PreTrainedModel)
        load: Any = type(self.model).from_pretrained
        loaded, info = load(folder, dtype=next(self.model.parameters()).dtype, output_loading_info=True)
        if info["missing_keys"] or info["mismatched_keys"]:
            lost = sorted(info["missing_keys"])[:3] or sorted(map(str, info["mismatched_keys"]))[:3]
            raise ModelError(f"checkpoint {folder} does not hold {lost}: it is not a checkpoint of this model.")
        self.model.load_state_dict(loaded.state_dict(), strict=True)
