"Privacy: rules with check digits, canaries, membership, DP-SGD, the accountant, forgetting."
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from sklearn.metrics import roc_curve
from torch.nn.functional import cross_entropy

from course_lib.files import shipped
from course_lib.generation import surprises, text_rows
from course_lib.privacy import (
    CODES, NAMES, PATTERNS, RECORDS, ROWS, SAFEGUARDS, TIMES, chance_of, code_nats, code_rows,
    exposures, find_personal, fit_privately, fresh_model, is_card, is_iban, noise_for,
    personal_data, plant, privacy_spent, private_data, private_gradient, rate_at, read_marked,
    rule_counts, scrub, secret)
from course_lib.records import recorded


@settings(max_examples=100, deadline=None)
@given(st.integers(10**14, 10**15 - 1))
def test_one_last_digit_of_ten_makes_a_card(number):
    right = [is_card(f"{number}{last}") for last in range(10)]
    assert sum(right) == 1
    swapped = f"{number}{right.index(True)}"
    for i in range(len(swapped)):       # every single wrong digit is seen
        wrong = swapped[:i] + str((int(swapped[i]) + 1) % 10) + swapped[i + 1:]
        assert not is_card(wrong)


def test_accounts_are_those_with_right_check_digits():
    assert is_iban("DE89 3704 0044 0532 0130 00") and is_iban("GB29NWBK60161331926819")
    assert not is_iban("DE88 3704 0044 0532 0130 00") and not is_iban("DE89 3704 0044 0532 0130 01")


@pytest.mark.parametrize(("text", "kinds"), [
    ("Write to a.b+c@example.co.uk.", ["email"]), ("from 192.0.2.17, again", ["ip"]),
    ("from 192.0.2.256, again", []), ("at 2001:db8::1f today", ["ip"]), ("It is 20:15:30.", []),
    ("card 4111 1111 1111 1111!", ["card"]), ("card 4111 1111 1111 1112!", []),
    ("ask @marta_b or meet @ noon", ["handle"]), ("ring 020 7946 0321", ["phone"]),
    ("order 4471-2290-18", []), ("from 1,204.50 to 1,024.50", []), ("", []),
    ("GB29 NWBK 6016 1331 9268 19 and a@example.org", ["iban", "email"]),
    ("Ünal çağrı: ünal@example.org, मेल a@example.in", ["email", "email"])])
def test_rules(text, kinds):
    found = find_personal(text)
    assert [kind for _, _, kind in found] == kinds
    assert all(a[1] <= b[0] for a, b in zip(found, found[1:]))
    assert find_personal(scrub(text)) == [] and scrub(text).count("[") == len(kinds)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_scrubbing_any_text_leaves_the_rest_as_it_was(text):
    spans = find_personal(text)
    rest = [text[a:b] for a, b in zip([0, *[end for _, end, _ in spans]],
                                      [*[start for start, _, _ in spans], len(text)])]
    marks = [f"[{kind.upper()}]" for _, _, kind in spans]
    assert scrub(text) == "".join(a + b for a, b in zip(rest, [*marks, ""]))


def test_the_samples_are_marked_as_described():
    for name, notes, kinds in ("personal", 91, 6), ("personal_test", 240, 9):
        lines = shipped(f"{name}.txt").read_text(encoding="utf-8").splitlines()
        assert len(lines) == notes == len(set(lines))
        marked = [(text[a:b], kind) for text, spans in map(read_marked, lines)
                  for a, b, kind in spans]
        assert len({kind for _, kind in marked}) == kinds
        assert all(is_card(value) for value, kind in marked if kind == "card")
        assert all(is_iban(re.sub("-", " ", value).upper()) for value, kind in marked
                   if kind == "iban")
        assert not re.search(r"\[\w+:", "".join(text for text, _ in map(read_marked, lines)))
    counts = rule_counts(lines)
    assert counts.loc["name", "found"] == 0 and (counts["found"] <= counts["marked"]).all()


def test_planting_keeps_the_texts_and_inserts_each_canary_as_often_as_it_says():
    texts = [f"text {i}" for i in range(10)]
    planted, canaries = plant(texts, 3)
    assert sorted(t for t in planted if t.startswith("text")) == texts
    for canary in canaries.itertuples():
        assert planted.count(secret(canary.name, canary.code)) == canary.times
    assert (canaries["times"].value_counts() == len(NAMES) / len(TIMES)).all()
    assert {*canaries["times"]} == {*TIMES}
    assert plant(texts, 3)[0] == planted != plant(texts, 4)[0]
    assert personal_data(planted) == {"phone": sum(canaries["times"])}


