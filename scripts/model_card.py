"""Write the cards of the shipped checkpoints from their logs and from `data/models/downstream.csv`.

    python scripts/model_card.py

Sizes, tokens, times, perplexities and scores are computed or read here; a test runs this and fails
if a card is out of date.
"""
import pandas as pd
from transformers import AutoConfig

from course_lib.files import shipped
from course_lib.models import load
from course_lib.pretraining import new_model

KIND = {
    "gpt2": {"kind": "A GPT-2", "objective": "Next-token prediction",
             "pipeline": "text-generation",
             "reads": "reads the state of the end token that closes every text"},
    "bert": {"kind": "A BERT in the form of ModernBERT (pre-norm, rotary positions, gated layers)",
             "objective": "Masked-token prediction (30 %)", "pipeline": "fill-mask",
             "reads": "reads the state of `<|cls|>`, which opens every text"},
    "t5": {"kind": "A T5", "objective": "Span corruption (30 % in spans of five)",
           "pipeline": "text2text-generation",
           "reads": "reads the decoder's state at the end token"}}

# A paragraph of the cards is a line here, as Markdown wants it.
CARD = """---
library_name: transformers
pipeline_tag: {pipeline}
license: apache-2.0
language: en
---
# {name}

{kind} of {parameters:,} parameters (width {width}, {vocabulary:,} symbols of byte-level BPE, \
lower case, at most 256 tokens), made for the course so that it can be fine-tuned on a laptop \
without a network. A classifier {reads}. Before any distilling, the tiny models of this course \
differ in architecture and objective alone: same corpus, same vocabulary, same number of tokens.

## How it was made

`course pretrain --corpus ... --family {family}{teacher}`, on two cores of an AMD EPYC processor, \
matrix products in bfloat16. The minutes are those of the clock, with other work beside.

1. {objective} on {tokens:,} tokens, {minutes:.0f} minutes; `log.csv` holds the curve. Perplexity \
of what it had to guess, on held-out texts: {perplexity:.1f}.
{distilled}

Perplexities can be compared only between models of one family with this vocabulary.

{table}

## Sources

| source | used in | licence |
|---|---|---|
| 24 English novels from before 1930 | {steps} | public domain in the US, CC0 |
| unlabelled reviews of the Large Movie Review Dataset (Maas et al. 2011), 32 MB | {steps} | none \
stated; given out for research |
| training sentences of Pang and Lee (2005), without labels | {steps} | CC BY 4.0 |
| `data/unlabelled_reviews.txt` of this project | {steps} | CC0 |
{teacher_row}
Validation and test parts of those sets were left out, and so were the labelled reviews and the \
news of this project.

## What it is for, and what not

For lessons and tests of fine-tuning code. It knows little: old novels and opinions about films. \
It has the prejudices of its sources, it makes things up, and it is far too small to be used for \
anything that matters to people.
"""


TEACHER = "| `all-MiniLM-L6-v2` (sentence-transformers) | teacher in step 2 | Apache 2.0 |\n"
DISTILLED = (
    "2. Distillation: {tokens:,} tokens, {minutes:.0f} minutes; `log_distil.csv` holds the curve. "
    "The state that a classifier reads is drawn, through a linear map, towards the states that "
    "layers 2, 4 and 6 of `all-MiniLM-L6-v2` give the same passage (cosine and contrastive loss), "
    "while the first objective goes on. No labels were used. "
    "Perplexity afterwards: {perplexity:.1f}.{held_out}")
HELD_OUT = {"gpt2": " (Passages of the held-out texts were among those distilled, without the "
                    "language objective on them.)"}   # before they were left out of both steps
WORTH = """## What it is worth

Fine-tuned by `scripts/downstream.py`: accuracy with a 95 % interval over seeds and rows. \
`rotten_tomatoes N`: N training sentences, scored on its validation part; `reviews`: the course's \
own, scored on the test part.

| fine-tuned on | weights | seeds | n | accuracy | over TF-IDF + logistic regression \
| over random weights |
|---|---|---|---|---|---|---|
"""


def points(row, name: str) -> str:
    "A difference in points with its interval; nothing where none was measured."
    value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    if pd.isna(value): return ""
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def downstream(name: str) -> str:
    "What was recorded for that checkpoint, as a Markdown table."
    if not shipped("models/downstream.csv").exists(): return ""
    found = pd.read_csv(shipped("models/downstream.csv")).query("model == @name")
    lines = []
    for r in found.itertuples():
        accuracy = f"{r.accuracy:.3f} ({r.accuracy_low:.3f}–{r.accuracy_high:.3f})"
        columns = [r.task, r.weights, r.seeds, f"{r.n:,}", accuracy, points(r, "over_tfidf"),
                   points(r, "over_scratch")]
        lines.append("| " + " | ".join(map(str, columns)) + " |")
    return WORTH + "\n".join(lines)


def last_row(path) -> dict:
    "Tokens, minutes and perplexity at the end of a log."
    last = pd.read_csv(path).iloc[-1]
    return {"tokens": int(last["tokens"]), "minutes": last["seconds"] / 60,
            "perplexity": last["perplexity"]}


def card(family: str) -> str:
    "The card of a shipped checkpoint."
    name = f"tiny-{family}"
    folder = shipped(f"models/{name}")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tokenizer = load(name, labels=["a", "b"])[1]
    size = {"parameters": new_model(family, tokenizer).num_parameters(),
            "width": config.hidden_size, "vocabulary": config.vocab_size}
    second = folder / "log_distil.csv"
    step = {"teacher_row": "", "teacher": "", "distilled": "Not distilled.", "steps": "step 1"}
    if second.exists():
        told = DISTILLED.format(**last_row(second), held_out=HELD_OUT.get(family, ""))
        step = {"teacher_row": TEACHER, "teacher": " --teacher minilm", "distilled": told,
                "steps": "steps 1 and 2"}
    return CARD.format(name=name, family=family, table=downstream(name), **KIND[family], **size,
                       **last_row(folder / "log.csv"), **step)


if __name__ == "__main__":
    for family in KIND:
        folder = shipped(f"models/tiny-{family}")
        if folder.is_dir(): (folder / "README.md").write_text(card(family), encoding="utf-8")
