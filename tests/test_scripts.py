"Texts in scripts without spaces, capitals or full stops, and tables too large for comparing pairs."
import random
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from audit_large import audit as run_audit, check, write_table
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from course_lib.cleaning import data_report, doubt_labels, find_defects, language, no_end_mark
from course_lib.counting import count_words, tfidf_baseline, words_of
from course_lib.data import audit, length_unit, near_duplicates, pieces, split, word_runs
from course_lib.errors import InputError, held_notes
from course_lib.models import load
from course_lib.show import figure_png, new_figure
from course_lib.tables import read_table
from course_lib.tokens import tokenize

# (praise, complaint, things, how a sentence is put together)
SPOKEN = {
    "chinese": ("好吃 新鲜 热情 干净 便宜 舒服 漂亮 周到",
                "难吃 冷淡 很脏 太贵 吵闹 破旧 油腻 失望",
                "菜品 服务 房间 位置 早餐 老板 环境 价格 汤 面条 茶 灯光",
                "{a}真的{x}，{b}也{y}，我们坐在{c}旁边聊了{n}个小时。"),
    "japanese": ("おいしい 親切な 静かな きれいな 安い 広い 明るい 楽しい",
                 "まずい 冷たい うるさい 汚い 高い 狭い 暗い 退屈な",
                 "料理 店員 部屋 庭 朝食 駅前 ラーメン コーヒー 映画 音楽 椅子 窓",
                 "{x}{a}でしたし、{b}もとても{y}感じで、{c}まで{n}分歩きました。"),
    "hindi": ("अच्छी सुंदर ताज़ी साफ़ सस्ती मीठी शांत बढ़िया", "बुरी गंदी महँगी बासी फीकी टूटी ठंडी बेकार",
              "फिल्म चाय मिठाई कुर्सी रोटी सेवा जगह कहानी रसोई खिड़की दाल गाड़ी",
              "मुझे {a} बहुत {x} लगी, {b} भी {y} थी और {c} के पास {n} मिनट रुके।"),
    "arabic": ("رائع نظيف لذيذ هادئ جميل رخيص سريع ممتاز", "سيئ قذر بارد مزعج قبيح غال بطيء ممل",
               "المطعم الفندق الفيلم الطعام الشاي المكان الكتاب السوق البيت الشارع المقهى المسرح",
               "كان {a} {x} جدا، وكذلك {b} {y} كما قلت، وبقينا في {c} {n} دقيقة؟"),
    "thai": ("อร่อย สะอาด สวยงาม เงียบสงบ ราคาถูก ใจดี ยอดเยี่ยม สดใหม่",
             "แย่มาก สกปรก เสียงดัง ราคาแพง ช้าเกินไป เก่ามาก จืดชืด น่าเบื่อ",
             "อาหาร ห้องพัก พนักงาน กาแฟ หนังเรื่องนี้ ตลาด ร้านนี้ ขนม บริการ ทะเล โรงแรม ดนตรี",
             "{a}{x}จริงๆ ส่วน{b}ก็{y} เราอยู่แถว{c}ประมาณ{n}นาที"),
}


def reviews(name, n=240):
    "Reviews in a language, half of them good."
    good, bad, things, form = SPOKEN[name]
    rng = random.Random(name)
    texts = []
    for i in range(n):
        x, y = rng.sample((good if i % 2 else bad).split(), 2)
        a, b, c = rng.sample(things.split(), 3)
        texts.append(form.format(a=a, b=b, c=c, x=x, y=y, n=rng.randrange(10, 100)))
    features = Features(text=Value("string"), label=ClassLabel(names=["bad", "good"]))
    return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(n)]}, features=features)


@pytest.mark.parametrize("name", SPOKEN)
def test_no_false_alarm(name):
    found = find_defects(reviews(name))
    near = found["defect"] == "near copy" # they are made of a form
    assert near.all() and near.sum() < 24, found[~near].to_string()


