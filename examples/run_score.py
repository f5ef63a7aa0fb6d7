r"""SCORE from an image classifier and a data set to a debiased checkpoint, a before/after table and a report.

    accelerate launch examples/run_score.py --model google/vit-base-patch16-224 --dataset DATA \
        --masks MASKS --output_dir RUN

`--model` is a Hub id, a local folder or a timm name; `--dataset` a Hub id, a local imagefolder with metadata.csv, or a
registered benchmark such as fashion_patch. All fields of `SCOREConfig` (so all of `TrainingArguments`) are options.
Without masks of the spurious region the run stops once the contact sheets are there, for a person to decide.
"""

import sys

from hf_score.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script())
