"""Tiny random checkpoints with what Hugging Face transformers computes on them, for test/parity.

    python3 -m venv venv && venv/bin/pip install torch==2.* transformers==4.57.1 peft==0.21.2
    venv/bin/python parity.py fixtures ../../test/parity/fixtures   # the committed ones, always the same
    venv/bin/python parity.py random FOLDER --count 20 --seed 1     # others, for compare.ts
    venv/bin/python parity.py peft FOLDER...                        # LoRA adapters made by PEFT, for compare.ts
    venv/bin/python parity.py check FOLDER...                       # do the models that compare.ts wrote give its logits?

Versions below 4.51 lack models or drop tokens over capacity differently; early 5.x never enforces Switch's capacity.
"""

import argparse
import json
import math
import random
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersAttention

KINDS = {
    "bert": (BertConfig, BertForSequenceClassification),
    "mixtral": (MixtralConfig, MixtralForCausalLM),
    "olmoe": (OlmoeConfig, OlmoeForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "switch_transformers": (SwitchTransformersConfig, SwitchTransformersForConditionalGeneration),
}

DECODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
}
MIXTRAL = {**DECODER, "intermediate_size": 24, "num_local_experts": 4, "sliding_window": None}
OLMOE = {**DECODER, "intermediate_size": 12, "num_experts": 6, "num_key_value_heads": 4, "pad_token_id": 1}
QWEN3 = {**DECODER, "intermediate_size": 20, "moe_intermediate_size": 12, "num_experts": 6, "head_dim": 8}
SWITCH = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_heads": 3,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "num_experts": 4,
    "expert_capacity": 64,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}
BERT = {
    "vocab_size": 48,
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 3,
}

# name: (kind, configuration, how it is saved)
FIXTURES = {
    "bert": ("bert", BERT, {}),
    "bert-sharded-tanh-gelu": ("bert", {**BERT, "hidden_act": "gelu_new", "num_hidden_layers": 1}, {"shard": "12KB"}),
    "mixtral": ("mixtral", MIXTRAL, {}),
    "mixtral-tied-router-loss": (
        "mixtral",
        {
            **MIXTRAL,
            "num_hidden_layers": 1,
            "tie_word_embeddings": True,
            "output_router_logits": True,
            "router_aux_loss_coef": 0.3,
        },
        {},
    ),
    "mixtral-bfloat16-sharded": (
        "mixtral",
        {**MIXTRAL, "num_key_value_heads": 1},
        {"dtype": "bfloat16", "shard": "16KB"},
    ),
    "olmoe": ("olmoe", OLMOE, {}),
    "olmoe-clip-norm": (
        "olmoe",
        {**OLMOE, "clip_qkv": 0.7, "norm_topk_prob": True, "num_key_value_heads": 2, "num_experts_per_tok": 3},
        {},
    ),
    "qwen3-moe": ("qwen3_moe", {**QWEN3, "norm_topk_prob": True}, {}),
    "qwen3-moe-dense-tied": (
        "qwen3_moe",
        {
            **QWEN3,
            "num_hidden_layers": 3,
            "mlp_only_layers": [0],
            "decoder_sparse_step": 1,
            "tie_word_embeddings": True,
            "attention_bias": True,
        },
        {"dtype": "float16"},
    ),
    "qwen3-moe-every-second": (
        "qwen3_moe",
        {**QWEN3, "num_experts": 4, "decoder_sparse_step": 2, "num_key_value_heads": 4},
        {},
    ),
    "switch": ("switch_transformers", SWITCH, {}),
    "switch-capacity-untied": (
        "switch_transformers",
        {
            **SWITCH,
            "expert_capacity": 2,
            "tie_word_embeddings": False,
            "router_bias": True,
            "num_layers": 3,
            "num_sparse_encoder_layers": 3,
        },
        {"shard": "24KB"},
    ),
    "switch-router-loss": (
        "switch_transformers",
        {**SWITCH, "router_aux_loss_coef": 0.4, "router_z_loss_coef": 0.05, "dense_act_fn": "gelu_new"},
        {"router_loss": True},
    ),
}


