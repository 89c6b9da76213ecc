#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model folders between libemo and transformers, which runs the reference's own code.

compare_transformers.py CODE FOLDER...: the folders of a run of `emo`, then models of many shapes that are made here.
Works in the current folder. Every model is loaded with from_pretrained(), where no key may be missing or left over, and
compared in logits, greedy text, tokenizer and settings; what save_pretrained() writes must come back byte for byte.
"""
import glob
import importlib
import json
import os
import shutil
import sys
import types

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import emo

# Both sides compute in float32 from the same weights; sums are in another order. The logits here reach 1 to 20.
TOLERANCE = 1e-4
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TEXT = "the river bridge, water and stone: 12 boats  knead\n\nflour \u00e9\u4e2d\U0001f600 oven."
CLASSES = {"emo": ("configuration_emo.EmoConfig", "modeling_emo.EmoForCausalLM"),
           "olmo2_noqknorm_prenorm": ("configuration_olmo2_noqknorm_prenorm.Olmo2NoQKNormPrenormConfig",
                                      "modeling_olmo2_noqknorm_prenorm.Olmo2NoQKNormPrenormForCausalLM")}
problems = []
worst = {}


def expect(condition, words):
    if not condition:
        print("FAILED: " + words)
        problems.append(words)


def register(code):
    """Makes the reference's classes known to transformers; gives the model types that are there."""
    package = types.ModuleType("reference_code")
    package.__path__ = [os.path.join(code, kind) for kind in CLASSES]
    sys.modules["reference_code"] = package
    found = {}
    for kind, names in CLASSES.items():
        if os.path.isdir(os.path.join(code, kind)):
            split = [name.split(".") for name in names]
            config, model = (getattr(importlib.import_module("reference_code." + file), word) for file, word in split)
            AutoConfig.register(kind, config)
            AutoModelForCausalLM.register(config, model)
            found[kind] = (config, model)
    return found


def raw_tensors(folder):
    """Name -> (type, shape, bytes) of all weight files."""
    out = {}
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            data = file.read()
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                out[name] = (entry["dtype"], tuple(entry["shape"]), data[begin:end])
    return out


def read_json(*path):
    with open(os.path.join(*path)) as file:
        return json.load(file)


def load(folder, **options):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    for key, names in info.items():
        expect(not names, f"{folder}: {key}: {names}")
    return model.eval()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def ours(model, ids, **options):
    return torch.tensor(model.logits(ids, **options).tolist())


def compare(name, kind, here, there, tolerance=TOLERANCE):
    difference, size = float((here - there).abs().max()), float(there.abs().max())
    worst[kind] = max(worst.get(kind, (0.0, 0.0)), (difference, size))
    expect(difference <= tolerance, f"{name}: logits differ by {difference:.1e} (they reach {size:.1f})")
    expect(size > 0.05 and float(there.std(0).max()) > 0.01, f"{name}: its logits say nothing")


def check(folder, tokens=12, save=True):
    """One folder that libemo wrote."""
    config = read_json(folder, "config.json")
    mine = emo.load(folder)
    vocab = mine.info.vocab
    ids = [(7 * i * i + 3 * i + 1) % vocab for i in range(24)]
    theirs = load(folder, dtype="auto")
    expect(theirs.dtype == TYPES[config["dtype"]], f"{folder}: {theirs.dtype}, not {config['dtype']}")
    expect(type(theirs).__name__ == config["architectures"][0], f"{folder}: loaded as {type(theirs).__name__}")
    for name, tensor in theirs.state_dict().items():
        expect(tensor.dtype == TYPES[config["dtype"]], f"{folder}: {name} is {tensor.dtype}")
    seen = theirs.config.to_dict()
    for key, value in config.items():
        if key != "torch_dtype":
            got = str(seen.get(key)).replace("torch.", "") if key == "dtype" else seen.get(key)
            expect(got == value, f"{folder}: config.json says {key} {value!r}, transformers {got!r}")
    generation = theirs.generation_config
    expect(generation.eos_token_id == config["eos_token_id"], f"{folder}: eos {generation.eos_token_id}")
    expect(generation.pad_token_id == config["pad_token_id"], f"{folder}: pad {generation.pad_token_id}")
    if save:
        # Before anything is converted: what transformers writes is what it was given.
        theirs.save_pretrained("back", max_shard_size="60KB")
        before, after = raw_tensors(folder), raw_tensors("back")
        if config["tie_word_embeddings"]:
            before.pop("lm_head.weight", None), after.pop("lm_head.weight", None)
        expect(before == after, f"{folder}: tensors changed on the way: "
               f"{[n for n in before.keys() | after.keys() if before.get(n) != after.get(n)][:3]}")
        again = emo.load("back")
        changed = [key for key, value in mine.config.items() if again.config.get(key) != value]
        expect(not changed, f"{folder}: config.json changed on the way: {changed}")
        again.save("again")
        expect(raw_tensors("again") == raw_tensors(folder) or config["tie_word_embeddings"],
               f"{folder}: tensors changed after transformers and libemo")
        expect(ours(again, ids).equal(ours(mine, ids)), f"{folder}: other logits after transformers")
        shutil.rmtree("back"), shutil.rmtree("again")
    half = theirs.dtype
    theirs = theirs.float()
    kind = str(half).replace("torch.", "") + " weights, computed in float32"
    compare(folder, kind, ours(mine, ids), logits_of(theirs, ids))
    # Greedy text, from the cache on both sides.
    session = mine.session(max_tokens=tokens, ignore_eos=1)
    session.append(ids[:5])
    for _ in session.generate():
        pass
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = None
    text = theirs.generate(torch.tensor([ids[:5]]), attention_mask=torch.ones(1, 5, dtype=torch.long),
                           max_new_tokens=tokens, do_sample=False)
    text, here = text[0, 5:].tolist(), session.generated()
    expect(len(here) == tokens and text == here, f"{folder}: greedy {text}, here {here}")
    return mine, theirs


