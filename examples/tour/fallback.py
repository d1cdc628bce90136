"""Fallback: what fails locally goes to a cloud, and what fails in the cloud is answered locally.

Idea:   of the early designs, a handler that takes another model's answer when the first one fails.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/fallback.py
Prints: what was asked for, and the answer that came.

The cloud is a server on this machine that knows one sentence; put a real one's name and key there.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import litellm

import litellm_mlx  # noqa: F401  # registers mlx/

QUESTION = [{"role": "user", "content": "Name a colour."}]
FALLBACKS = [{"missing": ["cloud"]}, {"unreachable": ["local"]}]


class Cloud(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Answer every chat alike."""
        message = {"role": "assistant", "content": "Blue, says the cloud."}
        body = litellm.ModelResponse(choices=[{"message": message}]).model_dump_json().encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Ask for each name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    models = {
        "local": {"model": "mlx/smollm2-135m"},
        "missing": {"model": "mlx//no/such/model"},
        "cloud": {"model": "openai/any", "api_base": url, "api_key": "none"},
        "unreachable": {"model": "openai/any", "api_base": "http://127.0.0.1:9", "api_key": "none"},
    }
    listed = [{"model_name": name, "litellm_params": params} for name, params in models.items()]
    router = litellm.Router(model_list=listed, fallbacks=FALLBACKS, num_retries=0)
    for name in ("local", "missing", "unreachable"):
        answer = router.completion(name, QUESTION, max_tokens=16, temperature=0)
        print(f"{name}: {answer.choices[0].message.content!r}")


if __name__ == "__main__":
    main()
