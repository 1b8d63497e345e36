"""Grade the course's own answers and all others that are known to be right.

    python tests/grade_all.py [CHAPTER ...]

Each must have full points: the checks and the answers live in different processes, and what goes
from one to the other has to arrive as it was.
"""
import json
import re
import sys
import time
from pathlib import Path

from course_lib.exercises import (Stages, chapters_with_exercises, find_exercises, grade_exercise,
                                  jobs_for, key, original, student)

HERE = Path(__file__).parent


def answers(chapter: str, notebook: dict): # yields (exercise, what it is, source)
    "The course's answers, and those in tests/rewrites."
    cells = {c["id"]: c for c in key(notebook, chapter)["cells"]}
    rewrites = (HERE / f"rewrites/{chapter}.py").read_text(encoding="utf-8")
    for e in find_exercises(notebook):
        own = "".join(cells[notebook["cells"][e["solution"]]["id"]]["source"])
        yield e["exercise"], "key", own
        name = re.search(r"(?m)^def (\w+)", own)[1]
        begins = f"e{e['exercise'].replace('.', '_')}_"
        for other in re.findall(rf"(?m)^(?:def |class )?({begins}\w+)", rewrites):
            yield e["exercise"], other, f"{rewrites}\n{name} = {other}\n"


def points(stages, notebook: dict, chapter: str, exercise: str, source: str) -> dict:
    "What the grader gives for an answer."
    work = student(notebook, chapter)
    for c in work["cells"]:
        own = c["metadata"].get("course", {}).get("exercise") == exercise
        c["source"] = source if own else "".join(c["source"])
    for e, answer, judge in jobs_for(notebook, work):
        if e["exercise"] != exercise: continue
        e = {**e, "properties": len(judge["properties"])}
        return grade_exercise(stages, e, answer, judge, time.monotonic() + 120)


def main():
    wrong = 0
    for chapter in sys.argv[1:] or chapters_with_exercises():
        notebook, n = original(chapter), 0
        begun = time.monotonic()
        stages = Stages(notebook)
        for exercise, what, source in answers(chapter, notebook):
            found = points(stages, notebook, chapter, exercise, source)
            n += 1
            if found["points"] == found["of"] and not found["problems"]: continue
            wrong += 1
            print(json.dumps({"chapter": chapter, "answer": what, **found}))
        stages.close()
        print(f"{chapter:20} {n:3} answers {time.monotonic() - begun:6.1f} s", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__": main()
