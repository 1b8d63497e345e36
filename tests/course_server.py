"""Runs `course` commands, each in a process of its own, without starting Python anew for each.

This process reads the libraries once and then forks for every line that it gets: a list of
arguments, a folder, an environment and files for the three streams, as JSON. It answers with the
exit code. What a command does to its process stays there, as it would in one that a shell started.
"""
import json
import os
import sys
from importlib import import_module

from course_lib.cli import main

for name in ("bench", "cleaning", "exercises", "pretraining", "runs"): # what commands import
    import_module(f"course_lib.{name}")


def become(job: dict) -> None:
    "Turn a fork of this process into the command's."
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(job[name], os.O_RDONLY if number == 0 else os.O_WRONLY), number)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = ["course", *job["arguments"]]
    code = outcome()
    for stream in (sys.stdout, sys.stderr):
        try: stream.flush()
        except OSError: pass
    os._exit(code)


def outcome() -> int:
    "Run the command; its exit code."
    try: main()
    except SystemExit as e:
        if e.code is None: return 0
        return e.code if isinstance(e.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0: become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
