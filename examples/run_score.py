r"""SCORE from an image classifier and a data set to a debiased checkpoint, a before/after table and a report.

    accelerate launch examples/run_score.py --model google/vit-base-patch16-224 --dataset DATA \
        --masks MASKS --output_dir RUN

`--model` is a Hub id, a local folder or a timm name; `--dataset` a Hub id, a local imagefolder with metadata.csv, or a
registered data set such as fashion_patch. All fields of `SCOREConfig` (so all of `TrainingArguments`) are options.
Without masks of the spurious region the run stops once the contact sheets are there, for a person to decide.

`hf-score run` does the same; here the steps stand one after the other. Each leaves a file or folder in the run folder,
and is skipped where that is there already, so that `--resume` goes on where a run was stopped.
"""

import sys

from hf_score.cli import run_script
from hf_score.pipeline import finish_runs, merge_results, methods_of, parse_arguments, start_runs


def main() -> None:
    arguments, config = parse_arguments(sys.argv[1:])

    # One run for every seed. Options, data, model and probe layer are checked before anything is written.
    seed_runs = start_runs(arguments, config)
    results = {}
    for seed_run in seed_runs:
        if len(seed_runs) > 1:
            seed_run.say(f"\nSeed {seed_run.config.seed}")

        # The starting model: as it came, or fine-tuned first where it has no head for these classes (ERM).  → erm/
        seed_run.erm()

        # The images that activate each class most; where the evidence is (LRP); what is left when only that region
        # is kept: the candidates for spurious-positive samples.                        → candidates/, contact_sheets/
        candidates = seed_run.scan()

        # Which of them are spurious-positive: a person on the review page, a file, an oracle that knows the regions,
        # or the evidence alone.                                                                      → selection.json
        selection = seed_run.decide()
        seed_run.say(f"{len(selection.spurious)} of {len(candidates)} candidates are spurious-positive samples.")

        # Fine-tune the starting model with the penalty on what those samples' regions contribute; with `--controls`
        # also without it, with random samples, random regions and copies alone.                             → score/
        for method in methods_of(config, controls=arguments.controls):
            seed_run.train(method)

        # Accuracy of every model, by group where groups are known, and what it looks at. Here and nowhere else group
        # labels are read.                                                                              → results.json
        results = merge_results(results, seed_run.evaluate())

    # The table, the report, and the first seed's model as a stock checkpoint with its card, on the Hub too with
    # `--push_to_hub`.                                                                              → report/, model/
    finish_runs(seed_runs, results)


if __name__ == "__main__":
    sys.exit(run_script(main))
