"""The server: limits hold, errors have one form, batches change no answer, nothing accepted is lost."""
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from course_lib.errors import InputError
from course_lib.server import (LOOPBACK, STATUSES, Limits, Refused, in_thread, make_server,
                               read_json, request_id)
from course_lib.serving import (Batcher, Source, create_app, find_source, read_request, read_token,
                                serve)


class Toy:
    "An answerer that needs no model: how long each text is."
    task, max_tokens = "text-classification", 50

    def __init__(self, name="toy@1", seconds=0.0): self.name, self.seconds = name, seconds

    def answer(self, texts):
        time.sleep(self.seconds)
        if "broken" in texts: raise RuntimeError("the model failed")
        if "bad" in texts: raise InputError("text 1 – is bad – leave it out")
        return [{"text": text, "label": str(len(text)), "by": self.name} for text in texts]

    def count_tokens(self, texts): return [len(text.split()) for text in texts]


class Holds:
    "A source that holds one answerer."
    def __init__(self, model): self.model = model

    def current(self):
        if self.model is None: raise Refused(503, "no model", retry_after="1")
        return self.model


def app_of(model=None, limits=None, **more):
    more.setdefault("say", lambda event, **line: None)
    return create_app(Holds(model or Toy()), limits, **more)


def client_of(app): return TestClient(app, "http://localhost")


def error_of(reply): # its status; the form is checked
    found = reply.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["type"] == STATUSES[reply.status_code][0]
    return reply.status_code


def test_answers_come_in_order_and_name_their_model():
    reply = client_of(app_of()).post("/predict", json={"texts": ["a", "bcd", "ef"]})
    assert reply.status_code == 200 and reply.json()["model"] == "toy@1"
    assert [a["label"] for a in reply.json()["answers"]] == ["1", "3", "2"]
