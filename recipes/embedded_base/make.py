"""Make the embedded base from nothing: ``python recipes/embedded_base/make.py``.

Writes the world's text, trains the tokenizer and the network on it, and leaves a Hugging Face folder with a record of
how it came to be. No text or weight from elsewhere is used. About 35 minutes on two cores with bf16 units.
"""

import argparse
import ctypes
import ctypes.util
import hashlib
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import tokenizers
import torch
import transformers
from card import write_card
from pretrain import Settings, build, pretrain, train_tokenizer
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from world import World

HOME = Path(__file__).resolve().parents[2] / "src/tunewright/models/embedded"
RECORDED = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_folder(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save weights (bfloat16), tokenizer and generation settings, readable by everybody."""
    folder.mkdir(parents=True, exist_ok=True)
    network.to(torch.bfloat16)
    network.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    template_file = folder / "chat_template.jinja"
    if template_file.exists():  # one file fewer to lose: older and newer readers both take it from the configuration
        settings = json.loads(settings_file.read_text())
        settings["chat_template"] = template_file.read_text()
        settings_file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        template_file.unlink()
    for path in folder.iterdir():
        path.chmod(0o644 if path.is_file() else 0o755)  # safetensors creates its file readable by the owner alone


def record(folder: Path, settings: Settings, result: dict[str, float], parameters: int) -> None:
    """Write RECORD.json: where the weights come from and what they hash to."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    content = {
        "command": "python recipes/embedded_base/make.py",
        "text": "written by recipes/embedded_base (stories.py) from the seed; no external text",
        "settings": asdict(settings),
        "parameters": parameters,
        **{name: round(value, 4) for name, value in result.items()},
        "versions": versions,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "sha256": {name: digest(folder / name) for name in RECORDED},
    }
    (folder / "RECORD.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "RECORD.json").chmod(0o644)


def keep_memory() -> None:
    """Ask glibc to keep freed memory: giving every activation back to the system and faulting it in again costs a
    tenth of the time. Elsewhere than on glibc this does nothing."""
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else None
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        library.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    """Read the options and do everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HOME, help="folder of the model")
    parser.add_argument("--log", type=Path, default=Path("runs/embedded_base/loss.csv"), help="loss curve")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="optimizer steps of 2,048 tokens")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of world, text and weights")
    parser.add_argument("--threads", type=int, default=1, help="of torch; other numbers give other last bits")
    chosen = parser.parse_args()
    keep_memory()
    torch.set_num_threads(chosen.threads)
    decay = min(Settings.decay, chosen.steps // 3 + 1)
    settings = replace(Settings(), steps=chosen.steps, seed=chosen.seed, decay=decay)
    world = World(settings.seed)
    tokenizer = train_tokenizer(world, settings)
    network = build(settings)
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{parameters:,} parameters, {settings.steps} steps", flush=True)
    settings, result = pretrain(network, tokenizer, world, settings, chosen.log)
    write_folder(network, tokenizer, chosen.out)
    record(chosen.out, settings, result, parameters)
    write_card(chosen.out, asdict(settings) | result | {"parameters": parameters})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