def test_reading_the_shared_beginning_once_changes_no_surprise():
    model, tokenizer = fresh_model()
    own = code_nats(model, tokenizer, NAMES[0])
    some = [0, 7, 46, 100, 412, 999]
    rows = text_rows([secret(NAMES[0], code) for code in some], tokenizer, end=False)
    whole, _ = surprises(model, rows)
    assert np.allclose(own[some] - own[some[0]], whole - whole[0], atol=1e-3)
    assert len(own) == CODES
    table = plant([], 0)[1].head(1)
    found = exposures(model, tokenizer, table).iloc[0]
    nats = code_nats(model, tokenizer, found["name"])
    assert found["rank"] == 1 + (nats < nats[found["code"]]).sum() == found["p"] * CODES


def test_chance_of_exposures_is_uniform_if_ranks_are():
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, CODES + 1, (4000, 4))
    p = np.array([chance_of(np.log2(CODES / own)) for own in ranks])
    for level in (0.01, 0.05, 0.5):
        assert abs((p < level).mean() - level) < 3 * math.sqrt(level * (1 - level) / len(p)) + 0.002
    assert chance_of([9.0, 9.0, 9.0, 9.0]) < 1e-6 and chance_of([0.1] * 4) > 0.9


def test_only_the_telling_part_of_a_number_is_a_target():
    _, tokenizer = fresh_model()
    for row in code_rows(tokenizer, [(NAMES[1], 7), (NAMES[2], 412)]):
        target = [token for token in row["labels"] if token != -100]
        assert row["labels"][-len(target):] == target == row["input_ids"][-len(target):]
        assert len(re.sub(r"\D", "", tokenizer.decode(target))) == 4


def test_hits_at_few_false_alarms_are_read_off_the_curve():
    rng = np.random.default_rng(0)
    scores, members = rng.normal(size=400), rng.integers(0, 2, 400)
    false, true, _ = roc_curve(members, scores, drop_intermediate=False)
    assert rate_at(scores, members) == true[false <= 0.01].max()
    assert rate_at(np.r_[np.ones(5), np.zeros(5)], np.repeat([1, 0], 5)) == 1


def small(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Embedding(20, 6), torch.nn.Flatten(),
                               torch.nn.Linear(24, 8), torch.nn.LayerNorm(8), torch.nn.Tanh(),
                               torch.nn.Linear(8, 3))


@pytest.mark.parametrize(("noise", "norm"), [(0.0, 0.05), (0.0, 100.0), (1.3, 0.5)])
def test_a_private_step_is_that_of_opacus(noise, norm):
    torch.manual_seed(1)
    x, y = torch.randint(0, 20, (12, 4)), torch.randint(0, 3, (12,))
    ours, theirs = small(), GradSampleModule(small())
    parameters = list(ours.parameters())
    losses = (cross_entropy(ours(a[None]), b[None]) for a, b in zip(x, y))
    private_gradient(parameters, losses, norm, noise, 12, torch.Generator().manual_seed(5))
    step = DPOptimizer(torch.optim.AdamW(theirs.parameters(), lr=1e-3), noise_multiplier=noise,
                       max_grad_norm=norm, expected_batch_size=12,
                       generator=torch.Generator().manual_seed(5))
    cross_entropy(theirs(x), y).backward()
    step.pre_step()
    for own, other in zip(parameters, theirs.parameters()):
        assert torch.allclose(own.grad, other.grad, atol=1e-6)
    torch.optim.AdamW(parameters, lr=1e-3).step()
    step.original_optimizer.step()
    for own, other in zip(parameters, theirs.parameters()):
        assert torch.allclose(own, other, atol=1e-5)


def test_without_clipping_and_noise_it_is_the_usual_gradient():
    torch.manual_seed(2)
    x, y = torch.randint(0, 20, (9, 4)), torch.randint(0, 3, (9,))
    model = small()
    cross_entropy(model(x), y).backward()
    usual = [p.grad.clone() for p in model.parameters()]
    losses = (cross_entropy(model(a[None]), b[None]) for a, b in zip(x, y))
    private_gradient(list(model.parameters()), losses, 1e9, 0.0, 9, torch.Generator())
    for p, own in zip(model.parameters(), usual): assert torch.allclose(p.grad, own, atol=1e-6)


