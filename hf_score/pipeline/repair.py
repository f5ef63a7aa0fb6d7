"""`hf-score repair`: a run's starting model with its last layer edited by the run's samples, without training."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..baselines import RepairConfig, RepairTrainer, Supervision
from ..baselines.repair import Repaired
from ..errors import HFScoreError
from ..files import write_json
from .arguments import parse_arguments
from .quiet import only_our_words
from .run import SeedRun

__all__ = ["repair_run"]

REPAIR_SCHEMA = "hf-score/repair/1"


def repair_run(folder: str | os.PathLike[str], *, max_loss: float = 1.0, say: Callable[[str], None] = print) -> Path:
    """Edit the head of a run's starting model, and write it as a stock checkpoint. → `repair/`, `repair.json`

    The next `hf-score evaluate RUN` measures it beside the others, and the report has a row for it.

    Args:
        folder: of a run whose samples somebody has decided on.
        max_loss: points of held-out accuracy that the edit may cost.
        say: told what came out.

    Returns:
        the checkpoint's folder.

    Raises:
        HFScoreError: a folder without a run or of several seeds, nobody has decided yet, or no edit that raises the
            label-free estimate costs so little.
    """
    folder = Path(folder)
    if not 0 <= max_loss <= 100 or math.isnan(max_loss):
        raise HFScoreError(f"max_loss is {max_loss}: give points of accuracy from 0 to 100.")
    arguments, config = parse_arguments([str(folder)])
    if arguments.num_seeds > 1:
        raise HFScoreError(f"repair is about one seed, and the run in {folder} has {arguments.num_seeds}.")
    run = SeedRun(folder, arguments, config)
    for part, step in (("erm", "scan"), ("candidates", "scan"), ("selection.json", "decide")):
        if not run.folder.has(part):
            raise HFScoreError(f"the run in {folder} has no {part} yet: 'hf-score {step} {folder}' makes it.")
    run.check_parts()
    with only_our_words(), tempfile.TemporaryDirectory() as scratch:  # a trainer makes its folder
        trainer = _trainer(run, scratch, max_loss=max_loss)
        trainer.train()
    repaired = trainer.repaired
    assert repaired is not None
    if repaired.estimate_after <= repaired.estimate_before:
        raise HFScoreError(
            f"no edit of the last layer raises the label-free estimate of {repaired.estimate_before:.3f} at a cost of "
            f"at most {max_loss:g} points of held-out accuracy: it is in the representation itself, so train "
            f"with 'hf-score train {folder}', or allow more with --max_loss."
        )
    run.folder.record("repair", arguments, run.config)
    run.folder.save_model("repair", trainer.model, run.workspace.processor)  # type: ignore[arg-type]
    write_json(folder / "repair.json", _described(repaired, max_loss=max_loss))
    say(
        f"{repaired.name[0].upper()}{repaired.name[1:]}: label-free estimate of the worst group "
        f"{repaired.estimate_before:.3f} → {repaired.estimate_after:.3f}, held-out accuracy "
        f"{100 * repaired.accuracy_before:.1f} → {100 * repaired.accuracy_after:.1f} %. "
        f"'hf-score evaluate {folder}' measures it, and 'hf-score report {folder}' shows it."
    )
    return folder / "repair"


def _trainer(run: SeedRun, scratch: str, *, max_loss: float) -> RepairTrainer:
    workspace, config = run.workspace, run.config
    samples = run.scan().samples(run.decide(), workspace.view("train"), processor=workspace.processor)
    args = RepairConfig(
        output_dir=scratch,
        seed=config.seed,
        use_cpu=config.use_cpu,
        per_device_eval_batch_size=config.per_device_eval_batch_size,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        repair_max_loss=max_loss,
        repair_held_out_share=config.score_held_out_share,
    )
    return RepairTrainer(
        run.erm(),
        args,
        supervision=Supervision(samples=samples),
        train_dataset=workspace.view("train"),
        eval_dataset=workspace.view("held_out"),
        processing_class=workspace.processor,
    )


def _described(repaired: Repaired, *, max_loss: float) -> dict[str, Any]:
    figures = {
        name: value if isinstance(value, str) else round(value, 4) for name, value in repaired._asdict().items()
    }
    return {"schema": REPAIR_SCHEMA, "edit": figures.pop("name"), **figures, "max_loss": max_loss}
