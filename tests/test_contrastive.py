"Both losses against sentence-transformers' own, and the vectors that they are made of."
import pytest
import torch

from course_lib.contrastive import (LABELS, RECORDS, both_vectors, contrastive, cosine_loss, embed,
                                    few, fit_pairs, on_vectors, pair_batch, pair_rows, ranking,
                                    ranking_loss, reviews, run_few_labels, sample_pairs)
from course_lib.errors import InputError
from course_lib.loading import find_model
from course_lib.models import load
from course_lib.packed import body_of

def is_there(name: str) -> bool:
    try: return bool(find_model(name))
    except InputError: return False


pytestmark = pytest.mark.skipif(not is_there("minilm"), reason="minilm isn't there: course doctor")

TEXTS = ["A fine film.", "Dull, and far too long for what it says.", "I laughed, I wept, I stayed.",
         "Nothing in it works, least of all the jokes.", "Warm.", "The plot creaks."]
KINDS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def encoder():
    model, tokenizer = load("minilm", labels=LABELS)
    return body_of(model), tokenizer


@pytest.fixture
def theirs():
    name = "sentence_transformers"
    library = pytest.importorskip(name, reason="sentence-transformers isn't installed")
    return library.SentenceTransformer(find_model("minilm"), device="cpu")


@pytest.fixture
def rows(encoder):
    return {"input_ids": encoder[1](TEXTS)["input_ids"]}


def gradient(loss, model, known: set) -> torch.Tensor:
    "The loss and its gradient, as one vector of the weights that both models have."
    model.zero_grad()
    loss.backward()
    found = {name.removeprefix("0.auto_model.").removeprefix("0.model."): weight.grad
             for name, weight in model.named_parameters()}
    return torch.cat([found[name].flatten() for name in sorted(known)])


def test_vectors_are_those_of_sentence_transformers(encoder, theirs, rows):
    model, _ = encoder
    dataset = [{"input_ids": ids} for ids in rows["input_ids"]]
    assert abs(embed(model, dataset) - theirs.encode(TEXTS)).max() < 1e-6


@pytest.mark.parametrize("loss, name", [(cosine_loss, "CosineSimilarityLoss"),
                                        (ranking_loss, "MultipleNegativesRankingLoss")])
def test_losses_are_those_of_sentence_transformers(encoder, theirs, rows, loss, name):
    "Their values and their gradients."
    from sentence_transformers.sentence_transformer import losses
    model, _ = encoder
    pairs = [(0, 2, True), (1, 3, True), (4, 1, False), (5, 2, False)]
    batch = pair_batch(model, pair_rows(rows, pairs))
    ours, _ = loss(model, batch)
    sides = [theirs.tokenize([TEXTS[pair[side]] for pair in pairs]) for side in (0, 1)]
    wanted = getattr(losses, name)(theirs)(sides, batch["labels"])
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=0)
    known = {n for n, _ in model.named_parameters() if not n.startswith("pooler")}
    mine, other = gradient(ours, model, known), gradient(wanted, theirs, known)
    assert (mine - other).norm() / other.norm() < 1e-5


def test_a_pair_does_not_depend_on_what_shares_its_batch(encoder, rows):
    model = encoder[0]
    pairs = pair_rows(rows, [(0, 1, False), (4, 1, False), (2, 2, True)])
    with torch.no_grad():
        together = both_vectors(model, pair_batch(model, pairs))
        alone = [both_vectors(model, pair_batch(model, [pair])) for pair in pairs]
    for side in (0, 1):
        by_itself = torch.cat([pair[side] for pair in alone])
        torch.testing.assert_close(together[side], by_itself, atol=1e-6, rtol=0)
        assert abs(together[side].norm(dim=-1) - 1).max() < 1e-6


def test_a_text_of_several_pairs_is_read_once(encoder, rows):
    batch = pair_batch(encoder[0], pair_rows(rows, [(0, 1, False), (4, 1, False), (2, 2, True)]))
    assert len(batch["input_ids"]) == 4 and batch["pairs"].tolist() == [0, 1, 2, 3, 3, 2]


def test_pairs_are_as_many_as_asked_for_and_of_both_kinds():
    pairs = sample_pairs(KINDS, 20, 15, seed=1)
    assert [same for *_, same in pairs] == [True] * 20 + [False] * 15
    assert all((KINDS[i] == KINDS[j]) == same for i, j, same in pairs)
    unlike = [pair for pair in pairs if not pair[2]]
    assert len(set(unlike[:9])) == 9                   # 3 x 3 of them, before one comes again
    assert pairs == sample_pairs(KINDS, 20, 15, seed=1) != sample_pairs(KINDS, 20, 15, seed=2)


def test_length_of_a_pair_counts_both_texts(rows):
    (row,) = pair_rows(rows, [(0, 1, False)])
    assert contrastive.length(row) == len(rows["input_ids"][0]) + len(rows["input_ids"][1])


@pytest.mark.parametrize("task", [contrastive, ranking])
def test_pairs_move_the_labelled_texts_and_the_same_seed_moves_them_alike(task):
    labelled = few(reviews()[0], 4, draw=0)
    once, again = (fit_pairs(task, labelled, draw=0, n=64) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters()))
    assert on_vectors(once, labelled, labelled) == 8


def test_few_draws_as_many_of_each_class_and_another_draw_others():
    train, _ = reviews()
    rows = few(train, 8, draw=3)
    assert sorted(rows["labels"]) == [0] * 8 + [1] * 8 and rows["labels"][:] == rows["label"][:]
    assert few(train, 8, draw=3)["text"][:] == rows["text"][:] != few(train, 8, draw=4)["text"][:]


def test_the_runs_of_the_record_are_different_and_the_cheap_ones_work():
    run, settings = RECORDS["contrastive"]
    assert run is run_few_labels and len({tuple(s.values()) for s in settings}) == len(settings)
    assert {s["a_class"] for s in settings} == {8, 16, 64}
    for way in ("words", "frozen"): assert 120 < run(way, 64, 0)["right"] < 300