def check_tokenizer(folder):
    mine = emo.Tokenizer.load(os.path.join(folder, "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(folder)
    config = read_json(folder, "config.json")
    expect(theirs(TEXT)["input_ids"] == mine.encode(TEXT, add_special=1), f"{folder}: the tokenizers give other ids")
    expect(theirs.decode(theirs(TEXT)["input_ids"]) == TEXT, f"{folder}: the text does not come back")
    expect(theirs.eos_token_id == config["eos_token_id"], f"{folder}: the tokenizer's eos is {theirs.eos_token_id}")
    expect(theirs.model_max_length == config["max_position_embeddings"], f"{folder}: length {theirs.model_max_length}")
    model = load(folder, dtype=torch.float32)
    # As every model card does it: all that the tokenizer gives goes into the model; two texts of different lengths.
    theirs.padding_side = "left"
    # A pruned folder asks for router logits, as the reference's does; the balancing loss its code then computes of each
    # generated token knows no cache, and fails where texts are generated together.
    model.config.output_router_logits = False
    more = {"max_new_tokens": 6, "do_sample": False}
    if theirs.pad_token is None:
        theirs.pad_token = theirs.eos_token
    both = model.generate(**theirs(["the boat", TEXT], return_tensors="pt", padding=True), **more)
    alone = model.generate(**theirs("the boat", return_tensors="pt"), **more)
    expect(theirs.decode(both[0], skip_special_tokens=True) == theirs.decode(alone[0], skip_special_tokens=True),
           f"{folder}: other text in a batch")


BASE = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_experts": 9, "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 128,
        "initializer_range": 0.2, "eos_token_id": 256, "pad_token_id": 257}
SHAPES = {
    "one shared expert": {},
    "no shared expert, other pad and eos": {"num_shared_experts": 0, "eos_token_id": 0, "pad_token_id": 0},
    "two shared experts": {"num_shared_experts": 2, "num_experts_per_tok": 4},
    "the reference's pad outside the vocabulary": {"pad_token_id": 100277},
    "no pad, no eos": {"pad_token_id": None, "eos_token_id": None},
    "grouped queries": {"num_key_value_heads": 2},
    "one key head": {"num_key_value_heads": 1, "bos_token_id": 1},
    "a width of heads of its own": {"head_dim": 12},
    "layers of their own": {"num_experts_per_layer": [7, 0, 9], "num_shared_experts_per_layer": [1, 0, 2],
                            "num_shared_experts": 2, "dense_intermediate_size": 40},
    "biases": {"attention_bias": True, "dense_mlp_bias": True, "num_experts_per_layer": [0, 5, 5],
               "dense_intermediate_size": 24},
    "tied": {"tie_word_embeddings": True},
    "normalised gates": {"norm_topk_prob": True, "num_shared_experts": 0},
    "always active": {"num_shared_experts": 0, "always_active_experts": [1, 4]},
    "always active, by layer": {"num_shared_experts": 0, "always_active_experts_per_layer": [[1], [0, 8], [2]]},
    "every expert": {"num_experts": 4, "num_experts_per_tok": 4},
    "another theta and epsilon": {"rope_theta": 1234.5, "rms_norm_eps": 3e-5},
    "router logits in training": {"output_router_logits": True, "router_aux_loss_coef": 0.1},
}
DENSE = {"model_type": "olmo2_noqknorm_prenorm", "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48,
         "num_hidden_layers": 3, "num_attention_heads": 4, "initializer_range": 0.2, "eos_token_id": 256,
         "pad_token_id": 257}


def check_shapes(kinds):
    for seed, (name, more) in enumerate(SHAPES.items()):
        folder = name.replace(" ", "-")
        emo.Model(dict(BASE, **more), seed=seed + 1).save(folder)
        check(folder)
    if "olmo2_noqknorm_prenorm" in kinds:
        emo.Model(DENSE, seed=5).save("dense")
        check("dense")
    else:
        print("the dense baseline's code is not there: not compared")


def check_types():
    """Every element type, in one file and in shards."""
    model = emo.Model(dict(BASE, num_key_value_heads=2), seed=77)
    for dtype in ("f32", "bf16", "f16"):
        for shard in (0, 30000):
            folder = f"{dtype}-{shard}"
            model.save(folder, dtype=dtype, shard_bytes=shard)
            files = len(glob.glob(os.path.join(folder, "*.safetensors")))
            expect(files > 3 if shard else files == 1, f"{folder}: {files} files")
            mine, _ = check(folder)
            if dtype != "f32":
                # Computed in the rounded type by transformers: 2^-8 or 2^-11 of logits up to 8, over some twenty
                # roundings; a token between two experts may take the other one, so not every token is held to it.
                ids = [(7 * i * i + 3 * i + 1) % 260 for i in range(24)]
                there = logits_of(load(folder, dtype="auto"), ids)
                difference = (ours(mine, ids) - there).abs().max(1).values.median()
                bound = 0.25 if dtype == "bf16" else 0.03
                expect(float(difference) < bound, f"{folder}: {float(difference):.2e} computed in {dtype}")


def check_subsets():
    """A pruned model there is the subset here: the same experts everywhere, in some layers only, different numbers."""
    parent = emo.Model(dict(BASE), seed=9)
    ids = list(range(3, 25))
    for name, keep in {"all layers": [[0, 3, 4, 7, 8]] * 3, "one layer": [range(9), [2, 5, 8], range(9)],
                       "different layers": [[0, 1, 8], [2, 3, 4, 5, 8], [1, 3, 5, 6, 7, 8]]}.items():
        folder = "subset-" + name.replace(" ", "-")
        mask = emo.Mask(parent.experts, parent.shared, keep)
        parent.prune(mask).save(folder)
        kept = read_json(folder, "pruning_metadata.json")["experts_kept_per_layer"]
        expect(kept == [list(row) for row in keep], f"{folder}: pruning_metadata.json says {kept}")
        _, theirs = check(folder)
        compare(folder, "a subset here, the pruned model there", ours(parent, ids, mask=mask), logits_of(theirs, ids))
        counts = [len(layer.mlp.experts) for layer in theirs.model.layers]
        expect(counts == [len(row) for row in keep], f"{folder}: {counts} experts there")


def check_remote_code(code):
    """As on the hub: the code lies in the folder, config.json names it; conversion and pruning pass both on."""
    folder = "hub"
    emo.Model(dict(BASE), seed=21).save(folder)
    for path in glob.glob(os.path.join(code, "emo", "*.py")):
        shutil.copy(path, folder)
    config = read_json(folder, "config.json")
    config["auto_map"] = {"AutoConfig": CLASSES["emo"][0], "AutoModelForCausalLM": CLASSES["emo"][1]}
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    program = os.path.join(os.path.dirname(os.environ["EMO_LIBRARY"]), "examples", "cli", "emo")
    expect(os.spawnl(os.P_WAIT, program, program, "convert", "--model", folder, "--dtype", "bf16", "--out", "hub-bf16",
                     "--quiet") == 0, "emo convert")
    for path in (folder, "hub-bf16"):
        model = load(path, dtype="auto", trust_remote_code=True)
        expect(type(model).__module__.startswith("transformers_modules"), f"{path}: {type(model)} is not the folder's")
        ids = list(range(30, 50))
        compare(path, "with trust_remote_code", ours(emo.load(path), ids), logits_of(model.float(), ids))


def check_in(kinds):
    """A model that transformers made."""
    config, model = kinds["emo"]
    torch.manual_seed(3)
    for tie in (False, True):
        theirs = model(config(**dict(BASE, tie_word_embeddings=tie, num_key_value_heads=2)))
        theirs.to(torch.bfloat16).save_pretrained("theirs", max_shard_size="40KB")
        theirs = load("theirs", dtype=torch.float32)  # to() also rounded the frequencies, which are in no file
        mine = emo.load("theirs")
        ids = list(range(60, 80))
        compare("theirs", "made by transformers, bf16, in shards", ours(mine, ids), logits_of(theirs, ids))
        shutil.rmtree("theirs")


def main():
    code, folders = sys.argv[1], sys.argv[2:]
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    try:
        kinds = register(code)
    except ImportError as error:
        print(f"skipped: the reference's code does not run with this transformers (4.57 is what it is for): {error}")
        sys.exit(77)
    for folder in folders:
        check(folder)
        check_tokenizer(folder)
    check_shapes(kinds)
    check_types()
    check_subsets()
    check_remote_code(code)
    check_in(kinds)
    for kind, (difference, size) in worst.items():
        print(f"{kind}: logits within {difference:.1e} (of {size:.1f})")
    print(f"{len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
