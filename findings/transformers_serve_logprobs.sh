#!/usr/bin/env bash
# Log-probabilities asked of `transformers serve` through the openai client: the answer comes with status 200 and none in it.
#
# Seen with transformers 5.23.0, torch 2.13.0 (CPU), openai 3.57.0, fastapi 0.165.0, uvicorn 0.54.0, Python 3.11:
# chat completions with `logprobs=True, top_logprobs=5` answer with `logprobs: null`, text completions with `logprobs=5`
# likewise; `n=2` gives one choice, and a `response_format` that asks for JSON gives whatever the model says. One line in the
# server's log says that these fields were ignored, and nothing that the client sees does; a field that OpenAI does not know is
# refused with status 422.
# So a simulator that takes the expected value of an activation from the log-probabilities of the digits (as OpenAI's automated
# interpretability does) cannot tell from the status that it got none: whoever scores explanations must look into each answer.
#
# Prints what came back for each request; exits with an error when that changes.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 openai==3.57.0 \
    fastapi==0.165.0 uvicorn==0.54.0 accelerate==1.15.0 jinja2==3.1.6
cd "$folder"
export HF_HUB_OFFLINE=1
venv/bin/python - <<'PYTHON'
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
words = ["<unk>", "</s>", "user", ":", *[f"w{number}" for number in range(60)]]
raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
raw.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>", unk_token="<unk>")
tokenizer.chat_template = "{% for message in messages %}{{ message.role }} : {{ message.content }} {% endfor %}"
config = LlamaConfig(
    vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=128, bos_token_id=None, eos_token_id=1, pad_token_id=1,
)
LlamaForCausalLM(config).save_pretrained("model")
tokenizer.save_pretrained("model")
PYTHON
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/transformers serve --host 127.0.0.1 --port "$port" --device cpu > server.log 2>&1 &
server=$!
venv/bin/python - "$port" "$folder/model" <<'PYTHON'
import sys
import time

import openai

port, model = sys.argv[1:]
client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
for _ in range(240):
    try:
        client.models.list()
        break
    except openai.APIConnectionError:
        time.sleep(0.5)
    except openai.APIStatusError:
        break
chat = {"model": model, "messages": [{"role": "user", "content": "w1 w2 w3"}], "max_tokens": 4}
logprobs = client.chat.completions.create(**chat, logprobs=True, top_logprobs=5).choices
print(f"chat, logprobs=True, top_logprobs=5: logprobs is {logprobs[0].logprobs}")
text = client.completions.create(model=model, prompt="w1 w2 w3", max_tokens=4, logprobs=5).choices
print(f"completion, logprobs=5: logprobs is {text[0].logprobs}")
several = client.chat.completions.create(**chat, n=2).choices
print(f"chat, n=2: {len(several)} choice")
json = client.chat.completions.create(**chat, response_format={"type": "json_object"}).choices
print(f"chat, response_format json_object: {json[0].message.content!r}")
try:
    client.chat.completions.create(**chat, extra_body={"unheard_of": 1})
    refused = None
except openai.APIStatusError as error:
    refused = error.status_code
print(f"a field that OpenAI does not know: status {refused}")
assert logprobs[0].logprobs is None and text[0].logprobs is None, "log-probabilities come back now"
assert len(several) == 1, "several choices come back now"
assert not json[0].message.content.lstrip().startswith("{"), "answers are JSON now"
assert refused == 422, "unknown fields are answered otherwise now"
PYTHON