def spread(model, generator):
    """Weights that are far from uniform: routing, norms and biases all matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                base = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
                parameter.copy_(base + 0.2 * noise)
            elif "relative_attention_bias" in name or "router" in name or name.endswith("gate.weight"):
                parameter.copy_(noise * (1.0 if "relative" in name else 2.0 / math.sqrt(parameter.shape[1])))
            elif "embed" in name or "shared" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))


def inputs_for(kind, config, rng):
    vocabulary = config.vocab_size
    tokens = lambda length: [rng.randrange(2, vocabulary) for _ in range(length)]
    lengths = [7, 2, 11]
    sequences = []
    for length in lengths:
        sequence = {"ids": tokens(length)}
        if kind == "bert":
            split = rng.randrange(length + 1)
            sequence["tokenTypes"] = [0] * split + [1] * (length - split)
            sequence["label"] = rng.randrange(config.num_labels)
        if kind == "switch_transformers":
            sequence["target"] = tokens(rng.choice([1, 4, 9, 15]))
        sequences.append(sequence)
    return sequences


def run(model, kind, sequence, router_loss=False):
    """Logits [rows, classes] and the loss of one sequence, alone: nothing is padded."""
    ids = torch.tensor([sequence["ids"]])
    if kind == "bert":
        types = torch.tensor([sequence["tokenTypes"]])
        output = model(input_ids=ids, token_type_ids=types, labels=torch.tensor([sequence["label"]]))
        return output.logits, output.loss
    if kind == "switch_transformers":
        output = model(input_ids=ids, labels=torch.tensor([sequence["target"]]), output_router_logits=router_loss)
        return output.logits[0], output.loss
    output = model(input_ids=ids, labels=ids)
    return output.logits[0], output.loss


def build(kind, settings, saving, seed):
    config_class, model_class = KINDS[kind]
    config = config_class(**settings)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = model_class(config).eval()
    spread(model, torch.Generator().manual_seed(seed))
    dtype = getattr(torch, saving.get("dtype", "float32"))
    return model.to(dtype)


def load(kind, folder):
    """A folder's model in float32; what it lacks or has too much is an error.

    transformers saves an untied Switch without the tables of its two ends, which are shared.weight, and does not find
    them again when it loads (4.57.1): they are tied here.
    """
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    model_class = KINDS[kind][1]
    model, info = model_class.from_pretrained(folder, config=config, dtype=torch.float32, output_loading_info=True)
    ends = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    if kind == "switch_transformers" and set(info["missing_keys"]) == ends:
        model.encoder.embed_tokens.weight = model.decoder.embed_tokens.weight = model.shared.weight
        info["missing_keys"] = []
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[problem], (str(folder), problem, info[problem])
    # Products round differently on memory that is mapped from a file at an odd address.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.eval()


def write(folder, kind, settings, saving, seed):
    folder.mkdir(parents=True, exist_ok=True)
    model = build(kind, settings, saving, seed)
    model.save_pretrained(folder, max_shard_size=saving.get("shard", "5GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    # Not model.float(): the buffers of rotary frequencies would keep the rounding.
    model = load(kind, folder)
    sequences = inputs_for(kind, model.config, random.Random(seed))
    results = [run(model, kind, sequence, saving.get("router_loss", False)) for sequence in sequences]
    sum(loss for _, loss in results).backward()
    expected = {f"gradient:{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    expected["logits"] = torch.cat([logits.detach() for logits, _ in results])
    expected["losses"] = torch.stack([loss.detach() for _, loss in results])
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")
    case = {"kind": kind, "routerLoss": saving.get("router_loss", False), "transformers": transformers.__version__}
    (folder / "case.json").write_text(json.dumps({**case, "sequences": sequences}) + "\n")


def buckets(path):
    """Bucket of every distance, for several shapes of a relative bias."""
    cases = []
    for count, distance, bidirectional in [
        (32, 128, True),
        (32, 128, False),
        (8, 12, True),
        (8, 12, False),
        (16, 100, True),
        (64, 256, False),
        (18, 128, True),
        (54, 64, False),
    ]:
        relative = torch.arange(-distance - 3, distance + 4)
        found = SwitchTransformersAttention._relative_position_bucket(relative, bidirectional, count, distance)
        cases.append(
            {"buckets": count, "maxDistance": distance, "bidirectional": bidirectional, "found": found.tolist()}
        )
    path.write_text(json.dumps(cases) + "\n")


def random_case(rng):
    kind = rng.choice(list(KINDS))
    saving = {"shard": rng.choice(["5GB", "20KB"]), "dtype": rng.choice(["float32", "float32", "bfloat16", "float16"])}
    layers = rng.choice([1, 2, 3])
    if kind == "bert":
        heads = rng.choice([1, 2, 3])
        settings = {
            **BERT,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_size": heads * rng.choice([5, 8, 17]),
            "intermediate_size": rng.randrange(3, 70),
            "hidden_act": rng.choice(["gelu", "relu", "silu", "gelu_new"]),
            "num_labels": rng.choice([2, 5]),
        }
    elif kind == "switch_transformers":
        decoder_layers = rng.choice([1, 2, 4])
        settings = {
            **SWITCH,
            "num_layers": layers,
            "num_decoder_layers": decoder_layers,
            "num_sparse_encoder_layers": rng.choice([0, 1, layers]),
            "num_sparse_decoder_layers": rng.choice([0, 1, decoder_layers]),
            "num_experts": rng.choice([1, 2, 5]),
            "expert_capacity": rng.choice([1, 2, 3, 64]),
            "num_heads": rng.choice([1, 2, 5]),
            "d_kv": rng.choice([3, 8, 17]),
            "d_model": rng.choice([8, 20, 33]),
            "d_ff": rng.choice([7, 40]),
            "relative_attention_num_buckets": rng.choice([8, 32]),
            "relative_attention_max_distance": rng.choice([17, 128]),
            "tie_word_embeddings": rng.random() < 0.5,
            "router_bias": rng.random() < 0.5,
            "dense_act_fn": rng.choice(["relu", "gelu", "silu"]),
        }
    else:
        base = {"mixtral": MIXTRAL, "olmoe": OLMOE, "qwen3_moe": QWEN3}[kind]
        key_heads = rng.choice([1, 2, 3])
        heads = key_heads * rng.choice([1, 2])
        experts = rng.choice([2, 3, 8])
        head = rng.choice([2, 6, 16])
        settings = {
            **base,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "hidden_size": heads * head,
            "head_dim": head,
            "num_experts_per_tok": rng.randrange(1, experts + 1),
            "tie_word_embeddings": rng.random() < 0.5,
            "rope_theta": rng.choice([100.0, 10000.0, 1e6]),
            "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        }
        settings["num_local_experts" if kind == "mixtral" else "num_experts"] = experts
        if kind == "olmoe":
            del settings["head_dim"]
            settings.update(clip_qkv=rng.choice([None, 0.3, 1.0]), attention_bias=rng.random() < 0.5)
        if kind == "qwen3_moe":
            settings.update(
                head_dim=rng.choice([2, 10]),
                decoder_sparse_step=rng.choice([1, 2]),
                mlp_only_layers=rng.choice([[], [0]]),
                attention_bias=rng.random() < 0.5,
                hidden_act=rng.choice(["silu", "gelu"]),
            )
        if kind != "mixtral":
            settings["norm_topk_prob"] = rng.random() < 0.5
        if rng.random() < 0.3:
            settings["rope_scaling"] = {"rope_type": "linear", "factor": 2.5}
    return kind, settings, saving


def all_logits(model, case):
    with torch.no_grad():
        return torch.cat([run(model, case["kind"], sequence)[0] for sequence in case["sequences"]])


def read_case(folder):
    return json.loads((folder / "case.json").read_text())


def check(folder):
    """What dp-moe saved gives transformers, or PEFT, the logits that it should."""
    case = read_case(folder)
    first, second = (all_logits(load(case["kind"], path), case) for path in (folder, folder / "saved"))
    assert torch.equal(first, second), (str(folder), (first - second).abs().max())
    checked = ["saved"]
    if (folder / "merged").exists():
        merged = all_logits(load(case["kind"], folder / "merged"), case)
        require_close(folder, "merged", merged)
        assert (merged - first).abs().max() > 1e-3, f"{folder}: the adapters do nothing"
        # Two products in place of one round otherwise, and a model may magnify that.
        require_close(folder, "merged", all_logits(with_adapters(case["kind"], folder, folder / "adapters"), case), 1e-3)
        checked += ["merged", "adapters"]
    for name in ("upcycled", "upcycled-all"):
        if (folder / name).exists():
            require_close(folder, name, all_logits(load_upcycled(folder / name), case))
            checked.append(name)
    print(f"ok {folder}: {', '.join(checked)}")


def require_close(folder, name, logits, tolerance=1e-4):
    """What dp-moe computed, to a share of its norm."""
    expected = load_file(folder / f"{name}.logits.safetensors")["logits"].reshape(logits.shape)
    assert (logits - expected).norm() <= tolerance * expected.norm(), (str(folder), name, (logits - expected).abs().max())


def with_adapters(kind, folder, adapters):
    from peft import PeftModel

    return PeftModel.from_pretrained(load(kind, folder), adapters).eval()


def write_peft(folder, seed):
    """Adapters that PEFT saves, on every linear layer but routers, and the logits once it has merged them."""
    from peft import LoraConfig, TaskType, get_peft_model

    case = read_case(folder)
    kind = case["kind"]
    model = load(kind, folder)
    task, whole = {
        "bert": (TaskType.SEQ_CLS, ["pooler", "classifier"]),
        "switch_transformers": (TaskType.SEQ_2_SEQ_LM, None),
    }.get(kind, (TaskType.CAUSAL_LM, None))
    kept = {"pooler.dense", "classifier", "lm_head", "gate"}
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(name == one or name.endswith(f".{one}") for one in kept)
        and "router" not in name
    ]
    model.config.name_or_path = str(folder)
    model.name_or_path = str(folder)
    config = LoraConfig(r=2, lora_alpha=5, target_modules=targets, task_type=task, modules_to_save=whole)
    adapted = get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.shape[-1]))
    adapted.save_pretrained(folder / "peft")
    save_file({"logits": all_logits(adapted.merge_and_unload(), case)}, folder / "peft" / "expected.safetensors")


class Expert(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.intermediate = torch.nn.ModuleDict({"dense": torch.nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = torch.nn.ModuleDict({"dense": torch.nn.Linear(config.intermediate_size, config.hidden_size)})
        self.activation = transformers.activations.ACT2FN[config.hidden_act]

    def forward(self, x):
        return self.output["dense"](self.activation(self.intermediate["dense"](x)))


class Mixture(torch.nn.Module):
    """The mixture of a bert_moe: the chosen experts' gates are divided by their sum."""

    def __init__(self, config, experts, chosen):
        super().__init__()
        self.router = torch.nn.Linear(config.hidden_size, experts, bias=False)
        self.experts = torch.nn.ModuleList(Expert(config) for _ in range(experts))
        self.chosen = chosen

    def forward(self, x):
        gates, indices = self.router(x).softmax(-1).topk(self.chosen, -1)
        gates = gates / gates.sum(-1, keepdim=True)
        outputs = torch.stack([expert(x) for expert in self.experts], -2)
        return (outputs.gather(-2, indices[..., None].expand(*indices.shape, x.shape[-1])) * gates[..., None]).sum(-2)


