"""A model loader: `mlx/tiny:SEED` is a random-weight model that is made when it is asked for.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/extensions/tiny_loader.py
Prints: valid JSON of three models, all of it nonsense.
"""

import json
import tempfile
from pathlib import Path

import litellm
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from litellm_mlx.extend import register_loader

CACHE = Path(tempfile.mkdtemp(prefix="tiny-models-"))
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 257}
CONFIG = {"model_type": "llama", "num_attention_heads": 4, "rms_norm_eps": 1e-5, **SIZES}
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


def make_tiny(name: str) -> Path:
    """Write what mlx-lm reads: config.json, weights and a tokenizer of single bytes."""
    import mlx.core as mx
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.utils import save_config, save_model

    path = CACHE / name.replace(":", "-")
    if path.exists():
        return path
    mx.random.seed(int(name.removeprefix("tiny:")))  # a ValueError reaches the caller as a 400
    save_model(path, Model(ModelArgs.from_dict(CONFIG)))
    save_config({**CONFIG, "max_position_embeddings": 2048}, path / "config.json")
    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(path / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    settings = json.dumps({**names, "chat_template": TEMPLATE})
    (path / "tokenizer_config.json").write_text(settings)
    return path


register_loader("tiny:", make_tiny)

if __name__ == "__main__":
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wish = {"json": {**schema, "additionalProperties": False}}
    for seed in range(3):
        messages = [{"role": "user", "content": "Give a number."}]
        answer = litellm.completion(f"mlx/tiny:{seed}", messages, structured_outputs=wish)
        print(json.loads(answer.choices[0].message.content))
