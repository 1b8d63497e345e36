"""Audit a large table, and look at the time and the memory that it takes. By hand:

    python tests/audit_large.py [--rows 1000000] [--folder FOLDER]

Writes a table of different texts of about 190 characters (a million rows are about 200 MB), the
same for each seed, with some copies, near copies and wrong rows in it. `course audit` must find
them, within 2 GB of memory and ten minutes of one core for a million rows.
"""
import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from course_lib.files import shipped

MEMORY = 2_000_000_000 # bytes, for a million rows
SECONDS = 600 # of one core, for a million rows
WORDS = 33
ENDS = [", and that is it.", ", and that is it!", ", and that is it", " – such is life 🙂"]
EVERY = 1000 # among so many rows there are a copy, a near copy and two faults


def word_pairs(): # (all words, word -> the words that follow it)
    "What the shipped texts consist of."
    text = " ".join(shipped(name).read_text(encoding="utf-8")
                    for name in ("reviews.csv", "unlabelled_reviews.txt", "news.jsonl"))
    words = [word for word in text.lower().split() if word.isalpha()]
    follow = defaultdict(list)
    for a, b in zip(words, words[1:]): follow[a].append(b)
    return words, follow


def texts(n, seed=0): # yields strings
    "Sentences whose words follow each other as in the shipped texts, one in ten invented."
    rng = random.Random(seed)
    words, follow = word_pairs()
    names = ["".join(rng.choices("aeioulnrst", k=rng.randrange(5, 10))) for _ in range(100_000)]
    for _ in range(n):
        sentence = [rng.choice(words)]
        while len(sentence) < WORDS:
            kind = rng.random()
            if kind < 0.1: sentence.append(rng.choice(names))
            else: sentence.append(rng.choice((kind < 0.7 and follow[sentence[-1]]) or words))
        yield " ".join(sentence) + rng.choice(ENDS)


def write_table(path, n, seed=0): # the number of rows that an audit can read
    "The table, with faults."
    text, readable = "", 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", "text", "label"])
        for i, new in enumerate(texts(n, seed)):
            row, fault = [i, new, "good" if ord(new[0]) % 3 else "bad"], i % EVERY
            if fault == 1: row[1] = text.upper()
            if fault == 2: row[1] = f"{text} {new.split()[0]}."
            if fault == 3: row[2] = ""
            if fault == 4: row.append("one field too many")
            out.writerow(row)
            readable += fault not in (3, 4)
            if fault == 0: text = new
    return readable


# a small process between: of a child, the system also counts the memory of its parent
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr)
"""


def audit(path): # (what it prints as JSON, bytes at the peak, seconds of processor time)
    "Run `course audit` in a process of its own."
    command = [sys.executable, "-m", "course_lib", "audit", "--data", str(path), "--json",
               "--out", f"{path}.html", "--force"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True,
                          text=True, check=True)
    memory, seconds = done.stderr.splitlines()[-1].split()
    unit = 1 if sys.platform == "darwin" else 1024
    return json.loads(done.stdout), int(memory) * unit, float(seconds)


def check(found, rows, readable): # what was found of each planted fault
    "Every planted fault must be found, and not many others."
    planted = rows // EVERY
    suspicions = {name: sum(counts.values()) for name, counts in found["suspicions"].items()}
    assert sum(part["rows"] for part in found["splits"].values()) == readable
    assert len(found["problems"]) == 2 * planted
    assert planted <= suspicions["copy"] < 1.1 * planted + 10
    near = suspicions["near copy"] + suspicions["near copy in another split"]
    assert planted <= near < 3.3 * planted + 10
    return suspicions


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many")
    parser.add_argument("--folder", type=Path, help="where the table is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as other:
        path = (given.folder or Path(other)) / f"rows{given.rows}.csv"
        readable = write_table(path, given.rows)
        found, memory, seconds = audit(path)
        size = path.stat().st_size
    print(f"{given.rows:,} rows, {size / 1e6:.0f} MB: {memory / 1e6:.0f} MB of memory, "
          f"{seconds:.0f} s of one core")
    print(check(found, given.rows, readable))
    if memory > MEMORY or seconds > SECONDS: raise SystemExit("too much")


if __name__ == "__main__": main()
