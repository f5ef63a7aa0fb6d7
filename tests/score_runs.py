"""Small trainings by SCORE, for the tests of its trainer and of its forms."""

import torch
from tiny import square_images, square_samples, tiny_processor, tiny_vit

from hf_score import SCOREConfig, SCORETrainer


def config(folder, **fields) -> SCOREConfig:
    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "score_layer": "block1",
        "score_batch_size": 4,
        "score_held_out_share": 0.25,
    }
    return SCOREConfig(**{**defaults, **fields})


def score_trainer(folder, model=None, **fields) -> SCORETrainer:
    dataset = fields.pop("train_dataset", None) or square_images()
    samples = fields.pop("samples", square_samples() if fields.get("score_lambda", 1.0) > 0 else None)
    arguments = {name: fields.pop(name) for name in ("eval_dataset", "group_names") if name in fields}
    return SCORETrainer(
        model=model or square_vit(),
        args=config(folder, **fields),
        train_dataset=dataset,
        spurious_samples=samples,
        processing_class=tiny_processor(),
        **arguments,
    )


def square_vit(seed: int = 0, **changes):
    """A ViT for which squares alone are of the class of squares."""
    model = tiny_vit(seed, **changes)
    model.classifier.bias.data[1] += 1.0
    return model


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(a: dict, b: dict, **tolerance) -> None:
    assert a.keys() == b.keys()
    for name in a:
        if tolerance:
            torch.testing.assert_close(a[name], b[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)
        else:
            assert torch.equal(a[name], b[name]), name