@pytest.mark.parametrize("name", SPOKEN)
def test_real_defects_are_found(name):
    rows = reviews(name)
    first = rows[0]["text"]
    english = "A film of the kind that is one for the heart and the eye."
    texts = [first, english, first[:-3] + first[-1],
             "&amp; " + rows[1]["text"], rows[2]["text"] * 12, *rows["text"][:]]
    spoilt = Dataset.from_dict({"text": texts, "label": [0] * len(texts)}, features=rows.features)
    found = find_defects(spoilt).groupby("row")["defect"].agg(set).to_dict()
    assert "other language" in found[1] and "markup" in found[3] and "unusual length" in found[4]
    assert "near copy" in found[2] and "copy" in found[5]


@pytest.mark.parametrize("name", SPOKEN)
def test_counters_are_as_good_as_either_of_scikit_learns(name):
    parts = split(reviews(name, 120), seed=1)
    train, test = parts["train"], parts["test"]
    labels = np.array(test["label"][:])
    both = []
    for form in ({}, {"analyzer": "char", "ngram_range": (1, 3)}):
        model = make_pipeline(TfidfVectorizer(**form), LogisticRegression())
        model.fit(train["text"][:], train["label"][:])
        both.append((model.predict(test["text"][:]) == labels).mean())
    answers, shares = count_words(train, parts["validation"], test["text"][:])
    best = max(shares, key=shares.get)
    assert (answers[best].argmax(-1) == labels).mean() >= max(both)
    alone = tfidf_baseline(train, test["text"][:]).argmax(-1) == labels
    assert alone.mean() >= 0.9


@pytest.mark.parametrize("text, words", [
    ("यह फिल्म अच्छी थी।", ["यह", "फिल्म", "अच्छी", "थी"]), ("كِتَابٌ جميل", ["كِتَابٌ", "جميل"]),
    ("Cafe\u0301 noir", ["cafe\u0301", "noir"]), ("A joy!", ["a", "joy"]),
    ("很好。", ["很", "好"])])
def test_words_keep_their_signs(text, words):
    assert pieces(text) == words
    assert [w for w in words_of(text) if len(words) < 3 or w[0] != "।"][:1] != [words[0][:-1]]


def test_short_and_empty_texts_have_runs():
    assert word_runs("Yes.") == ["yes"] and word_runs("😀") == ["😀"]
    assert len(word_runs("味道很好")) == 1
    pairs = near_duplicates({"all": Dataset.from_dict({"text": ["😀", "🙂", "!!", "", " "]})})
    assert pairs.empty or pairs["similarity"].min() == 1


@pytest.mark.parametrize("text", [
    "好。", "好！”", "良い」。", "「良い。」", "अच्छी थी।", "सच॥", "هل؟", "بہت۔", "Ἀλλά;;.", "Լավ։",
    "ကောင်း။", "ល្អ។", "እሺ።", "Fine!)", "“Fine.”", "ดีมาก", "ดี", "…", "so, so…»", "『はい！』"])
def test_a_text_with_an_end(text): assert not no_end_mark(text)


@pytest.mark.parametrize("text", ["味道很好", "अच्छी", "to be cont", "and,", "良いが、", "그리고"])
def test_a_text_without_an_end(text): assert no_end_mark(text)


@pytest.mark.parametrize("text, name", [
    ("ラーメン", "japanese"), ("東京の映画", "japanese"), ("电影很好", "cjk"), ("영화", "hangul"),
    ("फिल्म", "devanagari"), ("ﾗｰﾒﾝ", "japanese"), ("ＡＢＣ", None), ("12", None)])
def test_scripts(text, name): assert language(text) == name


def test_lengths_are_in_characters_where_no_spaces_part_words():
    table = audit(split(reviews("chinese")))
    assert table["median characters"].between(20, 40).all() and "median words" not in table
    assert length_unit(reviews("hindi")["text"]) == "words"
    counts, page = data_report(split(reviews("thai")), "thai")
    assert set(counts.index) <= {"near copy", "near copy in another split"}
    assert "characters" in page