def test_one_row_changes_the_sum_by_no_more_than_the_bound():
    model, parameters = small(), None
    x, y = torch.randint(0, 20, (8, 4)), torch.randint(0, 3, (8,))
    def total(rows):
        losses = (50 * cross_entropy(model(x[i][None]), y[i][None]) for i in rows)
        private_gradient(parameters, losses, 0.3, 0.0, 1, torch.Generator())
        return torch.cat([p.grad.flatten() for p in parameters])
    parameters = list(model.parameters())
    for left_out in range(8):
        change = (total(range(8)) - total([i for i in range(8) if i != left_out])).norm()
        assert change <= 0.3 * 1.001


@settings(max_examples=40, deadline=None)
@given(st.floats(0.4, 20), st.floats(0.001, 0.9), st.integers(1, 2000))
def test_the_accountant_is_that_of_opacus(sigma, rate, steps):
    theirs = RDPAccountant()
    theirs.history = [(sigma, rate, steps)]
    wanted = theirs.get_epsilon(delta=1e-4, alphas=list(range(2, 257)))
    own = privacy_spent(sigma, rate, steps, 1e-4)
    assert math.isclose(own, wanted, rel_tol=1e-5, abs_tol=1e-5)


def test_more_noise_is_more_private_and_the_noise_asked_for_keeps_its_word():
    spent = [privacy_spent(sigma, 0.1, 100, 1e-4) for sigma in (0.5, 1, 2, 8)]
    assert spent == sorted(spent, reverse=True)
    for epsilon in (0.5, 1.0, 8.0):
        sigma = noise_for(epsilon, 0.1, 100, 1e-4)
        assert privacy_spent(sigma, 0.1, 100, 1e-4) <= epsilon
        assert privacy_spent(sigma / 1.01, 0.1, 100, 1e-4) > epsilon


def test_private_training_learns_without_noise_and_says_what_it_spent():
    torch.manual_seed(0)
    x = torch.randn(200, 5)
    rows = [*zip(x, (x[:, 0] > 0).long())]
    def loss(model, row): return cross_entropy(model(row[0])[None], row[1][None])
    def right(sigma):
        torch.manual_seed(1)
        model = torch.nn.Linear(5, 2)
        spent = fit_privately(model, rows, loss, sigma, batch_size=50, epochs=10, learning_rate=0.1)
        return (model(x).argmax(-1) == (x[:, 0] > 0).long()).float().mean().item(), spent
    (clean, no_bound), (noisy, spent) = right(0.0), right(100.0)
    assert clean > 0.9 > noisy + 0.05 and no_bound == math.inf
    assert math.isclose(spent, privacy_spent(100.0, 0.25, 40, 1 / 200))
    assert right(1.0) == right(1.0)      # a seed gives the same noise


def test_an_empty_batch_is_a_step_of_noise_alone():
    model = torch.nn.Linear(2, 2)
    parameters = list(model.parameters())
    private_gradient(parameters, iter(()), 1.0, 2.0, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    for p in parameters:
        assert torch.equal(p.grad, torch.normal(0, 2.0, p.shape, generator=generator) / 4)


def test_members_and_others_share_no_text():
    data = private_data(2)
    assert len(data["members"]) == len(data["others"]) == ROWS
    assert not {*data["members"]} & {*data["others"]} and not {*data["held"]} & {*data["members"]}


def test_the_record_says_what_the_page_says():
    runs = recorded("privacy")
    assert runs[["way", "seed"]].to_dict("records") == RECORDS["privacy"][1]
    means = runs.groupby("way")[["exposure: 0", "exposure: 10", "reference: rate"]].mean()
    assert means.loc["openly", "exposure: 10"] > 5 > 4 > means.loc["openly", "exposure: 0"]
    assert means.loc["privately", "reference: rate"] < 0.1 < means.loc["openly", "reference: rate"]
    assert np.isinf(runs[runs["way"] != "privately"]["epsilon"]).all()
    assert len(SAFEGUARDS) == 4 and set(PATTERNS) >= {"email", "phone"}
