# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share: a tiny corpus, its tokenizer, models of a few thousand parameters."""
import os
import pathlib
import sys

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[3]
if not os.environ.get("EMO_TEST_INSTALLED"):
    sys.path.insert(0, str(SOURCE / "bindings" / "python"))

import emo  # noqa: E402

WORDS = "river bridge water stone boat shore fish net tide wave oven flour butter sugar knead bake bread crust".split()
CONFIG = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 9,
          "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 256}


def make_texts(count):
    """(text, domain) pairs, always the same ones."""
    state, out = 7, []
    for i in range(count):
        half = (i % 2) * 9
        words = []
        for _ in range(40):
            state = (state * 1103 + 12345) % 65536
            words.append(WORDS[half + state // 7 % 9])
        out.append((" ".join(words) + ".", "kitchen" if half else "river"))
    return out


@pytest.fixture(scope="session")
def source():
    return SOURCE


@pytest.fixture(scope="session")
def texts():
    return make_texts(40)


@pytest.fixture(scope="session")
def tokenizer(texts):
    return emo.Tokenizer.train((text for text, _ in texts), vocab_size=280)


@pytest.fixture(scope="session")
def data(texts, tokenizer):
    return emo.Dataset.from_texts(texts, tokenizer)


@pytest.fixture
def new_model(tokenizer):
    """Makes models with random weights, each with keys of its own."""
    return lambda seed=1, **keys: emo.Model({**CONFIG, **keys}, tokenizer=tokenizer, seed=seed)


@pytest.fixture(scope="session")
def trained(tokenizer, data):
    """A model that has learnt a little."""
    model = emo.Model(CONFIG, tokenizer=tokenizer, seed=1)
    with emo.Trainer(model, data, pool="uniform:2:8", max_steps=60, batch_rows=8, seq_len=64, lr=1e-2) as trainer:
        trainer.run()
    return model


@pytest.fixture(scope="session")
def program():
    """The emo program of the same build."""
    path = os.environ.get("EMO_PROGRAM")
    if not path or not os.access(path, os.X_OK):
        pytest.skip("EMO_PROGRAM does not name the emo program")
    return path
