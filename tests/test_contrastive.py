"Both losses against sentence-transformers' own, and the vectors that they are made of."
import pytest
import torch

from course_lib.contrastive import (LABELS, both_vectors, contrastive, cosine_loss, embed,
                                    pair_batch, pair_rows, ranking_loss, sample_pairs)
from course_lib.models import find_model, load
from course_lib.packed import body_of

pytest.importorskip("sentence_transformers", reason="sentence-transformers isn't installed")

TEXTS = ["A fine film.", "Dull, and far too long for what it says.", "I laughed, I wept, I stayed.",
         "Nothing in it works, least of all the jokes.", "Warm.", "The plot creaks."]
KINDS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def encoder():
    from sentence_transformers import SentenceTransformer
    model, tokenizer = load("minilm", labels=LABELS)
    return body_of(model), tokenizer, SentenceTransformer(find_model("minilm"), device="cpu")


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


def test_vectors_are_those_of_sentence_transformers(encoder, rows):
    model, _, theirs = encoder
    dataset = [{"input_ids": ids} for ids in rows["input_ids"]]
    assert abs(embed(model, dataset) - theirs.encode(TEXTS)).max() < 1e-6


@pytest.mark.parametrize("loss, name", [(cosine_loss, "CosineSimilarityLoss"),
                                        (ranking_loss, "MultipleNegativesRankingLoss")])
def test_losses_and_gradients_are_those_of_sentence_transformers(encoder, rows, loss, name):
    from sentence_transformers.sentence_transformer import losses
    model, _, theirs = encoder
    pairs = [(0, 2, True), (1, 3, True), (4, 1, False), (5, 2, False)]
    batch = pair_batch(model, pair_rows(rows, pairs))
    ours, _ = loss(model, batch)
    sides = [theirs.tokenize([TEXTS[pair[side]] for pair in pairs]) for side in (0, 1)]
    wanted = getattr(losses, name)(theirs)(sides, batch["labels"])
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=0)
    known = {n for n, _ in model.named_parameters() if not n.startswith("pooler")}
    mine, other = gradient(ours, model, known), gradient(wanted, theirs, known)
    assert (mine - other).norm() / other.norm() < 1e-6


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
