"""Answers questions about DP-SGD with dp_accounting: a JSON list on standard input, a JSON list on standard output.

Called by benchmarks/accounting.ts; needs `pip install dp-accounting==0.6.0`.
"""

import json
import sys
import time

import dp_accounting
from dp_accounting import pld

DEFAULT_INTERVAL = 1e-4


def event(question, noise_multiplier):
    step = dp_accounting.PoissonSampledDpEvent(
        question["sampleRate"], dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    return dp_accounting.SelfComposedDpEvent(step, question["steps"])


def epsilon(question, noise_multiplier, interval):
    accountant = pld.PLDAccountant(value_discretization_interval=interval)
    accountant.compose(event(question, noise_multiplier))
    return accountant.get_epsilon(question["delta"])


def noise(question):
    return dp_accounting.calibrate_dp_mechanism(
        pld.PLDAccountant,
        lambda noise_multiplier: event(question, noise_multiplier),
        question["epsilon"],
        question["delta"],
        bracket_interval=dp_accounting.LowerEndpointAndGuess(0.3, 1.0),
        tol=1e-4,
    )


def timed(question, work):
    value = work()
    wall, processor = [], []
    for _ in range(question["repeats"]):
        start, used = time.perf_counter(), time.process_time()
        value = work()
        wall.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (time.process_time() - used))
    return {
        "milliseconds": min(wall),
        "processorMilliseconds": min(processor),
        "value": value,
    }


def answer(question):
    if question["ask"] == "epsilon":
        sigma = question["noiseMultiplier"]
        return timed(question, lambda: epsilon(question, sigma, DEFAULT_INTERVAL))
    if question["ask"] == "noise":
        return timed(question, lambda: noise(question))
    sigma = question["noiseMultiplier"]
    # An interval at which its rounding up matters less than the check does.
    fine = min(DEFAULT_INTERVAL, 1e-3 * question["epsilon"] / question["steps"] ** 0.5)
    return {
        "fine": epsilon(question, sigma, max(fine, 2e-6)),
        "standard": epsilon(question, sigma, DEFAULT_INTERVAL),
    }


print(json.dumps([answer(question) for question in json.load(sys.stdin)]))
