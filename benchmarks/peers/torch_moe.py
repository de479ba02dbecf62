"""Training steps of the reference mixture of experts in PyTorch, plain and under Opacus.

    python torch_moe.py METHOD THREADS [SECONDS]

METHOD: plain    no privacy; tokens are gathered per expert
        ghost    Opacus, fast gradient clipping with ghost norms
        samples  Opacus, per-sample gradients

The model of benchmarks/reference-model.ts: 8,192 words, hidden size 128, 4 layers of 4 heads, feed-forward 512, 8 experts (top-1) in
layers 2 and 4, 3,696,402 parameters; 256 texts of 16 to 64 tokens, mean about 20. PyTorch pads texts to the longest; the
hooks of Opacus need the batch first, so its experts see [text, slot]. Prints one line of JSON, as benchmarks/step.ts.
"""

import json
import math
import resource
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional

warnings.filterwarnings("ignore")
METHOD, THREADS = sys.argv[1], int(sys.argv[2])
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 20.0
WORDS, HIDDEN, HEADS, INNER, EXPERTS, LAYERS, POSITIONS, TEXTS = 8192, 128, 4, 512, 8, 4, 64, 256
torch.set_num_threads(THREADS)
torch.manual_seed(1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))

    def forward(self, x, present):
        texts, length, _ = x.shape
        q, k, v = (
            part(x).view(texts, length, HEADS, HIDDEN // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None, :])
        return self.output(mixed.transpose(1, 2).reshape(texts, length, HIDDEN))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)

    def forward(self, x):
        return self.down(functional.relu(self.up(x)))


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(HIDDEN, EXPERTS)
        self.experts = nn.ModuleList(FeedForward() for _ in range(EXPERTS))

    def forward(self, x, present):
        probabilities = torch.softmax(self.router(x), -1)
        gate, chosen = probabilities.max(-1)
        choices = functional.one_hot(chosen, EXPERTS) * present[..., None]
        lengths = present.sum(1, keepdim=True)
        load = choices.sum(1) / lengths
        mean = (probabilities * present[..., None]).sum(1) / lengths
        balance = EXPERTS * (load * mean).sum(-1)
        y = self.gathered(x, chosen, present) if METHOD == "plain" else self.per_text(x, chosen, choices, present)
        return y * gate[..., None], balance

    def gathered(self, x, chosen, present):
        tokens, experts = x[present], chosen[present]
        order = experts.argsort()
        parts = tokens[order].split(torch.bincount(experts, minlength=EXPERTS).tolist())
        rows = torch.cat([expert(part) for expert, part in zip(self.experts, parts)])
        flat = torch.empty_like(rows).index_copy(0, order, rows)
        return torch.zeros_like(x).masked_scatter(present[..., None], flat)

    def per_text(self, x, chosen, choices, present):
        slots = int(choices.sum(1).max())
        place = (choices.cumsum(1) - 1).gather(2, chosen[..., None])[..., 0]
        text = torch.arange(x.shape[0])[:, None].expand_as(chosen)
        at = ((chosen * x.shape[0] + text) * slots + place)[present]
        packed = x.new_zeros(EXPERTS * x.shape[0] * slots, HIDDEN).index_copy(0, at, x[present])
        packed = packed.view(EXPERTS, x.shape[0], slots, HIDDEN)
        rows = torch.stack([expert(part) for expert, part in zip(self.experts, packed)]).view(-1, HIDDEN)
        return torch.zeros_like(x).masked_scatter(present[..., None], rows[at])


class Block(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.attention_norm, self.norm = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.attention, self.sparse = Attention(), sparse
        self.feed_forward = Mixture() if sparse else FeedForward()

    def forward(self, x, present):
        x = x + self.attention(self.attention_norm(x), present)
        normed = self.norm(x)
        if not self.sparse:
            return x + self.feed_forward(normed), 0.0
        y, balance = self.feed_forward(normed, present)
        return x + y, balance


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, HIDDEN), nn.Embedding(POSITIONS, HIDDEN)
        self.blocks = nn.ModuleList(Block(layer % 2 == 1) for layer in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, words, present):
        x = self.words(words) + self.positions(torch.arange(words.shape[1]).repeat(words.shape[0], 1))
        balance = 0.0
        for block in self.blocks:
            x, of_block = block(x, present)
            balance = balance + of_block
        x = self.norm(x) * present[..., None]
        return self.head(x.sum(1) / present.sum(1, keepdim=True)), balance


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        uniform = torch.rand(TEXTS, generator=generator)
        lengths = (16 + (-torch.log(1 - uniform) * 4.5).floor().long()).clamp(max=POSITIONS)
        present = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        words = torch.randint(1, WORDS, present.shape, generator=generator) * present
        yield words, present, torch.randint(0, 2, (TEXTS,), generator=generator)


def losses(model, words, present, labels):
    logits, balance = model(words, present)
    return functional.cross_entropy(logits, labels, reduction="none") + 0.01 * balance


def plain_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step(batch):
        optimizer.zero_grad()
        losses(model, *batch).mean().backward()
        optimizer.step()

    return step


def opacus_step(model):
    from opacus import grad_sample, optimizers
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    ghost = METHOD == "ghost"
    wrapped = (
        grad_sample.GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
        if ghost
        else grad_sample.GradSampleModule(model)
    )
    make = optimizers.DPOptimizerFastGradientClipping if ghost else optimizers.DPOptimizer
    adam = torch.optim.AdamW(wrapped.parameters(), 1e-4)
    optimizer = make(adam, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=TEXTS)

    def step(batch):
        optimizer.zero_grad()
        per_text = losses(wrapped, *batch)
        if ghost:
            DPTensorFastGradientClipping(wrapped, optimizer, per_text).backward()
        else:
            per_text.mean().backward()
        optimizer.step()

    return step


model = Classifier()
assert sum(parameter.numel() for parameter in model.parameters()) == 3_696_402
step = plain_step(model) if METHOD == "plain" else opacus_step(model)
data = list(batches())
times, end, index = [], time.time() + SECONDS, 0
while index < 4 or (time.time() < end and index < 200):
    start = time.perf_counter()
    step(data[index % len(data)])
    if index >= 2:
        times.append(1e3 * (time.perf_counter() - start))
    index += 1
times.sort()
name = {"plain": "PyTorch plain", "ghost": "Opacus ghost clipping", "samples": "Opacus per-sample gradients"}[METHOD]
print(
    json.dumps(
        {
            "what": name,
            "threads": THREADS,
            "version": torch.__version__,
            "steps": len(times),
            "medianMs": times[len(times) // 2],
            "minMs": times[0],
            "peakMb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    )
)
