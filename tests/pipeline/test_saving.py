"""Checkpoints by the clock."""

import pytest
from tiny import square_images, tiny_vit

from hf_score import SCOREConfig, SCORETrainer
from hf_score.pipeline.saving import SaveEveryMinute


@pytest.mark.parametrize(("seconds", "strategy", "kept"), [(0, "epoch", [4]), (3600, "epoch", []), (0, "no", [])])
def test_a_checkpoint_each_time_the_clock_says_so_and_one_at_a_time(seconds, strategy, kept, tmp_path):
    args = SCOREConfig(
        str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        score_lambda=0.0,
        save_strategy=strategy,
        save_total_limit=1,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    saved = []

    class Noted(SCORETrainer):
        def _save_checkpoint(self, *args, **kwargs):
            super()._save_checkpoint(*args, **kwargs)
            saved.append(self.state.global_step)

    Noted(tiny_vit(), args, train_dataset=square_images(64), callbacks=[SaveEveryMinute(seconds)]).train()
    assert {step for step in saved if step < 4} == ({1, 2, 3} if kept else set())
    left = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    assert left == kept or (strategy == "epoch" and left == [4])  # the last step is saved anyway
