"""SmolLM2: asked as a plain loop over transformers asks it, and packed as it reads padded texts."""
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_lib.data import load_data
from course_lib.download import cache_folder
from course_lib.files import is_folder
from course_lib.models import load
from course_lib.packed import can_do_without_padding, unpadded
from course_lib.prompting import (
    CONTENT_FREE, encode, few_shot_log_probs, few_shot_prompt, score_labels, split_words)
from course_lib.tokens import pad_batch

FOLDER = cache_folder() / "smollm2"
pytestmark = pytest.mark.skipif(
    not is_folder(FOLDER), reason="smollm2 isn't downloaded: course download smollm2")

TEMPLATE = "Review: {text}\nSentiment:{label}\n\n"
WORDS = {"negative": " negative", "positive": " positive"}
TEXTS = ["A joy.", "Two lost hours, and the ending is worse than the beginning.", "Dull, dull.",
         "The cast has wit, the script has none.", "Fine"]
LABELS = torch.tensor([1, 0, 0, 1, 1])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def smol(): return load("smollm2", "text-generation")


@pytest.fixture(scope="module")
def classifier(): return load("smollm2", labels=["negative", "positive"])[0]


@pytest.fixture(scope="module")
def plain(): # transformers alone, without the course's way of loading
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(FOLDER)


def plain_loop(plain, texts) -> np.ndarray:
    "Log-probabilities of the two words: a prompt at a time, no padding, no template of ours."
    model, tokenizer = plain
    words = [tokenizer.encode(word)[0] for word in (" negative", " positive")]
    rows = []
    for text in texts:
        ids = tokenizer(f"Review: {text}\nSentiment:", return_tensors="pt")
        with torch.inference_mode(): logits = model(**ids).logits[0, -1]
        rows.append(logits.log_softmax(-1)[words].numpy())
    return np.array(rows)


def as_the_chapter_asks(smol, texts) -> np.ndarray:
    prompts = [few_shot_prompt([], text, TEMPLATE, WORDS) for text in texts]
    return score_labels(*smol, prompts, WORDS).to_numpy()


def agree(smol, plain, texts, labels) -> float:
    "The accuracy, if the chapter's scores are those of the plain loop."
    ours = as_the_chapter_asks(smol, texts)
    theirs = plain_loop(plain, texts)
    assert np.abs(ours - theirs).max() < 1e-3
    right = [(found.argmax(1) == labels).mean() for found in (ours, theirs)]
    assert abs(right[0] - right[1]) <= 0.02
    return right[0]


@pytest.mark.slow
def test_zero_shot_is_that_of_a_plain_loop_on_reviews(smol, plain):
    rows = load_data("reviews")["validation"].shuffle(seed=1).select(range(40))
    assert agree(smol, plain, rows["text"][:], np.array(rows["label"][:])) > 0.6


@pytest.mark.slow
def test_zero_shot_is_that_of_a_plain_loop_on_rotten_tomatoes(smol, plain, real_data):
    path = real_data / "rotten_tomatoes" / "validation.csv"
    if not path.exists(): pytest.skip("COURSE_REAL_DATA has no rotten_tomatoes/validation.csv")
    rows = pd.read_csv(path).sample(60, random_state=0)
    assert agree(smol, plain, rows["text"].tolist(), rows["label"].to_numpy()) > 0.65


def test_no_start_of_a_chat_stands_before_a_document(smol, plain):
    "Its first special token opens a turn of a chat; the tokenizer doesn't add it, nor do we."
    tokenizer = smol[1]
    assert encode(tokenizer, TEXTS) == plain[1](TEXTS)["input_ids"]
    assert tokenizer.bos_token == "<|im_start|>" != tokenizer.eos_token
    assert encode(load("tiny-gpt2")[1], ["Fine."])[0][0] == load("tiny-gpt2")[1].eos_token_id


def test_examples_shared_by_all_prompts_are_read_once_and_change_nothing(smol):
    examples = [("A joy.", "positive"), ("Two lost hours.", "negative")]
    texts = ["Dull.", "Oh, how it sparkles!"]
    found, _, used = few_shot_log_probs(*smol, texts, examples, TEMPLATE, WORDS)
    alone = [score_labels(*smol, [few_shot_prompt(examples, t, TEMPLATE, WORDS)], WORDS)
             for t in texts]
    wanted = torch.tensor(pd.concat(alone).to_numpy()).log_softmax(-1).numpy()
    assert (used == 2).all() and np.abs(found - wanted).max() < 1e-3
    assert len(CONTENT_FREE) == 3


def test_a_chat_ends_with_a_line_break_and_its_answer_begins_without_a_space(smol):
    tokenizer = smol[1]
    turn = [{"role": "user", "content": "Positive or negative? A joy."}]
    chat = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    asked, words = split_words(tokenizer, [chat], {"positive": "Positive"})
    assert asked == [tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]]
    assert tokenizer.decode(words[0][0]) == "Positive"


# Texts in one row, against a padded batch

def batch_of(tokenizer):
    rows = [{"input_ids": ids} for ids in encode(tokenizer, TEXTS)]
    return pad_batch(rows, tokenizer.pad_token_id)


def next_token_loss(logits, batch):
    "Mean over all tokens of all texts but the first of each."
    targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
    return cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def class_loss(logits, batch): return cross_entropy(logits, LABELS)


def loss_and_gradients(model, batch, loss_of):
    "Loss, probabilities and the gradients of all weights."
    model.zero_grad()
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    loss = loss_of(logits, batch)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    return loss.item(), logits.detach().softmax(-1), gradients


@pytest.mark.parametrize("loss_of", [next_token_loss, class_loss])
def test_packed_is_padded(smol, classifier, loss_of):
    model = smol[0] if loss_of is next_token_loss else classifier
    batch = batch_of(smol[1])
    assert can_do_without_padding(model)
    loss, p, gradients = loss_and_gradients(model, batch, loss_of)
    with unpadded(model): packed_loss, q, packed = loss_and_gradients(model, batch, loss_of)
    filled = batch["attention_mask"].bool() if p.ndim == 3 else slice(None)
    assert abs(loss - packed_loss) < 1e-4
    assert (p[filled] - q[filled]).abs().max() < 1e-4
    whole = torch.stack([g.norm() for g in gradients.values()]).norm()
    apart = torch.stack([(gradients[n] - packed[n]).norm() for n in gradients]).norm()
    assert apart < 1e-4 * whole and whole > 0.1


def in_one_row(model, rows, **more):
    "Logits of all texts in one row, with positions that begin anew."
    ids = torch.tensor([sum(rows, [])])
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.inference_mode(): return model(ids, position_ids=positions, **more).logits[0]


def test_with_the_cache_left_on_texts_read_each_other(smol):
    "Two arguments pack; without the second nothing fails, and all texts but the first are wrong."
    model, tokenizer = smol
    rows = encode(tokenizer, TEXTS)
    with torch.inference_mode():
        alone = torch.cat([model(torch.tensor([row])).logits[0] for row in rows])
    packed = in_one_row(model, rows, use_cache=False)
    careless = in_one_row(model, rows)
    first = len(rows[0])
    assert (packed - alone).abs().max() < 1e-3
    assert (careless[:first] - alone[:first]).abs().max() < 1e-3
    assert (careless[first:] - alone[first:]).abs().max() > 5