def feed_forward_of(layer):
    return lambda x: layer.output.LayerNorm(layer.mixture(x) + x)


def load_upcycled(folder):
    """A bert_moe, which transformers does not know: its BERT with the mixtures above."""
    settings = json.loads((folder / "config.json").read_text())
    try:
        AutoConfig.from_pretrained(folder)
    except ValueError as error:
        assert "bert_moe" in str(error)
    else:
        raise AssertionError("transformers knows bert_moe by now: compare with its own")
    config = BertConfig(**{**settings, "model_type": "bert"})
    config._attn_implementation = "eager"
    model = BertForSequenceClassification(config)
    for number in settings["moe_layers"]:
        layer = model.bert.encoder.layer[number]
        layer.mixture = Mixture(config, settings["num_experts"], settings["num_experts_per_tok"])
        del layer.intermediate, layer.output.dense
        layer.feed_forward_chunk = feed_forward_of(layer)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fixtures").add_argument("folder", type=Path)
    more = commands.add_parser("random")
    more.add_argument("folder", type=Path)
    more.add_argument("--count", type=int, default=20)
    more.add_argument("--seed", type=int, default=1)
    adapters = commands.add_parser("peft")
    adapters.add_argument("folders", type=Path, nargs="+")
    saved = commands.add_parser("check")
    saved.add_argument("folders", type=Path, nargs="+", help="each with the folders in it that compare.ts wrote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "fixtures":
        for seed, (name, (kind, settings, saving)) in enumerate(FIXTURES.items()):
            write(options.folder / name, kind, settings, saving, seed)
        buckets(options.folder / "relative-buckets.json")
    elif options.command == "random":
        rng = random.Random(options.seed)
        for number in range(options.count):
            write(options.folder / f"{options.seed}-{number}", *random_case(rng), 1000 * options.seed + number)
    elif options.command == "peft":
        for seed, folder in enumerate(options.folders):
            write_peft(folder.resolve(), seed)
    else:
        for folder in options.folders:
            check(folder)


if __name__ == "__main__":
    main()
