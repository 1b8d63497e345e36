"""Write the card of a shipped checkpoint; every number in it is computed here.

    python scripts/card.py data/models/tiny-gpt2 --held-out runs/pretrain/ids.npz
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain import perplexity

CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
language: en
---
# {name}

A GPT-2 of {parameters:,} parameters ({layers} layers of width {width}, {vocabulary:,} symbols of byte-level BPE, lower case, at most {positions} tokens), made for the course so that it can be fine-tuned on a laptop without a network. It ends every text with `<|endoftext|>`, whose state a classifier reads, and pads with `<|pad|>`.

## How it was made

1. `scripts/pretrain.py`: next-token prediction on {pretrain_tokens:,} tokens ({pretrain_seconds:,.0f} s on two cores); `log.csv` holds the curve. Perplexity on held-out texts at the end: {pretrain_perplexity:.0f}.
2. `scripts/distil.py`: {distil_tokens:,} tokens of short passages ({distil_seconds:,.0f} s). The state at the end token is drawn, through a linear map, towards the embedding that `all-MiniLM-L6-v2` gives the same passage (cosine and contrastive loss), while next-token prediction goes on; `log_distil.csv` holds the curve. No labels were used.

Perplexity of these weights on the held-out texts, which are those of step 1: {perplexity:.0f}. (Perplexities can be compared only between models with this tokenizer.)

## Sources

| source | used for | licence |
|---|---|---|
| 24 English novels from before 1930 | step 1 | public domain in the US, CC0 |
| unlabelled reviews of the Large Movie Review Dataset (Maas et al. 2011), 32 MB | both | none stated; given out for research |
| training sentences of Pang and Lee (2005), without labels | both | CC BY 4.0 |
| `all-MiniLM-L6-v2` (sentence-transformers) | teacher in step 2 | Apache 2.0 |

Validation and test sentences of those sets were left out, and so were the reviews of this project.

## What it is for, and what not

For lessons and tests of fine-tuning code. It knows little: old novels and opinions about films. It has the prejudices of its sources, it makes things up, and it is far too small to be used for anything that matters to people.
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model"); p.add_argument("--held-out", required=True)
    args = p.parse_args()
    folder = Path(args.model)
    model, first, second = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), pd.read_csv(folder / "log.csv"), pd.read_csv(folder / "log_distil.csv")
    c = model.config
    numbers = dict(name=folder.name, parameters=model.num_parameters(), layers=c.n_layer, width=c.n_embd, vocabulary=c.vocab_size, positions=c.n_positions,
                   pretrain_tokens=first["tokens"].iloc[-1], pretrain_seconds=first["seconds"].iloc[-1], pretrain_perplexity=first["perplexity"].iloc[-1],
                   distil_tokens=second["tokens"].iloc[-1], distil_seconds=second["seconds"].iloc[-1],
                   perplexity=perplexity(model, np.load(args.held_out)["validation"], c.n_positions))
    assert len(AutoTokenizer.from_pretrained(folder)) == c.vocab_size
    (folder / "README.md").write_text(CARD.format(**numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
