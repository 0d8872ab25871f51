"""One calculator's figure for one cell, printed as JSON; run in the peers' environment by benchmarks/calculators.py.

    python calculators_peers.py <calculator> <folder with config.json> <length> <attention> [checkout]

The checkout is that of LLM-Viewer's or the cookbook's repository: neither is a package. Each is asked as its
own documentation asks it: batch 1, 16 bits, prefill.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def llm_viewer(folder: str, length: int, attention: str, checkout: str) -> float:
    """What LLM-Viewer's analyzer says a prefill consumes; its Llama adapter serves Llama-like configurations."""
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    from model_analyzer import ModelAnalyzer  # pyright: ignore[reportMissingImports]

    family = json.loads(Path(folder, "config.json").read_text())["model_type"]
    if family not in ("llama", "mistral"):
        raise SystemExit(f"it has no adapter for {family}")
    analyzer = ModelAnalyzer(folder, "nvidia_H100", "configs/Llama.py")
    found = analyzer.analyze(seqlen=length, batchsize=1, use_flashattention=attention == "flash")
    return found["total_results"]["prefill"]["memory_consumption"]


def llm_analysis(folder: str, length: int, attention: str, checkout: str) -> float:
    """Weights, prefill activations and KV cache of llm-analysis; attention only changes its training figures."""
    del attention, checkout
    from llm_analysis import analysis  # pyright: ignore[reportMissingImports]
    from llm_analysis.config import (  # pyright: ignore[reportMissingImports]
        get_dtype_config_by_name,
        get_gpu_config_by_name,
        get_model_config_by_name,
    )

    found = analysis.LLMAnalysis(
        get_model_config_by_name(folder),
        get_gpu_config_by_name("a100-sxm-80gb"),
        get_dtype_config_by_name("w16a16e16"),
    ).inference(batch_size_per_gpu=1, seq_len=length, num_tokens_to_generate=1)
    parts = ("weight_memory", "prefill_activation_memory", "kv_cache_memory")
    return sum(found[f"{part}_per_gpu"] for part in parts)


def cookbook(folder: str, length: int, attention: str, checkout: str) -> float:
    """What EleutherAI's script prints for inference, to a hundredth of a GiB; it knows one attention."""
    del attention
    config = json.loads(Path(folder, "config.json").read_text())
    ratio = config["num_key_value_heads"] / config["num_attention_heads"]
    command = [
        *(sys.executable, f"{checkout}/calc/calc_transformer_mem.py", "--infer"),
        *("--hf_model_name_or_path", folder, "--sequence-length", str(length)),
        # Llama's MLP has three linear layers.
        *("--kv-size-ratio", str(ratio), "--num-mlp-linears", "3"),
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Per-GPU Memory Required for Inference: ([\d.]+) GiB", printed)
    if found is None:
        raise SystemExit("it printed no total")
    return float(found[1]) * 2**30


def accelerate(folder: str, length: int, attention: str, checkout: str) -> float:
    """Weights as accelerate sizes them, and its documentation's rule: inference takes up to 20 % more."""
    del length, attention, checkout
    import torch
    from accelerate import init_empty_weights  # pyright: ignore[reportMissingImports]
    from accelerate.utils import calculate_maximum_sizes  # pyright: ignore[reportMissingImports]
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return 1.2 * calculate_maximum_sizes(model.to(torch.bfloat16))[0]


CALCULATORS: dict[str, Callable[[str, int, str, str], float]] = {
    "LLM-Viewer": llm_viewer,
    "llm-analysis": llm_analysis,
    "EleutherAI cookbook": cookbook,
    "accelerate and 20 %": accelerate,
}


def main() -> None:
    """Prints `{"bytes": …}`."""
    name, folder, length, attention, *rest = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        found = CALCULATORS[name](folder, int(length), attention, rest[0] if rest else "")
    print(json.dumps({"bytes": round(found)}))


if __name__ == "__main__":
    main()