def test_names_in_any_script_are_drawn_without_a_warning():
    names = ["好", "差", "अच्छी", "good", "καλό", "😀"]
    fig, ax = new_figure()
    ax.bar(range(6), range(6))
    ax.set(xticks=range(6), xlabel="类")
    ax.set_xticklabels(names)
    with warnings.catch_warnings(action="error"): png = figure_png(fig, "Six bars.")
    shown = [t.get_text() for t in ax.get_xticklabels()]
    assert shown[3:5] == names[3:5]
    for name, text in zip(names, shown):
        assert text == name or f"{text}: {name}.".encode() in png


def test_a_note_on_a_vocabulary_of_another_script():
    _, tokenizer = load("tiny-gpt2", labels=["bad", "good"])
    for name in ("chinese", "thai"):
        with held_notes() as notes: tokenize(split(reviews(name, 60)), tokenizer)
        assert any("tokens a character" in n for n in notes), notes
    features = reviews("thai", 2).features
    english = Dataset.from_dict({"text": ["A joy."], "label": [1]}, features=features)
    with held_notes() as notes: tokenize({"train": english}, tokenizer)
    assert notes == []


def templates(n):
    "Texts that share runs of three words with all others and say different things."
    rng = random.Random(0)
    words = [f"w{i}" for i in range(5000)]
    drawn = [rng.choices(words, k=12) for _ in range(n)]
    return [" ".join(["dear sir or", *some, "yours very truly"]) for some in drawn]


def test_texts_that_share_three_words_take_linear_time_and_memory():
    seconds, peaks = [], []
    for n in (2000, 8000):
        rows = Dataset.from_dict({"text": templates(n)})
        start = time.process_time()
        tracemalloc.start()
        assert near_duplicates({"all": rows}).empty
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0] and peaks[1] < 6 * peaks[0] and peaks[1] < 60e6


def test_a_crowd_of_near_copies_is_linear_too():
    texts = [f"a form of which only the last word is new in each row {i}" for i in range(4000)]
    start = time.process_time()
    pairs = near_duplicates({"all": Dataset.from_dict({"text": texts})})
    assert 3999 <= len(pairs) <= 40_000 and set(pairs["row_b"]) == set(range(1, 4000))
    assert time.process_time() - start < 20


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_those_of_comparing_all(seed):
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randrange(1, 9))) for _ in range(60)]
    sets = [set(word_runs(t)) for t in texts]
    first = {}
    keep = [i for i, s in enumerate(sets) if first.setdefault(frozenset(s), i) == i]
    alike = {(i, j) for j in keep for i in keep if i < j
             and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.5}
    copies = {(first[frozenset(s)], i) for i, s in enumerate(sets) if i not in keep}
    pairs = near_duplicates({"all": Dataset.from_dict({"text": texts})})
    assert set(zip(pairs["row_a"], pairs["row_b"])) == alike | copies


def test_ten_thousand_labels_are_refused_at_once(tmp_path):
    rows = "".join(f"text {i},label number {i}\n" for i in range(10_000))
    (tmp_path / "a.csv").write_text("text,label\n" + rows)
    start = time.process_time()
    with pytest.raises(InputError, match="10000 different labels"): read_table(tmp_path / "a.csv")
    assert time.process_time() - start < 3


def test_doubt_needs_two_classes():
    one = reviews("thai", 20)
    one = Dataset.from_dict({"text": one["text"][:], "label": [0] * 20}, features=one.features)
    with pytest.raises(InputError, match="one class only"): doubt_labels(one)


@pytest.mark.slow
def test_a_large_table_takes_little_memory(tmp_path):
    "A hundredth of what tests/audit_large.py does; most of the memory is that of the libraries."
    readable = write_table(tmp_path / "a.csv", 10_000)
    found, memory, _ = run_audit(tmp_path / "a.csv")
    check(found, 10_000, readable)
    assert memory < 800e6
