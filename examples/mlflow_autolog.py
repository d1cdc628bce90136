"""MLflow's traces of a DSPy program: each span, the model that it asked, and the tokens.

Run:    MLFLOW_DISABLE_TELEMETRY=true LITELLM_LOCAL_MODEL_COST_MAP=True \
            python examples/mlflow_autolog.py
Prints: the spans of one call, and its tokens.

Needs mlflow, or mlflow-skinny and pandas. The traces lie in a temporary folder here;
`mlflow.set_tracking_uri` takes a server as well.
"""

import os
import tempfile

import dspy
import mlflow

import litellm_mlx  # noqa: F401  # registers mlx/

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # mlflow-skinny brings no database


def trace_one_call(folder: str) -> mlflow.entities.Trace:
    """Run a program under autolog, and read its trace back."""
    mlflow.set_tracking_uri(f"file://{folder}")
    mlflow.set_experiment("programs")
    mlflow.dspy.autolog()
    lm = dspy.LM("mlx/smollm2-135m", temperature=0, max_tokens=64, cache=False)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        dspy.Predict("question -> year: int")(question="When did people walk on the Moon?")
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id(), flush=True)
    assert trace is not None
    return trace


def main() -> None:
    """Print what the trace says."""
    with tempfile.TemporaryDirectory() as folder:
        trace = trace_one_call(folder)
    for span in trace.data.spans:
        print("span:", span.name, span.span_type, span.model_name or "")
    usage = trace.info.token_usage
    print(f"tokens: {usage['input_tokens']} in, {usage['output_tokens']} out")


if __name__ == "__main__":
    main()
