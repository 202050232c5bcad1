"""Indirect object identification (Wang et al. 2022): a circuit found in any model, beside the published figures.

    python experiments/ioi.py --model gpt2 [--edges 500] [--method eap-ig] [--count 64] [--out out/ioi] [--json]
    python experiments/ioi.py

Without --model, the bundled `mini`, which runs everywhere but is far too small for the task: its figures show that the
programs work and nothing else. The paper is about GPT-2 small; where a model has its shape, the heads of the circuit are held
against the 26 that the paper found. Half of the pairs serve the search, the other half the judgement.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.discovery import Published, parser_of, run

MIB = "MIB (secondary source)"
PUBLISHED = (
    Published("mean logit difference, GPT-2 small", "3.56", "Wang et al. 2022"),
    Published("share of it that the circuit of 26 heads keeps", "87 %", "Wang et al. 2022"),
    Published("CPR / CMD, exact activation patching", "2.30 / .02", MIB),
    Published("CPR / CMD, EAP-IG-inputs", "1.85 / .03", MIB),
    Published("CPR / CMD, EAP-IG-activations", "1.82 / .03", MIB),
    Published("CPR / CMD, EAP", "1.20 / .03", MIB),
    Published("CPR / CMD, random edges", ".25 / .75", MIB),
    Published("AUROC of edges by KL, ACDC / SP / HISP", ".868/.888/.239", "Conmy et al. 2023, their code's tables"),
)
NOTES = (
    "Edges outside the circuit carry the values of the corrupt prompts here; the paper's 87 % are with mean values.",
    "MIB measures on its own prompts: its areas are of the same kind as these and need not agree.",
    "The paper's circuit was found by hand and is not the last word: a head that is not in it may matter all the same.",
    "Models of a few million parameters such as mini do not do this task: their circuits mean nothing.",
)


def main() -> None:
    """Parse the command line, search, print."""
    run(parser_of(__doc__, model="mini").parse_args(), "ioi", PUBLISHED, NOTES)


if __name__ == "__main__":
    main()
