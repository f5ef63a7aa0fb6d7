"""The command line's own manners: what is asked of it is answered at once, in one sentence."""

import subprocess
import sys

import pytest

from hf_score import SCOREConfig, __version__
from hf_score.cli import RUN_HELP, RUN_STEPS, main, make_parser
from hf_score.pipeline import RunArguments

QUICK = [["--help"], ["--version"], ["run", "--help"], ["scna"], ["push", "--help"]]


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_help_and_mistyped_words_do_not_wait_for_torch(words):
    code = (
        "import sys\nfrom hf_score.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert "AssertionError" not in done.stderr and (done.stdout or done.stderr)


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "hf_score", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"hf-score {__version__}"


def test_a_mistyped_step_names_the_one_that_was_meant(capsys):
    assert main(["scna"]) == 2
    assert "there is no step 'scna': did you mean 'scan'?" in capsys.readouterr().err


def test_the_short_help_names_options_that_there_are_with_their_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["scan", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: hf-score scan ") and "--help-all" in shown
    names = {line.split()[0].removeprefix("--") for line in RUN_HELP.splitlines() if line.startswith("  --")}
    fields = {**RunArguments.__dataclass_fields__, **SCOREConfig.__dataclass_fields__}
    assert {name.rstrip(",") for name in names} - {"help-all", "config"} <= fields.keys()
    for name, default in (
        ("mask_area", "(0.2)"),
        ("score_lambda", "(default: 3)"),
        ("num_train_epochs", "(default: 3)"),
    ):
        assert float(default.strip("()").removeprefix("default: ")) == fields[name].default
        (line,) = [line for line in RUN_HELP.splitlines() if line.startswith(f"  --{name} ")]
        assert line.endswith(default)


def test_an_option_is_not_taken_for_a_longer_one(capsys):
    assert main(["run", "--model", "a", "--dataset", "b", "--output_dir", "c", "--lambda", "3"]) == 2
    assert "there is no option '--lambda': did you mean '--lambdas'?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["push", "run", "--repo", "you/yours"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mask_area", "2"),
        ("mask_share", "0"),
        ("held_out", "1"),
        ("num_candidates", "0"),
        ("num_keep", "-1"),
        ("num_seeds", "0"),
        ("object_share", "1.5"),
        ("oracle_threshold", "-0.1"),
        ("erm_epochs", "nan"),
        ("erm_learning_rate", "0"),
        ("image_size", "0"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_loaded(option, value, tmp_path, capsys):
    words = ["run", "--model", "a", "--dataset", "b", "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    assert main([*words, f"--{option}", value]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option} is ")
    assert not (tmp_path / "out").exists()


def test_the_old_word_for_data_sets_works_and_names_the_new_one(capsys):
    assert main(["datasets"]) == 0
    listed = capsys.readouterr().out
    with pytest.warns(FutureWarning, match="hf-score datasets"):
        assert main(["benchmarks"]) == 0
    assert capsys.readouterr().out == listed and "fashion_patch" in listed


def test_every_step_is_listed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    listed = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert set(make_parser().step_names) - {"benchmarks"} <= listed and "benchmarks" not in listed
    assert set(RUN_STEPS) <= set(make_parser().step_names)
