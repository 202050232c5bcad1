"""Greater-than (Hanna et al. 2023): a circuit found in any model, beside the paper's.

    python experiments/greater_than.py --model gpt2 [--edges 500] [--method eap-ig] [--count 64] [--out out/gt] [--json]

The paper is about GPT-2 small; where a model has its shape, the heads of the circuit are held against those of the paper.
Tokenizers that split years digit by digit (the bundled `mini`'s) are asked for the digit of the decade. Half of the pairs serve
the search, the other half the judgement.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.discovery import Published, parser_of, run

PUBLISHED = (
    Published("early heads / late heads / MLPs of the circuit, GPT-2 small", "3 / 6 / 8", "Hanna et al. 2023"),
    Published("AUROC of edges by KL, ACDC / SP / HISP", ".883/.820/.279", "Conmy et al. 2023, their code's tables"),
)
NOTES = (
    "The metric is the sum of p(year > YY) minus the sum of p(year <= YY), from -1 to 1; corrupt prompts begin in year 01.",
    "Published AUROCs are of edges against the paper's circuit; the one measured here is of heads.",
)


def main() -> None:
    """Parse the command line, search, print."""
    run(parser_of(__doc__, model="gpt2").parse_args(), "greater-than", PUBLISHED, NOTES)


if __name__ == "__main__":
    main()
