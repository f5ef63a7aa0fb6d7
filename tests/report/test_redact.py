import pytest

from hf_score.report.redact import redact, sanitise_command

TOKEN = "hf_" + "AbCdEfGhIj" * 3


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python /home/ann/run_score.py --seed 3", "python run_score.py --seed 3"),
        ("run --dataset=/data/isic --layer=block4", "run --dataset=isic --layer=block4"),
        ("run '/home/ann/my images'", "run 'my images'"),
        ("run --masks ../elsewhere/masks/", "run --masks masks"),
        ("run --out ~/runs/one --cache ~ann/cache", "run --out one --cache cache"),
        (r"run 'C:\Users\ann\data' 'D:/x/y'", "run data y"),
        ("run file:///home/ann/x", "run x"),
        ("run cfg:/home/ann/x,/home/ann/y", "run cfg:x,y"),
        ('run --spec \'{"root": "/home/ann/x"}\'', 'run --spec \'{"root": "x"}\''),
        ("accelerate launch examples/run_score.py", "accelerate launch examples/run_score.py"),
        ("run --model google/vit-base-patch16-224", "run --model google/vit-base-patch16-224"),
        ("run https://ann:pw@host.org/a/b?key=1", "run https://host.org/a/b"),
        ("run --ratio 1/2 --lr 5e-5 --layer -2", "run --ratio 1/2 --lr 5e-5 --layer -2"),
        ("run --hub_token abc --push", "run --hub_token '***' --push"),
        ("run --hub-token=abc", "run '--hub-token=***'"),
        ("run --use_token --push", "run --use_token --push"),
        ("HF_TOKEN=abc API_KEY=d run", "'HF_TOKEN=***' 'API_KEY=***' run"),
        (f"run --note x{TOKEN} {TOKEN}", f"run --note x{TOKEN} '***'"),
        ("run 'unbalanced /home/ann/x", "run ''\"'\"'unbalanced' x"),
    ],
)
def test_command(command, expected):
    assert sanitise_command(command) == expected


def test_structure_keeps_its_shape_and_other_values():
    content = {
        "command": "run /home/ann/x --token t",
        "config": {"output_dir": "/home/ann/runs/1", "score_lambda": 0.5, "none": None, "hub_token": "anything"},
        "list": ["/a/b", "class 1/2", "and/or", 3, True],
        "licence": "CC BY-NC / CC0",
        "note": f"logged in with {TOKEN}.",
    }
    assert redact(content) == {
        "command": "run x --token '***'",
        "config": {"output_dir": "1", "score_lambda": 0.5, "none": None, "hub_token": "***"},
        "list": ["b", "class 1/2", "and/or", 3, True],
        "licence": "CC BY-NC / CC0",
        "note": "logged in with ***.",
    }
    assert content["config"]["output_dir"] == "/home/ann/runs/1"
