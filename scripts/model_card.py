"""Write the cards of the shipped checkpoints from their logs and from `data/models/downstream.csv`: `python scripts/model_card.py`

Sizes, tokens, times, perplexities and scores are computed or read here; a test runs this and fails if a card is out of date.
"""
import pandas as pd
from transformers import AutoConfig

from course_lib.data import shipped
from course_lib.pretraining import new_model
from course_lib.models import load

KIND = {"gpt2": ("A GPT-2", "next-token prediction", "text-generation", "reads the state of the end token that closes every text"),
        "bert": ("A BERT in the form of ModernBERT (pre-norm, rotary positions, gated layers)", "masked-token prediction (30 %)", "fill-mask", "reads the state of `<|cls|>`, which opens every text"),
        "t5": ("A T5", "span corruption (30 % in spans of five)", "text2text-generation", "reads the decoder's state at the end token")}

CARD = """---
library_name: transformers
pipeline_tag: {pipeline}
license: apache-2.0
language: en
---
# {name}

{kind} of {parameters:,} parameters (width {width}, {vocabulary:,} symbols of byte-level BPE, lower case, at most 256 tokens), made for the course so that it can be fine-tuned on a laptop without a network. A classifier {reads}. Before any distilling, the tiny models of this course differ in architecture and objective alone: same corpus, same vocabulary, same number of tokens.

## How it was made

`course pretrain --corpus ... --family {family}{teacher}`, on two cores of an AMD EPYC processor, matrix products in bfloat16. The minutes are those of the clock, with other work beside.

1. {objective} on {tokens:,} tokens, {minutes:.0f} minutes; `log.csv` holds the curve. Perplexity of what it had to guess, on held-out texts: {perplexity:.1f}.
{distilled}

Perplexities can be compared only between models of one family with this vocabulary.

{table}

## Sources

| source | used in | licence |
|---|---|---|
| 24 English novels from before 1930 | {steps} | public domain in the US, CC0 |
| unlabelled reviews of the Large Movie Review Dataset (Maas et al. 2011), 32 MB | {steps} | none stated; given out for research |
| training sentences of Pang and Lee (2005), without labels | {steps} | CC BY 4.0 |
| `data/unlabelled_reviews.txt` of this project | {steps} | CC0 |
{teacher_row}
Validation and test parts of those sets were left out, and so were the labelled reviews and the news of this project.

## What it is for, and what not

For lessons and tests of fine-tuning code. It knows little: old novels and opinions about films. It has the prejudices of its sources, it makes things up, and it is far too small to be used for anything that matters to people.
"""


TEACHER = "| `all-MiniLM-L6-v2` (sentence-transformers) | teacher in step 2 | Apache 2.0 |\n"
DISTILLED = """2. Distillation: {tokens:,} tokens, {minutes:.0f} minutes; `log_distil.csv` holds the curve. The state that a classifier reads is drawn, through a linear map, towards the states that layers 2, 4 and 6 of `all-MiniLM-L6-v2` give the same passage (cosine and contrastive loss), while the first objective goes on. No labels were used. Perplexity afterwards: {perplexity:.1f}.{held_out}"""
HELD_OUT = {"gpt2": " (Passages of the held-out texts were among those distilled, without the language objective on them.)"}  # before they were left out of both steps


def downstream(name: str) -> str:
    "What was recorded for that checkpoint, as a Markdown table."
    if not shipped("models/downstream.csv").exists(): return ""
    found = pd.read_csv(shipped("models/downstream.csv")).query("model == @name")
    lines = ["| fine-tuned on | weights | seeds | n | accuracy | over TF-IDF + logistic regression | over random weights |", "|---|---|---|---|---|---|---|"]
    for r in found.itertuples():
        points = lambda v, low, high: "" if pd.isna(v) else f"{100 * v:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        lines.append(f"| {r.task} | {r.weights} | {r.seeds} | {r.n:,} | {r.accuracy:.3f} ({r.accuracy_low:.3f}–{r.accuracy_high:.3f}) | {points(r.over_tfidf, r.over_tfidf_low, r.over_tfidf_high)} | {points(r.over_scratch, r.over_scratch_low, r.over_scratch_high)} |")
    return "## What it is worth\n\nFine-tuned by `scripts/downstream.py`: accuracy with a 95 % interval over seeds and rows. `rotten_tomatoes N`: N training sentences, scored on its validation part; `reviews`: the course's own, scored on the test part.\n\n" + "\n".join(lines)


def last_row(log: pd.DataFrame) -> dict:
    "Tokens, minutes and perplexity at the end of a log."
    return {"tokens": int(log["tokens"].iloc[-1]), "minutes": log["seconds"].iloc[-1] / 60, "perplexity": log["perplexity"].iloc[-1]}


def card(family: str) -> str:
    "The card of a shipped checkpoint."
    name = f"tiny-{family}"
    folder = shipped(f"models/{name}")
    config, first, second = AutoConfig.from_pretrained(folder), pd.read_csv(folder / "log.csv"), folder / "log_distil.csv"
    distilled = "Not distilled." if not second.exists() else DISTILLED.format(**last_row(pd.read_csv(second)), held_out=HELD_OUT.get(family, ""))
    kind, objective, pipeline, reads = KIND[family]
    return CARD.format(name=name, family=family, kind=kind, objective=objective[0].upper() + objective[1:], pipeline=pipeline, reads=reads,
                       parameters=new_model(family, load(name, labels=["a", "b"])[1]).num_parameters(), width=config.hidden_size, vocabulary=config.vocab_size,
                       **last_row(first), teacher_row=TEACHER if second.exists() else "", teacher=" --teacher minilm" if second.exists() else "", distilled=distilled, steps="steps 1 and 2" if second.exists() else "step 1", table=downstream(name))


if __name__ == "__main__":
    for family in [f for f in KIND if shipped(f"models/tiny-{f}").is_dir()]: (shipped(f"models/tiny-{family}") / "README.md").write_text(card(family), encoding="utf-8")
